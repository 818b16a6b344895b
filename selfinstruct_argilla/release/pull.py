"""Tasks from a repository on the Hub: a release of ours with all it knows, or any instruction dataset.

A release brings its tasks as they were published, with their splits and its manifest, so that the pool can publish the
next version of it. Another dataset brings candidates (or seeds), which people have yet to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ReleaseError, TaskConflictError, UsageError
from ..pool.pool import PULLED, TaskPool
from ..recipe import BUNDLED_RUBRICS, bundled_recipes
from ..tasks import Instance, Origin, Provenance, Status, Task
from .build import Manifest, Progress, data_file, is_manifest, read_manifest, sha256
from .foreign import id_prefix, read_rows, task_from_row

_RECIPE = "self_instruct"  # the bundled recipe of a project whose dataset says nothing of a method


@dataclass(frozen=True)
class Found:
    """A dataset on the Hub at one commit; `manifest` where it is to be read as a release of ours, `config` where one
    was named (`ORG/NAME:CONFIG`)."""

    repo: str
    config: str | None
    commit: str
    manifest: Manifest | None

    @property
    def source(self) -> str:
        return f"{self.repo}:{self.config}" if self.config else self.repo


@dataclass(frozen=True)
class PullResult:
    """What came in. `version` is None for a dataset that is not a release of ours; `skipped` rows are not one question
    with its answer."""

    repo: str
    version: str | None
    added: int
    unchanged: int
    skipped: int


def look(repo: str, *, revision: str | None = None, progress: Progress | None = None) -> Found:
    """What the dataset `ORG/NAME[:CONFIG]` is, at a tag, branch or commit (by default the head of main).

    Raises ReleaseError where it cannot be found.
    """
    from . import hub

    if progress:
        progress(f"Looking at {repo}", None)
    name, _, config = repo.partition(":")
    commit, has_manifest = hub.find(name, revision)
    manifest = None
    if has_manifest and not config:
        text = hub.download(name, "manifest.json", commit).read_bytes()
        manifest = read_manifest(text, name) if is_manifest(text) else None
    return Found(name, config or None, commit, manifest)


def pull(pool: TaskPool, found: Found, *, status: Status | None = None, progress: Progress | None = None) -> PullResult:
    """Takes in what `look` found.

    `status` is what tasks of a foreign dataset become, candidates (as without it) or seeds; those of a release are
    accepted, or seeds, as they were. Raises ReleaseError, and TaskConflictError where the pool has one of the ids with
    other content.
    """
    tell = progress or (lambda message, fraction: None)
    if found.manifest is None:
        tell("Loading the dataset", None)
        return _pull_rows(pool, found, status or Status.CANDIDATE)
    if status is not None:
        raise UsageError(
            f"{found.repo} holds a release, whose tasks come in as they were published, not as {status.value}",
            hint=f"Leave --as out, or take in the rows of one config: --repo {found.repo}:alpaca",
        )
    manifest = found.manifest
    tell(f"Loading {manifest['version']}", None)
    pulled = [_task(row) for path in _data(found.repo, found.commit, manifest) for row in _rows(path)]
    fresh = _fresh(pool, pulled)
    with pool.write() as writer:
        writer.add(fresh, kind=PULLED)
    splits = manifest["retired"] | {id: entry["split"] for id, entry in manifest["tasks"].items()}
    pool.releases.begin(found.repo, manifest, splits=splits)
    pool.releases.finish(found.repo, manifest["version"], commit=found.commit)
    return PullResult(found.repo, manifest["version"], len(fresh), len(pulled) - len(fresh), 0)


def recipe_values(found: Found) -> tuple[str, dict[str, Any]]:
    """The bundled recipe that a project which goes on from a dataset starts from, and what it has other values for:
    all that the release says of how it was made, judged and published."""
    name = re.sub(r"^[^A-Za-z0-9]+", "", found.repo.rpartition("/")[2]) or "pulled"
    if found.manifest is None:
        return _RECIPE, {"name": name, "pool": f"sqlite:///{name}.db"}
    manifest = found.manifest
    metadata, made, review = manifest["metadata"], manifest["recipe"], manifest["review"]
    name, language = metadata["name"], metadata["language"]
    names = (f"{made['method']}_{language.split('-')[0]}", made["method"], _RECIPE)
    values: dict[str, Any] = {
        "name": name,
        "language": language,
        "pool": f"sqlite:///{name}.db",
        "bootstrap": {"novelty": {"threshold": made["novelty_threshold"]}},
        "review": {"min_submitted": review["min_submitted"]},
        "release": {
            "repo": found.repo,
            "include": {"seeds": made["seeds"]},
            "splits": made["splits"],
            # what people answered elsewhere is not in this pool
            "formats": [config for config in (*manifest["configs"], *metadata["exports"]) if config != "responses"],
            **({"license": metadata["license"]} if metadata["license"] else {}),
            **({"holdout": made["holdout"]} if made["holdout"] else {}),
        },
    }
    recipe = next(name for name in names if name in bundled_recipes())
    if recipe.startswith(made["method"]):
        values["bootstrap"]["demonstrations"] = made["demonstrations"]
    if review["rubric"] in BUNDLED_RUBRICS:
        values["review"]["rubric"] = review["rubric"]
    if review["resolution"] != "adjudicated":  # who settles conflicts is not published
        values["review"]["resolution"] = review["resolution"]
    if made["seeds"]:
        values["seeds"] = []  # they come with the release
    return recipe, values


def _pull_rows(pool: TaskPool, found: Found, status: Status) -> PullResult:
    """A dataset of others, as tasks with ids of their own."""
    rows = list(read_rows(found.source, revision=found.commit))
    tasks = {task.id: task for row in rows if (task := task_from_row(row, id_prefix(found.source))) is not None}
    if not tasks:
        raise ReleaseError(
            f"{found.source} has no rows that are tasks",
            hint="Known columns: instruction/input/output, prompt/completion, messages.",
        )
    result = pool.import_tasks(tasks.values(), status)
    return PullResult(found.source, None, result.added, result.unchanged, len(rows) - len(tasks))


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
