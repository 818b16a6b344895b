"""The local model: llama.cpp (as `xllamacpp`) in an environment of its own, as a detached process.

    endpoint = ensure_model(progress=progress)        # ModelEndpoint(base_url, model, api_key): SmolLM2-135M-Instruct
    endpoint = ensure_model("/data/other.gguf", progress)

`ModelServer()` has `start`, `stop` and `status`. It speaks OpenAI's completions and chat completions on 127.0.0.1 and
wants no key. One model runs at a time in a home (`SELFINSTRUCT_HOME/model`). Up to four requests are decoded together,
each with up to 6,144 tokens (prompt and reply).

Everything here raises LocalError with a sentence and the next step, and prints nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from selfinstruct_argilla.errors import LocalError
from selfinstruct_argilla.local.environments import Progress, model_environment, silent
from selfinstruct_argilla.local.home import selfinstruct_home
from selfinstruct_argilla.local.processes import Daemon, choose_port

BUNDLED_MODEL = "SmolLM2-135M-Instruct"
DEFAULT_PORT = 6901
_START_TIMEOUT = 300.0  # seconds: a large model file is read from the disk
_START = "sia model start"
_GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class ModelEndpoint:
    """What an OpenAI-compatible client needs; `api_key` is a word that any server accepts."""

    base_url: str
    model: str
    api_key: str = "local"


@dataclass(frozen=True)
class ModelStatus:
    """The state of the local model; all but `home` and `running` are None while it is stopped."""

    running: bool
    home: Path
    url: str | None = None
    pid: int | None = None
    model: str | None = None


class ModelServer:
    """The local model of a home folder."""

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = (Path(home) if home is not None else selfinstruct_home() / "model").expanduser().resolve()
        self._daemon = Daemon("The local model", self.home, Path(__file__).parent / "model" / "boot.py")

    def start(
        self, progress: Progress = silent, *, model: Path | str | None = None, port: int | None = None
    ) -> ModelEndpoint:
        """Start the server, or find it running; return when it answers.

        model: a GGUF file; default SmolLM2-135M-Instruct. port: default 6901, or a free one if another program has it.
        """
        name, file = _resolve_model(model)
        python = model_environment().ensure(progress)
        try:
            with self._daemon.lock():
                running = self._daemon.facts()
                if running is None:
                    running = {"name": name, "port": choose_port(port, DEFAULT_PORT, "127.0.0.1", _START)}
                    arguments = ["--name", name, "--port", str(running["port"])]
                    arguments += ["--model", str(file)] if file is not None else []
                    self._daemon.spawn(python, arguments, _child_environment(), running)
                elif running["name"] != name or port not in (None, running["port"]):
                    raise LocalError(
                        f"The local model {running['name']} is running on port {running['port']}.",
                        hint=f"Stop it first: sia model stop, then {_START} again.",
                    )
                endpoint = _endpoint(running)
                if not _answers(endpoint):
                    progress("Starting the local model", None)
                self._daemon.wait_until(lambda: _answers(endpoint), _START_TIMEOUT)
        except OSError as exc:
            raise LocalError(
                f"The local model's files cannot be used: {exc}.", hint=f"Check that {self.home} can be written."
            ) from exc
        return endpoint

    def stop(self) -> bool:
        """Stop the server; False if it was not running."""
        with self._daemon.lock():
            return self._daemon.stop()

    def status(self) -> ModelStatus:
        """Whether it runs, where, and which model."""
        running = self._daemon.facts()
        if running is None:
            return ModelStatus(running=False, home=self.home)
        endpoint = _endpoint(running)
        return ModelStatus(True, self.home, endpoint.base_url, running["pid"], endpoint.model)


def ensure_model(model: str | None = None, progress: Progress = silent) -> ModelEndpoint:
    """The local model, started if need be: what a recipe's `base_url: local` means."""
    return ModelServer().start(progress, model=model)


def _resolve_model(model: Path | str | None) -> tuple[str, Path | None]:
    """The name to serve a model under, and its file (None: the bundled one). Raises LocalError."""
    if model is None or str(model).lower() == BUNDLED_MODEL.lower():
        return BUNDLED_MODEL, None
    file = Path(model).expanduser().resolve()
    try:
        with file.open("rb") as opened:
            is_gguf = opened.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError as exc:
        raise LocalError(
            f"There is no local model {str(model)!r}: {exc.strerror}.",
            hint=f"Give the path of a GGUF file, or {BUNDLED_MODEL}, which comes with it.",
        ) from exc
    if not is_gguf:
        raise LocalError(f"{file} is not a GGUF file.", hint=f"Give one, or {BUNDLED_MODEL}, which comes with it.")
    return file.stem, file


def _child_environment() -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "OMP_", "PYTHON", "VIRTUAL_ENV"))}
    # Threads that wait by spinning stand in each other's way as soon as anything else runs (Argilla, for one): on two
    # busy cores that costs nine tenths of the speed, and sleeping instead costs little on idle ones.
    return ours | {"OMP_WAIT_POLICY": "PASSIVE"}


def _endpoint(running: dict[str, Any]) -> ModelEndpoint:
    return ModelEndpoint(f"http://127.0.0.1:{running['port']}/v1", running["name"])


def _answers(endpoint: ModelEndpoint) -> bool:
    try:
        # trust_env: a proxy from the environment must not stand between us and this machine.
        response = httpx.get(f"{endpoint.base_url}/models", timeout=10, trust_env=False)
    except httpx.HTTPError:
        return False
    return response.status_code == httpx.codes.OK
