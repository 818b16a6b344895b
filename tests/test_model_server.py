"""The local model: its server's life, and rounds of both methods with what it really writes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from generating import problems
from servers import shared_environments

from selfinstruct_argilla.bootstrap.loop import GenerateResult
from selfinstruct_argilla.errors import LocalError
from selfinstruct_argilla.local.model_server import BUNDLED_MODEL, ModelEndpoint, ModelServer
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.tasks import Origin

GIGABYTE = 2**30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path / "home")
    yield server
    server.stop()


def start(server: ModelServer, **options: Any) -> ModelEndpoint:
    with shared_environments():
        return server.start(**options)


def ask(endpoint: ModelEndpoint, path: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(f"{endpoint.base_url}/{path}", json={"model": endpoint.model, **body}, timeout=60)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_its_life(server: ModelServer) -> None:
    assert not server.status().running
    assert server.stop() is False
    endpoint = start(server)
    assert endpoint.model == BUNDLED_MODEL
    status = server.status()
    assert (status.running, status.url, status.model) == (True, endpoint.base_url, BUNDLED_MODEL)

    pid = status.pid
    assert start(server) == endpoint, "a second start finds the first"
    assert server.status().pid == pid
    other = ModelServer(server.home)
    assert other.status().pid == pid, "as any other process does"
    with pytest.raises(LocalError, match="is running on port"):
        start(server, port=1)

    answer = ask(endpoint, "completions", prompt="The capital of France is", max_tokens=4, temperature=0)
    assert answer["choices"][0]["text"].strip()
    assert answer["usage"]["completion_tokens"] <= 4
    chat = ask(endpoint, "chat/completions", messages=[{"role": "user", "content": "Hello."}], max_tokens=4)
    assert chat["choices"][0]["message"]["content"].strip()
    assert psutil.Process(pid).memory_info().rss < GIGABYTE

    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.Process(pid).wait(20)
    assert not server.status().running, "the file that names a dead process is seen for what it is"
    (server.home / "process.json").write_text(json.dumps({"pid": os.getpid(), "name": BUNDLED_MODEL, "port": 1}))
    assert not server.status().running, "and so is one that names somebody else's"
    assert server.stop() is False
    assert psutil.pid_exists(os.getpid())

    again = start(server)
    assert server.status().pid not in (None, pid)
    assert server.stop() is True
    assert not server.status().running
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{again.base_url}/models", timeout=5)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [("missing.gguf", None, "There is no local model"), ("text.gguf", b"not a model", "is not a GGUF file")],
)
def test_a_model_that_cannot_be_served(
    server: ModelServer, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LocalError, match=sentence):
        server.start(model=tmp_path / name)


# rounds ---------------------------------------------------------------------------------------------


SEEDS = [  # short ones, because the model reads every prompt on the test's own two cores
    ("Name a fruit that is red.", "", "An apple.", False),
    ("Add the two numbers.", "3 and 4", "7", False),
    ("Translate the word into French.", "house", "maison", False),
    ("Write a short sentence about rain.", "", "The rain fell all night.", False),
    ("Give the opposite of the word.", "hot", "cold", False),
    ("Make the sentence a question.", "She sings.", "Does she sing?", False),
    ("Is the animal a bird or a fish?", "salmon", "fish", True),
    ("Is the sentence happy or sad?", "I lost my dog.", "sad", True),
]


def generate(endpoint: ModelEndpoint, folder: Path, method: str, tokens: int) -> GenerateResult:
    seeds = folder / "seeds.jsonl"
    with seeds.open("w") as file:
        for number, (instruction, given, output, kind) in enumerate(SEEDS):
            instances = [{"input": given, "output": output}]
            task = {"id": f"seed_{number}", "instruction": instruction, "instances": instances}
            file.write(json.dumps({**task, "is_classification": kind}) + "\n")
    settings = {
        "pool": f"sqlite:///{folder / 'pool.db'}",
        "seeds": f"[{seeds}]",
        "models.generator.base_url": endpoint.base_url,
        "models.generator.api_key": "none",
        "models.generator.model": endpoint.model,
        "bootstrap.method": method,
        "bootstrap.target": 2,
        "bootstrap.wave": 1,
        "bootstrap.sampling.instructions": f"{{max_tokens: {tokens}, temperature: 0.8, top_p: 0.9}}",
        "bootstrap.sampling.instances": "{max_tokens: 40}",
    }
    with open_project("quickstart", overrides=[f"{name}={value}" for name, value in settings.items()]) as project:
        return project.generate()


@pytest.mark.parametrize(("method", "tokens"), [("self_instruct", 120), ("alpaca", 200)])
def test_a_round_with_the_real_model(local_model: ModelEndpoint, tmp_path: Path, method: str, tokens: int) -> None:
    result = generate(local_model, tmp_path, method, tokens)
    assert (result.generated, result.ended) == (2, "target")
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    assert problems(url) == []
    with TaskPool.open(url) as pool:
        tasks = [task for task in pool.tasks() if task.origin is Origin.GENERATED]
        assert all(task.provenance.model == local_model.model for task in tasks)
        spend = pool.journal.spend()
        assert spend.requests == result.requests
        assert spend.completion_tokens > 0
