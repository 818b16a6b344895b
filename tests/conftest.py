"""What every test gets: no network beyond this machine, no keys, no user folders, and real servers on request."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read by the clients when they are imported, so set before anything else is.
NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once
os.environ.update(
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    OPENAI_BASE_URL=NOWHERE,
    ARGILLA_API_URL=NOWHERE,
    DO_NOT_TRACK="1",
)
_KEYS = (
    "OPENAI_API_KEY",
    "OPENAI_ORG_ID",
    "ARGILLA_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "SELFINSTRUCT_HOME",
)
# a bare machine has none, and platformdirs warns of it when the PostgreSQL wheel asks
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="sia-runtime-"))
for _name in _KEYS:
    os.environ.pop(_name, None)

from hub_server import hub  # noqa: E402, F401 - points HF_ENDPOINT at the test hub, before huggingface_hub reads it
from review_people import workspace  # noqa: E402, F401
from servers import argilla_server, local_model  # noqa: E402, F401 - session fixtures

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(scope="session", autouse=True)
def _this_machine_only() -> Iterator[None]:
    """A connection to any other machine is an error: no test reaches the internet or spends money."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(self: socket.socket, address: object) -> None:
        internet = self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple)
        if internet and not str(address[0]).startswith(_LOOPBACK):
            raise AssertionError(f"a test tried to reach {address[0]}")

    def guarded(self: socket.socket, address: object) -> None:
        check(self, address)
        connect(self, address)  # type: ignore[arg-type]

    def guarded_ex(self: socket.socket, address: object) -> int:
        check(self, address)
        return connect_ex(self, address)  # type: ignore[arg-type]

    socket.socket.connect, socket.socket.connect_ex = guarded, guarded_ex  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect, socket.socket.connect_ex = connect, connect_ex  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a home of its own, so that nothing of the user is read or written."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SELFINSTRUCT_HOME", str(home / "selfinstruct"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return home
