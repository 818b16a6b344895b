"""Publishing to the Hub: the unmodified clients against the test hub, whole and under faults."""

from __future__ import annotations

import hub_server  # isort: skip  # first: it sets the environment that the clients read when they are imported

import copy
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from datasets import load_dataset
from hub_server import File, Hub, Repo
from huggingface_hub import HfApi
from release_help import all_rows, alpaca_rows, make_recipe, make_task, same_rows

from selfinstruct_argilla.errors import ReleaseError
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.recipe import Recipe
from selfinstruct_argilla.release.publish import publish
from selfinstruct_argilla.tasks import Instance, Status

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, in each upload
assert huggingface_hub.constants.ENDPOINT == hub_server.ENDPOINT, "tests/conftest.py must import hub_server first"


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waiting of retries, noted instead of done."""
    noted: list[float] = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[TaskPool]:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        yield pool


def accept(pool: TaskPool, *numbers: int) -> None:
    pool.import_tasks([make_task(number) for number in numbers], Status.ACCEPTED)


def small_recipe(folder: Path, name: str = "acme/demo") -> Recipe:
    """Few files, so that a publish makes few requests."""
    return make_recipe(folder, repo=name, formats="[tasks, alpaca]", splits="{train: 1.0, validation: 0.0, test: 0.0}")


def assert_whole(repo: Repo) -> None:
    """Main and every version show a release with all its files, or (before the first) nothing."""
    for commit in [repo.head, *(repo.at(oid) for oid in repo.tags.values())]:
        if "manifest.json" not in commit.files:
            assert commit.title == "initial commit"
            continue
        manifest = json.loads(commit.files["manifest.json"].content)
        for name, digest in manifest["files"].items():
            assert commit.files[name].sha256 == digest, name
        parquet = {name for name in commit.files if name.endswith(".parquet")}
        assert parquet <= manifest["files"].keys()


def test_a_release_is_one_commit_and_one_tag(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, *range(40))
    result = publish(pool, make_recipe(tmp_path, repo="acme/one", license="mit"))
    repo = hub.repo("acme/one")
    assert [commit.title for commit in repo.commits] == ["initial commit", "Release v1.0.0"]
    assert repo.tags == {"v1.0.0": repo.head.oid}
    assert (result.version, result.target, result.commit) == ("v1.0.0", "acme/one", repo.head.oid)
    assert repo.private
    assert_whole(repo)
    files = sum(name.endswith(".parquet") for name in repo.head.files)
    assert len(hub.requests) <= 30 + 2 * files
    before = list(hub.requests)
    again = publish(pool, make_recipe(tmp_path, repo="acme/one", license="mit"))
    assert (again.version, again.published, again.commit) == ("v1.0.0", False, repo.head.oid)
    assert not [request for request in hub.requests[len(before) :] if not request.startswith(("GET", "HEAD"))]
    assert [(r.version, r.commit) for r in pool.releases.all()] == [("v1.0.0", repo.head.oid)]
    accept(pool, 40)
    hub.requests.clear()
    assert publish(pool, make_recipe(tmp_path, repo="acme/one", license="mit")).version == "v1.1.0"
    assert len(hub.requests) <= 30 + 2 * files


def test_every_older_version_still_loads(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, repo="acme/many", formats="[tasks, alpaca, messages]")
    versions = {}
    for step in range(11):
        accept(pool, *range(step * 7, step * 7 + 7))
        versions[publish(pool, recipe).version] = step * 7 + 7
    repo = hub.repo("acme/many")
    assert len(repo.commits) == 12 and len(repo.tags) == 11
    assert list(versions) == [f"v1.{n}.0" for n in range(11)]
    for version, count in versions.items():
        expected = alpaca_rows([make_task(n) for n in range(count)])
        cache = str(tmp_path / "cache")
        assert same_rows(all_rows(load_dataset("acme/many", "alpaca", revision=version, cache_dir=cache)), expected)
        tasks = load_dataset("acme/many", revision=version, cache_dir=cache)
        assert sorted(row["id"] for row in all_rows(tasks)) == [make_task(n).id for n in range(count)]


def test_what_is_gone_is_deleted_and_what_is_not_ours_stays(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, *range(30))
    publish(pool, make_recipe(tmp_path, repo="acme/gone"))
    repo = hub.repo("acme/gone")
    assert "messages/train-00000-of-00001.parquet" in repo.head.files
    card = repo.head.files["README.md"].content + b"\n## Thanks\n\nTo all.\n"
    repo.add("by hand", {**repo.head.files, "paper.pdf": File(b"pdf", False), "README.md": File(card, False)})
    result = publish(pool, make_recipe(tmp_path, repo="acme/gone", formats="[tasks]"))
    assert result.version == "v2.0.0"
    assert not [name for name in repo.head.files if name.startswith("messages/")]
    assert repo.head.files["paper.pdf"].content == b"pdf"
    assert b"## Thanks" in repo.head.files["README.md"].content


class Breaking:
    """A fault at one request, or at every request from that one on."""

    def __init__(self, fault: str, first: int, lasting: bool) -> None:
        self.fault, self.first, self.lasting = fault, first, lasting
        self.hit = False

    def __call__(self, number: int, request: str) -> str | None:
        if number == self.first or (self.lasting and number > self.first):
            self.hit = True
            return self.fault
        return None


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("fault", ["429", "500", "reset", "lost"])
@pytest.mark.parametrize("earlier", [0, 1], ids=["first-release", "second-release"])
def test_under_every_fault_a_rerun_completes(
    earlier: int, fault: str, lasting: bool, hub: Hub, pool: TaskPool, tmp_path: Path, sleeps: list[float]
) -> None:
    name = f"acme/{fault}-{lasting}-{earlier}".lower()
    recipe = small_recipe(tmp_path, name)
    if earlier:
        accept(pool, *range(5))
        publish(pool, recipe)
    accept(pool, *range(5, 9))
    pool.close()
    repos, lfs = copy.deepcopy(hub.repos), dict(hub.lfs)
    hub.observe = lambda: assert_whole(hub.repo(name)) if ("dataset", name) in hub.repos else None
    versions = [f"v1.{number}.0" for number in range(earlier + 1)]
    for first in range(1, 100):
        hub.repos, hub.lfs = copy.deepcopy(repos), dict(lfs)
        hub.requests.clear()
        hub.fault = breaking = Breaking(fault, first, lasting)
        shutil.copy(tmp_path / "pool.db", tmp_path / f"run{first}.db")
        with TaskPool.open(f"sqlite:///{tmp_path}/run{first}.db") as mine:
            try:
                publish(mine, recipe)
                failed = False
            except ReleaseError as error:
                failed = True
                assert error.hint
            assert failed == (lasting and breaking.hit), "what passes is waited for, what stays is reported"
            hub.fault = lambda number, request: None
            publish(mine, recipe)
            assert not publish(mine, recipe).published
            releases = mine.releases.all()
        repo = hub.repo(name)
        assert [commit.title for commit in repo.commits[1:]] == [f"Release {version}" for version in versions]
        assert repo.tags == {version: repo.commits[1 + n].oid for n, version in enumerate(versions)}
        assert [(release.version, release.commit) for release in releases] == list(repo.tags.items())
        assert len(json.loads(repo.head.files["manifest.json"].content)["tasks"]) == 4 + 5 * earlier
        if not breaking.hit:
            break
    assert first > 10, "a release makes more requests than that"


def test_a_busy_hub_is_waited_for(hub: Hub, pool: TaskPool, tmp_path: Path, sleeps: list[float]) -> None:
    accept(pool, 1)
    hub.fault = lambda number, request: "429" if "/commit/" in request and len(sleeps) < 2 else None
    publish(pool, small_recipe(tmp_path, "acme/busy"))
    assert sleeps == [1.0, 1.0], "what Retry-After asked for"


def test_a_crash_between_commit_and_tag_is_repaired(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/crash")
    accept(pool, *range(5))
    hub.fault = lambda number, request: "reset" if "/tag/" in request else None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ReleaseError):
        patch.setattr(time, "sleep", lambda seconds: None)
        publish(pool, recipe)
    repo = hub.repo("acme/crash")
    assert not repo.tags and len(repo.commits) == 2
    assert not pool.releases.all()
    hub.fault = lambda number, request: None
    card = File(repo.head.files["README.md"].content + b"\nby hand\n", False)
    repo.add("a human edits the card", {**repo.head.files, "README.md": card})
    accept(pool, *range(5, 8))  # the pool has moved on
    assert publish(pool, recipe, dry_run=True).version == "v1.1.0"
    assert not repo.tags
    result = publish(pool, recipe)
    assert result.version == "v1.1.0"
    assert repo.tags == {"v1.0.0": repo.commits[1].oid, "v1.1.0": repo.commits[3].oid}
    assert [(r.version, r.commit) for r in pool.releases.all()] == list(repo.tags.items())


def test_a_tag_of_somebody_else_is_passed_over(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/tagged")
    accept(pool, *range(3))
    publish(pool, recipe)
    repo = hub.repo("acme/tagged")
    repo.tags["v1.1.0"] = repo.commits[0].oid
    accept(pool, 3)
    assert publish(pool, recipe).version == "v1.2.0"
    accept(pool, 4)

    def taken_meanwhile(number: int, request: str) -> None:
        if "/commit/" in request:
            repo.tags["v1.3.0"] = repo.commits[0].oid

    hub.fault = taken_meanwhile
    with pytest.raises(ReleaseError, match=r"has a tag v1\.3\.0 on another commit"):
        publish(pool, recipe)
    hub.fault = lambda number, request: None
    result = publish(pool, recipe)
    assert (result.version, result.published, result.tasks) == ("v1.3.1", True, 5)
    assert repo.tags["v1.3.1"] == repo.head.oid
    assert repo.tags["v1.3.0"] == repo.commits[0].oid
    assert not publish(pool, recipe).published
    assert [release.version for release in pool.releases.all()] == ["v1.0.0", "v1.2.0", "v1.3.1"]


def test_a_change_in_the_meantime_is_not_overwritten(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/race")
    accept(pool, *range(3))
    publish(pool, recipe)
    repo = hub.repo("acme/race")
    accept(pool, 3)
    card = File(repo.head.files["README.md"].content + b"\n## Theirs\n", False)

    def race(number: int, request: str) -> None:
        if "/preupload/" in request and len(repo.commits) == 2:
            repo.add("somebody was faster", {**repo.head.files, "README.md": card})

    hub.fault = race
    with pytest.raises(ReleaseError, match="somebody else changed"):
        publish(pool, recipe)
    assert repo.head.title == "somebody was faster"
    assert publish(pool, recipe).version == "v1.1.0"
    assert b"## Theirs" in repo.head.files["README.md"].content


def test_a_damaged_main_gets_a_new_version(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/damaged")
    accept(pool, *range(3))
    publish(pool, recipe)
    repo = hub.repo("acme/damaged")
    files = {name: file for name, file in repo.head.files.items() if not name.startswith("alpaca/")}
    repo.add("oops", files)
    result = publish(pool, recipe)
    assert (result.version, result.published) == ("v1.0.1", True)
    assert_whole(repo)


def test_a_recreated_repository_is_filled_again(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/again")
    accept(pool, *range(3))
    publish(pool, recipe)
    content = dict(hub.repo("acme/again").head.files)
    hub.repos.clear()
    hub.lfs.clear()
    result = publish(pool, recipe)
    assert (result.version, result.published) == ("v1.0.0", True)
    assert hub.repo("acme/again").head.files == content


def test_another_pool_is_refused(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/ours")
    accept(pool, *range(3))
    publish(pool, recipe)
    with TaskPool.open(f"sqlite:///{tmp_path}/other.db") as other:
        accept(other, 77)
        with pytest.raises(ReleaseError, match="knows nothing of") as caught:
            publish(other, recipe)
    assert caught.value.hint and "sia pull" in caught.value.hint
    assert len(hub.repo("acme/ours").commits) == 2


def refused(pool: TaskPool, recipe: Recipe, hub: Hub, match: str) -> None:
    """The release is refused with a hint, and nothing was written."""
    with pytest.raises(ReleaseError, match=match) as caught:
        publish(pool, recipe)
    assert caught.value.hint
    assert not hub.lfs
    assert not [request for request in hub.requests if "/commit/" in request or "/preupload/" in request]


def test_bad_input_is_refused_before_any_upload(
    hub: Hub, pool: TaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe(tmp_path, "acme/demo")
    refused(pool, recipe, hub, "no accepted task")
    accept(pool, 1)
    refused(pool, small_recipe(tmp_path, "bob/demo"), hub, "belongs to others")
    refused(pool, small_recipe(tmp_path, "acme/a--b..c"), hub, "not a name for a repository")
    refused(pool, make_recipe(tmp_path, repo="acme/demo", license="nonsense"), hub, "license")
    hub.repos["model", "acme/demo"] = Repo(False)
    hub.repos["model", "acme/demo"].add("initial commit", {})
    refused(pool, recipe, hub, "is a model on the Hub, not a dataset")
    hub.repos.clear()
    HfApi().create_repo("acme/foreign", repo_type="dataset", private=True)
    hub.repo("acme/foreign").add("data", {"data/train.parquet": File(b"x", True)})
    refused(pool, small_recipe(tmp_path, "acme/foreign"), hub, "not of a release of ours")
    HfApi().create_repo("acme/open", repo_type="dataset", private=False)
    refused(pool, small_recipe(tmp_path, "acme/open"), hub, "is public")
    for token, message in [("hf_reader", "may only read"), ("hf_wrong", "refuses the token")]:
        monkeypatch.setenv("HF_TOKEN", token)
        refused(pool, recipe, hub, message)
    monkeypatch.delenv("HF_TOKEN")
    refused(pool, recipe, hub, "no token")


def test_a_token_that_does_not_cover_the_repository(
    hub: Hub, pool: TaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(pool, 1)
    recipe = small_recipe(tmp_path, "acme/narrow")
    monkeypatch.setenv("HF_TOKEN", "hf_narrow")
    refused(pool, recipe, hub, "may not write to acme/narrow")
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    publish(pool, recipe)
    accept(pool, 2)
    monkeypatch.setenv("HF_TOKEN", "hf_narrow")
    before = len(hub.lfs)
    with pytest.raises(ReleaseError, match="may not write to acme/narrow") as caught:
        publish(pool, recipe)
    assert caught.value.hint and len(hub.lfs) == before
    assert list(hub.repo("acme/narrow").tags) == ["v1.0.0"]


def test_versions_and_rows_are_refused_before_any_upload(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "acme/versions")
    accept(pool, 1)
    publish(pool, recipe)
    accept(pool, 2)
    (tmp_path / "same.jsonl").write_text(
        "".join(json.dumps({"prompt": make_task(n).instruction}) + "\n" for n in (1, 2)), encoding="utf-8"
    )
    everything_withheld = make_recipe(tmp_path, repo="acme/versions", holdout="[same.jsonl]")
    leak = replace(make_task(3), instances=(Instance("", "mail anna@somewhere.org"),))
    hub.requests.clear()
    before = dict(hub.lfs)
    for version, match in [
        ("1.x", "is not a version"),
        ("1.0.0", "published already"),
        ("0.9.0", "below the last one"),
    ]:
        with pytest.raises(ReleaseError, match=match) as caught:
            publish(pool, recipe, version=version)
        assert caught.value.hint
    with pytest.raises(ReleaseError, match="every accepted task is withheld"):
        publish(pool, everything_withheld)
    pool.import_tasks([leak], Status.ACCEPTED)
    with pytest.raises(ReleaseError, match=f"{leak.id} \\(an e-mail address\\)"):
        publish(pool, recipe)
    assert hub.lfs == before
    assert not [request for request in hub.requests if not request.startswith(("GET", "HEAD"))]


def test_a_holdout_on_the_hub_keeps_its_distance(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    HfApi().create_repo("acme/bench", repo_type="dataset")
    line = json.dumps({"question": make_task(2).instruction, "answer": "x"}) + "\n"
    hub.repo("acme/bench").add("data", {"test.jsonl": File(line.encode(), False)})
    accept(pool, 1, 2, 3)
    recipe = make_recipe(tmp_path, repo="acme/kept", holdout="[acme/bench]")
    result = publish(pool, recipe)
    assert [(entry.task_id, entry.near) for entry in result.withheld] == [(make_task(2).id, ("acme/bench",))]
    manifest = json.loads(hub.repo("acme/kept").head.files["manifest.json"].content)
    assert manifest["withheld"].keys() == {make_task(2).id}
    assert make_task(2).id not in manifest["tasks"]


def test_a_license_that_only_the_hub_refuses(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, 1)
    refused_license = make_recipe(tmp_path, repo="acme/license", license="zlib")
    with pytest.raises(ReleaseError, match="refuses the card: - .license. must be"):
        publish(pool, refused_license)
    assert not hub.lfs
    assert publish(pool, make_recipe(tmp_path, repo="acme/license", license="mit")).version == "v1.0.0"


def test_a_dry_run_only_looks(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, 1)
    result = publish(pool, small_recipe(tmp_path, "acme/dry"), dry_run=True)
    assert (result.version, result.published) == ("v1.0.0", False)
    assert not hub.repos
    assert not [request for request in hub.requests if not request.startswith("GET")]


def test_public_when_asked_and_a_name_without_namespace(hub: Hub, pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, 1)
    result = publish(pool, make_recipe(tmp_path, repo="solo", private="false"))
    assert result.target == "anna/solo"
    assert not hub.repo("anna/solo").private
