"""Publishing: what the pool has accepted becomes a release at a target, a folder or a repository on the Hub.

The target says what it holds, the pool says what it should hold, and the difference is a new version; without a
difference nothing happens. The pool notes a release before the target changes and again after it: a run that was cut
off in between is finished by the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ReleaseError
from ..pool.pool import TaskPool
from ..recipe import Recipe
from ..tasks import Status
from .build import Manifest, Plan, Progress, Source, build_release, files_below, plan_release
from .card import check_license
from .folder import FolderTarget
from .foreign import questions, read_rows
from .formats import Responses
from .holdout import contaminated
from .secrets import Finding, find_secrets
from .splits import Withheld
from .target import Target

_SHOWN = 10  # rows that a refusal names


@dataclass(frozen=True)
class PublishResult:
    """What a publish did, or with `dry_run` would do. `published` is False where there was nothing to do, and for a
    dry run; `version` is then the version that the target holds, or would hold. Ids are sorted."""

    version: str
    target: str
    tasks: int
    instances: int
    published: bool
    commit: str | None
    added: tuple[str, ...]
    edited: tuple[str, ...]
    withdrawn: tuple[str, ...]
    withheld: tuple[Withheld, ...]


def publish(
    pool: TaskPool,
    recipe: Recipe,
    *,
    to: Path | None = None,
    repo: str | None = None,
    version: str | None = None,
    dry_run: bool = False,
    allow: Sequence[str] = (),
    quality: Mapping[str, Any] | None = None,
    review_files: Mapping[str, str] | None = None,
    responses: Responses | None = None,
    progress: Progress | None = None,
) -> PublishResult:
    """Publishes to the folder `to`, else to `repo`, else to the recipe's `release.repo`.

    `version` is the version to give (the next by what changed), `allow` the ids of rows that the scan for secrets may
    let pass, `quality` what the card says of the judgements (`Quality.to_json`: no names), `review_files` the settings
    of the review, texts by path, `responses` what annotators answered, under pseudonyms. Raises ReleaseError.
    """
    tell = progress or (lambda message, fraction: None)
    check_license(recipe.release.license)
    target = _target(recipe, to, repo)
    tell(f"Looking at {target.name}", None)
    held = target.look()
    known = pool.releases.known(target.name)
    previous = held.manifest
    if previous is not None and pool.releases.manifest(target.name, previous["version"]) != previous:
        raise ReleaseError(
            f"{target.name} holds {previous['version']}, which this pool knows nothing of",
            hint="Publish from the pool that made it, take it in first (sia pull RECIPE --repo ORG/NAME), or name "
            "another target.",
        )
    mended = None if dry_run else target.mend(held)
    settled = held.whole and not held.spent
    if previous is not None and settled and not dry_run:
        begun = known[previous["version"]]
        if begun.state == "building":  # a run was cut off before it could note that it was done
            pool.releases.finish(target.name, begun.version, commit=mended or held.commit)
    published = [release.version for release in known.values() if release.state == "published"]
    if previous is None and published:
        previous = pool.releases.manifest(target.name, published[-1])  # somebody emptied the target
    used = {*published, *held.versions, *(entry["version"] for entry in (previous["history"] if previous else ()))}
    tell("Comparing tasks", None)
    source = read_source(pool, recipe, quality, review_files, responses)
    plan = plan_release(
        source,
        recipe,
        previous=previous,
        used=used,
        version=version,
        repo=None if isinstance(target, FolderTarget) else target.name,
        renamed=held.spent,
        withheld=_near_holdout(source, recipe),
    )
    if not plan.changes and settled:
        return _result(plan, target, published=mended is not None, commit=mended or held.commit)
    known_texts = _check_rows(plan, previous, allow)
    if dry_run:
        return _result(plan, target, published=False)
    with target.building() as folder:
        written = held.manifest["card"] if held.manifest else None
        release = build_release(plan, folder, readme=held.readme, written=written, progress=progress)
        _check_files(release.folder, {*known_texts, *_texts("README.md", held.readme)}, allow)
        splits = {task_id: entry["split"] for task_id, entry in release.manifest["tasks"].items()}
        pool.releases.begin(target.name, release.manifest, splits=splits)
        tell(f"Publishing {plan.version}", None)
        commit = target.put(release, held.manifest)
        pool.releases.finish(target.name, plan.version, commit=commit)
    return _result(plan, target, published=True, commit=commit)


def read_source(
    pool: TaskPool,
    recipe: Recipe,
    quality: Mapping[str, Any] | None = None,
    review_files: Mapping[str, str] | None = None,
    responses: Responses | None = None,
) -> Source:
    """What the pool offers: accepted tasks, seeds where the recipe includes them, and how people judged."""
    revision = pool.revision
    seeds = (Status.SEED,) if recipe.release.include.seeds else ()
    judged = pool.tasks(status=(Status.ACCEPTED, Status.REJECTED, Status.CONFLICT))
    reviewed = [task.status for task in judged if any(instance.verdict for instance in task.instances)]
    return Source(
        pool_id=pool.id,
        revision=revision,
        tasks=[task for task in judged if task.status is Status.ACCEPTED] + (pool.tasks(status=seeds) if seeds else []),
        edited=pool.originals().keys(),
        splits=pool.releases.splits(),
        review={
            "rubric": recipe.review.rubric,
            "min_submitted": recipe.review.min_submitted,
            "resolution": recipe.review.resolution,
            **{status.value: reviewed.count(status) for status in (Status.ACCEPTED, Status.REJECTED, Status.CONFLICT)},
            "quality": quality,
        },
        review_files=review_files or {},
        responses=responses or {},
    )


def _near_holdout(source: Source, recipe: Recipe) -> list[Withheld]:
    if not recipe.release.holdout:
        return []
    holdout = {}
    for name in recipe.release.holdout:
        path = recipe.path(name)
        rows = read_rows(str(path) if path.exists() else name)
        holdout[name] = [text for row in rows for text in questions(row)]
    return contaminated(source.tasks, holdout, recipe.bootstrap.novelty.tokens)


def _check_rows(plan: Plan, previous: Manifest | None, allow: Sequence[str]) -> set[str]:
    """Refuses rows with secrets, but for those allowed and those that the previous release has already; returns the
    texts that are let pass."""
    before, now = previous["tasks"] if previous else {}, plan.manifest["tasks"]
    found = [finding for row in plan.rows for finding in find_secrets(row["id"], row)]
    _refuse([f for f in found if f.place not in allow and before.get(f.place) != now[f.place]])
    return {finding.text for finding in found}


def _check_files(folder: Path, known: set[str], allow: Sequence[str]) -> None:
    """Refuses text files with secrets other than the `known` ones."""
    for name in files_below(folder):
        if not name.endswith((".parquet", ".png")) and name not in allow:
            found = find_secrets(name, (folder / name).read_text(encoding="utf-8"))
            _refuse([finding for finding in found if finding.text not in known])


def _texts(place: str, text: str | None) -> set[str]:
    return {finding.text for finding in find_secrets(place, text)}


def _refuse(found: Sequence[Finding]) -> None:
    if not found:
        return
    places = {finding.place: finding.kind for finding in reversed(found)}
    names = sorted(places)
    shown = ", ".join(f"{name} ({places[name]})" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    raise ReleaseError(
        f"{len(names)} of the rows and files to be published hold what must not leave: {shown}{more}",
        hint=f"Correct them, or let each pass that may be public: --allow {names[0]}",
    )


def _target(recipe: Recipe, to: Path | None, repo: str | None) -> Target:
    if to is not None:
        return FolderTarget(to)
    repo = repo or recipe.release.repo
    if repo is not None:
        from .hub import HubTarget

        return HubTarget(repo, private=recipe.release.private)
    raise ReleaseError(
        "the recipe names no place to publish to",
        hint=f"sia publish {recipe.source} --to DIR, or --repo ORG/NAME, or set release.repo in the recipe.",
    )


def _result(plan: Plan, target: Target, *, published: bool, commit: str | None = None) -> PublishResult:
    return PublishResult(
        version=plan.version,
        target=target.name,
        tasks=len(plan.rows),
        instances=sum(len(row["instances"]) for row in plan.rows),
        published=published,
        commit=commit,
        added=plan.changes.added,
        edited=plan.changes.edited,
        withdrawn=plan.changes.withdrawn,
        withheld=tuple(plan.withheld),
    )
