"""Bulk upsert into the local Argilla, beside the same server without our two patches, in one run.

    python tests/benchmarks/bench_upsert.py
    python tests/benchmarks/bench_upsert.py --records 500

Every record has two fields, three metadata values and a suggestion; both servers keep them in SQLite.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from bench_search import call, client, create_dataset

from selfinstruct_argilla.local.argilla_server import OWNER, ArgillaEndpoint, ArgillaServer
from selfinstruct_argilla.local.environments import argilla_environment
from selfinstruct_argilla.local.processes import choose_port

ROOM = Path(__file__).parents[2] / "selfinstruct_argilla" / "local" / "argilla"
UNPATCHED = "import sys; sys.path.insert(0, {room!r}); import boot, speed; speed.patch = lambda: None; boot.main()"


@contextmanager
def patched(home: Path) -> Iterator[ArgillaEndpoint]:
    server = ArgillaServer(home)
    try:
        yield server.start()
    finally:
        server.stop()


@contextmanager
def unpatched(home: Path) -> Iterator[ArgillaEndpoint]:
    """The same program, started without `speed.patch`."""
    home.mkdir()
    account = {"username": OWNER, "password": secrets.token_hex(8), "api_key": secrets.token_hex(16)}
    (home / "credentials.json").write_text(json.dumps({**account, "secret_key": secrets.token_hex(32)}))
    port = choose_port(None, 6999, "127.0.0.1", "")
    python = str(argilla_environment().ensure())
    command = [python, "-s", "-c", UNPATCHED.format(room=str(ROOM)), "--home", str(home), "--port", str(port)]
    endpoint = ArgillaEndpoint(f"http://127.0.0.1:{port}", **account)
    with (home / "log.txt").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while not _answers(endpoint):
                assert process.poll() is None, (home / "log.txt").read_text()
                time.sleep(0.2)
            yield endpoint
        finally:
            process.terminate()


def _answers(endpoint: ArgillaEndpoint) -> bool:
    try:
        with client(endpoint) as api:
            return bool(api.get("/me").is_success)
    except httpx.HTTPError:
        return False


def rate(endpoint: ArgillaEndpoint, records: int, at_once: int) -> float:
    """Records a second, the first batch (which warms the server up) left out."""
    with client(endpoint) as api:
        dataset = create_dataset(api, "upserts")
        path = f"/datasets/{dataset['id']}/records/bulk"
        question = dataset["questions"]["verdict"]
        items = [
            {
                "external_id": f"generated_{number:08d}:0",
                "fields": {"instruction": f"Instruction {number}", "output": f"Output {number}"},
                "metadata": {"origin": "generated", "round": number % 9, "max_rouge_l": 0.25},
                "suggestions": [{"question_id": question, "value": "accept", "score": 0.5, "agent": "judge"}],
            }
            for number in range(records + at_once)
        ]
        call(api, "PUT", path, {"items": items[:at_once]})
        started = time.perf_counter()
        for start in range(at_once, len(items), at_once):
            call(api, "PUT", path, {"items": items[start : start + at_once]})
        return records / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, default=100, help="records a request")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with patched(Path(folder) / "patched") as endpoint:
            ours = rate(endpoint, arguments.records, arguments.at_once)
        with unpatched(Path(folder) / "unpatched") as endpoint:
            stock = rate(endpoint, arguments.records, arguments.at_once)
    print(f"records a second: {ours:.0f} with the patches, {stock:.0f} without: {ours / stock:.1f} times")


if __name__ == "__main__":
    main()
