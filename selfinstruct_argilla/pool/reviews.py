"""What was pushed to Argilla and what people answered, as last seen; the responses themselves live in Argilla."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from sys import intern
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)

from ..tasks import Status, Verdict, external_id
from . import schema
from .engine import in_parts, now, reading


@dataclass(frozen=True)
class ReviewDataset:
    """An Argilla dataset that this pool pushes to. `rubric` is its questions and rules, `structure` what of them
    Argilla cannot change; `generation` grows with every sync that changed something."""

    id: str
    name: str
    workspace: str
    api_url: str
    url: str
    rubric: dict[str, Any]
    rubric_version: str
    structure: str
    generation: int = 0


@dataclass(frozen=True)
class ReviewRecord:
    """One (task, instance) in Argilla. `digest` names the responses last seen (empty: none), `applied` what the
    verdict rests on (empty: nothing yet).

    several: it wants `min_submitted` people, else one is enough. assigned: who is to judge it (nobody named: anybody).
    suggested: what the judge model thinks, question → {value, score}. gold: known answers by question; such a
    calibration record is no task and has no verdict.
    """

    task_id: str
    instance: int
    dataset_id: str
    server_id: str
    content_hash: str
    rubric_version: str
    resolution: Verdict | None = Verdict.PENDING  # as its metadata in Argilla say; None: being changed
    state: str = "present"
    verdict: Verdict = Verdict.PENDING
    digest: str = ""
    applied: str = ""
    several: bool = True
    assigned: tuple[str, ...] = ()
    suggested: dict[str, Any] | None = None
    gold: dict[str, Any] | None = None


@dataclass(frozen=True)
class Response:
    """What one person answered to one record, as last seen. `values` are the answers by question name;
    `updated_at` is by Argilla's clock, `seen_at` by ours; status: submitted, draft, discarded or deleted."""

    task_id: str
    instance: int
    user_id: str
    username: str | None
    status: str
    values: dict[str, Any]
    updated_at: str | None
    rubric_version: str
    seen_at: str = ""
    current: bool = True


class Seen(NamedTuple):
    """What a sync compares: a record's id on the server, whether it is there, the digest of its responses."""

    server_id: str
    state: str
    digest: str


class Answered(NamedTuple):
    """A record in Argilla that somebody has answered, and what each one (by name) submitted, by question."""

    task_id: str
    instance: int
    verdict: Verdict
    suggested: dict[str, Any] | None
    gold: dict[str, Any] | None
    answers: dict[str, dict[str, Any]]


class Load(NamedTuple):
    """What a review dataset holds, without calibration records. tasks, records: that were ever pushed; several: those
    records that want `min_submitted` people; waiting: records in Argilla without a verdict; assigned: how many
    records in Argilla each person is to judge."""

    tasks: int
    records: int
    several: int
    waiting: int
    assigned: Counter[str]


