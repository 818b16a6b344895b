"""Following people live: two small requests where nobody did anything, a sync where somebody did. When to look is told
by the clock, or sooner by Argilla itself (`webhooks.py`); the outcome is the same.

Argilla's activity time moves in the same transaction as a response, so a value seen before a sync and again after it
means that the sync saw everything people did. What does not move it (answers that an admin writes through the API, an
account that is removed) is found by a whole pass from time to time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..pool.pool import TaskPool
from ..recipe import Review
from .rubric import Rubric
from .sync import Check, SyncResult, known_dataset, sync

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient

POLL_SECONDS = 5.0
NOTICED_SECONDS = 30.0  # between polls where Argilla gives notice, in case one is lost
_WHOLE_PASS_SECONDS = 300.0
_WHOLE_PASS_SHARE = 20  # a whole pass takes at most one part in so many of the time


def watch(
    pool: TaskPool,
    review: Review,
    client: ArgillaClient,
    *,
    dataset: str,
    rubric: Rubric,
    check: Check = lambda task: None,
    interval_seconds: float = POLL_SECONDS,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[SyncResult]:
    """The result of a sync now, and of each one after that, without end; the caller stops asking.

    A result may say that nothing changed. Raises what sync raises.
    """
    while True:
        dataset_id = known_dataset(pool, review, client, name=dataset, rubric=rubric).id
        seen = client.activity(dataset_id)
        started = clock()
        result = sync(pool, review, client, dataset=dataset, rubric=rubric, check=check)
        due = clock() + max(_WHOLE_PASS_SECONDS, _WHOLE_PASS_SHARE * (clock() - started))
        yield result
        while client.activity(dataset_id) == seen and clock() < due:
            wait(interval_seconds)
