"""The task pool: every task, what became of it, and the only way to change either.

`TaskPool` holds the tasks; its parts hold the rest: `journal` (what models were asked and answered), `rounds`
(bootstrap in progress, and discards), `reviews` (what was pushed, what people answered), `releases`.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Text, bindparam, cast, delete, func, insert, select, update

from ..errors import PoolError, TaskConflictError
from ..tasks import Instance, Origin, Provenance, Status, Task, Verdict
from . import schema
from .engine import in_parts, now, open_engine, reading, writing
from .journal import PoolJournal
from .moves import check_move
from .releases import Releases
from .reviews import Reviews
from .rounds import Rounds

PULLED = "pulled"  # the event that brings in a task of a published release


@dataclass(frozen=True)
class Event:
    """One entry of a task's history. `before` and `after` are statuses where the event is a move."""

    task_id: str
    at: str
    kind: str
    before: Status | None
    after: Status | None
    detail: dict[str, Any]


class Outline(NamedTuple):
    """A task without its texts; `instances`: how many there are, `distilled`: whether it is another task's outputs
    written again, the rest as in `Task`."""

    id: str
    status: Status
    origin: Origin
    instances: int
    max_rouge_l: float | None
    votes: tuple[int, int]
    distilled: bool


@dataclass(frozen=True)
class ImportResult:
    added: int
    unchanged: int


