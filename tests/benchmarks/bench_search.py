"""Times of the local Argilla's search engine: first pages of filters, sorts, words and vectors; progress; memory.

    python tests/benchmarks/bench_search.py                       # 5,000 and 50,000 records, so that growth shows
    python tests/benchmarks/bench_search.py --sizes 1000 --json

Each dataset has two responses, a suggestion, three metadata values and a vector for every record. It is filled through
the database file (pushing is timed elsewhere), and asked over HTTP as the annotation page asks.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

from selfinstruct_argilla.local.argilla_server import ArgillaEndpoint, ArgillaServer

VECTOR_DIMENSIONS = 64
WORDS = 40  # in a record, over two fields
PAGE = {"limit": 50, "include": "responses"}

Body = dict[str, Any]


def create_dataset(api: httpx.Client, name: str) -> Body:
    """A published dataset of every kind of column that can be searched."""
    workspace = call(api, "GET", "/me/workspaces")["items"][0]["id"]
    distribution = {"strategy": "overlap", "min_submitted": 2}
    dataset = call(api, "POST", "/datasets", {"name": name, "workspace_id": workspace, "distribution": distribution})
    path = f"/datasets/{dataset['id']}"
    for field in ("instruction", "output"):
        settings: Body = {"type": "text", "use_markdown": False}
        call(api, "POST", f"{path}/fields", {"name": field, "title": field, "required": True, "settings": settings})
    questions = {
        "quality": {"type": "rating", "options": [{"value": value} for value in range(1, 6)]},
        "verdict": {"type": "label_selection", "options": [{"value": v, "text": v} for v in ("accept", "reject")]},
    }
    created = {
        question: call(
            api,
            "POST",
            f"{path}/questions",
            {"name": question, "title": question, "required": True, "settings": settings},
        )["id"]
        for question, settings in questions.items()
    }
    for metadata, kind in (("origin", "terms"), ("round", "integer"), ("max_rouge_l", "float")):
        body = {"name": metadata, "title": metadata, "settings": {"type": kind}, "visible_for_annotators": True}
        call(api, "POST", f"{path}/metadata-properties", body)
    vector = {"name": "embedding", "title": "embedding", "dimensions": VECTOR_DIMENSIONS}
    vector_id = call(api, "POST", f"{path}/vectors-settings", vector)["id"]
    call(api, "PUT", f"{path}/publish")
    return {"id": dataset["id"], "questions": created, "vector_settings": vector_id}


def fill(database: Path, dataset: Body, users: list[str], records: int) -> None:
    """Write the records the way Argilla stores them."""
    rng = random.Random(records)
    vocabulary = [f"w{number:x}" for number in range(60_000)]
    weights = [1.0 / (rank + 3) for rank in range(len(vocabulary))]
    words = rng.choices(vocabulary, weights, k=records * WORDS)
    start = datetime(2026, 1, 1)

    def stored_id(text: str) -> str:
        return UUID(text).hex

    rows: dict[str, list[tuple[Any, ...]]] = {"records": [], "responses": [], "suggestions": [], "vectors": []}
    for number in range(records):
        record = uuid4().hex
        moment = str(start + timedelta(seconds=number, microseconds=rng.randrange(1, 10**6)))
        text = words[number * WORDS : (number + 1) * WORDS]
        fields = {"instruction": " ".join(text[:15]), "output": " ".join(text[15:])}
        metadata = {
            "origin": rng.choice(("seed", "generated")),
            "round": rng.randrange(50),
            "max_rouge_l": rng.random(),
        }
        status = "completed" if number % 3 else "pending"
        rows["records"].append(
            (
                record,
                json.dumps(fields),
                json.dumps(metadata),
                status,
                str(number),
                stored_id(dataset["id"]),
                moment,
                moment,
            )
        )
        for user, answered in zip(users, ("submitted", "submitted" if number % 3 else "draft"), strict=True):
            values = {"quality": {"value": rng.randint(1, 5)}, "verdict": {"value": rng.choice(("accept", "reject"))}}
            row = (uuid4().hex, json.dumps(values), answered, record, stored_id(user), moment, moment)
            rows["responses"].append(row)
        question = stored_id(dataset["questions"]["verdict"])
        agent = rng.choice(("model-a", "model-b"))
        row = (uuid4().hex, '"accept"', json.dumps(rng.random()), agent, "model", record, question, moment, moment)
        rows["suggestions"].append(row)
        vector = json.dumps([round(rng.uniform(-1, 1), 4) for _ in range(VECTOR_DIMENSIONS)])
        rows["vectors"].append((uuid4().hex, vector, record, stored_id(dataset["vector_settings"]), moment, moment))
    columns = {
        "records": "id, fields, metadata, status, external_id, dataset_id",
        "responses": 'id, "values", status, record_id, user_id',
        "suggestions": "id, value, score, agent, type, record_id, question_id",
        "vectors": "id, value, record_id, vector_settings_id",
    }
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, names in columns.items():
            marks = ", ".join("?" * (names.count(",") + 3))
            statement = f"INSERT INTO {table} ({names}, inserted_at, updated_at) VALUES ({marks})"
            connection.executemany(statement, rows[table])


def questions_of(dataset: Body) -> dict[str, tuple[str, str, Body | None]]:
    """What is asked: name, then method, path and body."""
    everybody, me = f"/datasets/{dataset['id']}", f"/me/datasets/{dataset['id']}"
    search, my_search = f"{everybody}/records/search", f"{me}/records/search"

    def metadata(name: str) -> Body:
        return {"entity": "metadata", "metadata_property": name}

    def record(name: str) -> Body:
        return {"entity": "record", "property": name}

    response_status = {"entity": "response", "property": "status"}
    quality = {"entity": "response", "question": "quality"}
    suggestion = {"entity": "suggestion", "question": "verdict"}

    def terms(scope: Body, *values: str) -> Body:
        return {"type": "terms", "scope": scope, "values": values}

    def between(scope: Body, **bounds: Any) -> Body:
        return {"type": "range", "scope": scope, **bounds}

    filters = {
        "record status": [terms(record("status"), "pending")],
        "inserted_at range": [between(record("inserted_at"), ge="2026-01-01T01:00:00")],
        "metadata terms": [terms(metadata("origin"), "generated")],
        "metadata integer range": [between(metadata("round"), ge=10, le=40)],
        "metadata float range": [between(metadata("max_rouge_l"), le=0.5)],
        "suggestion value": [terms(suggestion, "accept")],
        "suggestion score": [between({**suggestion, "property": "score"}, ge=0.2)],
        "suggestion agent": [terms({**suggestion, "property": "agent"}, "model-a")],
        "response status": [terms(response_status, "submitted")],
        "response pending": [terms(response_status, "pending")],
        "response value": [terms(quality, "4", "5")],
        "three at once": [
            terms(metadata("origin"), "generated"), terms(response_status, "submitted"), between(quality, ge=2)
        ],
    }  # fmt: skip
    sorts = {
        "updated_at": [record("updated_at")],
        "external_id": [record("external_id")],
        "metadata terms": [metadata("origin")],
        "metadata float": [metadata("max_rouge_l")],
        "suggestion score": [{**suggestion, "property": "score"}],
        "suggestion value": [suggestion],
        "response rating": [quality],
        "three keys": [metadata("origin"), metadata("round"), quality],
    }
    texts = {"rare word": "w3f00", "common word": "w0", "two words": "w1 w2", "phrase": '"w0 w1"', "prefix": "w3f*"}
    texts |= {"fuzzy": "w3f01~1", "operators": "(w5 | w6) -w1", "excluded": "-w0"}
    asked: dict[str, tuple[str, str, Body | None]] = {"list": ("POST", search, {})}
    asked["my list (random order)"] = ("POST", my_search, {})
    pending = [terms(record("status"), "pending"), terms(response_status, "pending")]
    asked["my pending queue"] = ("POST", my_search, {"filters": {"and": pending}})
    for name, conditions in filters.items():
        asked[f"filter: {name}"] = ("POST", search, {"filters": {"and": conditions}})
    asked["my filter: response status"] = ("POST", my_search, {"filters": {"and": filters["response status"]}})
    for name, keys in sorts.items():
        sort = [{"scope": key, "order": "desc"} for key in keys]
        asked[f"sort: {name}"] = ("POST", search, {"sort": sort})
    for name, text in texts.items():
        asked[f"text: {name}"] = ("POST", search, {"query": {"text": {"q": text}}})
    text_query = {"query": {"text": {"q": "w1"}}}
    asked["my text"] = ("POST", my_search, text_query)
    asked["text, filter and sort"] = (
        "POST",
        search,
        {
            **text_query,
            "filters": {"and": filters["metadata terms"]},
            "sort": [{"scope": record("updated_at"), "order": "asc"}],
        },
    )
    vector = {"vector": {"name": "embedding", "value": [1.0] * VECTOR_DIMENSIONS}}
    asked["similar"] = ("POST", search, {"query": vector})
    asked["similar, filter"] = ("POST", search, {"query": vector, "filters": {"and": filters["metadata terms"]}})
    asked["progress: dataset"] = ("GET", f"{everybody}/progress", None)
    asked["progress: user"] = ("GET", f"{me}/metrics", None)
    return asked


def call(api: httpx.Client, method: str, path: str, body: Body | None = None, **parameters: Any) -> Any:
    response = api.request(method, path, json=body, params=parameters)
    response.raise_for_status()
    return response.json() if response.content else None


def client(endpoint: ArgillaEndpoint) -> httpx.Client:
    headers = {"X-Argilla-Api-Key": endpoint.api_key}
    return httpx.Client(base_url=f"{endpoint.api_url}/api/v1", headers=headers, timeout=600)


def measure(api: httpx.Client, dataset: Body, repetitions: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each question: the first time it is asked, and the median of the next times."""
    figures = {}
    for name, (method, path, body) in questions_of(dataset).items():
        times = []
        for _ in range(1 + repetitions):
            started = time.perf_counter()
            call(api, method, path, body, **(PAGE if method == "POST" else {}))
            times.append(1000 * (time.perf_counter() - started))
        figures[name] = {"first": round(times[0], 1), "median": round(statistics.median(times[1:]), 1)}
    return figures


