"""The Self-Instruct method (Wang et al., 2022): instructions, then classification, then instances.

Render and parse of each step stand in `instructions.py`, `classification.py` and `instances.py`; this file says in
which order they are asked. With `faithful: true` the replies are read as in 2022, by `faithful.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from ..llm.base import Api, Prompt, Reply
from ..recipe import Recipe
from ..tasks import Task
from . import classification, faithful, instances, instructions
from .demonstrations import draw_for_classification, draw_for_instances, generator
from .filters import InstructionFilter
from .method import Ask, Parsed, Planned, Written, parameters
from .template import Template, load_template

_LONGEST_EXAMPLE = 700  # characters of a seed that an instance prompt shows


class SelfInstruct:
    """One recipe's way of asking; it holds no state of the run."""

    name = "self_instruct"

    def __init__(self, recipe: Recipe, seeds: Sequence[Task]) -> None:
        self._bootstrap = recipe.bootstrap
        self._faithful = recipe.bootstrap.faithful
        self._api: Api = recipe.models.generator.api
        self._seeds = sorted(seeds, key=lambda task: task.id)
        self.template: Template = load_template(recipe.language)
        self._filter = InstructionFilter.of(recipe.bootstrap.filters, self.template.filters)

    @property
    def tasks_per_request(self) -> int:
        return sum(self._bootstrap.demonstrations_in_force)

    # instructions --------------------------------------------------------------------------------

    def plan(self, shown: Sequence[Task]) -> Planned:
        prompt = instructions.render([task.instruction for task in shown], self._api, self.template)
        stop = faithful.STOPS if self._faithful else instructions.stops(len(shown), self._api)
        sampling = parameters(instructions.SAMPLING, self._bootstrap.sampling.instructions, stop)
        return Planned(prompt, sampling)

    def parse(self, reply: Reply) -> Parsed:
        return faithful.parse_instructions(reply) if self._faithful else instructions.parse(reply, self._api)

    def turn_away(self, instruction: str) -> tuple[str, str | None] | None:
        return faithful.turn_away(instruction) if self._faithful else self._filter.reason(instruction)

    # classification and instances ------------------------------------------------------------------

    async def write(self, instruction: str, reply: Reply, batch: Sequence[str], ask: Ask) -> Written:
        """Asks whether the instruction is a classification task, then for its instances."""
        kind, asked = await self._ask_kind(instruction, ask)
        standard = instances.SAMPLING
        if self._faithful:
            kinds = [(await self._ask_kind(other, ask))[0] for other in batch]
            standard = {**standard, "max_tokens": faithful.instance_tokens(kinds)}
        shown = self._output_first if kind else self._input_first
        prompt = replace(shown, query=instances.question(instruction, self.template))
        stop = instances.stops(self.template, self._bootstrap.max_instances)
        step = "output_first" if kind else "input_first"
        second = await ask(step, prompt, parameters(standard, self._bootstrap.sampling.instances, stop))
        requests = (asked, second.request_key)
        if second.reply is None:
            return Written(kind, (), "request_refused", second.error, requests=requests)
        at_most = self._bootstrap.max_instances
        if self._faithful:
            rng = generator(self._bootstrap.seed, instruction)
            kept, invalid = faithful.instances_of(second.reply, classification=bool(kind), at_most=at_most, rng=rng)
        else:
            parse = instances.parse_output_first if kind else instances.parse_input_first
            found = parse(second.reply, self.template)
            kept, invalid = instances.check(found, at_most=len(found) if kind else at_most)
            if kind:
                kept, surplus = instances.balanced(kept, at_most=at_most)
                invalid += surplus
        if kept:
            return Written(kind, tuple(kept), turned_away=tuple(invalid), requests=requests)
        reason = "cut_by_length" if second.reply.finish_reason == "length" and not invalid else "no_valid_instance"
        detail = ", ".join(sorted({item.reason for item in invalid})) or "the reply has none"
        return Written(kind, (), reason, detail, tuple(invalid), requests)

    async def _ask_kind(self, instruction: str, ask: Ask) -> tuple[bool | None, str]:
        """Whether it is a classification task, and the key of the request that asked."""
        prompt = replace(self._classification, query=classification.question(instruction, self.template))
        sampling = self._bootstrap.sampling.classification
        stop = classification.stops(self.template)
        call = await ask("classification", prompt, parameters(classification.SAMPLING, sampling, stop))
        if self._faithful:
            return faithful.is_classification(call.reply), call.request_key
        return classification.parse(call.reply, self.template) if call.reply else None, call.request_key

    # the few-shot prompts of the steps, with the question left open

    @cached_property
    def _classification(self) -> Prompt:
        shown = draw_for_classification(self._seeds, generator(self._bootstrap.seed, "classification"))
        return classification.render("", shown, self.template)

    @cached_property
    def _input_first(self) -> Prompt:
        rng = generator(self._bootstrap.seed, "input_first")
        shown = draw_for_instances(self._seeds, rng, classification=False, count=11, longest=_LONGEST_EXAMPLE)
        return instances.render("", shown, self.template, classification=False)

    @cached_property
    def _output_first(self) -> Prompt:
        rng = generator(self._bootstrap.seed, "output_first")
        shown = draw_for_instances(self._seeds, rng, classification=True, count=16, longest=_LONGEST_EXAMPLE)
        return instances.render("", shown, self.template, classification=True)
