"""What the tests of releases share: tasks, recipes, and reading back what was published."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.tasks import Instance, Task

WORDS = """
river stone kettle garden letter window engine violin harbour lantern pepper marble saddle compass thunder ribbon copper
meadow anchor candle forest mirror basket castle button planet blanket hammer island pocket
""".split()  # noqa: SIM905 - a list of words reads better this way


def make_task(number: int, *, instances: int = 1, instruction: str | None = None) -> Task:
    """A task whose words depend on its number alone; two of them share little."""
    words = random.Random(number)
    return Task(
        id=f"task_{number:08d}",
        name=f"name {number}",
        instruction=instruction or " ".join(words.choices(WORDS, k=9)) + f" {number}",
        instances=tuple(
            Instance("" if (number + i) % 3 == 0 else f"input {number} {i}", f"output {number} {i} é {{x}}")
            for i in range(instances)
        ),
        is_classification=number % 4 == 0,
    )


def make_recipe(folder: Path, **release: Any) -> Recipe:
    """A recipe in a folder, with this release section; without figures, which take long to draw."""
    overrides = [f"release.{key}={value}" for key, value in ({"figures": "false"} | release).items()]
    path = folder / "recipe.yaml"
    path.write_text("name: demo\nmodels: {generator: {model: m, base_url: local}}\n", encoding="utf-8")
    return Recipe.load(path, overrides)


def alpaca_rows(tasks: list[Task]) -> list[dict[str, str]]:
    """What the config alpaca holds of tasks, sorted by id."""
    return [
        {"instruction": task.instruction, "input": instance.input, "output": instance.output}
        for task in sorted(tasks, key=lambda task: task.id)
        for instance in task.instances
    ]


def all_rows(loaded: Any) -> list[dict[str, Any]]:
    """The rows of every split together."""
    return [row for split in loaded.values() for row in split]


def same_rows(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Whether two lists hold the same rows in any order."""
    return sorted(map(repr, found)) == sorted(map(repr, expected))
