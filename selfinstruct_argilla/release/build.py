"""From tasks to the files of a release: what changed, what stays out, and every byte that is published.

`plan_release` decides (pure), `build_release` writes. The same plan gives the same bytes: no time, no random part, no
name of this machine is written, rows are sorted and schemas are fixed.

The manifest, `manifest.json`, holds everything that the card and the change log say:
    version, previous, repo            this version, the one before it, and where it is on the Hub (null: in a folder)
    tasks {id: {hash, split}}          sha256 of the row that the config `tasks` has of it
    retired {id: split}                tasks that earlier versions had: should one come back, it keeps its split
    withheld {id: {reason, near}}      tasks that were kept out of this version
    changes, history                   ids added, edited, withdrawn in this version; their counts in every version
    configs {name: {columns, splits}}  Arrow types of the columns; rows of each split
    metadata                           name, language, license, exports, digest of the review's settings
    recipe, review, statistics         how it was made, how people judged (in `earlier`: those of the pool before that
                                       it was pulled from), the paper's Table 1
    figures                            paths of the card's figures
    pool {id, revision}, tools         where it was built from and with what
    card {heading: sha256}             the sections of the card that we wrote
    files {path: sha256}               every other file
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from .. import __version__
from ..analysis import figures
from ..analysis.lengths import word_counts
from ..errors import ReleaseError
from ..recipe import Recipe
from ..tasks import Task, digest
from . import formats, versions
from .card import changelog, render_card, statistics
from .splits import SPLITS, Withheld, assign
from .versions import Changes

Progress = Callable[[str, float | None], None]
Manifest = dict[str, Any]

FORMAT = 1
_GROUP = 256  # tasks of a row group, on average


@dataclass(frozen=True)
class Source:
    """What a pool offers for release: the tasks that may go out, the ids of those that people edited, the splits that
    earlier releases gave, how people judged, the settings of their review as files (texts by path), their answers."""

    pool_id: str
    revision: int
    tasks: Sequence[Task]
    edited: Collection[str]
    splits: Mapping[str, str]
    review: Mapping[str, Any]
    review_files: Mapping[str, str] = field(default_factory=dict)
    responses: formats.Responses = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A release before it is written. `rows` are those of the config `tasks`, sorted by id."""

    manifest: Manifest
    rows: Sequence[formats.Row]
    changes: Changes
    withheld: Sequence[Withheld]
    review_files: Mapping[str, str]

    @property
    def version(self) -> str:
        return str(self.manifest["version"])


@dataclass(frozen=True)
class BuiltRelease:
    """A release as a folder, laid out as it is published."""

    folder: Path
    manifest: Manifest


