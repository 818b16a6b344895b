"""The configs of a release: tasks as rows, each config with its columns written down.

    tasks              one row a task, with its instances and where it comes from
    alpaca             one row an instance: instruction, input, output (Stanford Alpaca)
    prompt_completion  one row an instance: prompt, completion (TRL), in the several templates of Self-Instruct
    messages           one row an instance: a user's and an assistant's message (TRL conversational, OpenAI chat)
    responses          one row a person's response to an instance, where a recipe asks for it

Rows are sorted by task id, then by instance. Columns are fixed here and never inferred from the data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..tasks import Task

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
Responses = Mapping[tuple[str, int], Sequence[Mapping[str, str]]]  # by task and instance: annotator, answers

# Self-Instruct, section 2.3: several ways to put a task into words, so that a model does not depend on one. The end
# of the completion is left to the tokenizer.
_WITH_INPUT = (
    ("{instruction}\nInput: {input}\nOutput:", " {output}"),
    ("{instruction}\n\nInput: {input}\n\nOutput:", " {output}"),
    ("Task: {instruction}\nInput: {input}\nOutput:", " {output}"),
    ("{instruction}\n\n{input}\n\nOutput:", " {output}"),
    ("{instruction}\n\n{input}\n\n", "{output}"),
    ("{instruction}\n{input}\n\n", "{output}"),
    ("Task: {instruction}\n\n{input}\n\n", "{output}"),
)
_WITHOUT_INPUT = (
    ("{instruction} Output:", " {output}"),
    ("{instruction}\nOutput:", " {output}"),
    ("{instruction}\n\nOutput:", " {output}"),
    ("{instruction}\n", "{output}"),
    ("{instruction}\n\n", "{output}"),
    ("Task: {instruction}\n\n", "{output}"),
)


def schema(config: str) -> pa.Schema:
    """The Arrow schema of a config."""
    import pyarrow as pa

    def pairs(first: str, second: str) -> pa.DataType:
        return pa.list_(pa.struct([(first, pa.string()), (second, pa.string())]))

    columns: dict[str, list[tuple[str, pa.DataType]]] = {
        "tasks": [
            ("id", pa.string()),
            ("name", pa.string()),
            ("instruction", pa.string()),
            ("instances", pairs("input", "output")),
            ("is_classification", pa.bool_()),
            ("origin", pa.string()),
            ("round", pa.int32()),
            ("model", pa.string()),
            ("request", pa.string()),
            ("demonstrations", pa.list_(pa.string())),
            ("max_rouge_l", pa.float64()),
            ("nearest", pa.string()),
            ("edited", pa.bool_()),
        ],
        "alpaca": [("instruction", pa.string()), ("input", pa.string()), ("output", pa.string())],
        "prompt_completion": [("prompt", pa.string()), ("completion", pa.string())],
        "messages": [("messages", pairs("role", "content"))],
        "responses": [
            ("task_id", pa.string()),
            ("instance", pa.int32()),
            ("annotator", pa.string()),
            ("answers", pa.string()),
        ],
    }
    return pa.schema(columns[config])


def rows(config: str, tasks: Iterable[Row]) -> Iterator[Row]:
    """The rows of a config, made from rows of the config `tasks`."""
    for task in tasks:
        if config == "tasks":
            yield task
            continue
        if config == "responses":
            yield from ({"task_id": task["id"], **response} for response in task["responses"])
            continue
        for number, instance in enumerate(task["instances"]):
            instruction, input, output = task["instruction"], instance["input"], instance["output"]
            if config == "alpaca":
                yield {"instruction": instruction, "input": input, "output": output}
            elif config == "prompt_completion":
                prompt, completion = template(task["id"], number, bool(input))
                yield {
                    "prompt": prompt.format(instruction=instruction, input=input),
                    "completion": completion.format(output=output),
                }
            else:
                yield {"messages": chat(instruction, input, output)}


def task_row(task: Task, *, edited: bool, responses: Responses | None = None) -> Row:
    """What is published of a task; `edited` says whether people changed what the model wrote. With `responses`, those
    to the instances that are published are beside its columns; both count published instances from 0."""
    row: Row = {
        "id": task.id,
        "name": task.name,
        "instruction": task.instruction,
        "instances": [{"input": i.input, "output": i.output} for i in task.accepted_instances()],
        "is_classification": task.is_classification,
        "origin": task.origin.value,
        "round": task.round,
        "model": None if task.provenance.model is None else public_model(task.provenance.model),
        "request": task.provenance.request,
        "demonstrations": list(task.provenance.demonstrations),
        "max_rouge_l": task.max_rouge_l,
        "nearest": task.nearest,
        "edited": edited,
    }
    if responses is not None:
        places = [place for place, i in enumerate(task.instances) if i in task.accepted_instances()]
        row["responses"] = [
            {"instance": number, **response}
            for number, place in enumerate(places)
            for response in responses.get((task.id, place), ())
        ]
    return row


def public_model(model: str) -> str:
    """A model's name; of the path of a model file only the last part, because folders carry people's names."""
    is_path = model.startswith(("/", "~", ".")) or "\\" in model or model.endswith(".gguf")
    return re.split(r"[/\\]", model)[-1] if is_path else model


def template(task_id: str, instance: int, with_input: bool) -> tuple[str, str]:
    """The prompt and completion templates of an instance, chosen by a hash of its id: the same in every release."""
    number = int.from_bytes(hashlib.sha256(f"{task_id}:{instance}".encode()).digest()[:8], "big")
    choices = _WITH_INPUT if with_input else _WITHOUT_INPUT
    return choices[number % len(choices)]


def chat(instruction: str, input: str, output: str) -> list[dict[str, str]]:
    """An instance as a conversation of one question and one answer."""
    return [
        {"role": "user", "content": f"{instruction}\n\n{input}" if input else instruction},
        {"role": "assistant", "content": output},
    ]


def chat_jsonl(tasks: Iterable[Row]) -> Iterator[str]:
    """OpenAI's chat format for fine-tuning, one JSON object a line, the newline included."""
    for row in rows("messages", tasks):
        yield json.dumps(row, ensure_ascii=False) + "\n"
