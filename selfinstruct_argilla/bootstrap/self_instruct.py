"""The Self-Instruct method (Wang et al., 2022): instructions, then classification, then instances.

Pure halves, render and parse, stand in `instructions.py`, `classification.py` and `instances.py`; this file says
in which order they are asked. `ask` is given: the loop buys replies, `verify` reads them from the journal.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..llm.base import Api, CallRecord, Prompt, Reply
from ..recipe import Recipe, Sampling
from ..tasks import Instance, Task
from . import classification, instances, instructions
from .demonstrations import draw_for_classification, draw_for_instances, draw_for_instructions, generator
from .instances import InvalidInstance
from .template import Template, load_template

Ask = Callable[[str, Prompt, Mapping[str, Any]], Awaitable[CallRecord]]

_LONGEST_EXAMPLE = 700  # characters of a seed that an instance prompt shows


@dataclass(frozen=True)
class Planned:
    """One instruction request: what it asks, and which pool tasks it shows."""

    prompt: Prompt
    parameters: dict[str, Any]
    demonstrations: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """What the steps after the instruction came to. Without instances `reason` says why."""

    is_classification: bool | None
    instances: tuple[Instance, ...]
    reason: str | None = None
    detail: str | None = None
    turned_away: tuple[InvalidInstance, ...] = ()
    requests: tuple[str, ...] = ()


class SelfInstruct:
    """One recipe's way of asking; it holds no state of the run."""

    name = "self_instruct"

    def __init__(self, recipe: Recipe, seeds: Sequence[Task]) -> None:
        self._bootstrap = recipe.bootstrap
        self._api: Api = recipe.models.generator.api
        self._seeds = sorted(seeds, key=lambda task: task.id)
        self.template: Template = load_template(recipe.language)

    @property
    def tasks_per_request(self) -> int:
        """How many new tasks one instruction request asks for."""
        return self._bootstrap.demonstrations.seed + self._bootstrap.demonstrations.generated

    # instructions --------------------------------------------------------------------------------

    def plan(self, generated: Sequence[Task], rng: random.Random) -> Planned:
        counts = self._bootstrap.demonstrations
        shown = draw_for_instructions(
            self._seeds, generated, rng, seed_count=counts.seed, generated_count=counts.generated
        )
        prompt = instructions.render([task.instruction for task in shown], self._api, self.template)
        stop = instructions.stops(len(shown), self._api)
        parameters = _parameters(instructions.SAMPLING, self._bootstrap.sampling.instructions, stop)
        return Planned(prompt, parameters, tuple(task.id for task in shown))

    def parse(self, reply: Reply) -> instructions.Parsed:
        return instructions.parse(reply, self._api)

    # classification and instances ------------------------------------------------------------------

    async def write(self, instruction: str, ask: Ask) -> Written:
        """Asks whether the instruction is a classification task, then for its instances."""
        sampling = self._bootstrap.sampling
        prompt = classification.render(instruction, self._classification_examples, self.template)
        stop = classification.stops(self.template)
        first = await ask("classification", prompt, _parameters(classification.SAMPLING, sampling.classification, stop))
        kind = self.parse_classification(first)

        examples = self._label_examples if kind else self._input_examples
        prompt = instances.render(instruction, examples, self.template, classification=bool(kind))
        stop = instances.stops(self.template, self._bootstrap.max_instances)
        step = "output_first" if kind else "input_first"
        second = await ask(step, prompt, _parameters(instances.SAMPLING, sampling.instances, stop))
        return replace(self.parse_instances(kind, second), requests=(first.request_key, second.request_key))

    def parse_classification(self, call: CallRecord) -> bool | None:
        return classification.parse(call.reply, self.template) if call.reply else None

    def parse_instances(self, kind: bool | None, call: CallRecord) -> Written:
        if call.reply is None:
            return Written(kind, (), "request_refused", call.error)
        parse = instances.parse_output_first if kind else instances.parse_input_first
        kept, invalid = instances.check(parse(call.reply, self.template), at_most=self._bootstrap.max_instances)
        if kept:
            return Written(kind, tuple(kept), turned_away=tuple(invalid))
        reason = "cut_by_length" if call.reply.finish_reason == "length" and not invalid else "no_valid_instance"
        detail = ", ".join(sorted({item.reason for item in invalid})) or "the reply has none"
        return Written(kind, (), reason, detail, tuple(invalid))

    @cached_property
    def _classification_examples(self) -> list[Task]:
        return draw_for_classification(self._seeds, generator(self._bootstrap.seed, "classification"))

    @cached_property
    def _input_examples(self) -> list[Task]:
        rng = generator(self._bootstrap.seed, "input_first")
        return draw_for_instances(self._seeds, rng, classification=False, count=11, longest=_LONGEST_EXAMPLE)

    @cached_property
    def _label_examples(self) -> list[Task]:
        rng = generator(self._bootstrap.seed, "output_first")
        return draw_for_instances(self._seeds, rng, classification=True, count=16, longest=_LONGEST_EXAMPLE)


def _parameters(standard: Mapping[str, Any], recipe: Sampling, stop: Sequence[str]) -> dict[str, Any]:
    """The step's decoding parameters: the paper's, or the recipe's; what the recipe sets to null is not sent."""
    merged = {**standard, **recipe.given()}
    parameters = {name: value for name, value in merged.items() if value is not None}
    return {**parameters, "stop": list(stop)} if stop else parameters
