"""Which generated instructions may stay: pure rules with named reasons (Self-Instruct, section 2.2, step 4).

The rules are the reference's; their values come from the recipe, else from the language's template. Whether an
instruction is new is no filter: it depends on the pool (`similarity/`, and rule 4 of the loop).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..recipe import Filters
from .template import FilterWords


@dataclass(frozen=True)
class InstructionFilter:
    """The rules of one recipe, compiled. `length` counts words, or characters where the language has no spaces."""

    min_length: int
    max_length: int
    blocked_words: tuple[str, ...]
    blocked_starts: tuple[str, ...]
    length: Callable[[str], int]

    @classmethod
    def of(cls, recipe: Filters, language: FilterWords) -> InstructionFilter:
        """The recipe's values where it states them, else the language's."""
        length = count_words if language.unit == "words" else count_characters
        blocked = language.blocked_words if recipe.blocked_words is None else recipe.blocked_words
        starts = language.blocked_starts if recipe.blocked_starts is None else recipe.blocked_starts
        return cls(
            min_length=language.min_length if recipe.min_words is None else recipe.min_words,
            max_length=language.max_length if recipe.max_words is None else recipe.max_words,
            blocked_words=tuple(blocked),
            blocked_starts=tuple(starts),
            length=length,
        )

    @cached_property
    def _blocked(self) -> re.Pattern[str]:
        words = "|".join(_whole_word(word) for word in self.blocked_words)
        return re.compile(words or r"(?!)", re.IGNORECASE)

    def reason(self, instruction: str) -> tuple[str, str | None] | None:
        """Why an instruction is turned away, and by what; None where it may stay. The first rule that speaks counts."""
        if control := _CONTROL.search(instruction):
            return "control_character", repr(control.group())
        length = self.length(instruction)
        if length < self.min_length:
            return "too_short", f"{length}"
        if length > self.max_length:
            return "too_long", f"{length}"
        if found := self._blocked.search(instruction):
            return "blocked_word", found.group()
        start = next((s for s in self.blocked_starts if instruction.casefold().startswith(s.casefold())), None)
        if start is not None:
            return "blocked_start", start
        if unicodedata.category(instruction[0])[0] not in "LN" and instruction[0] not in "\"'“‘«「『《¿¡":
            return "starts_with_punctuation", instruction[0]
        return None


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def count_words(text: str) -> int:
    return len(text.split())


def count_characters(text: str) -> int:
    """Characters of words: letters, marks and digits; spaces and punctuation do not count."""
    return sum(unicodedata.category(c)[0] in "LMN" for c in text)


def _whole_word(word: str) -> str:
    """A pattern of a word by itself; between ideographs there are no boundaries, so there it may stand anywhere."""
    escaped = re.escape(word.strip()).replace(r"\ ", r"\s+")
    return rf"\b{escaped}\b" if word.isascii() else escaped
