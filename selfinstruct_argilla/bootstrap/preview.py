"""What a round would ask and cost, without asking: the first prompt of each step, and an estimate."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GenerationError
from ..llm.base import CallRecord, Place, Prompt, Reply
from ..pool.engine import reading
from ..pool.journal import Spend
from ..pool.pool import TaskPool
from ..recipe import Price, Recipe
from ..tasks import Status
from .distill import METHOD, due_tasks, requests_of
from .distill import PREFIX as DISTILLED
from .loop import PREFIX, draw_shown
from .methods import method_of

_BYTES_PER_TOKEN = 4  # a rule of thumb for English; the journal's own averages replace it once there are any
_USUAL_COMPLETION = {"instructions": 250, "classification": 2, "input_first": 100, "output_first": 100, "distill": 150}
_ALPACA_COMPLETION = 1800


@dataclass(frozen=True)
class StepPreview:
    """One step's first prompt, and what all its requests of a round come to; tokens and dollars are estimates."""

    step: str
    prompt: Prompt
    parameters: dict[str, Any]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float


@dataclass(frozen=True)
class Preview:
    """`observed` tells whether yields and sizes are this pool's own, or rules of thumb."""

    target: int
    steps: list[StepPreview]
    observed: bool

    @property
    def usd(self) -> float:
        return sum(step.usd for step in self.steps)

    @property
    def requests(self) -> int:
        return sum(step.requests for step in self.steps)


def preview(pool: TaskPool, recipe: Recipe, target: int | None = None) -> Preview:
    """The next round as it would begin now. Raises GenerationError where the pool has nothing to start from."""
    spent = {step: spend for (step,), spend in pool.journal.spend_by("step").items()}
    if recipe.bootstrap.method == METHOD:
        return _preview_distillation(pool, recipe, target, spent)
    seeds = pool.tasks(Status.SEED)
    if not seeds:
        raise GenerationError(
            "the pool has no seed tasks to start from", hint="Name a file under `seeds:` in the recipe."
        )
    settings = recipe.bootstrap
    method = method_of(recipe, seeds)
    with reading(pool.engine) as connection:
        (shown,) = draw_shown(connection, recipe, seeds, [Place(1, 1, 0)])
    done = pool.written(PREFIX)
    wanted = max(0, target - done) if target is not None else settings.target
    planned = method.plan(shown)
    price = recipe.models.generator.price
    asked: list[tuple[str, Prompt, dict[str, Any]]] = [("instructions", planned.prompt, planned.parameters)]

    async def ask(step: str, prompt: Prompt, parameters: Mapping[str, Any]) -> CallRecord:
        asked.append((step, prompt, dict(parameters)))
        return CallRecord("", 1, "reply", Reply("", "stop"))

    example = seeds[0].instruction
    asyncio.run(method.write(example, Reply(example, "stop"), (), ask))

    bought = spent.get("instructions")
    per_request = done / bought.requests if bought and done else 0.5 * method.tasks_per_request
    steps = []
    for step, prompt, parameters in asked:
        requests = math.ceil(wanted / per_request) if step == "instructions" else wanted
        answer = _USUAL_COMPLETION[step] if method.name == "self_instruct" else _ALPACA_COMPLETION
        steps.append(_estimate(step, prompt, parameters, requests, spent.get(step), answer, price))
    return Preview(wanted, steps, observed=bool(bought and done))


def _preview_distillation(pool: TaskPool, recipe: Recipe, target: int | None, spent: Mapping[str, Spend]) -> Preview:
    done = pool.written(DISTILLED)
    with reading(pool.engine) as connection:
        due = due_tasks(connection, recipe)[: recipe.bootstrap.target if target is None else max(0, target - done)]
    requests = [request for task in due for request in requests_of(task, recipe)]
    steps = [
        _estimate(
            first.step, first.prompt, dict(first.parameters), len(requests), spent.get(first.step),
            _USUAL_COMPLETION[first.step], recipe.models.generator.price,
        )
        for first in requests[:1]
    ]  # fmt: skip
    return Preview(len(due), steps, observed=METHOD in spent)


def _estimate(
    step: str,
    prompt: Prompt,
    parameters: dict[str, Any],
    requests: int,
    seen: Spend | None,
    usual_completion: int,
    price: Price,
) -> StepPreview:
    if seen and seen.requests:
        size, answer = seen.prompt_tokens / seen.requests, seen.completion_tokens / seen.requests
    else:
        size, answer = len(prompt.text.encode()) / _BYTES_PER_TOKEN, usual_completion
    prompt_tokens, completion_tokens = math.ceil(requests * size), math.ceil(requests * answer)
    usd = (prompt_tokens * price.input_per_mtok + completion_tokens * price.output_per_mtok) / 1e6
    return StepPreview(step, prompt, parameters, requests, prompt_tokens, completion_tokens, usd)
