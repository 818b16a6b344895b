"""Versions `vX.Y.Z`: what changed since the previous release decides which number grows.

Major: tasks were removed, or columns changed, so that a reader of the old release may miss something. Minor: tasks or
a config were added. Patch: texts or metadata were edited.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ReleaseError

FIRST = "v1.0.0"
_VERSION = re.compile(r"v(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True)
class Changes:
    """What a release does to the tasks of the previous one (ids, sorted); `columns` names configs whose columns are
    others or that are gone, `configs` new configs, `metadata` is True where license, language or name are others."""

    added: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    metadata: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.edited or self.withdrawn or self.columns or self.configs or self.metadata)

    def as_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def compare(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Changes:
    """The changes between two manifests (see `build.py`), of which only `tasks`, `configs` and `metadata` are read."""
    if before is None:
        return Changes(added=tuple(sorted(after["tasks"])))
    old, new = before["tasks"], after["tasks"]
    old_columns = {name: config["columns"] for name, config in before["configs"].items()}
    new_columns = {name: config["columns"] for name, config in after["configs"].items()}
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        edited=tuple(sorted(task for task in new.keys() & old.keys() if new[task] != old[task])),
        withdrawn=tuple(sorted(old.keys() - new.keys())),
        columns=tuple(sorted(name for name in old_columns if new_columns.get(name) != old_columns[name])),
        configs=tuple(sorted(new_columns.keys() - old_columns.keys())),
        metadata=before["metadata"] != after["metadata"],
    )


def is_version(text: str) -> bool:
    """Whether this is `vX.Y.Z`."""
    return _VERSION.fullmatch(text) is not None


def parse(version: str) -> tuple[int, int, int]:
    """(X, Y, Z) of `vX.Y.Z` or `X.Y.Z`. Raises ReleaseError."""
    match = _VERSION.fullmatch(version if version.startswith("v") else f"v{version}")
    if match is None:
        raise ReleaseError(f"{version!r} is not a version", hint="Write three numbers, such as --version 1.2.0.")
    return int(match[1]), int(match[2]), int(match[3])


def show(version: tuple[int, int, int]) -> str:
    return "v{}.{}.{}".format(*version)


def choose(changes: Changes, used: Collection[str], asked: str | None = None) -> str:
    """The version of a release: the one asked for, or the next by what changed. `used` are the versions that the
    target has seen; none is used again, and versions only grow. Raises ReleaseError."""
    last = max(map(parse, used), default=None)
    if asked is not None:
        wanted = parse(asked)
        if last is not None and wanted <= last:
            what = "was published already" if wanted in map(parse, used) else f"is below the last one, {show(last)}"
            raise ReleaseError(
                f"the version {show(wanted)} {what}", hint=f"Leave --version out for {show(_next(changes, last))}."
            )
        return show(wanted)
    return FIRST if last is None else show(_next(changes, last))


def _next(changes: Changes, last: tuple[int, int, int]) -> tuple[int, int, int]:
    major, minor, patch = last
    if changes.withdrawn or changes.columns:
        return major + 1, 0, 0
    if changes.added or changes.configs:
        return major, minor + 1, 0
    return major, minor, patch + 1
