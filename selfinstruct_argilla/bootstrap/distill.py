"""Distillation: the outputs of tasks that are there already, written again by another (stronger) model.

    plan ──► ask ──► commit          one wave of tasks after the other, in the order of their ids

Each instance is asked by itself, without demonstrations. What comes back is a new task, `distilled_…`, with the same
instruction and inputs, which names in `distilled_from` the task that they come from; that one stays as it is. The new
task is a candidate: people judge it like any other, and once they accepted it, it takes the old one's place in
releases (Self-Instruct, section 5.4: outputs written again by a better model improve the result).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby

from sqlalchemy import Connection, select

from ..errors import GenerationError
from ..llm.base import CallRecord, Place, Prompt, Reply, Request
from ..llm.caller import BudgetReached, Caller
from ..pool import schema
from ..pool.engine import reading
from ..pool.journal import PoolJournal
from ..pool.locks import lock_round, wait_for_the_dying
from ..pool.pool import TaskPool, count_written, load_tasks
from ..pool.rounds import Discard, Draft, Round, Rounds, Wave
from ..recipe import Recipe
from ..tasks import Instance, Origin, Provenance, Status, Task
from .instances import check
from .loop import LONGEST_DISCARD, GenerateResult, difference, stop_fruitless
from .method import parameters
from .template import Template, load_template

Progress = Callable[[str, float | None], None]

METHOD = STEP = "distill"
PREFIX = "distilled"
SAMPLING = {"max_tokens": 1024, "temperature": 0.0}


# render and parse: pure ------------------------------------------------------------------------


def render(instruction: str, input: str, template: Template) -> Prompt:
    labels = template.labels
    given = f"{labels.input} {input.strip()}\n" if input.strip() else ""
    query = f"{labels.task} {instruction.strip()}\n{given}{labels.output}"
    return Prompt(f"{template.distill.header.strip()}\n\n", query)


def parse(reply: Reply | None, input: str, template: Template) -> tuple[str, str | None]:
    """The new output, and why it cannot be used (None where it can)."""
    if reply is None:
        return "", "request_refused"
    output = reply.text.strip().removeprefix(template.labels.output).strip()
    if reply.finish_reason == "length":
        return output, "cut_by_length"
    _, invalid = check([Instance(input, output)], at_most=1)
    return output, invalid[0].reason if invalid else None


def instances_of(task: Task) -> tuple[Instance, ...]:
    """The instances that people accepted; all of them where nobody accepted any."""
    return task.accepted_instances() or task.instances


def requests_of(task: Task, recipe: Recipe) -> list[Request]:
    """A request for each of those instances, in their order."""
    template, model = load_template(recipe.language), recipe.models.generator
    stop = [f"\n{template.labels.task}"] if model.api == "completions" else []
    sampling = parameters(SAMPLING, recipe.bootstrap.sampling.instances, stop)
    prompts = [render(task.instruction, instance.input, template) for instance in instances_of(task)]
    return [
        Request(STEP, METHOD, model.model, model.api, prompt, sampling, demonstrations=(task.id,)) for prompt in prompts
    ]


@dataclass(frozen=True)
class Rewritten:
    """A task's new instances, the requests that they answer, and what could not be used."""

    instances: tuple[Instance, ...]
    requests: tuple[str, ...]
    discards: tuple[Discard, ...]


def rewrite(task: Task, calls: Sequence[CallRecord], template: Template) -> Rewritten:
    """What the answers to a task's requests come to: a task is written again whole or not at all, because the new one
    takes the place of the old; and outputs that are the old ones again are no new task."""
    instances = []
    discards = []

    def turn_away(reason: str, output: str, call: CallRecord) -> None:
        text = f"{task.instruction}\n{output}"[:LONGEST_DISCARD]
        discards.append(Discard(STEP, reason, text, None, task.id, call.error, call.request_key))

    for old, call in zip(instances_of(task), calls, strict=True):
        output, reason = parse(call.reply, old.input, template)
        instances.append(Instance(old.input, output))
        if reason is not None:
            turn_away(reason, output, call)
    if not discards and all(old.output == new.output for old, new in zip(instances_of(task), instances, strict=True)):
        turn_away("same_output", instances[0].output, calls[0])
    if discards:
        return Rewritten((), (), tuple(discards))
    return Rewritten(tuple(instances), tuple(call.request_key for call in calls), ())


# what is due -----------------------------------------------------------------------------------


