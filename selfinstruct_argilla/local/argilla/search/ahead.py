"""Reading ahead: work on datasets in the background of the server, one at a time, each soon after it was asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

PAUSE = 1.0  # seconds between two pieces of work, so that a stream of writes does not cause as many readings


class AheadReader:
    """Only the event loop that starts it works: what other threads ask for is left to the next search."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[UUID, None] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, read: Callable[[UUID], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._read = read

    def ask(self, dataset_id: UUID) -> None:
        if self._loop is not asyncio.get_running_loop():
            return
        self._waiting[dataset_id] = None
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(PAUSE)
            dataset_id = next(iter(self._waiting))
            del self._waiting[dataset_id]
            try:
                await self._read(dataset_id)
            except Exception:
                # Whoever searches next will read for themselves, and see the error if it stays.
                logging.getLogger("argilla").warning("Could not read the dataset %s ahead", dataset_id, exc_info=True)
