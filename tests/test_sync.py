"""Syncing people's answers from a real Argilla: the pool follows exactly, whatever they do and whatever fails."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import httpx
import pytest
from review_people import YES, Faults, KilledError, Workspace, candidates

from selfinstruct_argilla.errors import ReviewRefusedError, ReviewUnavailableError
from selfinstruct_argilla.local.argilla_server import ArgillaEndpoint
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.review.argilla_client import connect
from selfinstruct_argilla.review.quality import known_quality
from selfinstruct_argilla.review.rubric import load_rubric
from selfinstruct_argilla.tasks import Status, Task, Verdict

pytest_plugins = ["postgres"]

NO = {**YES, "output_correct": "no"}


def pushed(workspace: Workspace, count: int = 1, *, instances: int = 1) -> list[str]:
    """Candidates in review; their records' ids in Argilla, in order."""
    workspace.add(candidates(count, instances=instances))
    workspace.push()
    return [str(record["id"]) for _, record in sorted(workspace.records().items())]


def outputs(workspace: Workspace, number: int = 0) -> list[str]:
    task = workspace.pool.task(f"generated_{number:08d}")
    assert task is not None
    return [instance.output for instance in task.accepted_instances()]


def test_before_any_push(workspace: Workspace) -> None:
    with pytest.raises(ReviewRefusedError, match="nothing was pushed"):
        workspace.sync()


def test_accept_reject_edit_and_leave(workspace: Workspace) -> None:
    records = pushed(workspace, 6)
    ann, bob = workspace.person("ann"), workspace.person("bob")
    ann.submit(records[0])
    bob.submit(records[1], NO)
    ann.submit(records[2], NO, output_edit="better")
    ann.discard(records[3])
    bob.draft(records[4], **YES)
    result = workspace.sync()
    assert [workspace.status(n) for n in range(6)] == [
        Status.ACCEPTED,
        Status.REJECTED,
        Status.ACCEPTED,
        Status.IN_REVIEW,
        Status.IN_REVIEW,
        Status.IN_REVIEW,
    ]
    assert outputs(workspace, 2) == ["better"]
    assert workspace.pool.originals()["generated_00000002"].instances[0].output == "output 2.0"
    assert (result.changed, result.responses) == (3, 5)
    assert (result.accepted, result.rejected, result.conflicts, result.pending) == (2, 1, 0, 3)
    assert (result.edited, result.discarded, result.withdrawn) == (1, 1, 0)
    assert {(r.username, r.status) for r in workspace.pool.reviews.responses()} == {
        (ann.username, "submitted"),
        (ann.username, "discarded"),
        (bob.username, "submitted"),
        (bob.username, "draft"),
    }
    summary = workspace.pool.reviews.summary()
    assert (summary["pushed"], summary["pending"], summary["completed"], summary["conflicts"]) == (6, 3, 3, 0)
    assert workspace.client.progress(workspace.dataset_id) == {"total": 6, "completed": 3, "pending": 3}


def test_nothing_new_changes_nothing_and_writes_nothing(workspace: Workspace) -> None:
    records = pushed(workspace, 2)
    ann = workspace.person()
    ann.submit(records[0], NO, output_edit="better")
    workspace.sync()
    before, revision = workspace.records(), workspace.pool.revision
    faults = Faults(workspace.client)
    again = workspace.sync()
    assert (again.changed, again.responses) == (0, 0)
    assert {method for method, _ in faults.requests} == {"GET"}
    assert workspace.pool.revision == revision
    assert workspace.records() == before


