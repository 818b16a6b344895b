"""The novelty index against brute force with `rouge_score`."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import scoring
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_argilla.similarity import index as index_module
from selfinstruct_argilla.similarity.index import _GROUP_STARTS, Match, NoveltyIndex, _group, _plan, _words
from selfinstruct_argilla.similarity.rouge import f_measure, least_lcs, rouge_l

SCORER = RougeScorer(["rougeL"])


def reference(a: str, b: str) -> float:
    return SCORER.score(a, b)["rougeL"].fmeasure


@pytest.fixture(autouse=True)
def early_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pools, too, split their posting lists."""
    monkeypatch.setattr(index_module, "_SPLIT", 3)


# -- exactness

thresholds = st.one_of(st.sampled_from([0.5, 0.7, 0.85, 2 / 3, 0.0, 1.0]), st.floats(0, 1))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, str]]:
    """What happens to a pool, as (add | remove | replace, number, text); texts often resemble earlier ones."""
    vocabulary = draw(st.sampled_from([2, 6, 30, 300]))
    longest = draw(st.sampled_from([3, 12, 40]))
    rng = draw(st.randoms(use_true_random=False))
    texts: list[list[int]] = [[]]
    history = []
    for _ in range(draw(st.integers(1, 40))):
        words = [rng.randrange(vocabulary) for _ in range(rng.randint(0, longest))]
        if rng.random() < 0.6:
            words = list(rng.choice(texts))
            for _ in range(rng.randint(0, 1 + len(words) // 3)):
                position = rng.randint(0, len(words))
                words[position : position + rng.randint(0, 1)] = [rng.randrange(vocabulary)] * rng.randint(0, 2)
        texts.append(words)
        move = rng.choice(["add", "add", "add", "remove", "replace"])
        history.append((move, rng.randrange(1000), " ".join(f"w{word}" for word in words)))
    return history


@settings(max_examples=150, deadline=None)
@given(history=histories(), threshold=thresholds)
def test_every_answer_equals_brute_force(history: list[tuple[str, int, str]], threshold: float) -> None:
    index = NoveltyIndex(threshold)
    pool: dict[int, str] = {}
    for number, (move, choice, text) in enumerate(history):
        scores = {key: reference(other, text) for key, other in pool.items()}
        ranked = [Match(*pair) for pair in sorted(scores.items(), key=lambda pair: -pair[1])]  # stable: pool order
        best = ranked[0] if ranked else None
        rejected = best is not None and best.score > threshold
        assert index.is_novel(text) is not rejected
        assert index.check(text) == (best if rejected else None)
        assert index.nearest(text) == best
        assert index.top(text, 3) == ranked[:3]
        assert index.mean(text) == (np.mean(list(scores.values())) if scores else 0.0)
        if threshold > 0:
            above = [match for match in ranked if match.score >= threshold]
            assert index.matches(text, at_least=threshold) == above
            assert index.closest(text, at_least=threshold) == (above[0] if above else None)
        if move == "add" or not pool:
            index.add(number, text)
            pool[number] = text
        elif move == "remove":
            key = sorted(pool)[choice % len(pool)]
            index.remove(key)
            del pool[key]
        else:
            key = sorted(pool)[choice % len(pool)]
            index.replace(key, text)
            pool[key] = text
        assert len(index) == len(pool)
        assert all(key in index for key in pool)

    keys = list(pool)
    for position, found in enumerate(index.statistics_before(keys, k=2)):
        before = {key: reference(pool[key], pool[keys[position]]) for key in keys[:position]}
        ranked = [Match(*pair) for pair in sorted(before.items(), key=lambda pair: -pair[1])]
        assert found == (ranked[:2], np.mean(list(before.values())) if before else 0.0)


def test_every_score_and_decision_up_to_200_tokens() -> None:
    for m in range(1, 201):
        for n in range(1, 201):
            least = [(threshold, least_lcs(m, n, threshold)) for threshold in (0.5, 0.7, 0.85)]
            for lcs in range(min(m, n) + 1):
                score = scoring.fmeasure(lcs / n, lcs / m)  # the steps of rouge_score's _score_lcs
                assert f_measure(lcs, m, n) == score
                for threshold, needed in least:
                    assert (lcs >= needed) == (score > threshold), (lcs, m, n, threshold)


def test_blocks_of_scores_take_the_same_steps() -> None:
    m = 37
    lcs, n = (grid.ravel() for grid in np.mgrid[0 : m + 1, 1:201])
    scores = index_module._f_measures(lcs.astype(np.uint8), m, n.astype(np.float64))
    assert scores.tolist() == [f_measure(int(a), m, int(b)) for a, b in zip(lcs, n, strict=True)]


@pytest.mark.parametrize(
    ("m", "n", "lcs", "score"),
    [
        (10, 10, 7, 0.7),
        (9, 11, 7, 0.7000000000000001),
        (11, 9, 7, 0.7000000000000001),
        (23, 37, 21, 0.6999999999999998),
    ],
)
def test_ties_are_decided_as_rouge_score_rounds_them(m: int, n: int, lcs: int, score: float) -> None:
    shared = [f"s{i}" for i in range(lcs)]
    pooled = " ".join(shared + [f"a{i}" for i in range(m - lcs)])
    text = " ".join(shared + [f"b{i}" for i in range(n - lcs)])
    index = NoveltyIndex(0.7)
    index.add("pooled", pooled)
    assert reference(pooled, text) == score == rouge_l(pooled, text)
    assert index.is_novel(text) is (score <= 0.7)
    assert (index.closest(text, at_least=0.7) is not None) is (score >= 0.7)
    assert index.nearest(text) == ("pooled", score)


@settings(max_examples=200, deadline=None)
@given(m=st.integers(1, 3000), n=st.integers(1, 3000), threshold=thresholds)
def test_the_plan_reads_whatever_can_score_above_the_threshold(m: int, n: int, threshold: float) -> None:
    needed = least_lcs(m, n, threshold)
    if needed > min(m, n):
        return
    plan = _plan(m, threshold)
    assert plan is not None
    read = sum(plan.first <= _group(n) < stop for stop in plan.stops)
    assert plan.cutoff <= needed
    assert read >= m - needed + plan.shared
    assert 1 <= plan.shared <= needed


def test_groups_cover_every_length() -> None:
    assert sorted(set(_GROUP_STARTS)) == _GROUP_STARTS
    assert [_group(length) for length in (0, 1, 7, 10**9)] == [0, 1, 7, len(_GROUP_STARTS) - 1]


def test_only_a_handful_of_the_pool_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3000)]
    weights = [1 / (i + 10) for i in range(3000)]
    texts = [" ".join(rng.choices(vocabulary, weights, k=rng.randint(5, 25))) for _ in range(3000)]
    index = NoveltyIndex()
    for number, text in enumerate(texts[:2000]):
        index.add(number, text)
    verified = []
    extract = index_module.extract

    def count(query: str, choices: list[str], **options: object) -> object:
        verified.append(len(choices))
        return extract(query, choices, **options)

    monkeypatch.setattr(index_module, "extract", count)
    assert sum(index.is_novel(text) for text in texts[2000:]) > 900
    assert sum(verified) / 1000 < 0.01 * len(index)


