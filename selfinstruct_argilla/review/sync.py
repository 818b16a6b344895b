"""People's answers from Argilla into the pool: responses → verdict of each record → status and texts of each task.

Every sync reads all records with all responses and compares them with what the pool has seen: times in Argilla do
not tell what changed. First each new state of a response is stored (that is the history of who said what), then every
task whose responses or rules changed is worked out again from what is stored. A sync cut short is finished by the next
one. Of two syncs at once, one that finds the pool changed under it reads its page again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import ReviewRefusedError
from ..pool.pool import PoolWriter, TaskPool, load_originals, load_tasks
from ..pool.reviews import Response, ReviewDataset, ReviewRecord, Reviews, Seen
from ..recipe import Review
from ..tasks import Status, Task, Verdict, digest, external_id, split_external_id
from .adjudication import lay_before
from .background import in_background
from .dataset import check_structure, complete_metadata, find_dataset
from .records import record_fields, record_metadata
from .resolution import Policy, Resolution, Vote, resolve, resolve_task
from .rubric import Rubric, judge

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient

Progress = Callable[[str, float | None], None]
Check = Callable[[Task], str | None]
_Page = tuple[list[dict[str, Any]], int]  # records of Argilla, and how many there are
_TASKS_AT_ONCE = 200
_RECORDS_AT_ONCE = 200
_DELETED = "deleted"


@dataclass
class SyncResult:
    """What a sync found.

    changed: tasks whose status, texts or verdicts are new. responses: new states of responses (also drafts, discards
    and deletions). accepted, rejected, conflicts, pending, withdrawn: reviewed tasks as they now stand, `pending`
    those that wait for answers; edited: those that people changed. discarded: records that everybody who answered
    discarded (they stay pending: somebody else must look). flagged: tasks edited in this sync that fail a filter, with
    the reason; people's word stands. unknown_adjudicators: names in the recipe of nobody in the workspace.
    """

    changed: int = 0
    responses: int = 0
    accepted: int = 0
    rejected: int = 0
    conflicts: int = 0
    pending: int = 0
    withdrawn: int = 0
    edited: int = 0
    discarded: int = 0
    flagged: list[tuple[str, str]] = field(default_factory=list)
    unknown_adjudicators: list[str] = field(default_factory=list)
    dataset: str = ""
    url: str = ""


def sync(
    pool: TaskPool,
    review: Review,
    client: ArgillaClient,
    *,
    dataset: str,
    rubric: Rubric,
    check: Check = lambda task: None,
    progress: Progress = lambda message, fraction: None,
) -> SyncResult:
    """The pool after people's answers, exactly.

    check: says why an edited task fails a filter or is no longer novel, or None.
    Raises ReviewUnavailableError and ReviewRefusedError; what was read before is kept, and the next sync goes on.
    """
    opened = known_dataset(pool, review, client, name=dataset, rubric=rubric)
    meaning = rubric.model_dump(mode="json", by_alias=True)
    if opened.rubric != meaning:  # what is said of the answers follows at once, their wording in Argilla with a push
        with pool.write() as writer:
            Reviews.save_dataset(writer.connection, replace(opened, rubric=meaning))
    workspace_id = client.workspace_id(opened.workspace)
    names = client.usernames(workspace_id)
    judges = client.judges(workspace_id) if review.adjudicators else {}
    if renamed := pool.reviews.renamed(names):
        with pool.write() as writer:
            Reviews.rename(writer.connection, opened.id, renamed)
    reader = _Reader(pool, client, opened, rubric, names)
    _read(reader, progress)
    result = SyncResult(responses=reader.new_states, dataset=dataset, url=opened.url)
    result.unknown_adjudicators = sorted(set(review.adjudicators) - set(judges.values())) if judges else []
    rules = _Rules(rubric, Policy(review.resolution, review.min_submitted, frozenset(review.adjudicators)))
    _apply(pool, opened, rules, check=check, result=result, progress=progress)
    _mark_resolutions(pool, client, opened)
    if review.resolution == "adjudicated":
        desks = [user_id for user_id, name in judges.items() if name in review.adjudicators]
        lay_before(pool, client, opened, rubric, desks)
    _count(pool, result)
    return result


def known_dataset(pool: TaskPool, review: Review, client: ArgillaClient, *, name: str, rubric: Rubric) -> ReviewDataset:
    """The dataset that the pool's records are in. Raises ReviewRefusedError where there is none (any more)."""
    known = [d for d in pool.reviews.datasets() if d.name == name and d.workspace == review.argilla.workspace]
    if not known:
        raise ReviewRefusedError(
            f"nothing was pushed to the Argilla dataset {name!r} yet", hint="sia push RECIPE puts the candidates there."
        )
    found = find_dataset(client, pool, review, name)
    opened = next((dataset for dataset in known if found is not None and dataset.id == str(found["id"])), None)
    if opened is None:
        raise ReviewRefusedError(
            f"the Argilla dataset {name!r} is not at {client.api_url} any more; the answers synced before are kept",
            hint="Check the address. If it was deleted: sia push RECIPE makes it again with what nobody has judged.",
        )
    check_structure(opened, rubric)
    return opened


