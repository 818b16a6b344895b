"""The command line: help, exit codes, what goes where, and sentences instead of tracebacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from selfinstruct_argilla.cli.app import app

COMMANDS = typer.main.get_command(app)


def sia(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def walk(command: object, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    inner = getattr(command, "commands", {})
    return [(path, command)] + [found for name, sub in inner.items() for found in walk(sub, (*path, name))]


@pytest.mark.parametrize("path", [path for path, _ in walk(COMMANDS)], ids=" ".join)
def test_every_command_and_option_has_help(path: tuple[str, ...]) -> None:
    command = dict(walk(COMMANDS))[path]
    assert getattr(command, "help", None)
    for parameter in getattr(command, "params", []):
        assert getattr(parameter, "help", None) or parameter.name == "help", (path, parameter.name)
    assert sia(*path, "--help").exit_code == 0


def test_the_readme_names_every_command() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for path, _ in walk(COMMANDS):
        if len(path) == 1:
            assert f"sia {path[0]}" in readme, path


def project(folder: Path, *, base_url: str = "http://127.0.0.1:9/v1") -> Path:
    assert sia("init", folder, "--recipe", "self_instruct").exit_code == 0
    recipe = folder / "recipe.yaml"
    text = recipe.read_text().replace("api_key: env:OPENAI_API_KEY", f"api_key: none\n    base_url: {base_url}")
    recipe.write_text(text.replace("target: 1000", "target: 5"))
    return recipe


def test_init_writes_one_recipe_and_its_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    project(folder)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "recipe.yaml", "seeds/seed_tasks.jsonl",
    ]  # fmt: skip
    again = sia("init", folder)
    assert again.exit_code == 2
    assert "already" in again.stderr
    assert sia("init", tmp_path / "other", "--recipe", "nothing").exit_code == 2


def test_status_has_the_keys_of_the_contract(tmp_path: Path) -> None:
    recipe = project(tmp_path / "mine")
    status = json.loads(sia("status", recipe, "--json").stdout)
    assert set(status["pool"]) == {"seed", "candidate", "in_review", "accepted", "rejected", "conflict", "withdrawn"}
    assert set(status["spend"]) >= {"requests", "prompt_tokens", "completion_tokens", "usd"}
    assert set(status["review"]) >= {"dataset", "url", "pushed", "pending", "completed", "conflicts", "agreement"}
    assert status["discards"] == {}
    assert status["releases"] == []
    assert "nothing pushed yet" in sia("status", recipe).stdout


def test_import_and_export(tmp_path: Path) -> None:
    recipe = project(tmp_path / "mine")
    file = tmp_path / "tasks.jsonl"
    task = {"id": "a", "instruction": "Do it", "instances": [{"input": "", "output": "done"}], "topic": "work"}
    file.write_text(json.dumps(task) + "\n")
    assert "1 tasks taken in" in sia("pool", "import", recipe, file, "--as", "accepted").stdout
    assert json.loads(sia("pool", "import", recipe, file, "--as", "accepted", "--json").stdout) == {
        "added": 0,
        "unchanged": 1,
    }
    exported = json.loads(sia("pool", "export", recipe).stdout)
    assert exported["topic"] == "work"
    assert (exported["status"], exported["origin"], exported["round"]) == ("accepted", "imported", 0)
    assert set(exported["provenance"]) == {"model", "request", "demonstrations"}
    assert sia("pool", "export", recipe, "--status", "rejected").stdout == ""

    file.write_text(json.dumps({**task, "instruction": "Other"}) + "\n")
    refused = sia("pool", "import", recipe, file)
    assert refused.exit_code == 1
    assert "'a' with other content" in refused.stderr
    file.write_text('{"id": "b"}\n')
    broken = sia("pool", "import", recipe, file)
    assert broken.exit_code == 1
    assert f"{file}, line 1" in broken.stderr


def test_a_recipe_with_problems_is_wrong_usage(tmp_path: Path) -> None:
    recipe = project(tmp_path / "mine")
    recipe.write_text(recipe.read_text() + "nonsense: 1\nlanguage: 5\n")
    for command in (["validate"], ["generate"], ["status"]):
        found = sia(*command, recipe)
        assert found.exit_code == 2
        assert "Traceback" not in found.stderr
        assert "language" in found.stderr
    assert sia("status", "no-such-recipe").exit_code == 2
    assert sia("status").exit_code == 2


def test_a_dead_model_server_is_one_sentence_and_the_next_step(tmp_path: Path) -> None:
    found = sia("generate", project(tmp_path / "mine"))
    assert found.exit_code == 1
    assert "no model answers" in found.stderr
    assert "base_url" in found.stderr


def test_a_dead_argilla_and_an_unset_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = project(tmp_path / "mine")
    found = sia("push", recipe)
    assert found.exit_code == 2
    assert "ARGILLA_API_KEY" in found.stderr
    monkeypatch.setenv("ARGILLA_API_KEY", "some.key")
    found = sia("push", recipe)
    assert found.exit_code == 1
    assert "Error: " in found.stderr


def test_publish_without_accepted_tasks(tmp_path: Path) -> None:
    found = sia("publish", project(tmp_path / "mine"), "--to", tmp_path / "out")
    assert found.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_dry_run_asks_nothing(tmp_path: Path) -> None:
    found = sia("generate", project(tmp_path / "mine"), "--dry-run")
    assert found.exit_code == 0
    assert "Come up with a series of tasks:" in found.stdout
    assert "estimate for 5 new tasks" in found.stdout
