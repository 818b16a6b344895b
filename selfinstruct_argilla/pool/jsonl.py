"""Task files: JSON lines in the seed-task format, read with the line number of every mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DataFileError
from ..llm.base import storable
from ..tasks import Task, task_from_json, task_to_json


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file. Raises DataFileError that names file and line; blank lines are passed over."""
    tasks: dict[str, tuple[int, Task]] = {}
    for number, line in _lines(path):
        try:
            task = task_from_json(json.loads(line, parse_constant=_no_constant))
        except json.JSONDecodeError as error:
            raise DataFileError(path, number, f"this is not JSON: {error.msg} (column {error.colno})") from error
        except ValueError as error:
            raise DataFileError(path, number, str(error)) from error
        except RecursionError as error:
            raise DataFileError(path, number, "this JSON is nested too deeply") from error
        if any(storable(text) != text for text in _texts(task)):
            raise DataFileError(path, number, "it has a NUL or half of a surrogate pair, which no database can hold")
        if task.id in tasks:
            raise DataFileError(path, number, f"the id {task.id!r} is on line {tasks[task.id][0]} already")
        tasks[task.id] = (number, task)
    return [task for _, task in tasks.values()]


def format_tasks(tasks: Iterable[Task]) -> Iterator[str]:
    """One line a task, sorted by id, the newline included."""
    for task in sorted(tasks, key=lambda task: task.id):
        yield json.dumps(task_to_json(task), ensure_ascii=False) + "\n"


def _texts(task: Task) -> Iterator[str]:
    yield from (task.id, task.name, task.instruction)
    for instance in task.instances:
        yield from (instance.input, instance.output)
    yield json.dumps(dict(task.extra), ensure_ascii=False)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise DataFileError(path, number, f"it is not UTF-8 (byte {error.start + 1} of the line)") from error
    except OSError as error:
        raise DataFileError(path, None, f"it cannot be read: {error.strerror}") from error
