"""Candidates to Argilla: each (task, instance) one review record, by its external id. `due.py` says which, and to whom.

Pushing again changes nothing, also after a kill in the middle: records go in by external id, then the pool notes them
in one transaction with the tasks' move to `in_review`. What the pool has noted is not sent again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import ReviewRefusedError
from ..pool.pool import TaskPool
from ..pool.reviews import ReviewDataset, ReviewRecord, Reviews
from ..recipe import Review
from ..tasks import Status, Task, Verdict, external_id, split_external_id
from .calibration import Calibration, disguise
from .dataset import open_dataset
from .due import Entry, assign, choose, mix, share_out, worth
from .records import Opinion, content_hash, record_context, record_item, record_metadata
from .rubric import Rubric
from .team import check_annotators

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient, Upserted

Progress = Callable[[str, float | None], None]
_BATCH_RECORDS = 200
_BATCH_BYTES = 4_000_000


@dataclass(frozen=True)
class PushResult:
    """Review records: `pushed` now, `unchanged` since before, `total` in Argilla; calibration records are counted by
    themselves, in Argilla. `waiting`: candidates that are not due yet. `refused`: what Argilla would not take, external
    id → its reason."""

    pushed: int
    unchanged: int
    total: int
    calibration: int
    waiting: int
    refused: dict[str, str]
    dataset: str
    url: str


def push(
    pool: TaskPool,
    review: Review,
    client: ArgillaClient,
    *,
    dataset: str,
    rubric: Rubric,
    language: str = "en",
    distilled: bool = True,
    opinions: Mapping[str, Opinion] = MappingProxyType({}),
    calibration: Sequence[Calibration] = (),
    progress: Progress = lambda message, fraction: None,
) -> PushResult:
    """Every candidate that is due to the review dataset, which is made where it is missing; distilled ones only where
    asked. opinions: a judge model's, by record; calibration: records with known answers to mix in.

    Raises ReviewUnavailableError and ReviewRefusedError; what was pushed before stays, and the next push goes on.
    """
    opened = open_dataset(client, pool, review, name=dataset, rubric=rubric, language=language)
    question_ids = {question["name"]: str(question["id"]) for question in client.questions(opened.id)}
    missing = [question.name for question in rubric.questions if question.name not in question_ids]
    if missing:
        raise ReviewRefusedError(
            f"the Argilla dataset {dataset!r} has no question {missing[0]!r}",
            hint="Name a new dataset: review.argilla.dataset in the recipe.",
        )
    check_annotators(review, client.usernames(client.workspace_id(opened.workspace)) if review.annotators else {})
    candidates = [task for task in pool.tasks(Status.CANDIDATE) if distilled or task.distilled_from is None]
    entries = _due(pool, review, opened, candidates, _orphans(pool, client, opened), calibration, opinions, rubric)
    tasks = [entry.task for entry in entries]
    nearest = {task.id: task.instruction for task in pool.tasks(ids=sorted({t.nearest for t in tasks if t.nearest}))}
    records = sum(len(entry.instances) for entry in entries)
    unchanged = _count(pool, opened.id)
    refused: dict[str, str] = {}
    sent = 0
    for batch in _batches(_items(entries, rubric, question_ids, nearest, language, opinions)):
        progress("Pushing to Argilla", sent / records)
        result = client.upsert(opened.id, batch.items)
        refused.update(result.refused)
        _note(pool, opened, batch.entries, result, rubric, opinions)
        sent += len(batch.items)
    if records:
        progress("Pushing to Argilla", 1.0)
    _reassign(pool, client, opened, review)
    total = _count(pool, opened.id)
    return PushResult(
        pushed=total - unchanged,
        unchanged=unchanged,
        total=total,
        calibration=_count(pool, opened.id, gold=True),
        waiting=len(candidates) - len({task.id for task in tasks} & {task.id for task in candidates}),
        refused=refused,
        dataset=dataset,
        url=opened.url,
    )


def _due(
    pool: TaskPool,
    review: Review,
    opened: ReviewDataset,
    candidates: Sequence[Task],
    orphans: Sequence[Entry],
    calibration: Sequence[Calibration],
    opinions: Mapping[str, Opinion],
    rubric: Rubric,
) -> list[Entry]:
    """What goes out now: tasks that wait in a dataset that is gone, then candidates, with calibration among them."""
    before = pool.reviews.records(opened.id)
    waiting = sum(record.state == "present" and record.verdict is Verdict.PENDING for record in before)
    by_task = {
        task.id: [opinions[key] for key in (external_id(task.id, n) for n in range(len(task.instances)))]
        for task in candidates
        if all(external_id(task.id, n) in opinions for n in range(len(task.instances)))
    }
    chosen = choose(
        candidates,
        review,
        reviewed=len({record.task_id for record in before} | {entry.task.id for entry in orphans}),
        waiting=waiting + sum(len(entry.instances) for entry in orphans),
        worth={task_id: worth(found, rubric) for task_id, found in by_task.items()},
    )
    due = [*orphans, *chosen]
    if due:
        known = {record.task_id for record in pool.reviews.records(opened.id, gold=True)}
        fresh = [item for item in calibration if item.task.id not in known]
        like = disguise([entry.task for entry in due], [item.task for item in fresh])
        due = mix(due, [Entry(task, (0,), gold=item.answers) for task, item in zip(like, fresh, strict=True)])
    return share_out(
        due,
        review,
        records=len(before),
        several=sum(record.several for record in before),
        loads=Counter(name for record in before if record.state == "present" for name in record.assigned),
    )


@dataclass
class _Batch:
    """Whole tasks and their records."""

    entries: list[Entry]
    items: list[dict[str, Any]]


def _items(
    entries: Sequence[Entry],
    rubric: Rubric,
    question_ids: dict[str, str],
    nearest: dict[str, str],
    language: str,
    opinions: Mapping[str, Opinion],
) -> Iterator[tuple[Entry, list[dict[str, Any]]]]:
    for entry in entries:
        task = entry.task
        context = record_context(task, nearest.get(task.nearest or ""), language)
        yield (
            entry,
            [
                record_item(
                    task,
                    number,
                    rubric=rubric,
                    question_ids=question_ids,
                    context=context,
                    assigned=entry.assigned[number],
                    opinion=opinions.get(external_id(task.id, number)),
                )
                for number in entry.instances
            ],
        )


def _batches(tasks: Iterator[tuple[Entry, list[dict[str, Any]]]]) -> Iterator[_Batch]:
    """Batches bounded in records and bytes: a server needs up to 10 ms a record, and its clients give up after 60 s."""
    batch, size = _Batch([], []), 0
    for entry, items in tasks:
        more = len(json.dumps(items))
        if batch.items and (len(batch.items) + len(items) > _BATCH_RECORDS or size + more > _BATCH_BYTES):
            yield batch
            batch, size = _Batch([], []), 0
        batch.entries.append(entry)
        batch.items += items
        size += more
    if batch.items:
        yield batch


def _note(
    pool: TaskPool,
    dataset: ReviewDataset,
    entries: Sequence[Entry],
    result: Upserted,
    rubric: Rubric,
    opinions: Mapping[str, Opinion],
) -> None:
    """The pool remembers what Argilla took; another push may have been faster, and its notes stay."""
    by_id = {entry.task.id: entry for entry in entries}
    taken = [split_external_id(external) for external in result.server_ids]
    with pool.write() as writer:
        known = {
            (record.task_id, record.instance)
            for records in Reviews.records_of(writer.connection, by_id).values()
            for record in records
            if record.dataset_id == dataset.id
        }
        fresh = [
            ReviewRecord(
                task_id=task_id,
                instance=instance,
                dataset_id=dataset.id,
                server_id=result.server_ids[external_id(task_id, instance)],
                content_hash=content_hash(by_id[task_id].task, instance),
                rubric_version=rubric.version,
                several=instance in by_id[task_id].several,
                assigned=by_id[task_id].assigned[instance],
                suggested=opinion.answers if (opinion := opinions.get(external_id(task_id, instance))) else None,
                gold=by_id[task_id].gold,
            )
            for task_id, instance in taken
            if (task_id, instance) not in known
        ]
        Reviews.save_records(writer.connection, fresh)
        writer.mark_pushed(sorted({record.task_id for record in fresh if record.gold is None}))


def _reassign(pool: TaskPool, client: ArgillaClient, opened: ReviewDataset, review: Review) -> None:
    """Records that nobody has begun, of annotators whom the recipe no longer names, go to the others."""
    if not review.annotators:
        return
    team = set(review.annotators)
    begun = {
        (response.task_id, response.instance) for response in pool.reviews.responses() if response.status != "deleted"
    }
    records = [record for record in pool.reviews.records(opened.id) if record.state == "present"]
    burden = Counter(dict.fromkeys(review.annotators, 0))
    burden.update(name for record in records for name in record.assigned if name in team)
    changed = []
    for record in records:
        if set(record.assigned) - team and (record.task_id, record.instance) not in begun:
            stay = [name for name in record.assigned if name in team]
            others = {name: load for name, load in burden.items() if name not in stay}
            fill = assign(external_id(record.task_id, record.instance), len(record.assigned) - len(stay), others)
            burden.update(fill)
            changed.append(replace(record, assigned=tuple(sorted([*stay, *fill]))))
    for start in range(0, len(changed), _BATCH_RECORDS):
        some = changed[start : start + _BATCH_RECORDS]
        tasks = {task.id: task for task in pool.tasks(ids=sorted({record.task_id for record in some}))}
        items = [
            {
                "external_id": external_id(record.task_id, record.instance),
                "metadata": record_metadata(
                    tasks[record.task_id], record.resolution or record.verdict, record.assigned
                ),
            }
            for record in some
        ]
        taken = client.upsert(opened.id, items).server_ids
        with pool.write() as writer:
            Reviews.set_assigned(
                writer.connection,
                {
                    (record.task_id, record.instance): record.assigned
                    for record in some
                    if external_id(record.task_id, record.instance) in taken
                },
            )


def _orphans(pool: TaskPool, client: ArgillaClient, opened: ReviewDataset) -> list[Entry]:
    """Tasks that wait for people in a dataset that was deleted in this Argilla: they are pushed again, as they were."""
    gone = [
        known.id
        for known in pool.reviews.datasets()
        if known.id != opened.id and known.name == opened.name and known.api_url == opened.api_url
        and client.dataset(known.id) is None
    ]  # fmt: skip
    instances: dict[str, list[int]] = {}
    for dataset_id in gone:
        for record in pool.reviews.records(dataset_id):
            instances.setdefault(record.task_id, []).append(record.instance)
    if not instances:
        return []
    originals = pool.originals()
    return [
        Entry(originals.get(task.id, task), tuple(instances[task.id]))
        for task in pool.tasks(ids=sorted(instances))
        if task.status in (Status.IN_REVIEW, Status.CONFLICT)
    ]


def _count(pool: TaskPool, dataset_id: str, *, gold: bool = False) -> int:
    return sum(record.state == "present" for record in pool.reviews.records(dataset_id, gold=gold))