# reading ------------------------------------------------------------------------------------------


def _read(reader: _Reader, progress: Progress) -> None:
    """Stores every state of a response that is new."""
    missing = {key: record for key, record in reader.known.items() if record.state == "present"}
    total = len(missing)
    pages = _Pages(reader.client, reader.dataset.id)
    offset, end = 0, 1
    while offset < end:
        items, end = reader.read(lambda offset=offset: pages.ask(offset), pages.asked)  # type: ignore[misc]
        if not items:
            break
        offset += len(items)
        for item in items:
            missing.pop(item["external_id"], None)
        progress("Reading answers", 1 - len(missing) / total if total else None)
    # not seen: deleted, or passed over because others were deleted while we read
    for key, record in missing.items():
        found, _ = reader.read(lambda record=record: _one(reader.client, record))  # type: ignore[misc]
        if not found:
            reader.mark_deleted(key)


class _Pages:
    """Pages of the dataset; while one is worked on, the next one is on its way."""

    def __init__(self, client: ArgillaClient, dataset_id: str) -> None:
        self._client, self._dataset_id = client, dataset_id
        self.asked: Callable[[], _Page] | None = None

    def ask(self, offset: int) -> _Page:
        return self._take(offset, self._client.record_page(self._dataset_id, offset))

    def _take(self, offset: int, page: _Page) -> _Page:
        items, total = page
        following = offset + len(items)
        self.asked = None
        if items and following < total:
            answer = in_background(lambda: self._client.record_page(self._dataset_id, following))
            self.asked = lambda: self._take(following, answer.result())
        return page


def _one(client: ArgillaClient, record: Seen) -> _Page:
    found = client.record(record.server_id)
    return ([found], 1) if found is not None else ([], 0)


