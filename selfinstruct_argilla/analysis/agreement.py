"""How far people agree, and how sure a share is: pure functions over ratings.

Ratings are one mapping for each item, annotator → category; an item that fewer than two people rated says nothing
about agreement and is passed over. Every statistic is None where it is not defined (no such items, or nothing varies).

- percent agreement: the share of pairs of ratings of one item that are equal;
- Cohen's κ (1960) of two annotators; Fleiss' κ (1971) of items with equally many ratings;
- Krippendorff's α (2004; nominal, ordinal) of any number of annotators, with gaps;
- Spearman's ρ of two annotators, ties sharing their mean rank; Wilson's interval (1927) of a share.

`agreement` gives them all, each with a 95 % percentile bootstrap interval over items.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ratings = Sequence[Mapping[str, Hashable]]
Level = Literal["nominal", "ordinal"]
_Array = npt.NDArray[np.float64]
_TITLES = {
    "cohen_kappa": "Cohen's κ",
    "fleiss_kappa": "Fleiss' κ",
    "krippendorff_alpha": "Krippendorff's α",
    "krippendorff_alpha_ordinal": "ordinal α",
    "spearman_rho": "Spearman's ρ",
}
_RESAMPLES = 1000
_NUMBERS_AT_ONCE = 2_000_000  # bounds memory: of resamples


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % bootstrap interval."""

    value: float
    interval: tuple[float, float] | None


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
    `alpha` is nominal; `ordinal_alpha` and `rho` are there where the categories have an order."""

    items: int
    annotators: int
    percent: Estimate
    kappa: Estimate | None
    fleiss_kappa: Estimate | None
    alpha: Estimate | None
    ordinal_alpha: Estimate | None
    rho: Estimate | None
    pairs: tuple[PairAgreement, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures without anybody's name; an interval stands beside its statistic, as `…_interval`."""
        named = {
            "percent": self.percent,
            "cohen_kappa": self.kappa,
            "fleiss_kappa": self.fleiss_kappa,
            "krippendorff_alpha": self.alpha,
            "krippendorff_alpha_ordinal": self.ordinal_alpha,
            "spearman_rho": self.rho,
        }
        found: dict[str, Any] = {"records": self.items, "annotators": self.annotators}
        for name, estimate in named.items():
            found[name] = estimate.value if estimate else None
            found[f"{name}_interval"] = list(estimate.interval) if estimate and estimate.interval else None
        return found


def agreement(ratings: Ratings, *, order: Sequence[Hashable] | None = None) -> Agreement | None:
    """Everything about one question, or None where no item was rated twice.

    order: the categories from lowest to highest, where they have an order.
    """
    rated = [item for item in ratings if len(item) >= 2]
    if not rated:
        return None
    patterns = _Patterns(rated, order)
    point = {name: float(value[0]) for name, value in patterns.statistics(patterns.times[None, :]).items()}
    samples = [patterns.statistics(weights) for weights in patterns.resampled()]
    resampled = {name: np.concatenate([sample[name] for sample in samples]) for name in point}
    found = {
        name: None if math.isnan(value) else Estimate(value, _interval(resampled[name]))
        for name, value in point.items()
    }
    percent = found["percent"]
    assert percent is not None
    return Agreement(
        items=len(rated),
        annotators=len({name for item in rated for name in item}),
        percent=percent,
        kappa=found["kappa"],
        fleiss_kappa=found["fleiss_kappa"],
        alpha=found["nominal"],
        ordinal_alpha=found.get("ordinal"),
        rho=found.get("rho"),
        pairs=tuple(patterns.pairs()),
    )


def describe_agreement(found: Mapping[str, Any]) -> str:
    """What `Agreement.to_json` gave, as a person reads it; brackets hold 95 % intervals."""
    figures = [f"{found['percent']:.0%} of pairs are equal{describe_interval(found['percent_interval'], '.0%')}"]
    figures += [
        f"{title} {found[name]:.2f}{describe_interval(found[f'{name}_interval'], '.2f')}"
        for name, title in _TITLES.items()
        if found[name] is not None
    ]
    return ", ".join(figures)


def by_question(quality: Mapping[str, Any]) -> dict[str, Any]:
    """The agreement on each question's answers; nothing where that on the verdict says as much."""
    found = {name: question["answers"] for name, question in quality["questions"].items() if question["answers"]}
    return {} if list(found.values()) == [quality["verdicts"]] else found


def describe_interval(interval: Sequence[float] | None, form: str) -> str:
    """` (low to high)`, or nothing; nothing either where all resamples say the same."""
    return f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval and interval[0] < interval[1] else ""


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


