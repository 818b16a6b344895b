"""Do texts that people edited still pass? The filters and the novelty check of generation, asked of accepted edits."""

from __future__ import annotations

from collections.abc import Callable

from ..pool.pool import TaskPool
from ..recipe import Recipe
from ..similarity.index import NoveltyIndex
from ..tasks import Task
from .filters import InstructionFilter
from .template import load_template


def edit_check(pool: TaskPool, recipe: Recipe) -> Callable[[Task], str | None]:
    """A function that says in a few words why an edited task fails, or None. The index is built when it is first
    asked: most syncs bring no edit."""
    rules = InstructionFilter.of(recipe.bootstrap.filters, load_template(recipe.language).filters)
    novelty = recipe.bootstrap.novelty
    index: NoveltyIndex | None = None

    def check(task: Task) -> str | None:
        nonlocal index
        if found := rules.reason(task.instruction):
            return f"{found[0]} ({found[1]})" if found[1] else found[0]
        if index is None:
            index = NoveltyIndex(novelty.threshold, novelty.tokens)
            for other in pool.tasks():
                if other.distilled_from is None:  # it says what the task that it comes from says
                    index.add(other.id, other.instruction)
        own = task.distilled_from or task.id
        if own in index:
            index.remove(own)
        match = index.check(task.instruction)
        index.add(own, task.instruction)
        return f"near_duplicate (ROUGE-L {match.score:.2f} with {match.key})" if match else None

    return check
