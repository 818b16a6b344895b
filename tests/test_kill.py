"""A run that is killed again and again comes to the pool of a run that was not, and buys nothing twice that it had.

A child process generates with a scripted model that notes every purchase before it answers, and is sent SIGKILL at a
random moment: while it starts, while replies are on their way, in the middle of a commit. Then the next child goes on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from generating import exported, generate, problems, unhurried

from selfinstruct_argilla.llm.base import Request
from selfinstruct_argilla.pool.pool import TaskPool

pytest_plugins = ["postgres"]

CONCURRENCY = 8
RUN = {"bootstrap__target": 40, "models__generator__concurrency": CONCURRENCY}
_LINE = 65  # bytes of the log for a purchase: a key and its newline
_END = "end\n"


# in the child ----------------------------------------------------------------------------------


def logged(log: int) -> Callable[[Request], Awaitable[str]]:
    """The scripted model, with every purchase on the disk before it is answered."""
    answer = unhurried()

    async def buy(request: Request) -> str:
        os.write(log, f"{request.key}\n".encode())
        os.fsync(log)
        return await answer(request)

    return buy


def serve() -> None:
    """Starts a run for each line on stdin, and kills it or lets it end as the next line says; reports its exit code.

    Everything is imported once, so that a run begins within milliseconds.
    """
    for line in sys.stdin:
        url, path = json.loads(line)
        child = os.fork()
        if not child:
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            generate(url, logged(log), **RUN)
            os.write(log, _END.encode())
            os._exit(0)
        if sys.stdin.readline() == "kill\n":
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


# in the test -----------------------------------------------------------------------------------


class Runs:
    """The process that starts runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def start(self, url: str, log: Path) -> None:
        self._say(json.dumps([url, str(log)]))

    def end(self, how: str) -> int:
        """Kills the run or waits for its end; its exit code."""
        self._say(how)
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The export of a run that nobody disturbed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('unkilled') / 'pool.db'}"
    generate(url, **RUN)
    return exported(url)


def kill_and_resume(runs: Runs, url: str, log: Path, rng: random.Random, at_most: int) -> dict[str, int]:
    """One pool to its target, killed up to `at_most` times on the way; how often it was, what was bought and lost."""
    kills = 0
    had: set[str] = set()  # what the journal held at the last kill
    bought: list[str] = []
    while True:
        runs.start(url, log)
        if kills < at_most:
            _wait_for(log, len(bought) + rng.choice([0, 1, 3, 8, 20]))
            time.sleep(rng.random() * 0.02)
        code = runs.end("kill" if kills < at_most else "wait")
        assert code in (0, -signal.SIGKILL)
        keys = [line for line in log.read_text().split("\n") if line and line != _END.strip()] if log.exists() else []
        now, bought = keys[len(bought) :], keys
        assert not had & set(now), "a reply in the journal was bought again"
        if code == 0:
            break
        kills += 1
        had = settled(url)
        assert len(set(now) - had) <= CONCURRENCY, "a kill cost more than the requests on their way"
    with TaskPool.open(url, create=False) as pool:
        assert pool.journal.spend().requests == len(set(bought)) == len(settled(url))
    return {"kills": kills, "bought": len(bought), "lost": len(bought) - len(set(bought))}


def _wait_for(log: Path, purchases: int) -> None:
    """Until the log has so many purchases, or the run is over."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        size = log.stat().st_size if log.exists() else 0
        if size >= purchases * _LINE or size % _LINE:
            return
        time.sleep(0.001)
    raise AssertionError("the run stands still")


def settled(url: str) -> set[str]:
    """The requests that the journal has an answer to; none while there is no pool."""
    with TaskPool.open(url) as pool:
        return set(pool.journal.settled_calls([request.key for request in pool.journal.requests()]))


def check_kills(runs: Runs, new_url: Callable[[], str], folder: Path, unkilled: str, kills: int, seed: int) -> None:
    """Pool after pool until there were so many kills."""
    rng = random.Random(seed)
    total: dict[str, Any] = {"pools": 0, "kills": 0, "bought": 0, "lost": 0}
    while total["kills"] < kills:
        url = new_url()
        found = kill_and_resume(runs, url, folder / f"{total['pools']}.log", rng, kills - total["kills"])
        total = {"pools": total["pools"] + 1, **{name: total[name] + count for name, count in found.items()}}
        assert exported(url) == unkilled
        assert problems(url) == []
    print(f"\n{total}: every pool identical, no journaled reply bought again")


def sqlite_urls(folder: Path) -> Callable[[], str]:
    numbers = iter(range(1000))
    return lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}"


def test_twenty_kills(runs: Runs, tmp_path: Path, unkilled: str) -> None:
    check_kills(runs, sqlite_urls(tmp_path), tmp_path, unkilled, 20, seed=1)


def test_kills_on_postgresql(runs: Runs, tmp_path: Path, unkilled: str, postgres_url: str) -> None:
    rng = random.Random(2)
    found = kill_and_resume(runs, postgres_url, tmp_path / "log", rng, 4)
    assert found["kills"] > 0
    assert exported(postgres_url) == unkilled
    assert problems(postgres_url) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_kills(runs: Runs, tmp_path: Path, unkilled: str) -> None:
    check_kills(runs, sqlite_urls(tmp_path), tmp_path, unkilled, 200, seed=3)


if __name__ == "__main__":
    serve()
