"""One bootstrap round: the only place with concurrency, order, budget and commits.

    plan ──► judge ──► finish        each is one transaction, in an order that `next_move` alone decides
     │         │          └─ drafts become tasks, or discards, in request order, until the target is reached
     │         └─ replies are parsed and filtered in request order; novel instructions become drafts
     └─ a wave of instruction requests, drawn from one state of the pool

Requests are asked as soon as they are known, and waited for where they are needed. So the model is kept busy across
waves, and yet the pool depends on nothing but the replies: not on their order, not on concurrency, not on kills.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from ..errors import GenerationError
from ..llm.base import CallRecord, Place, Prompt, Reply, Request
from ..llm.caller import BudgetReached, Caller
from ..pool.engine import reading
from ..pool.journal import PoolJournal
from ..pool.locks import lock_round, wait_for_the_dying
from ..pool.pool import PoolWriter, TaskPool, count_written, load_outlines, load_tasks
from ..pool.rounds import Discard, Draft, Round, Rounds, Wave
from ..recipe import Recipe
from ..similarity.index import Match
from ..tasks import Origin, Provenance, Status, Task
from .demonstrations import demonstrable, draw_for_instructions, generator
from .method import Written
from .methods import method_of
from .novelty import Batch, PoolNovelty

Progress = Callable[[str, float | None], None]
_Decision = TypeVar("_Decision")

PREFIX = "generated"
_FRUITLESS_WAVES = 10
_GROUP = 5  # instructions that the reference code asks about together
LONGEST_DISCARD = 2000  # characters; the journal has the whole reply


@dataclass(frozen=True)
class GenerateResult:
    """What a round brought. `ended` is "target", or "budget" with the cap that was reached in `cap`; `round` is None
    where there was nothing to do."""

    round: int | None
    generated: int
    total: int
    target: int
    requests: int
    discards: dict[str, int]
    unclassified: int
    ended: Literal["target", "budget"]
    cap: str | None = None


# what next: pure -------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What the next move depends on; all of it is in the pool."""

    target: int
    admitted: int
    open_drafts: int
    unjudged_requests: int
    waves: tuple[Wave, ...]
    tasks_per_request: float
    tasks_per_draft: float = 1.0
    fresh: bool = False  # the round has planned no wave itself yet


@dataclass(frozen=True)
class Plan:
    requests: int


@dataclass(frozen=True)
class Judge:
    wave: Wave


@dataclass(frozen=True)
class Finish:
    wave: Wave


def next_move(state: State, *, wave: int, lookahead: int) -> Plan | Judge | Finish | None:
    """None when the target is reached. Every round plans a wave, also where an earlier one left enough for its target:
    what people have accepted since is to be shown to the model. A further wave is planned while no more than
    `lookahead` are unfinished and what is on its way would not reach the target; otherwise the oldest unjudged wave is
    judged, else the oldest judged one finished."""
    if state.admitted >= state.target:
        return None
    expected = (
        state.admitted + state.open_drafts * state.tasks_per_draft + state.unjudged_requests * state.tasks_per_request
    )
    if state.fresh or not state.waves or (len(state.waves) <= lookahead and expected < state.target):
        return Plan(min(wave, max(1, math.ceil((state.target - expected) / state.tasks_per_request))))
    unjudged = next((w for w in state.waves if w.state == "planned"), None)
    return Judge(unjudged) if unjudged else Finish(state.waves[0])


# the driver ------------------------------------------------------------------------------------


