"""How far people agree, and how sure a share is: pure functions over ratings.

Ratings are one mapping for each item, annotator → category; an item that fewer than two people rated says nothing
about agreement and is passed over. Every statistic is None where it is not defined (no such items, or nothing varies).

- percent agreement: the share of pairs of ratings of one item that are equal;
- Cohen's κ (1960) of two annotators; Fleiss' κ (1971) of items with equally many ratings;
- Krippendorff's α (2004; nominal, ordinal), with a percentile bootstrap interval over items;
- Spearman's ρ of two annotators, ties sharing their mean rank; Wilson's interval (1927) of a share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

Ratings = Sequence[Mapping[str, Hashable]]
Level = Literal["nominal", "ordinal"]
_Array = npt.NDArray[np.float64]
_RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50  # bounds memory: weights of 50 resamples × items


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators over the `items` that both rated."""

    first: str
    second: str
    items: int
    percent: float
    kappa: float | None
    rho: float | None


@dataclass(frozen=True)
class Agreement:
    """Agreement on one question. `kappa` and `rho` are means over pairs of annotators, weighted by their common items;
    `alpha_interval` is the 95 % bootstrap interval of α, which is ordinal where the categories have an order."""

    items: int
    annotators: int
    percent: float
    kappa: float | None
    fleiss_kappa: float | None
    alpha: float | None
    alpha_interval: tuple[float, float] | None
    rho: float | None
    pairs: tuple[PairAgreement, ...]


def agreement(ratings: Ratings, *, order: Sequence[Hashable] | None = None) -> Agreement | None:
    """Everything about one question, or None where no item was rated twice.

    order: the categories from lowest to highest, where they have an order; then α is ordinal and ρ is given.
    """
    rated = [item for item in ratings if len(item) >= 2]
    if not rated:
        return None
    level: Level = "ordinal" if order is not None else "nominal"
    pairs = tuple(_pairs(rated, order))
    counts = _counts(rated, order)
    return Agreement(
        items=len(rated),
        annotators=len({name for item in rated for name in item}),
        percent=percent_agreement(rated) or 0.0,
        kappa=_weighted_mean([(pair.kappa, pair.items) for pair in pairs]),
        fleiss_kappa=fleiss_kappa(rated),
        alpha=_alpha(_coincidences(counts).sum(axis=0), level),
        alpha_interval=_alpha_interval(counts, level),
        rho=_weighted_mean([(pair.rho, pair.items) for pair in pairs]),
        pairs=pairs,
    )


def percent_agreement(ratings: Ratings) -> float | None:
    """The share of equal ones among all pairs of ratings of one item."""
    equal = pairs = 0
    for item in ratings:
        equal += sum(math.comb(count, 2) for count in Counter(item.values()).values())
        pairs += math.comb(len(item), 2)
    return equal / pairs if pairs else None


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two annotators beyond what their own frequencies would give by chance."""
    total = len(first)
    if total == 0:
        return None
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    ones, others = Counter(first), Counter(second)
    chance = sum(count * others[category] for category, count in ones.items()) / total**2
    return (observed - chance) / (1 - chance) if chance < 1 else None


def fleiss_kappa(ratings: Ratings) -> float | None:
    """Fleiss' κ, which wants equally many ratings: over the items that have their commonest number (at least 2)."""
    sizes = Counter(len(item) for item in ratings if len(item) >= 2)
    if not sizes:
        return None
    size = max(sizes, key=lambda n: (sizes[n], n))
    counts = _counts([item for item in ratings if len(item) == size], None)
    observed = float(((counts * (counts - 1)).sum(axis=1) / (size * (size - 1))).mean())
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    return (observed - chance) / (1 - chance) if chance < 1 else None


def krippendorff_alpha(ratings: Ratings, *, order: Sequence[Hashable] | None = None) -> float | None:
    """Krippendorff's α of any number of annotators, with gaps; ordinal where `order` is given."""
    rated = [item for item in ratings if len(item) >= 2]
    if not rated:
        return None
    return _alpha(_coincidences(_counts(rated, order)).sum(axis=0), "ordinal" if order is not None else "nominal")


def spearman_rho(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation of two annotators; None where one of them rated everything alike."""
    if len(first) < 2:
        return None
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / scale if scale else None


def wilson_interval(successes: int, total: int, *, z: float = 1.959963984540054) -> tuple[float, float] | None:
    """The interval of a share (95 % by default)."""
    if total == 0:
        return None
    share = successes / total
    centre = share + z**2 / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


# inside -------------------------------------------------------------------------------------------


def _pairs(ratings: Ratings, order: Sequence[Hashable] | None) -> list[PairAgreement]:
    ranks = {category: float(rank) for rank, category in enumerate(order)} if order is not None else None
    common: dict[tuple[str, str], tuple[list[Hashable], list[Hashable]]] = {}
    for item in ratings:
        for first, second in combinations(sorted(item), 2):
            ones, others = common.setdefault((first, second), ([], []))
            ones.append(item[first])
            others.append(item[second])
    return [
        PairAgreement(
            first=first,
            second=second,
            items=len(ones),
            percent=sum(a == b for a, b in zip(ones, others, strict=True)) / len(ones),
            kappa=cohen_kappa(ones, others),
            rho=spearman_rho([ranks[a] for a in ones], [ranks[b] for b in others]) if ranks is not None else None,
        )
        for (first, second), (ones, others) in sorted(common.items())
    ]


def _counts(ratings: Ratings, order: Sequence[Hashable] | None) -> _Array:
    """How many people chose each category, items × categories; categories in their order where they have one."""
    categories = order if order is not None else list(dict.fromkeys(v for item in ratings for v in item.values()))
    column = {category: number for number, category in enumerate(categories)}
    counts = np.zeros((len(ratings), len(column)))
    for row, item in enumerate(ratings):
        for category in item.values():
            counts[row, column[category]] += 1
    return counts


def _coincidences(counts: _Array) -> _Array:
    """Each item's part of Krippendorff's coincidence matrix, items × categories × categories."""
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(counts.shape[1])
    pairs[:, diagonal, diagonal] -= counts
    weighted: _Array = pairs / (counts.sum(axis=1) - 1)[:, None, None]
    return weighted


def _alpha(coincidences: _Array, level: Level) -> float | None:
    sums = coincidences.sum(axis=0)
    distances = _distances(sums, level)
    observed = float((coincidences * distances).sum())
    expected = float((np.outer(sums, sums) * distances).sum()) / (float(sums.sum()) - 1)
    return 1 - observed / expected if expected > 0 else None


def _distances(sums: _Array, level: Level) -> _Array:
    """Squared distances between categories, given how often each occurs."""
    if level == "nominal":
        return 1 - np.eye(len(sums))
    middle = np.cumsum(sums) - sums / 2
    distances: _Array = (middle[:, None] - middle[None, :]) ** 2
    return distances


def _alpha_interval(counts: _Array, level: Level) -> tuple[float, float] | None:
    """Percentile bootstrap over items, from a fixed seed so that the same ratings give the same interval."""
    items, categories = counts.shape
    parts = _coincidences(counts).reshape(items, categories * categories)
    random = np.random.default_rng(0)
    found = []
    for start in range(0, _RESAMPLES, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, _RESAMPLES - start)
        weights = random.multinomial(items, np.full(items, 1 / items), size=size)
        for total in weights @ parts:
            alpha = _alpha(total.reshape(categories, categories), level)
            if alpha is not None:
                found.append(alpha)
    if not found:
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _ranks(values: Sequence[float]) -> _Array:
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: _Array = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _weighted_mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known) if known else None
