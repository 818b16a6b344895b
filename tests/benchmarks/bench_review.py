"""Push and sync against the SDK's own way, on one server in one run.

    python tests/benchmarks/bench_review.py API_URL API_KEY [RECORDS]

Prints JSON: records a second for our push and `records.log` of the same records, for our full pass (nothing new, and
with every tenth record answered) and iterating the SDK's records; the peak memory that a push and a sync add; and what
a poll costs when nothing changed: requests and milliseconds.
"""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from review_people import YES, Faults, Workspace, candidates

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.tasks import external_id


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(api_url: str, api_key: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, TaskPool.open(f"sqlite:///{folder}/pool.db") as pool:
        workspace = Workspace(api_url, api_key, pool)
        workspace.add(candidates(count))
        push = seconds(workspace.push)
        again = seconds(workspace.push)
        first = seconds(workspace.sync)
        quiet = seconds(workspace.sync)
        answer(workspace)
        answered = seconds(workspace.sync)
        sync_peak = peak_mb(workspace.sync)
        faults = Faults(workspace.client)
        dataset_id = workspace.dataset_id
        asked = len(faults.requests)
        poll = seconds(lambda: workspace.client.activity(dataset_id))
        requests = len(faults.requests) - asked
        faults.heal()
        log, iterate = sdk(workspace, count)
        workspace.client.send("DELETE", f"datasets/{dataset_id}")
        push_peak = peak_mb(workspace.push)  # what nobody has judged, once more
        workspace.close()
    rates = {
        "push": push,
        "push_nothing_new": again,
        "sdk_log": log,
        "sync_first": first,
        "sync_nothing_new": quiet,
        "sync_tenth_answered": answered,
        "sdk_iterate": iterate,
    }
    print(json.dumps({name: round(count / taken) for name, taken in rates.items()}, indent=2))
    peaks = {"push_peak_mb": push_peak, "sync_peak_mb": sync_peak}
    print(json.dumps({"records": count, **peaks, "poll_requests": requests, "poll_ms": round(1000 * poll, 1)}))


def peak_mb(work: Callable[[], Any]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 1e6, 1)


def answer(workspace: Workspace) -> None:
    """Every tenth record gets an answer, written by the owner for speed."""
    ann = workspace.person()
    values = {name: {"value": value} for name, value in YES.items()}
    response = {"user_id": ann.id, "status": "submitted", "values": values}
    keys = [external_id(record.task_id, record.instance) for record in workspace.pool.reviews.records()[::10]]
    workspace.client.upsert(workspace.dataset_id, [{"external_id": key, "responses": [response]} for key in keys])


def sdk(workspace: Workspace, count: int) -> tuple[float, float]:
    """Seconds that the SDK needs to log the same records into a like dataset, and to iterate ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import argilla as rg

        client = rg.Argilla(api_url=workspace.api_url, api_key=workspace.api_key)
        ours = client.datasets(workspace.dataset, workspace=workspace.name)
        like = rg.Dataset(
            name=f"like-{secrets.token_hex(4)}", workspace=workspace.name, settings=ours.settings, client=client
        )
        like.create()
        records = [
            rg.Record(
                id=item["external_id"],
                fields=item["fields"],
                metadata=item["metadata"],
                suggestions=[
                    rg.Suggestion(f"{field}_edit", item["fields"][field], agent="toy/model:v1")
                    for field in ("instruction", "input", "output")
                ],
            )
            for item in workspace.records().values()
        ]
        log = seconds(lambda: like.records.log(records))
        iterate = seconds(lambda: [None for _ in ours.records(with_responses=True, with_suggestions=False)])
    assert len(records) == count
    return log, iterate


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2000)
