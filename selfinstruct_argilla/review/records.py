"""A task instance as an Argilla record: fields, metadata and suggestions as JSON values. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..tasks import Task, Verdict, digest, external_id
from .rubric import KIND, METADATA, RECORD_FIELDS, Question, Rubric, Text, in_language

_CONTEXT: Text = {
    "en": "The closest task that we have (ROUGE-L {score:.2f}):\n{instruction}",
    "zh": "已有的最相似任务（ROUGE-L {score:.2f}）：\n{instruction}",
}
_FIELD_TITLES: dict[str, Text] = {
    "instruction": {"en": "Instruction", "zh": "指令"},
    "input": {"en": "Input", "zh": "输入"},
    "output": {"en": "Output", "zh": "输出"},
    "context": {"en": "Context (not to be judged)", "zh": "参考（不需要评判）"},
}
_METADATA_TYPES = {"round": "integer", "max_rouge_l": "float"}
_QUESTION_TYPES = {"label": "label_selection", "multi_label": "multi_label_selection"}


@dataclass(frozen=True)
class Opinion:
    """What a judge model says of one record: question → {value, score}, the score its confidence from 0 to 1."""

    model: str
    answers: dict[str, dict[str, Any]]


# the dataset ------------------------------------------------------------------------------------


def field_settings(language: str) -> list[dict[str, Any]]:
    """The fields of a review dataset. Texts are shown as they are, not rendered: Markdown and HTML are to be judged."""
    return [
        {
            "name": name,
            "title": in_language(_FIELD_TITLES[name], language),
            "required": name in ("instruction", "output"),
            "settings": {"type": "text", "use_markdown": False},
        }
        for name in RECORD_FIELDS
    ]


def question_settings(rubric: Rubric, language: str) -> list[dict[str, Any]]:
    """The rubric's questions as Argilla wants them."""
    return [
        {
            "name": question.name,
            "title": in_language(question.title, language),
            **({"description": in_language(question.description, language)} if question.description else {}),
            "required": question.required,
            "settings": _type_settings(question, language),
        }
        for question in rubric.questions
    ]


def metadata_settings() -> list[dict[str, Any]]:
    return [
        {"name": name, "title": name, "settings": {"type": _METADATA_TYPES.get(name, "terms")}} for name in METADATA
    ]


def _type_settings(question: Question, language: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"type": _QUESTION_TYPES.get(question.type, question.type)}
    if question.type == "text":
        settings["use_markdown"] = False
    if question.values:
        settings["options"] = [{"value": value} for value in question.values]
    if question.labels:
        settings["options"] = [
            {"value": value, "text": in_language(text, language)} for value, text in question.labels.items()
        ]
    if question.type == "span":
        settings["field"] = question.field
    return settings


# one record -------------------------------------------------------------------------------------


def record_fields(task: Task, instance: int) -> dict[str, str]:
    """The texts to be judged, as they are shown."""
    part = task.instances[instance]
    return {
        "instruction": task.instruction,
        "input": part.input,
        "output": part.output,
    }


def record_context(task: Task, nearest: str | None, language: str) -> str | None:
    """What an annotator should know beside: the closest pool task. `nearest` is its instruction, if it is known."""
    if task.max_rouge_l is None or nearest is None:
        return None
    return in_language(_CONTEXT, language).format(score=task.max_rouge_l, instruction=nearest)


def record_metadata(task: Task, resolution: Verdict, assigned: Sequence[str] = ()) -> dict[str, Any]:
    """All metadata of a record: Argilla replaces them as a whole, so a part must never be sent."""
    known: dict[str, Any] = {
        "task_id": task.id,
        "round": task.round,
        "origin": task.origin.value,
        "is_classification": None if task.is_classification is None else str(task.is_classification).lower(),
        "max_rouge_l": None if task.max_rouge_l is None else float(task.max_rouge_l),
        "model": task.provenance.model,
        "resolution": resolution.value,
        "assigned": list(assigned) or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def record_item(
    task: Task,
    instance: int,
    *,
    rubric: Rubric,
    question_ids: dict[str, str],
    context: str | None,
    assigned: Sequence[str] = (),
    opinion: Opinion | None = None,
) -> dict[str, Any]:
    """One item of Argilla's bulk upsert. It has no key `responses`, so answers are never touched.

    assigned: who is to judge it. opinion: the judge model's answers.
    """
    opinions = opinion.answers if opinion is not None else {}
    fields = record_fields(task, instance)
    agent = agent_name(task.provenance.model)
    return {
        "external_id": external_id(task.id, instance),
        "fields": {**fields, **({"context": context} if context is not None else {})},
        "metadata": record_metadata(task, Verdict.PENDING, assigned),
        "suggestions": [
            *(
                {"question_id": question_ids[question.name], "value": value, **_author(agent)}
                for question in rubric.questions
                if question.name not in opinions and (value := presented(question, task, fields)) is not None
            ),
            *(
                {"question_id": question_ids[name], **answer, **_author(agent_name(opinion.model))}
                for name, answer in opinions.items()
                if opinion is not None
            ),
        ],
    }


def presented(question: Question, task: Task, fields: dict[str, str]) -> str | None:
    """What a question that edits something would leave as it is."""
    if question.edits == KIND:
        return None if task.is_classification is None else "yes" if task.is_classification else "no"
    return fields[question.edits] if question.edits is not None else None


def _author(agent: str | None) -> dict[str, str]:
    return {"agent": agent, "type": "model"} if agent else {}


def content_hash(task: Task, instance: int) -> str:
    """sha256 of what people are asked to judge."""
    return digest(record_fields(task, instance))


def agent_name(model: str | None) -> str | None:
    """A model's name in the letters that Argilla allows for an agent; None where nothing is left of it."""
    name = re.sub(r"[^A-Za-z0-9\-_:./ ]+", "-", model or "")[:200].strip()
    return name if re.search(r"[A-Za-z0-9]", name) else None