class Reviews:
    """Reading; the writing functions take the connection of a transaction that push or sync holds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def datasets(self) -> list[ReviewDataset]:
        """The Argilla datasets of this pool, oldest first."""
        query = select(schema.review_datasets).order_by(schema.review_datasets.c.opened_at)
        with reading(self._engine) as connection:
            return [_dataset(row) for row in connection.execute(query)]

    def records(self, dataset_id: str | None = None, *, gold: bool | None = False) -> list[ReviewRecord]:
        """Review records by task and instance; those of one dataset where asked. gold: calibration records instead
        (None: both)."""
        table = schema.review_records
        query = select(table).order_by(table.c.task_id, table.c.instance)
        if gold is not None:
            query = query.where(table.c.gold.is_not(None) if gold else table.c.gold.is_(None))
        if dataset_id is not None:
            query = query.where(table.c.dataset_id == dataset_id)
        with reading(self._engine) as connection:
            return [_record(row) for row in connection.execute(query)]

    def count(self, dataset_id: str, *, gold: bool = False) -> int:
        """Review records (gold: calibration records) that are in Argilla."""
        table = schema.review_records
        query = select(func.count()).where(table.c.dataset_id == dataset_id, table.c.state == "present")
        with reading(self._engine) as connection:
            counted = query.where(table.c.gold.is_not(None) if gold else table.c.gold.is_(None))
            return int(connection.execute(counted).scalar_one())

    def load(self, dataset_id: str) -> Load:
        table = schema.review_records
        present = table.c.state == "present"
        names = cast(table.c.assigned, Text)
        query = select(
            func.count(table.c.task_id.distinct()),
            func.count(),
            func.count().filter(table.c.several),
            func.count().filter(present, table.c.verdict == Verdict.PENDING.value),
        )
        here = (table.c.dataset_id == dataset_id, table.c.gold.is_(None))
        assigned: Counter[str] = Counter()
        with reading(self._engine) as connection:
            counts = connection.execute(query.where(*here)).one()
            for people, records in connection.execute(
                select(names, func.count()).where(*here, present).group_by(names)
            ):
                assigned.update(dict.fromkeys(json.loads(people), records))
        return Load(*counts, assigned)

    def untouched(self, dataset_id: str) -> list[ReviewRecord]:
        """Records in Argilla that nobody has begun, not even with a draft."""
        table, responses = schema.review_records, schema.responses
        begun = select(responses.c.id).where(
            responses.c.task_id == table.c.task_id,
            responses.c.instance == table.c.instance,
            responses.c.current,
            responses.c.status != "deleted",
        )
        return self._present(dataset_id, ~begun.exists())

    def waiting_tasks(self, dataset_ids: Sequence[str]) -> dict[str, list[int]]:
        """Tasks that people are still to decide about, by id, with their instances that were in one of the datasets to
        its end."""
        table, tasks = schema.review_records, schema.tasks
        query = select(table.c.task_id, table.c.instance).join(tasks, tasks.c.id == table.c.task_id)
        query = query.where(
            table.c.dataset_id.in_(dataset_ids),
            table.c.gold.is_(None),
            table.c.state == "present",
            tasks.c.status.in_([Status.IN_REVIEW.value, Status.CONFLICT.value]),
        )
        found: dict[str, list[int]] = {}
        with reading(self._engine) as connection:
            for task_id, instance in connection.execute(query.order_by(table.c.instance)):
                found.setdefault(task_id, []).append(instance)
        return dict(sorted(found.items()))

    def conflicts(self, dataset_id: str) -> list[ReviewRecord]:
        """Records in Argilla that people disagree about."""
        return self._present(dataset_id, schema.review_records.c.verdict == Verdict.CONFLICT.value)

    def outdated(self, dataset_id: str) -> list[ReviewRecord]:
        """Records in Argilla whose metadata `resolution` is not their verdict."""
        return self._present(dataset_id, schema.review_records.c.resolution != schema.review_records.c.verdict)

    def _present(self, dataset_id: str, condition: ColumnElement[bool]) -> list[ReviewRecord]:
        table = schema.review_records
        query = select(table).order_by(table.c.task_id, table.c.instance).where(condition)
        query = query.where(table.c.dataset_id == dataset_id, table.c.gold.is_(None), table.c.state == "present")
        with reading(self._engine) as connection:
            return [_record(row) for row in connection.execute(query)]

    def seen(self, dataset_id: str) -> dict[str, Seen]:
        """What was last seen of each record of a dataset, calibration records too, by external id."""
        table = schema.review_records
        query = select(table.c.task_id, table.c.instance, table.c.server_id, table.c.state, table.c.digest)
        with reading(self._engine) as connection:
            rows = connection.execute(query.where(table.c.dataset_id == dataset_id))
            return {
                external_id(task_id, instance): Seen(server_id, intern(state), digest)  # there are two states
                for task_id, instance, server_id, state, digest in rows
            }

    def unapplied(self, dataset_id: str, rules: str) -> list[str]:
        """Tasks with a record whose verdict does not rest on the responses last seen and on these rules. That nobody
        has answered yet rests on nothing."""
        table = schema.review_records
        query = select(table.c.task_id).distinct().order_by(table.c.task_id)
        query = query.where(table.c.dataset_id == dataset_id, table.c.gold.is_(None))
        with reading(self._engine) as connection:
            query = query.where(table.c.applied != f"{rules}:" + table.c.digest, table.c.applied + table.c.digest != "")
            return list(connection.execute(query).scalars())

    def responses(self, *, current: bool = True) -> list[Response]:
        """Responses as last seen, or with `current=False` every state of each that was ever seen, oldest first."""
        table = schema.responses
        query = select(table).order_by(table.c.id)
        if current:
            query = query.where(table.c.current)
        with reading(self._engine) as connection:
            return [_response(row) for row in connection.execute(query)]

    def answered(self, dataset_id: str, *, gold: bool = False) -> Iterator[Answered]:
        """The answered records of a dataset by task and instance (gold: calibration records); some at a time are in
        memory."""
        table, responses = schema.review_records, schema.responses
        query = (
            select(
                table.c.task_id,
                table.c.instance,
                table.c.verdict,
                table.c.suggested,
                table.c.gold,
                func.coalesce(responses.c.username, responses.c.user_id).label("name"),
                responses.c["values"].label("answer"),
            )
            .join(
                responses,
                and_(
                    responses.c.task_id == table.c.task_id,
                    responses.c.instance == table.c.instance,
                    responses.c.current,
                    responses.c.status == "submitted",
                ),
            )
            .where(
                table.c.dataset_id == dataset_id,
                table.c.state == "present",
                table.c.gold.is_not(None) if gold else table.c.gold.is_(None),
            )
            .order_by(table.c.task_id, table.c.instance, responses.c.id)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.execution_options(yield_per=1000))
            for (task_id, instance), group in groupby(rows, key=lambda row: (row.task_id, row.instance)):
                several = list(group)
                first = several[0]
                answers = {row.name: row.answer for row in several}
                yield Answered(task_id, instance, Verdict(first.verdict), first.suggested, first.gold, answers)

    def renamed(self, names: Mapping[str, str]) -> dict[str, str]:
        """Of these names by user id, those under which somebody's answers are not known yet."""
        table = schema.responses
        known = select(table.c.user_id, table.c.username).where(table.c.current).distinct()
        with reading(self._engine) as connection:
            rows = connection.execute(known).all()
        return {user_id: names[user_id] for user_id, name in rows if names.get(user_id, name) != name}

    def summary(self) -> dict[str, Any]:
        """The newest review dataset's name and address, and how many review records it has, are judged, conflict."""
        datasets = self.datasets()
        if not datasets:
            return {"dataset": None, "url": None, "pushed": 0, "pending": 0, "completed": 0, "conflicts": 0}
        newest = datasets[-1]
        table = schema.review_records
        query = (
            select(table.c.verdict, func.count())
            .where(table.c.dataset_id == newest.id, table.c.state == "present", table.c.gold.is_(None))
            .group_by(table.c.verdict)
        )
        with reading(self._engine) as connection:
            counts = {Verdict(verdict): count for verdict, count in connection.execute(query)}
        pushed, pending = sum(counts.values()), counts.get(Verdict.PENDING, 0)
        return {
            "dataset": newest.name,
            "url": newest.url,
            "pushed": pushed,
            "pending": pending,
            "completed": pushed - pending,
            "conflicts": counts.get(Verdict.CONFLICT, 0),
        }

    def dataset_generation(self, dataset_id: str) -> int:
        with reading(self._engine) as connection:
            return self.generation(connection, dataset_id)

    def task_counts(self) -> dict[Status, int]:
        """Tasks that have review records, by status; every status is a key."""
        reviewed = select(schema.review_records.c.task_id)
        query = (
            select(schema.tasks.c.status, func.count())
            .where(schema.tasks.c.id.in_(reviewed))
            .group_by(schema.tasks.c.status)
        )
        with reading(self._engine) as connection:
            found = {Status(status): count for status, count in connection.execute(query)}
        return {status: found.get(status, 0) for status in Status}

    def edited_tasks(self) -> int:
        """How many tasks people have changed."""
        query = select(func.count()).select_from(schema.tasks).where(schema.tasks.c.original.is_not(None))
        with reading(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    def discarded_records(self) -> int:
        """Records of which all present responses are discards: they wait for somebody else."""
        table, records = schema.responses, schema.review_records
        gold = select(records.c.task_id).where(records.c.gold.is_not(None))
        per_record = (
            select(
                func.count().label("there"),
                func.sum(case((table.c.status == "discarded", 1), else_=0)).label("discards"),
            )
            .where(table.c.current, table.c.status != "deleted", table.c.task_id.not_in(gold))
            .group_by(table.c.task_id, table.c.instance)
            .subquery()
        )
        query = select(func.count()).select_from(per_record).where(per_record.c.there == per_record.c.discards)
        with reading(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    # inside a transaction ------------------------------------------------------------------------

    @staticmethod
    def save_dataset(connection: Connection, dataset: ReviewDataset) -> None:
        """A new dataset, or one whose name, address or rubric changed."""
        table = schema.review_datasets
        values = {name: getattr(dataset, name) for name in dataset.__dataclass_fields__ if name != "generation"}
        if connection.execute(update(table).where(table.c.id == dataset.id).values(**values)).rowcount == 0:
            connection.execute(insert(table).values(**values, generation=0, opened_at=now()))

    @staticmethod
    def generation(connection: Connection, dataset_id: str) -> int:
        table = schema.review_datasets
        return int(connection.execute(select(table.c.generation).where(table.c.id == dataset_id)).scalar_one())

    @staticmethod
    def next_generation(connection: Connection, dataset_id: str) -> None:
        table = schema.review_datasets
        connection.execute(update(table).where(table.c.id == dataset_id).values(generation=table.c.generation + 1))

    @staticmethod
    def save_records(connection: Connection, records: Sequence[ReviewRecord]) -> None:
        """Records as they now are; new ones and known ones."""
        table = schema.review_records
        if not records:
            return
        rows = [
            {
                **{name: getattr(record, name) for name in record.__dataclass_fields__},
                "resolution": record.resolution.value if record.resolution else "",
                "verdict": record.verdict.value,
                "assigned": list(record.assigned),
            }
            for record in records
        ]
        key = and_(table.c.task_id == bindparam("key_task"), table.c.instance == bindparam("key_instance"))
        keys = [{"key_task": record.task_id, "key_instance": record.instance} for record in records]
        connection.execute(delete(table).where(key), keys)
        connection.execute(insert(table), rows)

    @staticmethod
    def records_of(connection: Connection, task_ids: Iterable[str]) -> dict[str, list[ReviewRecord]]:
        """Review records by task, in order of their instances."""
        found: dict[str, list[ReviewRecord]] = {}
        table = schema.review_records
        for some in in_parts(task_ids):
            query = select(table).where(table.c.task_id.in_(some)).order_by(table.c.task_id, table.c.instance)
            for row in connection.execute(query):
                found.setdefault(row.task_id, []).append(_record(row))
        return found

    @staticmethod
    def current_responses(
        connection: Connection, task_ids: Iterable[str]
    ) -> dict[tuple[str, int], dict[str, Response]]:
        """Responses as last seen, by record and user id; deleted ones too, with that status."""
        found: dict[tuple[str, int], dict[str, Response]] = {}
        table = schema.responses
        for some in in_parts(task_ids):
            query = select(table).where(table.c.task_id.in_(some), table.c.current).order_by(table.c.id)
            for row in connection.execute(query):
                found.setdefault((row.task_id, row.instance), {})[row.user_id] = _response(row)
        return found

    @staticmethod
    def add_responses(connection: Connection, responses: Sequence[Response]) -> None:
        """New states of responses; the earlier ones of the same person and record stay, no longer current."""
        table = schema.responses
        if not responses:
            return
        earlier = and_(
            table.c.task_id == bindparam("key_task"),
            table.c.instance == bindparam("key_instance"),
            table.c.user_id == bindparam("key_user"),
            table.c.current,
        )
        keys = [{"key_task": r.task_id, "key_instance": r.instance, "key_user": r.user_id} for r in responses]
        connection.execute(update(table).where(earlier).values(current=False), keys)
        at = now()
        connection.execute(insert(table), [{**response.__dict__, "seen_at": at} for response in responses])

    @staticmethod
    def forget_responses(connection: Connection, records: Sequence[tuple[str, int]]) -> None:
        """What was said of these records was said in a dataset that is gone: it stays as history."""
        table = schema.responses
        if records:
            key = and_(table.c.task_id == bindparam("key_task"), table.c.instance == bindparam("key_instance"))
            keys = [{"key_task": task_id, "key_instance": instance} for task_id, instance in records]
            connection.execute(update(table).where(key, table.c.current).values(current=False), keys)

    @staticmethod
    def rename(connection: Connection, dataset_id: str, names: Mapping[str, str]) -> None:
        """Annotators are called otherwise now (names by user id): what they answered is to be worked out again."""
        table, records = schema.responses, schema.review_records
        for user_id, name in names.items():
            theirs = and_(table.c.user_id == user_id, table.c.current)
            connection.execute(update(table).where(theirs).values(username=name))
            answered = records.c.task_id.in_(select(table.c.task_id).where(theirs))
            connection.execute(
                update(records).where(records.c.dataset_id == dataset_id, answered).values(applied="renamed")
            )
        Reviews.next_generation(connection, dataset_id)

    @staticmethod
    def set_resolutions(connection: Connection, resolutions: Mapping[tuple[str, int], Verdict | None]) -> None:
        """What the metadata `resolution` of records in Argilla now says; None before it is changed."""
        table = schema.review_records
        if resolutions:
            key = and_(table.c.task_id == bindparam("key_task"), table.c.instance == bindparam("key_instance"))
            connection.execute(
                update(table).where(key).values(resolution=bindparam("new")),
                [{"key_task": t, "key_instance": i, "new": v.value if v else ""} for (t, i), v in resolutions.items()],
            )

    @staticmethod
    def set_assigned(connection: Connection, assigned: Mapping[tuple[str, int], Sequence[str]]) -> None:
        """Who is to judge records, as their metadata in Argilla now say."""
        table = schema.review_records
        for (task_id, instance), names in assigned.items():
            connection.execute(
                update(table)
                .where(table.c.task_id == task_id, table.c.instance == instance)
                .values(assigned=list(names))
            )


def _dataset(row: Row[Any]) -> ReviewDataset:
    return ReviewDataset(**{name: getattr(row, name) for name in ReviewDataset.__dataclass_fields__})


def _record(row: Row[Any]) -> ReviewRecord:
    values = {name: getattr(row, name) for name in ReviewRecord.__dataclass_fields__}
    values.update(
        resolution=Verdict(row.resolution) if row.resolution else None,
        verdict=Verdict(row.verdict),
        assigned=tuple(row.assigned),
    )
    return ReviewRecord(**values)


def _response(row: Row[Any]) -> Response:
    return Response(**{name: getattr(row, name) for name in Response.__dataclass_fields__})
