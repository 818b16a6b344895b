"""Agreement statistics equal those of the reference libraries."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_argilla.analysis.agreement import Agreement, Estimate, agreement, wilson_interval

krippendorff = pytest.importorskip("krippendorff")
metrics = pytest.importorskip("sklearn.metrics")
scipy_stats = pytest.importorskip("scipy.stats")
inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
proportion = pytest.importorskip("statsmodels.stats.proportion")

LEVELS = [1, 2, 3, 4]
level = st.sampled_from(LEVELS)
two_raters = st.lists(st.tuples(level, level), min_size=1, max_size=30)
with_gaps = st.lists(st.lists(st.none() | level, min_size=4, max_size=4), min_size=1, max_size=30)


def items(table: Sequence[Sequence[int | None]]) -> list[dict[str, int]]:
    """A table (a row for each item, a column for each annotator) as ratings."""
    return [{f"rater {n}": value for n, value in enumerate(row) if value is not None} for row in table]


def found(table: Sequence[Sequence[int | None]]) -> Agreement:
    result = agreement(items(table), order=LEVELS)
    assert result is not None
    return result


def value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate is not None else None


def alpha(table: Sequence[Sequence[int | None]], measure: str) -> float:
    """The krippendorff package's, of a table with gaps."""
    data = [[np.nan if value is None else value for value in column] for column in zip(*table, strict=True)]
    return float(krippendorff.alpha(data, value_domain=LEVELS, level_of_measurement=measure))


def percent_agreement(table: Sequence[Sequence[int | None]]) -> float:
    pairs = [pair for row in table for pair in combinations([value for value in row if value is not None], 2)]
    return sum(one == other for one, other in pairs) / len(pairs)


def same(ours: float | None, theirs: float) -> bool:
    return (ours is None and not np.isfinite(theirs)) or ours == pytest.approx(theirs, abs=1e-9)


@given(two_raters)
def test_cohen_kappa_is_sklearns(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    ours = value(found(pairs).kappa)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.cohen_kappa_score(first, second, labels=LEVELS)
    if ours is None:  # everybody always chose the same: 0 / 0
        assert len({*first, *second}) == 1
    else:
        assert same(ours, theirs)


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(level, min_size=n, max_size=n), min_size=2, max_size=20)))
def test_fleiss_kappa_is_statsmodels(table: list[list[int]]) -> None:
    counts = np.array([[row.count(category) for category in LEVELS] for row in table])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = inter_rater.fleiss_kappa(counts)
    assert same(value(found(table).fleiss_kappa), theirs)


@pytest.mark.parametrize("measure", ["nominal", "ordinal"])
@given(table=with_gaps)
def test_alpha_is_the_krippendorff_packages(measure: str, table: list[list[int | None]]) -> None:
    result = agreement(items(table), order=LEVELS)
    ours = result and value(result.ordinal_alpha if measure == "ordinal" else result.alpha)
    used = {value for row in items(table) if len(row) >= 2 for value in row.values()}
    if len(used) < 2:
        assert ours is None
        return
    assert same(ours, alpha(table, measure))


@given(two_raters.filter(lambda pairs: len(pairs) > 1))
def test_spearman_rho_is_scipys(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found(pairs).rho is None
    else:
        assert same(value(found(pairs).rho), scipy_stats.spearmanr(first, second).statistic)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_statsmodels(share: tuple[int, int]) -> None:
    ours = wilson_interval(*share)
    assert ours is not None
    assert ours == pytest.approx(proportion.proportion_confint(*share, method="wilson"), abs=1e-9)


@given(with_gaps)
@settings(max_examples=30)
def test_all_figures_are_of_the_same_items(table: list[list[int | None]]) -> None:
    result = agreement(items(table), order=LEVELS)
    rated = [row for row in items(table) if len(row) >= 2]
    if result is None:
        assert not rated
        return
    assert result.items == len(rated)
    assert result.percent.value == pytest.approx(percent_agreement(table))
    assert sum(pair.items for pair in result.pairs) == sum(len(row) * (len(row) - 1) // 2 for row in rated)
    for name in ("kappa", "rho"):
        known = [(getattr(pair, name), pair.items) for pair in result.pairs if getattr(pair, name) is not None]
        mean = sum(figure * n for figure, n in known) / sum(n for _, n in known) if known else None
        assert value(getattr(result, name)) == pytest.approx(mean)
    assert result == agreement(items(table), order=LEVELS)


def test_every_interval_is_that_of_resampled_items() -> None:
    """The percentile bootstrap, done the slow way: items drawn with replacement, each statistic worked out again."""
    random = np.random.default_rng(3)
    truth = random.integers(1, 5, 60)
    table: list[list[int | None]] = [
        [int(np.clip(t + random.integers(-1, 2), 1, 4)) if random.random() < 0.9 else None for _ in range(3)]
        for t in truth
    ]
    result = found(table)
    samples = [[table[i] for i in random.integers(0, len(table), len(table))] for _ in range(400)]
    slow = {
        "percent": percent_agreement,
        "alpha": lambda sample: alpha(sample, "nominal"),
        "ordinal_alpha": lambda sample: alpha(sample, "ordinal"),
    }
    for name, statistic in slow.items():
        estimate = getattr(result, name)
        low, high = np.quantile([statistic(sample) for sample in samples], [0.025, 0.975])
        assert estimate.interval == pytest.approx((low, high), abs=0.05), name
        assert estimate.interval[0] < estimate.value < estimate.interval[1]


def test_nothing_rated_twice_is_no_agreement() -> None:
    assert agreement([{"ann": 1}, {"bob": 2}, {}]) is None
    assert wilson_interval(0, 0) is None


def test_the_interval_narrows_around_alpha() -> None:
    random = np.random.default_rng(1)
    few, many = (
        [{"ann": int(truth), "bob": int(truth) if random.random() < 0.8 else 3 - int(truth)} for truth in row]
        for row in (random.integers(1, 3, 30), random.integers(1, 3, 3000))
    )
    narrow, wide = agreement(many), agreement(few)
    assert narrow is not None
    assert wide is not None
    assert narrow.alpha is not None
    assert wide.alpha is not None
    assert narrow.alpha.interval is not None
    assert wide.alpha.interval is not None
    assert narrow.alpha.interval[0] < narrow.alpha.value < narrow.alpha.interval[1]
    assert narrow.alpha.interval[1] - narrow.alpha.interval[0] < wide.alpha.interval[1] - wide.alpha.interval[0]
    assert narrow.alpha.value == pytest.approx(0.6, abs=0.05)
