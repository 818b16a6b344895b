"""Candidates to Argilla: each (task, instance) one review record, by its external id.

Pushing again changes nothing, also after a kill in the middle: records go in by external id, then the pool notes them
in one transaction with the tasks' move to `in_review`. What the pool has noted is not sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ReviewRefusedError
from ..pool.pool import TaskPool
from ..pool.reviews import ReviewDataset, ReviewRecord, Reviews
from ..recipe import Review
from ..tasks import Status, Task, external_id, split_external_id
from .dataset import open_dataset
from .records import content_hash, record_context, record_item
from .rubric import Rubric

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient, Upserted

Progress = Callable[[str, float | None], None]
_BATCH_RECORDS = 200
_BATCH_BYTES = 4_000_000


@dataclass(frozen=True)
class PushResult:
    """Review records: `pushed` now, `unchanged` since before, `total` in Argilla. `refused`: what Argilla would not
    take, external id → its reason."""

    pushed: int
    unchanged: int
    total: int
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
    progress: Progress = lambda message, fraction: None,
) -> PushResult:
    """Every candidate to the review dataset, which is made where it is missing.

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
    tasks = [*pool.tasks(Status.CANDIDATE), *_orphans(pool, client, opened)]
    nearest = {task.id: task.instruction for task in pool.tasks(ids=sorted({t.nearest for t in tasks if t.nearest}))}
    records = sum(len(task.instances) for task in tasks)
    unchanged = _count(pool, opened.id)
    refused: dict[str, str] = {}
    sent = 0
    for batch in _batches(_items(tasks, rubric, question_ids, nearest, language)):
        progress("pushing to Argilla", sent / records)
        result = client.upsert(opened.id, batch.items)
        refused.update(result.refused)
        _note(pool, opened, batch.tasks, result, rubric)
        sent += len(batch.items)
    if records:
        progress("pushing to Argilla", 1.0)
    total = _count(pool, opened.id)
    return PushResult(total - unchanged, unchanged, total, refused, dataset, opened.url)


@dataclass
class _Batch:
    """Whole tasks and their records."""

    tasks: list[Task]
    items: list[dict[str, Any]]


def _items(
    tasks: Sequence[Task], rubric: Rubric, question_ids: dict[str, str], nearest: dict[str, str], language: str
) -> Iterator[tuple[Task, list[dict[str, Any]]]]:
    for task in tasks:
        context = record_context(task, nearest.get(task.nearest or ""), language)
        yield (
            task,
            [
                record_item(task, number, rubric=rubric, question_ids=question_ids, context=context)
                for number in range(len(task.instances))
            ],
        )


def _batches(tasks: Iterator[tuple[Task, list[dict[str, Any]]]]) -> Iterator[_Batch]:
    """Batches bounded in records and bytes: a server needs up to 10 ms a record, and its clients give up after 60 s."""
    batch, size = _Batch([], []), 0
    for task, items in tasks:
        more = len(json.dumps(items))
        if batch.items and (len(batch.items) + len(items) > _BATCH_RECORDS or size + more > _BATCH_BYTES):
            yield batch
            batch, size = _Batch([], []), 0
        batch.tasks.append(task)
        batch.items += items
        size += more
    if batch.items:
        yield batch


def _note(pool: TaskPool, dataset: ReviewDataset, tasks: Sequence[Task], result: Upserted, rubric: Rubric) -> None:
    """The pool remembers what Argilla took; another push may have been faster, and its notes stay."""
    by_id = {task.id: task for task in tasks}
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
                content_hash=content_hash(by_id[task_id], instance),
                rubric_version=rubric.version,
            )
            for task_id, instance in taken
            if (task_id, instance) not in known
        ]
        Reviews.save_records(writer.connection, fresh)
        writer.mark_pushed(sorted({record.task_id for record in fresh}))


def _orphans(pool: TaskPool, client: ArgillaClient, opened: ReviewDataset) -> list[Task]:
    """Tasks that wait for people in a dataset that was deleted in this Argilla: they are pushed again, as they were."""
    gone = [
        known.id
        for known in pool.reviews.datasets()
        if known.id != opened.id and known.name == opened.name and known.api_url == opened.api_url
        and client.dataset(known.id) is None
    ]  # fmt: skip
    ids = sorted({record.task_id for dataset_id in gone for record in pool.reviews.records(dataset_id)})
    if not ids:
        return []
    originals = pool.originals()
    return [
        originals.get(task.id, task)
        for task in pool.tasks(ids=ids)
        if task.status in (Status.IN_REVIEW, Status.CONFLICT)
    ]


def _count(pool: TaskPool, dataset_id: str) -> int:
    return sum(record.state == "present" for record in pool.reviews.records(dataset_id))
