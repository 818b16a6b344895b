"""Rounds with scripted models: a recipe, a model whose replies depend on the request alone, and what a pool comes to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from selfinstruct_argilla.bootstrap.loop import GenerateResult
from selfinstruct_argilla.llm.base import Model, Request
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.pool.jsonl import format_tasks
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import open_project

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
    "apple",
    "pear",
    "plum",
    "fig",
    "kiwi",
    "lime",
    "quince",
    "cherry",
    "oak",
    "elm",
    "ash",
    "birch",
    "cedar",
    "maple",
    "larch",
    "rowan",
]


def text_for(request: Request) -> str:
    """A reply that depends on the request alone, with twins, odd labels and instances that cannot be used."""
    rng = random.Random(request.key)
    if request.step == "instructions":
        items = [" ".join(rng.sample(WORDS, 6)) for _ in range(8)]
        if rng.random() < 0.3:
            items[3] = items[2]
        if rng.random() < 0.3:
            items[5] = "image of a thing to draw"
        first, *rest = items
        return f" {first}\n" + "\n".join(f"{number}. {text}" for number, text in enumerate(rest, 10))
    if request.step == "classification":
        return rng.choice([" Yes", " No", " No", " Perhaps"])
    if request.step == "output_first":
        return "Class label: A\nfoo bar\nClass label: B\nbaz"
    if rng.random() < 0.2:
        return "Input: only"
    return "Example 1\nInput: x\nOutput: y\nExample 2\nInput: z\nOutput: w"


def alpaca_text_for(request: Request) -> str:
    """Whole tasks as the method `alpaca` asks for them, one in five without an output."""
    rng = random.Random(request.key)
    items = []
    for number in range(4, 10):
        given, output = rng.choice(["<noinput>", "x"]), rng.choice(["done", "so", "yes", "no", ""])
        instruction = " ".join(rng.sample(WORDS, 6))
        items.append(f"{number}. Instruction: {instruction}\n{number}. Input:\n{given}\n{number}. Output:\n{output}\n")
    return "###\n".join(items).removeprefix("4. Instruction:")


def unhurried(write: Callable[[Request], str] = text_for) -> Callable[[Request], Awaitable[str]]:
    """The same, after a while that depends on the request too, so that replies come back in any order."""

    async def answer(request: Request) -> str:
        await asyncio.sleep(random.Random(request.key).random() * 0.003)
        return write(request)

    return answer


def overrides(pool_url: str, **values: Any) -> list[str]:
    """Recipe values, dots written as double underscores."""
    settings = {"bootstrap__target": 24, "bootstrap__wave": 3, "models__generator__concurrency": 8, **values}
    return [f"pool={pool_url}", *(f"{name.replace('__', '.')}={value}" for name, value in settings.items())]


def generate(
    pool_url: str,
    model: Model | Callable[[Request], Any] = unhurried(),  # noqa: B008
    *,
    target: int | None = None,
    **values: Any,
) -> GenerateResult:
    """One `generate` of the bundled quickstart recipe on the pool, with a model in the place of its endpoint."""
    answers = ScriptedModel(model) if callable(model) else model
    with open_project("quickstart", overrides=overrides(pool_url, **values), model=answers) as project:
        return project.generate(target=target)


def exported(pool_url: str) -> str:
    with TaskPool.open(pool_url, create=False) as pool:
        return "".join(format_tasks(pool.tasks()))


def problems(pool_url: str) -> list[str]:
    """What `sia pool verify` finds."""
    with open_project("quickstart", overrides=[f"pool={pool_url}"]) as project:
        return project.verify().problems
