from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from selfinstruct_argilla.errors import LocalError
from selfinstruct_argilla.local.environments import Environment, argilla_environment, model_environment
from selfinstruct_argilla.local.home import selfinstruct_home


def make_wheel(folder: Path) -> Path:
    """A package `tinypackage` with one constant, as a wheel."""
    wheel = folder / "tinypackage-1.0-py3-none-any.whl"
    info = "tinypackage-1.0.dist-info"
    files = {
        "tinypackage.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment("tiny", f"# pins\ntinypackage @ {make_wheel(tmp_path).as_uri()}\n")


def answer(python: Path) -> str:
    code = "import tinypackage; print(tinypackage.ANSWER)"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def test_made_once_and_reused(environment: Environment) -> None:
    stages: list[tuple[str, float | None]] = []
    python = environment.ensure(lambda message, fraction: stages.append((message, fraction)))
    assert answer(python) == "42"
    assert [fraction for _, fraction in stages] == [0.0, 0.9, 1.0]
    assert environment.path.parent == selfinstruct_home() / "environments"

    stages.clear()
    assert environment.ensure(lambda message, fraction: stages.append((message, fraction))) == python
    assert stages == []


def test_other_pins_are_another_environment(environment: Environment) -> None:
    assert Environment("tiny", environment.requirements + "other==1\n").path != environment.path


def test_compiled_files_are_no_damage(environment: Environment) -> None:
    answer(environment.ensure())  # leaves __pycache__
    assert environment.is_complete()


@pytest.mark.parametrize("damage", ["marker lost", "package file lost", "package file cut", "interpreter gone"])
def test_broken_is_made_again(environment: Environment, damage: str) -> None:
    python = environment.ensure()
    package = next(environment.path.rglob("tinypackage.py"))
    if damage == "marker lost":  # what a kill in the middle of the installation leaves
        (environment.path / "complete.json").unlink()
        package.unlink()
    elif damage == "package file lost":
        package.unlink()
    elif damage == "package file cut":
        package.write_text("ANSWER")
    else:
        python.unlink()
        python.symlink_to("/nowhere/python")
    assert not environment.is_complete()
    assert answer(environment.ensure()) == "42"


def test_failed_installation_is_explained_and_not_kept(tmp_path: Path) -> None:
    environment = Environment("tiny", f"missing @ {(tmp_path / 'missing-1.0-py3-none-any.whl').as_uri()}\n")
    with pytest.raises(LocalError, match=r"could not be installed; pip said:\n.*missing") as caught:
        environment.ensure()
    assert caught.value.hint
    assert not environment.is_complete()


def test_no_room_is_said_before_anything_is_made() -> None:
    environment = Environment("tiny", "", megabytes=10**9)
    with pytest.raises(LocalError, match="MB free"):
        environment.ensure()
    assert not environment.path.exists()


def test_home_that_cannot_be_written(environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SELFINSTRUCT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(LocalError, match="cannot be made") as caught:
        environment.ensure()
    assert "SELFINSTRUCT_HOME" in str(caught.value.hint)


def test_pip_has_the_last_word_where_uv_fails(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/uv.log\nexit 2\n')
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}{os.pathsep}{os.environ['PATH']}")
    assert answer(environment.ensure()) == "42"
    assert (tmp_path / "uv.log").read_text().startswith("venv ")


def test_two_processes_at_once_make_it_once(environment: Environment) -> None:
    code = (
        "from selfinstruct_argilla.local.environments import Environment\n"
        f"environment = Environment('tiny', {environment.requirements!r})\n"
        "environment.ensure(lambda message, fraction: fraction == 0.0 and print('made'))\n"
        "print(environment.is_complete())\n"
    )
    two = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0].split() for process in two)
    assert said == [["True"], ["made", "True"]]


@pytest.mark.parametrize("environment", [argilla_environment(), model_environment()], ids=lambda e: e.name)
def test_shipped_requirements_pin_every_package(environment: Environment) -> None:
    lines = [line for line in environment.requirements.splitlines() if line and not line.startswith("#")]
    assert lines
    assert all("==" in line.split(";")[0] and "://" not in line for line in lines)
