"""The one sink of the command line: data to stdout, talk and progress to stderr, bars only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn


def say(text: str) -> None:
    """A sentence for the person in front."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  (this file is the one place)


def print_data(text: str) -> None:
    """What the command was asked for."""
    print(text, flush=True)  # noqa: T201


def print_json(document: Any) -> None:
    """What the command was asked for, as the one JSON document on stdout; paths and dates become text."""
    print_data(json.dumps(document, indent=2, ensure_ascii=False, default=str))


@contextmanager
def progress_display() -> Iterator[Callable[[str, float | None], None]]:
    """Give a `progress(message, fraction)` callback: a bar a stage on a terminal (`fraction` None: length unknown),
    elsewhere a line a stage. What stands before a colon names the stage; the rest may change from call to call."""
    if not sys.stderr.isatty():
        shown: dict[str, int] = {}

        def line(message: str, fraction: float | None) -> None:
            quarter = int(4 * (fraction or 0))
            if shown.get(_stage(message), -1) < quarter:
                shown[_stage(message)] = quarter
                say(f"{message} …")

        yield line
        return

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        stages: dict[str, Any] = {}

        def bar(message: str, fraction: float | None) -> None:
            stage = _stage(message)
            if stage not in stages:
                stages[stage] = bars.add_task(message, total=None)
            total = None if fraction is None else 1.0
            bars.update(stages[stage], description=message, total=total, completed=fraction or 0.0)

        yield bar


def _stage(message: str) -> str:
    return message.partition(":")[0]
