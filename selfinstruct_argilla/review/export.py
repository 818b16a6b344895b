"""What a release may tell of a review: its settings, and what people answered, under pseudonyms.

The settings are files where `rg.Dataset.from_hub` looks for them:

    rg.Dataset.from_hub("ORG/NAME", settings="auto", subset="alpaca", workspace="argilla")

makes the same review again in any Argilla, with what was published as its records.
"""

from __future__ import annotations

import json
from typing import Any

from ..pool.pool import TaskPool
from .records import field_settings, metadata_settings, question_settings
from .rubric import Rubric, in_language


def settings_files(rubric: Rubric, *, name: str, language: str, min_submitted: int) -> dict[str, str]:
    """The files' texts by their paths in the repository."""
    shared: dict[str, Any] = {
        "guidelines": in_language(rubric.guidelines, language),
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": min_submitted},
    }
    settings = {
        **shared,
        "fields": field_settings(language),
        "questions": question_settings(rubric, language),
        "metadata": metadata_settings(),
        "vectors": [],
    }
    files = {".argilla/dataset.json": {"name": name, **shared}, ".argilla/settings.json": settings}
    return {path: json.dumps(value, ensure_ascii=False, indent=1) + "\n" for path, value in files.items()}


def public_responses(pool: TaskPool) -> dict[tuple[str, int], list[dict[str, str]]]:
    """What each annotator submitted, by task and instance, as {annotator, answers (JSON)}, sorted by annotator.

    Only what was chosen (labels, ratings, ranks, spans): what people wrote may say who they are.
    """
    chosen = {
        question["name"]
        for dataset in pool.reviews.datasets()
        for question in dataset.rubric["questions"]
        if question["type"] != "text"
    }
    found: dict[tuple[str, int], list[dict[str, str]]] = {}
    for response in pool.reviews.responses():
        if response.status == "submitted":
            answers = {name: value for name, value in sorted(response.values.items()) if name in chosen}
            row = {
                "annotator": pool.pseudonym(response.user_id),
                "answers": json.dumps(answers, ensure_ascii=False, sort_keys=True),
            }
            found.setdefault((response.task_id, response.instance), []).append(row)
    return {place: sorted(rows, key=lambda row: row["annotator"]) for place, rows in found.items()}
