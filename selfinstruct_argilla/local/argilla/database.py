"""The local Argilla's database: migration that can be interrupted, the owner's account."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def migrate(home: Path) -> None:
    """Bring the database to this server's version.

    SQLite commits each step of a migration on its own, so a migration cut short would leave a database that no version
    can use: it is done on a copy, which takes the place of the original in one move."""
    from argilla_server.database import database_url_sync
    from argilla_server.settings import settings

    if not settings.database_is_sqlite:
        _upgrade(database_url_sync())
        return
    path = home / "argilla.db"
    if path.exists() and _revision(path) == _newest_revision():
        return
    copy = home / "argilla.migrating.db"
    _remove(copy)
    if path.exists():
        with closing(sqlite3.connect(path)) as original, closing(sqlite3.connect(copy)) as target:
            original.backup(target)
    _upgrade(f"sqlite:///{copy}")
    with closing(sqlite3.connect(copy)) as connection:
        # Readers never wait for a writer then; the mode stays with the file.
        connection.execute("PRAGMA journal_mode = WAL")
    if path.with_name(f"{path.name}-wal").exists():
        raise SystemExit(f"Another process has {path} open; end it, and start the server again.")
    copy.replace(path)


async def ensure_owner(credentials: dict[str, str], workspace_name: str) -> None:
    """Make the owner's account and the workspace; in our own SQLite file, `credentials` hold over what is there."""
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal, async_engine
    from argilla_server.models import User, UserRole, Workspace
    from argilla_server.settings import settings

    username, password, api_key = credentials["username"], credentials["password"], credentials["api_key"]
    async with AsyncSessionLocal() as session:
        workspace = await Workspace.get_by(session, name=workspace_name)
        if workspace is None:
            workspace = await Workspace.create(session, name=workspace_name)
        owner = await accounts.get_user_by_username(session, username)
        if owner is None:
            await User.create(
                session,
                first_name=username,
                username=username,
                role=UserRole.owner,
                api_key=api_key,
                password_hash=accounts.hash_password(password),
                workspaces=[workspace],
            )
        elif owner.api_key != api_key and not settings.database_is_sqlite:
            raise SystemExit(
                f"The database has a user {username!r} with other credentials: it belongs to another home. "
                "Start the server with that home, or with a database of its own."
            )
        elif owner.api_key != api_key or not accounts.verify_password(password, owner.password_hash):
            await owner.update(session, api_key=api_key, password_hash=accounts.hash_password(password))
    await async_engine.dispose()  # its connections belong to this event loop, which ends here


def _upgrade(url: str) -> None:
    from alembic import command
    from alembic.config import Config
    from argilla_server import database

    url_of_the_server = database.database_url_sync
    # Argilla's alembic script asks this function, and its configuration would take % for an interpolation.
    database.database_url_sync = lambda: url.replace("%", "%%")
    try:
        command.upgrade(Config(database.ALEMBIC_CONFIG_FILE), "head")
    finally:
        database.database_url_sync = url_of_the_server


def _newest_revision() -> str | None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from argilla_server.database import ALEMBIC_CONFIG_FILE

    return ScriptDirectory.from_config(Config(ALEMBIC_CONFIG_FILE)).get_current_head()


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:  # a database that nobody has migrated yet
            return None
    return row[0] if row else None


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