def resident_megabytes(pid: int) -> float:
    """The memory of a process, where the system tells."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000], help="records")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"sizes": arguments.sizes, "start_seconds": {}, "milliseconds": {}, "megabytes": {}}
    with tempfile.TemporaryDirectory() as folder:
        server = ArgillaServer(Path(folder))
        try:
            for size in arguments.sizes:
                with client(server.start()) as api:
                    users = [call(api, "GET", "/me")["id"]]
                    body = {
                        "username": f"second-{size}",
                        "first_name": "x",
                        "role": "annotator",
                        "password": "a-password",
                    }
                    users.append(call(api, "POST", "/users", body)["id"])
                    dataset = create_dataset(api, f"size-{size}")
                fill(server.home / "argilla.db", dataset, users, size)
                server.stop()
                started = time.perf_counter()
                endpoint = server.start()
                report["start_seconds"][size] = round(time.perf_counter() - started, 1)
                with client(endpoint) as api:
                    report["milliseconds"][size] = measure(api, dataset, arguments.repetitions)
                pid = server.status().pid
                report["megabytes"][size] = round(resident_megabytes(pid)) if pid else None
        finally:
            server.stop()
    if arguments.json:
        json.dump(report, sys.stdout, indent=2)
        return
    print(f"start with the records there: {report['start_seconds']} s; memory: {report['megabytes']} MB")
    print("milliseconds, the first time and the median of the next ones:")
    print(f"{'':32}" + "".join(f"{size:>18,}" for size in arguments.sizes))
    for name in report["milliseconds"][arguments.sizes[0]]:
        cells = [report["milliseconds"][size][name] for size in arguments.sizes]
        print(f"{name:32}" + "".join(f"{cell['first']:9.0f}{cell['median']:9.0f}" for cell in cells))


if __name__ == "__main__":
    main()
