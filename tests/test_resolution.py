"""From many votes to one verdict, and from records to the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_argilla.review.resolution import PENDING, Policy, Resolution, Vote, resolve, resolve_task
from selfinstruct_argilla.review.rubric import Judgement
from selfinstruct_argilla.tasks import Instance, Status, Task, Verdict

A, R, C, P = Verdict.ACCEPTED, Verdict.REJECTED, Verdict.CONFLICT, Verdict.PENDING
RULES = ["majority", "unanimous", "any", "adjudicated"]


def votes(pattern: str, edits: Mapping[int, Mapping[str, str]] | None = None) -> list[Vote]:
    """`+` accepts, `-` rejects, `!` finds the whole task invalid; people are named a, b, c …"""
    return [
        Vote(chr(97 + n), Judgement(sign == "+", sign != "!", (edits or {}).get(n, {})))
        for n, sign in enumerate(pattern)
    ]


@pytest.mark.parametrize(
    ("rule", "pattern", "expected"),
    [
        ("majority", "+", A), ("majority", "-", R), ("majority", "+-", C), ("majority", "++-", A),
        ("majority", "+--", R), ("majority", "++--", C),
        ("unanimous", "++", A), ("unanimous", "--", R), ("unanimous", "++-", C),
        ("any", "+--", A), ("any", "--", R), ("any", "+", A),
        ("adjudicated", "++", A), ("adjudicated", "+-", C), ("adjudicated", "--", R),
    ],
)  # fmt: skip
def test_rules(rule: str, pattern: str, expected: Verdict) -> None:
    assert resolve(votes(pattern), Policy(rule)).verdict is expected  # type: ignore[arg-type]


def test_an_adjudicator_settles_a_conflict() -> None:
    policy = Policy("adjudicated", 2, frozenset({"c", "d"}))
    assert resolve(votes("+-"), policy).verdict is C
    assert resolve(votes("+-+"), policy).verdict is A
    assert resolve(votes("++-"), policy).verdict is R
    assert resolve(votes("+-+-"), policy).verdict is C  # two adjudicators who disagree
    settled = resolve(votes("+++", {0: {"output": "x"}, 1: {"output": "y"}, 2: {"output": "z"}}), policy)
    assert (settled.verdict, settled.edits) == (A, {"output": "z"})
    assert (
        resolve(votes("+-+"), Policy("majority", 1, frozenset({"b"}))).verdict is A
    )  # only where the rule asks for it


def test_edits_merge_or_conflict() -> None:
    policy = Policy()
    same = resolve(votes("++", {0: {"output": "x"}, 1: {"output": "x"}}), policy)
    assert (same.verdict, same.edits) == (A, {"output": "x"})
    beside = resolve(votes("++", {0: {"output": "x"}, 1: {"input": "y"}}), policy)
    assert (beside.verdict, beside.edits) == (A, {"output": "x", "input": "y"})
    assert resolve(votes("++", {0: {"output": "x"}, 1: {"output": "y"}}), policy).verdict is C
    rejecting = resolve(votes("++-", {0: {"output": "x"}, 2: {"output": "y"}}), policy)
    assert (rejecting.verdict, rejecting.edits) == (A, {"output": "x"})


@given(
    st.sampled_from(RULES),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("+-!"), st.sampled_from(["", "x", "y"]))),
    st.randoms(),
)
def test_order_does_not_matter_and_too_few_are_pending(rule, minimum, answers, random) -> None:  # type: ignore[no-untyped-def]
    given_ = [
        Vote(name, Judgement(sign == "+", sign != "!", {"output": edit} if edit else {}))
        for name, sign, edit in answers
    ]
    policy = Policy(rule, minimum, frozenset("ab"))
    resolution = resolve(given_, policy)
    shuffled = random.sample(given_, len(given_))
    assert resolve(shuffled, policy) == resolution
    assert (resolution.verdict is P) == (len(given_) < minimum)
    if resolution.verdict is A:
        assert any(vote.judgement.accepted for vote in given_)
        assert all(any(text == v.judgement.edits.get(k) for v in given_) for k, text in resolution.edits.items())
    else:
        assert not resolution.edits
    if not resolution.task_valid:
        assert resolution.verdict is not A


# tasks -------------------------------------------------------------------------------------------

TASK = Task("t", "Do it.", (Instance("i0", "o0"), Instance("i1", "o1"), Instance("i2", "o2")), status=Status.IN_REVIEW)


def resolutions(*verdicts: Verdict | None) -> dict[int, Resolution | None]:
    return {n: None if verdict is None else Resolution(verdict) for n, verdict in enumerate(verdicts)}


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ((P, P, P), Status.IN_REVIEW),
        ((A, P, P), Status.ACCEPTED),
        ((A, R, C), Status.ACCEPTED),
        ((R, R, P), Status.IN_REVIEW),
        ((R, C, P), Status.CONFLICT),
        ((R, R, R), Status.REJECTED),
        ((None, R, R), Status.REJECTED),
        ((None, P, R), Status.IN_REVIEW),
        ((None, None, A), Status.ACCEPTED),
        ((None, None, None), Status.WITHDRAWN),
    ],
)
def test_instances_stand_alone(verdicts: tuple[Verdict | None, ...], status: Status) -> None:
    task = resolve_task(TASK, resolutions(*verdicts))
    assert task.status is status
    if status is not Status.WITHDRAWN:
        assert [i.verdict for i in task.instances] == [P if verdict is None else verdict for verdict in verdicts]
        kept = [TASK.instances[n].input for n, verdict in enumerate(verdicts) if verdict is A]
        assert [i.input for i in task.accepted_instances()] == kept


def test_an_invalid_instruction_rejects_the_task() -> None:
    records = {0: Resolution(A, {"output": "x"}), 1: Resolution(R, task_valid=False), 2: PENDING}
    task = resolve_task(TASK, records)
    assert task.status is Status.REJECTED
    assert task.instances[0].output == "o0"


def test_edits_reach_the_task() -> None:
    records = {
        0: Resolution(A, {"output": "x", "instruction": "Do that."}),
        1: Resolution(A, {"input": ""}),
        2: PENDING,
    }
    task = resolve_task(TASK, records)
    assert task.instruction == "Do that."
    assert [(i.input, i.output) for i in task.instances] == [("i0", "x"), ("", "o1"), ("i2", "o2")]


def test_two_ways_to_mend_one_instruction_conflict() -> None:
    records: dict[int, Resolution | None] = {
        0: Resolution(A, {"instruction": "Do this."}),
        1: Resolution(A, {"instruction": "Do that."}),
        2: Resolution(R),
    }
    task = resolve_task(TASK, records)
    assert task.status is Status.CONFLICT
    assert task.instruction == "Do it."


verdicts_strategy = st.one_of(
    st.none(),
    st.builds(
        Resolution,
        st.sampled_from([A, R, C, P]),
        st.dictionaries(st.sampled_from(["instruction", "input", "output"]), st.sampled_from(["x", "y"])),
        st.just(True),
    ),
    st.just(Resolution(R, task_valid=False)),
)


@given(st.lists(verdicts_strategy, min_size=3, max_size=3))
def test_nothing_unreviewed_is_ever_accepted(records: list[Resolution | None]) -> None:
    records = [replace(r, edits={}) if r is not None and r.verdict is not A else r for r in records]
    task = resolve_task(TASK, dict(enumerate(records)))
    for instance, record in zip(task.instances, records, strict=True):
        if instance.verdict is A:
            assert record is not None
            assert record.verdict is A
    if task.status is Status.ACCEPTED:
        assert task.accepted_instances()
    else:
        assert task.instruction == TASK.instruction
