"""Near-duplicates among many texts: pairs, and the groups they form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from selfinstruct_argilla.similarity.index import NoveltyIndex


def near_pairs(texts: Iterable[str], at_least: float = 0.7, tokens: str = "auto") -> Iterator[tuple[int, int, float]]:
    """Every (i, j, score) with i < j and a score of `at_least` that much, in (0, 1]; by j, then best score first."""
    index = NoveltyIndex(tokens=tokens)
    for j, text in enumerate(texts):
        for i, score in index.matches(text, at_least):
            yield i, j, score
        index.add(j, text)


def near_groups(texts: Iterable[str], at_least: float = 0.7, tokens: str = "auto") -> list[list[int]]:
    """The positions of all texts, in groups: texts joined by near pairs, directly or through others, are together.

    A text without a near pair is a group of one. Groups and their members are in ascending order.
    """
    texts = list(texts)
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, j, _ in near_pairs(texts, at_least, tokens):
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for i in range(len(texts)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())
