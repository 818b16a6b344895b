"""What was published where: one row a release with its manifest, and the split each task was given for ever.

A release is `building` from just before its target changes until the target is known to hold it: after a crash in
between, the next run finds both the row and the target, and knows that they belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row, delete, insert, select, update

from . import schema
from .engine import now, reading, writing


@dataclass(frozen=True)
class Release:
    """One release at one target (the absolute path of a folder, or ORG/NAME on the Hub)."""

    version: str
    target: str
    tasks: int
    revision: int
    state: str
    at: str
    commit: str | None


class Releases:
    """Releases of one pool."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Release]:
        """Published releases, oldest first."""
        table = schema.releases
        query = select(*(c for c in table.c if c.name != "manifest")).where(table.c.state == "published")
        with reading(self._engine) as connection:
            return [_release(row) for row in connection.execute(query.order_by(table.c.id))]

    def known(self, target: str) -> dict[str, Release]:
        """Every release ever begun at a target, by version, oldest first, `building` ones included."""
        table = schema.releases
        query = select(*(c for c in table.c if c.name != "manifest")).where(table.c.target == target)
        with reading(self._engine) as connection:
            return {row.version: _release(row) for row in connection.execute(query.order_by(table.c.id))}

    def manifest(self, target: str, version: str) -> dict[str, Any] | None:
        """The manifest of a release, or None where the pool knows no such release."""
        table = schema.releases
        query = select(table.c.manifest).where(table.c.target == target, table.c.version == version)
        with reading(self._engine) as connection:
            manifest: dict[str, Any] | None = connection.execute(query).scalar()
        return manifest

    def splits(self) -> dict[str, str]:
        """The split of every task that ever left this pool, by task id."""
        with reading(self._engine) as connection:
            return {row.task_id: row.split for row in connection.execute(select(schema.splits))}

    def begin(self, target: str, manifest: Mapping[str, Any], *, splits: Mapping[str, str]) -> None:
        """Notes that a release is about to reach its target, and the splits that it gives.

        An earlier attempt that never got there is forgotten: its version was not used.
        """
        table = schema.releases
        values = {"tasks": len(manifest["tasks"]), "revision": manifest["pool"]["revision"], "at": now()}
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.target == target, table.c.state == "building"))
            known = {row.task_id for row in connection.execute(select(schema.splits.c.task_id))}
            fresh = [{"task_id": task, "split": split} for task, split in splits.items() if task not in known]
            if fresh:
                connection.execute(insert(schema.splits), fresh)
            there = table.c.target == target, table.c.version == manifest["version"]
            state = {"state": "building", "commit": None, "manifest": dict(manifest)}
            if not connection.execute(update(table).where(*there).values(**values, **state)).rowcount:
                place = {"target": target, "version": manifest["version"]}
                connection.execute(insert(table).values(**place, **values, **state))

    def finish(self, target: str, version: str, *, commit: str | None) -> None:
        """Notes that the target holds the release (on the Hub: in which commit)."""
        table = schema.releases
        with writing(self._engine) as connection:
            connection.execute(
                update(table)
                .where(table.c.target == target, table.c.version == version)
                .values(state="published", commit=commit, at=now())
            )


def _release(row: Row[Any]) -> Release:
    return Release(row.version, row.target, row.tasks, row.revision, row.state, row.at, row.commit)
