"""The package as a whole: light, one-way imports, its public names, and a wheel that needs no checkout."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import selfinstruct_argilla

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "selfinstruct_argilla"

# what each room may import, as the README draws it; `project` and `cli` stand above all
ROOMS = [
    "errors",
    "tasks",
    "recipe",
    "similarity",
    "llm",
    "pool",
    "analysis",
    "bootstrap",
    "review",
    "release",
    "local",
]
ALLOWED = {
    "errors": set(),
    "tasks": {"errors"},
    "recipe": {"errors"},
    "similarity": set(),
    "llm": {"errors", "recipe"},
    "pool": {"errors", "tasks", "recipe", "llm"},
    "analysis": {"tasks", "similarity"},
    "bootstrap": {"errors", "tasks", "recipe", "similarity", "llm", "pool", "analysis"},
    "review": {"errors", "tasks", "recipe", "similarity", "llm", "pool", "analysis", "bootstrap"},
    "release": {"errors", "tasks", "recipe", "similarity", "llm", "pool", "analysis"},
    "local": {"errors"},
}
OWNERS = {"openai": "llm/openai_client.py", "argilla": "review/argilla_client.py", "huggingface_hub": "release/hub.py"}


def imports(path: Path) -> set[str]:
    """Absolute names of what a module imports."""
    found = set()
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    place = PACKAGE / room
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    for path in files:
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("selfinstruct_argilla.")}
        assert rooms & {*ROOMS, "project", "cli", "scaffold"} <= ALLOWED[room] | {room}, path


@pytest.mark.parametrize("name", OWNERS)
def test_each_client_has_one_owner(name: str) -> None:
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if name in {i.split(".")[0] for i in imports(path)}
    ]
    assert users == [OWNERS[name]]


def test_package_init_files_are_empty_but_the_top_one() -> None:
    assert all(not path.read_text() for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def test_importing_is_light() -> None:
    heavy = ["argilla", "datasets", "openai", "torch", "numpy", "sqlalchemy"]
    code = f"import sys, selfinstruct_argilla; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_public_names() -> None:
    assert sorted(selfinstruct_argilla.__all__) == selfinstruct_argilla.__all__
    for name in selfinstruct_argilla.__all__:
        assert getattr(selfinstruct_argilla, name).__name__ == name
    with pytest.raises(AttributeError):
        selfinstruct_argilla.nothing  # noqa: B018


def test_an_installed_wheel_needs_no_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = "from selfinstruct_argilla.cli.app import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "SELFINSTRUCT_HOME": str(tmp_path / "home")}
    for arguments in (
        ["recipes"],
        ["init", "made"],
        ["validate", "made/recipe.yaml"],
        ["generate", "made/recipe.yaml", "--dry-run"],
    ):
        command = (
            [sys.executable, "-P", "-c", code, *arguments]
            if sys.version_info >= (3, 11)
            else [sys.executable, "-c", code, *arguments]
        )
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (
        "175 seed tasks"
        in subprocess.run(
            [sys.executable, "-c", code, "validate", "made/recipe.yaml"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
