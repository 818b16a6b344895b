"""The methods by their names in a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from ..recipe import Recipe
from ..tasks import Task
from .alpaca import Alpaca
from .method import Method
from .self_instruct import SelfInstruct

_METHODS: dict[str, type[SelfInstruct] | type[Alpaca]] = {kind.name: kind for kind in (SelfInstruct, Alpaca)}


def method_of(recipe: Recipe, seeds: Sequence[Task]) -> Method:
    return _METHODS[recipe.bootstrap.method](recipe, seeds)
