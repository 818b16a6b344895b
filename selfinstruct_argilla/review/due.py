"""What is due for review, in which order, and for whom. Pure, and the same on every machine: chance is a hash.

Most useful first: what a judge model thinks good (it is the likeliest to be accepted), then what is farthest from
every earlier task (it adds most).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..pool.pool import Outline
from ..recipe import Review
from ..tasks import digest, external_id
from .records import Opinion
from .rubric import Rubric


@dataclass(frozen=True, slots=True)
class Entry:
    """Instances of one task that are to be pushed, without their texts: there may be many. several: those that
    `min_submitted` people judge; assigned: who, by instance. gold: the known answers of a calibration record, which
    only looks like a task."""

    task_id: str
    instances: tuple[int, ...]
    max_rouge_l: float = 0.0
    several: frozenset[int] = frozenset()
    assigned: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    gold: dict[str, Any] | None = None

    @property
    def records(self) -> list[str]:
        """External ids."""
        return [external_id(self.task_id, instance) for instance in self.instances]


def draw(candidates: Iterable[Outline], review: Review, *, reviewed: int) -> list[Entry]:
    """The candidates that may be due. reviewed: tasks that were pushed before.

    With `sample`, that many tasks in all, drawn at random, with one instance of each (Self-Instruct, section 3.2).
    """
    if review.sample is None:
        return [Entry(task.id, tuple(range(task.instances)), task.max_rouge_l or 0.0) for task in candidates]
    drawn = sorted(candidates, key=lambda task: _chance("sample", task.id))[: max(0, review.sample - reviewed)]
    return [Entry(task.id, (_chance("instance", task.id) % task.instances,), task.max_rouge_l or 0.0) for task in drawn]


def choose(entries: Iterable[Entry], review: Review, *, waiting: int, worth: Mapping[str, float]) -> list[Entry]:
    """What is due of what was drawn, most useful first.

    waiting: records that people have still to judge; worth: how likely a task is accepted, by id, where a judge model
    was asked. With `batch`, whole tasks while no more than that many records wait.
    """
    order = sorted(entries, key=lambda entry: (-worth.get(entry.task_id, 0.0), entry.max_rouge_l, entry.task_id))
    if review.batch is None:
        return order
    due: list[Entry] = []
    for entry in order:
        waiting += len(entry.instances)
        if waiting > review.batch and (due or waiting > len(entry.instances)):
            break  # a task with more instances than a whole batch goes alone
        due.append(entry)
    return due


def share_out(
    entries: Sequence[Entry], review: Review, *, records: int, several: int, loads: Mapping[str, int]
) -> Iterator[Entry]:
    """The entries with their annotators, one after the other.

    records, several: how many records were pushed before, and how many of them for several people; after this one the
    share is `overlap` again. loads: how many records each annotator has; the least burdened come first.
    """
    lots = sorted(_chance("overlap", key) for entry in entries if entry.gold is None for key in entry.records)
    wanted = min(len(lots), round(review.overlap * (records + len(lots))) - several)
    last = lots[wanted - 1] if wanted > 0 else -1
    del lots  # there may be many
    burden = Counter({name: loads.get(name, 0) for name in review.annotators})
    for entry in entries:
        if entry.gold is not None:
            yield replace(entry, assigned=dict.fromkeys(entry.instances, tuple(sorted(burden))))
            continue
        mine, assigned = set(), {}
        for instance, key in zip(entry.instances, entry.records, strict=True):
            if _chance("overlap", key) <= last:
                mine.add(instance)
            assigned[instance] = assign(key, review.min_submitted if instance in mine else 1, burden)
            burden.update(assigned[instance])
        yield replace(entry, several=frozenset(mine), assigned=assigned)


def assign(key: str, people: int, burden: Mapping[str, int]) -> tuple[str, ...]:
    """The `people` who have the least to do, sorted by name; equals are drawn. Nobody, where nobody is named."""
    return tuple(sorted(sorted(burden, key=lambda name: (burden[name], _chance(name, key)))[:people]))


def mix(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Entry]:
    """The entries in their order, with the others anywhere among them."""
    mixed = list(entries)
    for other in others:
        mixed.insert(_chance("mix", other.task_id) % (len(mixed) + 1), other)
    return mixed


def worth(opinions: Iterable[Opinion], rubric: Rubric) -> float:
    """How likely a judge model thinks that all these records are accepted, from 0 to 1."""
    found = 1.0
    for opinion in opinions:
        for question, answer in opinion.answers.items():
            if question in rubric.accept:
                speaks_for = rubric.accept[question].holds(answer["value"])
                found *= answer["score"] if speaks_for else 1 - answer["score"]
    return found


def _chance(*parts: str) -> int:
    return int(digest(list(parts))[:12], 16)
