"""Pushing candidates to a real Argilla: once, whole, resumable, and only to the pool's own dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from review_people import Faults, KilledError, Workspace, candidates

from selfinstruct_argilla.errors import ReviewRefusedError, ReviewUnavailableError
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.review.argilla_client import connect
from selfinstruct_argilla.review.calibration import Calibration
from selfinstruct_argilla.review.due import Entry
from selfinstruct_argilla.review.quality import calibration
from selfinstruct_argilla.review.records import Opinion, agent_name
from selfinstruct_argilla.review.rubric import load_rubric
from selfinstruct_argilla.tasks import Instance, Provenance, Status, Task


def test_a_record_holds_what_the_contract_says(workspace: Workspace) -> None:
    workspace.add(candidates(2, instances=2))
    result = workspace.push()
    assert (result.pushed, result.unchanged, result.total, result.refused) == (4, 0, 4, {})
    records = workspace.records()
    assert set(records) == {f"generated_0000000{task}:{part}" for task in range(2) for part in range(2)}
    record = records["generated_00000001:1"]
    assert record["fields"] == {
        "instruction": "Instruction 1",
        "input": "input 1.1",
        "output": "output 1.1",
        "context": "The closest task that we have (ROUGE-L 0.25):\nInstruction 0",
    }
    assert record["metadata"] == {
        "task_id": "generated_00000001",
        "round": 1,
        "origin": "imported",
        "is_classification": "false",
        "max_rouge_l": 0.25,
        "model": "toy/model:v1",
        "resolution": "pending",
    }
    questions = {question["id"]: question["name"] for question in workspace.client.questions(workspace.dataset_id)}
    suggestions = {questions[s["question_id"]]: (s["value"], s["agent"]) for s in record["suggestions"]}
    assert suggestions == {
        "instruction_edit": ("Instruction 1", "toy/model:v1"),
        "input_edit": ("input 1.1", "toy/model:v1"),
        "output_edit": ("output 1.1", "toy/model:v1"),
    }
    dataset = workspace.client.dataset(workspace.dataset_id)
    assert dataset is not None
    assert dataset["status"] == "ready"
    assert dataset["distribution"] == {"strategy": "overlap", "min_submitted": 1}
    assert dataset["guidelines"].startswith("# Reviewing instruction examples")
    assert [task.status for task in workspace.pool.tasks()] == [Status.IN_REVIEW] * 2
    summary = workspace.pool.reviews.summary()
    assert summary == {
        "dataset": workspace.dataset,
        "url": result.url,
        "pushed": 4,
        "pending": 4,
        "completed": 0,
        "conflicts": 0,
    }


def test_pushing_again_changes_nothing_and_new_candidates_go_in_alone(workspace: Workspace) -> None:
    workspace.add(candidates(3))
    workspace.push()
    before = workspace.records()
    again = workspace.push()
    assert (again.pushed, again.unchanged, again.total) == (0, 3, 3)
    assert workspace.records() == before
    workspace.add(candidates(5)[3:])
    faults = Faults(workspace.client)
    more = workspace.push()
    assert (more.pushed, more.unchanged, more.total) == (2, 3, 5)
    assert len([1 for method, path in faults.requests if path.endswith("bulk")]) == 1
    after = workspace.records()
    assert {key: after[key] for key in before} == before


def test_chinese_titles_and_guidelines(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push(language="zh")
    dataset = workspace.client.dataset(workspace.dataset_id)
    assert dataset is not None
    assert "指令" in dataset["guidelines"]
    titles = [question["title"] for question in workspace.client.questions(workspace.dataset_id)]
    assert "1. 指令描述的任务是否有效？" in titles
    assert "已有的最相似任务" in workspace.records()["generated_00000000:0"]["fields"]["context"]


def test_texts_of_every_kind_go_in_as_they_are(workspace: Workspace) -> None:
    odd = [
        ("a:b/c d", "<script>alert(1)</script> & **bold**"),
        ("任务 1", "请写一首诗。\n\n\t第二行"),
        ("nul", "before\x00after"),
        ("long", "x" * 100_000),
        ("empty", "Say nothing."),
    ]
    tasks = [
        Task(key, text, (Instance("", text if key != "empty" else ""),), is_classification=None) for key, text in odd
    ]
    workspace.add(tasks)
    assert workspace.push().refused == {}
    records = workspace.records()
    for key, text in odd:
        assert records[f"{key}:0"]["fields"]["instruction"] == text
        assert "is_classification" not in records[f"{key}:0"]["metadata"]
        assert "context" not in records[f"{key}:0"]["fields"]
    assert workspace.push().pushed == 0


def test_agent_names_fit_argilla(workspace: Workspace) -> None:
    names = ["gpt-4 (x)@y", "_", "模型", "org/model:v1.0", "m" * 500, "a\nb", " "]
    workspace.add(
        [Task(f"t{n}", f"Do {n}", (Instance("", "x"),), provenance=Provenance(model=m)) for n, m in enumerate(names)]
    )
    assert workspace.push().refused == {}
    assert [agent_name(name) for name in names] == ["gpt-4 -x-y", None, None, "org/model:v1.0", "m" * 200, "a-b", None]


def test_one_bad_record_does_not_hold_up_its_batch(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    items: list[dict[str, Any]] = [
        {"external_id": f"x:{n}", "fields": {"instruction": "a", "input": "", "output": "b"}, "metadata": {"round": 1}}
        for n in range(9)
    ]
    items[3]["metadata"] = {"round": 1.5}
    items[7]["fields"] = {"instruction": "a"}
    result = workspace.client.upsert(workspace.dataset_id, items)
    assert set(result.server_ids) == {f"x:{n}" for n in (0, 1, 2, 4, 5, 6, 8)}
    assert "round" in result.refused["x:3"]
    assert "output" in result.refused["x:7"]
    assert len(workspace.records()) == 8


def test_more_than_argilla_takes_at_once(workspace: Workspace) -> None:
    workspace.add([Task("many", "Count.", tuple(Instance(str(n), str(n)) for n in range(612)))])
    assert workspace.push().pushed == 612
    assert len(workspace.records()) == 612


# killed ------------------------------------------------------------------------------------------


def test_killed_at_each_request_of_a_new_dataset(workspace: Workspace) -> None:
    workspace.add(candidates(2))
    kills = 0
    for number in range(1, 60):
        faults = Faults(workspace.client)

        def kill(now: int, method: str, path: str, number: int = number) -> None:
            if now == number:
                raise KilledError

        faults.after = kill
        workspace.dataset = f"killed-{number}"
        with TaskPool.open(f"sqlite:///{workspace.pool.engine.url.database}.{number}") as pool:
            pool.import_tasks(candidates(2), Status.CANDIDATE)
            try:
                workspace.push(pool=pool)
            except KilledError:
                kills += 1
                faults.heal()
                assert workspace.push(pool=pool).total == 2
                assert set(workspace.records()) == {"generated_00000000:0", "generated_00000001:0"}
                names = [question["name"] for question in workspace.client.questions(workspace.dataset_id)]
                assert names == [question.name for question in workspace.rubric.questions]
            else:
                break
            finally:
                faults.heal()
    assert kills > 25


def test_answers_given_before_a_killed_push_was_finished_are_kept(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    ann = workspace.person()
    faults = Faults(workspace.client)

    def kill(number: int, method: str, path: str) -> None:
        if path.endswith("bulk"):
            raise KilledError

    faults.after = kill
    with pytest.raises(KilledError):
        workspace.push()
    faults.heal()
    assert workspace.status(0) is Status.CANDIDATE
    ann.submit(workspace.record_id("generated_00000000:0"))
    workspace.push()
    (response,) = workspace.records()["generated_00000000:0"]["responses"]
    assert response["status"] == "submitted"
    assert workspace.sync().accepted == 1


def test_two_pushes_at_once(workspace: Workspace) -> None:
    """While one push waits for Argilla's answer, another one pushes the same candidates, and people answer them."""
    workspace.add(candidates(4))
    ann = workspace.person()
    workspace.push()
    workspace.add(candidates(8)[4:])
    faults = Faults(workspace.client)
    other = connect(workspace.api_url, workspace.api_key)

    def meanwhile(number: int, method: str, path: str) -> None:
        if path.endswith("bulk"):
            assert workspace.push(other).pushed == 4
            ann.submit(workspace.record_id("generated_00000005:0"))
            assert workspace.sync(other).accepted == 1

    faults.after = meanwhile
    workspace.push()
    faults.heal()
    other.close()
    assert len(workspace.records()) == 8
    assert workspace.sync().accepted == 1
    assert workspace.status(5) is Status.ACCEPTED