class TaskPool:
    """The pool at a database address; use it as a context manager.

    Several processes may have the same pool open. Reads see one consistent state; every change is one short
    transaction that holds the pool's write lock.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.engine = open_engine(url, create=create)
        self.journal = PoolJournal(self.engine)
        self.rounds = Rounds(self.engine)
        self.reviews = Reviews(self.engine)
        self.releases = Releases(self.engine)

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> TaskPool:
        """Opens a pool (`sqlite:///FILE` or `postgresql+psycopg://…`), made or migrated where needed.

        Raises PoolError; with `create=False` also where a SQLite file does not exist.
        """
        return cls(url, create=create)

    def __enter__(self) -> TaskPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.journal.close()
        self.engine.dispose()

    # reading -----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """A random name for this pool, made with it: a review dataset remembers whose it is."""
        return self._meta("pool_id")

    def pseudonym(self, user_id: str) -> str:
        """A name for an annotator that only this pool, with a secret of its own, can tell from others."""
        return "annotator_" + hmac.new(self._meta("salt").encode(), user_id.encode(), "sha256").hexdigest()[:12]

    def _meta(self, key: str) -> str:
        with reading(self.engine) as connection:
            return str(connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar_one())

    def recall(self, name: str) -> Any:
        """What `remember` was given; None where it was never called."""
        with reading(self.engine) as connection:
            query = select(schema.meta.c.value).where(schema.meta.c.key == f"kept {name}")
            kept = connection.execute(query).scalar_one_or_none()
        return json.loads(kept) if kept is not None else None

    def remember(self, name: str, value: Any) -> None:
        """Keeps a JSON value that took long to work out."""
        table, row = schema.meta, {"key": f"kept {name}", "value": json.dumps(value)}
        with writing(self.engine) as connection:
            connection.execute(delete(table).where(table.c.key == row["key"]))
            connection.execute(insert(table).values(row))

    @property
    def revision(self) -> int:
        """Grows with every change of any task."""
        with reading(self.engine) as connection:
            return _revision(connection)

    def tasks(
        self, status: Status | str | Iterable[Status | str] | None = None, *, ids: Sequence[str] | None = None
    ) -> list[Task]:
        """Tasks sorted by id; those of the given status or statuses, or of the given ids, where asked."""
        with reading(self.engine) as connection:
            return load_tasks(connection, status=_statuses(status), ids=ids)

    def task(self, task_id: str) -> Task | None:
        found = self.tasks(ids=[task_id])
        return found[0] if found else None

    def outlines(self, status: Status) -> list[Outline]:
        """Tasks of a status, sorted by id, without their texts."""
        with reading(self.engine) as connection:
            return load_outlines(connection, [status])

    def shown(self, ids: Sequence[str]) -> dict[str, Task]:
        """Tasks by id, with the texts that people are or were shown: those from before any edit."""
        with reading(self.engine) as connection:
            tasks = {task.id: task for task in load_tasks(connection, ids=ids)}
            return {**tasks, **load_originals(connection, ids)}

    def originals(self) -> dict[str, Task]:
        """Edited tasks as they were before people edited them, by id."""
        with reading(self.engine) as connection:
            return load_originals(connection)

    def pulled_ids(self) -> set[str]:
        """Tasks that came with a published release; the journal of another pool tells where they are from."""
        with reading(self.engine) as connection:
            query = select(schema.events.c.task_id).where(schema.events.c.kind == PULLED)
            return set(connection.execute(query).scalars())

    def counts(self) -> dict[str, int]:
        """Tasks by status; every status is a key."""
        with reading(self.engine) as connection:
            rows = connection.execute(select(schema.tasks.c.status, func.count()).group_by(schema.tasks.c.status))
            found: dict[str, int] = {row[0]: row[1] for row in rows}
        return {status.value: found.get(status.value, 0) for status in Status}

    def generated_counts(self) -> tuple[int, int]:
        """How many tasks models wrote, and how many of them people accepted."""
        table = schema.tasks
        query = select(func.count()).where(table.c.origin == Origin.GENERATED.value)
        with reading(self.engine) as connection:
            accepted = query.where(table.c.status == Status.ACCEPTED.value)
            return int(connection.execute(query).scalar_one()), int(connection.execute(accepted).scalar_one())

    def written(self, prefix: str, round: int | None = None) -> int:
        """Tasks that models wrote, by the prefix of their ids; of one round where asked. Whatever people did to them,
        they count."""
        with reading(self.engine) as connection:
            return count_written(connection, prefix, round)

    def generated_by(self) -> dict[tuple[int, str | None], tuple[int, int]]:
        """How many tasks models wrote, and how many of them people accepted, by round and model."""
        table = schema.tasks
        accepted = func.count().filter(table.c.status == Status.ACCEPTED.value)
        query = select(table.c.round, table.c.model, func.count(), accepted).group_by(table.c.round, table.c.model)
        with reading(self.engine) as connection:
            rows = connection.execute(query.where(table.c.origin == Origin.GENERATED.value))
            return {(row[0], row[1]): (row[2], row[3]) for row in rows}

    def history(self, task_id: str) -> list[Event]:
        """Everything that happened to a task, oldest first. PoolError where there is no such task."""
        with reading(self.engine) as connection:
            rows = connection.execute(
                select(schema.events).where(schema.events.c.task_id == task_id).order_by(schema.events.c.id)
            ).all()
        if not rows:
            raise PoolError(f"there is no task {task_id!r} in the pool")
        return [
            Event(
                row.task_id,
                row.at,
                row.kind,
                Status(row.before) if row.before else None,
                Status(row.after) if row.after else None,
                row.detail,
            )
            for row in rows
        ]

    # changing ----------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[PoolWriter]:
        """One transaction under the pool's write lock; everything in it is committed together or not at all."""
        with writing(self.engine) as connection:
            yield PoolWriter(connection)

    def add_seeds(self, tasks: Iterable[Task]) -> ImportResult:
        """Seed tasks in; the same id and content again is a no-op, other content is a TaskConflictError."""
        return self.import_tasks(tasks, Status.SEED)

    def import_tasks(self, tasks: Iterable[Task], status: Status) -> ImportResult:
        """Tasks in as seeds, candidates or accepted, all or none of them; nothing is filtered."""
        with self.write() as writer:
            return writer.import_tasks(tasks, status)