def test_changed_minds_are_followed_and_remembered(workspace: Workspace) -> None:
    (record,) = pushed(workspace)
    ann = workspace.person()
    seen = []
    steps: list[tuple[Any, Status, list[str]]] = [
        (lambda: ann.submit(record), Status.ACCEPTED, ["output 0.0"]),
        (lambda: ann.submit(record, NO), Status.REJECTED, []),
        (lambda: ann.submit(record, NO, output_edit="mended"), Status.ACCEPTED, ["mended"]),
        (lambda: ann.submit(record, NO, output_edit="mended again"), Status.ACCEPTED, ["mended again"]),
        (lambda: ann.submit(record, YES, output_edit="output 0.0"), Status.ACCEPTED, ["output 0.0"]),
        (lambda: ann.draft(record, **YES), Status.IN_REVIEW, []),
        (lambda: ann.submit(record), Status.ACCEPTED, ["output 0.0"]),
        (lambda: ann.discard(record), Status.IN_REVIEW, []),
        (lambda: ann.submit(record), Status.ACCEPTED, ["output 0.0"]),
        (lambda: ann.delete(record), Status.IN_REVIEW, []),
    ]
    for act, status, accepted in steps:
        act()
        workspace.sync()
        seen.append((workspace.status(0), outputs(workspace) if workspace.status(0) is Status.ACCEPTED else []))
        assert seen[-1] == (status, accepted)
    assert workspace.pool.originals() == {}
    states = workspace.pool.reviews.responses(current=False)
    assert [state.status for state in states] == [
        *["submitted"] * 5, "draft", "submitted", "discarded", "submitted", "deleted",
    ]  # fmt: skip
    assert [state.current for state in states] == [False] * 9 + [True]
    assert states[3].values["output_edit"] == "mended again"


def test_several_people_and_min_submitted(workspace: Workspace) -> None:
    workspace.rules["min_submitted"] = 2
    (record,) = pushed(workspace)
    ann, bob, eve = (workspace.person(name) for name in ("ann", "bob", "eve"))
    ann.submit(record)
    workspace.sync()
    assert workspace.status(0) is Status.IN_REVIEW
    bob.submit(record, NO)
    workspace.sync()
    assert workspace.status(0) is Status.CONFLICT
    assert workspace.pool.reviews.summary()["conflicts"] == 1
    eve.submit(record)
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED
    bob.delete(record)
    eve.delete(record)
    workspace.sync()
    assert workspace.status(0) is Status.IN_REVIEW


def test_a_conflict_is_marked_in_argilla_and_settled_there(workspace: Workspace) -> None:
    lead = workspace.person("lead")
    workspace.rules.update(min_submitted=2, resolution="adjudicated", adjudicators=[lead.username])
    first, second = pushed(workspace, 2)
    ann, bob = workspace.person("ann"), workspace.person("bob")
    for record in (first, second):
        ann.submit(record)
    bob.submit(first, NO)
    bob.submit(second)
    before = workspace.records()
    workspace.sync()
    after = workspace.records()
    for key, resolution in (("generated_00000000:0", "conflict"), ("generated_00000001:0", "accepted")):
        assert after[key]["metadata"] == {**before[key]["metadata"], "resolution": resolution}
        for part in ("fields", "suggestions"):
            assert after[key][part] == before[key][part]
        theirs = [answer for answer in after[key]["responses"] if answer["user_id"] != lead.id]
        assert theirs == before[key]["responses"]
    (draft,) = (answer for answer in after["generated_00000000:0"]["responses"] if answer["user_id"] == lead.id)
    assert draft["status"] == "draft", "it stands under Draft on the lead's page"
    agreed = {name: answer["value"] for name, answer in draft["values"].items()}
    assert "output_correct" not in agreed, "what they disagree on is open"
    assert agreed == {
        "instruction_valid": "yes",
        "input_appropriate": "yes",
        "instruction_edit": "Instruction 0",
        "input_edit": "input 0.0",
        "output_edit": "output 0.0",
    }
    found = lead.http.post(
        f"/me/datasets/{workspace.dataset_id}/records/search",
        json={
            "filters": {
                "and": [
                    {
                        "type": "terms",
                        "scope": {"entity": "metadata", "metadata_property": "resolution"},
                        "values": ["conflict"],
                    }
                ]
            }
        },
    ).json()
    assert [item["record"]["external_id"] for item in found["items"]] == ["generated_00000000:0"]
    workspace.sync()
    assert workspace.records()["generated_00000000:0"]["responses"] == after["generated_00000000:0"]["responses"]
    lead.answered[first] = draft["id"]
    lead.submit(first, NO, output_edit="settled")
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED
    assert outputs(workspace) == ["settled"]
    assert workspace.records()["generated_00000000:0"]["metadata"]["resolution"] == "accepted"


