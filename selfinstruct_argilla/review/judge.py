"""A judge model's opinion on candidates, before people see them: it orders and suggests, and never decides.

It is asked the rubric's own questions about each record, through the same journal and budget as generation, so an
opinion is bought once and every reply is kept. Render and parse are pure.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from itertools import count
from typing import Any

from ..llm.base import CallRecord, Place, Prompt, Request
from ..llm.caller import BudgetReached, Caller
from ..pool.engine import in_parts
from ..recipe import ModelConfig
from ..tasks import Task, external_id
from .records import Opinion, record_fields
from .rubric import Question, Rubric, in_language

STEP = "judge"
_PARAMETERS = {"max_tokens": 200, "temperature": 0.0}
_AT_ONCE = 1000  # records whose texts are in memory
_DEFAULT_SCORE = 0.75  # where the model does not say how sure it is


async def ask_judge(
    records: Iterable[tuple[Task, int]], rubric: Rubric, model: ModelConfig, caller: Caller, *, language: str
) -> dict[str, Opinion]:
    """Opinions on instances of tasks, by review record; those of records whose reply says nothing, or that the budget
    left out, are missing.

    Raises what `Caller.ask` raises but BudgetReached.
    """
    found: dict[str, Opinion] = {}
    position = count()
    for some in in_parts(records, _AT_ONCE):
        requests = [
            Request(
                STEP, STEP, model.model, model.api, render(task, instance, rubric, language), _PARAMETERS,
                place=Place(task.round, 0, next(position)),
            )
            for task, instance in some
        ]  # fmt: skip
        calls = await asyncio.gather(*map(caller.ask, requests), return_exceptions=True)
        for (task, instance), call in zip(some, calls, strict=True):
            if isinstance(call, BudgetReached):
                continue
            if isinstance(call, BaseException):
                raise call
            answers = parse(call, rubric)
            if answers:
                found[external_id(task.id, instance)] = Opinion(model.model, answers)
    return found


def render(task: Task, instance: int, rubric: Rubric, language: str) -> Prompt:
    """The guidelines and questions as the header, one record as the query."""
    questions = []
    for question in rubric.closed:
        title = in_language(question.title, language)
        note = f" {in_language(question.description, language)}" if question.description else ""
        questions.append(f"{question.name}: {title}{note} ({' / '.join(_answers(question))})")
    header = (
        f"{in_language(rubric.guidelines, language)}\n\n"
        "You judge one example. Answer each question on a line of its own, as `name: answer (confidence %)`, with one "
        "of the answers in brackets, and write nothing else.\n\n" + "\n".join(questions) + "\n\n"
    )
    texts = "\n\n".join(f"{name}:\n{text or '(empty)'}" for name, text in record_fields(task, instance).items())
    return Prompt(header, f"{texts}\n\nYour answers:\n")


def parse(call: CallRecord, rubric: Rubric) -> dict[str, dict[str, Any]]:
    """The answers of a reply by question, as {value, score}; the first line of each question counts, and lines that
    are no answer are passed over."""
    found: dict[str, dict[str, Any]] = {}
    questions = {question.name: question for question in rubric.closed}
    for line in call.reply.text.splitlines() if call.reply else ():
        name, _, rest = line[:500].replace("：", ":").partition(":")
        words = re.findall(r"\w+", name)
        question = questions.get(words[-1].strip("_")) if words else None
        rest = rest.strip(" \t*`\"'").lower()
        if question is None or question.name in found:
            continue
        for answer in sorted(_answers(question), key=len, reverse=True):
            after = rest[len(answer) :]
            if rest.startswith(answer.lower()) and not after[:1].isalnum():
                sure = re.search(r"(\d{1,3}) ?%", after)
                score = min(int(sure[1]), 100) / 100 if sure else _DEFAULT_SCORE
                found[question.name] = {"value": int(answer) if question.type == "rating" else answer, "score": score}
                break
    return found


def _answers(question: Question) -> list[str]:
    return [*question.labels, *map(str, question.values)]
