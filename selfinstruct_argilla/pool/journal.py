"""The journal: what each model was asked, and every reply, refusal and failure, committed before anyone parses it.

Asynchronous code hands its rows to one writer thread, which commits whatever has gathered as one transaction; a
caller goes on once its own row is committed. Long few-shot preambles are stored once, by their hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import sleep
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from ..llm.base import CallRecord, Place, Prompt, Reply, Request
from . import schema
from .engine import in_parts, now, reading, writing


@dataclass(frozen=True)
class Spend:
    """What was bought: requests that were answered, their tokens, and US dollars at the price then in force;
    `lost_usd` is what replies that were lost on their way may have cost at most."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    lost_usd: float = 0.0


_GATHER, _MANY = 0.03, 16  # seconds that a commit waits for more rows, while so many requests are on their way


class PoolJournal:
    """The journal of one pool, in the form that `llm/caller.py` asks for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[tuple[Request, CallRecord, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._pause = 0.0
        self._stored: set[str] = set()  # hashes of preambles
        self._wanted: list[tuple[str, asyncio.Future[CallRecord | None]]] = []

    # for the caller ----------------------------------------------------------------------------

    async def settled(self, key: str) -> CallRecord | None:
        """The reply or refusal that answers a request for good, if it has been bought already. Those who ask at the
        same time are answered by one query; it runs here, because a thread would cost more than an index look-up."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[CallRecord | None] = loop.create_future()
        if not self._wanted:
            loop.call_soon(self._look_up)
        self._wanted.append((key, found))
        return await found

    def _look_up(self) -> None:
        wanted, self._wanted = self._wanted, []
        try:
            calls = self.settled_calls({key for key, _ in wanted})
        except Exception as error:  # every one who waits must hear of it
            for _, found in wanted:
                if not found.done():
                    found.set_exception(error)
            return
        for key, found in wanted:
            if not found.done():
                found.set_result(calls.get(key))

    async def record(self, request: Request, call: CallRecord, *, others: int = 0) -> None:
        """Returns once the attempt is committed. A commit costs the same for one row or many: where many other requests
        are on their way, it waits a moment for theirs."""
        self._pause = _GATHER if others >= _MANY else 0.0
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
            self._writer.start()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # a cancelled caller does not take its paid reply with it: the row is in the queue and will be written
        self._queue.put((request, call, done))
        await done

    def close(self) -> None:
        """Waits for rows that are still on their way."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None

    def _write(self) -> None:
        while (first := self._queue.get()) is not None:
            if self._pause:
                sleep(self._pause)
            batch = [first]
            last = False
            while not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    last = True
                    break
                batch.append(item)
            try:
                with writing(self._engine) as connection:
                    self.add_requests(connection, [request for request, _, _ in batch], self._stored)
                    connection.execute(
                        insert(schema.attempts), [attempt_row(request, call) for request, call, _ in batch]
                    )
            except BaseException as error:  # every waiting caller must hear of it
                _tell([done for _, _, done in batch], error)
            else:
                self._stored.update(request.prompt.preamble_hash for request, _, _ in batch)
                _tell([done for _, _, done in batch], None)
            if last:
                return

    # for the rounds ----------------------------------------------------------------------------

    @staticmethod
    def add_requests(connection: Connection, requests: Sequence[Request], stored: Collection[str] = ()) -> None:
        """Requests that are about to be asked; those that are there already are left as they are. `stored` are hashes
        of preambles that are known to be there."""
        insert = _INSERTS[connection.dialect.name]
        prompts = {request.prompt.preamble_hash: request.prompt for request in requests}
        for hash in prompts.keys() & stored:
            del prompts[hash]
        preambles = [
            {"hash": hash, "header": prompt.header, "examples": prompt.examples} for hash, prompt in prompts.items()
        ]
        for table, rows in ((schema.preambles, preambles), (schema.requests, list(map(_request_row, requests)))):
            if rows:
                connection.execute(insert(table).on_conflict_do_nothing(), rows)  # what is there stays

    @staticmethod
    def drawn(connection: Connection, requests: Sequence[Request]) -> list[Request]:
        """The same requests as further purchases: each with the number of times it was planned before, here or ever."""
        table = schema.requests
        times: Counter[str] = Counter()
        for some in in_parts(sorted({request.base_key for request in requests})):
            query = select(table.c.base_key, func.count()).where(table.c.base_key.in_(some))
            times.update({row[0]: row[1] for row in connection.execute(query.group_by(table.c.base_key))})
        drawn = []
        for request in requests:
            drawn.append(replace(request, draw=times[request.base_key]))
            times[request.base_key] += 1
        return drawn

    @staticmethod
    def demonstrations(connection: Connection, keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The pool tasks that requests showed, by request key."""
        table = schema.requests
        found: dict[str, tuple[str, ...]] = {}
        for some in in_parts(sorted(set(keys))):
            query = select(table.c.key, table.c.demonstrations).where(table.c.key.in_(some))
            found.update({row.key: tuple(row.demonstrations) for row in connection.execute(query)})
        return found

    # for readers -------------------------------------------------------------------------------

    def requests(
        self, *, round: int | None = None, wave: int | None = None, step: str | None = None
    ) -> Iterator[Request]:
        """Journaled requests in order of round, wave, step and position; a few hundred at a time are in memory."""
        table = schema.requests
        query = _REQUESTS.order_by(table.c.round, table.c.wave, table.c.step, table.c.position, table.c.draw)
        for column, value in ((table.c.round, round), (table.c.wave, wave), (table.c.step, step)):
            if value is not None:
                query = query.where(column == value)
        with reading(self._engine) as connection:
            for row in connection.execute(query.execution_options(yield_per=500)):
                yield _request(row)

    def request(self, key: str) -> Request | None:
        """One journaled request."""
        with reading(self._engine) as connection:
            row = connection.execute(_REQUESTS.where(schema.requests.c.key == key)).one_or_none()
        return _request(row) if row is not None else None

    def settled_calls(self, keys: Iterable[str]) -> dict[str, CallRecord]:
        """The replies and refusals of many requests, by key; the first of each counts."""
        table = schema.attempts
        found: dict[str, CallRecord] = {}
        with reading(self._engine) as connection:
            for some in in_parts(keys):
                query = select(table).where(table.c.request.in_(some), table.c.outcome != "transient")
                for row in connection.execute(query.order_by(table.c.id)):
                    found.setdefault(row.request, _call(row))
        return found

    def attempts(self, key: str) -> list[CallRecord]:
        """Every attempt at a request, oldest first."""
        query = select(schema.attempts).where(schema.attempts.c.request == key).order_by(schema.attempts.c.id)
        with reading(self._engine) as connection:
            return [_call(row) for row in connection.execute(query)]

    def damage(self) -> Iterator[str]:
        """What in the journal does not match its own digests and keys: a sentence for each row."""
        with reading(self._engine) as connection:
            for row in connection.execute(_REQUESTS.execution_options(yield_per=500)):
                if row.key != _request(row).key:
                    yield f"request {row.key[:12]} was changed after it was written"
            for row in connection.execute(select(schema.attempts).execution_options(yield_per=500)):
                if row.digest != _digest(row._asdict()):
                    yield f"attempt {row.number} at request {row.request[:12]} was changed after it was written"

    def spend(self) -> Spend:
        """Everything bought so far."""
        with reading(self._engine) as connection:
            return Spend(*connection.execute(select(*_SUMS)).one())

    def spend_by(self, *columns: str) -> dict[tuple[Any, ...], Spend]:
        """The same by columns of the requests: step, model, round."""
        table = schema.requests
        keys = [table.c[column] for column in columns]
        query = select(*keys, *_SUMS).select_from(schema.attempts.join(table)).group_by(*keys).order_by(*keys)
        with reading(self._engine) as connection:
            return {tuple(row[: len(keys)]): Spend(*row[len(keys) :]) for row in connection.execute(query)}


