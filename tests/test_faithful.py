"""`faithful: true` reads replies as the 2022 code does: hand-worked cases, one or more for every quirk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from selfinstruct_argilla.bootstrap import faithful
from selfinstruct_argilla.bootstrap.demonstrations import draw_for_instructions
from selfinstruct_argilla.bootstrap.method import Ask, Planned
from selfinstruct_argilla.bootstrap.methods import method_of
from selfinstruct_argilla.llm.base import CallRecord, Prompt, Reply
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.tasks import Instance, Task

RNG = random.Random(0)


def recipe(*overrides: str) -> Recipe:
    return Recipe.load("quickstart", ["bootstrap.faithful=true", *overrides])


def seeds(count: int = 40) -> list[Task]:
    return [
        Task(
            id=f"seed_{number:02}",
            instruction=f"Seed  task\nnumber {number}:",
            instances=(Instance("given", "answer"),),
            is_classification=number % 2 == 0,
        )
        for number in range(count)
    ]


def planned(recipe: Recipe, generated: Sequence[Task] = (), seed: int = 1) -> tuple[Planned, list[str]]:
    """A request for instructions, and what it shows."""
    seed_count, generated_count = recipe.bootstrap.demonstrations_in_force
    shown = draw_for_instructions(
        seeds(), [(task.id, 1.0) for task in generated], random.Random(seed),
        seed_count=seed_count, generated_count=generated_count,
    )  # fmt: skip
    known = {task.id: task for task in (*seeds(), *generated)}
    return method_of(recipe, seeds()).plan([known[task_id] for task_id in shown]), shown


# D1: the instruction prompt ----------------------------------------------------------------------


def test_the_first_prompt_shows_eight_seeds_and_ends_with_the_ninth_number() -> None:
    request, shown = planned(recipe())
    lines = request.prompt.text.split("\n")
    assert lines[0] == "Come up with a series of tasks:"
    assert [line.split(". ")[0] for line in lines[1:9]] == [str(n) for n in range(1, 9)]
    assert lines[9:] == ["9."]
    assert all("Seed task number" in line and not line.endswith(":") for line in lines[1:9])
    assert len(shown) == 8


def test_two_generated_tasks_and_six_seeds_once_there_are_any() -> None:
    generated = [Task(id=f"g{n}", instruction=f"Generated {n}", instances=(Instance("", "x"),)) for n in range(5)]
    for count, expected in ((0, 0), (1, 1), (5, 2)):
        _, shown = planned(recipe(), generated[:count], count)
        assert sum(name.startswith("g") for name in shown) == expected
        assert len(shown) == len(set(shown)) == 8


def test_table_4_and_the_stops_of_the_code() -> None:
    request, _ = planned(Recipe.load("self_instruct", ["bootstrap.faithful=true"]))
    assert request.parameters == {
        "max_tokens": 1024,
        "temperature": 0.7,
        "top_p": 0.5,
        "frequency_penalty": 0.0,
        "presence_penalty": 2.0,
        "stop": ["\n\n", "\n16", "16.", "16 ."],
    }


# D2: reading the list ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        (" Write a poem.\n10. Sort the list.", "stop", ["Write a poem.", "Sort the list."]),
        (" Tell Ann about NASA.", "stop", ["Tell ann about nasa."]),  # capitalize() lower-cases the rest
        (" One thing\n10 . Another thing", "stop", ["One thing", "Another thing"]),  # one space before the dot
        (" One thing\n10.Another thing", "stop", ["One thing 10.another thing"]),  # no space after the dot
        (" One thing\n 10. Another thing", "stop", ["One thing 10. another thing"]),  # an indented number
        (" One thing\n10) Another thing", "stop", ["One thing 10) another thing"]),
        (" Write a poem.\n10. Sort the", "length", []),  # all of a cut reply is dropped
        (" One\n10.  \n11. Two", "stop", ["One", "Two"]),  # empty items are skipped
        ("", "stop", []),
    ],
)
def test_parse_instructions(text: str, finish: str, expected: list[str]) -> None:
    assert faithful.parse_instructions(Reply(text, finish)).items == expected


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Name three fruits", "too_short"),
        ("Name three red fruits", None),
        (" ".join(["word"] * 150), None),
        (" ".join(["word"] * 151), "too_long"),
        ("Describe the image in words", "blocked_word"),
        ("Describe the Graphs in words", "blocked_word"),
        ("Please go to the shop", "blocked_word"),
        ("Describe the imagery in words", None),  # whole words only
        ("Explain what to plot here", "blocked_word"),
        ("Write a program that sorts", "blocked_start"),
        ("Please write a program that sorts", None),
        ("(Optional) name four red fruits", "starts_with_punctuation"),
        ("Éclairs are made of what", "starts_with_non_ascii"),
        ("列出四种 红色 的 水果", "starts_with_non_ascii"),
        ("3 facts about the sea", None),
    ],
)
def test_turn_away(instruction: str, reason: str | None) -> None:
    found = faithful.turn_away(instruction)
    assert (found[0] if found else None) == reason


@pytest.mark.parametrize("word", ["video", "audio", "music", "flowchart", "diagram"])
def test_alpaca_blocks_five_words_more(word: str) -> None:
    instruction = f"Describe this {word} to me"
    assert faithful.turn_away(instruction) is None
    assert faithful.turn_away(instruction, alpaca=True) == ("blocked_word", word)


# D3: novelty -------------------------------------------------------------------------------------


def test_words_of_other_scripts_vanish() -> None:
    assert recipe("bootstrap.novelty={threshold: 0.6, tokens: auto}").bootstrap.novelty_in_force.tokens == "rouge"
    assert Recipe.load("quickstart").bootstrap.novelty_in_force.tokens == "auto"


# D4: classification ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" Yes", True), ("yes\n", True), (" YES ", True), ("Yes.", False), ("yEs", False), (" No", False), ("", False)],
)
def test_only_three_spellings_mean_yes(text: str, expected: bool) -> None:
    assert faithful.is_classification(Reply(text, "stop")) is expected


def test_a_failed_request_means_no() -> None:
    assert faithful.is_classification(None) is False


# D5: instances -----------------------------------------------------------------------------------


def instances_of(
    text: str, *, finish: str = "stop", classification: bool = False, at_most: int = 5
) -> list[tuple[str, str]]:
    kept, _ = faithful.instances_of(Reply(text, finish), classification=classification, at_most=at_most, rng=RNG)
    return [(instance.input, instance.output) for instance in kept]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Input: a\nOutput: b", [("a", "b")]),
        ("Output: b", [("", "b")]),
        ("A plain answer.", []),  # an untagged answer is lost
        ("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d", [("a", "b"), ("c", "d")]),
        ("Example 1\nA plain answer.", [("", "A plain answer.")]),
        ("Paragraph: a\nOutput: b", [("Paragraph: a", "b")]),  # field names stay
        ("Input 1: a\nOutput 1: b", [("a", "b")]),
        ("Input 2 - List: a\nOutput: b", [("Input 2 - List: a", "b")]),
        ("Input: a\nOutput: b\nInput: c\nOutput: d", [("a", "b")]),  # cut at the next input tag
        ("Input: a\nOutput: b\nOutput: c", [("a", "b")]),
        ("Input: a\nOutput: a", []),
        ("Input: a\nOutput:", []),
        ("Input: a:\nOutput: b", []),
        ("Input: a\nOutput: b:", []),
    ],
)
def test_input_first(text: str, expected: list[tuple[str, str]]) -> None:
    assert instances_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Class label: Spam\nBuy now", [("Buy now", "Spam")]),
        ("Class label: Spam", [("", "Spam")]),
        ("Spam\nBuy now", []),  # without the tag there is nothing
        ("noise Class label: A\nx\nClass label: a\ny", [("x", "A"), ("y", "a")]),  # labels keep their case
    ],
)
def test_output_first(text: str, expected: list[tuple[str, str]]) -> None:
    assert instances_of(text, classification=True) == expected


def test_a_cut_reply_loses_its_last_instance() -> None:
    text = "Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d"
    assert instances_of(text, finish="length") == [("a", "b")]


def test_one_conflict_voids_the_task() -> None:
    text = "Class label: A\nsame\nClass label: B\nsame\nClass label: C\nother"
    assert instances_of(text, classification=True) == []


def test_duplicates_fall_together_and_at_most_five_stay() -> None:
    twice = "Class label: A\nx\nClass label: A\nx"
    assert instances_of(twice, classification=True) == [("x", "A")]
    many = "\n".join(f"Class label: L{n}\ninput {n}" for n in range(9))
    kept = instances_of(many, classification=True)
    assert len(kept) == len(set(kept)) == 5
    assert kept != [(f"input {n}", f"L{n}") for n in range(5)]  # by chance, not the first five


def test_the_token_limit_depends_on_the_group_of_five() -> None:
    asked: list[tuple[str, dict[str, object]]] = []
    batch = ["one", "two", "three", "four", "five"]

    def asking(yes: set[str]) -> Ask:
        async def ask(step: str, prompt: Prompt, parameters: object) -> CallRecord:
            asked.append((step, dict(parameters)))  # type: ignore[call-overload]
            found = step == "classification" and any(f"Task: {word}\n" in prompt.query for word in yes)
            return CallRecord(step, 1, "reply", Reply(" Yes" if found else " No", "stop"))

        return ask

    method = method_of(Recipe.load("self_instruct", ["bootstrap.faithful=true"]), seeds())
    for yes, limit in (({"four"}, 300), (set(), 350)):
        asked.clear()
        asyncio.run(method.write("one", Reply("", "stop"), batch, asking(yes)))
        assert asked[-1][0] == "input_first"
        assert asked[-1][1]["max_tokens"] == limit


# D9: Alpaca --------------------------------------------------------------------------------------


def test_alpaca_prompt_and_parameters() -> None:
    asked = Recipe.load(
        "alpaca", ["bootstrap.faithful=true", "bootstrap.structured_output=false", "models.generator.api=completions"]
    )
    request, shown = planned(asked)
    assert len(shown) == 3
    assert request.prompt.text.endswith("###\n4. Instruction:")
    assert request.parameters["max_tokens"] == 3072
    assert request.parameters["temperature"] == request.parameters["top_p"] == 1.0
    assert request.parameters["stop"] == ["\n20", "20."]
    assert request.parameters["logit_bias"] == {"50256": -100}


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        (" Do it.\n4. Input:\n<noinput>\n4. Output:\nDone.", "stop", [("Do it.", "", "Done.")]),
        (" Do it.\n4. Input:\n<NoInput>\n4. Output:\nDone.", "stop", [("Do it.", "", "Done.")]),
        (" Do IT.\n4. Input:\nX\n4. Output:\nDone.", "stop", [("Do IT.", "X", "Done.")]),  # nothing is lower-cased
        (" Do it.\n5. Input:\nx\n5. Output:\nDone.", "stop", []),  # not under its own number
        (" Do it.\n4. Output:\nDone.", "stop", []),  # not exactly three fields
        (
            " A.\n4. Input:\nx\n4. Output:\ny\n###\n5. Instruction: B.\n5. Input:\nz\n5. Output:\nw",
            "stop",
            [("A.", "x", "y"), ("B.", "z", "w")],
        ),
        (
            " A.\n4. Input:\nx\n4. Output:\ny\n###\n5. Instruction: B.\n5. Input:\nz\n5. Output:\nw",
            "length",
            [("A.", "x", "y")],  # only the last is dropped
        ),
    ],
)
def test_parse_alpaca(text: str, finish: str, expected: list[tuple[str, str, str]]) -> None:
    found = faithful.parse_alpaca(Reply(text, finish), 4)
    assert [(instruction, i.input, i.output) for instruction, i in found] == expected


def test_every_quirk_of_the_table_has_a_test() -> None:
    """The header's table and this file go together."""
    header = faithful.__doc__ or ""
    text = Path(__file__).read_text(encoding="utf-8")
    for name in (
        "parse_instructions",
        "turn_away",
        "is_classification",
        "instance_tokens",
        "instances_of",
        "parse_alpaca",
    ):
        assert f"`{name}`" in header
        assert name == "instance_tokens" or f"faithful.{name}" in text
