"""Candidates to Argilla: each (task, instance) one review record, by its external id. `due.py` says which, and to whom.

Pushing again changes nothing, also after a kill in the middle: records go in by external id, then the pool notes them
in one transaction with the tasks' move to `in_review`. What the pool has noted is not sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ReviewRefusedError
from ..pool.engine import in_parts
from ..pool.pool import TaskPool
from ..pool.reviews import Load, ReviewDataset, ReviewRecord, Reviews
from ..recipe import Review
from ..tasks import Status, Task, external_id, split_external_id
from .background import in_background
from .calibration import NEIGHBOURS, Calibration, disguise
from .dataset import open_dataset
from .due import Entry, assign, choose, draw, mix, share_out, worth
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
    judge: Callable[[Sequence[Entry]], Mapping[str, Opinion]] | None = None,
    calibration: Sequence[Calibration] = (),
    progress: Progress = lambda message, fraction: None,
) -> PushResult:
    """Every candidate that is due to the review dataset, which is made where it is missing; distilled ones only where
    asked. judge: gives a judge model's opinions, by record; calibration: records with known answers to mix in.

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
    if review.annotators:
        check_annotators(review, client.judges(client.workspace_id(opened.workspace)))
    opinions = judge(_draw(pool, review, client, opened, distilled=distilled).drawn) if judge is not None else {}
    found = _draw(pool, review, client, opened, distilled=distilled)  # as it is now: asking takes time
    load = found.load
    chosen = choose(
        found.drawn,
        review,
        waiting=load.waiting + sum(len(entry.instances) for entry in found.orphans),
        worth=_worth(found.drawn, opinions, rubric),
    )
    waiting = found.candidates - len(chosen)
    due = [*found.orphans, *chosen]
    del found, chosen  # there may be many
    gold = _calibration(pool, opened, due, calibration)
    due = mix(due, [Entry(item.task.id, (0,), gold=item.answers) for item in gold])
    fakes = {item.task.id: item.task for item in gold}
    shared = share_out(due, review, records=load.records, several=load.several, loads=load.assigned)
    records = sum(len(entry.instances) for entry in due)
    unchanged = pool.reviews.count(opened.id)
    refused: dict[str, str] = {}
    sent = 0
    batches = _batches(_items(pool, shared, fakes, rubric, question_ids, language, opinions))
    for batch, result in _send(client, opened.id, batches):
        refused.update(result.refused)
        _note(pool, opened, batch, result, rubric, opinions)
        sent += len(batch.items)
        progress("Pushing to Argilla", sent / records)
    _reassign(pool, client, opened, review)
    total = pool.reviews.count(opened.id)
    return PushResult(
        pushed=total - unchanged,
        unchanged=unchanged,
        total=total,
        calibration=pool.reviews.count(opened.id, gold=True),
        waiting=waiting,
        refused=refused,
        dataset=dataset,
        url=opened.url,
    )


class _Drawn(NamedTuple):
    """What may go out: tasks that wait in a dataset that is gone, and what was drawn of so many candidates."""

    orphans: list[Entry]
    drawn: list[Entry]
    candidates: int
    load: Load


def _draw(pool: TaskPool, review: Review, client: ArgillaClient, opened: ReviewDataset, *, distilled: bool) -> _Drawn:
    orphans = _orphans(pool, client, opened)
    load = pool.reviews.load(opened.id)
    candidates = [task for task in pool.outlines(Status.CANDIDATE) if distilled or not task.distilled]
    return _Drawn(orphans, draw(candidates, review, reviewed=load.tasks + len(orphans)), len(candidates), load)


def _worth(entries: Iterable[Entry], opinions: Mapping[str, Opinion], rubric: Rubric) -> dict[str, float]:
    """How likely tasks are accepted, by id, where a judge model was asked about all their records."""
    return {
        entry.task_id: worth([opinions[key] for key in entry.records], rubric)
        for entry in (entries if opinions else ())
        if all(key in opinions for key in entry.records)
    }


def _calibration(
    pool: TaskPool, opened: ReviewDataset, due: Sequence[Entry], calibration: Sequence[Calibration]
) -> list[Calibration]:
    """What is not in the dataset yet, made to look like the tasks that are due. Known answers that were corrected since
    are those of the records that are there."""
    known = {record.task_id: record for record in pool.reviews.records(opened.id, gold=True)} if calibration else {}
    corrected = [
        replace(known[item.task.id], gold=item.answers)
        for item in calibration
        if item.task.id in known and known[item.task.id].gold != item.answers
    ]
    if corrected:
        with pool.write() as writer:
            Reviews.save_records(writer.connection, corrected)
            Reviews.next_generation(writer.connection, opened.id)
    fresh = [item for item in calibration if item.task.id not in known]
    if not due or not fresh:
        return []
    neighbours = [entry.task_id for entry in due[:NEIGHBOURS]]
    tasks = pool.shown(neighbours)
    like = disguise([tasks[task_id] for task_id in neighbours], [item.task for item in fresh])
    return [replace(item, task=task) for item, task in zip(fresh, like, strict=True)]


