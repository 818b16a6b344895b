"""The judge model: what it is asked, what its replies mean, and that it is asked once and never decides."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_people import candidates

from selfinstruct_argilla.errors import ModelUnavailableError
from selfinstruct_argilla.llm.base import CallRecord, Reply, Request
from selfinstruct_argilla.llm.caller import Caller, Purse
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.recipe import Budget, ModelConfig, Price
from selfinstruct_argilla.review.judge import ask_judge, parse, render
from selfinstruct_argilla.review.records import Opinion
from selfinstruct_argilla.review.rubric import Rubric, load_rubric

PAPER = load_rubric("paper")
RATING = Rubric.model_validate(
    {
        "questions": [{"name": "quality", "type": "rating", "title": "Quality?", "values": [1, 2, 3, 10]}],
        "accept": {"quality": {"at_least": 3}},
        "guidelines": "Rate it.",
    }
)


def parsed(text: str, rubric: Rubric = PAPER) -> dict[str, tuple[object, float]]:
    answers = parse(CallRecord("key", 1, "reply", Reply(text)), rubric)
    return {name: (answer["value"], answer["score"]) for name, answer in answers.items()}


def test_it_is_asked_the_rubrics_own_questions() -> None:
    prompt = render(candidates(1)[0], 0, PAPER, "en")
    for question in ("instruction_valid", "input_appropriate", "output_correct"):
        assert f"{question}: " in prompt.header
    assert "instruction_edit" not in prompt.header
    assert "(yes / no)" in prompt.header
    assert "Instruction 0" in prompt.query
    assert "output 0.0" in prompt.query
    assert "Instruction 0" not in prompt.header  # the header is the same for every record, and stored once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("output_correct: yes (90%)", {"output_correct": ("yes", 0.9)}),
        ("output_correct: no", {"output_correct": ("no", 0.75)}),
        ("1. **Output_correct**: no", {}),
        ("- **output_correct:** `No` (confidence 40 %)", {"output_correct": ("no", 0.4)}),
        ("output_correct: yes (90%)\noutput_correct: no (10%)", {"output_correct": ("yes", 0.9)}),
        ("output_correct: yesterday\ninstruction_valid： yes, 100%", {"instruction_valid": ("yes", 1.0)}),
        ("output_correct: yes (900%)", {"output_correct": ("yes", 1.0)}),
        ("nothing to see: here", {}),
        ("", {}),
    ],
)
def test_replies(text: str, expected: dict[str, tuple[object, float]]) -> None:
    assert parsed(text) == expected


def test_a_rating_is_a_number() -> None:
    assert parsed("quality: 10 (80%)", RATING) == {"quality": (10, 0.8)}
    assert parsed("quality: 1", RATING) == {"quality": (1, 0.75)}
    assert parsed("quality: 7", RATING) == {}


def test_a_refused_request_is_no_opinion() -> None:
    assert parse(CallRecord("key", 1, "refused", None, "too long"), PAPER) == {}


@given(st.text())
def test_any_reply_can_be_read(text: str) -> None:
    for rubric in (PAPER, RATING):
        for name, (value, score) in parsed(text, rubric).items():
            question = next(q for q in rubric.questions if q.name == name)
            assert value in question.labels or value in question.values
            assert 0 <= score <= 1


def asked(pool: TaskPool, budget: Budget, model: ScriptedModel, count: int = 6) -> dict[str, Opinion]:
    settings = ModelConfig(model="org/judge", price=Price(output_per_mtok=1.0))

    async def ask() -> dict[str, Opinion]:
        spend = pool.journal.spend()
        purse = Purse(budget, settings.price, usd=spend.usd, requests=spend.requests)
        caller = Caller(model, pool.journal, purse, concurrency=2)
        async with caller.session():
            return await ask_judge([(task, 0) for task in candidates(count)], PAPER, settings, caller, language="en")

    return asyncio.run(ask())


def test_an_opinion_is_bought_once_and_kept_before_it_is_read(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda request: "output_correct: no (80%)" if "Instruction 3" in request.prompt.query else "?"
    )
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        found = asked(pool, Budget(), model)
        assert found == {
            "generated_00000003:0": Opinion("org/judge", {"output_correct": {"value": "no", "score": 0.8}})
        }
        assert pool.journal.spend().requests == len(model.requests) == 6
        assert asked(pool, Budget(), model) == found
        assert len(model.requests) == 6
        assert {row[:2] for row in pool.journal.spend_by("step", "model")} == {("judge", "org/judge")}
        assert list(pool.journal.damage()) == []


def test_a_reached_budget_leaves_the_rest_without_an_opinion(tmp_path: Path) -> None:
    model = ScriptedModel(lambda request: "output_correct: yes")
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        assert len(asked(pool, Budget(requests=4), model)) == 4
        assert len(asked(pool, Budget(requests=4), model)) == 4
        assert len(model.requests) == 4
        assert len(asked(pool, Budget(requests=6), model)) == 6


def test_a_dead_judge_ends_the_push_before_anything_went_out(tmp_path: Path) -> None:
    def dead(request: Request) -> str:
        raise ModelUnavailableError("nobody there", hint="start it")

    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool, pytest.raises(ModelUnavailableError):
        asked(pool, Budget(), ScriptedModel(dead))