def plan_release(
    source: Source,
    recipe: Recipe,
    *,
    previous: Manifest | None = None,
    used: Collection[str] = (),
    version: str | None = None,
    repo: str | None = None,
    renamed: bool = False,
    withheld: Sequence[Withheld] = (),
) -> Plan:
    """Decides what a release holds and what it is called.

    `previous` is the manifest of the last release of the target, `used` every version it has seen, `version` the one
    asked for, `repo` the name of the target on the Hub; `withheld` are tasks that something else keeps out. Without
    changes the plan keeps the previous version, so that writing it restores that release to the last byte; unless it
    must be `renamed`. Raises ReleaseError.
    """
    import pyarrow as pa

    out = {entry.task_id: entry for entry in (*_superseded(source.tasks), *withheld)}
    rows = {}
    shown = "responses" in recipe.release.formats
    for task in source.tasks:
        if not task.accepted_instances():
            out.setdefault(task.id, Withheld(task.id, "none of its instances was accepted"))
        elif task.id not in out:
            edited = task.id in source.edited or bool(task.extra.get("edited"))
            rows[task.id] = formats.task_row(task, edited=edited, responses=source.responses if shown else None)
    hashes = {task_id: digest(row) for task_id, row in rows.items()}
    before = previous["tasks"] if previous else {}
    published = {task_id: entry["split"] for task_id, entry in before.items()}
    if previous:
        published |= previous["retired"]
    known = {**source.splits, **published}
    for task in source.tasks:
        if task.distilled_from in known:  # the same question stays in its split, whoever answers it
            known.setdefault(task.id, known[task.distilled_from])
    assignment = assign(
        {task_id: row["instruction"] for task_id, row in rows.items()},
        recipe.release.splits.model_dump(),
        known=known,
        settled=[task_id for task_id in rows if before.get(task_id, {}).get("hash") == hashes[task_id]],
        tokens=recipe.bootstrap.novelty.tokens,
    )
    out |= {entry.task_id: entry for entry in assignment.withheld}
    kept = [rows[task_id] for task_id in sorted(assignment.splits)]
    if not kept:
        _refuse_empty(source, recipe)
    tasks = {row["id"]: {"hash": hashes[row["id"]], "split": assignment.splits[row["id"]]} for row in kept}
    manifest: Manifest = {
        "format": FORMAT,
        "tasks": tasks,
        "configs": _configs(recipe.release.formats, kept, tasks),
        "metadata": {
            "name": recipe.name,
            "language": recipe.language,
            "license": recipe.release.license,
            "exports": ["openai"] if "openai" in recipe.release.formats else [],
            "review_settings": digest(dict(source.review_files)) if source.review_files else None,
        },
    }
    changes = versions.compare(previous, manifest)
    if previous is not None and not changes and not renamed:
        return Plan(previous, kept, changes, tuple(out.values()), source.review_files)
    chosen = versions.choose(changes, used, version)
    counts = {name: len(getattr(changes, name)) for name in ("added", "edited", "withdrawn")}
    history = [{"version": chosen, "tasks": len(tasks), **counts}, *(previous["history"] if previous else [])]
    manifest |= {
        "version": chosen,
        "repo": repo,
        "previous": previous["version"] if previous else None,
        "retired": {task_id: split for task_id, split in published.items() if task_id not in tasks},
        "withheld": {id: {"reason": out[id].reason, "near": list(out[id].near)} for id in sorted(out)},
        "changes": changes.as_json(),
        "history": history,
        "statistics": statistics(kept),
        "recipe": {
            "name": recipe.name,
            "fingerprint": recipe.fingerprint,
            "method": recipe.bootstrap.method,
            "demonstrations": dict(zip(("seed", "generated"), recipe.bootstrap.demonstrations_in_force, strict=True)),
            "novelty_threshold": recipe.bootstrap.novelty.threshold,
            "seeds": recipe.release.include.seeds,
            "splits": recipe.release.splits.model_dump(),
            "holdout": [name for name in recipe.release.holdout if not recipe.path(name).exists()],  # of the Hub
        },
        "review": _review(source, previous),
        "pool": {"id": source.pool_id, "revision": source.revision},
        "figures": _figures(kept) if recipe.release.figures and figures.available() else [],
        "tools": {"selfinstruct-argilla": __version__, "pyarrow": pa.__version__},
    }
    if manifest["figures"]:
        manifest["tools"]["matplotlib"] = version_of("matplotlib")
    return Plan(manifest, kept, changes, tuple(out[id] for id in sorted(out)), source.review_files)


