"""How good the reviewed tasks are, and how far people agree about that: from the pool alone.

The shares follow Table 2 of the Self-Instruct paper: of the records that were judged, how many have a valid
instruction, an appropriate input, a correct output, and all three, before any edit. A record's answer to a question is
what more than half of its submitted responses say.

Annotators' names are in `Quality`, for the lead of the review; what `to_json` returns has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..analysis.agreement import Agreement, agreement, wilson_interval
from ..errors import PoolError
from ..pool.engine import in_parts
from ..pool.pool import TaskPool
from ..tasks import Verdict
from .records import record_fields
from .rubric import Rubric, judge

JUDGE = "judge"
PEOPLE = "people"
_KEPT = "quality"


@dataclass(frozen=True)
class Share:
    """`count` of `total`, with Wilson's 95 % interval of the share."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson_interval(self.count, self.total)

    def to_json(self) -> dict[str, Any]:
        share = self.count / self.total if self.total else None
        return {
            "count": self.count,
            "total": self.total,
            "share": share,
            "interval": list(self.interval) if self.interval else None,
        }


@dataclass(frozen=True)
class QuestionAgreement:
    """Agreement on the answers themselves (ordinal too for ratings), and on whether they speak for acceptance."""

    answers: Agreement | None
    acceptable: Agreement | None

    def to_json(self) -> dict[str, Any]:
        return {"answers": _json(self.answers), "acceptable": _json(self.acceptable)}


@dataclass(frozen=True)
class Figures:
    """accepted: records accepted (as they are or edited) of those with a verdict. answers: the paper's Table 2, by
    question, with `all` at the end. verdicts: agreement on accept or reject. questions: by question name. reasons: in
    how many rejected records somebody who rejects found this question's answer bad."""

    accepted: Share
    answers: Mapping[str, Share]
    verdicts: Agreement | None
    questions: Mapping[str, QuestionAgreement]
    reasons: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted.to_json(),
            "answers": {name: share.to_json() for name, share in self.answers.items()},
            "verdicts": _json(self.verdicts),
            "questions": {name: question.to_json() for name, question in self.questions.items()},
            "reasons": dict(self.reasons),
        }


@dataclass(frozen=True)
class Quality:
    """overall, and by number of the bootstrap round. calibration: known answers given right, by annotator. judge: the
    judge model against what more than half of the people say, by question (people saw its opinion before they
    answered)."""

    overall: Figures
    rounds: Mapping[int, Figures]
    calibration: Mapping[str, Share]
    judge: Mapping[str, Agreement]

    def to_json(self) -> dict[str, Any]:
        """Everything, without anybody's name."""
        shares = self.calibration.values()
        known = Share(sum(share.count for share in shares), sum(share.total for share in shares))
        return {
            **self.overall.to_json(),
            "rounds": {str(number): figures.to_json() for number, figures in self.rounds.items()},
            "calibration": {"annotators": len(shares), **known.to_json()} if shares else None,
            "judge": {name: found.to_json() for name, found in self.judge.items()},
        }


@dataclass(frozen=True)
class _Judged:
    """One record that somebody judged: everybody's answers by question, and what they come to, by annotator."""

    round: int
    verdict: Verdict
    answers: dict[str, dict[str, Any]]
    acceptable: dict[str, dict[str, bool]]
    accepted: dict[str, bool]
    failed: frozenset[str]
    suggested: dict[str, Any]


def review_quality(pool: TaskPool) -> Quality | None:
    """The quality of what people judged in the newest review dataset; None where nothing was pushed."""
    datasets = pool.reviews.datasets()
    if not datasets:
        return None
    rubric = Rubric.model_validate(datasets[-1].rubric)
    judged = list(_judged(pool, datasets[-1].id, rubric))
    overall, rounds = _figures(judged, rubric), sorted({record.round for record in judged})
    return Quality(
        overall=overall,
        rounds={
            number: _figures([record for record in judged if record.round == number], rubric)
            if len(rounds) > 1
            else overall
            for number in rounds
        },
        calibration=calibration(pool),
        judge=_judge_agreement(judged, rubric),
    )