class _Reader:
    """Compares what Argilla says with what the pool has seen, and stores the difference.

    The dataset's generation in the pool tells whether another sync stored something between our asking Argilla and our
    writing: then what we hold may be older than what is stored, and is asked for again.
    """

    def __init__(
        self, pool: TaskPool, client: ArgillaClient, dataset: ReviewDataset, rubric: Rubric, names: dict[str, str]
    ) -> None:
        self.pool = pool
        self.client = client
        self.dataset = dataset
        self.new_states = 0
        self._rubric_version = rubric.version
        self._names = names
        self._generation = -1
        self.known: dict[str, Seen] = {}
        self._refresh()

    def read(self, ask: Callable[[], _Page], asked: Callable[[], _Page] | None = None) -> _Page:
        """The answer of `ask` (records of Argilla, and how many there are), its news stored. asked: gives the answer
        where that was asked for since this reader last looked at the pool."""
        while True:
            if asked is not None:
                (items, total), asked = asked(), None
            else:
                self._refresh()
                items, total = ask()
            changed = [item for item in items if self._is_news(item)]
            if not changed:
                return items, total
            with self.pool.write() as writer:
                if Reviews.generation(writer.connection, self.dataset.id) == self._generation:
                    self._store(writer, changed)
                    return items, total

    def mark_deleted(self, key: str) -> None:
        """The record is not in Argilla any more; its responses went with it."""
        with self.pool.write() as writer:
            record = self._records(writer, [key])[0]
            current = Reviews.current_responses(writer.connection, [record.task_id])
            lost = _lost(current.get((record.task_id, record.instance), {}), still_there=())
            self._save(writer, [replace(record, state=_DELETED, digest=_DELETED)], lost)

    def _refresh(self) -> None:
        """What the pool knows, read again where another process changed it."""
        generation = self.pool.reviews.dataset_generation(self.dataset.id)
        if generation != self._generation:
            self._generation = generation
            self.known = self.pool.reviews.seen(self.dataset.id)

    def _is_news(self, item: dict[str, Any]) -> bool:
        record = self.known.get(item["external_id"])
        return record is not None and (
            (record.state, record.server_id, record.digest) != ("present", str(item["id"]), _digest(item))
        )

    def _store(self, writer: PoolWriter, items: Sequence[dict[str, Any]]) -> None:
        records = self._records(writer, [item["external_id"] for item in items])
        current = Reviews.current_responses(writer.connection, {record.task_id for record in records})
        states, changed = [], []
        for item, record in zip(items, records, strict=True):
            before = current.get((record.task_id, record.instance), {})
            there = [self._response(record, response) for response in item.get("responses") or ()]
            states += [response for response in there if _differs(before.get(response.user_id), response)]
            states += _lost(before, still_there={response.user_id for response in there})
            changed.append(replace(record, state="present", server_id=str(item["id"]), digest=_digest(item)))
        self._save(writer, changed, states)

    def _records(self, writer: PoolWriter, keys: Sequence[str]) -> list[ReviewRecord]:
        places = [split_external_id(key) for key in keys]
        found = Reviews.records_of(writer.connection, {task_id for task_id, _ in places})
        stored = {(r.task_id, r.instance): r for records in found.values() for r in records}
        return [stored[place] for place in places]

    def _save(self, writer: PoolWriter, records: Sequence[ReviewRecord], states: Sequence[Response]) -> None:
        Reviews.add_responses(writer.connection, states)
        Reviews.save_records(writer.connection, records)
        Reviews.next_generation(writer.connection, self.dataset.id)
        self._generation += 1
        self.new_states += len(states)
        self.known.update({external_id(r.task_id, r.instance): Seen(r.server_id, r.state, r.digest) for r in records})

    def _response(self, record: ReviewRecord, response: dict[str, Any]) -> Response:
        user_id = str(response["user_id"])
        return Response(
            task_id=record.task_id,
            instance=record.instance,
            user_id=user_id,
            username=self._names.get(user_id),
            status=response["status"],
            values=_values(response),
            updated_at=response.get("updated_at"),
            rubric_version=self._rubric_version,
        )


def _values(response: dict[str, Any]) -> dict[str, Any]:
    """Answers by question; a discard or draft may have none at all."""
    return {name: answer.get("value") for name, answer in (response.get("values") or {}).items()}


def _digest(item: dict[str, Any]) -> str:
    """Names what everybody has said about a record, and when; empty where nobody has."""
    responses = item.get("responses")
    if not responses:
        return ""
    return digest(sorted([str(r["user_id"]), r["status"], _values(r), r.get("updated_at")] for r in responses))


def _differs(before: Response | None, after: Response) -> bool:
    if before is None:
        return True
    return (before.status, before.values, before.updated_at) != (after.status, after.values, after.updated_at)


def _lost(before: Mapping[str, Response], still_there: Iterable[str]) -> list[Response]:
    """Responses that are gone from Argilla: deleted by their author or an admin, or with their author."""
    kept = set(still_there)
    return [
        replace(response, status=_DELETED, values={})
        for user_id, response in before.items()
        if user_id not in kept and response.status != _DELETED
    ]


# applying -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rules:
    """What answers mean and how they become a verdict."""

    rubric: Rubric
    policy: Policy

    @property
    def digest(self) -> str:
        policy = self.policy
        parts = [self.rubric.meaning, policy.rule, policy.min_submitted, sorted(policy.adjudicators)]
        return digest(parts)[:12]

    def votes(self, original: Task, record: ReviewRecord, answers: Iterable[Response]) -> list[Vote]:
        fields = record_fields(original, record.instance)
        return [
            Vote(answer.username or answer.user_id, judge(self.rubric, answer.values, fields))
            for answer in answers
            if answer.status == "submitted"
        ]

    def resolution(self, record: ReviewRecord, votes: Sequence[Vote]) -> Resolution | None:
        """What a record comes to; None where it was deleted in Argilla."""
        if record.state == _DELETED:
            return None
        return resolve(votes, self.policy if record.several else replace(self.policy, min_submitted=1))


