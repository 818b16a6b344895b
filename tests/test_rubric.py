"""Rubrics: what a file may say, and what answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_argilla.errors import RecipeError
from selfinstruct_argilla.review.rubric import Rubric, in_language, judge, load_rubric

FIELDS = {"instruction": "Add the numbers.", "input": "1 2", "output": "3"}
YES = {"instruction_valid": "yes", "input_appropriate": "yes", "output_correct": "yes"}

paper = load_rubric("paper")
quick = load_rubric("quick")


def rubric_of(questions: list[dict[str, object]], accept: dict[str, object]) -> Rubric:
    return Rubric.model_validate({"questions": questions, "accept": accept, "guidelines": "x"})


def test_paper_asks_the_three_questions_of_the_paper() -> None:
    required = [question.name for question in paper.questions if question.required]
    assert required == ["instruction_valid", "input_appropriate", "output_correct"]
    assert {q.edits for q in paper.questions if q.edits} == {"instruction", "input", "output"}
    assert [q.name for q in quick.questions if q.required] == ["verdict"]


@pytest.mark.parametrize("name", ["paper", "quick"])
@pytest.mark.parametrize("language", ["en", "zh", "zh-Hans", "fr"])
def test_bundled_rubrics_speak_english_and_chinese_and_fit_argilla(name: str, language: str) -> None:
    rubric = load_rubric(name)
    guidelines = in_language(rubric.guidelines, language)
    assert 200 < len(guidelines) <= 10_000
    assert ("指令" in guidelines) == language.startswith("zh")
    for question in rubric.questions:
        assert in_language(question.title, language)


def test_three_times_yes_accepts_and_one_no_rejects() -> None:
    assert judge(paper, YES, FIELDS).accepted
    for question in YES:
        judgement = judge(paper, {**YES, question: "no"}, FIELDS)
        assert not judgement.accepted
        assert judgement.failed == (question,)
        assert judgement.task_valid == (question != "instruction_valid")


def test_an_edit_mends_its_own_field_only() -> None:
    mended = judge(paper, {**YES, "output_correct": "no", "output_edit": "three"}, FIELDS)
    assert mended.accepted
    assert mended.edits == {"output": "three"}
    other = judge(paper, {**YES, "output_correct": "no", "instruction_edit": "Add them."}, FIELDS)
    assert not other.accepted
    invalid = judge(paper, {**YES, "instruction_valid": "no", "instruction_edit": "Add them."}, FIELDS)
    assert invalid.accepted
    assert invalid.task_valid


@pytest.mark.parametrize("text", ["3", "3\n", " 3 ", "3\r\n", "", "   ", "\n", None])
def test_unchanged_or_empty_text_is_no_edit(text: str | None) -> None:
    judgement = judge(paper, {**YES, "output_correct": "no", "output_edit": text}, FIELDS)
    assert not judgement.accepted
    assert judgement.edits == {}


def test_line_ends_of_a_browser_are_no_edit() -> None:
    fields = {**FIELDS, "output": "a\nb"}
    assert judge(paper, {**YES, "output_edit": "a\r\nb\r\n"}, fields).edits == {}
    assert judge(paper, {**YES, "output_edit": "a\r\nc"}, fields).edits == {"output": "a\nc"}


def test_noinput_empties_the_input_and_nothing_else() -> None:
    judgement = judge(paper, {**YES, "input_appropriate": "no", "input_edit": "<noinput>"}, FIELDS)
    assert judgement.accepted
    assert judgement.edits == {"input": ""}
    assert judge(paper, {**YES, "input_edit": "<NoInput> "}, {**FIELDS, "input": ""}).edits == {}
    assert judge(paper, {**YES, "output_edit": "<noinput>"}, FIELDS).edits == {"output": "<noinput>"}


@pytest.mark.parametrize("text", ["<b>bold</b> & <script>x</script>", "x" * 100_000])
def test_edits_are_kept_to_the_letter(text: str) -> None:
    assert judge(paper, {**YES, "output_edit": text}, FIELDS).edits == {"output": text}


def test_answers_that_are_not_there_speak_against_it() -> None:
    assert not judge(paper, {}, FIELDS).accepted
    assert not judge(quick, {}, FIELDS).accepted
    assert judge(quick, {"verdict": "accept"}, FIELDS).accepted
    rejected = judge(quick, {"verdict": "reject", "output_edit": "x"}, FIELDS)
    assert not rejected.accepted
    assert rejected.task_valid


def test_conditions_of_every_question_type() -> None:
    rubric = rubric_of(
        [
            {"name": "quality", "type": "rating", "title": "Q", "values": [1, 2, 3, 4]},
            {"name": "problems", "type": "multi_label", "title": "P", "required": False,
             "labels": {"harm": "Harm", "typo": "Typo"}},
            {"name": "best", "type": "ranking", "title": "B", "labels": {"output": "Output", "input": "Input"}},
            {"name": "wrong", "type": "span", "title": "W", "field": "output", "labels": {"wrong": "Wrong"},
             "required": False},
            {"name": "note", "type": "text", "title": "N", "required": False},
        ],
        {
            "quality": {"at_least": 3},
            "problems": {"none_of": ["harm"]},
            "best": {"first": ["output"]},
            "wrong": {"empty": True},
            "note": {"empty": True},
        },
    )  # fmt: skip
    ranking = [{"value": "input", "rank": 2}, {"value": "output", "rank": 1}]
    good = {"quality": 3, "problems": ["typo"], "best": ranking}
    assert judge(rubric, good, FIELDS).accepted
    bad = {
        "quality": 2,
        "problems": ["typo", "harm"],
        "best": [{"value": "input", "rank": 1}, {"value": "output", "rank": 2}],
        "wrong": [{"label": "wrong", "start": 0, "end": 1}],
        "note": "no",
    }
    for name, value in bad.items():
        assert judge(rubric, {**good, name: value}, FIELDS).failed == (name,)
    marked = rubric_of(
        [{"name": "tags", "type": "multi_label", "title": "T", "labels": {"ok": "Fine", "bad": "Bad"}}],
        {"tags": {"any_of": ["ok"]}},
    )
    assert judge(marked, {"tags": ["ok", "bad"]}, FIELDS).accepted
    assert not judge(marked, {"tags": ["bad"]}, FIELDS).accepted
    assert not judge(marked, {}, FIELDS).accepted


values = st.none() | st.text(max_size=5) | st.integers() | st.lists(st.text(max_size=3), max_size=3)


@given(st.dictionaries(st.sampled_from([q.name for q in paper.questions]), values))
def test_paper_accepts_only_what_is_yes_or_mended(answers: dict[str, object]) -> None:
    judgement = judge(paper, answers, FIELDS)
    expected = all(
        answers.get(question) == "yes" or field in judgement.edits
        for question, field in zip(YES, ("instruction", "input", "output"), strict=True)
    )
    assert judgement.accepted == expected
    for field, text in judgement.edits.items():
        assert text != FIELDS[field]


# files -------------------------------------------------------------------------------------------

GOOD = """
questions:
  - {name: quality, type: rating, title: How good, values: [1, 2, 3, 4]}