class Bootstrap:
    """Runs rounds of one recipe on one pool."""

    def __init__(self, pool: TaskPool, recipe: Recipe, caller: Caller, progress: Progress) -> None:
        self._pool, self._recipe, self._caller, self._progress = pool, recipe, caller, progress
        self._model = recipe.models.generator
        self._seeds = pool.tasks(Status.SEED)
        self._method = method_of(recipe, self._seeds)
        self._novelty = PoolNovelty(recipe.bootstrap.novelty_in_force)
        self._replies: dict[str, asyncio.Task[CallRecord]] = {}
        self._writing: dict[str, asyncio.Task[Written]] = {}
        self._fruitless = 0
        self._unclassified = 0

    async def run(self, target: int | None = None) -> GenerateResult:
        """One round, or an unfinished one's end; with `target`, until the pool holds that many generated tasks.

        Raises GenerationError after ten waves without a candidate, and what `Caller.ask` raises. Whatever ends it,
        the same call goes on from there.
        """
        if not self._pool.counts()[Status.SEED.value]:
            raise GenerationError(
                "the pool has no seed tasks to start from",
                hint="Name a file under `seeds:` in the recipe, or: sia pool import RECIPE FILE --as seed",
            )
        discards = self._pool.rounds.discard_counts()
        with ExitStack() as locks:
            round = self._begin(target, locks)
            number = round.number if round else None
            before = self._pool.written(PREFIX, number)
            ended: Literal["target", "budget"] = "target"
            cap = None
            try:
                if round is not None:
                    await self._bootstrap(round)
            except BudgetReached as reached:
                ended, cap = "budget", reached.what
            return GenerateResult(
                round=number,
                generated=self._pool.written(PREFIX, number) - before,
                total=self._pool.written(PREFIX),
                target=round.target if round else target or 0,
                requests=self._caller.bought,
                discards=difference(self._pool.rounds.discard_counts(), discards),
                unclassified=self._unclassified,
                ended=ended,
                cap=cap,
            )

    def _begin(self, target: int | None, locks: ExitStack) -> Round | None:
        """The round to work on, locked: an unfinished one that no other process has, else a new one."""
        settings = self._recipe.bootstrap
        with reading(self._pool.engine) as connection:
            unfinished = [round.number for round in Rounds.open_rounds(connection)]
        wait_for_the_dying(self._pool.engine, unfinished)
        with self._pool.write() as writer:
            connection = writer.connection
            missing = None if target is None else target - count_written(connection, PREFIX)
            free = (r for r in Rounds.open_rounds(connection) if lock_round(self._pool.engine, r.number, locks))
            round = next(free, None)
            if round is not None and missing is not None:
                round = replace(round, target=max(0, count_written(connection, PREFIX, round.number) + missing))
                Rounds.set_target(connection, round.number, round.target)
            if round is None:
                if missing is not None and missing <= 0:
                    return None
                round = Rounds.start_round(
                    connection,
                    method=settings.method,
                    target=missing or settings.target,
                    fingerprint=self._recipe.fingerprint,
                    recipe=self._recipe.model_dump(mode="json", by_alias=True),
                )
                lock_round(self._pool.engine, round.number, locks)
            Rounds.adopt_waves(connection, round.number)
            return round

    async def _bootstrap(self, round: Round) -> None:
        try:
            async with self._caller.session():
                await self._move_on(round)
        finally:
            started = [*self._replies.values(), *self._writing.values()]
            for task in started:
                task.cancel()
            await asyncio.gather(*started, return_exceptions=True)

    async def _move_on(self, round: Round) -> None:
        """Move after move until the target is reached."""
        settings = self._recipe.bootstrap
        while True:
            state = await asyncio.to_thread(self._state, round)
            move = next_move(state, wave=settings.wave, lookahead=settings.lookahead)
            if move is None:
                with self._pool.write() as writer:
                    Rounds.finish_round(writer.connection, round.number)
                self._show(round, state)
                return
            if isinstance(move, Plan):
                await asyncio.to_thread(self._plan, round, move.requests)
                continue
            for wave in state.waves:
                await self._start(wave)
            async with self._showing(round, state):
                if isinstance(move, Judge):
                    await self._judge(move.wave)
                else:
                    await self._finish(move.wave, state)

    def _state(self, round: Round) -> State:
        with reading(self._pool.engine) as connection:
            waves = Rounds.unfinished_waves(connection, round.number)
            admitted = count_written(connection, PREFIX, round.number)
            done = Rounds.finished_requests(connection, round.number)
            draft_yield = Rounds.draft_yield(connection, round.number)
            usual = float(self._method.tasks_per_request)
            return State(
                target=round.target,
                admitted=admitted,
                open_drafts=Rounds.count_open_drafts(connection, waves),
                unjudged_requests=sum(
                    Rounds.wave_requests(connection, wave) for wave in waves if wave.state == "planned"
                ),
                waves=tuple(waves),
                # what requests and drafts have brought so far in this round says best what the next will bring
                tasks_per_request=min(usual, max(0.5, admitted / done)) if done else usual,
                tasks_per_draft=1.0 if draft_yield is None else max(0.1, draft_yield),
                fresh=not Rounds.last_wave(connection, round.number),
            )

    # plan ------------------------------------------------------------------------------------------

    def _plan(self, round: Round, count: int) -> None:
        """Commits a wave of instruction requests, all drawn from the pool as it is now."""
        model, settings = self._model, self._recipe.bootstrap
        with reading(self._pool.engine) as connection:
            number = Rounds.last_wave(connection, round.number) + 1
            places = [Place(round.number, number, position) for position in range(count)]
            shown = draw_shown(connection, self._recipe, self._seeds, places)
        requests = []
        for place, tasks in zip(places, shown, strict=True):
            planned = self._method.plan(tasks)
            request = Request(
                "instructions", settings.method, model.model, model.api, planned.prompt, planned.parameters,
                0, place, tuple(task.id for task in tasks),
            )  # fmt: skip
            requests.append(request)
        with self._pool.write() as writer:
            Rounds.add_wave(writer.connection, round.number, number)
            PoolJournal.add_requests(writer.connection, PoolJournal.drawn(writer.connection, requests))

    async def _start(self, wave: Wave) -> None:
        """Asks for what a wave waits for, unless that is under way."""
        if wave.state == "planned":
            for request in self._requests(wave):
                if request.key not in self._replies:
                    self._replies[request.key] = asyncio.create_task(self._caller.ask(request))
            return
        drafts, whole, calls = await asyncio.to_thread(self._waiting, wave)
        for draft in drafts:
            reply = calls[draft.request].reply
            assert reply is not None, "a draft comes from a journaled reply"
            first = draft.position - draft.position % _GROUP
            self._writing[draft.key] = asyncio.create_task(self._write(draft, reply, whole[first : first + _GROUP]))

    def _waiting(self, wave: Wave) -> tuple[list[Draft], list[str], dict[str, CallRecord]]:
        """The drafts of a wave that nobody writes yet, all its instructions, and the replies that they come from."""
        with reading(self._pool.engine) as connection:
            drafts = [draft for draft in Rounds.open_drafts(connection, wave) if draft.key not in self._writing]
            whole = Rounds.wave_instructions(connection, wave) if drafts else []
        return drafts, whole, self._pool.journal.settled_calls({draft.request for draft in drafts})

    def _requests(self, wave: Wave) -> list[Request]:
        """The wave's instruction requests; those planned for a model that the recipe no longer names are dropped
        unless they were answered."""
        model = self._model
        requests = list(self._pool.journal.requests(round=wave.round, wave=wave.number, step="instructions"))
        stale = [r.key for r in requests if (r.model, r.api) != (model.model, model.api)]
        answered = self._pool.journal.settled_calls(stale)
        return [request for request in requests if request.key not in stale or request.key in answered]

    # judge -----------------------------------------------------------------------------------------

    async def _judge(self, wave: Wave) -> None:
        requests = await asyncio.to_thread(self._requests, wave)
        calls = [(request, await self._replies[request.key]) for request in requests]
        drafts = await asyncio.to_thread(self._commit_drafts, wave, calls)
        for request in requests:
            del self._replies[request.key]
        if not drafts:
            self._count_fruitless(0)

    @contextmanager
    def _deciding(self, decide: Callable[[Batch], _Decision]) -> Iterator[tuple[PoolWriter, _Decision]]:
        """A decision about novelty and the write lock to commit it under. Comparing takes seconds, and replies on their
        way wait for the lock: so it is done before, and again only where another process was faster."""
        with reading(self._pool.engine) as connection:
            self._novelty.refresh(connection)
        decision = decide(self._novelty.batch())
        with self._pool.write() as writer:
            if self._novelty.refresh(writer.connection):
                decision = decide(self._novelty.batch())
            yield writer, decision

    def _commit_drafts(self, wave: Wave, calls: Sequence[tuple[Request, CallRecord]]) -> list[Draft]:
        """Parses, filters and compares, in request order."""

        def decide(batch: Batch) -> tuple[list[Draft], list[Discard]]:
            drafts: list[Draft] = []
            discards: list[Discard] = []
            for request, call in calls:
                for instruction, discard in self._judged(request, call, batch):
                    if discard is not None:
                        discards.append(discard)
                        continue
                    draft = Draft(wave.round, wave.number, len(drafts), instruction, request.key, wave.owner)
                    batch.add(draft.key, instruction)
                    drafts.append(draft)
            return drafts, discards

        with self._deciding(decide) as (writer, (drafts, discards)):
            Rounds.add_drafts(writer.connection, drafts)
            Rounds.add_discards(writer.connection, wave, discards)
            Rounds.set_wave_state(writer.connection, wave, "judged" if drafts else "finished")
        return drafts

    def _judged(self, request: Request, call: CallRecord, batch: Batch) -> Iterator[tuple[str, Discard | None]]:
        """Each instruction of a reply, with the discard that it is, if it is one."""

        def discard(reason: str, text: str, **facts: Any) -> tuple[str, Discard]:
            return text, Discard("instructions", reason, text[:LONGEST_DISCARD], request=request.key, **facts)

        if call.reply is None:
            yield discard("request_refused", "", detail=call.error)
            return
        parsed = self._method.parse(call.reply)
        if not parsed.items and parsed.cut is None:
            yield discard("no_instruction", call.reply.text)
        for instruction in parsed.items:
            if found := self._method.turn_away(instruction):
                yield discard(found[0], instruction, detail=found[1])
            elif match := batch.check(instruction):
                yield discard("near_duplicate", instruction, score=match.score, nearest=str(match.key))
            else:
                yield instruction, None
        if parsed.cut is not None:
            yield discard("cut_by_length", parsed.cut)

    # finish ----------------------------------------------------------------------------------------

    async def _write(self, draft: Draft, reply: Reply, batch: Sequence[str]) -> Written:
        model = self._model

        async def ask(step: str, prompt: Prompt, parameters: Mapping[str, Any]) -> CallRecord:
            place = Place(draft.round, draft.wave, draft.position)
            method = self._recipe.bootstrap.method
            request = Request(step, method, model.model, model.api, prompt, parameters, 0, place)
            # instructions go first, because all else comes from them; then what finishes the oldest wave
            return await self._caller.ask(request, (draft.round, draft.wave))

        return await self._method.write(draft.instruction, reply, batch, ask)

    async def _finish(self, wave: Wave, state: State) -> None:
        with reading(self._pool.engine) as connection:
            drafts = Rounds.open_drafts(connection, wave)
        settled: list[tuple[Draft, Written]] = []
        missing = state.target - state.admitted
        for draft in drafts:
            if not missing:
                break  # the rest waits for the next round, with what it has cost
            written = await self._writing[draft.key]
            settled.append((draft, written))
            missing -= bool(written.instances)
        await asyncio.to_thread(self._commit_tasks, wave, settled, len(settled) == len(drafts))
        for draft, _ in settled:
            del self._writing[draft.key]
        self._count_fruitless(sum(bool(written.instances) for _, written in settled))

    def _commit_tasks(self, wave: Wave, settled: Sequence[tuple[Draft, Written]], whole: bool) -> None:
        """Drafts with instances become candidates, the others discards, in request order."""
        tasks: list[Task] = []
        discards: list[Discard] = []

        closed: list[Draft] = []
        kept = {draft.key: draft.instruction for draft, written in settled if written.instances}

        def decide(batch: Batch) -> dict[str, Match | None]:
            return dict(zip(kept, batch.nearest(kept), strict=True))

        with self._deciding(decide) as (writer, nearest):
            shown = PoolJournal.demonstrations(writer.connection, [draft.request for draft, _ in settled])
            ids = iter(writer.next_ids(PREFIX, len(settled)))
            names: dict[str, str] = {}  # what was a draft when it was compared
            for draft, written in settled:
                discards += [
                    Discard(
                        "instances",
                        item.reason,
                        f"{item.instance.input}\n{item.instance.output}"[:LONGEST_DISCARD],
                        detail=draft.instruction,
                        request=(*written.requests, draft.request)[-1],
                    )
                    for item in written.turned_away
                ]
                if written.reason is not None:
                    discards.append(
                        Discard(
                            "instances",
                            written.reason,
                            draft.instruction,
                            detail=written.detail,
                            request=draft.request,
                        )
                    )
                    closed.append(replace(draft, requests=written.requests))
                    continue
                match = nearest[draft.key]
                names[draft.key] = next(ids)
                task = Task(
                    id=names[draft.key],
                    instruction=draft.instruction,
                    instances=written.instances,
                    is_classification=written.is_classification,
                    status=Status.CANDIDATE,
                    origin=Origin.GENERATED,
                    round=wave.owner,
                    provenance=Provenance(self._model.model, draft.request, shown[draft.request]),
                    max_rouge_l=match.score if match else None,
                    nearest=names.get(str(match.key), str(match.key)) if match else None,
                )
                tasks.append(task)
                closed.append(replace(draft, requests=written.requests, task_id=task.id))
            writer.add(tasks, kind="generated")
            Rounds.close_drafts(writer.connection, closed)
            Rounds.add_discards(writer.connection, wave, discards)
            if whole:
                Rounds.set_wave_state(writer.connection, wave, "finished")
        asked = [written for _, written in settled if written.instances and written.requests]
        self._unclassified += sum(written.is_classification is None for written in asked)

    # talk ------------------------------------------------------------------------------------------

    def _count_fruitless(self, candidates: int) -> None:
        self._fruitless = 0 if candidates else self._fruitless + 1
        stop_fruitless(self._pool, self._fruitless)

    @asynccontextmanager
    async def _showing(self, round: Round, state: State) -> AsyncIterator[None]:
        """Reports progress twice a second while a move waits for replies."""

        async def show() -> None:
            while True:
                self._show(round, state)
                await asyncio.sleep(0.5)

        task = asyncio.create_task(show())
        try:
            yield
        finally:
            task.cancel()

    def _show(self, round: Round, state: State) -> None:
        waiting = f", {state.open_drafts} in work" if state.open_drafts else ""
        self._progress(
            f"Round {round.number}: {state.admitted} of {state.target} tasks{waiting}, {self._caller.bought} replies",
            min(1.0, state.admitted / max(1, state.target)),
        )