def build_release(
    plan: Plan,
    folder: Path,
    *,
    readme: str | None = None,
    written: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> BuiltRelease:
    """Writes a planned release into an empty folder.

    `readme` is the card that the target has now and `written` its manifest's `card`: what people wrote stays.
    """
    manifest = {name: value for name, value in plan.manifest.items() if name not in ("files", "card")}
    if manifest["figures"] and not figures.available():
        raise ReleaseError(f"{manifest['version']} has figures, which cannot be drawn", hint=figures.MISSING)

    def rows_of(split: str) -> list[formats.Row]:
        return [row for row in plan.rows if manifest["tasks"][row["id"]]["split"] == split]

    for number, config in enumerate(manifest["configs"]):
        if progress:
            progress(f"Writing {config}", number / len(manifest["configs"]))
        for split in manifest["configs"][config]["splits"]:
            path = folder / data_file(config, split)
            path.parent.mkdir(exist_ok=True)
            write_parquet(path, config, rows_of(split))
    if "openai" in manifest["metadata"]["exports"]:
        (folder / "openai").mkdir()
        for split in sorted({entry["split"] for entry in manifest["tasks"].values()}):
            (folder / "openai" / f"{split}.jsonl").write_text(
                "".join(formats.chat_jsonl(rows_of(split))), encoding="utf-8"
            )
    _draw(folder, manifest, plan.rows)
    for name, text in plan.review_files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(changelog(manifest["history"]), encoding="utf-8")
    card, manifest["card"] = render_card(manifest, plan.rows, readme, written)
    (folder / "README.md").write_text(card, encoding="utf-8")
    manifest["files"] = {name: sha256(folder / name) for name in sorted(files_below(folder))}
    (folder / "manifest.json").write_text(show_manifest(manifest), encoding="utf-8")
    return BuiltRelease(folder, manifest)


def data_file(config: str, split: str) -> str:
    """The place of a split's rows below the release."""
    return f"{config}/{split}-00000-of-00001.parquet"


def write_parquet(path: Path, config: str, tasks: Iterable[formats.Row]) -> None:
    """The rows of a config, laid out so that storage which keeps equal stretches once (Xet) keeps what an added or
    edited task leaves as it was: row groups end after certain tasks, pages where their content says so, and nothing
    (a dictionary, statistics, a page index) sums up rows of more than one group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = formats.schema(config)
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        use_content_defined_chunking=True,
    ) as writer:
        for group in _groups(tasks):
            rows = list(formats.rows(config, group))
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=len(rows))


def _groups(tasks: Iterable[formats.Row]) -> Iterator[list[formats.Row]]:
    """The tasks cut where the hash of an id says so: at the same places in every version."""
    group = []
    for task in tasks:
        group.append(task)
        if int(hashlib.sha256(task["id"].encode()).hexdigest()[-8:], 16) % _GROUP == 0:
            yield group
            group = []
    yield group


def show_manifest(manifest: Manifest) -> str:
    """The text of `manifest.json`; the order of configs and splits is part of it."""
    return json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"


def is_manifest(text: str | bytes) -> bool:
    """Whether the text of a `manifest.json` is that of a release of ours; others use the name too."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and {"format", "tasks", "version", "files", "pool"} <= found.keys()


def read_manifest(text: str | bytes, where: str) -> Manifest:
    """The manifest in the text of a `manifest.json`. Raises ReleaseError."""
    if not is_manifest(text):
        raise ReleaseError(
            f"the manifest.json of {where} is not one of a release", hint="Restore it, or name another target."
        )
    manifest: Manifest = json.loads(text)
    if manifest["format"] != FORMAT:
        raise ReleaseError(
            f"{where} was published by a newer version of selfinstruct-argilla",
            hint="pip install --upgrade selfinstruct-argilla",
        )
    return manifest


def files_below(folder: Path) -> list[str]:
    """Every file below a folder, as a path with slashes."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _superseded(tasks: Iterable[Task]) -> Iterator[Withheld]:
    """Tasks whose outputs were written again: of all accepted versions the newest is published."""
    families: dict[str, list[str]] = {}
    for task in tasks:
        if task.accepted_instances():
            families.setdefault(task.distilled_from or task.id, []).append(task.id)
    for source, members in families.items():
        *older, newest = sorted(members, key=lambda id: (id != source, id))
        for task_id in older:
            yield Withheld(task_id, "its outputs were written again, and accepted", (newest,))


def _configs(
    names: Iterable[str], rows: Sequence[formats.Row], tasks: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Columns and the number of rows of each split that has any, of each config that has any."""
    found = {}
    for name in names:
        counts = dict.fromkeys(SPLITS, 0)
        for row in rows if name != "openai" else ():
            parts = {"tasks": 1, "responses": len(row.get("responses", ()))}
            counts[tasks[row["id"]]["split"]] += parts.get(name, len(row["instances"]))
        if any(counts.values()):
            found[name] = {
                "columns": {column.name: str(column.type) for column in formats.schema(name)},
                "splits": {split: count for split, count in counts.items() if count},
            }
    return found


def _review(source: Source, previous: Manifest | None) -> dict[str, Any]:
    """How people judged, and how those did whose release this pool goes on from."""
    review = dict(source.review)
    if previous is not None:
        ours = previous["pool"]["id"] == source.pool_id
        earlier = previous["review"].get("earlier") if ours else previous["review"]
        review |= {"earlier": earlier} if earlier else {}
    return review


def _figures(rows: Sequence[formats.Row]) -> list[str]:
    """The figures that there is something to show in."""
    scored = any(row["max_rouge_l"] is not None for row in rows)
    return ["figures/lengths.png", *(["figures/novelty.png"] if scored else [])]


def _draw(folder: Path, manifest: Manifest, rows: Sequence[formats.Row]) -> None:
    instances = [instance for row in rows for instance in row["instances"]]
    drawings: dict[str, Callable[[Path], None]] = {
        "figures/lengths.png": lambda path: figures.draw_lengths(
            path,
            {
                "instruction": word_counts(row["instruction"] for row in rows),
                "input": word_counts(instance["input"] for instance in instances if instance["input"]),
                "output": word_counts(instance["output"] for instance in instances),
            },
        ),
        "figures/novelty.png": lambda path: figures.draw_novelty(
            path,
            [row["max_rouge_l"] for row in rows if row["max_rouge_l"] is not None],
            manifest["recipe"]["novelty_threshold"],
        ),
    }
    for name in manifest["figures"]:
        drawings[name](folder / name)


def _refuse_empty(source: Source, recipe: Recipe) -> None:
    if source.tasks:
        raise ReleaseError(
            "there is nothing to publish: every accepted task is withheld",
            hint="sia publish --dry-run says why; another holdout or other tasks would help.",
        )
    raise ReleaseError(
        "there is nothing to publish: the pool has no accepted task",
        hint=f"Judge some tasks in Argilla, then: sia sync {recipe.source}",
    )
