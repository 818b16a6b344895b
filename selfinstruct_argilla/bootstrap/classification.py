"""The classification step: is the task one with a finite set of output labels? (Self-Instruct, Table 7)"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..llm.base import Prompt, Reply
from ..tasks import Task
from .demonstrations import one_line
from .template import Template

# Self-Instruct, Table 4
SAMPLING = {"max_tokens": 3, "temperature": 0.0, "top_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}


def render(instruction: str, examples: Sequence[Task], template: Template) -> Prompt:
    """The few-shot question; the examples are seeds whose answer people gave."""
    words = template.classification
    return Prompt(
        header=f"{words.header}\n\n",
        examples=tuple(
            (question(task.instruction, template), f" {words.yes if task.is_classification else words.no}\n\n")
            for task in examples
        ),
        query=question(instruction, template),
    )


def question(instruction: str, template: Template) -> str:
    """What differs between the prompts of a run."""
    words = template.classification
    return f"{words.task.format(instruction=one_line(instruction))}\n{words.question}"


def stops(template: Template) -> list[str]:
    return ["\n", template.labels.task]


def parse(reply: Reply, template: Template) -> bool | None:
    """Yes or no, by the first word of the reply; None where it is neither."""
    answer = re.sub(r"^\W+", "", reply.text).casefold()
    for word, meaning in ((template.classification.yes, True), (template.classification.no, False)):
        if re.match(re.escape(word.casefold()) + r"(?![a-z])", answer):
            return meaning
    return None
