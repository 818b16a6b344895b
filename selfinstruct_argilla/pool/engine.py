"""Opening the pool's database and its transactions.

SQLite runs in WAL with a busy timeout, so that two processes on one pool are normal: readers never wait, writers
wait for each other. A write transaction takes the write lock at its beginning (`BEGIN IMMEDIATE`; on PostgreSQL an
advisory lock), so what it reads is what it changes.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from ..errors import PoolError
from . import schema
from .migrations import MIGRATIONS

Value = TypeVar("Value")
SCHEMA_VERSION = 1 + len(MIGRATIONS)
_BUSY_SECONDS = 60
_ADVISORY_LOCK = 0x51A_900  # one number for "the pool's write lock" within a database


def open_engine(url: str, *, create: bool = True) -> Engine:
    """A connected engine of the pool at `url`, created or migrated where needed. Raises PoolError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise PoolError(
            f"{url!r} is not the address of a pool",
            hint="Write sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE.",
        ) from error
    sqlite = parsed.get_backend_name() == "sqlite"
    path = Path(parsed.database) if sqlite and parsed.database not in (None, "", ":memory:") else None
    if path is not None and not path.exists():
        if not create:
            raise PoolError(f"there is no pool at {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PoolError(f"the folder of the pool {path} cannot be made: {error.strerror}") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        if sqlite:
            engine = create_engine(parsed, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
        else:
            engine = create_engine(parsed, pool_pre_ping=True)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise PoolError(
            "a PostgreSQL pool needs psycopg", hint="pip install 'selfinstruct-argilla[postgresql]'"
        ) from error
    if sqlite:
        _prepare_sqlite(engine)
    try:
        with explained(parsed.render_as_string()):
            _create_or_migrate(engine, parsed.render_as_string())
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Database failures as one sentence: a full disk, a locked or damaged file, a server that is away."""
    try:
        yield
    except DatabaseError as error:
        reason = " ".join(str(error.orig).split()) or type(error.orig).__name__
        hint = None
        if "full" in reason or "disk I/O" in reason:
            hint = "Free some space, then run the same command again: what was committed is whole."
        elif "locked" in reason:
            hint = "Another process holds the pool; run the same command again when it is done."
        elif isinstance(error, OperationalError) and not where.startswith("sqlite"):
            hint = "Check that the database server runs and that the address in the recipe is right."
        raise PoolError(f"the pool {where} cannot be used: {reason}", hint=hint) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view of the pool."""
    with explained(engine.url.render_as_string()), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds the pool's write lock from its beginning to its commit. Keep it short."""
    with explained(engine.url.render_as_string()), engine.connect() as connection:
        connection.execution_options(immediate=True)
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _ADVISORY_LOCK})
            yield connection


def in_parts(values: Iterable[Value], size: int = 500) -> Iterator[list[Value]]:
    """The values, some at a time: databases limit the number of parameters of a query."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(dbapi_connection: Any, _: Any) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = dbapi_connection.cursor()
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # a paid reply survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Of several processes that open a new pool at once, SQLite fails all but one at once instead of waiting."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _create_or_migrate(engine: Engine, where: str) -> None:
    with engine.connect() as connection:
        version = _version(connection)
    if version == SCHEMA_VERSION:
        return
    if version is not None and version > SCHEMA_VERSION:
        raise PoolError(
            f"the pool {where} was made by a newer selfinstruct-argilla (schema {version}, not {SCHEMA_VERSION})",
            hint="pip install --upgrade selfinstruct-argilla",
        )
    with writing(engine) as connection:
        version = _version(connection)  # another process may have been faster
        if version is None:
            if inspect(connection).get_table_names():
                raise PoolError(
                    f"{where} is a database, but not a task pool", hint="Name another file under `pool:` in the recipe."
                )
            schema.metadata.create_all(connection)
            rows = {
                "schema_version": str(SCHEMA_VERSION),
                "pool_id": uuid.uuid4().hex,
                "salt": secrets.token_hex(32),
            }
            connection.execute(insert(schema.meta), [{"key": key, "value": value} for key, value in rows.items()])
            return
        for step in MIGRATIONS[version - 1 :]:
            step(connection)
        connection.execute(
            schema.meta.update().where(schema.meta.c.key == "schema_version").values(value=str(SCHEMA_VERSION))
        )


def _version(connection: Connection) -> int | None:
    if "meta" not in inspect(connection).get_table_names():
        return None
    value = connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == "schema_version")).scalar()
    return int(value) if value is not None else None