# whose dataset -----------------------------------------------------------------------------------


def test_a_dataset_belongs_to_one_pool(workspace: Workspace, tmp_path: Path) -> None:
    workspace.add(candidates(1))
    workspace.push()
    with TaskPool.open(f"sqlite:///{tmp_path}/other.db") as other:
        other.import_tasks(candidates(2), Status.CANDIDATE)
        with pytest.raises(ReviewRefusedError, match="another task pool") as caught:
            workspace.push(pool=other)
        assert "review.argilla.dataset" in str(caught.value.hint)
        assert other.counts()["candidate"] == 2
    assert len(workspace.records()) == 1


def test_a_dataset_made_by_hand_is_left_alone(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.client.send("POST", "datasets", {"name": workspace.dataset, "workspace_id": workspace.id})
    with pytest.raises(ReviewRefusedError, match="not made by this program"):
        workspace.push()


def test_a_renamed_dataset_is_found_again(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    dataset_id = workspace.dataset_id
    workspace.client.send("PATCH", f"datasets/{dataset_id}", {"name": "renamed by hand"})
    workspace.add(candidates(2)[1:])
    result = workspace.push()
    assert result.total == 2
    assert dataset_id in result.url


def test_a_deleted_dataset_is_made_again_with_what_waits(workspace: Workspace) -> None:
    workspace.add(candidates(3))
    workspace.push()
    ann = workspace.person()
    ann.submit(workspace.record_id("generated_00000000:0"))
    workspace.sync()
    workspace.client.send("DELETE", f"datasets/{workspace.dataset_id}")
    with pytest.raises(ReviewRefusedError, match="not at .* any more") as refused:
        workspace.sync()
    assert "sia push" in str(refused.value.hint)
    assert workspace.status(0) is Status.ACCEPTED
    assert workspace.push().pushed == 2
    assert set(workspace.records()) == {"generated_00000001:0", "generated_00000002:0"}
    ann = workspace.person()
    ann.submit(workspace.record_id("generated_00000001:0"))
    workspace.sync()
    assert [workspace.status(n) for n in range(3)] == [Status.ACCEPTED, Status.ACCEPTED, Status.IN_REVIEW]


def test_reworded_rubrics_are_applied_and_others_refused(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    first = workspace.rubric
    question = first.questions[0].model_copy(update={"title": "Is it a task?", "labels": {"yes": "Yes!", "no": "No!"}})
    workspace.rubric = first.model_copy(
        update={"questions": [question, *first.questions[1:]], "guidelines": {"en": "New."}}
    )
    workspace.push()
    there = workspace.client.questions(workspace.dataset_id)[0]
    assert there["title"] == "Is it a task?"
    assert [option["text"] for option in there["settings"]["options"]] == ["Yes!", "No!"]
    dataset = workspace.client.dataset(workspace.dataset_id)
    assert dataset is not None
    assert dataset["guidelines"] == "New."
    workspace.rubric = load_rubric("quick")
    workspace.add(candidates(2)[1:])
    for attempt in (workspace.push, workspace.sync):
        with pytest.raises(ReviewRefusedError, match="other questions"):
            attempt()
    assert workspace.status(1) is Status.CANDIDATE


def test_min_submitted_follows_the_recipe(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    workspace.rules["min_submitted"] = 3
    workspace.push()
    dataset = workspace.client.dataset(workspace.dataset_id)
    assert dataset is not None
    assert dataset["distribution"]["min_submitted"] == 3


# refused, away, ill --------------------------------------------------------------------------------


def test_a_missing_workspace_is_named(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.name = "nowhere"
    with pytest.raises(ReviewRefusedError, match="'nowhere'") as caught:
        workspace.push()
    assert "review.argilla.workspace" in str(caught.value.hint)


def test_a_wrong_key_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ReviewRefusedError, match="refuses the API key"):
        connect(workspace.api_url, "wrong")


def test_an_annotators_key_is_refused(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    ann = workspace.person()
    with connect(workspace.api_url, ann.api_key) as client, pytest.raises(ReviewRefusedError, match="does not allow"):
        workspace.push(client)
    assert workspace.status(0) is Status.CANDIDATE


@pytest.mark.parametrize("url", ["ftp://example.test", "nonsense", "http://[::1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ReviewRefusedError, match="not an http"):
        connect(url, "key", patience=0)


def test_nobody_at_the_address() -> None:
    with pytest.raises(ReviewUnavailableError, match="cannot be reached") as caught:
        connect("http://127.0.0.1:9", "key", patience=0)
    assert "sia server start" in str(caught.value.hint)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_failures_in_the_middle_are_ridden_out(workspace: Workspace, status: int) -> None:
    workspace.add(candidates(4))
    faults = Faults(workspace.client)
    failed: set[str] = set()

    def once_each(number: int, method: str, path: str) -> httpx.Response | None:
        if path in failed:
            return None
        failed.add(path)
        return httpx.Response(status, text="later")

    faults.before = once_each
    assert workspace.push().pushed == 4
    faults.heal()
    assert len(workspace.records()) == 4


def test_an_answer_lost_on_the_way_back_doubles_nothing(workspace: Workspace) -> None:
    workspace.add(candidates(4))
    workspace.push()
    workspace.add(candidates(8)[4:])
    faults = Faults(workspace.client)
    lost = iter([httpx.ReadTimeout("slow"), httpx.ReadError("reset")])

    def lose(number: int, method: str, path: str) -> None:
        error = next(lost, None) if path.endswith("bulk") else None
        if error is not None:
            raise error

    faults.after = lose
    assert workspace.push().pushed == 4
    faults.heal()
    assert len(workspace.records()) == 8


def test_an_argilla_that_stays_ill_stops_the_push_and_the_next_one_goes_on(workspace: Workspace) -> None:
    workspace.add(candidates(250))
    workspace.client._patience = 0.1
    faults = Faults(workspace.client)
    bulks = 0

    def second_batch_fails(number: int, method: str, path: str) -> httpx.Response | None:
        nonlocal bulks
        bulks += path.endswith("bulk")
        return httpx.Response(503) if bulks > 1 else None

    faults.before = second_batch_fails
    with pytest.raises(ReviewUnavailableError, match="503"):
        workspace.push()
    faults.heal()
    assert workspace.pool.reviews.summary()["pushed"] == 200
    again = workspace.push()
    assert (again.pushed, again.unchanged, again.total) == (50, 200, 250)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200, text="<html>login</html>"), ReviewUnavailableError),
        (httpx.Response(302, headers={"location": "/login"}), ReviewRefusedError),
        (httpx.Response(401), ReviewRefusedError),
        (httpx.Response(418, text="teapot"), ReviewRefusedError),
    ],
)
def test_answers_that_are_not_argillas(workspace: Workspace, answer: httpx.Response, expected: type[Exception]) -> None:
    workspace.client._patience = 0
    faults = Faults(workspace.client)
    faults.before = lambda number, method, path: answer
    with pytest.raises(expected):
        workspace.push()


def test_answers_in_a_deleted_dataset_do_not_count_in_the_next(workspace: Workspace) -> None:
    workspace.add(candidates(1, instances=2))
    workspace.push()
    ann, eve = workspace.person("ann"), workspace.person("eve")
    workspace.rules["min_submitted"] = 2
    ann.submit(workspace.record_id("generated_00000000:1"), output_correct="no")
    workspace.sync()
    workspace.client.send("DELETE", f"datasets/{workspace.dataset_id}")
    assert workspace.push().pushed == 2
    eve.submit(workspace.record_id("generated_00000000:0"), output_correct="no")
    workspace.sync()
    assert {r.username for r in workspace.pool.reviews.responses() if r.status == "submitted"} == {eve.username}
    task = workspace.pool.task("generated_00000000")
    assert task is not None
    assert (task.status, task.votes) == (Status.IN_REVIEW, (0, 1))


def test_a_record_that_was_deleted_does_not_come_back_with_its_dataset(workspace: Workspace) -> None:
    workspace.add(candidates(1, instances=2))
    workspace.push()
    workspace.delete_record("generated_00000000:1")
    workspace.sync()
    workspace.client.send("DELETE", f"datasets/{workspace.dataset_id}")
    assert workspace.push().pushed == 1
    assert set(workspace.records()) == {"generated_00000000:0"}


def test_what_happens_while_the_judge_model_thinks_is_seen(workspace: Workspace) -> None:
    workspace.add(candidates(2))
    ann = workspace.person()

    def judge(entries: Sequence[Entry]) -> dict[str, Opinion]:
        if len(entries) == 2:  # meanwhile somebody else pushes, and people answer
            workspace.push()
            ann.submit(workspace.record_id("generated_00000000:0"))
            workspace.sync()
        return {}

    result = workspace.push(judge=judge)
    assert (result.pushed, result.unchanged) == (0, 2)
    assert workspace.records()["generated_00000000:0"]["metadata"]["resolution"] == "accepted"


def test_a_half_made_dataset_of_another_rubric_is_mended(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    faults = Faults(workspace.client)

    def kill(number: int, method: str, path: str) -> None:
        if path.endswith("/publish"):
            raise KilledError

    faults.before = kill
    with pytest.raises(KilledError):
        workspace.push()
    faults.heal()
    workspace.rubric = load_rubric("quick")
    assert workspace.push().pushed == 1
    names = [question["name"] for question in workspace.client.questions(workspace.dataset_id)]
    assert sorted(names) == sorted(question.name for question in workspace.rubric.questions)


def test_who_cannot_open_the_records_is_not_assigned_any(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    stranger = workspace.person()
    workspace.owner.delete(f"/workspaces/{workspace.id}/users/{stranger.id}").raise_for_status()
    workspace.rules["annotators"] = [stranger.username]
    with pytest.raises(ReviewRefusedError, match="not in the workspace"):
        workspace.push()
    assert workspace.status(0) is Status.CANDIDATE


def test_corrected_answers_of_calibration_records_count(workspace: Workspace) -> None:
    known = replace(candidates(1)[0], id="generated_90000001", instruction="Known.")
    workspace.add(candidates(2))
    workspace.push(calibration=[Calibration(known, {"output_correct": "no"})])
    ann = workspace.person()
    ann.submit(workspace.record_id("generated_90000001:0"))
    workspace.sync()
    assert calibration(workspace.pool)[ann.username].count == 0
    workspace.push(calibration=[Calibration(known, {"output_correct": "yes"})])
    assert calibration(workspace.pool)[ann.username].count == 1