def draw_shown(
    connection: Connection, recipe: Recipe, seeds: Sequence[Task], places: Sequence[Place]
) -> list[list[Task]]:
    """What the instruction prompt of each place shows of the pool as it is now; only these tasks are read whole."""
    settings = recipe.bootstrap
    generated = demonstrable(load_outlines(connection, [Status(name) for name in settings.demonstrations.from_]))
    seed_count, generated_count = settings.demonstrations_in_force
    drawn = [
        draw_for_instructions(
            seeds,
            generated,
            generator(settings.seed, place.round, place.wave, place.position),
            seed_count=seed_count,
            generated_count=generated_count,
        )
        for place in places
    ]
    known = {task.id: task for task in seeds}
    wanted = {task_id for shown in drawn for task_id in shown} - known.keys()
    known |= {task.id: task for task in load_tasks(connection, ids=sorted(wanted))}
    return [[known[task_id] for task_id in shown] for shown in drawn]


def stop_fruitless(pool: TaskPool, waves: int) -> None:
    """Raises GenerationError, with the reasons, once so many waves in a row brought no candidate."""
    if waves < _FRUITLESS_WAVES:
        return
    counts = pool.rounds.discard_counts()
    often = sorted(counts, key=lambda reason: -counts[reason])[:3]
    why = ", ".join(f"{reason} ({counts[reason]})" for reason in often) or "the replies hold no task"
    if often and often[0] == "request_refused":
        why += f"; the endpoint says: {pool.rounds.discards(reason='request_refused')[-1].detail}"
    raise GenerationError(
        f"{waves} waves in a row brought no candidate; most were turned away for: {why}",
        hint="Try another model, more seeds or a higher bootstrap.novelty.threshold; see: sia status",
    )


def difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {reason: count - before.get(reason, 0) for reason, count in after.items() if count > before.get(reason, 0)}