# -- the pool


def test_equal_scores_are_ordered_by_position_which_replace_keeps() -> None:
    index = NoveltyIndex(0.5)
    for key in ("c", "a", "b"):
        index.add(key, "one two three")
    assert [match.key for match in index.top("one two three")] == ["c", "a", "b"]
    assert index.nearest("one two three") == index.check("one two three") == Match("c", 1.0)
    index.replace("c", "other words")
    assert index.check("one two three") == Match("a", 1.0)
    index.replace("c", "one two three")
    assert index.check("one two three") == Match("c", 1.0)
    index.remove("c")
    index.add("c", "one two three")
    assert [match.key for match in index.matches("one two three", at_least=1.0)] == ["a", "b", "c"]


def test_keys_are_guarded() -> None:
    index = NoveltyIndex()
    index.add("a", "some words")
    with pytest.raises(ValueError, match="'a' is in the index already"):
        index.add("a", "other words")
    with pytest.raises(KeyError):
        index.remove("b")
    with pytest.raises(KeyError):
        index.replace("b", "words")
    with pytest.raises((TypeError, AttributeError)):
        index.add("b", None)
    assert len(index) == 1 and "b" not in index
    assert index.check("some words") == Match("a", 1.0)


def test_a_text_that_goes_leaves_nothing_to_read() -> None:
    index = NoveltyIndex()
    for key in range(5):
        index.add(key, f"the same words and the number {key}")
    for key in range(5):
        index.replace(key, f"other words {key}")
    assert sum(posting.frequency for posting in index._postings.values()) == 5 * 3
    for key in range(5):
        index.remove(key)
    assert index._postings == {}


def test_each_repeat_of_a_word_is_a_word_of_its_own() -> None:
    words = _words([7, 8, 7, 7])
    assert len(set(words)) == 4
    assert set(_words([7, 7])) < set(words)


def test_an_empty_pool() -> None:
    index = NoveltyIndex()
    assert len(index) == 0
    assert index.is_novel("words")
    assert index.nearest("words") is None
    assert index.top("words") == []
    assert index.mean("words") == 0.0
    index.add("a", "words")
    index.remove("a")
    assert index.nearest("words") is None
    assert index.top("words") == []
    assert index.mean("words") == 0.0