def _tell(waiting: Sequence[asyncio.Future[None]], error: BaseException | None) -> None:
    """Wakes those who wait for a commit, from the writer's thread."""

    def wake(some: Sequence[asyncio.Future[None]]) -> None:
        for done in some:
            if not done.done():  # its caller may have left
                done.set_result(None) if error is None else done.set_exception(error)

    for loop in {done.get_loop() for done in waiting}:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake, [done for done in waiting if done.get_loop() is loop])


# rows and values -------------------------------------------------------------------------------

_REQUESTS = select(schema.requests, schema.preambles.c.header, schema.preambles.c.examples).join(
    schema.preambles, schema.preambles.c.hash == schema.requests.c.preamble
)
_SUMS = (
    func.count().filter(schema.attempts.c.outcome == "reply"),
    func.coalesce(func.sum(schema.attempts.c.prompt_tokens), 0),
    func.coalesce(func.sum(schema.attempts.c.completion_tokens), 0),
    func.coalesce(func.sum(schema.attempts.c.usd).filter(schema.attempts.c.outcome == "reply"), 0.0),
    func.coalesce(func.sum(schema.attempts.c.usd).filter(schema.attempts.c.outcome == "transient"), 0.0),
)


# an insert that passes over what is there is no standard SQL
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _request_row(request: Request) -> dict[str, Any]:
    return {
        "key": request.key,
        "base_key": request.base_key,
        "draw": request.draw,
        "step": request.step,
        "method": request.method,
        "model": request.model,
        "api": request.api,
        "preamble": request.prompt.preamble_hash,
        "query": request.prompt.query,
        "parameters": dict(request.parameters),
        "round": request.place.round,
        "wave": request.place.wave,
        "position": request.place.position,
        "demonstrations": list(request.demonstrations),
    }


def _request(row: Row[Any]) -> Request:
    prompt = Prompt(row.header, row.query, tuple((question, answer) for question, answer in row.examples))
    return Request(
        row.step,
        row.method,
        row.model,
        row.api,
        prompt,
        row.parameters,
        row.draw,
        Place(row.round, row.wave, row.position),
        tuple(row.demonstrations),
    )


def attempt_row(request: Request, call: CallRecord) -> dict[str, Any]:
    """A row of the table `attempts`, sealed with its digest."""
    reply = call.reply or Reply("")
    text = call.reply.text if call.reply else None
    values = {
        "request": request.key,
        "number": call.attempt,
        "outcome": call.outcome,
        "text": text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "usd": float(call.usd),
        "latency_seconds": call.latency_seconds,
        "error": call.error,
    }
    return {**values, "at": now(), "digest": _digest(values)}


def _call(row: Row[Any]) -> CallRecord:
    reply = None
    if row.outcome == "reply":
        reply = Reply(row.text, row.finish_reason, row.prompt_tokens, row.completion_tokens)
    return CallRecord(row.request, row.number, row.outcome, reply, row.error, row.latency_seconds, row.usd)


_SEALED = ("request", "outcome", "text", "finish_reason", "prompt_tokens", "completion_tokens", "usd")


def _digest(attempt: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([attempt[name] for name in _SEALED]).encode()).hexdigest()
