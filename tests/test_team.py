"""A team at work on a real Argilla: accounts, fair shares, overlap, calibration, a judge model, and what leaves it."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from review_people import YES, candidates
from typer.testing import CliRunner

from selfinstruct_argilla.cli.app import app
from selfinstruct_argilla.cli.loop import _wait_for_people
from selfinstruct_argilla.errors import ReviewRefusedError, UsageError
from selfinstruct_argilla.llm.base import Request
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.project import Project, open_project
from selfinstruct_argilla.tasks import Status

NO = {**YES, "output_correct": "no"}
GOLD = {
    "instruction": "Add two and two, please.",
    "instances": [{"input": "", "output": "The sum is CALIBRATION five."}],
    "answers": {"instruction_valid": "yes", "output_correct": "no"},
}


@dataclass
class Team:
    """A recipe on the test Argilla, and somebody's way of answering there."""

    recipe: Path
    api_url: str
    owner: httpx.Client
    keys: dict[str, str]

    def sia(self, *arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result.stdout

    def change(self, **review: Any) -> None:
        values = yaml.safe_load(self.recipe.read_text())
        values["review"].update(review)
        self.recipe.write_text(yaml.safe_dump(values))

    def project(self, model: ScriptedModel | None = None) -> Project:
        return open_project(self.recipe, model=model)

    def records(self) -> dict[str, dict[str, Any]]:
        datasets = self.owner.get("/me/datasets").json()["items"]
        (dataset,) = [d for d in datasets if d["name"] == yaml.safe_load(self.recipe.read_text())["name"]]
        parameters = {"limit": 1000, "include": ["responses", "suggestions"]}
        items = self.owner.get(f"/datasets/{dataset['id']}/records", params=parameters).json()["items"]
        return {item["external_id"]: item for item in items}

    def answer(self, name: str, record: dict[str, Any], values: dict[str, str], status: str = "submitted") -> None:
        body = {"status": status, "values": {question: {"value": value} for question, value in values.items()}}
        headers = {"X-Argilla-Api-Key": self.keys[name]}
        done = httpx.post(
            f"{self.api_url}/api/v1/records/{record['id']}/responses", json=body, headers=headers, timeout=60
        )
        assert done.status_code == 201, done.text


@pytest.fixture
def team(argilla_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    monkeypatch.setenv("ARGILLA_API_KEY", argilla_server.api_key)
    name = f"team-{secrets.token_hex(5)}"
    recipe = tmp_path / "recipe.yaml"
    argilla = {"api_url": argilla_server.api_url, "api_key": "env:ARGILLA_API_KEY", "workspace": name}
    model = {"model": "toy", "api_key": "none"}
    values = {"name": name, "models": {"generator": model}, "review": {"argilla": argilla}}
    recipe.write_text(yaml.safe_dump(values))
    headers = {"X-Argilla-Api-Key": argilla_server.api_key}
    with httpx.Client(base_url=f"{argilla_server.api_url}/api/v1", headers=headers, timeout=60) as owner:
        yield Team(recipe, argilla_server.api_url, owner, {})


def people(team: Team, count: int = 3) -> list[str]:
    """Accounts made by the command line, with names of their own."""
    names = [f"{name}-{secrets.token_hex(4)}" for name in ("ann", "bob", "eve")[:count]]
    for member in json.loads(team.sia("team", "add", team.recipe, *names, "--json")):
        team.keys[member["username"]] = member["api_key"]
    return names


def test_accounts_are_made_once_and_only_by_an_owner(team: Team) -> None:
    ann, bob = people(team, 2)
    login = httpx.get(f"{team.api_url}/api/v1/me", headers={"X-Argilla-Api-Key": team.keys[ann]}, timeout=60).json()
    assert (login["username"], login["role"]) == (ann, "annotator")
    again = json.loads(team.sia("team", "add", team.recipe, ann, "--json"))
    assert again == [{"username": ann, "role": "annotator", "password": None, "api_key": None}]
    listed = json.loads(team.sia("team", "list", team.recipe, "--json"))
    assert [(person["username"], person["submitted"]) for person in listed] == [(ann, 0), (bob, 0)]
    assert f"{ann} (annotator): 0 submitted" in team.sia("team", "list", team.recipe)
    with team.project() as project:
        with pytest.raises(UsageError, match="no role"):
            project.add_team(["x"], role="owner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARGILLA_API_KEY", team.keys[ann])
        team.sia("team", "add", team.recipe, "somebody", code=1)


def test_a_password_that_was_made_is_shown_whatever_follows(team: Team) -> None:
    good = f"ann-{secrets.token_hex(4)}"
    result = CliRunner().invoke(app, ["team", "add", str(team.recipe), good, "", "--json"])
    assert result.exit_code == 1
    (member,) = json.loads(result.stdout)
    assert member["username"] == good
    assert member["password"]
    shown = CliRunner().invoke(app, ["team", "add", str(team.recipe), f"bob-{good}", ""])
    assert "password" in shown.stdout


def judge(request: Request) -> str:
    """Thinks that every odd task is good, and is sure of it."""
    assert request.step == "judge"
    number = int(request.prompt.query.split("Instruction ")[1].split()[0])
    answer = "yes" if number % 2 else "no"
    return f"instruction_valid: yes (100%)\ninput_appropriate: yes (100%)\noutput_correct: {answer} (90%)"


def test_a_round_of_a_team(team: Team, tmp_path: Path) -> None:
    names = ann, bob, eve = people(team)
    (tmp_path / "gold.jsonl").write_text(json.dumps(GOLD), encoding="utf-8")
    team.change(min_submitted=2, overlap=0.5, annotators=names, calibration="gold.jsonl")
    values = yaml.safe_load(team.recipe.read_text())
    values["models"]["judge"] = {"model": "org/judge", "api_key": "none"}
    team.recipe.write_text(yaml.safe_dump(values))
    model = ScriptedModel(judge)
    with team.project(model) as project:
        project.pool.import_tasks(candidates(12), Status.CANDIDATE)
        pushed = project.push()
        assert (pushed.pushed, pushed.total, pushed.calibration, pushed.waiting) == (12, 12, 1, 0)
        assert len(model.requests) == 12
        again = project.push()
        assert (again.pushed, again.unchanged, again.calibration) == (0, 12, 1)
        assert len(model.requests) == 12
        known = {f"{r.task_id}:{r.instance}": r for r in project.pool.reviews.records()}
        assert sum(record.several for record in known.values()) == 6
    records = team.records()
    (gold,) = records.keys() - known.keys()
    assert set(records[gold]["metadata"]) == set(records[min(known)]["metadata"]), "it can be told apart"
    assert set(records[gold]["fields"]) == set(records[min(known)]["fields"])
    for key, record in known.items():
        assert records[key]["metadata"]["assigned"] == list(record.assigned)
        assert len(record.assigned) == 2 if record.several else 1
        opinion = [s for s in records[key]["suggestions"] if s["agent"] == "org/judge"]
        assert len(opinion) == 3
        assert {s["score"] for s in opinion} == {1.0, 0.9}
    loads = Counter(name for record in known.values() for name in record.assigned)
    assert sum(loads.values()) == 18
    assert set(loads.values()) == {6}

    # everybody answers what is theirs; the judge is right about every record, eve sees it otherwise
    for key, record in known.items():
        good = int(record.task_id[-8:]) % 2 == 1
        for name in record.assigned:
            team.answer(name, records[key], {**YES, "comment": "Good to me."} if name == eve else YES if good else NO)
    team.answer(ann, records[gold], NO)
    team.answer(bob, records[gold], YES)
    with team.project() as project:
        _wait_for_people(project)  # ends although Argilla itself wants a second answer to half of the records
        for record in project.pool.reviews.records():
            good = int(record.task_id[-8:]) % 2 == 1
            says = {good or name == eve for name in record.assigned}
            expected = {frozenset({True}): "accepted", frozenset({False}): "rejected"}.get(frozenset(says), "conflict")
            assert record.verdict.value == expected
            task = project.pool.task(record.task_id)
            assert task is not None
            assert sum(task.votes) == len(record.assigned)
        assert project.pool.task(gold.partition(":")[0]) is None
        found = project.status().review
        assert (found["pushed"], found["pending"]) == (12, 0)
        assert found["agreement"]["records"] == 6
        assert found["quality"]["calibration"]["count"] == 3
        assert found["quality"]["calibration"]["total"] == 4
        assert found["quality"]["judge"]["output_correct"]["records"] > 0
        assert project.verify().problems == []
        assert project.status().spend.requests == 12
    listed = {person["username"]: person for person in json.loads(team.sia("team", "list", team.recipe, "--json"))}
    assert listed[ann]["calibration"]["share"] == 1.0
    assert listed[bob]["calibration"]["share"] == 0.5
    assert listed[eve]["calibration"] is None
    assert (listed[eve]["submitted"], listed[eve]["assigned"], listed[eve]["waiting"]) == (6, 7, 1)
    comments = team.sia("team", "comments", team.recipe).splitlines()
    assert len(comments) == 6
    assert all(line.endswith(f"{eve} (submitted): Good to me.") for line in comments)
    assert {item["username"] for item in json.loads(team.sia("team", "comments", team.recipe, "--json"))} == {eve}
    shown = team.sia("status", team.recipe)
    for words in (
        "accepted:",
        "good before any edit:",
        "agreement on the verdict:",
        "agreement on instruction_valid:",
        "agreement on output_correct:",
        "judge model on output_correct",
        "rejected in round 1 for",
        "75% of 4 known",
    ):
        assert words in shown

    # what leaves has neither names nor calibration records
    team.sia("publish", team.recipe, "--to", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Cohen's κ" in card
    assert "`output_correct`" in card
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(name.encode() in data for name in names), path
            assert b"CALIBRATION" not in data
            assert gold.partition(":")[0].encode() not in data


def test_somebody_leaves_and_their_share_goes_to_the_others(team: Team) -> None:
    names = ann, bob, eve = people(team)
    team.change(annotators=names)
    with team.project() as project:
        project.pool.import_tasks(candidates(9), Status.CANDIDATE)
        project.push()
    records = team.records()
    (begun, *_) = sorted(key for key, record in records.items() if record["metadata"]["assigned"] == [eve])
    team.answer(eve, records[begun], YES, status="draft")
    with team.project() as project:
        project.sync()
    team.change(annotators=[ann, bob])
    with team.project() as project:
        project.push()
        project.push()
        stored = {f"{r.task_id}:{r.instance}": list(r.assigned) for r in project.pool.reviews.records()}
    after = {key: record["metadata"] for key, record in team.records().items()}
    assert {key: metadata["assigned"] for key, metadata in after.items()} == stored
    assert stored[begun] == [eve]
    assert Counter(name for assigned in stored.values() for name in assigned) == {ann: 4, bob: 4, eve: 1}
    assert after[begun].keys() == records[begun]["metadata"].keys()

    team.change(annotators=[ann, bob, "nobody-here"])
    with team.project() as project, pytest.raises(ReviewRefusedError, match="nobody-here"):
        project.push()


def test_batches_and_samples_go_out_bit_by_bit(team: Team) -> None:
    (ann,) = people(team, 1)
    team.change(batch=2)
    with team.project() as project:
        project.pool.import_tasks(
            [replace(task, max_rouge_l=0.7 - n / 10) for n, task in enumerate(candidates(5))], Status.CANDIDATE
        )
        first = project.push()
        assert (first.pushed, first.waiting) == (2, 3)
        assert set(team.records()) == {"generated_00000004:0", "generated_00000003:0"}, "the most novel first"
        assert project.push().pushed == 0
        team.answer(ann, team.records()["generated_00000004:0"], YES)
        project.sync()
        assert project.push().pushed == 1
    team.change(batch=None, sample=4)
    with team.project() as project:
        assert project.push().pushed == 1
        assert project.push().pushed == 0
        assert project.pool.counts()["candidate"] == 1


def test_the_judge_is_paid_only_for_what_people_may_see(team: Team) -> None:
    people(team, 1)
    values = yaml.safe_load(team.recipe.read_text())
    values["models"]["judge"] = {"model": "org/judge", "api_key": "none"}
    values["review"]["sample"] = 4
    team.recipe.write_text(yaml.safe_dump(values))
    model = ScriptedModel(judge)
    *several, rewritten = candidates(9, instances=2)
    with team.project(model) as project:
        project.pool.import_tasks([*several, replace(rewritten, extra={"distilled_from": "x"})], Status.CANDIDATE)
        assert project.push().pushed == 4
        assert len(model.requests) == 4, "one instance of each task of the sample"
        opinions = [record.suggested for record in project.pool.reviews.records()]
    assert None not in opinions


def test_people_may_be_asked_what_kind_of_task_it_is(team: Team) -> None:
    ann, bob = people(team, 2)
    team.change(ask_classification=True)
    with team.project() as project:
        project.pool.import_tasks(candidates(3), Status.CANDIDATE)
        project.push()
        records = team.records()
        suggested = [s["value"] for s in records["generated_00000000:0"]["suggestions"]]
        assert "no" in suggested
        answers = {
            ann: {0: {**YES, "classification_task": "yes"}, 1: {**YES, "classification_task": "no"}},
            bob: {2: {**YES, "classification_task": "yes"}},
        }
        answers[ann][2] = {**YES, "classification_task": "no"}
        for name, given in answers.items():
            for number, values in given.items():
                team.answer(name, records[f"generated_{number:08d}:0"], values)
        result = project.sync()
        assert (result.accepted, result.conflicts, result.edited) == (2, 1, 1)
        tasks = project.pool.tasks(Status.ACCEPTED)
        assert [task.is_classification for task in tasks] == [True, False]
        assert team.records()["generated_00000000:0"]["metadata"]["is_classification"] == "true"
        assert project.pool.originals()["generated_00000000"].is_classification is False


def test_recipes_that_cannot_work_are_named(team: Team) -> None:
    team.change(overlap=0.5, annotators=["ann", "ann"], calibration="nowhere.jsonl")
    found = CliRunner().invoke(app, ["validate", str(team.recipe)])
    assert found.exit_code == 2
    for path in ("review.overlap", "review.annotators", "review.calibration"):
        assert path in found.stderr