class PoolWriter:
    """The named moves, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def import_tasks(self, tasks: Iterable[Task], status: Status) -> ImportResult:
        tasks = list(tasks)
        known = {task.id: task for task in load_tasks(self.connection, ids=[task.id for task in tasks])}
        fresh = []
        for task in tasks:
            there = known.get(task.id)
            if there is None:
                origin = Origin.SEED if status is Status.SEED else Origin.IMPORTED
                fresh.append(Task(**{**_fields(task), "status": status, "origin": origin}))
            elif task.content_hash != there.content_hash and task.content_hash != self._original(there).content_hash:
                raise TaskConflictError(
                    task.id,
                    f"the pool has a task {task.id!r} with other content",
                    hint="Give the task another id, or leave it out; nothing of this file was taken in.",
                )
        self.add(fresh, kind="imported")
        return ImportResult(added=len(fresh), unchanged=len(tasks) - len(fresh))

    def add(self, tasks: Sequence[Task], *, kind: str) -> None:
        """New tasks, as they are. `kind` is the name of the event that brings them in."""
        if not tasks:
            return
        sequence = self.connection.execute(select(func.coalesce(func.max(schema.tasks.c.sequence), 0))).scalar_one()
        self._insert(tasks, sequence)
        self._record([(task.id, kind, None, task.status, {}) for task in tasks])

    def next_ids(self, prefix: str, count: int) -> list[str]:
        """Ids of new tasks, in order of creation, zero-padded so that they sort by it; none that was ever published."""
        start = 1 + max(self._last_number(column, prefix) for column in (schema.tasks.c.id, schema.splits.c.task_id))
        return [f"{prefix}_{number:08d}" for number in range(start, start + count)]

    def move(self, task_id: str, after: Status, *, kind: str, detail: dict[str, Any] | None = None) -> None:
        """One move, checked against the table of moves; to the same status is no move and is not recorded."""
        before = self._statuses([task_id])[task_id]
        if before is not after:
            self._move([(task_id, before, after, detail or {})], kind=kind)

    def mark_pushed(self, task_ids: Iterable[str]) -> None:
        """candidate → in_review; from now on an instance is published only once people have accepted it."""
        ids, instances = list(dict.fromkeys(task_ids)), schema.instances
        before = self._statuses(ids)
        moving = [id for id in ids if before[id] is not Status.IN_REVIEW]
        self._move([(id, before[id], Status.IN_REVIEW, {}) for id in moving], kind="pushed")
        for some in in_parts(ids):
            self.connection.execute(
                update(instances)
                .where(instances.c.task_id.in_(some), instances.c.verdict.is_(None))
                .values(verdict=Verdict.PENDING.value)
            )

    def apply_reviews(self, tasks: Sequence[Task], *, details: Mapping[str, dict[str, Any]] | None = None) -> int:
        """Status, texts, kind and instance verdicts as people left them; how many tasks changed.

        `details` is what the history is to say beside it, by id. What the model wrote is kept as the original; texts
        that equal it again are no edit any more.
        """
        details = details or {}
        ids = [task.id for task in tasks]
        stored = {task.id: task for task in load_tasks(self.connection, ids=ids)}
        originals = load_originals(self.connection, ids)
        events, texts, votes, parts, moves = [], [], [], [], []
        for task in tasks:
            before, detail = stored[task.id], details.get(task.id, {})
            if _texts(before) != _texts(task):
                original = _texts(originals.get(task.id, before))
                edited = original != _texts(task)
                change = {"before": _texts(before), "after": _texts(task), **detail}
                events.append((task.id, "edited" if edited else "restored", change))
                columns = {"instruction": task.instruction, "is_classification": task.is_classification}
                texts.append({"key": task.id, **columns, "original": original if edited else None})
            elif before.instances != task.instances:
                verdicts = [i.verdict.value if i.verdict else None for i in task.instances]
                events.append((task.id, "instances_judged", {"verdicts": verdicts}))
            if before.instances != task.instances:
                parts += [{**row, "key": task.id, "place": row["position"]} for row in _instance_rows(task)]
            if before.votes != task.votes:
                votes.append({"key": task.id, "ayes": task.votes[0], "noes": task.votes[1]})
            if before.status is not task.status:
                moves.append((task.id, before.status, task.status, detail))
        self._record([(id, kind, None, None, change) for id, kind, change in events])
        self._update(texts)
        self._update(votes)
        if parts:
            instances = schema.instances
            place = (instances.c.task_id == bindparam("key")) & (instances.c.position == bindparam("place"))
            self.connection.execute(update(instances).where(place), parts)
        self._move(moves, kind="reviewed")
        return len({id for id, *_ in events} | {id for id, *_ in moves})

    # inside ------------------------------------------------------------------------------------

    def _last_number(self, column: Any, prefix: str) -> int:
        like = column.like(f"{prefix}\\_%", escape="\\") & (func.length(column) == len(prefix) + 9)
        taken = self.connection.execute(select(column).where(like).order_by(column.desc())).scalars()
        numbers = (int(id[-8:]) for id in taken if re.fullmatch(r"[0-9]{8}", id[-8:]))  # others may have come in
        return next(numbers, 0)

    def _original(self, task: Task) -> Task:
        return load_originals(self.connection, [task.id]).get(task.id, task)

    def _statuses(self, ids: Sequence[str]) -> dict[str, Status]:
        found: dict[str, Status] = {}
        for some in in_parts(ids):
            query = select(schema.tasks.c.id, schema.tasks.c.status).where(schema.tasks.c.id.in_(some))
            found |= {row.id: Status(row.status) for row in self.connection.execute(query)}
        if unknown := [id for id in ids if id not in found]:
            raise PoolError(f"there is no task {unknown[0]!r} in the pool")
        return found

    def _move(self, moves: Sequence[tuple[str, Status, Status, dict[str, Any]]], *, kind: str) -> None:
        """Moves by task: status before and after, and what the history is to say beside it."""
        for id, before, after, _ in moves:
            check_move(id, before, after)
        self._record([(id, kind, before, after, detail) for id, before, after, detail in moves])
        self._update([{"key": id, "status": after.value} for id, _, after, _ in moves])

    def _update(self, rows: Sequence[dict[str, Any]]) -> None:
        """Columns of tasks, the same ones in each row; `key` is the id."""
        if rows:
            self.connection.execute(update(schema.tasks).where(schema.tasks.c.id == bindparam("key")), rows)

    def _record(self, events: Sequence[tuple[str, str, Status | None, Status | None, dict[str, Any]]]) -> None:
        """Entries of tasks' histories: task, kind, status before and after, detail."""
        if not events:
            return
        at = now()
        self.connection.execute(
            insert(schema.events),
            [
                {
                    "task_id": task_id,
                    "at": at,
                    "kind": kind,
                    "before": before.value if before else None,
                    "after": after.value if after else None,
                    "detail": detail,
                }
                for task_id, kind, before, after, detail in events
            ],
        )

    def _insert(self, tasks: Sequence[Task], sequence: int) -> None:
        self.connection.execute(
            insert(schema.tasks),
            [
                {
                    "id": task.id,
                    "sequence": sequence + number,
                    "name": task.name,
                    "instruction": task.instruction,
                    "is_classification": task.is_classification,
                    "status": task.status.value,
                    "origin": task.origin.value,
                    "round": task.round,
                    "model": task.provenance.model,
                    "request": task.provenance.request,
                    "demonstrations": list(task.provenance.demonstrations),
                    "max_rouge_l": task.max_rouge_l,
                    "nearest": task.nearest,
                    "extra": dict(task.extra),
                    "ayes": task.votes[0],
                    "noes": task.votes[1],
                }
                for number, task in enumerate(tasks, 1)
            ],
        )
        self.connection.execute(
            insert(schema.instances),
            [{"task_id": task.id, **row} for task in tasks for row in _instance_rows(task)],
        )


