"""Which split a task belongs to: train, validation or test, for ever.

A task that was published once keeps its split. A new one joins the closest published task at ROUGE-L >= 0.5; far from
all of them, a hash of its id decides. While train has no task, the first new one goes there, so that a dataset of
three tasks can be trained on. No pair at ROUGE-L >= 0.7 straddles two splits: where a split is fixed already, or a
task is close to tasks of two splits, the task is withheld, and tried again with the next release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..similarity.index import NoveltyIndex

SPLITS = ("train", "validation", "test")
JOIN = 0.5  # a new task joins the split of a task that scores this much
NEAR = 0.7  # tasks that score this much are near-duplicates (Self-Instruct, section 2.2)


@dataclass(frozen=True)
class Withheld:
    """A task that is kept out of a release: why, and the ids or names of what it is too close to."""

    task_id: str
    reason: str
    near: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """The split of each task by id, in the order in which they were placed, and what was withheld."""

    splits: dict[str, str]
    withheld: tuple[Withheld, ...]


def assign(
    instructions: Mapping[str, str],
    shares: Mapping[str, float],
    *,
    known: Mapping[str, str] | None = None,
    settled: Collection[str] = (),
    tokens: str = "auto",
) -> Assignment:
    """The splits of a release.

    `instructions` are the tasks by id, `shares` the part of each split (they sum to 1), `known` the splits given by
    earlier releases, `settled` the ids that the previous release holds with the same instruction: those come first,
    so that whatever else comes close to them is what gives way.
    """
    known = known or {}
    index = NoveltyIndex(threshold=NEAR, tokens=tokens)
    splits: dict[str, str] = {}
    withheld = []

    def place(task_id: str, split: str) -> None:
        splits[task_id] = split
        index.add(task_id, instructions[task_id])

    settled = {task_id for task_id in settled if task_id in known}
    for task_id in sorted(instructions.keys() & settled):
        place(task_id, known[task_id])
    for task_id in _in_order(instructions.keys() - settled, known):
        matches = index.matches(instructions[task_id], NEAR if task_id in known else JOIN)
        if task_id in known:
            split = known[task_id]
        elif matches:
            split = splits[matches[0].key]
        elif shares["train"] and "train" not in splits.values():
            split = "train"
        else:
            split = hashed(task_id, shares)
        near = [str(match.key) for match in matches if match.score >= NEAR]
        across = tuple(sorted(key for key in near if splits[key] != split))
        if across:
            withheld.append(Withheld(task_id, _reason(task_id in known, split), across))
        else:
            place(task_id, split)
    return Assignment(splits, tuple(withheld))


def hashed(task_id: str, shares: Mapping[str, float]) -> str:
    """The split that sha256 of the id falls into; the same on every machine and in every release."""
    point = int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:8], "big") / 2**64
    end = 0.0
    for split in SPLITS:
        end += shares[split]
        if point < end:
            return split
    return next(split for split in reversed(SPLITS) if shares[split])  # the sum may be a rounding error below 1


def _in_order(task_ids: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Tasks with a split first, then new ones, each by id."""
    return sorted(task_ids, key=lambda task_id: (task_id not in known, task_id))


def _reason(fixed: bool, split: str) -> str:
    if fixed:
        return f"it belongs to {split}, and is now too close to tasks of another split"
    return "it is too close to tasks of two splits"
