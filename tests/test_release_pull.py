"""A pool from what is on the Hub: a release of ours goes on, other datasets become candidates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generating import text_for
from hub_server import File, Hub
from huggingface_hub import HfApi, constants
from release_help import make_recipe, make_task
from typer.testing import CliRunner, Result

from selfinstruct_argilla.cli.app import app
from selfinstruct_argilla.errors import ReleaseError, TaskConflictError, UsageError
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import Project, open_project
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.release.foreign import questions, task_from_row
from selfinstruct_argilla.release.publish import publish
from selfinstruct_argilla.release.pull import PullResult, look, pull
from selfinstruct_argilla.tasks import Instance, Origin, Provenance, Status, Task, Verdict

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, in each upload


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[TaskPool]:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        yield pool


@pytest.fixture
def other(tmp_path: Path) -> Iterator[TaskPool]:
    """Another person's pool, on another machine."""
    with TaskPool.open(f"sqlite:///{tmp_path}/other.db") as pool:
        yield pool


def take(pool: TaskPool, repo: str, *, revision: str | None = None, status: Status | None = None) -> PullResult:
    return pull(pool, look(repo, revision=revision), status=status)


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
        writer.apply_reviews([edited])
    pool.add_seeds([make_task(100)])
    publish(pool, recipe)
    result = take(other, "acme/shared")
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
    other.import_tasks([make_task(60)], Status.ACCEPTED)
    for _ in range(2):  # what was known of the first pool's review stays in the card, once
        card = hub.repo("acme/shared").head.files["README.md"].content.decode()
        judged = card[card.index("## How people judged") : card.index("## Statistics")]
        assert judged.count("imported as accepted") == 1
        assert "1 task judged: 1 accepted" in judged
        publish(other, recipe)
    with pytest.raises(ReleaseError, match="knows nothing of"):
        publish(pool, recipe)
    assert take(pool, "acme/shared").added == 11
    assert not publish(pool, recipe).published


def test_a_fork_keeps_the_splits(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(n) for n in range(40)], Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path, repo="acme/trunk"))
    take(other, "acme/trunk")
    forked = publish(other, make_recipe(tmp_path, repo="anna/fork", splits="{train: 0.1, validation: 0.1, test: 0.8}"))
    assert (forked.version, forked.target) == ("v1.0.0", "anna/fork")
    splits = [
        {id: entry["split"] for id, entry in json.loads(repo.head.files["manifest.json"].content)["tasks"].items()}
        for repo in (hub.repo("acme/trunk"), hub.repo("anna/fork"))
    ]
    assert splits[0] == splits[1]
    assert len(set(splits[0].values())) > 1
    assert list(hub.repo("acme/trunk").tags) == ["v1.0.0"]


def test_an_older_version_can_be_pulled(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, repo="acme/old")
    pool.import_tasks([make_task(1)], Status.ACCEPTED)
    publish(pool, recipe)
    pool.import_tasks([make_task(2)], Status.ACCEPTED)
    publish(pool, recipe)
    assert take(other, "acme/old", revision="v1.0.0").version == "v1.0.0"
    assert [task.id for task in other.tasks()] == [make_task(1).id]
    assert take(other, "acme/old").version == "v1.1.0"
    assert take(other, "acme/old").unchanged == 2
    assert not publish(other, recipe).published
    with pytest.raises(ReleaseError, match="no revision"):
        take(other, "acme/old", revision="v9.9.9")


def test_other_content_under_the_same_id_is_refused(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(1), make_task(2)], Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path, repo="acme/clash"))
    other.import_tasks([replace(make_task(2), instruction="Something else.")], Status.CANDIDATE)
    with pytest.raises(TaskConflictError):
        take(other, "acme/clash")
    assert len(other.tasks()) == 1


def test_damaged_data_is_refused(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(1)], Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path, repo="acme/damage"))
    repo = hub.repo("acme/damage")
    data = repo.head.files["alpaca/train-00000-of-00001.parquet"]
    repo.add("oops", {**repo.head.files, "tasks/train-00000-of-00001.parquet": data})
    with pytest.raises(ReleaseError, match="not the file that was published"):
        take(other, "acme/damage")
    assert not other.tasks()
    with pytest.raises(ReleaseError, match="no dataset"):
        take(other, "acme/nowhere")


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
    result = take(pool, name, status=status)
    assert (result.version, result.added, result.skipped) == (None, len(tasks), skipped)
    found = pool.tasks()
    assert sorted((task.instruction, task.instances[0]) for task in found) == sorted(tasks)
    assert {task.status for task in found} == {status}
    again = take(pool, name, status=status)
    assert (again.added, again.unchanged) == (0, len(tasks))


