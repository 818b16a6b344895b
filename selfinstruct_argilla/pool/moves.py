"""Which status may follow which: the one table that every move of a task is checked against."""

from __future__ import annotations

from ..errors import StatusError
from ..tasks import Status

_JUDGED = {Status.ACCEPTED, Status.REJECTED, Status.CONFLICT}

MOVES: dict[Status, set[Status]] = {
    Status.SEED: set(),
    Status.CANDIDATE: {Status.IN_REVIEW},
    Status.IN_REVIEW: _JUDGED | {Status.WITHDRAWN},
    # people change their minds; answers may also fall below min_submitted again
    **{status: (_JUDGED - {status}) | {Status.IN_REVIEW, Status.WITHDRAWN} for status in _JUDGED},
    Status.WITHDRAWN: set(),
}


def check_move(task_id: str, before: Status, after: Status) -> None:
    """Raises StatusError where the table does not allow the move."""
    if after not in MOVES[before]:
        raise StatusError(f"task {task_id} is {before.value} and cannot become {after.value}")
