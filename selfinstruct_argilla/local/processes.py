"""Detached child processes: servers that outlive the command that started them.

A `Daemon` owns a folder with `process.json` (the process id and the facts its owner wants remembered) and `log.txt`.
A process counts as ours only if it is alive and its command line names our program and our folder, so a stale file
and a process id that the system gave to somebody else are both seen for what they are.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from selfinstruct_argilla.errors import LocalError

_LOG_LIMIT = 10 * 2**20  # bytes; a longer log is set aside at the next start
_STOP_TIMEOUT = 20.0  # seconds until a process that ignores SIGTERM is killed
_POLL = 0.1  # seconds between two looks


@dataclass(frozen=True)
class Daemon:
    """A detached process: `title` for messages, its folder, and the program (a file) that it runs."""

    title: str
    folder: Path
    program: Path

    @property
    def log_file(self) -> Path:
        return self.folder / "log.txt"

    @property
    def _state_file(self) -> Path:
        return self.folder / "process.json"

    def lock(self) -> FileLock:
        """Held while starting, stopping or replacing what the process works on."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self.folder / "process.lock")

    def facts(self) -> dict[str, Any] | None:
        """What `spawn` was given, and the `pid`, if the process is alive; else None."""
        try:
            state = json.loads(self._state_file.read_text())
            return state if self._is_ours(psutil.Process(state["pid"])) else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        command = process.cmdline()
        return str(self.folder) in command and any(Path(part).name == self.program.name for part in command)

    def spawn(self, python: Path, arguments: list[str], environment: Mapping[str, str], facts: dict[str, Any]) -> None:
        """Start `python program --home folder …` in a session of its own, and remember `facts` about it."""
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_LIMIT:
            self.log_file.replace(self.log_file.with_suffix(".old.txt"))
        command = [str(python), "-s", str(self.program), "--home", str(self.folder), *arguments]
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
                umask=0o077,  # its files hold accounts and people's answers
            )
        write_private(self._state_file, json.dumps({"pid": process.pid, **facts}))
        process.returncode = 0  # it is meant to outlive us: nothing of ours waits for it

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until the process is `ready`. Raises LocalError with the end of the log if it dies or takes too long."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.facts() is None:
                raise self._failure("ended while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {timeout:.0f} seconds")
            time.sleep(_POLL)

    def _failure(self, what: str) -> LocalError:
        return LocalError(
            f"{self.title} {what}; the end of its log:\n" + "\n".join(f"  {line}" for line in self.log_tail(12)),
            hint=f"The whole log is {self.log_file}.",
        )

    def stop(self) -> bool:
        """End the process; False if none was running."""
        facts = self.facts()
        if facts is not None:
            try:
                process = psutil.Process(facts["pid"])
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait(_STOP_TIMEOUT)
            except psutil.NoSuchProcess:
                pass
        self._state_file.unlink(missing_ok=True)
        return facts is not None

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the log; [] if there is none."""
        try:
            with self.log_file.open(errors="replace") as log:
                return [line.rstrip("\n") for line in deque(log, maxlen=lines)]
        except OSError:
            return []


def write_private(path: Path, text: str) -> None:
    """Replace a file's text at once; nobody but its owner can read it, at no moment."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)


def is_port_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def choose_port(wanted: int | None, preferred: int, host: str, start_command: str) -> int:
    """`wanted` if given; else `preferred`, or any free port when another program has that one.

    Raises LocalError when `wanted` is taken."""
    if wanted is not None:
        if not is_port_free(wanted, host):
            raise LocalError(
                f"Port {wanted} is used by another program.",
                hint=f"Choose another one: {start_command} --port PORT, or leave --port out.",
            )
        return wanted
    if is_port_free(preferred, host):
        return preferred
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