@dataclass
class _Batch:
    """Whole tasks and their records."""

    tasks: list[tuple[Entry, Task]]
    items: list[dict[str, Any]]


def _items(
    pool: TaskPool,
    entries: Iterable[Entry],
    fakes: Mapping[str, Task],
    rubric: Rubric,
    question_ids: dict[str, str],
    language: str,
    opinions: Mapping[str, Opinion],
) -> Iterator[tuple[Entry, Task, list[dict[str, Any]]]]:
    """The records of each entry; the texts of some tasks at a time are in memory."""
    for some in in_parts(entries, _BATCH_RECORDS):
        tasks = {**pool.shown([entry.task_id for entry in some]), **fakes}
        near = {task.nearest for entry in some if (task := tasks[entry.task_id]).nearest is not None}
        nearest = {task.id: task.instruction for task in pool.tasks(ids=sorted(near))}
        for entry in some:
            task = tasks[entry.task_id]
            context = record_context(task, nearest.get(task.nearest or ""), language)
            items = [
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
            ]
            yield entry, task, items


def _batches(records: Iterable[tuple[Entry, Task, list[dict[str, Any]]]]) -> Iterator[_Batch]:
    """Batches bounded in records and bytes: a server needs up to 10 ms a record, and its clients give up after 60 s."""
    batch, size = _Batch([], []), 0
    for entry, task, items in records:
        more = len(json.dumps(items))
        if batch.items and (len(batch.items) + len(items) > _BATCH_RECORDS or size + more > _BATCH_BYTES):
            yield batch
            batch, size = _Batch([], []), 0
        batch.tasks.append((entry, task))
        batch.items += items
        size += more
    if batch.items:
        yield batch


def _send(client: ArgillaClient, dataset_id: str, batches: Iterable[_Batch]) -> Iterator[tuple[_Batch, Upserted]]:
    """Each batch with Argilla's answer. While one is on its way, the one before is noted and the next one prepared."""
    before: tuple[_Batch, Future[Upserted]] | None = None
    for batch in batches:
        answered = (before[0], before[1].result()) if before else None
        before = batch, in_background(partial(client.upsert, dataset_id, batch.items))
        if answered:
            yield answered
    if before:
        yield before[0], before[1].result()


def _note(
    pool: TaskPool,
    dataset: ReviewDataset,
    batch: _Batch,
    result: Upserted,
    rubric: Rubric,
    opinions: Mapping[str, Opinion],
) -> None:
    """The pool remembers what Argilla took; another push may have been faster, and its notes stay."""
    by_id = {task.id: (entry, task) for entry, task in batch.tasks}
    with pool.write() as writer:
        noted = [record for some in Reviews.records_of(writer.connection, by_id).values() for record in some]
        there = {external_id(record.task_id, record.instance): record.dataset_id for record in noted}
        fresh = []
        for key, server_id in result.server_ids.items():
            if there.get(key) == dataset.id:
                continue
            task_id, instance = split_external_id(key)
            entry, task = by_id[task_id]
            opinion = opinions.get(key)
            fresh.append(
                ReviewRecord(
                    task_id=task_id,
                    instance=instance,
                    dataset_id=dataset.id,
                    server_id=server_id,
                    content_hash=content_hash(task, instance),
                    rubric_version=rubric.version,
                    several=instance in entry.several,
                    assigned=entry.assigned[instance],
                    suggested=opinion.answers if opinion is not None else None,
                    gold=entry.gold,
                )
            )
        moved = [(record.task_id, record.instance) for record in fresh]
        Reviews.forget_responses(writer.connection, [place for place in moved if external_id(*place) in there])
        Reviews.save_records(writer.connection, fresh)
        writer.mark_pushed(sorted({record.task_id for record in fresh if record.gold is None}))


def _reassign(pool: TaskPool, client: ArgillaClient, opened: ReviewDataset, review: Review) -> None:
    """Records that nobody has begun, of annotators whom the recipe no longer names, go to the others."""
    if not review.annotators:
        return
    team, loads = set(review.annotators), pool.reviews.load(opened.id).assigned
    if not loads.keys() - team:
        return
    burden = {name: loads[name] for name in review.annotators}
    changed = []
    for record in pool.reviews.untouched(opened.id):
        if set(record.assigned) - team:
            stay = [name for name in record.assigned if name in team]
            others = {name: load for name, load in burden.items() if name not in stay}
            fill = assign(external_id(record.task_id, record.instance), len(record.assigned) - len(stay), others)
            for name in fill:
                burden[name] += 1
            changed.append(replace(record, assigned=tuple(sorted([*stay, *fill]))))
    for some in in_parts(changed, _BATCH_RECORDS):
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
    waiting = pool.reviews.waiting_tasks(gone)
    return [Entry(task_id, tuple(instances)) for task_id, instances in waiting.items()]
