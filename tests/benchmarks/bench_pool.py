"""How long a grown pool takes to open and to answer: 50,000 tasks and the journal that they came from.

    python tests/benchmarks/bench_pool.py [--tasks 50000] [--url postgresql+psycopg://…]

Prints seconds, each from a process of its own and after its imports: to open the pool (below 3), to answer
`sia status` (below 1), and, for what else a stage begins with, to load all tasks and to build the novelty index.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

from sqlalchemy import insert

from selfinstruct_argilla.llm.base import CallRecord, Place, Prompt, Reply, Request
from selfinstruct_argilla.pool import schema
from selfinstruct_argilla.pool.journal import PoolJournal, attempt_row
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.pool.rounds import Discard, Draft, Rounds
from selfinstruct_argilla.tasks import Instance, Origin, Provenance, Status, Task

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "ou") for c in ("", "n", "rt", "st", "ling")]
WORDS += [f"{a}{b}" for a in WORDS[:80] for b in WORDS[80:160]]
WEIGHTS = list(accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))
EXAMPLES = tuple((f"Task: example {n} " + "x" * 200, " yes\n\n") for n in range(31))

MEASURE = """
import sys, time
from selfinstruct_argilla.cli import app, project  # noqa: what `sia status` imports
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.bootstrap.novelty import PoolNovelty
from selfinstruct_argilla.pool.engine import reading

recipe = Recipe.load("self_instruct", ["pool=" + sys.argv[1]])
times = [time.perf_counter()]
with open_project(recipe) as project:
    times.append(time.perf_counter())
    if sys.argv[2] == "status":
        project.status()
    elif sys.argv[2] == "tasks":
        project.pool.tasks()
    elif sys.argv[2] == "novelty":
        with reading(project.pool.engine) as connection:
            PoolNovelty(recipe.bootstrap.novelty).refresh(connection)
    times.append(time.perf_counter())
print(times[1] - times[0], times[2] - times[0])
"""


def text(source: random.Random, mean: int) -> str:
    return " ".join(source.choices(WORDS, cum_weights=WEIGHTS, k=source.randint(mean // 2, mean * 3 // 2)))


def grow(url: str, count: int) -> None:
    """Tasks as eight of a request, each with the two requests of its own, in waves of 512 and rounds of 5,000."""
    with TaskPool.open(url) as pool:
        for start in range(0, count, 512):
            grow_wave(pool, start, min(start + 512, count))


def grow_wave(pool: TaskPool, start: int, stop: int) -> None:
    number, round = start // 512 + 1, start // 5000 + 1
    calls: list[tuple[Request, CallRecord]] = []
    tasks, drafts = [], []

    def buy(step: str, prompt: Prompt, position: int, answer: str, source: random.Random) -> str:
        request = Request(
            step, "self_instruct", "model", "chat", prompt, {"max_tokens": 300}, 0, Place(round, number, position)
        )
        reply = Reply(answer, "stop", source.randint(500, 2000), len(answer) // 4)
        calls.append((request, CallRecord(request.key, 1, "reply", reply, usd=0.001, latency_seconds=1.5)))
        return request.key

    for n in range(start, stop):
        source = random.Random(n)
        if (n - start) % 8 == 0:
            listed = Prompt("", "Come up with a series of tasks:\n" + text(source, 130))
            asked = buy("instructions", listed, n - start, text(source, 130), source)
        instruction, instance = f"{text(source, 16)} {n}", Instance(text(source, 13), text(source, 19))
        keys = [
            buy("classification", Prompt("header", instruction, EXAMPLES), n - start, " No", source),
            buy(
                "input_first",
                Prompt("other", instruction, EXAMPLES),
                n - start,
                instance.input + instance.output,
                source,
            ),
        ]
        status = source.choice([Status.CANDIDATE, Status.IN_REVIEW, Status.ACCEPTED, Status.REJECTED])
        shown = Provenance("model", asked, tuple(f"seed_task_{source.randrange(175)}" for _ in range(8)))
        task = Task(
            f"generated_{n + 1:08d}",
            instruction,
            (instance,),
            False,
            "",
            status,
            Origin.GENERATED,
            round,
            shown,
            0.4,
            "x",
        )
        tasks.append(task)
        drafts.append(Draft(round, number, n - start, instruction, asked, round, tuple(keys), task.id))
    with pool.write() as writer:
        connection = writer.connection
        if not start % 5000 or start // 5000 != (start - 512) // 5000:
            Rounds.start_round(connection, method="self_instruct", target=5000, fingerprint="", recipe={})
        wave = Rounds.add_wave(connection, round, number)
        PoolJournal.add_requests(connection, [request for request, _ in calls])
        connection.execute(insert(schema.attempts), [attempt_row(request, call) for request, call in calls])
        writer.add(tasks, kind="generated")
        Rounds.add_drafts(connection, drafts)
        Rounds.close_drafts(connection, drafts)
        near = [Discard("instructions", "near_duplicate", draft.instruction, 0.8, "x") for draft in drafts]
        Rounds.add_discards(connection, wave, near)
        Rounds.set_wave_state(connection, wave, "finished")


def measure(url: str, what: str) -> tuple[float, float]:
    """Seconds to open, and to open and do `what`; the best of three."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", MEASURE, url, what], check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(3)
    ]
    return min(float(run[0]) for run in runs), min(float(run[1]) for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--url", help="an empty database instead of a SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pool.db"
        url = options.url or f"sqlite:///{file}"
        grow(url, options.tasks)
        size = f", {file.stat().st_size / 2**20:.0f} MB" if file.exists() else ""
        print(f"{options.tasks:,} tasks{size}")
        print(f"open          {measure(url, 'open')[0]:6.2f} s")
        for what in ("status", "tasks", "novelty"):
            print(f"open, {what:7} {measure(url, what)[1]:6.2f} s")


if __name__ == "__main__":
    main()
