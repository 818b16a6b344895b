"""Tasks from a repository on the Hub: a release of ours with all it knows, or any instruction dataset.

A release brings its tasks as they were published, with their splits and its manifest, so that the pool can publish the
next version of it. Another dataset brings candidates (or seeds), which people have yet to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ReleaseError, TaskConflictError
from ..pool.pool import TaskPool
from ..tasks import Instance, Origin, Provenance, Status, Task
from .build import Manifest, Progress, data_file, read_manifest, sha256
from .foreign import id_prefix, read_rows, task_from_row


@dataclass(frozen=True)
class PullResult:
    """What came in. `version` is None for a dataset that is not a release of ours; `skipped` rows are not one question
    with its answer."""

    repo: str
    version: str | None
    added: int
    unchanged: int
    skipped: int


def pull(
    pool: TaskPool,
    repo: str,
    *,
    revision: str | None = None,
    status: Status = Status.CANDIDATE,
    progress: Progress | None = None,
) -> PullResult:
    """Takes in the dataset `ORG/NAME` at a tag, branch or commit (by default the head of main).

    `status`, candidate or seed, is what tasks of a foreign dataset become; those of a release are accepted (or seeds)
    as they were. Raises ReleaseError, and TaskConflictError where the pool has one of the ids with other content.
    """
    from . import hub

    tell = progress or (lambda message, fraction: None)
    tell(f"Looking at {repo}", None)
    name, _, config = repo.partition(":")
    commit, has_manifest = hub.find(name, revision)
    if not has_manifest or config:
        tell("Loading the dataset", None)
        rows = list(read_rows(repo, revision=revision))
        tasks = {task.id: task for row in rows if (task := task_from_row(row, id_prefix(repo))) is not None}
        if not tasks:
            raise ReleaseError(
                f"{repo} has no rows that are tasks",
                hint="Known columns: instruction/input/output, prompt/completion, messages.",
            )
        result = pool.import_tasks(tasks.values(), status)
        return PullResult(repo, None, result.added, result.unchanged, len(rows) - len(tasks))
    manifest = read_manifest(hub.download(name, "manifest.json", commit).read_bytes(), name)
    tell(f"Loading {manifest['version']}", None)
    pulled = [_task(row) for path in _data(name, commit, manifest) for row in _rows(path)]
    fresh = _fresh(pool, pulled)
    with pool.write() as writer:
        writer.add(fresh, kind="pulled")
    pool.releases.begin(name, manifest, splits={id: entry["split"] for id, entry in manifest["tasks"].items()})
    pool.releases.finish(name, manifest["version"], commit=commit)
    return PullResult(name, manifest["version"], len(fresh), len(pulled) - len(fresh), 0)


def _data(repo: str, commit: str, manifest: Manifest) -> list[Path]:
    """The files of the config `tasks`, checked against the manifest."""
    from . import hub

    if "tasks" not in manifest["configs"]:
        raise ReleaseError(f"{repo} has no config 'tasks', which a pool is made from", hint="Pull it as REPO:CONFIG.")
    paths = []
    for split in manifest["configs"]["tasks"]["splits"]:
        name = data_file("tasks", split)
        path = hub.download(repo, name, commit)
        if sha256(path) != manifest["files"][name]:
            raise ReleaseError(f"{name} of {repo} is not the file that was published", hint="Pull another --revision.")
        paths.append(path)
    return paths


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _task(row: dict[str, Any]) -> Task:
    """The inverse of `formats.task_row`."""
    origin = Origin(row["origin"])
    return Task(
        id=row["id"],
        name=row["name"],
        instruction=row["instruction"],
        instances=tuple(Instance(instance["input"], instance["output"]) for instance in row["instances"]),
        is_classification=row["is_classification"],
        status=Status.SEED if origin is Origin.SEED else Status.ACCEPTED,
        origin=origin,
        round=row["round"],
        provenance=Provenance(row["model"], row["request"], tuple(row["demonstrations"])),
        max_rouge_l=row["max_rouge_l"],
        nearest=row["nearest"],
        extra={"edited": True} if row["edited"] else {},
    )


def _fresh(pool: TaskPool, pulled: list[Task]) -> list[Task]:
    """The tasks that the pool does not have yet; in the order of their ids, as they were made."""
    known = {task.id: task for task in pool.tasks(ids=[task.id for task in pulled])}
    for task in pulled:
        if task.id in known and known[task.id].content_hash != task.content_hash:
            raise TaskConflictError(
                task.id,
                f"the pool has a task {task.id!r} with other content",
                hint="Pull into a new pool: nothing was taken in.",
            )
    return sorted((task for task in pulled if task.id not in known), key=lambda task: task.id)