def test_a_dataset_without_tasks_is_refused(hub: Hub, pool: TaskPool) -> None:
    HfApi().create_repo("acme/images", repo_type="dataset")
    hub.repo("acme/images").add("data", {"train.jsonl": File(b'{"pixels": [1, 2]}\n', False)})
    with pytest.raises(ReleaseError, match="no rows that are tasks"):
        take(pool, "acme/images")


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


def sia(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def publish_elsewhere(folder: Path, repo: str, **release: Any) -> Recipe:
    """A release of 12 generated tasks and a retired one, by somebody with settings of their own."""
    recipe = make_recipe(folder, repo=repo, figures="true", **release)
    with Project(recipe, TaskPool.open(f"sqlite:///{folder}/theirs.db")) as project:
        with project.pool.write() as writer:
            writer.add([replace(generated(n), id=f"generated_{n:08d}") for n in range(13)], kind="generated")
        project.publish()
        with project.pool.write() as writer:
            writer.move("generated_00000012", Status.REJECTED, kind="reviewed")
        assert project.publish().version == "v2.0.0"
    return recipe


def test_sia_pull_makes_a_project_that_goes_on(hub: Hub, tmp_path: Path) -> None:
    theirs = publish_elsewhere(
        tmp_path, "acme/onward", license="mit", splits="{train: 0.5, validation: 0.5, test: 0.0}",
        formats="[tasks, messages, openai]",
    )  # fmt: skip
    folder = tmp_path / "mine"
    found = sia("pull", "--repo", "acme/onward", "--directory", folder)
    assert found.exit_code == 0, found.stderr
    assert "Pulled v2.0.0 of acme/onward: 12 tasks taken in" in found.stdout
    assert f"sia generate {folder}/recipe.yaml" in found.stderr
    assert [path.name for path in folder.rglob("*.yaml")] == ["recipe.yaml"]
    mine = Recipe.load(folder / "recipe.yaml")
    assert mine.release == theirs.release
    assert (mine.name, mine.language, mine.bootstrap.method) == (theirs.name, theirs.language, theirs.bootstrap.method)
    again = json.loads(sia("pull", "--repo", "acme/onward", "--directory", folder, "--json").stdout)
    assert (again["added"], again["unchanged"], again["version"]) == (0, 12, "v2.0.0")
    assert "Nothing new to publish" in sia("publish", folder / "recipe.yaml").stdout

    recipe = folder / "recipe.yaml"
    small = ["bootstrap.target=6", "bootstrap.wave=3"]
    with open_project(recipe, overrides=small, model=ScriptedModel(text_for)) as project:
        result = project.generate()
        assert (result.round, result.generated) == (3, 6), "rounds go on after those of the release"
        fresh = [task for task in project.pool.tasks() if task.round == 3]
        assert min(task.id for task in fresh) == "generated_00000013", "the id of a retired task is not given again"
        assert not project.verify().problems
        project.pool.import_tasks([make_task(n) for n in range(50, 53)], Status.ACCEPTED)
    published = sia("publish", recipe)
    assert "Published v2.1.0 with 15 tasks" in published.stdout, published.stderr
    repo = hub.repo("acme/onward")
    before, after = (json.loads(repo.at(v).files["manifest.json"].content) for v in ("v2.0.0", "v2.1.0"))
    assert {id: entry["split"] for id, entry in after["tasks"].items() if id in before["tasks"]} == {
        id: entry["split"] for id, entry in before["tasks"].items()
    }
    assert after["retired"] == before["retired"] != {}
    assert [entry["version"] for entry in after["history"]] == ["v2.1.0", "v2.0.0", "v1.0.0"]


def test_sia_pull_of_a_version_into_a_recipes_pool(hub: Hub, tmp_path: Path) -> None:
    publish_elsewhere(tmp_path, "acme/older")
    assert sia("init", tmp_path / "mine").exit_code == 0
    recipe = tmp_path / "mine" / "recipe.yaml"
    before = recipe.read_text(encoding="utf-8")
    assert "Pulled v1.0.0" in sia("pull", recipe, "--repo", "acme/older", "--revision", "v1.0.0").stdout
    assert recipe.read_text(encoding="utf-8") == before
    assert "12 tasks taken in" not in sia("pull", recipe, "--repo", "acme/older").stdout
    both = sia("pull", recipe, "--repo", "acme/older", "--directory", tmp_path / "x")
    assert both.exit_code == 2 and "--directory" in both.stderr
    as_seed = sia("pull", recipe, "--repo", "acme/older", "--as", "seed")
    assert as_seed.exit_code == 2 and "acme/older:alpaca" in as_seed.stderr
    rows = sia("pull", recipe, "--repo", "acme/older:alpaca", "--as", "candidate")
    assert "Pulled acme/older:alpaca: 12 tasks taken in" in rows.stdout


def test_sia_pull_of_a_release_with_its_seeds(hub: Hub, tmp_path: Path) -> None:
    """Seeds of the release are those of the project: the bundled ones would have the same ids and other texts."""
    recipe = make_recipe(tmp_path, repo="acme/seeded", include="{seeds: true}")
    with Project(recipe, TaskPool.open(f"sqlite:///{tmp_path}/theirs.db")) as project:
        project.pool.add_seeds([replace(make_task(n), id=f"seed_task_{n}") for n in range(8)])
        project.publish()
    assert sia("pull", "--repo", "acme/seeded", "--directory", tmp_path / "mine").exit_code == 0
    overrides = ["bootstrap.target=2", "bootstrap.wave=2"]
    with open_project(tmp_path / "mine" / "recipe.yaml", overrides=overrides, model=ScriptedModel(text_for)) as project:
        assert project.generate().generated >= 2
        assert project.pool.counts()["seed"] == 8
        assert not project.publish().published


def test_sia_pull_of_a_dataset_of_others(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HfApi().create_repo("acme/theirs", repo_type="dataset")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS["alpaca"]).encode()
    theirs = File(b'{"version": "2", "files": []}', False)  # of some other program
    card = File(b"---\nconfigs: [{config_name: x, data_files: train.jsonl}]\n---\n", False)
    hub.repo("acme/theirs").add("data", {"train.jsonl": File(lines, False), "manifest.json": theirs, "README.md": card})
    monkeypatch.chdir(tmp_path)
    found = sia("pull", "--repo", "acme/theirs", "--as", "seed")
    assert found.exit_code == 0, found.stderr
    recipe = tmp_path / "theirs" / "recipe.yaml"
    assert Recipe.load(recipe).release.repo is None, "what others published is not where we publish"
    status = json.loads(sia("status", recipe, "--json").stdout)
    assert status["pool"]["seed"] == 2


def test_sia_pull_of_nothing_leaves_no_folder(hub: Hub, tmp_path: Path) -> None:
    for arguments in (["acme/nowhere"], ["a/b/c"], ["acme/a--b..c"]):
        found = sia("pull", "--repo", *arguments, "--directory", tmp_path / "new")
        assert found.exit_code == 1 and "Error: " in found.stderr, found.stderr
        assert len(found.stderr.strip().splitlines()[-2:]) == 2
    assert not (tmp_path / "new").exists()


def test_a_release_is_not_taken_in_as_something_else(hub: Hub, pool: TaskPool, other: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(1)], Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path, repo="acme/as"))
    with pytest.raises(UsageError, match="as they were published"):
        take(other, "acme/as", status=Status.CANDIDATE)
    assert not other.tasks()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("fault", ["429", "500", "reset"])
def test_a_pull_takes_in_all_or_nothing(
    fault: str, lasting: bool, hub: Hub, pool: TaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    pool.import_tasks([make_task(n) for n in range(20)], Status.ACCEPTED)
    name = f"acme/pull-{fault}-{lasting}".lower()
    publish(pool, make_recipe(tmp_path, repo=name))
    for first in range(1, 50):
        hub.requests.clear()
        hit = False

        def breaking(number: int, request: str, first: int = first) -> str | None:
            nonlocal hit
            broken = number == first or (lasting and number > first)
            hit = hit or broken
            return fault if broken else None

        hub.fault = breaking
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"cache{first}"))
        with TaskPool.open(f"sqlite:///{tmp_path}/pulled{first}.db") as mine:
            try:
                take(mine, name)
                failed = False
            except ReleaseError as error:
                failed = True
                assert error.hint
            assert failed == (lasting and hit), "what passes is waited for, what stays is reported"
            assert len(mine.tasks()) == (0 if failed else 20)
            hub.fault = lambda number, request: None
            take(mine, name)
            assert len(mine.tasks()) == 20
        if not hit:
            break
    assert first > 5, "a pull makes more requests than that"
