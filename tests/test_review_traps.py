"""What Argilla's interfaces lose, and what people change by hand: every kind of answer, odd names, restarts, old rubrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from review_people import YES, Faults, Workspace, candidates

from selfinstruct_argilla.errors import ReviewRefusedError
from selfinstruct_argilla.review.rubric import load_rubric
from selfinstruct_argilla.tasks import Instance, Status, Task

EVERY_TYPE = """
questions:
  - {name: kind, type: label, title: Kind, labels: {good: Good, bad: Bad}}
  - {name: flaws, type: multi_label, title: Flaws, required: false, labels: {rude: Rude, wrong: Wrong, short: Short}}
  - {name: quality, type: rating, title: Quality, values: [1, 2, 3]}
  - {name: order, type: ranking, title: Order, labels: {a: A, b: B, c: C}}
  - {name: errors, type: span, title: Errors, required: false, field: output, labels: {error: Error}}
  - {name: note, type: text, title: Note, required: false}
accept:
  kind: {is: [good]}
  flaws: {none_of: [wrong]}
  quality: {at_least: 2}
  order: {first: [a]}
  errors: {empty: true}
guidelines: guide.md
"""


def test_answers_of_every_question_type_come_back_whole(workspace: Workspace, tmp_path: Path) -> None:
    """The SDK drops the ranks of a ranking and falls over responses without values."""
    (tmp_path / "rubric.yaml").write_text(EVERY_TYPE, encoding="utf-8")
    (tmp_path / "guide.md").write_text("Judge it.", encoding="utf-8")
    workspace.rubric = load_rubric("every", tmp_path / "rubric.yaml")
    workspace.add(candidates(3))
    workspace.push()
    records = [str(record["id"]) for _, record in sorted(workspace.records().items())]
    ranked = [{"value": "c", "rank": 3}, {"value": "a", "rank": 1}, {"value": "b", "rank": 2}]
    good: dict[str, Any] = {"kind": "good", "flaws": ["short"], "quality": 2, "order": ranked}
    behind = [{"value": "a", "rank": 2}, {"value": "b", "rank": 1}, {"value": "c", "rank": 2}]
    span = [{"label": "error", "start": 0, "end": 6}]
    ann, bob = workspace.person("ann"), workspace.person("bob")
    bob.discard_without_values(records[0])
    ann.submit(records[0], good)
    ann.submit(records[1], {**good, "order": behind})
    ann.submit(records[2], {**good, "errors": span})
    workspace.sync()
    assert [workspace.status(n) for n in range(3)] == [Status.ACCEPTED, Status.REJECTED, Status.REJECTED]
    stored = {(r.instance, r.task_id[-1], r.status): r.values for r in workspace.pool.reviews.responses()}
    assert stored[0, "0", "submitted"] == good
    assert stored[0, "0", "discarded"] == {}
    assert stored[0, "1", "submitted"]["order"] == behind
    assert [(s["label"], s["start"], s["end"]) for s in stored[0, "2", "submitted"]["errors"]] == [("error", 0, 6)]
    assert workspace.sync().responses == 0


def test_names_with_odd_characters(workspace: Workspace) -> None:
    workspace.dataset = "审核 réview: «1» / (x)@y"
    name = "Zoë 任务 (x)@y: z"
    workspace.rules.update(min_submitted=2, resolution="adjudicated")
    boss, ann = workspace.person(name), workspace.person("ann")
    workspace.rules["adjudicators"] = [boss.username]
    workspace.add([Task("tâche: 1/2 «ä» 任务", "Do it.", (Instance("", "done"),))])
    workspace.push()
    (record,) = workspace.records().values()
    ann.submit(str(record["id"]), {**YES, "output_correct": "no"})
    boss.submit(str(record["id"]))
    result = workspace.sync()
    assert (result.accepted, result.unknown_adjudicators) == (1, [])
    assert workspace.push().pushed == 0
    assert {response.username for response in workspace.pool.reviews.responses()} == {boss.username, ann.username}


def test_argilla_restarts_in_the_middle(workspace: Workspace) -> None:
    """Refused and cut connections for a while, at every place of a push and a sync."""
    workspace.add(candidates(4))
    faults = Faults(workspace.client)
    seen: set[str] = set()
    errors: dict[str, list[Exception]] = {}

    def restart(number: int, method: str, path: str) -> httpx.Response | None:
        key = f"{method} {path}"
        if key not in seen:
            seen.add(key)
            errors[key] = [httpx.ReadError("cut") if len(seen) % 2 else httpx.ConnectError("refused")]
        if errors[key]:
            raise errors[key].pop(0)
        return None

    faults.before = restart
    assert workspace.push().pushed == 4
    ann = workspace.person()
    for record in workspace.records().values():
        ann.submit(str(record["id"]))
    assert workspace.sync().accepted == 4
    faults.heal()
    assert len(workspace.records()) == 4
    assert not any(errors.values())


def patch_dataset(workspace: Workspace) -> None:
    change = {"guidelines": "Rewritten by hand.", "distribution": {"strategy": "overlap", "min_submitted": 3}}
    workspace.client.send("PATCH", f"datasets/{workspace.dataset_id}", change)


def delete_metadata_property(workspace: Workspace) -> None:
    listed = workspace.client.get(f"me/datasets/{workspace.dataset_id}/metadata-properties")["items"]
    for found in listed:
        if found["name"] in ("resolution", "task_id"):
            workspace.client.send("DELETE", f"metadata-properties/{found['id']}")


def retitle_question(workspace: Workspace) -> None:
    for question in workspace.client.questions(workspace.dataset_id):
        if question["name"] == "output_correct":
            workspace.client.send("PATCH", f"questions/{question['id']}", {"title": "Right?"})


@pytest.mark.parametrize("change", [patch_dataset, delete_metadata_property, retitle_question])
def test_a_dataset_changed_by_hand_goes_on(workspace: Workspace, change: Callable[[Workspace], None]) -> None:
    workspace.add(candidates(2))
    workspace.push()
    change(workspace)
    ann = workspace.person()
    ann.submit(workspace.record_id("generated_00000000:0"))
    assert workspace.sync().accepted == 1
    workspace.add(candidates(4)[2:])
    result = workspace.push()
    assert (result.pushed, result.refused) == (2, {})
    workspace.sync()
    metadata = workspace.records()["generated_00000000:0"]["metadata"]
    assert metadata["resolution"] == "accepted"
    assert metadata["task_id"] == "generated_00000000"
    found = workspace.client.dataset(workspace.dataset_id)
    assert found is not None
    assert found["distribution"]["min_submitted"] == 1


def test_an_answer_to_an_old_wording_counts_and_is_known_as_such(workspace: Workspace) -> None:
    workspace.add(candidates(2))
    workspace.push()
    records = [str(record["id"]) for _, record in sorted(workspace.records().items())]
    ann = workspace.person()
    ann.submit(records[0])
    workspace.sync()
    old = workspace.rubric.version
    first = workspace.rubric.questions[0].model_copy(update={"title": "Is it a task?"})
    workspace.rubric = workspace.rubric.model_copy(update={"questions": [first, *workspace.rubric.questions[1:]]})
    workspace.push()
    ann.submit(records[1])
    workspace.sync()
    versions = {response.task_id: response.rubric_version for response in workspace.pool.reviews.responses()}
    assert versions == {"generated_00000000": old, "generated_00000001": workspace.rubric.version}
    assert old != workspace.rubric.version
    assert [workspace.status(n) for n in range(2)] == [Status.ACCEPTED, Status.ACCEPTED]

    # another question is another dataset
    workspace.rubric = load_rubric("quick")
    with pytest.raises(ReviewRefusedError, match="other questions or answers") as refused:
        workspace.sync()
    assert "review.argilla.dataset" in str(refused.value.hint)
