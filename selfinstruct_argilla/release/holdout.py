"""Contamination: tasks that are too close to what a benchmark asks stay out of a release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..similarity.index import NoveltyIndex
from ..tasks import Task
from .splits import NEAR, Withheld


def contaminated(tasks: Iterable[Task], holdout: Mapping[str, Iterable[str]], tokens: str = "auto") -> list[Withheld]:
    """The tasks that ask what the holdout asks: ROUGE-L of at least 0.7 between any of their questions.

    `holdout` are the questions of each dataset by its name. A task's questions are its instruction, and the
    instruction with the input of each instance.
    """
    index = NoveltyIndex(threshold=NEAR, tokens=tokens)
    for name, texts in holdout.items():
        for number, text in enumerate(dict.fromkeys(texts), 1):
            index.add((name, number), text)
    found = []
    for task in tasks:
        inputs = (f"{task.instruction}\n\n{i.input}" for i in task.accepted_instances() if i.input)
        matches = (index.closest(text, NEAR) for text in (task.instruction, *inputs))
        near = sorted({match.key[0] for match in matches if match})
        if near:
            found.append(Withheld(task.id, "it is too close to a holdout", tuple(near)))
    return found
