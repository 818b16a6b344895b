"""The novelty of instructions against a pool: indexes kept in step with what is committed, by whomever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from ..pool import schema
from ..pool.rounds import Rounds
from ..recipe import Novelty
from ..similarity.index import Match, NoveltyIndex


class PoolNovelty:
    """All instructions of a pool, whatever became of them, and the drafts that wait for their instances.

    `refresh` is called under the pool's write lock before a decision is committed, so that two generators on one pool
    never admit near-duplicates of each other; what a decision itself brings is taken in by the next refresh, after its
    commit (design, rule 4).
    """

    def __init__(self, novelty: Novelty) -> None:
        self._settings = novelty
        self._tasks = self._index()
        self._drafts = self._index()
        self._open: set[str] = set()
        self._sequence = 0
        self._event = 0

    def refresh(self, connection: Connection) -> bool:
        """Takes in tasks, edits and drafts that are committed and not yet known; True where there were any."""
        tasks, events = schema.tasks, schema.events
        before = (self._sequence, self._event, self._open)
        fresh = select(tasks.c.id, tasks.c.sequence, tasks.c.instruction).where(tasks.c.sequence > self._sequence)
        for row in connection.execute(fresh.order_by(tasks.c.sequence)):
            self._sequence = row.sequence
            self._tasks.add(row.id, row.instruction)
        changes = select(events.c.id, tasks.c.id.label("task"), tasks.c.instruction).join(tasks)
        changes = changes.where(events.c.id > self._event, events.c.kind.in_(("edited", "restored")))
        for row in connection.execute(changes.order_by(events.c.id)):
            self._event = row.id
            self._tasks.replace(row.task, row.instruction)
        drafts = Rounds.open_instructions(connection)
        for key in self._open - drafts.keys():
            self._drafts.remove(key)
        for key, instruction in drafts.items():
            if key not in self._open:
                self._drafts.add(key, instruction)
        self._open = set(drafts)
        return before != (self._sequence, self._event, self._open)

    def batch(self) -> Batch:
        """A decision over several texts in order, each also compared with those before it."""
        return Batch(self._tasks, self._drafts, self._index())

    def _index(self) -> NoveltyIndex:
        return NoveltyIndex(self._settings.threshold, self._settings.tokens)


class Batch:
    """The pool's indexes with an overlay of texts that are not committed yet."""

    def __init__(self, tasks: NoveltyIndex, drafts: NoveltyIndex, overlay: NoveltyIndex) -> None:
        self._tasks, self._drafts, self._overlay = tasks, drafts, overlay

    def check(self, text: str) -> Match | None:
        """The nearest neighbour that makes the text no news, or None."""
        indexes = (self._tasks, self._drafts, self._overlay)
        return _best([index.check(text) for index in indexes])

    def nearest(self, texts: Mapping[str, str]) -> list[Match | None]:
        """The nearest task of each text, those before it among `texts` included, drafts left out: all at once, which
        costs a tenth of one by one."""
        for key, text in texts.items():
            self.add(key, text)
        tasks = self._tasks.statistics(texts.values(), 1)
        before = self._overlay.statistics_before(texts, 1)
        return [_best([*known.top, *fresh.top]) for known, fresh in zip(tasks, before, strict=True)]

    def add(self, key: str, text: str) -> None:
        self._overlay.add(key, text)


def _best(matches: Sequence[Match | None]) -> Match | None:
    found = [match for match in matches if match is not None]
    return max(found, key=lambda match: match.score) if found else None
