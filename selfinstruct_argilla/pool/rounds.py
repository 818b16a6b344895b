"""Bootstrap in progress: rounds, their waves, drafts that wait for instances, and discards with their reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, func, insert, select, update

from . import schema
from .engine import in_parts, now, reading


@dataclass(frozen=True)
class Round:
    """One bootstrap pass; `target` is how many new tasks it is to bring."""

    number: int
    method: str
    target: int
    fingerprint: str
    state: str


@dataclass(frozen=True)
class Wave:
    """Requests that were planned from one state of the pool: planned, then judged, then finished."""

    round: int
    number: int
    owner: int
    state: str


@dataclass(frozen=True)
class Draft:
    """A novel instruction that waits for its instances. `position` is its place in the wave, in request order;
    `judged_in` the round whose filters it passed."""

    round: int
    wave: int
    position: int
    instruction: str
    request: str
    judged_in: int
    requests: tuple[str, ...] = ()
    task_id: str | None = None

    @property
    def key(self) -> str:
        """Its name in the novelty index, until it is a task."""
        return draft_key(self.round, self.wave, self.position)


def draft_key(round: int, wave: int, position: int) -> str:
    return f"draft:{round}.{wave}.{position}"


@dataclass(frozen=True)
class Discard:
    """What a filter turned away: at which step, why, and where it helps the nearest pool task and its score."""

    step: str
    reason: str
    text: str
    score: float | None = None
    nearest: str | None = None
    detail: str | None = None
    request: str | None = None


class Rounds:
    """Reading; the writing functions take the connection of a transaction that the loop holds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Round]:
        with reading(self._engine) as connection:
            return [_round(row) for row in connection.execute(select(schema.rounds).order_by(schema.rounds.c.number))]

    def discards(self, *, reason: str | None = None) -> list[Discard]:
        """What was turned away, oldest first."""
        query = select(schema.discards).order_by(schema.discards.c.id)
        if reason is not None:
            query = query.where(schema.discards.c.reason == reason)
        with reading(self._engine) as connection:
            return [
                Discard(row.step, row.reason, row.text, row.score, row.nearest, row.detail, row.request)
                for row in connection.execute(query)
            ]

    def discard_counts(self) -> dict[str, int]:
        """Discards by reason."""
        return {reason: count for (reason,), count in self.discards_by("reason").items()}

    def discards_by(self, *columns: str) -> dict[tuple[Any, ...], int]:
        """The same by columns of the discards: round, step, reason."""
        keys = [schema.discards.c[column] for column in columns]
        query = select(*keys, func.count()).group_by(*keys).order_by(*keys)
        with reading(self._engine) as connection:
            return {tuple(row[:-1]): row[-1] for row in connection.execute(query)}

    def admitted_drafts(self, task_ids: Sequence[str]) -> dict[str, Draft]:
        """What generated tasks came from, by task id."""
        found: dict[str, Draft] = {}
        with reading(self._engine) as connection:
            for some in in_parts(task_ids):
                query = select(schema.drafts).where(schema.drafts.c.task_id.in_(some))
                found.update({row.task_id: _draft(row) for row in connection.execute(query)})
        return found

    def recipes(self) -> dict[int, dict[str, Any]]:
        """The recipe that each round was started with."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(schema.rounds.c.number, schema.rounds.c.recipe))
            return {row.number: row.recipe for row in rows}

    # inside a transaction ------------------------------------------------------------------------

    @staticmethod
    def open_rounds(connection: Connection, *, distill: bool = False) -> list[Round]:
        """Unfinished rounds, oldest first: those that distill, or those that bring new tasks."""
        query = select(schema.rounds).where(schema.rounds.c.state == "open").order_by(schema.rounds.c.number)
        rounds = [_round(row) for row in connection.execute(query)]
        return [round for round in rounds if (round.method == "distill") is distill]

    @staticmethod
    def set_target(connection: Connection, number: int, target: int) -> None:
        connection.execute(update(schema.rounds).where(schema.rounds.c.number == number).values(target=target))

    @staticmethod
    def start_round(
        connection: Connection, *, method: str, target: int, fingerprint: str, recipe: dict[str, Any]
    ) -> Round:
        last = connection.execute(select(func.max(schema.rounds.c.number))).scalar_one() or 0
        pulled = connection.execute(select(func.max(schema.tasks.c.round))).scalar_one() or 0  # rounds of another pool
        number = 1 + max(last, pulled)
        values = {"number": number, "method": method, "target": target, "fingerprint": fingerprint, "state": "open"}
        connection.execute(insert(schema.rounds).values(**values, recipe=recipe, started_at=now()))
        return Round(**values)  # type: ignore[arg-type]

    @staticmethod
    def finish_round(connection: Connection, number: int) -> None:
        table = schema.rounds
        connection.execute(update(table).where(table.c.number == number).values(state="done", finished_at=now()))

    @staticmethod
    def adopt_waves(connection: Connection, round: int) -> None:
        """Takes over what earlier rounds left unfinished when they reached their target."""
        ended = select(schema.rounds.c.number).where(schema.rounds.c.state == "done")
        table = schema.waves
        connection.execute(
            update(table).where(table.c.state != "finished", table.c.owner.in_(ended)).values(owner=round)
        )

    @staticmethod
    def unfinished_waves(connection: Connection, owner: int) -> list[Wave]:
        """Waves whose replies or drafts are not all judged: oldest first."""
        table = schema.waves
        query = select(table).where(table.c.state != "finished", table.c.owner == owner)
        rows = connection.execute(query.order_by(table.c.round, table.c.number))
        return [Wave(row.round, row.number, row.owner, row.state) for row in rows]

    @staticmethod
    def wave_requests(connection: Connection, wave: Wave) -> int:
        """How many instruction requests a wave has."""
        table = schema.requests
        query = select(func.count()).where(table.c.round == wave.round, table.c.wave == wave.number)
        return int(connection.execute(query.where(table.c.step == "instructions")).scalar_one())

    @staticmethod
    def finished_requests(connection: Connection, owner: int) -> int:
        """How many instruction requests the finished waves of a round had."""
        table, waves = schema.requests, schema.waves
        place = (waves.c.round == table.c.round) & (waves.c.number == table.c.wave)
        query = select(func.count()).select_from(table.join(waves, place))
        query = query.where(waves.c.owner == owner, waves.c.state == "finished", table.c.step == "instructions")
        return int(connection.execute(query).scalar_one())

    @staticmethod
    def draft_yield(connection: Connection, owner: int) -> float | None:
        """The share of the closed drafts of a round's waves that became tasks; None while none is closed."""
        table, waves = schema.drafts, schema.waves
        place = (waves.c.round == table.c.round) & (waves.c.number == table.c.wave)
        query = select(func.count(table.c.task_id), func.count()).select_from(table.join(waves, place))
        admitted, closed = connection.execute(query.where(waves.c.owner == owner, table.c.state != "open")).one()
        return admitted / closed if closed else None

    @staticmethod
    def last_wave(connection: Connection, round: int) -> int:
        """The number of the newest wave that a round planned; 0 where there is none."""
        query = select(func.coalesce(func.max(schema.waves.c.number), 0)).where(schema.waves.c.round == round)
        return int(connection.execute(query).scalar_one())

    @staticmethod
    def add_wave(connection: Connection, round: int, number: int) -> Wave:
        connection.execute(insert(schema.waves).values(round=round, number=number, owner=round, state="planned"))
        return Wave(round, number, round, "planned")

    @staticmethod
    def set_wave_state(connection: Connection, wave: Wave, state: str) -> None:
        table = schema.waves
        place = (table.c.round == wave.round) & (table.c.number == wave.number)
        connection.execute(update(table).where(place).values(state=state))

    @staticmethod
    def add_drafts(connection: Connection, drafts: Sequence[Draft]) -> None:
        if drafts:
            connection.execute(
                insert(schema.drafts), [{**draft.__dict__, "requests": [], "state": "open"} for draft in drafts]
            )

    @staticmethod
    def open_drafts(connection: Connection, wave: Wave | None = None) -> list[Draft]:
        """Drafts that still wait, in request order; those of one wave where asked."""
        table = schema.drafts
        query = select(table).where(table.c.state == "open").order_by(table.c.round, table.c.wave, table.c.position)
        if wave is not None:
            query = query.where(table.c.round == wave.round, table.c.wave == wave.number)
        return [_draft(row) for row in connection.execute(query)]

    @staticmethod
    def wave_instructions(connection: Connection, wave: Wave) -> list[str]:
        """The instructions of all drafts of a wave, in request order, whatever became of them."""
        table = schema.drafts
        query = select(table.c.instruction).where(table.c.round == wave.round, table.c.wave == wave.number)
        return list(connection.execute(query.order_by(table.c.position)).scalars())

    @staticmethod
    def open_instructions(connection: Connection) -> dict[str, str]:
        """The instructions of all open drafts, in request order, by the drafts' keys."""
        table = schema.drafts
        query = select(table.c.round, table.c.wave, table.c.position, table.c.instruction)
        query = query.where(table.c.state == "open").order_by(table.c.round, table.c.wave, table.c.position)
        return {draft_key(*place): instruction for *place, instruction in connection.execute(query)}

    @staticmethod
    def count_open_drafts(connection: Connection, waves: Sequence[Wave]) -> int:
        table = schema.drafts
        query = select(func.count()).where(table.c.state == "open")
        return sum(
            int(connection.execute(query.where(table.c.round == w.round, table.c.wave == w.number)).scalar_one())
            for w in waves
        )

    @staticmethod
    def close_drafts(connection: Connection, drafts: Sequence[Draft]) -> None:
        """Each became the task that it names, or a discard; its `requests` are the steps that decided it."""
        if not drafts:
            return
        table = schema.drafts
        closing = (
            update(table)
            .where(table.c.round == bindparam("r"), table.c.wave == bindparam("w"), table.c.position == bindparam("p"))
            .values(state=bindparam("s"), requests=bindparam("keys"), task_id=bindparam("task"))
        )
        connection.execute(
            closing,
            [
                {
                    "r": draft.round,
                    "w": draft.wave,
                    "p": draft.position,
                    "s": "admitted" if draft.task_id else "discarded",
                    "keys": list(draft.requests),
                    "task": draft.task_id,
                }
                for draft in drafts
            ],
        )

    @staticmethod
    def add_discards(connection: Connection, wave: Wave, discards: Iterable[Discard]) -> None:
        rows = [{**discard.__dict__, "round": wave.owner, "wave": wave.number} for discard in discards]
        if rows:
            connection.execute(insert(schema.discards), rows)


def _round(row: Row[Any]) -> Round:
    return Round(row.number, row.method, row.target, row.fingerprint, row.state)


def _draft(row: Row[Any]) -> Draft:
    place = (row.round, row.wave, row.position)
    return Draft(*place, row.instruction, row.request, row.judged_in, tuple(row.requests), row.task_id)
