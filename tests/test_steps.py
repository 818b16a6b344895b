"""Prompts and parsers of the steps in the default mode, which mends the reference's quirks."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_argilla.bootstrap import alpaca, classification, demonstrations, instances, instructions
from selfinstruct_argilla.bootstrap.filters import InstructionFilter
from selfinstruct_argilla.bootstrap.template import load_template
from selfinstruct_argilla.llm.base import Api, Reply
from selfinstruct_argilla.pool.pool import Outline
from selfinstruct_argilla.recipe import Filters
from selfinstruct_argilla.tasks import Instance, Origin, Status, Task

EN, ZH = load_template("en"), load_template("zh-CN")


def task(number: int, *, kind: bool | None = False, status: Status = Status.SEED, count: int = 1) -> Task:
    made = tuple(Instance(f"in {number}.{n}", f"out {number}.{n}") for n in range(count))
    return Task(
        id=f"t{number:03}", instruction=f"Instruction {number}", instances=made, is_classification=kind, status=status
    )


# instructions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "text", "finish", "items", "cut"),
    [
        ("completions", " Write a poem.\n10. Sort it.", "stop", ["Write a poem.", "Sort it."], None),
        ("completions", "9. Write a poem.\n10. Sort it.", "stop", ["Write a poem.", "Sort it."], None),
        ("completions", " Tell Ann about NASA.", "stop", ["Tell Ann about NASA."], None),
        (
            "completions",
            " one thing\n10)  another\tthing\nover two lines",
            "stop",
            ["One thing", "Another thing over two lines"],
            None,
        ),
        (
            "completions",
            " One\n Task 10: Two\n**11.** Three\n12、Four\n１３．Five",
            "stop",
            ["One", "Two", "Three", "Four", "Five"],
            None,
        ),
        ("completions", " Write a poem.\n10. Sort the", "length", ["Write a poem."], "Sort the"),
        ("completions", "", "stop", [], None),
        ("chat", "Sure! Here they are:\n\n9. Write a poem.\n10. Sort it.", "stop", ["Write a poem.", "Sort it."], None),
        ("chat", "Write a poem about 3. of May", "stop", ["Write a poem about 3. of May"], None),
        ("chat", "9. 写一首诗。\n10、解释“人工智能”。", "stop", ["写一首诗。", "解释“人工智能”。"], None),
    ],
)
def test_parse_instructions(api: Api, text: str, finish: str, items: list[str], cut: str | None) -> None:
    parsed = instructions.parse(Reply(text, finish), api)
    assert (parsed.items, parsed.cut) == (items, cut)


def test_the_prompt_as_a_whole() -> None:
    shown = ["Sort\n these  words:", "Name a fruit."]
    assert instructions.render(shown, "completions", EN).text == (
        "Come up with a series of tasks:\n1. Sort these words\n2. Name a fruit.\n3."
    )
    chat = instructions.render(shown, "chat", EN).messages()
    assert [message["role"] for message in chat] == ["user"]
    assert chat[0]["content"].startswith("Come up with a series of tasks:\n1. Sort these words\n2. Name a fruit.\n\n")
    assert "3 to 4" in chat[0]["content"]


@given(st.text(max_size=2000), st.sampled_from(["stop", "length", None]), st.sampled_from(["completions", "chat"]))
def test_no_reply_breaks_the_parser(text: str, finish: str | None, api: Api) -> None:
    parsed = instructions.parse(Reply(text, finish), api)
    assert all(item and item == " ".join(item.split()) for item in parsed.items)


# classification ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Yes", True),
        ("yes.", True),
        ("**No**", False),
        (" NO, because", False),
        ("Yesterday", None),
        ("Maybe", None),
        ("", None),
    ],
)
def test_yes_no_or_neither(text: str, expected: bool | None) -> None:
    assert classification.parse(Reply(text, "stop"), EN) is expected


def test_chinese_yes_and_no() -> None:
    assert classification.parse(Reply("是的。", "stop"), ZH) is True
    assert classification.parse(Reply(" 否", "stop"), ZH) is False


def test_twelve_yes_and_nineteen_no() -> None:
    seeds = [task(n, kind=n % 3 == 0) for n in range(120)]
    shown = demonstrations.draw_for_classification(seeds, random.Random(1))
    assert (sum(t.is_classification is True for t in shown), len(shown)) == (12, 31)
    prompt = classification.render("Do this:", shown, EN)
    assert prompt.text.count("Is it classification?") == 32
    assert prompt.text.endswith("Task: Do this\nIs it classification?")
    assert [m["role"] for m in prompt.messages()] == ["system", *["user", "assistant"] * 31, "user"]


# instances ---------------------------------------------------------------------------------------


def pairs(found: list[Instance]) -> list[tuple[str, str]]:
    return [(instance.input, instance.output) for instance in found]


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("Input: a\nOutput: b", "stop", [("a", "b")]),
        ("Output: b", "stop", [("", "b")]),
        ("A plain answer.", "stop", [("", "A plain answer.")]),
        ("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d", "stop", [("a", "b"), ("c", "d")]),
        ("**Example 1:**\n**Input:** a\n**Output:** b", "stop", [("a", "b")]),
        ("Paragraph: a\nOutput: b", "stop", [("Paragraph: a", "b")]),
        ("Input: a\nb\nOutput: c\nd", "stop", [("a\nb", "c\nd")]),
        ("Input: meet at 12:30 Output: noted", "stop", [("meet at 12:30", "noted")]),
        ("Input: only this", "stop", []),
        ("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOut", "length", [("a", "b")]),
        ("The Output: of a factory", "stop", [("The", "of a factory")]),
        ("", "stop", []),
    ],
)
def test_input_first(text: str, finish: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(instances.parse_input_first(Reply(text, finish), EN)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Class label: Spam\nBuy now\nClass label: spam\nCall me", [("Buy now", "Spam"), ("Call me", "Spam")]),
        ("Class label: A", [("", "A")]),
        ("Class label: A\nInput: x", [("x", "A")]),
        ("A\nx", []),
    ],
)
def test_output_first(text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(instances.parse_output_first(Reply(text, "stop"), EN)) == expected


def test_chinese_tags() -> None:
    assert pairs(instances.parse_input_first(Reply("示例1\n输入：甲\n输出：乙", "stop"), ZH)) == [("甲", "乙")]
    assert pairs(instances.parse_output_first(Reply("类别标签：正面\n很好", "stop"), ZH)) == [("很好", "正面")]


@pytest.mark.parametrize(
    ("labels", "at_most", "kept", "reasons"),
    [
        ("AAAAB", 5, "AAB", ["surplus_label"] * 2),
        ("AAABBB", 3, "AAB", ["surplus_instance"] * 3),
        ("AABBC", 5, "AABBC", []),
        ("ABCDEF", 5, "ABCDE", ["surplus_instance"]),
        ("AAAA", 3, "AAA", ["surplus_instance"]),
        ("", 5, "", []),
    ],
)
def test_class_labels_are_balanced(labels: str, at_most: int, kept: str, reasons: list[str]) -> None:
    found = [Instance(f"input {number}", label) for number, label in enumerate(labels)]
    stays, goes = instances.balanced(found, at_most=at_most)
    assert "".join(instance.output for instance in stays) == kept
    assert [item.reason for item in goes] == reasons
    assert [instance for instance in found if instance in stays] == stays, "in their order"


def test_both_piles_with_reasons() -> None:
    found = [
        Instance("a", "1"), Instance("a", "2"), Instance("b", "b"), Instance("c", ""), Instance("d:", "x"),
        Instance("e", "5"), Instance("e", "5"), Instance("f", "6"), Instance("g", "7"),
    ]  # fmt: skip
    kept, invalid = instances.check(found, at_most=2)
    assert pairs(kept) == [("e", "5"), ("f", "6")]
    assert [item.reason for item in invalid] == [
        "conflicting_outputs", "conflicting_outputs", "input_equals_output", "empty_output", "ends_with_colon",
        "duplicate_instance", "surplus_instance",
    ]  # fmt: skip


@given(st.text(max_size=2000), st.sampled_from(["stop", "length"]))
def test_no_reply_breaks_the_instance_parsers(text: str, finish: str) -> None:
    for template in (EN, ZH):
        for parse in (instances.parse_input_first, instances.parse_output_first):
            kept, invalid = instances.check(parse(Reply(text, finish), template), at_most=5)
            assert len(kept) <= 5
            assert all(instance.output for instance in kept)
            assert all(item.reason for item in invalid)


def test_few_shot_instances_prefer_short_seeds_and_those_with_several() -> None:
    seeds = [task(n, kind=False) for n in range(30)] + [task(99, count=3)]
    shown = demonstrations.draw_for_instances(seeds, random.Random(2), classification=False, count=11, longest=700)
    assert len(shown) == 11
    assert "t099" in [t.id for t in shown]
    text = instances.render("Do it", shown, EN, classification=False).text
    assert "Example 1\nInput: in 99.0\nOutput: out 99.0\nExample 2\n" in text
    assert text.endswith("Task: Do it\n")


# demonstrations ----------------------------------------------------------------------------------


def drawn(made: list[Outline], rng: random.Random, *, seeds: Sequence[Task] = (), counts: tuple[int, int]) -> list[str]:
    weighted = demonstrations.demonstrable(made)
    return demonstrations.draw_for_instructions(seeds, weighted, rng, seed_count=counts[0], generated_count=counts[1])


def outline(number: int, status: Status, votes: tuple[int, int] = (0, 0)) -> Outline:
    return Outline(f"made {number}", status, Origin.GENERATED, 1, None, votes, distilled=False)


@given(st.integers(0, 30), st.integers(0, 30), st.integers())
def test_demonstrations_are_distinct_and_as_many_as_there_are(seeds: int, generated: int, seed: int) -> None:
    pool = [task(n) for n in range(seeds)]
    made = [outline(n, Status.CANDIDATE) for n in range(generated)]
    draw = [drawn(made, demonstrations.generator(seed, 1), seeds=pool, counts=(6, 2)) for _ in range(2)]
    assert draw[0] == draw[1]
    assert len(set(draw[0])) == len(draw[0]) == min(8, seeds + min(2, generated))
    assert sum(task_id.startswith("made") for task_id in draw[0]) == min(2, generated)


def test_accepted_tasks_are_shown_more_often() -> None:
    made = [outline(n, Status.ACCEPTED if n < 10 else Status.CANDIDATE) for n in range(20)]
    accepted = {task.id for task in made[:10]}
    shown = [task_id in accepted for n in range(500) for task_id in drawn(made, random.Random(n), counts=(0, 2))]
    assert 0.6 < sum(shown) / len(shown) < 0.9


def test_the_clearer_the_verdict_the_more_often_it_is_shown() -> None:
    votes = [(3, 0), (1, 0), (2, 1), (0, 0)]
    made = [outline(n, Status.ACCEPTED if any(v) else Status.CANDIDATE, v) for n, v in enumerate(votes)]
    made.append(outline(4, Status.ACCEPTED))  # it came in as accepted
    weights = {"made 0": 4, "made 1": 2, "made 2": 1.5, "made 3": 1, "made 4": 2}
    assert dict(demonstrations.demonstrable(made)) == weights
    shown = [task_id for n in range(2000) for task_id in drawn(made, random.Random(n), counts=(0, 1))]
    for task_id, weight in weights.items():
        assert shown.count(task_id) / len(shown) == pytest.approx(weight / 10.5, abs=0.05)


def test_neither_seeds_nor_rewritten_outputs_are_shown_as_generated() -> None:
    seed = outline(1, Status.SEED)._replace(origin=Origin.SEED)
    assert demonstrations.demonstrable([seed, outline(2, Status.ACCEPTED)._replace(distilled=True)]) == []


# filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Name three fruits", "too_short"),
        ("Draw a house for me", "blocked_word"),
        ("Write a program that sorts", "blocked_start"),
        ("- name four red fruits", "starts_with_punctuation"),
        ('"Yes" or "no": is it red', None),
        ("Éclairs are made of what", None),
        ("Name four\x07 red fruits", "control_character"),
    ],
)
def test_english_filters(instruction: str, reason: str | None) -> None:
    found = InstructionFilter.of(Filters(), EN.filters).reason(instruction)
    assert (found[0] if found else None) == reason


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("写诗", "too_short"),
        ("请写一首关于春天的短诗。", None),
        ("请描述这张图片的内容。", "blocked_word"),
        ("，请写一首诗吧", "starts_with_punctuation"),
    ],
)
def test_chinese_filters_count_characters(instruction: str, reason: str | None) -> None:
    found = InstructionFilter.of(Filters(), ZH.filters).reason(instruction)
    assert (found[0] if found else None) == reason


def test_a_recipe_may_set_each_filter() -> None:
    filters = Filters(min_words=1, max_words=3, blocked_words=["secret"], blocked_starts=["Do"])
    rules = InstructionFilter.of(filters, EN.filters)
    assert rules.reason("Draw") is None
    assert rules.reason("One two three four") == ("too_long", "4")
    assert rules.reason("a Secret thing") == ("blocked_word", "Secret")
    assert rules.reason("do it") == ("blocked_start", "Do")


# alpaca ------------------------------------------------------------------------------------------


def test_alpaca_text_however_numbered() -> None:
    text = (
        " Name a red fruit.\n4. Input:\n<noinput>\n4. Output:\nApple.\n\n###\n**6. Instruction:** Translate it.\n"
        "Input: hello\nOutput: bonjour\n###\n7. Instruction: cut he"
    )
    items, cut = alpaca.parse_text(Reply(text, "length"), EN)
    assert items == [("Name a red fruit.", Instance("", "Apple.")), ("Translate it.", Instance("hello", "bonjour"))]
    assert cut == "cut he"


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        ("Apple.\n###", "Apple."),
        ("Apple.\n  #### \n", "Apple."),
        ("a ###", "a ###"),
        ("# One\n##", "# One\n##"),
        ("###", ""),
    ],
)
def test_the_mark_after_an_alpaca_item_is_no_part_of_it(output: str, kept: str) -> None:
    items, _ = alpaca.parse_text(Reply(f"Write.\n1. Input:\n\n1. Output:\n{output}", "stop"), EN)
    assert items == [("Write.", Instance("", kept))]


def test_alpaca_json_keeps_what_is_whole() -> None:
    text = 'Here:\n```json\n{"tasks": [{"instruction": "A", "input": "", "output": "B"}, {"instruction": "C", "inp'
    items, cut = alpaca.parse_json(Reply(text, "length"))
    assert items == [("A", Instance("", "B"))]
    assert cut is not None


@given(st.text(max_size=2000), st.sampled_from(["stop", "length"]))
def test_no_reply_breaks_the_alpaca_parsers(text: str, finish: str) -> None:
    for items, _ in (alpaca.parse_text(Reply(text, finish), EN), alpaca.parse_json(Reply(text, finish))):
        assert all(instruction for instruction, _ in items)
