"""The review dataset in Argilla: found, or made in steps that a killed push can go on with, and kept up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ReviewRefusedError
from ..pool.pool import TaskPool
from ..pool.reviews import ReviewDataset
from ..recipe import Review
from .records import field_settings, metadata_settings, question_settings
from .rubric import Rubric, in_language

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient

_OWNER = "selfinstruct_pool"  # a key of the dataset's own metadata in Argilla: the id of the pool that it belongs to


def find_dataset(client: ArgillaClient, pool: TaskPool, review: Review, name: str) -> dict[str, Any] | None:
    """The pool's review dataset as Argilla describes it, also where it was renamed there; None where it is missing.

    Raises ReviewRefusedError where the name is taken by a dataset of another pool, or of nobody we know.
    """
    workspace_id = client.workspace_id(review.argilla.workspace)
    for known in reversed(pool.reviews.datasets()):
        if known.name == name and known.workspace == review.argilla.workspace:
            found = client.dataset(known.id)
            if found is not None:
                return found
    found = client.dataset_named(name, workspace_id)
    if found is None:
        return None
    owner = (found.get("metadata") or {}).get(_OWNER)
    if owner != pool.id:
        whose = "belongs to another task pool" if owner else "was not made by this program"
        raise ReviewRefusedError(
            f"the Argilla dataset {name!r} in workspace {review.argilla.workspace!r} {whose}",
            hint="Name a new one: review.argilla.dataset in the recipe, or --set review.argilla.dataset=NAME.",
        )
    return found


def open_dataset(
    client: ArgillaClient, pool: TaskPool, review: Review, *, name: str, rubric: Rubric, language: str
) -> ReviewDataset:
    """The review dataset, ready for records: made where it is missing, else brought in step with the recipe.

    Titles, label texts, guidelines and `min_submitted` follow the recipe. Raises ReviewRefusedError where the rubric
    has other questions or answers than the dataset: Argilla cannot change those.
    """
    found = find_dataset(client, pool, review, name)
    if found is None:
        found = client.send(
            "POST",
            "datasets",
            {
                "name": name,
                "workspace_id": client.workspace_id(review.argilla.workspace),
                "guidelines": in_language(rubric.guidelines, language),
                "allow_extra_metadata": False,
                "distribution": {"strategy": "overlap", "min_submitted": review.min_submitted},
                "metadata": {_OWNER: pool.id},
            },
        )
    dataset_id = str(found["id"])
    if found["status"] == "draft":
        _finish_draft(client, dataset_id, rubric, language)
    known = next((dataset for dataset in pool.reviews.datasets() if dataset.id == dataset_id), None)
    if known is not None:
        check_structure(known, rubric)
    same = known is not None and known.rubric_version == rubric.version
    _follow_recipe(client, found, review, rubric, language, same=same)
    dataset = ReviewDataset(
        id=dataset_id,
        name=name,
        workspace=review.argilla.workspace,
        api_url=client.api_url,
        url=f"{client.api_url}/dataset/{dataset_id}/annotation-mode",
        rubric=rubric.model_dump(mode="json", by_alias=True),
        rubric_version=rubric.version,
        structure=rubric.structure,
    )
    with pool.write() as writer:
        pool.reviews.save_dataset(writer.connection, dataset)
    return dataset


def check_structure(dataset: ReviewDataset, rubric: Rubric) -> None:
    """Raises ReviewRefusedError where the rubric has other questions or answers than the dataset was made with."""
    if dataset.structure != rubric.structure:
        raise ReviewRefusedError(
            f"the rubric has other questions or answers than the Argilla dataset {dataset.name!r}, and Argilla cannot "
            "change those",
            hint="Name a new dataset for what comes next (review.argilla.dataset), or take the rubric back.",
        )


def _finish_draft(client: ArgillaClient, dataset_id: str, rubric: Rubric, language: str) -> None:
    """What a new dataset lacks; a push that was killed here left some of it behind, perhaps of another rubric."""
    questions = question_settings(rubric, language)
    for question in client.questions(dataset_id):
        if _shape(question) not in map(_shape, questions):
            client.send("DELETE", f"questions/{question['id']}")
    _add_missing(client, dataset_id, "fields", field_settings(language))
    _add_missing(client, dataset_id, "questions", questions)
    complete_metadata(client, dataset_id)
    client.send("PUT", f"datasets/{dataset_id}/publish")


def complete_metadata(client: ArgillaClient, dataset_id: str) -> None:
    """Metadata properties that somebody has deleted: without them Argilla refuses every record with such metadata."""
    _add_missing(client, dataset_id, "metadata-properties", metadata_settings())


def _add_missing(client: ArgillaClient, dataset_id: str, kind: str, wanted: list[dict[str, Any]]) -> None:
    listing = "me/datasets" if kind == "metadata-properties" else "datasets"
    there = {item["name"] for item in client.get(f"{listing}/{dataset_id}/{kind}")["items"]}
    for settings in wanted:
        if settings["name"] not in there:
            client.send("POST", f"datasets/{dataset_id}/{kind}", settings)


def _follow_recipe(
    client: ArgillaClient, found: dict[str, Any], review: Review, rubric: Rubric, language: str, *, same: bool
) -> None:
    """Changes of the recipe that Argilla can take over. `same`: the rubric's wording is the one already there."""
    dataset_id = str(found["id"])
    distribution = {"strategy": "overlap", "min_submitted": review.min_submitted}
    changes: dict[str, Any] = {}
    if found.get("distribution") != distribution:
        changes["distribution"] = distribution
    if not same and found.get("guidelines") != in_language(rubric.guidelines, language):
        changes["guidelines"] = in_language(rubric.guidelines, language)
    if changes:
        client.send("PATCH", f"datasets/{dataset_id}", changes)
    complete_metadata(client, dataset_id)
    if same:
        return
    wanted = {settings["name"]: settings for settings in question_settings(rubric, language)}
    for question in client.questions(dataset_id):
        settings = wanted.get(question["name"])
        if settings is None:
            continue
        changes = {key: settings.get(key) for key in ("title", "description") if question.get(key) != settings.get(key)}
        texts = settings["settings"].get("options")
        if texts and "text" in texts[0] and _texts(question["settings"]["options"]) != _texts(texts):
            changes["settings"] = {"type": settings["settings"]["type"], "options": texts}
        if changes:
            client.send("PATCH", f"questions/{question['id']}", changes)


def _shape(question: dict[str, Any]) -> list[Any]:
    """What of a question Argilla cannot change."""
    settings = question["settings"]
    values = [option["value"] for option in settings.get("options") or ()]
    return [question["name"], question["required"], settings["type"], values, settings.get("field")]


def _texts(options: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(option["value"], option["text"]) for option in options]
