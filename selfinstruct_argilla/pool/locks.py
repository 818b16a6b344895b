"""Which process works on a round: a lock that its owner's death releases, whatever killed it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

_DYING_SECONDS = 1.0


def lock_round(engine: Engine, round: int, locks: ExitStack) -> bool:
    """Holds the round's lock until `locks` closes; False where another process works on it."""
    with ExitStack() as attempt:
        held = attempt.enter_context(round_lock(engine, round))
        if held:
            locks.push(attempt.pop_all())
    return held


def wait_for_the_dying(engine: Engine, rounds: Iterable[int]) -> None:
    """Returns when none of the rounds is locked, or after a second: PostgreSQL takes a moment to see that a process
    was killed. To be called outside a transaction; a file's lock ends with its process."""
    deadline = time.monotonic() + _DYING_SECONDS
    for round in rounds if engine.dialect.name == "postgresql" else ():
        while time.monotonic() < deadline:
            with round_lock(engine, round) as held:
                if held:
                    break
            time.sleep(0.05)


@contextmanager
def round_lock(engine: Engine, round: int) -> Iterator[bool]:
    """Holds the lock of a round while the block runs; yields False where another process has it.

    A file beside a SQLite pool (removed with the last use), an advisory lock of the session on PostgreSQL.
    """
    if engine.dialect.name == "sqlite":
        path = Path(f"{engine.url.database}.round-{round}.lock")
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
            lock.release()
        return
    number = zlib.crc32(f"round {round}".encode())
    with engine.connect() as connection:
        held = bool(connection.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": number}).scalar())
        connection.commit()
        try:
            yield held
        finally:
            if held:
                with suppress(DatabaseError):  # a lost connection has let go of its locks
                    connection.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": number})
                    connection.commit()