def test_statistics_go_on_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_BLOCK_CELLS", 1)
    rng = random.Random(1)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(0, 300 if i == 7 else 9))) for i in range(70)]
    index = NoveltyIndex()
    for key, text in enumerate(texts):
        index.add(key, text)
    assert [found.mean for found in index.statistics(texts)] == [index.mean(text) for text in texts]
    assert [found.top for found in index.statistics(iter(texts), k=4)] == [index.top(text, 4) for text in texts]
    assert [found.mean for found in index.statistics_before(range(70))] == [0.0] + [
        np.mean([rouge_l(other, text) for other in texts[:i]]) for i, text in enumerate(texts) if i
    ]


# -- bad input


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_outside_0_to_1_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        NoveltyIndex(threshold)


@pytest.mark.parametrize("at_least", [0, -0.1, 1.1, math.nan])
def test_at_least_outside_0_to_1_is_refused(at_least: float) -> None:
    with pytest.raises(ValueError, match="at_least"):
        NoveltyIndex().closest("words", at_least)


def test_unknown_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="rouge, auto"):
        NoveltyIndex(tokens="words")


def test_thresholds_of_0_and_1() -> None:
    everything, nothing = NoveltyIndex(1.0), NoveltyIndex(0.0)
    for index in (everything, nothing):
        index.add("a", "one two three four five six seven eight")
    assert everything.is_novel("one two three four five six seven eight")
    assert everything.nearest("one two three four five six seven eight") == Match("a", 1.0)
    assert nothing.check("one " + "other " * 500).key == "a"
    assert nothing.is_novel("something else")


def test_texts_without_tokens() -> None:
    rouge, auto = NoveltyIndex(tokens="rouge"), NoveltyIndex(tokens="auto")
    for index in (rouge, auto):
        for key in ("", "???", "word"):
            index.add(key, key)
    assert rouge.is_novel("") and rouge.is_novel("???")
    assert rouge.nearest("???") == Match("", 0.0)
    assert rouge.mean("") == 0.0
    assert auto.check("  ") == Match("", 1.0)
    assert auto.check("???") == Match("???", 1.0)
    assert auto.is_novel("!!!")
    assert auto.mean("???") == 1 / 3


@pytest.mark.parametrize("tokens", ["rouge", "auto"])
def test_strange_characters(tokens: str) -> None:
    texts = [
        "one",
        "\ud800",
        "\udc00 lone \ud800 surrogates",
        "\U0001f600 \U00020bb7\U0010ffff",
        "\0",
        "e" + "\u0301" * 99,
    ]
    index = NoveltyIndex(tokens=tokens)
    for text in texts:
        index.add(text, text)
    for text in texts:
        expected = max(rouge_l(text, other, tokens) for other in texts)
        assert index.nearest(text).score == expected
        assert index.is_novel(text) is (expected <= 0.7)


def test_100_000_tokens() -> None:
    rng = random.Random(2)
    words = [f"w{rng.randrange(5000)}" for _ in range(100_000)]
    index = NoveltyIndex()
    index.add("short", "w1 w2 w3")
    index.add("long", " ".join(words))
    assert index.is_novel("w1 w2 w9")
    near = " ".join(words[:40_000] + ["new"] * 20_000 + words[60_000:])
    match = index.check(near)
    assert match is not None and match.key == "long" and 0.8 <= match.score < 0.9
    assert index.top("w1 w2 w3", 1) == [Match("short", 1.0)]
    assert 0.4 < index.mean(near) < 0.45


def test_more_distinct_tokens_than_code_points() -> None:
    index = NoveltyIndex()
    index.add("before", "w1 w2 w3 w4 w5")
    index.add("million", " ".join(f"n{i}" for i in range(1_200_000)))
    index.add("beyond", "z1 z2 z3 w4 w5 w5")
    index.add("surrogates", " ".join(f"n{i}" for i in range(0xD7F0, 0xE010)))
    assert index.check("w1 w2 w3 w4 unknown") == Match("before", 0.8000000000000002)
    assert index.check("z1 z2 z3 w4 w5 w5") == Match("beyond", 1.0)
    assert [match.key for match in index.top("z1 w4 w5", 2)] == ["beyond", "before"]
    assert index.check(" ".join(f"n{i}" for i in range(0xD7F0, 0xE000))).key == "surrogates"
    index.remove("beyond")
    index.replace("million", "z3 z2 z1")
    assert index.check("z3 z2 z1") == Match("million", 1.0)
    assert index.is_novel("z1 z2 z3 w4 w5 w5")
