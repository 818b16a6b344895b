"""Instruction datasets of others, as tasks: read with `datasets`, told apart by their columns.

    instruction, instances              Self-Instruct's seed tasks, and our own config `tasks`
    instruction, input, output          Stanford Alpaca; `input` may be missing
    prompt, completion                  TRL; texts, or conversations of one turn
    messages                            TRL conversational, OpenAI chat; conversations of one turn

A dataset is named by a file (.jsonl, .json, .csv, .parquet), a folder, or `ORG/NAME` on the Hub, with `:CONFIG`
after it where it has several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ReleaseError
from ..tasks import Instance, Task, digest

_FILES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def read_rows(source: str, *, revision: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of every split of a dataset. Raises ReleaseError."""
    import datasets

    path = Path(source)
    name, _, config = source.partition(":")
    try:
        if not path.exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ReleaseError(
                f"there is no file {source}", hint="Name a file, a folder or ORG/NAME[:CONFIG] on the Hub."
            )
        if path.is_file():
            if path.suffix not in _FILES:
                raise ReleaseError(f"{source} is no file of rows", hint=f"Known kinds: {', '.join(_FILES)}.")
            loaded = datasets.load_dataset(_FILES[path.suffix], data_files={"rows": [str(path)]})
        else:
            loaded = datasets.load_dataset(name, config or None, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ReleaseError(
            f"the dataset {source} cannot be loaded: {str(error).splitlines()[0]}",
            hint="Name a file, a folder or ORG/NAME[:CONFIG] on the Hub.",
        ) from error
    for split in loaded.values():
        yield from split


def task_from_row(row: dict[str, Any], prefix: str) -> Task | None:
    """A row as a task, or None where it is not one question with its answer.

    Its id is the prefix and a hash of what it says, so that taking in the same dataset twice changes nothing.
    """
    found = _question_and_answer(row)
    if found is None:
        return None
    instruction, instances = found
    instances = tuple(instance for instance in instances if instance.output.strip())
    if not instruction.strip() or not instances:
        return None
    identity = digest([instruction, [[instance.input, instance.output] for instance in instances]])
    return Task(id=f"{prefix}_{identity[:16]}", instruction=instruction, instances=instances)


def questions(row: dict[str, Any]) -> list[str]:
    """What a row asks, for comparison: its instruction, and with the input of each instance; of a row of an unknown
    kind every text that could be a question."""
    found = _question_and_answer(row)
    if found is None:
        texts = [row.get(name) for name in ("instruction", "prompt", "question", "text")]
        return [text for text in texts if isinstance(text, str) and text.strip()]
    instruction, instances = found
    return [instruction, *(f"{instruction}\n\n{instance.input}" for instance in instances if instance.input)]


def id_prefix(source: str) -> str:
    """The beginning of the ids of a dataset's tasks."""
    return re.sub(r"[^A-Za-z0-9]+", "_", source).strip("_").lower()


def _question_and_answer(row: dict[str, Any]) -> tuple[str, tuple[Instance, ...]] | None:
    instruction, instances = row.get("instruction"), row.get("instances")
    if isinstance(instruction, str) and isinstance(instances, list):
        return instruction, tuple(Instance(i.get("input") or "", i.get("output") or "") for i in instances)
    if isinstance(instruction, str) and isinstance(row.get("output"), str):
        return instruction, (Instance(row.get("input") or "", row["output"]),)
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return prompt.strip(), (Instance("", completion.strip()),)
    if isinstance(prompt, list) and isinstance(completion, list):
        return _one_turn([*prompt, *completion])
    if isinstance(row.get("messages"), list):
        return _one_turn(row["messages"])
    return None


def _one_turn(messages: list[dict[str, Any]]) -> tuple[str, tuple[Instance, ...]] | None:
    """A conversation of one question and one answer; what a system message says goes before the question."""
    roles = [message.get("role") for message in messages]
    contents = [content for message in messages if isinstance(content := message.get("content"), str)]
    if roles[-2:] != ["user", "assistant"] or not set(roles[:-2]) <= {"system", "developer"}:
        return None
    if len(contents) < len(messages):
        return None
    return "\n\n".join(contents[:-1]), (Instance("", contents[-1]),)
