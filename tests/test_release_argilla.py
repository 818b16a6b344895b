"""The review dataset of a published repository opens again in Argilla, with the unmodified SDK."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from hub_server import Hub
from release_help import all_rows, make_task
from review_people import YES, Workspace, candidates

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import Project, open_project
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.review.export import settings_files
from selfinstruct_argilla.review.records import field_settings, question_settings
from selfinstruct_argilla.review.rubric import Rubric, load_rubric
from selfinstruct_argilla.tasks import Status

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # the SDK's own


@pytest.fixture
def rg() -> Any:
    import argilla  # late: its import warns, and a warning while tests are collected is an error

    return argilla


@pytest.fixture
def client(rg: Any, argilla_server: Any) -> Iterator[Any]:
    client = rg.Argilla(api_url=argilla_server.api_url, api_key=argilla_server.api_key)
    yield client
    client.http_client.close()
    rg.Argilla._default_client = None  # the SDK makes the newest one everybody's


def project(folder: Path, repo: str, *overrides: str) -> Project:
    found = open_project(
        "quickstart", overrides=[f"pool=sqlite:///{folder}/pool.db", f"release={{repo: {repo}}}", *overrides]
    )
    found.pool.import_tasks([make_task(n) for n in range(12)], Status.ACCEPTED)
    return found


def test_from_hub_opens_the_review_dataset(hub: Hub, rg: Any, client: Any, tmp_path: Path) -> None:
    with project(tmp_path, "acme/review", "review.min_submitted=2", "review.rubric=paper") as mine:
        assert mine.publish().published
        tasks = mine.pool.tasks()
        assert not mine.publish().published
        rubric = load_rubric("paper")
    name = f"again-{uuid.uuid4().hex[:8]}"
    card = hub.repo("acme/review").head.files["README.md"].content.decode()
    assert 'argilla.Dataset.from_hub("acme/review", settings="auto", subset="alpaca"' in card
    train = {id for id, e in json.loads(hub.repo("acme/review").head.files["manifest.json"].content)["tasks"].items()
             if e["split"] == "train"}  # fmt: skip
    opened = rg.Dataset.from_hub(
        "acme/review", name=name, workspace="argilla", client=client, settings="auto", subset="alpaca", split="train",
        revision="v1.0.0",
    )  # fmt: skip
    assert isinstance(opened, rg.Dataset)
    found = client.datasets(name=name, workspace="argilla")
    assert found is not None
    assert [field.name for field in found.settings.fields] == [field["name"] for field in field_settings("en")]
    questions = {question.name: question for question in found.settings.questions}
    for wanted in question_settings(rubric, "en"):
        question = questions.pop(wanted["name"])
        assert (question.title, question.required) == (wanted["title"], wanted["required"])
    assert not questions
    assert found.settings.guidelines == load_rubric("paper").guidelines["en"]  # type: ignore[index]
    assert found.settings.distribution.min_submitted == 2
    records = [(r.fields["instruction"], r.fields["input"] or "", r.fields["output"]) for r in found.records]
    assert sorted(records) == sorted(
        (task.instruction, task.instances[0].input, task.instances[0].output) for task in tasks if task.id in train
    )


EVERY_TYPE = {
    "questions": [
        {"name": "good", "type": "label", "title": "Good?", "labels": {"yes": "Yes", "no": "No"}, "description": "D"},
        {"name": "flaws", "type": "multi_label", "title": "Flaws", "labels": {"a": "A", "b": "B"}, "required": False},
        {"name": "score", "type": "rating", "title": "Score", "values": [1, 2, 3], "required": False},
        {"name": "order", "type": "ranking", "title": "Order", "labels": {"a": "A", "b": "B"}, "required": False},
        {
            "name": "mark", "type": "span", "title": "Mark", "labels": {"x": "X"}, "field": "output", "required": False,
        },
        {"name": "note", "type": "text", "title": "Note", "required": False},
    ],
    "accept": {"good": {"is": ["yes"]}},
    "guidelines": "Be kind.",
}  # fmt: skip


def test_every_type_of_question_survives(rg: Any, client: Any, tmp_path: Path) -> None:
    rubric = Rubric.model_validate(EVERY_TYPE)
    name = f"types-{uuid.uuid4().hex[:8]}"
    for path, text in settings_files(rubric, name=name, language="zh", min_submitted=1).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    opened = rg.Dataset.from_disk(str(tmp_path), workspace="argilla", client=client)
    kinds = {question.name: question.type for question in opened.settings.questions}
    assert kinds == {
        "good": "label_selection", "flaws": "multi_label_selection", "score": "rating", "order": "ranking",
        "mark": "span", "note": "text",
    }  # fmt: skip
    assert opened.name == name
    assert [field.title for field in opened.settings.fields][:2] == ["指令", "输入"]


def test_another_rubric_is_a_change(tmp_path: Path) -> None:
    with project(tmp_path, "unused") as mine:
        assert mine.publish(to=tmp_path / "out").version == "v1.0.0"
    settings = json.loads((tmp_path / "out" / ".argilla" / "settings.json").read_text(encoding="utf-8"))
    assert [question["name"] for question in settings["questions"]][:3] == [
        "instruction_valid", "input_appropriate", "output_correct",
    ]  # fmt: skip
    with project(tmp_path, "unused", "review.rubric=quick") as mine:
        assert mine.publish(to=tmp_path / "out").version == "v1.0.1"
        (tmp_path / "out" / ".argilla" / "settings.json").unlink()
        assert mine.publish(to=tmp_path / "out").version == "v1.0.1", "what is missing is restored"
    settings = json.loads((tmp_path / "out" / ".argilla" / "settings.json").read_text(encoding="utf-8"))
    assert settings["questions"][0]["name"] == "verdict"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert {".argilla/settings.json", ".argilla/dataset.json"} <= manifest["files"].keys()


def test_answers_leave_under_pseudonyms_and_only_if_asked(argilla_server: Any, tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        workspace = Workspace(argilla_server.api_url, argilla_server.api_key, pool)
        workspace.rules["min_submitted"] = 2
        workspace.add(candidates(3, instances=2))
        workspace.push()
        ann, bob = workspace.person("ann"), workspace.person("bob")
        for external_id, record in sorted(workspace.records().items()):
            bad = external_id in ("generated_00000000:0", "generated_00000002:0", "generated_00000002:1")
            answers = {**YES, "output_correct": "no"} if bad else YES
            ann.submit(str(record["id"]), {**answers, "comment": f"I, {ann.username}, say so."})
            bob.submit(str(record["id"]), answers)
        workspace.sync()
        names = [ann.username, bob.username, ann.id, bob.id]
        workspace.close()

        def release(name: str, formats: str) -> Path:
            recipe = Recipe.load("quickstart", [f"release={{formats: {formats}, figures: false}}"])
            Project(recipe, pool).publish(to=tmp_path / name)
            return tmp_path / name

        plain = release("plain", "[tasks, alpaca]")
        assert not (plain / "responses").exists()
        out = release("out", "[tasks, alpaca, responses, openai]")
        rows = all_rows(load_dataset(str(out), "responses", cache_dir=str(tmp_path / "cache")))
        salt = pool.pseudonym(ann.id)
        assert not Project(Recipe.load("quickstart", ["release={formats: [tasks, alpaca, responses, openai]}"]),
                           pool).publish(to=out).published  # fmt: skip
    # generated_00000000:0 was rejected, so its second instance is number 0 of what is published; task 2 is not
    places = {(row["task_id"], row["instance"]) for row in rows}
    assert places == {("generated_00000000", 0), ("generated_00000001", 0), ("generated_00000001", 1)}
    assert len(rows) == 6
    people = {row["annotator"] for row in rows}
    assert len(people) == 2 and salt in people
    assert {row["answers"] for row in rows} == {json.dumps(YES, sort_keys=True)}
    published = [path.read_bytes() for folder in (plain, out) for path in folder.rglob("*") if path.is_file()]
    published += [json.dumps(rows).encode()]  # parquet is compressed
    assert not [name for name in names for content in published if name.encode() in content]
    with TaskPool.open(f"sqlite:///{tmp_path}/other.db") as other:
        assert other.pseudonym(ann.id) != salt, "another pool has another salt"
