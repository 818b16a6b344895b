"""Proving that the pool follows from its journal: every generated task is parsed again from the stored replies."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..llm.base import CallRecord, Prompt, Reply
from ..pool.pool import TaskPool
from ..pool.rounds import Draft
from ..recipe import Recipe
from ..tasks import Origin, Status, Task
from .distill import METHOD, parse, render
from .method import Method, Written
from .methods import method_of
from .template import load_template

_BLOCK = 1000  # tasks whose replies are in memory at a time


@dataclass(frozen=True)
class Verification:
    """How many generated tasks were parsed again, and a sentence for everything that does not fit."""

    tasks: int
    replies: int
    problems: list[str]


def verify(pool: TaskPool) -> Verification:
    """Checks the journal's own digests, then each generated task against the replies that it came from, as the recipe
    of the round that judged it reads them. Tasks that people edited are checked as they were before; tasks of a
    release that was pulled came from another pool's journal, and are left out."""
    problems = list(pool.journal.damage())
    originals = pool.originals()
    pulled = pool.pulled_ids()
    ours = [task for task in pool.tasks() if task.origin is Origin.GENERATED and task.id not in pulled]
    tasks = [originals.get(task.id, task) for task in ours]
    seeds = pool.tasks(Status.SEED)
    recipes = {number: Recipe.model_validate(values) for number, values in pool.rounds.recipes().items()}
    for start in range(0, len(tasks), _BLOCK):
        problems += _check(pool, tasks[start : start + _BLOCK], recipes, seeds)
    return Verification(len(tasks), pool.journal.spend().requests, problems)


def _check(pool: TaskPool, tasks: list[Task], recipes: Mapping[int, Recipe], seeds: Sequence[Task]) -> Iterator[str]:
    methods = {n: method_of(recipe, seeds) for n, recipe in recipes.items() if recipe.bootstrap.method != METHOD}
    drafts = pool.rounds.admitted_drafts([task.id for task in tasks])
    keys = [key for draft in drafts.values() for key in (draft.request, *draft.requests)]
    calls = pool.journal.settled_calls(keys)
    for task in tasks:
        draft = drafts.get(task.id)
        if draft is None:
            yield f"task {task.id} comes from no journaled reply"
            continue
        missing = [key for key in (draft.request, *draft.requests) if key not in calls]
        if missing:
            yield f"task {task.id} comes from request {missing[0][:12]}, which has no reply in the journal"
            continue
        if task.round not in methods:
            if not _same_outputs(pool, task, draft, calls, recipes[task.round]):
                yield f"the outputs of task {task.id} are not those of the replies that they came from"
            continue
        method, judge = methods[task.round], methods[draft.judged_in]
        reply = calls[draft.request].reply
        if reply is None or task.instruction not in judge.parse(reply).items:
            yield f"the instruction of task {task.id} is not in the reply that it came from"
        elif judge.turn_away(task.instruction):
            yield f"the instruction of task {task.id} does not pass the filters of the round that judged it"
        elif not _same(task, _rewritten(method, task.instruction, reply, [calls[key] for key in draft.requests])):
            yield f"the instances of task {task.id} are not those of the replies that they came from"


def _same_outputs(pool: TaskPool, task: Task, draft: Draft, calls: Mapping[str, CallRecord], recipe: Recipe) -> bool:
    """Whether each instance of a distilled task was asked for as it stands, and is what came back."""
    template = load_template(recipe.language)
    requests = [pool.journal.request(key) for key in draft.requests]
    return len(requests) == len(task.instances) and all(
        request is not None
        and request.prompt == render(task.instruction, instance.input, template)
        and parse(calls[request.key].reply, instance.input, template) == (instance.output, None)
        for request, instance in zip(requests, task.instances, strict=True)
    )


def _rewritten(method: Method, instruction: str, reply: Reply, calls: Sequence[CallRecord]) -> Written:
    """The method's own reading of the stored replies."""
    stored = iter(calls)

    async def ask(step: str, prompt: Prompt, parameters: Mapping[str, Any]) -> CallRecord:
        return next(stored)

    return asyncio.run(method.write(instruction, reply, (), ask))


def _same(task: Task, written: Written) -> bool:
    texts = [(instance.input, instance.output) for instance in written.instances]
    same_texts = texts == [(instance.input, instance.output) for instance in task.instances]
    return same_texts and written.is_classification == task.is_classification
