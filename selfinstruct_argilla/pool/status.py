"""Where a pool stands, from the pool alone: no model, no Argilla and no Hub is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .journal import Spend
from .pool import TaskPool


@dataclass(frozen=True)
class PoolStatus:
    """`pool` counts tasks by status, `discards` by reason; `review` counts review records, not tasks, and has the
    `agreement` and `quality` of what people said (`review/quality.py`, as JSON; None here).

    `spend_by` breaks the spend down by round, step and model, with the yield: the tasks that this model wrote in this
    round, those of them that people accepted, and the discards of this step. `usd_per` is what a generated task has
    cost, and one that people accepted (None while there is none).
    """

    pool: dict[str, int]
    discards: dict[str, int]
    spend: Spend
    spend_by: list[dict[str, Any]]
    usd_per: dict[str, float | None]
    review: dict[str, Any]
    releases: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def pool_status(pool: TaskPool) -> PoolStatus:
    spend = pool.journal.spend()
    generated, accepted = pool.generated_counts()
    written, discards = pool.generated_by(), pool.rounds.discards_by("round", "step")
    return PoolStatus(
        pool=pool.counts(),
        discards=pool.rounds.discard_counts(),
        spend=spend,
        spend_by=[
            {
                "round": round,
                "step": step,
                "model": model,
                **asdict(part),
                **dict(zip(("tasks", "accepted"), written.get((round, model), (0, 0)), strict=True)),
                "discards": discards.get((round, step), 0),
            }
            for (round, step, model), part in pool.journal.spend_by("round", "step", "model").items()
        ],
        usd_per={
            "generated": spend.usd / generated if generated else None,
            "accepted": spend.usd / accepted if accepted else None,
        },
        review={**pool.reviews.summary(), "agreement": None, "quality": None},
        releases=[
            {"version": release.version, "target": release.target, "tasks": release.tasks}
            for release in pool.releases.all()
        ],
    )
