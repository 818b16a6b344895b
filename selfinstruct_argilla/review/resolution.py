"""From what several people said about one review record to one verdict, and from records to the task. Pure.

| resolution    | accepted                   | rejected                  | conflict                    |
|---------------|----------------------------|---------------------------|-----------------------------|
| `majority`    | more than half accept      | more than half reject     | a tie                       |
| `unanimous`   | all accept                 | all reject                | anything else               |
| `any`         | somebody accepts           | all reject                | never                       |
| `adjudicated` | as `unanimous`, until an adjudicator has answered: then what the adjudicators say, unanimously |

With fewer than `min_submitted` submitted responses the verdict is pending, whatever they say. Edits count where their
response accepts and is among those that decide: the same edit from several people is one edit, edits of different
fields go together, two different edits of one field are a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..tasks import Instance, Status, Task, Verdict
from .rubric import KIND, Judgement

ResolutionRule = Literal["majority", "unanimous", "any", "adjudicated"]


@dataclass(frozen=True)
class Policy:
    """How responses become verdicts; `adjudicators` are user names, used by `adjudicated` alone."""

    rule: ResolutionRule = "majority"
    min_submitted: int = 1
    adjudicators: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Vote:
    """One person's submitted judgement. `annotator` is a user name, or an id where the name is not known."""

    annotator: str
    judgement: Judgement


@dataclass(frozen=True)
class Resolution:
    """What a review record comes to. `task_valid` is False where people agreed that the whole task is bad."""

    verdict: Verdict
    edits: Mapping[str, str] = field(default_factory=dict)
    task_valid: bool = True


PENDING = Resolution(Verdict.PENDING)


def resolve(votes: Sequence[Vote], policy: Policy) -> Resolution:
    """The resolution of one record from its submitted votes, in any order."""
    if len(votes) < policy.min_submitted:
        return PENDING
    rule = policy.rule
    if rule == "adjudicated":
        deciding = [vote for vote in votes if vote.annotator in policy.adjudicators] or votes
        judgements = [vote.judgement for vote in deciding]
        rule = "unanimous"
    else:
        judgements = [vote.judgement for vote in votes]
    verdict = _decide([judgement.accepted for judgement in judgements], rule)
    task_valid = _decide([judgement.task_valid for judgement in judgements], rule) is not Verdict.REJECTED
    if verdict is not Verdict.ACCEPTED:
        return Resolution(verdict, task_valid=task_valid)
    edits = _merge([judgement.edits for judgement in judgements if judgement.accepted])
    if edits is None:
        return Resolution(Verdict.CONFLICT, task_valid=task_valid)
    return Resolution(verdict, edits, task_valid)


def resolve_task(original: Task, records: Mapping[int, Resolution | None]) -> Task:
    """The task as people left it: texts, each instance's verdict, status.

    original: the task before any edit. records: the resolution by instance number; None where the record was
    deleted in Argilla (that instance is neither published nor waited for). An instruction that people found invalid
    rejects the task. Otherwise instances stand alone: one accepted instance accepts the task, while the others wait,
    are left out, or come in later.
    """
    present = {number: record for number, record in records.items() if record is not None}
    if not present:
        return original.with_status(Status.WITHDRAWN)
    accepted = {number: record for number, record in present.items() if record.verdict is Verdict.ACCEPTED}
    texts = {record.edits["instruction"] for record in accepted.values() if "instruction" in record.edits}
    kinds = {record.edits[KIND] for record in accepted.values() if KIND in record.edits}
    verdicts = {record.verdict for record in present.values()}
    if not all(record.task_valid for record in present.values()):
        status, accepted = Status.REJECTED, {}
    elif len(texts) > 1 or len(kinds) > 1:  # the same instruction, mended or classified in two ways
        status, accepted = Status.CONFLICT, {}
    elif accepted:
        status = Status.ACCEPTED
    elif Verdict.CONFLICT in verdicts:
        status = Status.CONFLICT
    elif Verdict.PENDING in verdicts:
        status = Status.IN_REVIEW
    else:
        status = Status.REJECTED
    instances = tuple(
        _instance(instance, present.get(number), edited=number in accepted)
        for number, instance in enumerate(original.instances)
    )
    instruction, kind = original.instruction, original.is_classification
    if status is Status.ACCEPTED:
        instruction = next(iter(texts), instruction)
        kind = "yes" in kinds if kinds else kind
    return replace(original, instruction=instruction, is_classification=kind, instances=instances, status=status)


def _instance(instance: Instance, record: Resolution | None, *, edited: bool) -> Instance:
    if record is None:
        return replace(instance, verdict=Verdict.PENDING)
    edits = record.edits if edited else {}
    return Instance(edits.get("input", instance.input), edits.get("output", instance.output), record.verdict)


def _decide(ayes: Sequence[bool], rule: str) -> Verdict:
    yes = sum(ayes)
    if rule == "any":
        return Verdict.ACCEPTED if yes else Verdict.REJECTED
    if yes == len(ayes) or (rule == "majority" and 2 * yes > len(ayes)):
        return Verdict.ACCEPTED
    if yes == 0 or (rule == "majority" and 2 * yes < len(ayes)):
        return Verdict.REJECTED
    return Verdict.CONFLICT


def _merge(edits: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """All edits together, or None where two of them change one field differently."""
    merged: dict[str, str] = {}
    for edit in edits:
        for name, text in edit.items():
            if merged.setdefault(name, text) != text:
                return None
    return merged
