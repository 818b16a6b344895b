"""Calibration records: tasks with known answers, mixed in among the others to see how accurate each annotator is.

A file holds one seed-task object a line, each with one instance and the known answers to some of the rubric's closed
questions:

    {"instruction": "Add 2 and 2.", "instances": [{"input": "", "output": "5"}], "answers": {"output_correct": "no"}}

They become review records that look like any other. They never become tasks, so nothing of them is ever published.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataFileError
from ..similarity.index import NoveltyIndex
from ..tasks import Origin, Task, task_from_json
from .rubric import Rubric

NEIGHBOURS = 1000  # tasks that the closest one is looked for among
_FIRST = 90_000_000  # ids look like those of generated tasks, which never come this far


@dataclass(frozen=True)
class Calibration:
    """One record and its known answers by question."""

    task: Task
    answers: dict[str, Any]


def read_calibration(path: Path, rubric: Rubric) -> list[Calibration]:
    """The records of a file; the same line twice is one. Raises DataFileError with the line."""
    closed = {question.name: question.labels.keys() or question.values for question in rubric.closed}
    found: dict[str, Calibration] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(path, None, f"it cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            task = task_from_json({**value, "id": "calibration"} if isinstance(value, dict) else value)
            answers = task.extra.get("answers")
            if len(task.instances) != 1:
                raise ValueError("a calibration record has one instance")
            if not isinstance(answers, dict) or not answers:
                raise ValueError("'answers' must hold at least one known answer: {question: answer}")
            for question, answer in answers.items():
                if question not in closed:
                    raise ValueError(f"the rubric has no label or rating question {question!r}")
                if answer not in closed[question]:
                    raise ValueError(f"{answer!r} is no answer to {question!r}")
        except ValueError as error:
            raise DataFileError(path, number, str(error)) from error
        known = Task(
            id=f"generated_{_FIRST + int(task.content_hash[:12], 16) % 10_000_000:08d}",
            instruction=task.instruction,
            instances=task.instances,
            is_classification=task.is_classification,
            origin=Origin.GENERATED,
        )
        found[known.id] = Calibration(known, answers)
    return list(found.values())


def disguise(tasks: Sequence[Task], calibration: Sequence[Task]) -> list[Task]:
    """The calibration tasks with a round, a model and a closest task like those of the tasks they are mixed in with."""
    like, index = tasks[0], NoveltyIndex()
    for task in tasks[:NEIGHBOURS]:
        index.add(task.id, task.instruction)
    found = []
    for task in calibration:
        match = index.nearest(task.instruction) if like.max_rouge_l is not None else None
        found.append(
            replace(
                task,
                round=like.round,
                origin=like.origin,
                provenance=like.provenance,
                max_rouge_l=match.score if match else like.max_rouge_l,
                nearest=match.key if match else like.nearest,
            )
        )
    return found
