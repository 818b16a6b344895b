"""Speed and memory of the novelty index beside `rouge_score`, in one run on one corpus.

    python tests/benchmarks/bench_novelty.py                                 # 52,000 texts, with statistics for all
    python tests/benchmarks/bench_novelty.py --size 500000 --no-statistics   # statistics would take 10 to 15 minutes

The corpus is made from the seed tasks: recombined halves of instructions with content words exchanged for words of an
open vocabulary (Zipf's law, as in real text), and near-duplicates at every level, from exact copies to half the words.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_argilla.similarity.index import NoveltyIndex

SEEDS = Path(__file__).parents[2] / "seeds" / "seed_tasks.jsonl"
SYLLABLES = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er", "ion")]


def corpus(seed: int = 0) -> Iterator[str]:
    """Instructions without end, the same ones every time."""
    rng = random.Random(seed)
    with SEEDS.open(encoding="utf-8") as lines:
        instructions = [json.loads(line)["instruction"].split() for line in lines]
    counts = Counter(word.lower() for words in instructions for word in words)
    frame_words = {word for word, _ in counts.most_common(100)}
    known_words = [word for word in counts if word not in frame_words]

    def word() -> str:
        rank = int(math.exp(rng.uniform(3, 11)))  # a probability of 1 / rank, from 20 (below are frame words) to 60,000
        if rank - 20 < len(known_words):
            return known_words[rank - 20]
        parts = []
        while rank:
            rank, part = divmod(rank, len(SYLLABLES))
            parts.append(SYLLABLES[part])
        return "".join(parts)

    def fresh() -> list[str]:
        head, tail = rng.choice(instructions), rng.choice(instructions)
        words = head[: rng.randint(len(head) // 2, len(head))] + tail[rng.randint(len(tail) // 2, len(tail)) :]
        return [w if w.lower() in frame_words or rng.random() < 0.3 else word() for w in words[:60]] or [word()]

    def near(words: list[str]) -> list[str]:
        words = list(words)
        for _ in range(rng.randint(0, len(words) // 2)):
            position = rng.randrange(len(words))
            words[position : position + 1] = rng.choice(([word()], [], [words[position], word()]))
            words = words or [word()]
        return words

    made: list[list[str]] = []
    while True:
        words = near(rng.choice(made)) if made and rng.random() < 0.4 else fresh()
        if len(made) < 100_000:
            made.append(words)
        else:
            made[rng.randrange(len(made))] = words
        yield " ".join(words)


def write(size: int) -> list[str]:
    return list(islice(corpus(), size))


def build(keys: list[int], texts: list[str]) -> tuple[NoveltyIndex, list[int], float]:
    """The index of all novel texts, checked and added one after the other; their keys; the seconds it took."""
    index = NoveltyIndex()
    accepted = []
    start = time.perf_counter()
    for key, text in zip(keys, texts, strict=True):
        if index.is_novel(text):
            index.add(key, text)
            accepted.append(key)
    return index, accepted, time.perf_counter() - start


def compare_decisions(pool: list[str], candidates: list[str], sample: int) -> None:
    """Time per decision against a pool of exactly these texts, and `rouge_score` on the first few candidates."""
    index = NoveltyIndex()
    for number, text in enumerate(pool):
        index.add(number, text)
    seconds, decisions = [], []
    for text in candidates:
        start = time.perf_counter()
        decisions.append(index.is_novel(text))
        seconds.append(time.perf_counter() - start)
    scorer = RougeScorer(["rougeL"])
    start = time.perf_counter()
    # A list, not a generator: the reference implementations score the whole pool before they decide.
    highest = [max([scorer.score(text, c)["rougeL"].fmeasure for text in pool]) for c in candidates[:sample]]
    slow = (time.perf_counter() - start) / sample
    assert decisions[:sample] == [score <= 0.7 for score in highest]
    mean, median, p99 = np.mean(seconds), np.median(seconds), np.quantile(seconds, 0.99)
    print(
        f"decision, pool of {len(pool):,}: mean {mean * 1e6:.0f} us, median {median * 1e6:.0f}, p99 {p99 * 1e6:.0f};"
        f" RougeScorer.score over the pool {slow:.2f} s, {slow / mean:,.0f} times as long"
    )


def resident_bytes() -> int:
    """Memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=52_000, help="candidates (default: %(default)s)")
    parser.add_argument("--no-statistics", action="store_true", help="leave out top 10 and mean for all")
    arguments = parser.parse_args()

    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    with ProcessPoolExecutor(1) as writer:  # in a process of its own, so that its memory is not counted or used again
        texts = writer.submit(write, arguments.size + 3000).result()
    texts, unseen = texts[: arguments.size], texts[arguments.size :]
    lengths = [len(text.split()) for text in texts]
    print(f"{len(texts):,} candidates, {np.mean(lengths):.1f} words on average, at most {max(lengths)}")

    keys = list(range(len(texts)))
    before = resident_bytes()
    index, accepted, seconds = build(keys, texts)
    grown = (resident_bytes() - before) / len(index)
    print(
        f"build: {seconds:.2f} s, {len(texts) / seconds:,.0f} candidates/s, {len(index):,} accepted,"
        f" {grown:.0f} bytes each beyond the texts"
    )
    compare_decisions(texts[:52_000], unseen, sample=4)
    if not arguments.no_statistics:
        start = time.perf_counter()
        for _ in index.statistics_before(accepted):
            pass
        more = time.perf_counter() - start
        print(f"top 10 and mean of all accepted: {more:.2f} s more, {seconds + more:.2f} s together")


if __name__ == "__main__":
    main()
