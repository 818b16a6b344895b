"""For tests of the review: a workspace of its own on a real Argilla, people who answer there, and faults on the way."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from selfinstruct_argilla.local.argilla_server import ArgillaEndpoint
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.recipe import ArgillaConfig, Review
from selfinstruct_argilla.review.argilla_client import ArgillaClient, connect
from selfinstruct_argilla.review.push import PushResult, push
from selfinstruct_argilla.review.rubric import Rubric, load_rubric
from selfinstruct_argilla.review.sync import SyncResult, sync
from selfinstruct_argilla.tasks import Instance, Origin, Provenance, Status, Task

YES = {"instruction_valid": "yes", "input_appropriate": "yes", "output_correct": "yes"}


def candidates(count: int, *, instances: int = 1) -> list[Task]:
    return [
        Task(
            f"generated_{number:08d}",
            f"Instruction {number}",
            tuple(Instance(f"input {number}.{part}", f"output {number}.{part}") for part in range(instances)),
            origin=Origin.GENERATED,
            round=1,
            provenance=Provenance(model="toy/model:v1"),
            max_rouge_l=0.25,
            nearest="generated_00000000",
        )
        for number in range(count)
    ]


class Workspace:
    """One workspace of its own, one pool, and the people in it."""

    def __init__(self, api_url: str, api_key: str, pool: TaskPool) -> None:
        self.api_url, self.api_key, self.pool = api_url, api_key, pool
        self.owner = _http(api_url, api_key)
        self.name = f"test-{secrets.token_hex(6)}"
        self.id = _json(self.owner.post("/workspaces", json={"name": self.name}))["id"]
        self.client = connect(api_url, api_key, patience=8)
        self.dataset = f"review-{secrets.token_hex(6)}"
        self.rubric: Rubric = load_rubric("paper")
        self.rules: dict[str, Any] = {}
        self.people: list[Person] = []

    def close(self) -> None:
        self.client.close()
        self.owner.close()
        for person in self.people:
            person.http.close()

    @property
    def review(self) -> Review:
        return Review(argilla=ArgillaConfig(workspace=self.name), **self.rules)

    def add(self, tasks: list[Task]) -> None:
        self.pool.import_tasks(tasks, Status.CANDIDATE)

    def push(self, client: ArgillaClient | None = None, **arguments: Any) -> PushResult:
        return push(
            arguments.pop("pool", self.pool),
            self.review,
            client or self.client,
            **{"dataset": self.dataset, "rubric": self.rubric, **arguments},
        )

    def sync(self, client: ArgillaClient | None = None, **arguments: Any) -> SyncResult:
        return sync(
            self.pool,
            self.review,
            client or self.client,
            **{"dataset": self.dataset, "rubric": self.rubric, **arguments},
        )

    # Argilla, seen by its owner

    @property
    def dataset_id(self) -> str:
        found = self.client.dataset_named(self.dataset, self.id)
        assert found is not None
        return str(found["id"])

    def records(self) -> dict[str, dict[str, Any]]:
        """Everything in the dataset, by external id."""
        found: dict[str, dict[str, Any]] = {}
        while True:
            parameters = {"offset": len(found), "limit": 1000, "include": ["responses", "suggestions"]}
            page = _json(self.owner.get(f"/datasets/{self.dataset_id}/records", params=parameters))
            for item in page["items"]:
                assert item["external_id"] not in found, "a doubled record"
                found[item["external_id"]] = item
            if len(found) >= page["total"]:
                return found

    def record_id(self, external_id: str) -> str:
        return str(self.records()[external_id]["id"])

    def delete_record(self, external_id: str) -> None:
        _done(self.owner.delete(f"/datasets/{self.dataset_id}/records?ids={self.record_id(external_id)}"))

    # people

    def person(self, name: str = "ann", role: str = "annotator") -> Person:
        """A new user of this workspace; user names are unique on a server, so a suffix is added."""
        username = f"{name}-{secrets.token_hex(4)}"
        account = {"first_name": name, "username": username, "password": secrets.token_hex(8), "role": role}
        user = _json(self.owner.post("/users", json=account))
        _done(self.owner.post(f"/workspaces/{self.id}/users", json={"user_id": user["id"]}))
        person = Person(self, username, user["id"], user["api_key"], _http(self.api_url, user["api_key"]))
        self.people.append(person)
        return person

    def status(self, number: int) -> Status:
        task = self.pool.task(f"generated_{number:08d}")
        assert task is not None
        return task.status


@pytest.fixture
def workspace(argilla_server: ArgillaEndpoint, tmp_path: Path) -> Iterator[Workspace]:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        workspace = Workspace(argilla_server.api_url, argilla_server.api_key, pool)
        yield workspace
        workspace.close()


@dataclass
class Person:
    """Somebody who answers as the annotation page does."""

    workspace: Workspace
    username: str
    id: str
    api_key: str
    http: httpx.Client
    answered: dict[str, str] = field(default_factory=dict)  # record → response

    def submit(self, record_id: str, values: dict[str, Any] | None = None, **more: Any) -> None:
        self._answer(record_id, "submitted", {**(YES if values is None else values), **more})

    def draft(self, record_id: str, **values: Any) -> None:
        self._answer(record_id, "draft", values)

    def discard(self, record_id: str, **values: Any) -> None:
        self._answer(record_id, "discarded", values)

    def discard_without_values(self, record_id: str) -> None:
        self._answer(record_id, "discarded", None)

    def delete(self, record_id: str) -> None:
        _done(self.http.delete(f"/responses/{self.answered.pop(record_id)}"))

    def leave(self) -> None:
        """The account is removed, and every answer with it."""
        _done(self.workspace.owner.delete(f"/users/{self.id}"))

    def _answer(self, record_id: str, status: str, values: dict[str, Any] | None) -> None:
        body: dict[str, Any] = {"status": status}
        if values is not None:
            body["values"] = {name: {"value": value} for name, value in values.items()}
        if record_id in self.answered:
            _done(self.http.put(f"/responses/{self.answered[record_id]}", json=body))
        else:
            self.answered[record_id] = _json(self.http.post(f"/records/{record_id}/responses", json=body))["id"]


class Faults:
    """Stands between a client and Argilla: `before` and `after` see each request's number (from 1), method and path;
    what `before` returns is answered instead, what either raises is raised."""

    def __init__(self, client: ArgillaClient) -> None:
        self.client = client
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[int, str, str], httpx.Response | None] = lambda number, method, path: None
        self.after: Callable[[int, str, str], None] = lambda number, method, path: None
        self._http = client._http
        client._http = self  # type: ignore[assignment]

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        self.requests.append((method, path))
        number = len(self.requests)
        instead = self.before(number, method, path)
        if instead is not None:
            instead.request = httpx.Request(method, f"http://argilla.test{path}")
            return instead
        response = self._http.request(method, path, **arguments)
        self.after(number, method, path)
        return response

    def close(self) -> None:
        self._http.close()

    def heal(self) -> None:
        self.client._http = self._http


class KilledError(BaseException):
    """What a test raises in place of a SIGKILL: no handler of the program catches it."""


def _http(api_url: str, api_key: str) -> httpx.Client:
    return httpx.Client(base_url=f"{api_url}/api/v1", headers={"X-Argilla-Api-Key": api_key}, timeout=60)


def _json(response: httpx.Response) -> Any:
    _done(response)
    return response.json()


def _done(response: httpx.Response) -> None:
    assert response.status_code < 300, f"{response.request.url}: {response.status_code} {response.text[:500]}"
