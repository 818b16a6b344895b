"""What is due for review, and for whom: batches, samples, overlap, fair shares. Without a server."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_people import candidates

from selfinstruct_argilla.errors import DataFileError
from selfinstruct_argilla.pool.pool import Outline
from selfinstruct_argilla.recipe import Review
from selfinstruct_argilla.review.calibration import disguise, read_calibration
from selfinstruct_argilla.review.due import Entry, choose, draw, mix, share_out, worth
from selfinstruct_argilla.review.records import Opinion
from selfinstruct_argilla.review.rubric import load_rubric
from selfinstruct_argilla.tasks import Task

PAPER = load_rubric("paper")


def outlines(tasks: list[Task]) -> list[Outline]:
    return [Outline(t.id, t.status, t.origin, len(t.instances), t.max_rouge_l, t.votes, distilled=False) for t in tasks]


def chosen(review: Review, count: int = 10, *, instances: int = 1, reviewed: int = 0, waiting: int = 0) -> list[Entry]:
    drawn = draw(outlines(candidates(count, instances=instances)), review, reviewed=reviewed)
    return choose(drawn, review, waiting=waiting, worth={})


def test_by_default_everything_is_due() -> None:
    entries = chosen(Review(), 5, instances=2)
    assert [entry.task_id for entry in entries] == [task.id for task in candidates(5)]
    assert all(entry.instances == (0, 1) for entry in entries)


def test_the_most_useful_come_first() -> None:
    near, far, judged_bad, judged_good = (
        replace(task, max_rouge_l=score) for task, score in zip(candidates(4), (0.6, 0.1, 0.0, 0.5), strict=True)
    )
    order = choose(
        draw(outlines([near, far, judged_bad, judged_good]), Review(), reviewed=0),
        Review(),
        waiting=0,
        worth={judged_good.id: 0.9, judged_bad.id: 0.01},
    )
    assert [entry.task_id for entry in order] == [task.id for task in (judged_good, judged_bad, far, near)]


def test_what_a_judge_is_worth() -> None:
    def opinion(value: str, score: float) -> Opinion:
        return Opinion("m", {"output_correct": {"value": value, "score": score}, "comment": {"value": "x", "score": 0}})

    assert worth([opinion("yes", 0.9)], PAPER) == pytest.approx(0.9)
    assert worth([opinion("no", 0.9)], PAPER) == pytest.approx(0.1)
    assert worth([opinion("yes", 0.9), opinion("yes", 0.5)], PAPER) == pytest.approx(0.45)


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 25), st.integers(1, 3))
def test_no_more_than_a_batch_waits(count: int, batch: int, waiting: int, instances: int) -> None:
    entries = chosen(Review(batch=batch), count, instances=instances, waiting=waiting)
    records = sum(len(entry.instances) for entry in entries)
    if waiting == 0 and instances > batch:
        assert len(entries) == 1
    else:
        assert waiting + records <= max(batch, waiting)
        assert len(entries) == count or waiting + records + instances > batch


def test_a_sample_is_drawn_once_for_all_with_one_instance_each() -> None:
    review = Review(sample=20)
    first = chosen(review, 100, instances=3)
    assert len(first) == 20
    assert all(len(entry.instances) == 1 for entry in first)
    assert {entry.instances[0] for entry in first} == {0, 1, 2}
    assert [entry.task_id for entry in first] != [task.id for task in candidates(20)]
    assert chosen(review, 100, instances=3) == first
    assert len(chosen(review, 100, reviewed=15)) == 5
    assert chosen(review, 100, reviewed=20) == []


@given(st.integers(0, 40), st.floats(0, 1), st.lists(st.integers(1, 9), max_size=4))
def test_overlap_and_shares_are_exact_after_every_push(count: int, overlap: float, cuts: list[int]) -> None:
    review = Review(overlap=overlap, min_submitted=2, annotators=["ann", "bob", "eve"])
    loads: Counter[str] = Counter()
    records = several = 0
    entries = chosen(Review(), count)
    while entries:
        size = cuts.pop() if cuts else len(entries)
        some, entries = entries[:size], entries[size:]
        for entry in share_out(some, review, records=records, several=several, loads=loads):
            names = entry.assigned[0]
            assert len(set(names)) == len(names) == (2 if 0 in entry.several else 1)
            loads.update(names)
            records += 1
            several += len(entry.several)
        assert several == round(overlap * records) or abs(several - overlap * records) <= 1
        assert max(loads.values()) - min(loads[name] for name in review.annotators) <= 1


def test_nobody_named_is_nobody_assigned() -> None:
    entries = share_out(chosen(Review()), Review(), records=0, several=0, loads={})
    assert all(entry.assigned == {0: ()} and entry.several == {0} for entry in entries)


def test_calibration_is_mixed_in_and_looks_like_the_rest() -> None:
    tasks = candidates(20)
    gold = [replace(task, id=f"generated_9000000{n}", max_rouge_l=None) for n, task in enumerate(candidates(3))]
    fakes = disguise(tasks, gold)
    for fake in fakes:
        assert (fake.round, fake.origin, fake.provenance) == (tasks[0].round, tasks[0].origin, tasks[0].provenance)
        assert fake.nearest in {task.id for task in tasks}
        assert fake.max_rouge_l is not None
    entries = [Entry(task.id, (0,)) for task in tasks]
    mixed = mix(entries, [Entry(fake.id, (0,), gold={"output_correct": "no"}) for fake in fakes])
    assert [entry for entry in mixed if entry.gold is None] == entries
    assert [entry.gold is None for entry in mixed[:20]].count(False) > 0
    review = Review(overlap=0.5, min_submitted=2, annotators=["ann", "bob", "eve"])
    shared = list(share_out(mixed, review, records=0, several=0, loads={}))
    assert sum(len(entry.several) for entry in shared) == 10
    assert all(entry.assigned[0] == ("ann", "bob", "eve") for entry in shared if entry.gold)


LINE = (
    '{"instruction": "Add 2 and 2.", "instances": [{"input": "", "output": "5"}], "answers": {"output_correct": "no"}}'
)


def test_a_calibration_file(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(f"{LINE}\n\n{LINE}\n", encoding="utf-8")
    (known,) = read_calibration(path, PAPER)
    assert known.answers == {"output_correct": "no"}
    assert known.task.instances[0].output == "5"
    assert known.task.id.startswith("generated_9")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2"),
        ("[]", "object"),
        (LINE.replace('"answers"', '"other"'), "answers"),
        (LINE.replace("output_correct", "comment"), "no label or rating question 'comment'"),
        (LINE.replace('"no"', '"maybe"'), "'maybe' is no answer"),
        (LINE.replace("}], ", '}, {"output": "6"}], '), "one instance"),
    ],
)
def test_a_broken_calibration_file_names_the_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(f"{LINE}\n{line}\n", encoding="utf-8")
    with pytest.raises(DataFileError, match="line 2") as caught:
        read_calibration(path, PAPER)
    assert says in str(caught.value)
