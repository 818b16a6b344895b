"""The whole loop as a newcomer meets it: the real commands, the real local model, the real Argilla, two annotators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from datasets import load_dataset
from servers import argilla_environment, link_environment, model_environment

from selfinstruct_argilla.pool.pool import TaskPool

TASKS = 5
YES = {"instruction_valid": "yes", "input_appropriate": "yes", "output_correct": "yes"}


class Newcomer:
    """Runs `sia` in a folder, with a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SELFINSTRUCT_HOME": str(folder / "home")}
        self.clients: list[httpx.Client] = []

    def sia(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from selfinstruct_argilla.cli.app import main; main()", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.sia(*arguments, "--json").stdout)


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Newcomer]:
    someone = Newcomer(tmp_path)
    monkeypatch.setenv("SELFINSTRUCT_HOME", someone.environment["SELFINSTRUCT_HOME"])
    for environment in (argilla_environment(), model_environment()):
        link_environment(environment)
    yield someone
    for client in someone.clients:
        client.close()
    someone.sia("server", "stop")
    someone.sia("model", "stop")


def answer(http: httpx.Client, record: dict[str, Any], status: str = "submitted", **values: str) -> None:
    body = {"status": status, "values": {name: {"value": value} for name, value in values.items()}}
    response = http.post(f"/records/{record['id']}/responses", json=body)
    assert response.status_code == 201, response.text


@pytest.mark.timeout(600)
def test_the_whole_loop(newcomer: Newcomer, tmp_path: Path) -> None:
    recipe = "quickstart/recipe.yaml"
    shown = newcomer.sia("quickstart", "--tasks", str(TASKS), "--no-wait")
    assert f"{TASKS} new tasks" in shown.stdout
    assert "does not write good data" in shown.stderr
    assert [line.split()[1] for line in shown.stdout.splitlines()[-3:]] == ["sync", "publish", "run"]

    owner = newcomer.json("server", "credentials")
    ann, bob = (newcomer.json("server", "users", "add", name, "--role", "annotator") for name in ("ann", "bob"))
    newcomer.clients += [
        httpx.Client(base_url=f"{owner['api_url']}/api/v1", headers={"X-Argilla-Api-Key": user["api_key"]}, timeout=60)
        for user in (owner, ann, bob)
    ]
    boss, ann_http, bob_http = newcomer.clients
    (dataset,) = boss.get("/me/datasets").json()["items"]

    def records() -> list[dict[str, Any]]:
        query = {"limit": 1000, "include": ["suggestions"]}
        found = boss.get(f"/datasets/{dataset['id']}/records", params=query).json()["items"]
        return sorted(found, key=lambda record: record["external_id"])

    pushed = records()
    assert len({record["metadata"]["task_id"] for record in pushed}) == TASKS
    for record in pushed:
        assert record["fields"]["context"]
        assert {suggestion["value"] for suggestion in record["suggestions"]} >= {record["fields"]["instruction"]}

    # Every instance is judged alone: accepted, edited, rejected, discarded, and untouched tasks.
    by_task: dict[str, list[dict[str, Any]]] = {}
    for record in pushed:
        by_task.setdefault(record["metadata"]["task_id"], []).append(record)
    accepted, edited, rejected, discarded, _untouched = by_task
    for record in by_task[accepted]:
        answer(ann_http, record, **YES)
    for record in by_task[edited]:
        edit = {"output_edit": f"Mended by Bob: {record['external_id']}"}
        answer(bob_http, record, **{**YES, "output_correct": "no"}, **edit)
    for record in by_task[rejected]:
        answer(bob_http, record, **{**YES, "instruction_valid": "no"})
    for record in by_task[discarded]:
        answer(ann_http, record, status="discarded")

    newcomer.sia("sync", recipe)
    status = newcomer.json("status", recipe)
    assert status["pool"]["accepted"] == 2
    assert status["pool"]["rejected"] == 1
    assert status["pool"]["in_review"] == 2
    assert status["review"]["pushed"] == len(pushed)

    newcomer.sia("publish", recipe, "--to", "out")
    out = str(tmp_path / "out")
    tasks = {row["id"]: row for split in load_dataset(out).values() for row in split}
    assert set(tasks) == {accepted, edited}
    expected = [
        (record["fields"]["instruction"], record["fields"].get("input") or "", record["fields"]["output"])
        for record in by_task[accepted]
    ] + [
        (
            record["fields"]["instruction"],
            record["fields"].get("input") or "",
            f"Mended by Bob: {record['external_id']}",
        )
        for record in by_task[edited]
    ]
    rows = [row for split in load_dataset(out, "alpaca").values() for row in split]
    assert sorted((row["instruction"], row["input"], row["output"]) for row in rows) == sorted(expected)

    newcomer.sia("run", recipe, "--no-wait", "--set", "bootstrap.target=2")
    again = records()
    kept = [(record["id"], record["inserted_at"], record["fields"], record["suggestions"]) for record in pushed]
    assert [(r["id"], r["inserted_at"], r["fields"], r["suggestions"]) for r in again[: len(pushed)]] == kept
    assert len({record["metadata"]["task_id"] for record in again}) == TASKS + 2, "only the new ones were pushed"
    pools = list((tmp_path / "quickstart").glob("*.db"))
    assert len(pools) == 1
    with TaskPool.open(f"sqlite:///{pools[0]}") as pool:
        shown_tasks = {id for request in pool.journal.requests(round=2) for id in request.demonstrations}
    assert {accepted, edited} & shown_tasks
    assert rejected not in shown_tasks