# rows and values -------------------------------------------------------------------------------


def load_tasks(
    connection: Connection,
    *,
    status: list[str] | None = None,
    ids: Sequence[str] | None = None,
    after_sequence: int | None = None,
) -> list[Task]:
    """Tasks sorted by id, with two queries (more where many ids are named)."""
    table, instances = schema.tasks, schema.instances
    query = select(table)
    inner = select(instances)
    if status is not None:
        query = query.where(table.c.status.in_(status))
        inner = inner.where(instances.c.task_id.in_(select(table.c.id).where(table.c.status.in_(status))))
    if after_sequence is not None:
        query = query.where(table.c.sequence > after_sequence)
        inner = inner.where(instances.c.task_id.in_(select(table.c.id).where(table.c.sequence > after_sequence)))
    if ids is None:
        rows = list(connection.execute(query))
        parts = list(connection.execute(inner.order_by(instances.c.task_id, instances.c.position)))
    else:
        rows, parts = [], []
        for some in in_parts(ids):
            rows += connection.execute(query.where(table.c.id.in_(some)))
            parts += connection.execute(
                inner.where(instances.c.task_id.in_(some)).order_by(instances.c.task_id, instances.c.position)
            )
    by_task: dict[str, list[Instance]] = {}
    for part in parts:
        verdict = Verdict(part.verdict) if part.verdict else None
        by_task.setdefault(part.task_id, []).append(Instance(part.input, part.output, verdict))
    return sorted((_task(row, by_task.get(row.id, [])) for row in rows), key=lambda task: task.id)


