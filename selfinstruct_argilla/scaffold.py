"""New projects: a folder with one recipe and its seeds, copied from what the package brings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UsageError
from .recipe import bundled_directory, bundled_recipes

RECIPE = "recipe.yaml"


def create_project(directory: Path, recipe: str, *, name: str | None = None, target: int | None = None) -> Path:
    """Writes DIR/recipe.yaml and DIR/seeds/ and returns the recipe's path.

    `name` and `target` take the place of the bundled recipe's. Raises UsageError where the folder has a recipe
    already, or the name is not that of a bundled recipe.
    """
    text = _bundled_text(recipe)
    if name is not None:
        text = re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1)
        text = re.sub(r"(?m)^pool: .*$", f"pool: sqlite:///{name}.db", text, count=1)
    if target is not None:
        text = re.sub(r"(?m)^  target: \d+", f"  target: {target}", text, count=1)
    return _write(directory, text)


def continue_project(directory: Path, recipe: str, values: Mapping[str, Any], *, heading: str) -> Path:
    """The same for a project that goes on from somebody else's dataset: the bundled recipe with these `values` in the
    place of its own (in sections too), below a comment line that says where they come from."""
    text = yaml.safe_dump(
        _merged(yaml.safe_load(_bundled_text(recipe)), values), sort_keys=False, allow_unicode=True, width=120
    )
    return _write(directory, f"# {heading}\n{text}")


def _bundled_text(recipe: str) -> str:
    known = bundled_recipes()
    if recipe not in known:
        raise UsageError(f"there is no bundled recipe {recipe!r}", hint=f"There are: {', '.join(known)}")
    return known[recipe].read_text(encoding="utf-8")


def _write(directory: Path, text: str) -> Path:
    path = directory / RECIPE
    if path.exists():
        raise UsageError(f"{path} is there already", hint="Choose another folder, or edit that recipe.")
    try:
        (directory / "seeds").mkdir(parents=True, exist_ok=True)
        for seeds in yaml.safe_load(text).get("seeds", []):
            shutil.copyfile(bundled_directory("seeds").parent / seeds, directory / seeds)
        path.write_text(text, encoding="utf-8")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"the project cannot be made in {directory}: {error.strerror}") from error
    return path


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        key: _merged(values[key], change)
        if isinstance(change, Mapping) and isinstance(values.get(key), Mapping)
        else change
        for key, change in changes.items()
    }
    return {**values, **inner}