def due_tasks(connection: Connection, recipe: Recipe) -> list[Task]:
    """Tasks of the wanted statuses, by id, that the recipe's model was not asked as they stand now, or that it was cut
    off at with other parameters than now; what was distilled itself is never asked again. Raises GenerationError where
    the pool has no task of these statuses."""
    statuses = [str(status) for status in recipe.bootstrap.distill.status]
    tasks = [task for task in load_tasks(connection, status=statuses) if task.distilled_from is None]
    if not tasks:
        raise GenerationError(
            f"the pool has no task to distill: none is {' or '.join(statuses)}",
            hint="Name the pool of another recipe under `pool:`, or other statuses under bootstrap.distill.status.",
        )
    table, attempts = schema.requests, schema.attempts
    query = select(table.c.demonstrations, table.c.query, table.c.parameters, attempts.c.finish_reason)
    query = query.outerjoin(attempts, (attempts.c.request == table.c.key) & (attempts.c.outcome != "transient"))
    query = query.where(table.c.step == STEP, table.c.model == recipe.models.generator.model)
    parameters_now = requests_of(tasks[0], recipe)[0].parameters
    asked = {
        (row.demonstrations[0], row.query)
        for row in connection.execute(query)
        if row.finish_reason != "length" or row.parameters == parameters_now
    }
    return [task for task in tasks if any((task.id, r.prompt.query) not in asked for r in requests_of(task, recipe))]


# the driver ------------------------------------------------------------------------------------

Asked = tuple[Task, list[Request]]