accept: {quality: {at_least: 3}}
guidelines: guide.md
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "rubric.yaml"
    path.write_text(text, encoding="utf-8")
    (folder / "guide.md").write_text("# Read it\n", encoding="utf-8")
    return path


def test_a_rubric_file(tmp_path: Path) -> None:
    rubric = load_rubric("quality", write(tmp_path, GOOD))
    assert in_language(rubric.guidelines, "zh") == "# Read it"
    assert judge(rubric, {"quality": 3}, FIELDS).accepted


def test_versions_tell_wording_structure_and_meaning_apart(tmp_path: Path) -> None:
    first = load_rubric("x", write(tmp_path, GOOD))
    reworded = load_rubric("x", write(tmp_path, GOOD.replace("How good", "How very good")))
    stricter = load_rubric("x", write(tmp_path, GOOD.replace("at_least: 3", "at_least: 4")))
    other = load_rubric("x", write(tmp_path, GOOD.replace("3, 4]", "3, 4, 5]")))
    assert len({first.version, reworded.version, stricter.version, other.version}) == 4
    assert first.structure == reworded.structure == stricter.structure != other.structure
    assert first.meaning == reworded.meaning == other.meaning != stricter.meaning


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        (("at_least: 3", "at_leats: 3"), "accept.quality.at_leats", "unknown key"),
        (("accept: {quality", "accept: {qualty"), "", "qualty"),
        (("values: [1, 2, 3, 4]", "values: [1]"), "questions.0", "two different"),
        (("values: [1, 2, 3, 4]", "values: [1, 11]"), "questions.0.values.1", "10"),
        (("type: rating", "type: stars"), "questions.0.type", "rating"),
        (("name: quality", "name: output"), "", "output"),
        (("name: quality", "name: Quality!"), "questions.0.name", "pattern"),
        (("guide.md", "none.md"), "", "cannot be read"),
        (("questions:", "questions: ["), "", "cannot be read"),
    ],
)  # fmt: skip
def test_a_broken_file_names_what_is_wrong(tmp_path: Path, change: tuple[str, str], where: str, says: str) -> None:
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(RecipeError) as caught:
        load_rubric("x", path)
    assert any(problem[0] == where and says in problem[1] for problem in caught.value.problems), caught.value.problems


def test_guidelines_fit_into_argilla(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    (tmp_path / "guide.md").write_text("x" * 10_001, encoding="utf-8")
    with pytest.raises(RecipeError, match="10,000"):
        load_rubric("x", path)
