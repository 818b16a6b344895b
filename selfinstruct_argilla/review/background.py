"""Work beside the work at hand: a request to Argilla is on its way while the pool reads or writes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Value = TypeVar("Value")


def in_background(work: Callable[[], Value]) -> Future[Value]:
    """What `work` returns or raises, done in a thread; where the program ends, nobody waits for it."""
    found: Future[Value] = Future()

    def do() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return found
