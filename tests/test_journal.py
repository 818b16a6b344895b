"""The journal: committed before parsed, committed together, never lost with its caller, and damage is seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from selfinstruct_argilla.errors import PoolError
from selfinstruct_argilla.llm.base import CallRecord, Place, Prompt, Reply, Request
from selfinstruct_argilla.pool import journal as journal_module
from selfinstruct_argilla.pool import schema
from selfinstruct_argilla.pool.journal import Spend
from selfinstruct_argilla.pool.pool import TaskPool

pytest_plugins = ["postgres"]


def request(number: int = 0, **changes: Any) -> Request:
    prompt = Prompt("Header\n\n", f"Task {number}", (("Q ½?", " A\n"),))
    values = {"parameters": {"max_tokens": 5, "temperature": 0.0, "stop": ["\n"]}, "place": Place(1, 2, number)}
    return Request("instructions", "self_instruct", "small", "chat", prompt, **{**values, **changes})


def replied(asked: Request, words: str = "a reply", *, attempt: int = 1, usd: float = 0.25) -> CallRecord:
    return CallRecord(asked.key, attempt, "reply", Reply(words, "stop", 11, 3), None, 0.5, usd)


def failed(asked: Request, attempt: int = 1, usd: float = 0.0) -> CallRecord:
    return CallRecord(asked.key, attempt, "transient", None, "HTTP 500", 0.1, usd)


def record(pool: TaskPool, *pairs: tuple[Request, CallRecord]) -> None:
    async def run() -> None:
        await asyncio.gather(*(pool.journal.record(asked, call) for asked, call in pairs))

    asyncio.run(run())


def settled(pool: TaskPool, asked: Request) -> CallRecord | None:
    return asyncio.run(pool.journal.settled(asked.key))


def test_requests_and_replies_come_back_as_they_were(pool_url: str) -> None:
    asked = request(demonstrations=("seed_1", "generated_2"), draw=3)
    call = replied(asked, "Zeile\u2028 “zwei” 三\n\t\U0001f600")
    with TaskPool.open(pool_url) as pool:
        record(pool, (asked, call))
        assert pool.journal.request(asked.key) == asked
        assert pool.journal.request(asked.key).key == asked.key  # type: ignore[union-attr]
        assert settled(pool, asked) == call
        assert list(pool.journal.requests(round=1, wave=2, step="instructions")) == [asked]
        assert list(pool.journal.requests(wave=3)) == []
        assert not list(pool.journal.damage())


def test_a_reply_is_committed_when_record_returns(pool_url: str) -> None:
    asked = request()
    with TaskPool.open(pool_url) as pool, TaskPool.open(pool_url) as other:
        record(pool, (asked, replied(asked)))
        assert settled(other, asked) is not None


def test_only_replies_and_refusals_settle_a_request(pool_url: str) -> None:
    first, second = request(1), request(2)
    refused = CallRecord(second.key, 2, "refused", None, "HTTP 400: too long", 0.1)
    with TaskPool.open(pool_url) as pool:
        record(pool, (first, failed(first)), (second, failed(second)))
        assert settled(pool, first) is None
        record(pool, (first, replied(first, attempt=2)), (second, refused))
        record(pool, (first, replied(first, "another", attempt=3)))
        assert settled(pool, first) == replied(first, attempt=2), "the first reply counts"
        assert pool.journal.settled_calls([first.key, second.key, "x"]) == {
            first.key: replied(first, attempt=2),
            second.key: refused,
        }
        assert [call.outcome for call in pool.journal.attempts(second.key)] == ["transient", "refused"]


def test_what_was_spent(pool_url: str) -> None:
    first, second, third = request(1), request(2, draw=1), request(3)
    with TaskPool.open(pool_url) as pool:
        assert pool.journal.spend() == Spend()
        record(pool, (first, replied(first)), (second, replied(second, "")), (third, failed(third, usd=0.125)))
        assert pool.journal.spend() == Spend(2, 22, 6, 0.5, 0.125), "an empty reply is one too; a lost one is apart"
        by_step = pool.journal.spend_by("step", "round")
        assert by_step == {("instructions", 1): Spend(2, 22, 6, 0.5, 0.125)}


def test_a_preamble_is_stored_once(pool_url: str) -> None:
    with TaskPool.open(pool_url) as pool:
        record(pool, *((asked, replied(asked)) for asked in map(request, range(40))))
        with pool.engine.connect() as connection:
            assert len(connection.execute(select(schema.preambles)).all()) == 1
            assert len(connection.execute(select(schema.requests)).all()) == 40


def test_rows_that_wait_are_committed_together(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transactions = _count_transactions(monkeypatch, hold_first=threading.Event())
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        record(pool, *((asked, replied(asked)) for asked in map(request, range(200))))
        assert len(list(pool.journal.requests())) == 200
    assert len(transactions) <= 3


def _count_transactions(monkeypatch: pytest.MonkeyPatch, hold_first: threading.Event) -> list[int]:
    """Counts the journal's transactions; the first one is held for a moment while more rows arrive."""
    counted: list[int] = []
    writing = journal_module.writing

    @contextmanager
    def counting(engine: Any) -> Iterator[Connection]:
        counted.append(1)
        if len(counted) == 1:
            hold_first.wait(0.2)
        with writing(engine) as connection:
            yield connection

    monkeypatch.setattr(journal_module, "writing", counting)
    return counted


def test_the_row_of_a_cancelled_caller_is_written(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    _count_transactions(monkeypatch, hold)
    asked = request()
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:

        async def run() -> None:
            waiting = asyncio.create_task(pool.journal.record(asked, replied(asked)))
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(run())
        hold.set()
        pool.journal.close()  # as the pool does at its end: waits for what is on its way
        assert settled(pool, asked) == replied(asked)


def test_every_waiting_caller_hears_that_the_database_fails(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path / 'pool.db'}") as pool:
        with pool.engine.begin() as connection:
            connection.execute(text("DROP TABLE attempts"))

        async def run() -> list[Any]:
            pairs = [(asked, replied(asked)) for asked in map(request, range(5))]
            return await asyncio.gather(*(pool.journal.record(*pair) for pair in pairs), return_exceptions=True)

        errors = asyncio.run(run())
        assert len(errors) == 5
        assert all(isinstance(error, PoolError) for error in errors)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("UPDATE attempts SET text = 'other words' WHERE id = 2", "attempt 1 at request"),
        ("UPDATE attempts SET finish_reason = 'length' WHERE id = 2", "attempt 1 at request"),
        ("UPDATE attempts SET outcome = 'refused' WHERE id = 2", "attempt 1 at request"),
        ("UPDATE attempts SET usd = 0, prompt_tokens = 0 WHERE id = 2", "attempt 1 at request"),
        ("UPDATE requests SET query = 'other task' WHERE position = 1", "request"),
        ("UPDATE requests SET parameters = '{}' WHERE position = 1", "request"),
        ("UPDATE requests SET model = 'large' WHERE position = 1", "request"),
        ("UPDATE preambles SET header = 'other header'", "request"),
    ],
)
def test_a_row_that_was_edited_by_hand_is_seen(pool_url: str, change: str, sentence: str) -> None:
    with TaskPool.open(pool_url) as pool:
        for number in range(3):
            asked = request(number)
            record(pool, (asked, replied(asked)))
        assert not list(pool.journal.damage())
        with pool.engine.begin() as connection:
            connection.execute(text(change))
        found = list(pool.journal.damage())
        assert len(found) == (3 if "preambles" in change else 1)
        assert sentence in found[0]
        assert "was changed after it was written" in found[0]
