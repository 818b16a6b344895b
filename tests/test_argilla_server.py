from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from servers import shared_environments
from typer.testing import CliRunner

from selfinstruct_argilla.cli import server as server_commands
from selfinstruct_argilla.errors import LocalError, UsageError
from selfinstruct_argilla.local.argilla_server import ArgillaServer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgillaServer]:
    """A server of this file's own: it is stopped, killed and restored here."""
    server = ArgillaServer(tmp_path_factory.mktemp("argilla") / "home")
    start(server)
    yield server
    server.stop()


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[ArgillaServer]:
    """A server that was never started."""
    server = ArgillaServer(tmp_path / "home")
    yield server
    server.stop()


def start(server: ArgillaServer, **options: Any) -> Any:
    with shared_environments():
        return server.start(**options)


def kill(server: ArgillaServer) -> None:
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.Process(pid).wait(20)


def api(server: ArgillaServer, key: str | None = None) -> httpx.Client:
    endpoint = server.endpoint()
    headers = {"X-Argilla-Api-Key": key or endpoint.api_key}
    return httpx.Client(base_url=f"{endpoint.api_url}/api/v1", headers=headers, timeout=120, trust_env=False)


def call(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    response = client.request(method, path, json=body)
    assert response.is_success, response.text
    return response.json()


class Dataset:
    """A published dataset with a text field and a required label question."""

    def __init__(self, client: httpx.Client, records: int = 0) -> None:
        self.client = client
        workspace = next(w for w in call(client, "GET", "/me/workspaces")["items"] if w["name"] == "argilla")
        body = {"name": f"set-{uuid.uuid4().hex}", "workspace_id": workspace["id"], "allow_extra_metadata": True}
        self.path = f"/datasets/{call(client, 'POST', '/datasets', body)['id']}"
        text = {"name": "text", "title": "Text", "required": True, "settings": {"type": "text"}}
        labels = [{"value": value, "text": value} for value in ("yes", "no")]
        label = {"name": "ok", "title": "OK?", "required": True}
        call(client, "POST", f"{self.path}/fields", text)
        settings = {"type": "label_selection", "options": labels}
        call(client, "POST", f"{self.path}/questions", {**label, "settings": settings})
        call(client, "PUT", f"{self.path}/publish")
        if records:
            self.push(range(records))

    def push(self, numbers: range) -> None:
        items = [{"external_id": str(n), "fields": {"text": f"record {n}"}, "metadata": {"n": n}} for n in numbers]
        call(self.client, "PUT", f"{self.path}/records/bulk", {"items": items})

    def records(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = call(self.client, "GET", f"{self.path}/records?limit=1000&include=responses")[
            "items"
        ]
        return items


def answer(client: httpx.Client, record: dict[str, Any]) -> bool:
    """Submit a response as the annotation page does; whether the server says that it has it."""
    item = {"values": {"ok": {"value": "yes"}}, "status": "submitted", "record_id": record["id"]}
    response = client.post("/me/responses/bulk", json={"items": [item]})
    return response.status_code == httpx.codes.OK and response.json()["items"][0].get("item") is not None


# life cycle


def test_second_start_finds_the_first(running: ArgillaServer) -> None:
    before = running.status()
    assert before.running and before.version == "2.8.0"
    endpoint = start(running)
    assert (running.status().pid, endpoint.api_url) == (before.pid, before.url)


def test_secrets_are_random_and_private(running: ArgillaServer, tmp_path: Path) -> None:
    credentials = json.loads((running.home / "credentials.json").read_text())
    assert len(credentials["password"]) >= 16 and len(credentials["api_key"]) >= 40
    assert credentials["password"] not in (running.home / "log.txt").read_text()
    assert not any(credentials[name] in part for name in ("password", "api_key") for part in command_line(running))
    for name in ("credentials.json", "settings.json", "process.json", "argilla.db"):
        assert stat.S_IMODE((running.home / name).stat().st_mode) == 0o600, name


def command_line(server: ArgillaServer) -> list[str]:
    pid = server.status().pid
    assert pid is not None
    return psutil.Process(pid).cmdline()


def test_listens_on_this_machine_only(running: ArgillaServer) -> None:
    process = psutil.Process(running.status().pid)
    listening = {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_owner_can_log_in_and_default_password_cannot(running: ArgillaServer) -> None:
    endpoint = running.endpoint()
    with api(running) as client:
        form = {"username": endpoint.username, "password": endpoint.password}
        assert client.post("/token", data=form).status_code == httpx.codes.CREATED
        assert client.post("/token", data={"username": "argilla", "password": "12345678"}).status_code == 401
        assert client.get("/me", headers={"X-Argilla-Api-Key": "argilla.apikey"}).status_code == 401


def test_killed_server_is_seen_and_started_again_with_everything(running: ArgillaServer) -> None:
    before = running.endpoint()
    with api(running) as client:
        Dataset(client, records=3)
        token = call_token(client, before)
    kill(running)
    assert not running.status().running
    with pytest.raises(LocalError, match="No local Argilla is running"):
        running.endpoint()
    assert start(running) == before
    assert running.status().records == 3
    with api(running) as client:  # nobody is logged out of the page by a restart
        logged_in = client.get("/me", headers={"X-Argilla-Api-Key": "", "Authorization": f"Bearer {token}"})
        assert logged_in.json()["username"] == before.username


def call_token(client: httpx.Client, endpoint: Any) -> str:
    form = {"username": endpoint.username, "password": endpoint.password}
    return str(client.post("/token", data=form).json()["access_token"])


def test_kill_during_writes_loses_no_acknowledged_response(running: ArgillaServer) -> None:
    with api(running) as client:
        dataset = Dataset(client, records=100)
        records = dataset.records()
    acknowledged: list[str] = []
    half = threading.Event()

    def annotate() -> None:
        with api(running) as client:
            for record in records:
                try:
                    if answer(client, record):
                        acknowledged.append(record["id"])
                except httpx.HTTPError:
                    return
                if len(acknowledged) == 40:
                    half.set()

    annotator = threading.Thread(target=annotate)
    annotator.start()
    assert half.wait(60)
    kill(running)
    annotator.join(30)
    start(running)
    with api(running) as client:
        dataset.client = client
        stored = {record["id"] for record in dataset.records() if record["responses"]}
    assert 40 <= len(acknowledged) < 100
    assert set(acknowledged) <= stored


def test_other_options_for_a_running_server_are_refused(running: ArgillaServer) -> None:
    with pytest.raises(LocalError, match="running with another port") as caught:
        start(running, port=1)
    assert "sia server stop" in str(caught.value.hint)


def test_stop_is_said_once(stopped: ArgillaServer) -> None:
    assert stopped.stop() is False
    assert dataclasses.asdict(stopped.status()) == {
        "running": False, "home": stopped.home, "url": None, "pid": None, "version": None, "datasets": None,
        "records": None,
    }  # fmt: skip


def test_start_over_what_a_crash_can_leave(stopped: ArgillaServer, running: ArgillaServer) -> None:
    """A process file that names somebody else's process, a migration cut short, and the default port taken."""
    stopped.home.mkdir()
    (stopped.home / "process.json").write_text(json.dumps({"pid": os.getpid(), "port": 1, "host": "127.0.0.1"}))
    with sqlite3.connect(stopped.home / "argilla.migrating.db") as half_migrated:
        half_migrated.execute("CREATE TABLE users (id INTEGER)")
    half_migrated.close()
    port = int(running.endpoint().api_url.rsplit(":", 1)[1])
    (stopped.home / "settings.json").write_text(json.dumps({"port": port}))

    endpoint = start(stopped)

    assert endpoint.api_url != running.endpoint().api_url and endpoint.api_key != running.endpoint().api_key
    status = stopped.status()
    assert status.running and status.records == 0 and status.pid != os.getpid()
    assert running.status().running  # side by side
    assert not (stopped.home / "argilla.migrating.db").exists()
    assert stopped.stop() and not stopped.status().running


def test_taken_port_that_was_asked_for_is_explained(stopped: ArgillaServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalError, match=f"Port {port} is used by another program"):
            start(stopped, port=port)


def test_failing_start_quotes_the_log(stopped: ArgillaServer) -> None:
    stopped.home.mkdir()
    (stopped.home / "argilla.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LocalError, match=r"ended while starting; the end of its log:\n(?s:.*)not a database"):
        start(stopped)
    assert not stopped.status().running


@pytest.mark.parametrize("password", [None, "short"])
def test_other_machines_need_a_chosen_password(stopped: ArgillaServer, password: str | None) -> None:
    with pytest.raises(LocalError, match="choose the owner's password|at least 8 characters"):
        start(stopped, host="0.0.0.0", password=password)
    assert not stopped.status().running


def test_database_other_than_postgresql_is_refused(stopped: ArgillaServer) -> None:
    with pytest.raises(LocalError, match=r"postgresql\+asyncpg://"):
        start(stopped, database="mysql://root@localhost/argilla")


# people


def test_people_come_and_go(running: ArgillaServer) -> None:
    made = running.add_user("ann", workspaces=["argilla", "other"])
    assert made.password is not None
    with api(running, made.api_key) as client:
        assert client.get("/me").json()["role"] == "annotator"
        assert client.post("/token", data={"username": "ann", "password": made.password}).is_success
    listed = {user.username: user for user in running.users()}
    assert listed["ann"].workspaces == ("argilla", "other") and listed["argilla"].role == "owner"

    with pytest.raises(LocalError, match="already"):
        running.add_user("ann")
    with pytest.raises(LocalError, match="no role"):
        running.add_user("bob", role="boss")
    with pytest.raises(LocalError, match="owns this server"):
        running.remove_user("argilla")

    with api(running) as owner, api(running, made.api_key) as client:
        dataset = Dataset(owner, records=1)
        assert answer(client, dataset.records()[0])
    with pytest.raises(LocalError, match="1 response, which would be deleted"):
        running.remove_user("ann")
    running.remove_user("ann", with_responses=True)
    assert "ann" not in {user.username for user in running.users()}
    with pytest.raises(LocalError, match="no user"):
        running.remove_user("ann")


def test_nothing_is_lost_with_eight_annotators_and_a_push_at_once(running: ArgillaServer) -> None:
    people = [running.add_user(f"annotator-{n}") for n in range(8)]
    failures: list[str] = []
    with api(running) as owner:
        dataset = Dataset(owner, records=20)
        records = dataset.records()

        def annotate(key: str) -> None:
            with api(running, key) as client:
                failures.extend(record["id"] for record in records if not answer(client, record))

        threads = [threading.Thread(target=annotate, args=(person.api_key,)) for person in people]
        for thread in threads:
            thread.start()
        pushed = 20
        while any(thread.is_alive() for thread in threads):
            dataset.push(range(pushed, pushed + 100))
            pushed += 100
        for thread in threads:
            thread.join()

        assert failures == []
        answered = list(call(owner, "GET", f"{dataset.path}/records?limit=20&include=responses")["items"])
        assert [len(record["responses"]) for record in answered] == [8] * 20
        assert {record["status"] for record in answered} == {"completed"}
        assert call(owner, "GET", f"{dataset.path}/progress")["total"] == pushed


# background jobs


def wait_for(condition: Any, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_changed_distribution_updates_record_statuses(running: ArgillaServer) -> None:
    with api(running) as owner:
        dataset = Dataset(owner, records=2)
        assert answer(owner, dataset.records()[0])

        def statuses() -> list[str]:
            return [record["status"] for record in dataset.records()]

        assert statuses() == ["completed", "pending"]
        for min_submitted, expected in ((2, "pending"), (1, "completed")):
            distribution = {"strategy": "overlap", "min_submitted": min_submitted}
            call(owner, "PATCH", dataset.path, {"distribution": distribution})
            assert wait_for(lambda expected=expected: statuses() == [expected, "pending"])


def test_webhooks_are_delivered_and_retried(running: ArgillaServer) -> None:
    received: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(body)
            self.send_response(500 if len(received) == 1 else 200)
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as listener, api(running) as owner:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            dataset = Dataset(owner)
            url = f"http://127.0.0.1:{listener.server_port}/"
            webhook = call(owner, "POST", "/webhooks", {"url": url, "events": ["record.created"], "description": "x"})
            dataset.push(range(1))
            # The first delivery is answered with 500; Argilla's first retry comes after 10 seconds.
            assert wait_for(lambda: len(received) == 2)
            assert [event["type"] for event in received] == ["record.created"] * 2
            assert received[0]["data"]["external_id"] == "0"
            call(owner, "DELETE", f"/webhooks/{webhook['id']}")
        finally:
            listener.shutdown()
            thread.join()


# backup and page


def test_backup_and_restore_while_it_runs(running: ArgillaServer, tmp_path: Path) -> None:
    before = running.endpoint()
    with api(running) as client:
        dataset = Dataset(client, records=5)
        backup = running.backup(tmp_path / "backup")
        call(client, "DELETE", dataset.path)
        lost = running.status().records
    with pytest.raises(LocalError, match="not empty"):
        running.backup(backup)
    with pytest.raises(LocalError, match="holds no backup"):
        running.restore(tmp_path)

    with shared_environments():
        replaced = running.restore(backup)

    assert running.endpoint() == before and running.status().records == lost + 5  # type: ignore[operator]
    assert replaced is not None and (replaced / "argilla.db").exists()


def test_page_asks_no_other_site(running: ArgillaServer) -> None:
    with api(running) as client:
        base = running.endpoint().api_url
        page = client.get(base)
        assert page.is_success and "<html" in page.text
        found = list((running.home / "tmp").rglob("*.css"))
        assert found
        for path in [*found, *(running.home / "tmp").rglob("*.js")]:
            text = path.read_text()
            assert not re.search(r"@import url\(https?:", text), path
            assert "imglab-cdn" not in text, path


# command line


def test_commands_print_json(running: ArgillaServer) -> None:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(server_commands.app, [*arguments, "--home", str(running.home), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert run("status").keys() == {"running", "url", "pid", "version", "home", "datasets", "records"}
    credentials = run("credentials")
    assert credentials.keys() == {"api_url", "username", "password", "api_key"}
    name = f"user-{uuid.uuid4().hex}"
    added = run("users", "add", name, "--role", "admin", "--workspace", "argilla")
    assert added.keys() == {"username", "password", "api_key"} and added["username"] == name
    assert {"username": name, "role": "admin", "workspaces": ["argilla"]} in run("users", "list")
    gone = CliRunner().invoke(server_commands.app, ["users", "remove", name, "--home", str(running.home)])
    assert gone.exit_code == 0 and gone.stdout == ""


def test_password_needs_a_terminal_or_the_variable(stopped: ArgillaServer) -> None:
    result = CliRunner().invoke(server_commands.app, ["start", "--password", "--home", str(stopped.home)])
    assert isinstance(result.exception, UsageError)
