"""The judge model: what it is asked, what its replies mean, and that it is asked once and never decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_people import candidates

from selfinstruct_argilla.llm.base import CallRecord, Reply
from selfinstruct_argilla.review.judge import parse, render
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
