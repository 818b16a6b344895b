"""Conflicts on the adjudicators' desks.

Argilla's page offers a completed record to nobody who has not answered it, so a conflict would be out of an
adjudicator's sight. A draft in their name brings it to their tab "Draft": what the annotators agree on is filled in,
and the texts to be corrected as they stand; what they disagree on is open. An adjudicator who has answered, drafted,
discarded or deleted is never written for: each record is read again just before, because Argilla would overwrite an
answer of the last few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..pool.engine import reading
from ..pool.pool import TaskPool
from ..pool.reviews import ReviewDataset, Reviews
from ..tasks import external_id
from .records import presented, record_fields
from .rubric import Rubric

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient


def lay_before(
    pool: TaskPool, client: ArgillaClient, dataset: ReviewDataset, rubric: Rubric, adjudicators: Sequence[str]
) -> None:
    """Gives every adjudicator (user ids) a draft of each conflict that they have not touched."""
    conflicts = pool.reviews.conflicts(dataset.id)
    with reading(pool.engine) as connection:
        known = Reviews.current_responses(connection, {record.task_id for record in conflicts})
    tasks = {task.id: task for task in pool.tasks(ids=sorted({record.task_id for record in conflicts}))}
    for record in conflicts:
        responses = known.get((record.task_id, record.instance), {})
        waiting = [user_id for user_id in adjudicators if user_id not in responses]
        now = client.record(record.server_id) if waiting else None
        if now is None:
            continue
        answered = {str(response["user_id"]) for response in now.get("responses") or ()}
        task = tasks[record.task_id]
        fields = record_fields(task, record.instance)
        texts = {question.name: presented(question, task, fields) for question in rubric.questions}
        values = {name: text for name, text in texts.items() if text is not None}
        values |= agreed([r.values for r in responses.values() if r.status == "submitted"])
        drafts = [
            {
                "user_id": user_id,
                "status": "draft",
                "values": {name: {"value": value} for name, value in values.items()},
            }
            for user_id in waiting
            if user_id not in answered
        ]
        if drafts:
            item = {"external_id": external_id(record.task_id, record.instance), "responses": drafts}
            client.upsert(dataset.id, [item])


def agreed(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The questions that everybody answered, and in the same way."""
    if not answers:
        return {}
    first, *others = answers
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
