"""How good the reviewed tasks are, and how far people agree about that: from the pool alone.

The shares follow Table 2 of the Self-Instruct paper: of the records that were judged, how many have a valid
instruction, an appropriate input, a correct output, and all three, before any edit. A record's answer to a question is
what more than half of its submitted responses say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..analysis.agreement import Agreement, agreement, wilson_interval
from ..pool.pool import TaskPool
from ..tasks import Verdict
from .records import record_fields
from .rubric import Rubric, judge


@dataclass(frozen=True)
class Share:
    """`count` of `total` records, with Wilson's 95 % interval of the share."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson_interval(self.count, self.total)


@dataclass(frozen=True)
class QuestionAgreement:
    """Agreement on the answers themselves (ordinal for ratings), and on whether they speak for acceptance."""

    answers: Agreement | None
    acceptable: Agreement | None


@dataclass(frozen=True)
class RoundQuality:
    """One bootstrap round: records accepted of those with a verdict, and agreement on accepting."""

    accepted: Share
    verdicts: Agreement | None


@dataclass(frozen=True)
class Quality:
    """accepted: records accepted (as they are or edited) of those with a verdict. answers: the paper's Table 2, by
    question, with `all` at the end. verdicts: agreement on accept or reject. questions: by question name. rounds: by
    number."""

    accepted: Share
    answers: Mapping[str, Share]
    verdicts: Agreement | None
    questions: Mapping[str, QuestionAgreement]
    rounds: Mapping[int, RoundQuality]

    def agreement_json(self) -> dict[str, Any] | None:
        """Agreement on the verdict without anybody's name; None where no record was judged twice."""
        if self.verdicts is None:
            return None
        found = self.verdicts
        return {
            "records": found.items,
            "annotators": found.annotators,
            "percent": found.percent,
            "cohen_kappa": found.kappa,
            "fleiss_kappa": found.fleiss_kappa,
            "krippendorff_alpha": found.alpha,
            "krippendorff_alpha_interval": found.alpha_interval,
        }


@dataclass(frozen=True)
class _Judged:
    """One record that somebody judged: everybody's answers by question, and what they come to, by annotator."""

    round: int
    verdict: Verdict
    answers: dict[str, dict[str, Any]]
    acceptable: dict[str, dict[str, bool]]
    accepted: dict[str, bool]


def review_quality(pool: TaskPool) -> Quality | None:
    """The quality of what people judged in the newest review dataset; None where nothing was pushed."""
    datasets = pool.reviews.datasets()
    if not datasets:
        return None
    rubric = Rubric.model_validate(datasets[-1].rubric)
    judged = _judged(pool, datasets[-1].id, rubric)
    asked = [name for name in rubric.accept if any(name in record.acceptable for record in judged)]
    return Quality(
        accepted=_accepted(judged),
        answers={
            **{name: _good(judged, [name]) for name in asked},
            **({"all": _good(judged, asked)} if len(asked) > 1 else {}),
        },
        verdicts=agreement([record.accepted for record in judged]),
        questions={
            question.name: QuestionAgreement(
                answers=agreement(
                    [record.answers.get(question.name, {}) for record in judged],
                    order=sorted(question.values) or None,
                ),
                acceptable=agreement([record.acceptable.get(question.name, {}) for record in judged]),
            )
            for question in rubric.questions
            if question.type in ("label", "rating")
        },
        rounds={
            number: RoundQuality(
                accepted=_accepted([record for record in judged if record.round == number]),
                verdicts=agreement([record.accepted for record in judged if record.round == number]),
            )
            for number in sorted({record.round for record in judged})
        },
    )


def _judged(pool: TaskPool, dataset_id: str, rubric: Rubric) -> list[_Judged]:
    present = [record for record in pool.reviews.records(dataset_id) if record.state == "present"]
    originals = pool.originals()
    tasks = {
        task.id: originals.get(task.id, task) for task in pool.tasks(ids=sorted({record.task_id for record in present}))
    }
    submitted: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for response in pool.reviews.responses():
        if response.status == "submitted":
            key = (response.task_id, response.instance)
            submitted.setdefault(key, {})[response.username or response.user_id] = response.values
    found = []
    for record in present:
        people = submitted.get((record.task_id, record.instance), {})
        if not people:
            continue
        fields = record_fields(tasks[record.task_id], record.instance)
        answers: dict[str, dict[str, Any]] = {}
        acceptable: dict[str, dict[str, bool]] = {}
        for name, values in people.items():
            for question in rubric.questions:
                value = values.get(question.name)
                if value is not None and question.type in ("label", "rating"):
                    answers.setdefault(question.name, {})[name] = value
            for question_name, condition in rubric.accept.items():
                acceptable.setdefault(question_name, {})[name] = condition.holds(values.get(question_name))
        accepted = {name: judge(rubric, values, fields).accepted for name, values in people.items()}
        found.append(_Judged(tasks[record.task_id].round, record.verdict, answers, acceptable, accepted))
    return found


def _accepted(judged: list[_Judged]) -> Share:
    decided = [record for record in judged if record.verdict is not Verdict.PENDING]
    return Share(sum(record.verdict is Verdict.ACCEPTED for record in decided), len(decided))


def _good(judged: list[_Judged], questions: list[str]) -> Share:
    """Records of which more than half of the responses speak for acceptance in each of the questions."""

    def mostly(votes: dict[str, bool]) -> bool:
        return 2 * sum(votes.values()) > len(votes)

    return Share(sum(all(mostly(record.acceptable[q]) for q in questions) for record in judged), len(judged))
