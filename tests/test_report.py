"""`sia report`: what it says is what the pool holds, with plots and without."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from generating import generate
from review_people import YES, Workspace, candidates
from typer.testing import CliRunner, Result

from selfinstruct_argilla.analysis import figures
from selfinstruct_argilla.cli.app import app
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import Project, open_project
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.tasks import Origin, Status

PLOTS = ["figures/lengths.png", "figures/novelty.png", "figures/yield.png"]


def sia(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def pool_url(tmp_path: Path) -> str:
    """A pool after two rounds, with some tasks accepted."""
    url = f"sqlite:///{tmp_path}/pool.db"
    for _ in range(2):
        generate(url)
    with TaskPool.open(url) as pool, pool.write() as writer:
        written = [task.id for task in pool.tasks() if task.origin is Origin.GENERATED]
        writer.mark_pushed(written[:5])
        for task_id in written[:4]:
            writer.move(task_id, Status.ACCEPTED, kind="reviewed")
    return url


def test_a_report_says_what_the_pool_holds(pool_url: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    found = sia("report", "quickstart", "--set", f"pool={pool_url}", "--output", out)
    assert found.exit_code == 0, found.stderr
    assert found.stdout.strip() == str(out / "report.md")
    values = json.loads((out / "report.json").read_text(encoding="utf-8"))
    with TaskPool.open(pool_url) as pool:
        tasks, discards, spend = pool.tasks(), pool.rounds.discard_counts(), pool.journal.spend()
    written = [task for task in tasks if task.origin is Origin.GENERATED]
    assert values["tasks"]["accepted"] == 4
    assert sum(values["tasks"].values()) == len(tasks)
    assert values["origins"] == {"generated": len(written), "seed": len(tasks) - len(written)}
    assert list(values["rounds"]) == ["1", "2"]
    of_rounds = values["rounds"].values()
    assert sum(sum(part["tasks"].values()) for part in of_rounds) == len(written)
    assert sum((Counter(part["discards"]) for part in of_rounds), Counter()) == discards
    assert sum(part["requests"] for part in of_rounds) == spend.requests
    outputs = [len(instance.output.split()) for task in written for instance in task.instances]
    assert values["lengths"]["output"]["count"] == len(outputs)
    assert values["lengths"]["output"]["mean"] == pytest.approx(sum(outputs) / len(outputs), abs=0.01)
    assert values["table_1"]["generated"]["instructions"] == len(written)
    assert values["table_1"]["accepted"]["instructions"] == 4
    assert sum(values["novelty"].values()) == sum(task.max_rouge_l is not None for task in written)
    text = (out / "report.md").read_text(encoding="utf-8")
    assert f"| accepted | {4} |" in text
    for reason, count in discards.items():
        assert f"{count:,} {reason.replace('_', ' ')}" in text
    assert (
        json.loads(sia("report", "quickstart", "--set", f"pool={pool_url}", "--output", out, "--json").stdout) == values
    )


def test_plots_are_pictures_and_the_same_again(pool_url: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with open_project("quickstart", overrides=[f"pool={pool_url}"]) as project:
        for name in ("a", "b"):
            assert sorted(project.report(tmp_path / name).plots) == PLOTS
    text = (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
    for plot in PLOTS:
        content = (tmp_path / "a" / plot).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content == (tmp_path / "b" / plot).read_bytes()
        assert f"]({plot})" in text


def test_without_matplotlib_the_report_says_so(pool_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "available", lambda: False)
    found = sia("report", "quickstart", "--set", f"pool={pool_url}", "--output", tmp_path / "out")
    assert found.exit_code == 0
    assert "pip install 'selfinstruct-argilla[analysis]'" in found.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]
    assert "![" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_an_empty_pool_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    pool = f"pool=sqlite:///{tmp_path}/empty.db"
    assert sia("report", "quickstart", "--set", pool, "--output", tmp_path / "out").exit_code == 0
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "No round yet." in text and "Nothing pushed yet." in text
    (tmp_path / "file").write_text("x", encoding="utf-8")
    found = sia("report", "quickstart", "--set", pool, "--output", tmp_path / "file")
    assert found.exit_code == 2
    assert "--output" in found.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


def test_what_people_said(argilla_server: Any, tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        workspace = Workspace(argilla_server.api_url, argilla_server.api_key, pool)
        workspace.rules["min_submitted"] = 2
        workspace.add(candidates(4))
        workspace.push()
        ann, bob = workspace.person("ann"), workspace.person("bob")
        records = [str(record["id"]) for _, record in sorted(workspace.records().items())]
        for number, record in enumerate(records):
            ann.submit(record, YES)
            bob.submit(record, YES if number else {**YES, "output_correct": "no"})
        workspace.sync()
        names = [ann.username, bob.username]
        workspace.close()
        report = Project(Recipe.load("quickstart"), pool).report(tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Accepted, as they are or edited: 3 of 4 records" in text
    assert "| output_correct | 3 | 4 | 75%" in text
    assert "Agreement of 2 people on 4 records that several judged, on the verdict: 75% of pairs are equal" in text
    everything = text + (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert not [name for name in names if name in everything]
    if figures.available():
        assert "figures/quality.png" in report.plots
