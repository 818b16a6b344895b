"""The configs of a release: rows, templates and schemas."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from release_help import make_task

from selfinstruct_argilla.release import formats
from selfinstruct_argilla.tasks import Instance, Provenance, Task, Verdict

TASKS = [formats.task_row(make_task(n, instances=1 + n % 3), edited=False) for n in range(60)]


@pytest.mark.parametrize("config", ["tasks", "alpaca", "prompt_completion", "messages"])
def test_rows_fit_their_schema(config: str) -> None:
    schema = formats.schema(config)
    rows = list(formats.rows(config, TASKS))
    assert pa.Table.from_pylist(rows, schema=schema).to_pylist() == rows
    assert all(list(row) == schema.names for row in rows)


def test_columns_are_the_contract() -> None:
    assert formats.schema("alpaca").names == ["instruction", "input", "output"]
    assert formats.schema("prompt_completion").names == ["prompt", "completion"]
    assert formats.schema("messages").names == ["messages"]
    assert {"id", "instruction", "instances", "model", "request", "demonstrations", "origin", "round"} <= set(
        formats.schema("tasks").names
    )


def test_every_instance_is_a_row_in_order() -> None:
    rows = list(formats.rows("alpaca", TASKS))
    assert rows == [
        {"instruction": task["instruction"], **instance} for task in TASKS for instance in task["instances"]
    ]


def test_prompt_and_completion_hold_the_texts() -> None:
    pairs = zip(formats.rows("alpaca", TASKS), formats.rows("prompt_completion", TASKS), strict=True)
    prompts = set()
    for row, pair in pairs:
        assert row["instruction"] in pair["prompt"]
        assert row["input"] in pair["prompt"]
        assert pair["completion"].strip() == row["output"]
        prompts.add(pair["prompt"].replace(row["instruction"], "I").replace(row["input"] or "\0", "X"))
    assert len(prompts) == 13, "seven templates with an input and six without"


def test_template_of_an_instance_never_changes() -> None:
    # pinned: another choice would change every published row
    assert [formats.template(f"t{n}", 0, False)[0] for n in range(3)] == [
        "Task: {instruction}\n\n",
        "{instruction}\nOutput:",
        "{instruction}\n",
    ]


def test_messages_are_a_question_and_an_answer() -> None:
    assert formats.chat("Add.", "1 2", "3") == [
        {"role": "user", "content": "Add.\n\n1 2"},
        {"role": "assistant", "content": "3"},
    ]
    assert formats.chat("Sing.", "", "La")[0]["content"] == "Sing."


def test_openai_export_is_json_lines() -> None:
    lines = list(formats.chat_jsonl(TASKS))
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    assert [json.loads(line) for line in lines] == list(formats.rows("messages", TASKS))


def test_only_accepted_instances_and_no_extra_keys_leave() -> None:
    task = Task(
        "t1",
        "Do it.",
        (Instance("a", "b", Verdict.ACCEPTED), Instance("c", "d", Verdict.REJECTED), Instance("e", "f")),
        provenance=Provenance("/home/anna/models/tiny.gguf", "k" * 64, ("s1",)),
        extra={"author": "Anna"},
    )
    row = formats.task_row(task, edited=True)
    assert row["instances"] == [{"input": "a", "output": "b"}, {"input": "e", "output": "f"}]
    assert row["model"] == "tiny.gguf"
    assert row["edited"] is True
    assert "nna" not in json.dumps(row)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("gpt-5-mini", "gpt-5-mini"),
        ("meta-llama/Llama-3-8B", "meta-llama/Llama-3-8B"),
        ("~/m/x.gguf", "x.gguf"),
        ("C:\\Users\\anna\\x.gguf", "x.gguf"),
        ("models/x.gguf", "x.gguf"),
    ],
)
def test_model_paths_lose_their_folders(model: str, shown: str) -> None:
    assert formats.public_model(model) == shown
