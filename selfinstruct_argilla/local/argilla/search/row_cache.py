"""Copies of database rows in memory, brought up to date before each use.

A row's `updated_at` changes with its content, so a copy is current when it holds as many rows as the table and the sum
of their timestamps agrees. That is one query over an index; only what differs is read again. Nothing has to tell a
copy that something was written, neither this process nor another one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from .sql_json import JsonSql

MAX_BYTES = 256 * 2**20
BATCH = 500
# Timestamps are taken before the commit: a row may appear later than rows that are newer than it.
OVERLAP = timedelta(seconds=10)
_MAX_IDS_PER_QUERY = 500


class RowCopy(ABC):
    """The copy of the rows of one dataset (or of one vector setting)."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._updated_at: dict[str, datetime] = {}
        self._checksum = 0

    @abstractmethod
    def clear_rows(self) -> None: ...

    @abstractmethod
    def put_row(self, record_id: str, *payload: Any) -> None: ...

    @abstractmethod
    def remove_row(self, record_id: str) -> None: ...

    @property
    @abstractmethod
    def nbytes(self) -> int: ...

    @property
    @abstractmethod
    def is_fragmented(self) -> bool:
        """Whether removed rows take so much room that reading everything again is worth it."""

    async def refresh(
        self,
        session: AsyncSession,
        json: JsonSql,
        record_id: ColumnElement[Any],
        table: Any,
        scope: ColumnElement[bool],
        payload: list[Any],
    ) -> None:
        """Make this a copy of the rows of `table` in `scope`. The caller holds the lock."""
        key = json.hex_id(record_id)
        rows = select(key, table.updated_at, *payload).where(scope).order_by(table.inserted_at, table.id)
        checksum = func.coalesce(func.sum(json.microseconds_of_minute(table.updated_at)), 0)
        state = select(func.count(), checksum).where(scope)

        async def is_current() -> bool:
            count, total = (await session.execute(state)).one()
            return bool(count == len(self._updated_at) and int(total) == self._checksum)

        if await is_current():
            return
        if not self._updated_at or self.is_fragmented:
            self._updated_at.clear()
            self._checksum = 0
            self.clear_rows()
            await self._read(session, rows)
            return
        moments = select(key, table.updated_at).where(scope)
        recent = moments.where(table.updated_at >= max(self._updated_at.values()) - OVERLAP)
        await self._read_changed(session, rows, key, dict((await session.execute(recent)).all()))
        if await is_current():
            return
        stored = dict((await session.execute(moments)).all())
        for gone in self._updated_at.keys() - stored.keys():
            self._checksum -= _checksum(self._updated_at.pop(gone))
            self.remove_row(gone)
        await self._read_changed(session, rows, key, stored)

    async def _read_changed(
        self, session: AsyncSession, rows: Select[Any], key: ColumnElement[str], stored: dict[str, datetime]
    ) -> None:
        changed = [found for found, at in stored.items() if self._updated_at.get(found) != at]
        for start in range(0, len(changed), _MAX_IDS_PER_QUERY):
            await self._read(session, rows.where(key.in_(changed[start : start + _MAX_IDS_PER_QUERY])))

    async def _read(self, session: AsyncSession, rows: Select[Any]) -> None:
        result = await session.stream(rows)
        async for batch in result.partitions(BATCH):
            await asyncio.to_thread(self._put_rows, batch)

    def _put_rows(self, batch: Iterable[Any]) -> None:
        for record_id, updated_at, *payload in batch:
            known = self._updated_at.get(record_id)
            if known == updated_at:
                continue
            self._checksum += _checksum(updated_at) - (_checksum(known) if known else 0)
            self._updated_at[record_id] = updated_at
            self.put_row(record_id, *payload)


def _checksum(moment: datetime) -> int:
    return moment.second * 1_000_000 + moment.microsecond


Copy = TypeVar("Copy", bound=RowCopy)


class RowCopies:
    """All copies of this process; those longest unused go when they take more than `max_bytes` together."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._copies: OrderedDict[Hashable, RowCopy] = OrderedDict()
        self._max_bytes = max_bytes

    def get(self, key: Hashable, make: Callable[[], Copy]) -> Copy:
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = make()
        self._copies.move_to_end(key)
        return copy  # type: ignore[return-value]

    def has_room(self, nbytes: int = 0, instead_of: Hashable = None) -> bool:
        """Whether a copy of so many bytes would fit in beside the others."""
        others = sum(copy.nbytes for key, copy in self._copies.items() if key != instead_of)
        return others + nbytes <= self._max_bytes

    def trim(self) -> None:
        while len(self._copies) > 1 and not self.has_room():
            self._copies.popitem(last=False)
