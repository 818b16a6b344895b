"""Task files: whatever is wrong with one is named with its line, and what is right comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_argilla.errors import DataFileError
from selfinstruct_argilla.pool.jsonl import format_tasks, read_tasks
from selfinstruct_argilla.tasks import Instance, Task

GOOD = '{"id": "a", "instruction": "Add.", "instances": [{"input": "1, 2", "output": "3"}], "is_classification": false}'


def written(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "this is not JSON"),
        ("not json", "this is not JSON"),
        (GOOD[:-1], "this is not JSON"),
        (GOOD + GOOD, "this is not JSON: Extra data"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "expected an object"),
        ("null", "expected an object"),
        (b"\xff\xfe" + GOOD.encode(), "it is not UTF-8"),
        (GOOD.replace("Add.", "A\\u0000dd"), "NUL"),
        (GOOD.replace("Add.", "A\\ud800dd"), "half of a surrogate pair"),
        (GOOD[:-1] + ', "note": ["\\udfff"]}', "half of a surrogate pair"),
        (GOOD[:-1] + ', "note": NaN}', "NaN is not JSON"),
        (GOOD.replace("Add.", " "), "'instruction' is missing or empty"),
        (GOOD.replace('"id": "a"', '"id": 5'), "'id' must be a text"),
        (GOOD.replace('"id": "a"', '"id": "a\\nb"'), "control characters"),
        (GOOD.replace('[{"input": "1, 2", "output": "3"}]', "[]"), "'instances' must be a list"),
        (GOOD.replace('"3"', "3"), "'output' must be a text"),
        (GOOD.replace("false", '"no"'), "'is_classification' must be true or false"),
        (GOOD[:-1] + ', "provenance": 5}', "'provenance' must be an object"),
        (GOOD, "the id 'a' is on line 1 already"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str | bytes, words: str) -> None:
    path = written(tmp_path / "tasks.jsonl", GOOD, "", line, GOOD.replace('"a"', '"z"'))
    with pytest.raises(DataFileError) as caught:
        read_tasks(path)
    assert caught.value.line == 3
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(DataFileError, match="it cannot be read"):
            read_tasks(path)


def test_what_editors_do_to_a_file_is_borne(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n  \r\n" + GOOD.replace('"a"', '"b\u2028"').encode())
    assert [task.id for task in read_tasks(path)] == ["a", "b\u2028"]
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    assert read_tasks(empty) == []


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
filled = texts.filter(str.strip)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
extras = st.dictionaries(
    texts.map(lambda key: f"x{key}"), st.none() | st.booleans() | st.integers() | texts | st.lists(texts), max_size=3
)
tasks = st.builds(
    Task,
    id=ids,
    name=texts,
    instruction=filled,
    instances=st.lists(st.builds(Instance, texts, filled), min_size=1, max_size=3).map(tuple),
    is_classification=st.sampled_from([True, False, None]),
    extra=extras,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(tasks, max_size=4, unique_by=lambda task: task.id))
def test_tasks_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, given_tasks: list[Task]) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    lines = list(format_tasks(given_tasks))
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    back = read_tasks(path)
    assert back == sorted(given_tasks, key=lambda task: task.id)
    assert [json.loads(line)["id"] for line in lines] == [task.id for task in back]
