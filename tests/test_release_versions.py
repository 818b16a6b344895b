"""Versions follow what changed."""

from __future__ import annotations

from typing import Any

import pytest

from selfinstruct_argilla.errors import ReleaseError
from selfinstruct_argilla.release.versions import Changes, choose, compare, is_version, parse


def manifest(tasks: dict[str, str], /, **configs: dict[str, str]) -> dict[str, Any]:
    return {
        "tasks": {task: {"hash": text, "split": "train"} for task, text in tasks.items()},
        "configs": {name: {"columns": columns} for name, columns in (configs or {"tasks": {"id": "string"}}).items()},
        "metadata": {"license": "mit"},
    }


BEFORE = manifest({"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("after", "version"),
    [
        (manifest({"a": "1"}), "v2.0.0"),
        (manifest({"a": "1", "c": "3"}), "v2.0.0"),
        (manifest({"a": "1", "b": "2"}, tasks={"id": "int64"}), "v2.0.0"),
        (manifest({"a": "1", "b": "2"}, other={"id": "string"}), "v2.0.0"),
        (manifest({"a": "1", "b": "2", "c": "3"}), "v1.5.0"),
        (manifest({"a": "x", "b": "2", "c": "3"}), "v1.5.0"),
        (manifest({"a": "1", "b": "2"}, tasks={"id": "string"}, other={"id": "string"}), "v1.5.0"),
        (manifest({"a": "x", "b": "2"}), "v1.4.8"),
        ({**BEFORE, "metadata": {"license": "other"}}, "v1.4.8"),
    ],
)
def test_the_next_version(after: dict[str, Any], version: str) -> None:
    changes = compare(BEFORE, after)
    assert changes
    assert choose(changes, ["v1.0.0", "v1.4.7", "v1.4.6"]) == version


def test_changes_name_the_tasks() -> None:
    assert compare(BEFORE, manifest({"a": "x", "c": "3"})) == Changes(("c",), ("a",), ("b",))
    assert not compare(BEFORE, BEFORE)
    assert compare(None, BEFORE) == Changes(added=("a", "b"))


def test_the_first_version() -> None:
    assert choose(Changes(added=("a",)), []) == "v1.0.0"
    assert choose(Changes(added=("a",)), [], "0.3.0") == "v0.3.0"


@pytest.mark.parametrize("asked", ["1.1.0", "v1.1.0", "1.0.9", "0.0.1"])
def test_no_version_is_used_again(asked: str) -> None:
    with pytest.raises(ReleaseError, match=r"published already|below the last"):
        choose(Changes(added=("a",)), ["v1.0.0", "v1.1.0"], asked)


def test_a_version_can_be_asked_for() -> None:
    assert choose(Changes(added=("a",)), ["v1.0.0"], "3.1.4") == "v3.1.4"


@pytest.mark.parametrize("text", ["1.2", "v1.2.3.4", "1.2.x", "vv1.2.3", "01.2.3", "", "1.2.3-rc1", "１.2.3"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ReleaseError, match="not a version"):
        parse(text)
    assert not is_version(text)