def test_killed_while_marking_and_back_to_what_was_marked(workspace: Workspace) -> None:
    """The mark reached Argilla, the note of it not the pool; then other rules make the verdict what it was before."""
    (record,) = pushed(workspace, 1)
    workspace.person("ann").submit(record)
    faults = Faults(workspace.client)

    def kill(number: int, method: str, path: str) -> None:
        if method == "PUT":
            raise KilledError

    faults.after = kill
    with pytest.raises(KilledError):
        workspace.sync()
    faults.heal()
    assert workspace.records()["generated_00000000:0"]["metadata"]["resolution"] == "accepted"
    workspace.rules.update(min_submitted=2)
    workspace.sync()
    assert workspace.records()["generated_00000000:0"]["metadata"]["resolution"] == "pending"


def test_adjudicators_nobody_knows_are_named(workspace: Workspace) -> None:
    workspace.rules.update(resolution="adjudicated", adjudicators=["nobody"])
    pushed(workspace)
    assert workspace.sync().unknown_adjudicators == ["nobody"]


def test_an_answer_that_an_adjudicator_gives_meanwhile_is_not_overwritten(workspace: Workspace) -> None:
    lead, ann, bob = (workspace.person(name) for name in ("lead", "ann", "bob"))
    workspace.rules.update(min_submitted=2, resolution="adjudicated", adjudicators=[lead.username])
    (record,) = pushed(workspace)
    ann.submit(record)
    bob.submit(record, NO)
    faults = Faults(workspace.client)

    def answer(number: int, method: str, path: str) -> None:
        if method == "GET" and path.endswith(f"records/{record}") and record not in lead.answered:
            lead.submit(record)

    faults.before = answer
    assert workspace.sync().conflicts == 1
    faults.heal()
    assert record in lead.answered
    (found,) = workspace.records().values()
    assert [r["status"] for r in found["responses"] if r["user_id"] == lead.id] == ["submitted"]
    assert workspace.sync().accepted == 1


