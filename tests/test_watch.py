"""Following people live: what they do is seen at the next poll, and a quiet poll costs two small requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import httpx
import pytest
from review_people import YES, Faults, Workspace, candidates

from selfinstruct_argilla.review.argilla_client import connect
from selfinstruct_argilla.review.watch import watch
from selfinstruct_argilla.review.webhooks import notices
from selfinstruct_argilla.tasks import Status

NO = {**YES, "output_correct": "no"}


def watching(workspace: Workspace, wait: Callable[[float], object], clock: Callable[[], float]) -> Iterator[Any]:
    return watch(
        workspace.pool,
        workspace.review,
        workspace.client,
        dataset=workspace.dataset,
        rubric=workspace.rubric,
        wait=wait,
        clock=clock,
    )


def test_whatever_people_do_is_followed(workspace: Workspace) -> None:
    workspace.add(candidates(2))
    workspace.push()
    record = workspace.record_id("generated_00000000:0")
    ann = workspace.person()
    acts: list[tuple[Callable[[], object], Status]] = [
        (lambda: ann.draft(record, **YES), Status.IN_REVIEW),
        (lambda: ann.submit(record), Status.ACCEPTED),
        (lambda: ann.submit(record, NO), Status.REJECTED),
        (lambda: ann.submit(record, NO, output_edit="mended"), Status.ACCEPTED),
        (lambda: ann.discard(record), Status.IN_REVIEW),
        (lambda: ann.delete(record), Status.IN_REVIEW),
        (lambda: ann.submit(record), Status.ACCEPTED),
        (lambda: workspace.delete_record("generated_00000000:0"), Status.WITHDRAWN),
    ]
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) % 3 == 0:  # two quiet polls, then somebody acts
            acts[len(waits) // 3 - 1][0]()

    results = islice(watching(workspace, wait, clock=lambda: 0.0), len(acts) + 1)
    next(results)
    for (_, status), result in zip(acts, results, strict=True):
        assert workspace.status(0) is status
        assert result.responses >= 1
    assert len(waits) == 3 * len(acts)


def test_a_quiet_poll_is_two_small_requests(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    faults = Faults(workspace.client)
    costs: list[int] = []

    def wait(seconds: float) -> None:
        costs.append(len(faults.requests))
        if len(costs) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(watching(workspace, wait, clock=lambda: 0.0))
    assert {after - before for before, after in pairwise(costs)} == {2}


def test_what_leaves_no_trace_is_found_by_a_whole_pass(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    ann = workspace.person()
    ann.submit(workspace.record_id("generated_00000000:0"))
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    results = watching(workspace, wait, clock=lambda: now[0])
    assert next(results).accepted == 1
    ann.leave()
    assert next(results).accepted == 0
    assert now[0] >= 300


# told by Argilla itself -----------------------------------------------------------------------------


def test_argilla_gives_notice_and_the_outcome_is_that_of_polling(workspace: Workspace) -> None:
    workspace.add(candidates(1))
    workspace.push()
    record = workspace.record_id("generated_00000000:0")
    ann = workspace.person()
    acts = [(lambda: ann.submit(record), Status.ACCEPTED), (lambda: ann.submit(record, NO), Status.REJECTED)]
    acts += [(lambda: ann.delete(record), Status.IN_REVIEW)]
    with notices(workspace.client, "http://127.0.0.1:0", name="a test") as listen:
        assert listen is not None
        waiting = iter(acts)
        noticed: list[float] = []

        def wait(seconds: float) -> None:
            if (act := next(waiting, None)) is not None:
                act[0]()
            started = time.monotonic()
            listen(60)
            noticed.append(time.monotonic() - started)

        results = watching(workspace, wait, clock=lambda: 0.0)
        next(results)
        for _, status in acts:
            while workspace.status(0) is not status:
                next(results)
        assert max(noticed) < 50, "a notice was lost"
        (hook,) = [h for h in workspace.client.get("webhooks")["items"] if h["description"] == "a test"]
        assert httpx.post(hook["url"], json={"type": "response.created"}, timeout=5).status_code == 401
    assert [h for h in workspace.client.get("webhooks")["items"] if h["description"] == "a test"] == []


def test_where_argilla_cannot_give_notice_there_is_none(workspace: Workspace) -> None:
    with notices(workspace.client, "http://127.0.0.1:0", name="left behind") as listen:
        assert listen is not None
        (hook,) = [h for h in workspace.client.get("webhooks")["items"] if h["description"] == "left behind"]
        taken = hook["url"].rstrip("/")
        with notices(workspace.client, taken, name="second") as other:
            assert other is None
    admin = workspace.person("boss", role="admin")
    with connect(workspace.api_url, admin.api_key) as client, notices(client, taken, name="third") as other:
        assert other is None
    faults = Faults(workspace.client)
    faults.before = lambda number, method, path: httpx.Response(500) if path.endswith("/ping") else None
    with notices(workspace.client, taken, name="fourth") as other:
        assert other is None
    faults.heal()
    assert not {"left behind", "second", "third", "fourth"} & {
        hook["description"] for hook in workspace.client.get("webhooks")["items"]
    }
