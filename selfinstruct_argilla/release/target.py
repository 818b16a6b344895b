"""What a folder and a repository on the Hub have in common, as places that releases go to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .build import BuiltRelease, Manifest


@dataclass(frozen=True)
class Held:
    """What a target holds now: its manifest and card where it has them, and whether every file is as published.

    `versions` are the version names that it has given, to whatever; `commit` is what the name of the version that it
    holds stands for, and `spent` says that this is something else than what the target should hold.
    """

    manifest: Manifest | None = None
    readme: str | None = None
    whole: bool = False
    versions: frozenset[str] = frozenset()
    commit: str | None = None
    spent: bool = False


class Target(Protocol):
    """A place for releases. `name` is what they are counted by; methods are called in the order in which they stand."""

    @property
    def name(self) -> str: ...

    def look(self) -> Held: ...

    def mend(self, held: Held) -> str | None:
        """Finishes what an interrupted run began; its commit id, None where there was nothing to finish."""

    def building(self) -> AbstractContextManager[Path]:
        """An empty folder to build a release in, gone afterwards."""

    def put(self, release: BuiltRelease, previous: Manifest | None) -> str | None:
        """Makes the release the one that the target holds, whole or not at all; a commit id where there is one."""
