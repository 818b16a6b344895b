"""A pool from what is on the Hub: a release of ours goes on, other datasets become candidates."""

from __future__ import annotations

import hub_server  # isort: skip  # first: it sets the environment that the clients read when they are imported

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import File, Hub
from huggingface_hub import HfApi
from release_help import make_recipe, make_task

from selfinstruct_argilla.errors import ReleaseError, TaskConflictError
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.release.foreign import questions, task_from_row
from selfinstruct_argilla.release.publish import publish
from selfinstruct_argilla.release.pull import look, pull
from selfinstruct_argilla.tasks import Instance, Origin, Provenance, Status, Task, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, in each upload


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    with hub_server.running() as hub:
        yield hub


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[TaskPool]:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        yield pool


@pytest.fixture
def other(tmp_path: Path) -> Iterator[TaskPool]:
    """Another person's pool, on another machine."""
    with TaskPool.open(f"sqlite:///{tmp_path}/other.db") as pool:
        yield pool


def generated(number: int) -> Task:
    """A task with everything that a bootstrap notes of it."""
    return replace(
        make_task(number),
        status=Status.ACCEPTED,
        origin=Origin.GENERATED,
        round=2,
        provenance=Provenance("tiny", "k" * 64, ("seed_task_1", "gen_00000001")),
        max_rouge_l=0.25,
        nearest="seed_task_1",
    )


def test_another_person_goes_on_from_a_release(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, repo="acme/shared", include="{seeds: true}")
    with pool.write() as writer:
        writer.add([generated(n) for n in range(12)], kind="generated")
        edited = replace(generated(3), instances=(Instance("", "edited by people", Verdict.ACCEPTED),))
        writer.apply_review(edited)
    pool.add_seeds([make_task(100)])
    publish(pool, recipe)
    result = pull(other, "acme/shared")
    assert (result.repo, result.version, result.added, result.skipped) == ("acme/shared", "v1.0.0", 13, 0)
    mine = {task.id: task for task in pool.tasks()}
    theirs = {task.id: task for task in other.tasks()}
    assert theirs.keys() == mine.keys()
    for task_id, task in theirs.items():
        assert task.content_hash == mine[task_id].content_hash
        assert (task.status, task.round, task.provenance) == (
            mine[task_id].status, mine[task_id].round, mine[task_id].provenance,
        )  # fmt: skip
    assert theirs[make_task(100).id].status is Status.SEED
    assert other.releases.splits() == pool.releases.splits()
    assert not publish(other, recipe).published, "nothing has changed"
    other.import_tasks([make_task(n) for n in range(50, 60)], Status.ACCEPTED)
    onward = publish(other, recipe)
    assert (onward.version, len(onward.added), onward.edited, onward.withdrawn) == ("v1.1.0", 10, (), ())
    with pytest.raises(ReleaseError, match="knows nothing of"):
        publish(pool, recipe)
    assert pull(pool, "acme/shared").added == 10
    assert not publish(pool, recipe).published


def test_an_older_version_can_be_pulled(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, repo="acme/old")
    pool.import_tasks([make_task(1)], Status.ACCEPTED)
    publish(pool, recipe)
    pool.import_tasks([make_task(2)], Status.ACCEPTED)
    publish(pool, recipe)
    assert pull(other, "acme/old", revision="v1.0.0").version == "v1.0.0"
    assert [task.id for task in other.tasks()] == [make_task(1).id]
    assert pull(other, "acme/old").version == "v1.1.0"
    assert pull(other, "acme/old").unchanged == 2
    assert not publish(other, recipe).published
    with pytest.raises(ReleaseError, match="no revision"):
        pull(other, "acme/old", revision="v9.9.9")


def test_other_content_under_the_same_id_is_refused(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(1), make_task(2)], Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path, repo="acme/clash"))
    other.import_tasks([replace(make_task(2), instruction="Something else.")], Status.CANDIDATE)
    with pytest.raises(TaskConflictError):
        pull(other, "acme/clash")
    assert len(other.tasks()) == 1


def test_damaged_data_is_refused(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(1)], Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path, repo="acme/damage"))
    repo = hub.repo("acme/damage")
    data = repo.head.files["alpaca/train-00000-of-00001.parquet"]
    repo.add("oops", {**repo.head.files, "tasks/train-00000-of-00001.parquet": data})
    with pytest.raises(ReleaseError, match="not the file that was published"):
        pull(other, "acme/damage")
    assert not other.tasks()
    with pytest.raises(ReleaseError, match="no dataset"):
        pull(other, "acme/nowhere")


ROWS: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": "Add the numbers.", "input": "1 2", "output": "3"},
        {"instruction": "Say hello.", "input": "", "output": "Hello."},
    ],
    "prompt": [
        {"prompt": "Add the numbers.\n1 2\n", "completion": " 3"},
        {"prompt": "Say hello.", "completion": " "},
    ],
    "chat": [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Say hello."},
                {"role": "assistant", "content": "Hello."},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "Say hello."},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "Again."},
                {"role": "assistant", "content": "Hello."},
            ]
        },
    ],
}


@pytest.mark.parametrize(
    ("kind", "tasks", "skipped"),
    [
        ("alpaca", [("Add the numbers.", Instance("1 2", "3")), ("Say hello.", Instance("", "Hello."))], 0),
        ("prompt", [("Add the numbers.\n1 2", Instance("", "3"))], 1),
        ("chat", [("Be brief.\n\nSay hello.", Instance("", "Hello."))], 1),
    ],
)
@pytest.mark.parametrize("status", [Status.CANDIDATE, Status.SEED])
def test_datasets_of_others_come_in(
    kind: str, tasks: list[tuple[str, Instance]], skipped: int, status: Status, hub: Hub, pool: TaskPool
) -> None:
    name = f"acme/{kind}-{status.value}"
    HfApi().create_repo(name, repo_type="dataset")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[kind]).encode()
    hub.repo(name).add("data", {"train.jsonl": File(lines, False)})
    result = pull(pool, name, status=status)
    assert (result.version, result.added, result.skipped) == (None, len(tasks), skipped)
    found = pool.tasks()
    assert sorted((task.instruction, task.instances[0]) for task in found) == sorted(tasks)
    assert {task.status for task in found} == {status}
    again = pull(pool, name, status=status)
    assert (again.added, again.unchanged) == (0, len(tasks))


def test_a_dataset_without_tasks_is_refused(hub: Hub, pool: TaskPool) -> None:
    HfApi().create_repo("acme/images", repo_type="dataset")
    hub.repo("acme/images").add("data", {"train.jsonl": File(b'{"pixels": [1, 2]}\n', False)})
    with pytest.raises(ReleaseError, match="no rows that are tasks"):
        pull(pool, "acme/images")


def test_rows_of_conversations() -> None:
    prompt = [{"role": "user", "content": "Say hello."}]
    completion = [{"role": "assistant", "content": "Hello."}]
    task = task_from_row({"prompt": prompt, "completion": completion}, "x")
    assert task is not None and task.instances == (Instance("", "Hello."),)
    assert task.id == task_from_row({"messages": [*prompt, *completion]}, "x").id  # type: ignore[union-attr]
    parts = [{"role": "user", "content": [{"type": "image"}]}, *completion]
    assert task_from_row({"messages": parts}, "x") is None
    assert questions({"question": "What?", "other": 1}) == ["What?"]
    assert questions({"instruction": "Add.", "input": "1 2", "output": "3"}) == ["Add.", "Add.\n\n1 2"]