class _Patterns:
    """Items that the same people rated alike, counted: to resample items is to draw these counts anew.

    Each statistic takes `weights`, samples × patterns, and gives one value a sample, NaN where it is not defined.
    """

    def __init__(self, rated: Ratings, order: Sequence[Hashable] | None) -> None:
        self.ordered = order is not None
        counted = Counter(tuple(sorted(item.items())) for item in rated)
        values = order if order is not None else list(dict.fromkeys(v for item in rated for v in item.values()))
        column = {value: number for number, value in enumerate(values)}
        self.times = np.array(list(counted.values()), dtype=np.float64)
        self._size = len(column)
        self._counts = np.zeros((len(counted), len(column)))
        cells: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        for row, pattern in enumerate(counted):
            for _, value in pattern:
                self._counts[row, column[value]] += 1
            for (first, one), (second, other) in combinations(pattern, 2):
                rows, chosen = cells.setdefault((first, second), ([], []))
                rows.append(row)
                chosen.append(column[one] * len(column) + column[other])
        self._cells = {pair: (np.array(r), np.array(c)) for pair, (r, c) in sorted(cells.items())}
        self._raters = self._counts.sum(axis=1)
        both = self._counts[:, :, None] * self._counts[:, None, :]
        diagonal = np.arange(len(column))
        both[:, diagonal, diagonal] -= self._counts
        self._equal = both[:, diagonal, diagonal].sum(axis=1)
        self._coincidences = (both / (self._raters - 1)[:, None, None]).reshape(len(counted), -1)
        sizes = np.unique(self._raters)
        self._commonest = max(sizes, key=lambda n: (self.times[self._raters == n].sum(), n))

    def resampled(self) -> Iterator[_Array]:
        """Weights of bootstrap samples, from a fixed seed so that the same ratings give the same intervals."""
        items, patterns = int(self.times.sum()), len(self.times)
        random = np.random.default_rng(0)
        of_item = np.repeat(np.arange(patterns), self.times.astype(np.int64))
        by_pattern = items > 8 * patterns  # drawing a pattern's count costs what drawing some items does
        at_once = max(1, _NUMBERS_AT_ONCE // max(patterns if by_pattern else items, len(self._cells) * self._size**2))
        for start in range(0, _RESAMPLES, at_once):
            size = min(at_once, _RESAMPLES - start)
            if by_pattern:
                yield random.multinomial(items, self.times / items, size=size).astype(np.float64)
                continue
            drawn = of_item[random.integers(0, items, size=(size, items), dtype=np.int32)]
            drawn += np.arange(size)[:, None] * patterns
            yield np.bincount(drawn.ravel(), minlength=size * patterns).reshape(size, patterns).astype(np.float64)

    def statistics(self, weights: _Array) -> dict[str, _Array]:
        tables = np.concatenate([self._tables(pair, weights) for pair in self._cells])
        items = tables.sum(axis=(1, 2))
        found = {
            "percent": _ratio(weights @ self._equal, weights @ (self._raters * (self._raters - 1))),
            "kappa": _mean(_kappa(tables), items, len(weights)),
            "fleiss_kappa": self.fleiss(weights),
            "nominal": self.alpha(weights, "nominal"),
        }
        if self.ordered:
            found["ordinal"] = self.alpha(weights, "ordinal")
            found["rho"] = _mean(_rho(tables), items, len(weights))
        return found

    def fleiss(self, weights: _Array) -> _Array:
        rows = self._raters == self._commonest
        weights, counts, size = weights[:, rows], self._counts[rows], self._commonest
        items = weights.sum(axis=1)
        observed = _ratio(weights @ self._equal[rows], items * size * (size - 1))
        chance = (_ratio(weights @ counts, (items * size)[:, None]) ** 2).sum(axis=1)
        return _ratio(observed - chance, 1 - chance)

    def alpha(self, weights: _Array, level: Level) -> _Array:
        coincidences = (weights @ self._coincidences).reshape(-1, self._size, self._size)
        sums = coincidences.sum(axis=1)
        if level == "nominal":
            distances = 1 - np.eye(self._size)
        else:
            middle = sums.cumsum(axis=1) - sums / 2
            distances = (middle[:, :, None] - middle[:, None, :]) ** 2
        observed = (coincidences * distances).sum(axis=(1, 2))
        expected = (sums[:, :, None] * sums[:, None, :] * distances).sum(axis=(1, 2))
        return 1 - _ratio(observed * (sums.sum(axis=1) - 1), expected)

    def pairs(self) -> Iterator[PairAgreement]:
        for first, second in self._cells:
            table = self._tables((first, second), self.times[None, :])
            items = int(table.sum())
            rho = _number(_rho(table)) if self.ordered else None
            yield PairAgreement(first, second, items, float(np.trace(table[0])) / items, _number(_kappa(table)), rho)

    def _tables(self, pair: tuple[str, str], weights: _Array) -> _Array:
        """Contingency tables of two annotators, samples × categories × categories."""
        rows, cells = self._cells[pair]
        places = np.zeros((len(rows), self._size**2))
        places[np.arange(len(rows)), cells] = 1
        tables: _Array = (weights[:, rows] @ places).reshape(-1, self._size, self._size)
        return tables


def _kappa(tables: _Array) -> _Array:
    items = tables.sum(axis=(1, 2))
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    return _ratio(items * np.trace(tables, axis1=1, axis2=2) - chance, items**2 - chance)


def _rho(tables: _Array) -> _Array:
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    one, other = _centred_ranks(rows), _centred_ranks(columns)
    together = (tables * one[:, :, None] * other[:, None, :]).sum(axis=(1, 2))
    return _ratio(together, np.sqrt((rows * one**2).sum(axis=1) * (columns * other**2).sum(axis=1)))


def _centred_ranks(frequencies: _Array) -> _Array:
    """The mean rank of each category, less the mean of all ranks."""
    ranks: _Array = frequencies.cumsum(axis=1) - frequencies / 2 - frequencies.sum(axis=1)[:, None] / 2
    return ranks


def _ratio(above: _Array, below: _Array) -> _Array:
    """`above / below`, NaN where nothing positive is below."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=np.broadcast_to(below > 1e-12, result.shape))
    return result


def _mean(values: _Array, weights: _Array, samples: int) -> _Array:
    """The weighted mean of each sample's values, where they are defined; pairs × samples in one row."""
    values, weights = values.reshape(-1, samples), weights.reshape(-1, samples)
    known = np.where(np.isnan(values), 0.0, weights)
    return _ratio((np.nan_to_num(values) * known).sum(axis=0), known.sum(axis=0))


def _interval(values: _Array) -> tuple[float, float] | None:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def _number(values: _Array) -> float | None:
    return None if math.isnan(values[0]) else float(values[0])
