"""Where a pool stands, from the pool alone: no model, no Argilla and no Hub is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .journal import Spend
from .pool import TaskPool


@dataclass(frozen=True)
class PoolStatus:
    """`pool` counts tasks by status, `discards` by reason; `review` counts review records, not tasks."""

    pool: dict[str, int]
    discards: dict[str, int]
    spend: Spend
    review: dict[str, Any]
    releases: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pool_status(pool: TaskPool) -> PoolStatus:
    return PoolStatus(
        pool=pool.counts(),
        discards=pool.rounds.discard_counts(),
        spend=pool.journal.spend(),
        review=pool.reviews.summary(),
        releases=[
            {"version": release.version, "target": release.target, "tasks": release.tasks}
            for release in pool.releases.all()
        ],
    )