def _apply(
    pool: TaskPool, dataset: ReviewDataset, rules: _Rules, *, check: Check, result: SyncResult, progress: Progress
) -> None:
    """Works out again every task whose answers, or the rules for them, are not those that its verdict rests on."""
    version = rules.digest
    tasks = pool.reviews.unapplied(dataset.id, version)
    for start in range(0, len(tasks), _TASKS_AT_ONCE):
        progress("Applying verdicts", start / len(tasks))
        some = tasks[start : start + _TASKS_AT_ONCE]
        with pool.write() as writer:
            records = Reviews.records_of(writer.connection, some)
            responses = Reviews.current_responses(writer.connection, some)
            originals = load_originals(writer.connection, some)
            judged, reviewed, flags = [], [], {}
            for task in load_tasks(writer.connection, ids=some):
                original = originals.get(task.id, task)
                mine = []
                resolutions: dict[int, Resolution | None] = {}
                ayes = noes = 0
                for record in records[task.id]:
                    votes = rules.votes(original, record, responses.get((task.id, record.instance), {}).values())
                    resolution = resolutions[record.instance] = rules.resolution(record, votes)
                    if resolution is not None:
                        ayes += sum(vote.judgement.accepted for vote in votes)
                        noes += sum(not vote.judgement.accepted for vote in votes)
                    verdict = resolution.verdict if resolution is not None else Verdict.PENDING
                    mine.append(replace(record, verdict=verdict, applied=f"{version}:{record.digest}"))
                after = replace(resolve_task(original, resolutions), votes=(ayes, noes))
                if after.status is Status.CONFLICT:
                    mine = _conflicting(mine)
                judged += mine
                if task.status is Status.WITHDRAWN:
                    continue  # all its records were deleted before, and that is final
                reviewed.append(after)
                edited = after.content_hash != task.content_hash
                reason = check(after) if edited and after.status is Status.ACCEPTED else None
                if reason is not None:
                    result.flagged.append((task.id, reason))
                    flags[task.id] = {"flagged": reason}
            result.changed += writer.apply_reviews(reviewed, details=flags)
            Reviews.save_records(writer.connection, judged)
            Reviews.next_generation(writer.connection, dataset.id)


def _conflicting(records: Sequence[ReviewRecord]) -> list[ReviewRecord]:
    """The records of a task in conflict. Where each is agreed on by itself, they mend the same instruction in different
    ways: then those accepted are what is to be settled."""
    if any(record.verdict is Verdict.CONFLICT for record in records):
        return list(records)
    return [
        replace(record, verdict=Verdict.CONFLICT) if record.verdict is Verdict.ACCEPTED else record
        for record in records
    ]


def _mark_resolutions(pool: TaskPool, client: ArgillaClient, dataset: ReviewDataset) -> None:
    """The metadata `resolution` of records follows their verdict, so that an adjudicator can filter for conflicts."""
    outdated = pool.reviews.outdated(dataset.id)
    if outdated:
        complete_metadata(client, dataset.id)
    for start in range(0, len(outdated), _RECORDS_AT_ONCE):
        some = outdated[start : start + _RECORDS_AT_ONCE]
        tasks = {task.id: task for task in pool.tasks(ids=sorted({record.task_id for record in some}))}
        items = [
            {
                "external_id": external_id(record.task_id, record.instance),
                "metadata": record_metadata(tasks[record.task_id], record.verdict, record.assigned),
            }
            for record in some
        ]
        with pool.write() as writer:  # if we end before Argilla's answer is noted, the next sync writes them again
            Reviews.set_resolutions(writer.connection, {(r.task_id, r.instance): None for r in some})
        taken = client.upsert(dataset.id, items).server_ids  # without those deleted since
        with pool.write() as writer:
            done = {
                (record.task_id, record.instance): record.verdict
                for record in some
                if external_id(record.task_id, record.instance) in taken
            }
            Reviews.set_resolutions(writer.connection, done)


def _count(pool: TaskPool, result: SyncResult) -> None:
    """Where the reviewed tasks stand now."""
    counts = pool.reviews.task_counts()
    result.accepted = counts[Status.ACCEPTED]
    result.rejected = counts[Status.REJECTED]
    result.conflicts = counts[Status.CONFLICT]
    result.pending = counts[Status.IN_REVIEW]
    result.withdrawn = counts[Status.WITHDRAWN]
    result.edited = pool.reviews.edited_tasks()
    result.discarded = pool.reviews.discarded_records()
