"""Grow an instruction dataset with a language model and keep people in the loop.

The names below are the public ones. Each is imported when it is first used, so that importing the package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .llm.scripted import ScriptedModel
    from .pool.pool import TaskPool
    from .project import open_project
    from .recipe import Recipe
    from .similarity.index import NoveltyIndex
    from .tasks import Instance, Task

__version__ = "0.1.0"
__all__ = ["Instance", "NoveltyIndex", "Recipe", "ScriptedModel", "Task", "TaskPool", "open_project"]

_HOMES = {
    "Instance": "tasks",
    "NoveltyIndex": "similarity.index",
    "Recipe": "recipe",
    "ScriptedModel": "llm.scripted",
    "Task": "tasks",
    "TaskPool": "pool.pool",
    "open_project": "project",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
