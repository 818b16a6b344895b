"""Splits that stay put: for ever per task, and never a near-duplicate across two of them."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from release_help import WORDS

from selfinstruct_argilla.release.splits import NEAR, SPLITS, assign, hashed
from selfinstruct_argilla.similarity.rouge import rouge_l

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
# few words, so that near-duplicates, bridges and chains of them are common
instructions = st.lists(st.sampled_from(WORDS[:6]), min_size=1, max_size=7).map(" ".join)
versions = st.lists(st.dictionaries(st.integers(0, 40).map("t{:02d}".format), instructions, max_size=12), max_size=6)


def straddling(texts: dict[str, str], splits: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (a, b)
        for a, b in combinations(sorted(splits), 2)
        if splits[a] != splits[b] and rouge_l(texts[a], texts[b], tokens="auto") >= NEAR
    ]


@settings(max_examples=200, deadline=None)
@given(versions)
def test_any_history_keeps_splits_and_separates_near_duplicates(history: list[dict[str, str]]) -> None:
    known: dict[str, str] = {}
    previous: dict[str, str] = {}
    for texts in history:  # tasks come, go, return and are edited between the versions
        settled = [task for task in texts if previous.get(task) == texts[task]]
        found = assign(texts, SHARES, known=known, settled=settled)
        assert not straddling(texts, found.splits)
        assert found.splits.keys() | {entry.task_id for entry in found.withheld} == texts.keys()
        assert not found.splits.keys() & {entry.task_id for entry in found.withheld}
        assert all(known.get(task, split) == split for task, split in found.splits.items())
        for entry in found.withheld:
            across = {found.splits[near] for near in entry.near}
            assert across
            assert any(rouge_l(texts[entry.task_id], texts[near], tokens="auto") >= NEAR for near in entry.near)
        known |= found.splits
        previous = {task: texts[task] for task in found.splits}


def test_twenty_growing_versions() -> None:
    words = random.Random(3)
    texts: dict[str, str] = {}
    known: dict[str, str] = {}
    withheld = 0
    for version in range(20):
        for number in range(30):
            if texts and words.random() < 0.4:  # a variation of an earlier task: one to four words replaced
                tokens = words.choice(list(texts.values())).split()
                for _ in range(words.randint(1, 4)):
                    tokens[words.randrange(len(tokens))] = words.choice(WORDS[:9])
            else:
                tokens = words.choices(WORDS[:9], k=8)
            texts[f"task_{words.randrange(10**6):06d}_{version}_{number}"] = " ".join(tokens)
        found = assign(texts, SHARES, known=known, settled=known)
        assert all(found.splits[task] == split for task, split in known.items())
        known = found.splits
        withheld += len(found.withheld)
    assert not straddling(texts, known)
    assert set(known.values()) == set(SPLITS)
    assert withheld, "the simulation has no task between two splits: it proves nothing"


def test_a_new_task_joins_the_closest() -> None:
    base = "alpha beta gamma delta epsilon zeta eta theta"
    close = "alpha beta gamma delta one two three four"  # 4 of 8 words: ROUGE-L 0.5
    for split in SPLITS:
        found = assign({"a": base, "b": close}, SHARES, known={"a": split}, settled=["a"])
        assert found.splits == {"a": split, "b": split}


def test_a_task_between_two_splits_is_withheld_and_named() -> None:
    texts = {
        "a": "one two three four nine ten",
        "b": "seven eight three four nine ten",
        "c": "one eight three four nine ten",  # 5 of 6 words with either
    }
    known = {"a": "train", "b": "test"}
    found = assign(texts, SHARES, known=known, settled=["a", "b"])
    assert found.splits == known
    assert [(entry.task_id, entry.near) for entry in found.withheld] in ([("c", ("a",))], [("c", ("b",))])
    # an edit may bring a published task close to another split: it gives way, and keeps its split for later
    edited = assign({**texts, "b": texts["c"]}, SHARES, known=known, settled=["a"])
    assert edited.splits == {"a": "train", "c": "train"}
    assert [entry.task_id for entry in edited.withheld] == ["b"]
    assert assign(texts, SHARES, known=known, settled=["a"]).splits["b"] == "test"


def test_the_first_task_of_a_tiny_dataset_is_for_training() -> None:
    for start in range(50):
        texts = {f"t{start}_{n}": f"word{start} other{n} {n}" for n in range(3)}
        found = assign(texts, {"train": 0.9, "validation": 0.05, "test": 0.05})
        assert found.splits[min(texts)] == "train"
    only_test = assign({"a": "b"}, {"train": 0.0, "validation": 0.0, "test": 1.0})
    assert only_test.splits == {"a": "test"}


def test_hash_is_stable_and_follows_the_shares() -> None:
    assert [hashed(f"seed_task_{n}", SHARES) for n in range(6)] == [hashed(f"seed_task_{n}", SHARES) for n in range(6)]
    counts = [hashed(f"t{n}", SHARES) for n in range(5000)]
    for split, share in SHARES.items():
        assert abs(counts.count(split) / 5000 - share) < 0.03
    assert {hashed(f"t{n}", {"train": 0.5, "validation": 0.0, "test": 0.5}) for n in range(500)} == {"train", "test"}