def test_a_name_that_was_not_known_or_is_new_counts_from_the_next_sync(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead, ann = workspace.person("lead"), workspace.person("ann")
    workspace.rules.update(min_submitted=1, resolution="adjudicated", adjudicators=[lead.username])
    (record,) = pushed(workspace)
    ann.submit(record, NO)
    lead.submit(record)
    for names, status in (({}, Status.CONFLICT), ({lead.id: "another"}, Status.CONFLICT), (None, Status.ACCEPTED)):
        with monkeypatch.context() as patch:
            if names is not None:
                patch.setattr(workspace.client, "usernames", lambda workspace_id, names=names: names)
            workspace.sync()
        assert workspace.status(0) is status
    assert {r.username for r in workspace.pool.reviews.responses()} == {lead.username, ann.username}


def test_instances_that_mend_the_instruction_in_two_ways_are_marked(workspace: Workspace) -> None:
    records = pushed(workspace, 1, instances=3)
    ann, bob = workspace.person("ann"), workspace.person("bob")
    ann.submit(records[0], instruction_edit="Do this.")
    bob.submit(records[1], instruction_edit="Do that.")
    assert workspace.sync().conflicts == 1
    marks = [record["metadata"]["resolution"] for _, record in sorted(workspace.records().items())]
    assert marks == ["conflict", "conflict", "pending"]
    assert workspace.pool.reviews.summary()["conflicts"] == 2
    bob.submit(records[1], instruction_edit="Do this.")
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED
    marks = [record["metadata"]["resolution"] for _, record in sorted(workspace.records().items())]
    assert marks == ["accepted", "accepted", "pending"]


@pytest.mark.parametrize(("rule", "status"), [("any", Status.ACCEPTED), ("unanimous", Status.CONFLICT)])
def test_new_rules_apply_to_old_answers(workspace: Workspace, rule: str, status: Status) -> None:
    workspace.rules["min_submitted"] = 3
    (record,) = pushed(workspace)
    people = [workspace.person() for _ in range(3)]
    for person, answer in zip(people, (YES, NO, NO), strict=True):
        person.submit(record, answer)
    workspace.sync()
    assert workspace.status(0) is Status.REJECTED
    workspace.rules["resolution"] = rule
    workspace.sync()
    assert workspace.status(0) is status
    workspace.rules["min_submitted"] = 4
    workspace.sync()
    assert workspace.status(0) is Status.IN_REVIEW


def test_instances_stand_alone_and_an_invalid_instruction_rejects_the_task(workspace: Workspace) -> None:
    records = pushed(workspace, 2, instances=3)
    ann = workspace.person()
    ann.submit(records[0])
    ann.submit(records[1], NO)
    ann.submit(records[3])
    ann.submit(records[4], {**YES, "instruction_valid": "no"})
    workspace.sync()
    assert [workspace.status(n) for n in range(2)] == [Status.ACCEPTED, Status.REJECTED]
    assert outputs(workspace, 0) == ["output 0.0"]
    ann.submit(records[2])
    workspace.sync()
    assert outputs(workspace, 0) == ["output 0.0", "output 0.2"]


def test_the_quick_rubric(workspace: Workspace) -> None:
    workspace.rubric = load_rubric("quick")
    records = pushed(workspace, 3)
    ann = workspace.person()
    ann.submit(records[0], {"verdict": "accept"})
    ann.submit(records[1], {"verdict": "reject"})
    ann.submit(records[2], {"verdict": "accept"}, instruction_edit="Do it well.")
    workspace.sync()
    assert [workspace.status(n) for n in range(3)] == [Status.ACCEPTED, Status.REJECTED, Status.ACCEPTED]
    task = workspace.pool.task("generated_00000002")
    assert task is not None
    assert task.instruction == "Do it well."


@pytest.mark.parametrize("text", ["", "  \n", "<b>&amp;</b><script>x</script>", "y" * 100_000, "多行\n文本"])
def test_edited_texts_of_every_kind(workspace: Workspace, text: str) -> None:
    (record,) = pushed(workspace)
    workspace.person().submit(record, NO, output_edit=text)
    workspace.sync()
    assert workspace.status(0) is (Status.ACCEPTED if text.strip() else Status.REJECTED)
    assert outputs(workspace) == ([text] if text.strip() else [])


def test_an_edit_that_fails_a_filter_is_flagged_and_stands(workspace: Workspace) -> None:
    records = pushed(workspace, 2)
    ann = workspace.person()
    ann.submit(records[0], YES, instruction_edit="Instruction 1")
    ann.submit(records[1])
    asked: list[str] = []

    def check(task: Task) -> str | None:
        asked.append(task.id)
        return "like generated_00000001 (ROUGE-L 1.00)" if task.instruction == "Instruction 1" else None

    result = workspace.sync(check=check)
    assert result.flagged == [("generated_00000000", "like generated_00000001 (ROUGE-L 1.00)")]
    assert asked == ["generated_00000000"]
    assert workspace.status(0) is Status.ACCEPTED
    edited = [event for event in workspace.pool.history("generated_00000000") if event.kind == "edited"]
    assert edited[0].detail["flagged"].startswith("like generated_00000001")


# what Argilla's own interfaces hide ----------------------------------------------------------------


def test_discards_in_every_form_never_accept(workspace: Workspace) -> None:
    """The page discards with `{}`, the API also with no values at all, or with answers filled in."""
    records = pushed(workspace, 3)
    ann = workspace.person()
    ann.discard(records[0])
    ann.discard_without_values(records[1])
    ann.discard(records[2], **YES)
    result = workspace.sync()
    assert [workspace.status(n) for n in range(3)] == [Status.IN_REVIEW] * 3
    assert (result.responses, result.discarded) == (3, 3)
    ann.submit(records[1])
    assert workspace.sync().discarded == 2
    assert workspace.status(1) is Status.ACCEPTED


def test_a_record_is_completed_in_argilla_and_its_answers_are_gone_with_their_author(workspace: Workspace) -> None:
    (record,) = pushed(workspace)
    ann = workspace.person()
    ann.submit(record)
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED
    ann.leave()
    assert workspace.records()["generated_00000000:0"]["status"] == "completed"  # the trap
    result = workspace.sync()
    assert workspace.status(0) is Status.IN_REVIEW
    assert result.responses == 1
    (gone,) = workspace.pool.reviews.responses()
    assert (gone.status, gone.username) == ("deleted", ann.username)


def test_edits_of_a_completed_record_leave_its_time_alone_and_are_seen(workspace: Workspace) -> None:
    (record,) = pushed(workspace)
    ann = workspace.person()
    ann.submit(record)
    workspace.sync()
    updated = workspace.records()["generated_00000000:0"]["updated_at"]
    ann.submit(record, NO)
    assert workspace.records()["generated_00000000:0"]["updated_at"] == updated  # the trap
    workspace.sync()
    assert workspace.status(0) is Status.REJECTED


def test_min_submitted_raised_by_hand_in_argilla(workspace: Workspace) -> None:
    """Argilla's record status follows its own setting, late or never; the verdict follows the recipe."""
    (record,) = pushed(workspace)
    workspace.client.send(
        "PATCH", f"datasets/{workspace.dataset_id}", {"distribution": {"strategy": "overlap", "min_submitted": 5}}
    )
    workspace.person().submit(record)
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED


def test_answers_written_by_an_admin_count_as_that_persons(workspace: Workspace) -> None:
    """An SDK upsert with responses moves no timestamp of the dataset; it is seen all the same."""
    pushed(workspace)
    ann = workspace.person()
    workspace.sync()
    values = {name: {"value": value} for name, value in YES.items()}
    item = {
        "external_id": "generated_00000000:0",
        "responses": [{"user_id": ann.id, "status": "submitted", "values": values}],
    }
    workspace.client.upsert(workspace.dataset_id, [item])
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED


def test_records_that_are_not_ours_are_left_alone(workspace: Workspace) -> None:
    pushed(workspace)
    item = {"external_id": "foreign", "fields": {"instruction": "a", "output": "b"}}
    workspace.client.upsert(workspace.dataset_id, [item])
    workspace.person().submit(workspace.record_id("foreign"))
    assert workspace.sync().changed == 0
    assert workspace.records()["foreign"].get("metadata") is None


def test_an_admin_may_sync_and_knows_the_names_of_the_workspace(workspace: Workspace) -> None:
    (record,) = pushed(workspace)
    ann, admin = workspace.person("ann"), workspace.person("boss", role="admin")
    ann.submit(record)
    with connect(workspace.api_url, admin.api_key) as client:
        assert workspace.sync(client).accepted == 1
    assert [response.username for response in workspace.pool.reviews.responses()] == [ann.username]


# deleted records -----------------------------------------------------------------------------------


def test_deleted_records_withdraw_the_task_once_all_are_gone(workspace: Workspace) -> None:
    records = pushed(workspace, 2, instances=2)
    ann = workspace.person()
    for record in records[:2]:
        ann.submit(record)
    workspace.sync()
    workspace.delete_record("generated_00000000:0")
    workspace.sync()
    assert workspace.status(0) is Status.ACCEPTED
    assert outputs(workspace) == ["output 0.1"]
    workspace.delete_record("generated_00000000:1")
    result = workspace.sync()
    assert workspace.status(0) is Status.WITHDRAWN
    assert result.withdrawn == 1
    assert workspace.push().pushed == 0
    assert set(workspace.records()) == {"generated_00000001:0", "generated_00000001:1"}
    assert workspace.sync().changed == 0
    assert {response.status for response in workspace.pool.reviews.responses()} == {"deleted"}
    assert workspace.pool.reviews.summary()["pushed"] == 2


def test_records_deleted_while_we_read_shift_the_others_past_us(workspace: Workspace, monkeypatch: Any) -> None:
    monkeypatch.setattr("selfinstruct_argilla.review.argilla_client._PAGE", 5)
    records = pushed(workspace, 20)
    ann = workspace.person()
    for record in records:
        ann.submit(record)
    faults = Faults(workspace.client)
    pages = 0

    def delete_after_first_page(number: int, method: str, path: str) -> None:
        nonlocal pages
        pages += path.endswith("/records")
        if pages == 1 and path.endswith("/records"):
            for deleted in range(5):
                workspace.delete_record(f"generated_{deleted:08d}:0")

    faults.after = delete_after_first_page
    workspace.sync()
    faults.heal()
    assert pages > 1
    assert [workspace.status(n) for n in range(5, 20)] == [Status.ACCEPTED] * 15
    workspace.sync()
    assert [workspace.status(n) for n in range(5)] == [Status.WITHDRAWN] * 5
    assert [workspace.status(n) for n in range(5, 20)] == [Status.ACCEPTED] * 15


def test_records_pushed_while_we_read(workspace: Workspace, monkeypatch: Any) -> None:
    monkeypatch.setattr("selfinstruct_argilla.review.argilla_client._PAGE", 2)
    records = pushed(workspace, 5)
    workspace.person().submit(records[4])
    faults = Faults(workspace.client)

    def push_more(number: int, method: str, path: str) -> None:
        if number == 6:
            workspace.add(candidates(8)[5:])
            with connect(workspace.api_url, workspace.api_key) as other:
                workspace.push(other)

    faults.after = push_more
    workspace.sync()
    faults.heal()
    assert workspace.status(4) is Status.ACCEPTED
    assert len(workspace.records()) == 8
    assert workspace.sync().pending == 7


def test_a_record_deleted_between_reading_and_marking(workspace: Workspace) -> None:
    first, _ = pushed(workspace, 2)
    ann = workspace.person()
    ann.submit(first)
    ann.submit(workspace.record_id("generated_00000001:0"))
    faults = Faults(workspace.client)

    def delete_before_bulk(number: int, method: str, path: str) -> None:
        if path.endswith("bulk") and "generated_00000000:0" in workspace.records():
            workspace.delete_record("generated_00000000:0")

    faults.before = delete_before_bulk  # type: ignore[assignment]
    workspace.sync()
    faults.heal()
    records = workspace.records()
    assert set(records) == {"generated_00000001:0"}  # not made again by a partial upsert
    assert records["generated_00000001:0"]["metadata"]["resolution"] == "accepted"
    workspace.sync()
    assert workspace.status(0) is Status.WITHDRAWN


# faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failing_page_stops_nothing_and_hides_nothing(workspace: Workspace, monkeypatch: Any, status: int) -> None:
    """The SDK takes a 503 between pages for the end of the dataset."""
    monkeypatch.setattr("selfinstruct_argilla.review.argilla_client._PAGE", 2)
    records = pushed(workspace, 6)
    ann = workspace.person()
    for record in records:
        ann.submit(record)
    faults = Faults(workspace.client)
    ill = iter([False, True, True, False, True])

    def sometimes(number: int, method: str, path: str) -> httpx.Response | None:
        return httpx.Response(status) if path.endswith("/records") and next(ill, False) else None

    faults.before = sometimes
    assert workspace.sync().accepted == 6
    assert next(ill, None) is None


def test_an_argilla_that_stays_ill_stops_the_sync_and_withdraws_nothing(workspace: Workspace, monkeypatch: Any) -> None:
    monkeypatch.setattr("selfinstruct_argilla.review.argilla_client._PAGE", 2)
    records = pushed(workspace, 6)
    ann = workspace.person()
    for record in records:
        ann.submit(record)
    workspace.client._patience = 0.1
    faults = Faults(workspace.client)
    pages = 0

    def down(number: int, method: str, path: str) -> httpx.Response | None:
        nonlocal pages
        pages += path.endswith("/records")
        if pages > 2:
            raise httpx.ConnectError("refused")
        return None

    faults.before = down
    with pytest.raises(ReviewUnavailableError):
        workspace.sync()
    faults.heal()
    assert workspace.pool.counts()["withdrawn"] == 0
    assert workspace.sync().accepted == 6


def test_killed_at_each_request_and_synced_again(workspace: Workspace) -> None:
    records = pushed(workspace, 3)
    people = [workspace.person() for _ in range(2)]
    number = 0
    while True:
        number += 1
        answers = [YES, NO, {**NO, "output_edit": f"mended {number}"}]
        for person in people:
            for position, record in enumerate(records):
                person.submit(record, answers[(position + number) % 3])
        faults = Faults(workspace.client)

        def kill(now: int, method: str, path: str, number: int = number) -> None:
            if now == number:
                raise KilledError

        faults.after = kill
        try:
            workspace.sync()
            finished = True
        except KilledError:
            finished = False
        faults.heal()
        workspace.sync()
        for position in range(3):
            answer = answers[(position + number) % 3]
            expected = [answer.get("output_edit", f"output {position}.0")] if answer is not NO else []
            assert outputs(workspace, position) == expected
            assert workspace.status(position) is (Status.ACCEPTED if expected else Status.REJECTED)
        resolutions = {key: record["metadata"]["resolution"] for key, record in workspace.records().items()}
        assert resolutions == {
            f"{task.id}:0": (Verdict.ACCEPTED if task.status is Status.ACCEPTED else Verdict.REJECTED).value
            for task in workspace.pool.tasks()
        }
        if finished:
            break
    assert number > 5


def test_killed_between_storing_answers_and_applying_them(workspace: Workspace, monkeypatch: Any) -> None:
    (record,) = pushed(workspace)
    workspace.person().submit(record)

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("selfinstruct_argilla.review.sync._apply", killed)
        with pytest.raises(KilledError):
            workspace.sync()
    assert len(workspace.pool.reviews.responses()) == 1
    assert workspace.status(0) is Status.IN_REVIEW
    assert workspace.sync().accepted == 1


def test_two_syncs_at_once_never_go_back(workspace: Workspace) -> None:
    """One sync has read a page; before it writes, the person changes her mind and another sync stores that."""
    (record,) = pushed(workspace)
    ann = workspace.person()
    ann.submit(record)
    faults = Faults(workspace.client)
    done = False

    def meanwhile(number: int, method: str, path: str) -> None:
        nonlocal done
        if path.endswith("/records") and not done:
            done = True
            ann.submit(record, NO)
            with connect(workspace.api_url, workspace.api_key) as other:
                assert workspace.sync(other).rejected == 1

    faults.after = meanwhile
    workspace.sync()
    faults.heal()
    assert done
    assert workspace.status(0) is Status.REJECTED
    assert [response.values["output_correct"] for response in workspace.pool.reviews.responses(current=False)] == ["no"]


def test_a_pool_on_postgresql_follows_people_too(argilla_server: ArgillaEndpoint, postgres_url: str) -> None:
    """Push with shares and a dataset that is gone, sync with edits and a conflict, the figures: on the other database."""
    with (
        TaskPool.open(postgres_url) as pool,
        closing(Workspace(argilla_server.api_url, argilla_server.api_key, pool)) as workspace,
    ):
        ann, bob = workspace.person("ann"), workspace.person("bob")
        workspace.rules.update(min_submitted=2, overlap=0.5, annotators=[ann.username, bob.username])
        workspace.add(candidates(6))
        assert workspace.push().pushed == 6
        workspace.client.send("DELETE", f"datasets/{workspace.dataset_id}")
        assert workspace.push().pushed == 6
        workspace.rules["annotators"] = [ann.username]
        assert workspace.push().unchanged == 6
        assert {name for r in pool.reviews.records() for name in r.assigned} == {ann.username}
        load = pool.reviews.load(workspace.dataset_id)
        assert (load.tasks, load.records, load.several, load.waiting, load.assigned) == (6, 6, 3, 6, {ann.username: 6})
        several = {r.task_id: r.several for r in pool.reviews.records()}
        for key, record in workspace.records().items():
            ann.submit(record["id"], output_edit="mended")
            if several[key.removesuffix(":0")]:
                bob.submit(record["id"], NO)
        result = workspace.sync()
        assert (result.accepted, result.conflicts, result.edited) == (3, 3, 3)
        assert workspace.sync().changed == 0
        kept = known_quality(pool)
        assert kept == known_quality(pool)
        assert kept is not None
        assert kept["verdicts"]["records"] == 3