def known_quality(pool: TaskPool) -> dict[str, Any] | None:
    """`review_quality` as JSON, without anybody's name; the pool keeps it until a sync brings something new."""
    datasets = pool.reviews.datasets()
    if not datasets:
        return None
    newest = datasets[-1]
    state = [__version__, newest.id, newest.rubric_version, newest.generation]
    kept = pool.recall(_KEPT)
    if kept is None or kept["state"] != state:
        quality = review_quality(pool)
        kept = {"state": state, "quality": quality.to_json() if quality is not None else None}
        with suppress(PoolError):  # a pool that can only be read
            pool.remember(_KEPT, kept)
    found: dict[str, Any] | None = kept["quality"]
    return found


def agreement_json(quality: Mapping[str, Any]) -> dict[str, Any] | None:
    """Agreement on the verdict, and below it by question and by round; None where no record was judged twice."""
    if quality["verdicts"] is None:
        return None
    questions = {name: found["answers"] for name, found in quality["questions"].items() if found["answers"]}
    rounds = {number: figures["verdicts"] for number, figures in quality["rounds"].items() if figures["verdicts"]}
    return {**quality["verdicts"], "questions": questions, "rounds": rounds}


def calibration(pool: TaskPool) -> dict[str, Share]:
    """Known answers of the newest review dataset's calibration records that were given right, by annotator."""
    datasets = pool.reviews.datasets()
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for record in pool.reviews.answered(datasets[-1].id, gold=True) if datasets else ():
        for name, values in record.answers.items():
            for question, answer in (record.gold or {}).items():
                asked[name] += 1
                right[name] += values.get(question) == answer
    return {name: Share(right[name], asked[name]) for name in sorted(asked)}


def _judged(pool: TaskPool, dataset_id: str, rubric: Rubric) -> Iterator[_Judged]:
    closed = [question.name for question in rubric.closed]
    for some in in_parts(pool.reviews.answered(dataset_id)):
        tasks = pool.shown(sorted({record.task_id for record in some}))
        for record in some:
            people, task = record.answers, tasks[record.task_id]
            fields = record_fields(task, record.instance)
            judgements = {name: judge(rubric, values, fields) for name, values in people.items()}
            yield _Judged(
                round=task.round,
                verdict=record.verdict,
                answers={
                    question: {
                        name: values[question] for name, values in people.items() if values.get(question) is not None
                    }
                    for question in closed
                },
                acceptable={
                    question: {name: condition.holds(values.get(question)) for name, values in people.items()}
                    for question, condition in rubric.accept.items()
                },
                accepted={name: judgement.accepted for name, judgement in judgements.items()},
                failed=frozenset(question for judgement in judgements.values() for question in judgement.failed),
                suggested={question: opinion["value"] for question, opinion in (record.suggested or {}).items()},
            )


def _figures(judged: Sequence[_Judged], rubric: Rubric) -> Figures:
    asked = [name for name in rubric.accept if any(name in record.acceptable for record in judged)]
    decided = [record for record in judged if record.verdict is not Verdict.PENDING]
    rejected = [record for record in decided if record.verdict is Verdict.REJECTED]
    reasons = Counter(name for record in rejected for name in record.failed)
    return Figures(
        accepted=Share(sum(record.verdict is Verdict.ACCEPTED for record in decided), len(decided)),
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
            for question in rubric.closed
        },
        reasons={name: reasons[name] for name in rubric.accept if reasons[name]},
    )


def _good(judged: Sequence[_Judged], questions: Sequence[str]) -> Share:
    """Records of which more than half of the responses speak for acceptance in each of the questions."""

    def mostly(votes: dict[str, bool]) -> bool:
        return 2 * sum(votes.values()) > len(votes)

    return Share(sum(all(mostly(record.acceptable[q]) for q in questions) for record in judged), len(judged))


def _judge_agreement(judged: Sequence[_Judged], rubric: Rubric) -> dict[str, Agreement]:
    found = {}
    for question in rubric.closed:
        both = []
        for record in judged:
            people = Counter(record.answers.get(question.name, {}).values()).most_common(1)
            if people and 2 * people[0][1] > len(record.answers[question.name]) and question.name in record.suggested:
                both.append({JUDGE: record.suggested[question.name], PEOPLE: people[0][0]})
        compared = agreement(both, order=sorted(question.values) or None)
        if compared is not None:
            found[question.name] = compared
    return found


def _json(found: Agreement | None) -> dict[str, Any] | None:
    return found.to_json() if found is not None else None
