"""A folder as the target of releases.

A release is built beside the folder and takes its place in one rename, so that a reader finds the old release or the
new one, never a mixture. Files in the folder that are not ours move over to the new one. What a crash leaves beside
it, `.NAME.building` or `.NAME.previous`, is put in order by the next run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ReleaseError
from .build import BuiltRelease, Manifest, files_below, read_manifest, sha256
from .target import Held


class FolderTarget:
    """A folder on this machine; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._building = self.folder.with_name(f".{self.folder.name}.building")
        self._previous = self.folder.with_name(f".{self.folder.name}.previous")

    @property
    def name(self) -> str:
        return str(self.folder)

    def look(self) -> Held:
        """What the folder holds. Raises ReleaseError where it is not ours to replace."""
        with _explained(self.folder):
            self._settle()
            if self.folder.exists() and not self.folder.is_dir():
                raise ReleaseError(f"{self.folder} is a file", hint="Name a new or empty folder with --to.")
            if not self.folder.exists() or not any(self.folder.iterdir()):
                return Held()
            manifest = _manifest(self.folder)
            if manifest is None:
                raise ReleaseError(
                    f"{self.folder} has files, but no release of ours", hint="Name a new or empty folder with --to."
                )
            readme = self.folder / "README.md"
            return Held(
                manifest=manifest,
                readme=readme.read_text(encoding="utf-8") if readme.is_file() else None,
                whole=all(_is_there(self.folder / name, digest) for name, digest in manifest["files"].items()),
            )

    def mend(self, held: Held) -> None:
        """Nothing: `look` puts a folder in order."""

    @contextmanager
    def building(self) -> Iterator[Path]:
        """An empty folder to build the release in."""
        if Path.cwd() == self.folder:
            raise ReleaseError(
                "the working folder cannot be replaced by a release", hint="Name a folder in or beside it with --to."
            )
        with _explained(self.folder):
            shutil.rmtree(self._building, ignore_errors=True)
            self._building.mkdir(parents=True)
        try:
            with _explained(self.folder):
                yield self._building
        finally:
            shutil.rmtree(self._building, ignore_errors=True)

    def put(self, release: BuiltRelease, previous: Manifest | None) -> None:
        """The built release takes the folder's place."""
        with _explained(self.folder):
            if self.folder.exists():
                os.rename(self.folder, self._previous)
            os.rename(release.folder, self.folder)
            self._settle()

    def _settle(self) -> None:
        """Puts in order what an interrupted (or a complete) exchange left."""
        if not self._previous.exists():
            return
        if not self.folder.exists():
            os.rename(self._previous, self.folder)
            return
        ours = {"manifest.json", *(_manifest(self._previous) or {"files": ()})["files"]}
        for name in files_below(self._previous):
            target = self.folder / name
            if name not in ours and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(self._previous / name, target)
        shutil.rmtree(self._previous)


def _manifest(folder: Path) -> Manifest | None:
    path = folder / "manifest.json"
    return read_manifest(path.read_bytes(), str(folder)) if path.is_file() else None


def _is_there(path: Path, digest: str) -> bool:
    """Whether a file is as published; the card may have been edited since."""
    return path.is_file() and (path.name == "README.md" or sha256(path) == digest)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReleaseError(
            f"the release cannot be written to {folder}: {error.strerror}",
            hint="The folder is as it was; free some space or name another one with --to.",
        ) from error
