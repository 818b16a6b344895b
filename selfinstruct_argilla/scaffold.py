"""New projects: a folder with one recipe and its seeds, copied from what the package brings."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from .errors import UsageError
from .recipe import bundled_directory, bundled_recipes

RECIPE = "recipe.yaml"


def create_project(directory: Path, recipe: str, *, name: str | None = None, target: int | None = None) -> Path:
    """Writes DIR/recipe.yaml and DIR/seeds/ and returns the recipe's path.

    `name` and `target` take the place of the bundled recipe's. Raises UsageError where the folder has a recipe
    already, or the name is not that of a bundled recipe.
    """
    known = bundled_recipes()
    if recipe not in known:
        raise UsageError(f"there is no bundled recipe {recipe!r}", hint=f"There are: {', '.join(known)}")
    path = directory / RECIPE
    if path.exists():
        raise UsageError(f"{path} is there already", hint="Choose another folder, or edit that recipe.")
    text = known[recipe].read_text(encoding="utf-8")
    if name is not None:
        text = re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1)
        text = re.sub(r"(?m)^pool: .*$", f"pool: sqlite:///{name}.db", text, count=1)
    if target is not None:
        text = re.sub(r"(?m)^  target: \d+", f"  target: {target}", text, count=1)
    try:
        (directory / "seeds").mkdir(parents=True, exist_ok=True)
        for seeds in yaml.safe_load(text).get("seeds", []):
            shutil.copyfile(bundled_directory("seeds").parent / seeds, directory / seeds)
        path.write_text(text, encoding="utf-8")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"the project cannot be made in {directory}: {error.strerror}") from error
    return path
