"""How long a release of 50,000 tasks (80,000 instances) takes, and how much of the next one is already on the Hub.

    python tests/benchmarks/bench_release.py [--tasks 50000]

Prints seconds, peak memory, and for a release that adds 1% of tasks the share of its bytes in chunks that the previous
release does not hold, cut as Xet cuts them (gear hash, 8 to 128 KiB, 64 KiB on average): what a client would upload.
Tasks of a new round have the last ids, and are the case to look at; where the added ids are spread evenly among the
others, rows sorted by id leave no stretch of 64 KiB as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.release.publish import publish
from selfinstruct_argilla.tasks import Instance, Origin, Provenance, Status, Task

_GEAR = np.random.default_rng(0).integers(0, 2**64, 256, dtype=np.uint64)
_LEAST, _MOST, _MASK = 8 << 10, 128 << 10, np.uint64(0xFFFF000000000000)


def make_tasks(numbers: range, instances: float) -> list[Task]:
    """Tasks of words with Zipf's frequencies, as long as Self-Instruct's (16, 13 and 19 words on average)."""
    words = [
        f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "ou") for c in ("", "n", "rt", "st", "ling")
    ]
    words += [f"{a}{b}" for a in words[:80] for b in words[80:160]]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))

    def text(source: random.Random, mean: int) -> str:
        return " ".join(source.choices(words, cum_weights=weights, k=source.randint(mean // 2, mean * 3 // 2)))

    tasks = []
    for number in numbers:
        source = random.Random(number)
        count = 1 + (source.random() < instances - 1)
        tasks.append(
            Task(
                id=f"gen_{number:08d}",
                instruction=text(source, 16),
                instances=tuple(
                    Instance(text(source, 13) if source.random() < 0.55 else "", text(source, 19)) for _ in range(count)
                ),
                status=Status.ACCEPTED,
                origin=Origin.GENERATED,
                round=1 + number // 1000,
                provenance=Provenance(
                    "model", hashlib.sha256(b"%d" % number).hexdigest(), (f"seed_task_{number % 175}",)
                ),
                max_rouge_l=source.random() * 0.7,
                nearest=f"gen_{number // 2:08d}",
            )
        )
    return tasks


def chunks(data: bytes) -> Iterator[bytes]:
    """The data cut by content: where the hash of the last 64 bytes ends a chunk."""
    found = _GEAR[np.frombuffer(data, np.uint8)]
    for step in (1, 2, 4, 8, 16, 32):  # h[i] = sum of gear[b[i - k]] << k, by doubling
        shifted = np.zeros_like(found)
        shifted[step:] = found[:-step] << np.uint64(step)
        found = found + shifted
    start = 0
    for end in [*np.flatnonzero((found & _MASK) == 0) + 1, len(data)]:
        while end - start > _MOST:
            yield data[start : start + _MOST]
            start += _MOST
        if end - start >= _LEAST or end == len(data):
            yield data[start:end]
            start = int(end)


def new_share(before: Path, after: Path) -> tuple[int, int]:
    """Bytes of `after` in chunks that `before` does not hold, and all its bytes."""
    held = {hashlib.sha256(chunk).digest() for path in files(before) for chunk in chunks(path.read_bytes())}
    cut = [chunk for path in files(after) for chunk in chunks(path.read_bytes())]
    return sum(len(c) for c in cut if hashlib.sha256(c).digest() not in held), sum(map(len, cut))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000)
    count: int = parser.parse_args().tasks
    say = sys.stdout.write
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.yaml").write_text("name: bench\nmodels: {generator: {model: m}}\n", encoding="utf-8")
        recipe = Recipe.load(folder / "recipe.yaml")
        for case, late in (("ids at the end", range(count, count + count // 100)), ("ids in between", None)):
            tasks = make_tasks(range(count + count // 100), 1.6)
            numbers = set(late or random.Random(1).sample(range(len(tasks)), count // 100))
            first = [task for number, task in enumerate(tasks) if number not in numbers]
            with TaskPool.open(f"sqlite:///{folder}/{len(case)}{case[:6]}.db") as pool:
                with pool.write() as writer:
                    writer.add(first, kind="generated")
                start, cpu = time.perf_counter(), time.process_time()
                result = publish(pool, recipe, to=folder / "one" / case)
                say(
                    f"{case}: {result.tasks:,} tasks, {result.instances:,} instances in "
                    f"{time.perf_counter() - start:.1f} s ({time.process_time() - cpu:.1f} s CPU), "
                    f"{len(result.withheld)} withheld\n"
                )
                with pool.write() as writer:
                    writer.add([task for number, task in enumerate(tasks) if number in numbers], kind="generated")
                before = folder / "before" / case
                before.parent.mkdir(exist_ok=True)
                (folder / "one" / case).rename(before)
                shutil.copytree(before, folder / "one" / case)
                start, cpu = time.perf_counter(), time.process_time()
                result = publish(pool, recipe, to=folder / "one" / case)
                say(
                    f"  +1% ({len(result.added):,} tasks) in {time.perf_counter() - start:.1f} s "
                    f"({time.process_time() - cpu:.1f} s CPU)"
                )
                new, total = new_share(before, folder / "one" / case)
                say(f"; new bytes {new:,} of {total:,} = {new / total:.1%}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"peak memory {peak:,.0f} MiB\n")


if __name__ == "__main__":
    main()
