"""The real local Argilla and the real local model, once for a whole test run.

Their environments are kept between runs in `SELFINSTRUCT_TEST_HOME` (default: the user's cache folder); the Argilla's
own data is new in every run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import pytest

from selfinstruct_argilla.local.argilla_server import ArgillaEndpoint, ArgillaServer
from selfinstruct_argilla.local.environments import Environment, argilla_environment, model_environment
from selfinstruct_argilla.local.model_server import ModelEndpoint, ModelServer

# Read before any test changes the environment.
SHARED_HOME = Path(
    os.environ.get("SELFINSTRUCT_TEST_HOME") or platformdirs.user_cache_path("selfinstruct-argilla-tests")
)


@contextmanager
def shared_environments() -> Iterator[None]:
    """Inside, SELFINSTRUCT_HOME is the folder where the environments are kept between runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFINSTRUCT_HOME", str(SHARED_HOME))
        yield


def link_environment(environment: Environment) -> None:
    """Let the present SELFINSTRUCT_HOME use the kept environment: made once, then linked."""
    with shared_environments():
        environment.ensure()
        kept = environment.path
    if not environment.path.exists():
        environment.path.parent.mkdir(parents=True, exist_ok=True)
        environment.path.symlink_to(kept)


@pytest.fixture(scope="session")
def argilla_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgillaEndpoint]:
    """A local Argilla with an empty home of its own, on a free port."""
    server = ArgillaServer(tmp_path_factory.mktemp("argilla") / "home")
    with shared_environments():
        endpoint = server.start()
    try:
        yield endpoint
    finally:
        server.stop()


@pytest.fixture(scope="session")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelEndpoint]:
    """The local SmolLM2-135M-Instruct, on a free port."""
    server = ModelServer(tmp_path_factory.mktemp("model") / "home")
    with shared_environments():
        endpoint = server.start()
    try:
        yield endpoint
    finally:
        server.stop()


__all__ = ["argilla_environment", "argilla_server", "link_environment", "local_model", "model_environment"]