class Distillation:
    """Runs distillation rounds of one recipe on one pool."""

    def __init__(self, pool: TaskPool, recipe: Recipe, caller: Caller, progress: Progress) -> None:
        self._pool, self._recipe, self._caller, self._progress = pool, recipe, caller, progress

    async def run(self, target: int | None = None) -> GenerateResult:
        """One round over up to `bootstrap.target` tasks, or an unfinished one's end; with `target`, until the pool
        holds that many distilled tasks, as long as there are any to ask.

        Raises GenerationError where there is nothing to distill, or after ten waves without a usable output, and what
        `Caller.ask` raises. Whatever ends it, the same call goes on from there.
        """
        discards, before, cap = self._pool.rounds.discard_counts(), self._pool.written(PREFIX), None
        with ExitStack() as locks:
            last = round = await asyncio.to_thread(self._begin, target, locks)
            try:
                async with self._caller.session():
                    while round is not None:
                        await self._run(round)
                        last = round
                        round = None if target is None else await asyncio.to_thread(self._begin, target, locks)
            except BudgetReached as reached:
                cap = reached.what
        total = self._pool.written(PREFIX)
        return GenerateResult(
            round=last.number if last else None,
            generated=total - before,
            total=total,
            target=target or (last.target if last else 0),
            requests=self._caller.bought,
            discards=difference(self._pool.rounds.discard_counts(), discards),
            unclassified=0,
            ended="budget" if cap else "target",
            cap=cap,
        )

    # plan ------------------------------------------------------------------------------------------

    def _begin(self, target: int | None, locks: ExitStack) -> Round | None:
        """The round to work on, locked: an unfinished one that no other process has, else a new one, planned whole."""
        settings = self._recipe.bootstrap
        with reading(self._pool.engine) as connection:
            unfinished = [round.number for round in Rounds.open_rounds(connection, distill=True)]
        wait_for_the_dying(self._pool.engine, unfinished)
        with self._pool.write() as writer:
            connection = writer.connection
            for round in Rounds.open_rounds(connection, distill=True):
                if lock_round(self._pool.engine, round.number, locks):
                    return round
            wanted = settings.target if target is None else max(0, target - count_written(connection, PREFIX))
            due = due_tasks(connection, self._recipe)[:wanted]
            if not due:
                return None
            round = Rounds.start_round(
                connection,
                method=METHOD,
                target=len(due),
                fingerprint=self._recipe.fingerprint,
                recipe=self._recipe.model_dump(mode="json", by_alias=True),
            )
            lock_round(self._pool.engine, round.number, locks)
            for number, start in enumerate(range(0, len(due), settings.wave), 1):
                wave = Rounds.add_wave(connection, round.number, number)
                self._plan(connection, wave, due[start : start + settings.wave])
            return round

    def _plan(self, connection: Connection, wave: Wave, tasks: Sequence[Task]) -> None:
        """Writes down what is to be asked; tasks that say the same are asked each for itself."""
        asked = [request for task in tasks for request in requests_of(task, self._recipe)]
        placed = [replace(r, place=Place(wave.round, wave.number, number)) for number, r in enumerate(asked)]
        PoolJournal.add_requests(connection, PoolJournal.drawn(connection, placed))

    # ask -------------------------------------------------------------------------------------------

    async def _run(self, round: Round) -> None:
        with reading(self._pool.engine) as connection:
            waiting = deque(Rounds.unfinished_waves(connection, round.number))
        settings = self._recipe.bootstrap
        # so many waves that the slowest reply of one leaves no slot empty
        ahead = 1 + settings.lookahead + math.ceil(2 * self._recipe.models.generator.concurrency / settings.wave)
        running: deque[tuple[Wave, list[Asked], asyncio.Future[list[CallRecord]]]] = deque()
        waves, fruitless = len(waiting), 0
        try:
            while waiting or running:
                while waiting and len(running) < ahead:
                    wave = waiting.popleft()
                    asked = await asyncio.to_thread(self._planned, wave)
                    replies = asyncio.gather(*(self._caller.ask(r) for _, requests in asked for r in requests))
                    running.append((wave, asked, replies))
                wave, asked, replies = running[0]
                kept = await asyncio.to_thread(self._commit, wave, asked, await replies)
                running.popleft()
                done = 1 - (len(waiting) + len(running)) / waves
                self._progress(f"Round {round.number}: {self._caller.bought} replies", done)
                fruitless = 0 if kept or not asked else fruitless + 1
                stop_fruitless(self._pool, fruitless)
        finally:
            for _, _, replies in running:
                replies.cancel()
            await asyncio.gather(*(replies for _, _, replies in running), return_exceptions=True)
        with self._pool.write() as writer:
            Rounds.finish_round(writer.connection, round.number)

    def _planned(self, wave: Wave) -> list[Asked]:
        """The tasks of a wave, each with the requests for its instances. Left out are tasks that were edited since, and
        requests for a model that the recipe no longer names, unless they were answered: both are due again."""
        journal, model = self._pool.journal, self._recipe.models.generator
        planned = list(journal.requests(round=wave.round, wave=wave.number, step=STEP))
        groups = {id: list(group) for id, group in groupby(planned, lambda request: request.demonstrations[0])}
        answered = journal.settled_calls([r.key for r in planned if (r.model, r.api) != (model.model, model.api)])
        asked = []
        for task in self._pool.tasks(ids=list(groups)):
            group = groups[task.id]
            current = all((r.model, r.api) == (model.model, model.api) or r.key in answered for r in group)
            if current and [r.prompt for r in group] == [r.prompt for r in requests_of(task, self._recipe)]:
                asked.append((task, group))
        return asked

    # commit ----------------------------------------------------------------------------------------

    def _commit(self, wave: Wave, asked: Sequence[Asked], calls: Sequence[CallRecord]) -> int:
        """New candidates and discards, in the order of the plan; how many candidates there are."""
        template, rest = load_template(self._recipe.language), iter(calls)
        fresh: list[Task] = []
        drafts: list[Draft] = []
        discards: list[Discard] = []
        with self._pool.write() as writer:
            ids = iter(writer.next_ids(PREFIX, len(asked)))
            for position, (task, requests) in enumerate(asked):
                found = rewrite(task, [next(rest) for _ in requests], template)
                discards += found.discards
                if not found.instances:
                    continue
                new = _distilled(next(ids), task, found, wave, requests[0].model)
                fresh.append(new)
                place = (wave.round, wave.number, position)
                drafts.append(
                    Draft(*place, task.instruction, found.requests[0], wave.owner, found.requests, task_id=new.id)
                )
            writer.add(fresh, kind="distilled")
            Rounds.add_drafts(writer.connection, drafts)
            Rounds.close_drafts(writer.connection, drafts)
            Rounds.add_discards(writer.connection, wave, discards)
            Rounds.set_wave_state(writer.connection, wave, "finished")
        return len(fresh)


def _distilled(id: str, task: Task, found: Rewritten, wave: Wave, model: str) -> Task:
    return Task(
        id=id,
        name=task.name,
        instruction=task.instruction,
        instances=found.instances,
        is_classification=task.is_classification,
        status=Status.CANDIDATE,
        origin=Origin.GENERATED,
        round=wave.owner,
        provenance=Provenance(model, found.requests[0], (task.id,)),
        max_rouge_l=task.max_rouge_l,
        nearest=task.nearest,
        extra={"distilled_from": task.id},
    )
