"""How full `generate` keeps a model, and what it costs us: requests in flight, CPU time a request, memory.

    python tests/benchmarks/bench_generate.py [--target 2000] [--slots 64] [--seconds 2] [--padding 20000]

The model is simulated: a log-normal latency (median `--seconds` for an instruction request, less for the shorter
steps), replies of Zipf words, and after each classification as much text that nobody wants (`--padding` characters), so
that the journal grows far beyond the pool. Prints, for the whole run from the first request to the last reply:

    in flight    the mean number of requests on their way, as a share of the slots (at least 90%)
    CPU          our own milliseconds a request, all threads (below 3)
    memory       how much the peak grew during the run, beside the size of the journal
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import random
import resource
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from selfinstruct_argilla.llm.base import Reply, Request
from selfinstruct_argilla.project import open_project

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "ou") for c in ("", "n", "rt", "st", "ling")]
WORDS += [f"{a}{b}" for a in WORDS[:80] for b in WORDS[80:160]]
WEIGHTS = list(accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))
SHARE_OF_LATENCY = {"instructions": 1.0, "classification": 0.2, "input_first": 0.6, "output_first": 0.6}


def text(source: random.Random, mean: int) -> str:
    return " ".join(source.choices(WORDS, cum_weights=WEIGHTS, k=source.randint(mean // 2, mean * 3 // 2)))


def answer(request: Request, source: random.Random, padding: int) -> str:
    """An answer that depends on the request alone; one in ten tasks is unusable."""
    if request.step == "instructions":
        listed = [f"{n}. {text(source, 16)}" for n in range(9, 17)]
        return "\n".join(listed).removeprefix("9.")
    if request.step == "classification":
        return source.choice([" Yes", " No", " No", " No"]) + "\n" + "x" * padding
    if request.step == "output_first":
        return f"Class label: good\n{text(source, 13)}\nClass label: bad\n{text(source, 13)}"
    return f"Input: {text(source, 13)}\n" + ("" if source.random() < 0.1 else f"Output: {text(source, 19)}")


class Simulated:
    """A model with a latency; it adds up how many requests were on their way for how long."""

    def __init__(self, seconds: float, padding: int) -> None:
        self._seconds, self._padding = seconds, padding
        self.requests, self.in_flight, self.most = 0, 0, 0
        self.area, self.begun, self.ended, self.own = 0.0, 0.0, 0.0, 0.0

    async def complete(self, request: Request) -> Reply:
        source = random.Random(request.key)
        self.requests += 1
        self._count(+1)
        await asyncio.sleep(source.lognormvariate(0, 0.5) * self._seconds * SHARE_OF_LATENCY[request.step])
        self._count(-1)
        begun = time.thread_time()
        text = answer(request, source, self._padding)
        self.own += time.thread_time() - begun
        return Reply(text, "stop", 1000, 200)

    async def close(self) -> None: ...

    def _count(self, change: int) -> None:
        now = time.perf_counter()
        self.begun = self.begun or now
        self.area += self.in_flight * (now - (self.ended or now))
        self.ended = now
        self.in_flight += change
        self.most = max(self.most, self.in_flight)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--padding", type=int, default=20_000)
    parser.add_argument("--wave", type=int, default=64)
    parser.add_argument("--lookahead", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="show where the CPU time goes")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pool.db"
        values = {
            "pool": f"sqlite:///{file}",
            "bootstrap.target": options.target,
            "bootstrap.wave": options.wave,
            "bootstrap.lookahead": options.lookahead,
            "models.generator.concurrency": options.slots,
        }
        model = Simulated(options.seconds, options.padding)
        overrides = [f"{name}={value}" for name, value in values.items()]
        with open_project("self_instruct", overrides=overrides, model=model) as project:
            project.add_seeds()
            before, cpu, wall = megabytes(), os.times(), time.perf_counter()
            with cProfile.Profile() if options.profile else open(os.devnull) as profile:
                result = project.generate()
            spent, wall = os.times(), time.perf_counter() - wall
            grown = megabytes() - before
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    assert result.generated == options.target, result
    share = model.area / (model.ended - model.begun) / options.slots
    print(f"candidates  {result.generated:,} from {model.requests:,} requests in {wall:.1f} s; {result.discards}")
    print(f"in flight   {share:.1%} of {options.slots} slots on average, {model.most} at most")
    user, system = (1000 * (spent[n] - cpu[n]) / model.requests for n in (0, 1))
    user -= 1000 * model.own / model.requests  # the simulation's
    print(f"CPU         {user + system:.2f} ms a request: {user:.2f} of ours, {system:.2f} in the kernel")
    print(f"memory      the peak grew by {grown:.0f} MB; the pool with its journal has {size:.0f} MB")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
