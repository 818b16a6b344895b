"""The methods by their names in a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from ..recipe import Recipe
from ..tasks import Task
from .alpaca import Alpaca
from .method import Method
from .self_instruct import SelfInstruct


def method_of(recipe: Recipe, seeds: Sequence[Task]) -> Method:
    return Alpaca(recipe) if recipe.bootstrap.method == Alpaca.name else SelfInstruct(recipe, seeds)
