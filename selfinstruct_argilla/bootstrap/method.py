"""What the loop asks of a method of generation: plan a request, read its reply, write a task's instances.

`ask` is given to a method: the loop buys replies, `verify` reads them from the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..llm.base import CallRecord, Prompt, Reply
from ..recipe import Sampling
from ..tasks import Instance, Task
from .template import Template

Ask = Callable[[str, Prompt, Mapping[str, Any]], Awaitable[CallRecord]]


@dataclass(frozen=True)
class Planned:
    """A request for new instructions."""

    prompt: Prompt
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Parsed:
    """The instructions of a reply, in its order. `cut` is the last one where the length limit cut it off."""

    items: list[str]
    cut: str | None = None


@dataclass(frozen=True)
class InvalidInstance:
    """An instance that cannot be used, and why."""

    instance: Instance
    reason: str


@dataclass(frozen=True)
class Written:
    """What an instruction came to. Without instances `reason` says why; `requests` are the keys that were asked."""

    is_classification: bool | None
    instances: tuple[Instance, ...]
    reason: str | None = None
    detail: str | None = None
    turned_away: tuple[InvalidInstance, ...] = ()
    requests: tuple[str, ...] = ()


class Method(Protocol):
    """One recipe's way of asking; it holds no state of the run."""

    name: str
    template: Template

    @property
    def tasks_per_request(self) -> int:
        """How many new tasks one request asks for."""
        ...

    def plan(self, shown: Sequence[Task]) -> Planned:
        """A request that shows these tasks."""
        ...

    def parse(self, reply: Reply) -> Parsed: ...

    def turn_away(self, instruction: str) -> tuple[str, str | None] | None:
        """The filter rule that an instruction fails, and by what; None where it may stay."""
        ...

    async def write(self, instruction: str, reply: Reply, batch: Sequence[str], ask: Ask) -> Written:
        """The instances of an instruction that stood in `reply`; `batch` are the five instructions of its group."""
        ...


def parameters(standard: Mapping[str, Any], recipe: Sampling, stop: Sequence[str] = ()) -> dict[str, Any]:
    """A step's decoding parameters: the paper's, or the recipe's; what the recipe sets to null is not sent."""
    merged = {**standard, **recipe.given()}
    given = {name: value for name, value in merged.items() if value is not None}
    return {**given, "stop": list(stop)} if stop else given
