"""Which pool tasks a prompt shows: chosen by a seeded generator, so that the same pool gives the same prompt."""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Iterable, Sequence

from ..pool.pool import Outline
from ..tasks import Origin, Status, Task

Weighted = tuple[str, float]  # a task's id, and how much oftener than one of weight 1 it is drawn


def generator(seed: int, *place: int | str) -> random.Random:
    """A random generator of its own for a place in the run (round, wave, position, …); the same on every machine."""
    return random.Random(":".join(map(str, (seed, *place))))


def demonstrable(tasks: Iterable[Outline]) -> list[Weighted]:
    """Those that a prompt may show beside seeds; of a task and its distilled outputs the task itself."""
    return [(task.id, strength(task)) for task in tasks if task.origin is not Origin.SEED and not task.distilled]


def draw_for_instructions(
    seeds: Sequence[Task], generated: Sequence[Weighted], rng: random.Random, *, seed_count: int, generated_count: int
) -> list[str]:
    """Ids of the demonstrations of an instruction prompt, shuffled: up to `generated_count` generated tasks without
    replacement, filled up with seeds to `seed_count + generated_count` (Self-Instruct, section 2.2). What people accept
    more clearly is shown more often."""
    chosen = _weighted(generated, min(generated_count, len(generated)), rng)
    fill = min(seed_count + generated_count - len(chosen), len(seeds))
    chosen += [task.id for task in rng.sample(list(seeds), fill)]
    rng.shuffle(chosen)
    return chosen


def draw_for_classification(seeds: Sequence[Task], rng: random.Random, *, yes: int = 12, no: int = 19) -> list[Task]:
    """Few-shot examples of the classification step, mixed: 12 classification tasks and 19 others (Table 7)."""
    chosen = _some([task for task in seeds if task.is_classification], yes, rng)
    chosen += _some([task for task in seeds if task.is_classification is False], no, rng)
    rng.shuffle(chosen)
    return chosen


def draw_for_instances(
    seeds: Sequence[Task], rng: random.Random, *, classification: bool, count: int, longest: int
) -> list[Task]:
    """Few-shot examples of an instance step: `count` seeds of the kind whose texts have at most `longest` characters
    together (the shortest ones where too few do). Those with several instances come first: they show that several
    are wanted."""
    kind = [task for task in seeds if bool(task.is_classification) is classification]
    fitting = [task for task in kind if _size(task) <= longest]
    if len(fitting) < count:
        fitting = sorted(kind, key=_size)[:count]
    several = _some([task for task in fitting if len(task.instances) > 1], count // 2, rng)
    chosen = several + _some([task for task in fitting if task not in several], count - len(several), rng)
    rng.shuffle(chosen)
    return chosen


def strength(task: Outline) -> float:
    """How clearly people accepted a task: the odds of an acceptance, one more vote counted on either side. 1 where
    nobody has judged it, 2 after one acceptance (or where it came in as accepted), 4 after three, 1.5 after two to one.
    """
    if task.status is not Status.ACCEPTED:
        return 1.0
    ayes, noes = task.votes if any(task.votes) else (1, 0)
    return (ayes + 1) / (noes + 1)


def one_line(text: str) -> str:
    """A text as a demonstration shows it: one line, no colon at its end."""
    return re.sub(r"\s+", " ", text).strip().rstrip(":")


def _weighted(tasks: Sequence[Weighted], count: int, rng: random.Random) -> list[str]:
    # a key of u**(1/weight) for each, the largest win: sampling by weight without replacement (Efraimidis, Spirakis)
    keyed = ((rng.random() ** (1 / weight), task_id) for task_id, weight in tasks)
    return [task_id for _, task_id in heapq.nlargest(count, keyed)]


def _some(tasks: Sequence[Task], count: int, rng: random.Random) -> list[Task]:
    return rng.sample(list(tasks), min(count, len(tasks)))


def _size(task: Task) -> int:
    return len(task.instruction) + sum(len(i.input) + len(i.output) for i in task.instances)
