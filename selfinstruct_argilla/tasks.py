"""Tasks as plain values: what an instruction dataset is made of, ignorant of where it is stored.

A task is an instruction, whether it is a classification task, and one or more instances (Self-Instruct,
section 2.1). The JSON form is the seed-task format of the Self-Instruct repository, one object a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any


class Status(str, Enum):
    """Where a task stands; only the pool changes it (`pool/moves.py` holds the table of moves)."""

    SEED = "seed"
    CANDIDATE = "candidate"
    IN_REVIEW = "in_review"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CONFLICT = "conflict"
    WITHDRAWN = "withdrawn"


class Origin(str, Enum):
    """Who wrote it: people (seed), a model (generated), a model from examples (induced), somebody else (imported)."""

    SEED = "seed"
    GENERATED = "generated"
    INDUCED = "induced"
    IMPORTED = "imported"


class Verdict(str, Enum):
    """What many responses come to."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CONFLICT = "conflict"
    PENDING = "pending"


@dataclass(frozen=True)
class Instance:
    """One input and its output; the input may be empty. `verdict` is people's, once they have given one."""

    input: str
    output: str
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Provenance:
    """Which model wrote a task, in answer to which journaled request, having been shown which pool tasks."""

    model: str | None = None
    request: str | None = None
    demonstrations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One task. `is_classification` is None where nobody could tell; `round` is 0 outside bootstrap rounds; `votes`:
    how many of people's judgements accept one of its instances, and how many reject one."""

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool | None = False
    name: str = ""
    status: Status = Status.CANDIDATE
    origin: Origin = Origin.IMPORTED
    round: int = 0
    provenance: Provenance = field(default_factory=Provenance)
    max_rouge_l: float | None = None
    nearest: str | None = None
    votes: tuple[int, int] = (0, 0)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_hash(self) -> str:
        """sha256 (64 hex digits) of what the task says; status, origin and provenance do not matter."""
        content = {
            "name": self.name,
            "instruction": self.instruction,
            "instances": [[instance.input, instance.output] for instance in self.instances],
            "is_classification": self.is_classification,
        }
        return digest(content)

    @property
    def distilled_from(self) -> str | None:
        """The id of the task whose outputs were written again here, if they were."""
        source = self.extra.get("distilled_from")
        return source if isinstance(source, str) else None

    def accepted_instances(self) -> tuple[Instance, ...]:
        """What may be published or demonstrated: instances that people accepted, or that nobody was asked about."""
        return tuple(i for i in self.instances if i.verdict in (None, Verdict.ACCEPTED))

    def with_status(self, status: Status) -> Task:
        return replace(self, status=status)


def digest(value: Any) -> str:
    """sha256 of a JSON value in one canonical form (sorted keys, no spaces; lone surrogates survive as escapes)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def external_id(task_id: str, instance: int) -> str:
    """The id of a review record: `{task_id}:{instance}`, instances numbered from 0."""
    return f"{task_id}:{instance}"


def split_external_id(value: str) -> tuple[str, int]:
    """The inverse of `external_id`; ValueError where `value` is no such id."""
    task_id, separator, number = value.rpartition(":")
    if not separator or not task_id or not number.isdigit():
        raise ValueError(f"{value!r} is not the id of a review record")
    return task_id, int(number)


# The JSON form ---------------------------------------------------------------------------------

_KNOWN_KEYS = {
    "id", "name", "instruction", "instances", "is_classification",
    "status", "origin", "round", "provenance", "max_rouge_l", "nearest",
}  # fmt: skip


def task_from_json(value: Any) -> Task:
    """A task from one object of a seed-task file; keys that are not ours are kept in `extra`.

    `status`, `origin` and `round` are not read: what a file says of itself is no verdict. Raises ValueError with a
    sentence that names the key.
    """
    if not isinstance(value, dict):
        raise ValueError("expected an object with id, instruction and instances")
    task_id = _text(value, "id", required=True)
    if any(ord(c) < 32 for c in task_id):
        raise ValueError("'id' must not have control characters")
    instances = value.get("instances")
    if not isinstance(instances, list) or not instances:
        raise ValueError("'instances' must be a list with at least one {input, output}")
    classification = value.get("is_classification", False)
    if classification is not None and not isinstance(classification, bool):
        raise ValueError("'is_classification' must be true or false")
    provenance = value.get("provenance") or {}
    if not isinstance(provenance, dict):
        raise ValueError("'provenance' must be an object")
    return Task(
        id=task_id,
        name=_text(value, "name"),
        instruction=_text(value, "instruction", required=True),
        instances=tuple(_instance_from_json(instance) for instance in instances),
        is_classification=classification,
        provenance=Provenance(
            model=provenance.get("model"),
            request=provenance.get("request"),
            demonstrations=tuple(provenance.get("demonstrations") or ()),
        ),
        extra={key: item for key, item in value.items() if key not in _KNOWN_KEYS},
    )


def task_to_json(task: Task) -> dict[str, Any]:
    """The seed-task object of a task, with status, origin, round and provenance as extra keys; it holds no time."""
    value: dict[str, Any] = {
        "id": task.id,
        "name": task.name,
        "instruction": task.instruction,
        "instances": [_instance_to_json(instance) for instance in task.instances],
        "is_classification": task.is_classification,
        "status": task.status.value,
        "origin": task.origin.value,
        "round": task.round,
        "provenance": {
            "model": task.provenance.model,
            "request": task.provenance.request,
            "demonstrations": list(task.provenance.demonstrations),
        },
    }
    if task.max_rouge_l is not None:
        value["max_rouge_l"] = task.max_rouge_l
        value["nearest"] = task.nearest
    return {**value, **task.extra}


def _instance_from_json(value: Any) -> Instance:
    if not isinstance(value, dict):
        raise ValueError("each of 'instances' must be an object with input and output")
    return Instance(input=_text(value, "input"), output=_text(value, "output", required=True))


def _instance_to_json(instance: Instance) -> dict[str, str]:
    value = {"input": instance.input, "output": instance.output}
    if instance.verdict is not None:
        value["verdict"] = instance.verdict.value
    return value


def _text(value: dict[str, Any], key: str, *, required: bool = False) -> str:
    text = value.get(key, "")
    if text is None and not required:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"'{key}' must be a text")
    if required and not text.strip():
        raise ValueError(f"'{key}' is missing or empty")
    return text