def load_outlines(connection: Connection, statuses: Sequence[Status]) -> list[Outline]:
    """Tasks of these statuses, sorted by id, without their texts."""
    table, instances = schema.tasks, schema.instances
    query = select(
        table.c.id,
        table.c.status,
        table.c.origin,
        select(func.count()).where(instances.c.task_id == table.c.id).scalar_subquery(),
        table.c.max_rouge_l,
        table.c.ayes,
        table.c.noes,
        cast(table.c.extra, Text),  # as it stands: PostgreSQL cannot look into JSON with a NUL
    ).where(table.c.status.in_([status.value for status in statuses]))
    return sorted(
        Outline(id, Status(status), Origin(origin), count, score, (ayes, noes), _is_distilled(json.loads(extra)))
        for id, status, origin, count, score, ayes, noes, extra in connection.execute(query)
    )


def _is_distilled(extra: Mapping[str, Any]) -> bool:
    return isinstance(extra.get("distilled_from"), str)


def count_written(connection: Connection, prefix: str, round: int | None = None) -> int:
    """`TaskPool.written`, as of a transaction."""
    table = schema.tasks
    query = select(func.count()).where(table.c.origin == Origin.GENERATED.value)
    query = query.where(table.c.id.startswith(f"{prefix}_", autoescape=True))
    return int(connection.execute(query if round is None else query.where(table.c.round == round)).scalar_one())


def load_originals(connection: Connection, ids: Sequence[str] | None = None) -> dict[str, Task]:
    """Edited tasks as they were before the edit, by id; those among `ids` where asked."""
    query = select(schema.tasks.c.id, schema.tasks.c.original).where(schema.tasks.c.original.is_not(None))
    queries = [query] if ids is None else [query.where(schema.tasks.c.id.in_(some)) for some in in_parts(ids)]
    edited = {row.id: row.original for query in queries for row in connection.execute(query)}
    return {task.id: with_texts(task, edited[task.id]) for task in load_tasks(connection, ids=list(edited))}


def with_texts(task: Task, texts: dict[str, Any]) -> Task:
    """The task with other texts, in the form that the pool stores originals in."""
    instances = tuple(
        Instance(input, output, instance.verdict)
        for (input, output), instance in zip(texts["instances"], task.instances, strict=True)
    )
    kept = {name: texts[name] for name in ("instruction", "is_classification")}
    return Task(**{**_fields(task), **kept, "instances": instances})


def _instance_rows(task: Task) -> Iterator[dict[str, Any]]:
    for position, instance in enumerate(task.instances):
        verdict = instance.verdict.value if instance.verdict else None
        yield {"position": position, "input": instance.input, "output": instance.output, "verdict": verdict}


def _texts(task: Task) -> dict[str, Any]:
    return {
        "instruction": task.instruction,
        "instances": [[i.input, i.output] for i in task.instances],
        "is_classification": task.is_classification,
    }


def _fields(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in task.__dataclass_fields__}


def _task(row: Row[Any], instances: list[Instance]) -> Task:
    return Task(
        id=row.id,
        name=row.name,
        instruction=row.instruction,
        instances=tuple(instances),
        is_classification=row.is_classification,
        status=Status(row.status),
        origin=Origin(row.origin),
        round=row.round,
        provenance=Provenance(row.model, row.request, tuple(row.demonstrations)),
        max_rouge_l=row.max_rouge_l,
        nearest=row.nearest,
        votes=(row.ayes, row.noes),
        extra=row.extra,
    )


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(schema.events.c.id), 0))).scalar_one())


def _statuses(status: Status | str | Iterable[Status | str] | None) -> list[str] | None:
    if status is None:
        return None
    if isinstance(status, str):
        return [Status(status).value]
    return [Status(item).value for item in status]
