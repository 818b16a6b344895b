"""Publishing into a folder, from a real pool to `load_dataset`."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from release_help import WORDS, all_rows, alpaca_rows, make_recipe, make_task, same_rows
from typer.testing import CliRunner, Result

from selfinstruct_argilla.analysis import figures
from selfinstruct_argilla.cli.app import app
from selfinstruct_argilla.errors import ReleaseError
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.release import formats
from selfinstruct_argilla.release.build import write_parquet
from selfinstruct_argilla.release.publish import PublishResult, publish
from selfinstruct_argilla.release.secrets import find_secrets
from selfinstruct_argilla.release.splits import SPLITS
from selfinstruct_argilla.similarity.rouge import rouge_l
from selfinstruct_argilla.tasks import Instance, Status, Task, Verdict


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[TaskPool]:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        yield pool


def accept(pool: TaskPool, *tasks: Task) -> None:
    pool.import_tasks(tasks, Status.ACCEPTED)


def review(pool: TaskPool, task: Task, status: Status) -> None:
    """What a sync does: the task as people left it."""
    verdict = Verdict.ACCEPTED if status is Status.ACCEPTED else Verdict.REJECTED
    judged = replace(task, status=status, instances=tuple(replace(i, verdict=verdict) for i in task.instances))
    with pool.write() as writer:
        if pool.task(task.id).status is Status.CANDIDATE:  # type: ignore[union-attr]
            writer.mark_pushed([task.id])
        writer.apply_reviews([judged])


def load(folder: Path, config: str, tmp_path: Path) -> list[dict[str, Any]]:
    cache = tmp_path / f"cache{len(list(tmp_path.iterdir()))}"
    return all_rows(load_dataset(str(folder), config, cache_dir=str(cache)))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_config_reads_back(pool: TaskPool, tmp_path: Path) -> None:
    tasks = [make_task(n, instances=1 + n % 3) for n in range(40)]
    accept(pool, *tasks)
    result = publish(pool, make_recipe(tmp_path), to=tmp_path / "out")
    assert (result.version, result.tasks, result.instances, result.published) == ("v1.0.0", 40, 79, True)
    assert result.target == str(tmp_path / "out")
    rows = alpaca_rows(tasks)
    assert same_rows(load(tmp_path / "out", "alpaca", tmp_path), rows)
    messages = load(tmp_path / "out", "messages", tmp_path)
    assert sorted(m["messages"][1]["content"] for m in messages) == sorted(row["output"] for row in rows)
    completions = load(tmp_path / "out", "prompt_completion", tmp_path)
    assert sorted(c["completion"].strip() for c in completions) == sorted(row["output"] for row in rows)
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "default"))
    for split in loaded.values():
        assert split["id"] == sorted(split["id"])
    assert sorted(row["id"] for row in all_rows(loaded)) == [task.id for task in tasks]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    by_split = {name: set(split["id"]) for name, split in loaded.items()}
    assert all(task in by_split[entry["split"]] for task, entry in manifest["tasks"].items())


def test_only_what_people_accepted_leaves_with_their_edits(pool: TaskPool, tmp_path: Path) -> None:
    tasks = [make_task(n) for n in range(6)]
    pool.import_tasks(tasks, Status.CANDIDATE)
    pool.add_seeds([make_task(100)])
    edited = replace(tasks[0], instances=(Instance(tasks[0].instances[0].input, "a better output"),))
    review(pool, edited, Status.ACCEPTED)
    review(pool, tasks[1], Status.ACCEPTED)
    review(pool, tasks[2], Status.REJECTED)
    review(pool, tasks[3], Status.CONFLICT)
    with pool.write() as writer:
        writer.mark_pushed([tasks[4].id])
    publish(pool, make_recipe(tmp_path), to=tmp_path / "out")
    assert same_rows(load(tmp_path / "out", "alpaca", tmp_path), alpaca_rows([edited, tasks[1]]))
    rows = {row["id"]: row for row in load(tmp_path / "out", "tasks", tmp_path)}
    assert rows[tasks[0].id]["edited"] and not rows[tasks[1].id]["edited"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "4 tasks judged: 2 accepted, 1 rejected, 1 in conflict" in card
    with_seeds = publish(pool, make_recipe(tmp_path, include="{seeds: true}"), to=tmp_path / "seeds")
    assert with_seeds.tasks == 3


def test_versions_follow_the_pool(pool: TaskPool, tmp_path: Path) -> None:
    recipe, out = make_recipe(tmp_path), tmp_path / "out"
    tasks = [make_task(n) for n in range(4)]
    pool.import_tasks(tasks, Status.CANDIDATE)
    for task in tasks[:2]:
        review(pool, task, Status.ACCEPTED)
    steps = [publish(pool, recipe, to=out)]
    steps.append(publish(pool, recipe, to=out))
    review(pool, tasks[2], Status.ACCEPTED)
    steps.append(publish(pool, recipe, to=out))
    review(pool, replace(tasks[2], instances=(Instance("", "edited"),)), Status.ACCEPTED)
    steps.append(publish(pool, recipe, to=out))
    review(pool, tasks[0], Status.REJECTED)
    steps.append(publish(pool, recipe, to=out))
    review(pool, tasks[0], Status.ACCEPTED)
    steps.append(publish(pool, recipe, to=out, version="3.0.0"))
    assert [(step.version, step.published) for step in steps] == [
        ("v1.0.0", True),
        ("v1.0.0", False),
        ("v1.1.0", True),
        ("v1.1.1", True),
        ("v2.0.0", True),
        ("v3.0.0", True),
    ]
    assert steps[2].added == steps[3].edited == (tasks[2].id,)
    assert steps[4].withdrawn == steps[5].added == (tasks[0].id,)
    releases = pool.releases.all()
    assert [(r.version, r.tasks, r.target) for r in releases][-1] == ("v3.0.0", 3, str(out))
    assert len(releases) == 5
    changelog = (out / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [line for line in changelog.splitlines() if line.startswith("## ")] == [
        f"## {version}" for version in ("v3.0.0", "v2.0.0", "v1.1.1", "v1.1.0", "v1.0.0")
    ]
    assert publish(pool, recipe, to=tmp_path / "other").version == "v1.0.0", "versions are counted per target"
    with pytest.raises(ReleaseError, match="published already"):
        publish(pool, make_recipe(tmp_path, license="mit"), to=out, version="2.0.0")


def test_the_same_pool_gives_the_same_bytes(pool: TaskPool, tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, formats="[tasks, alpaca, openai]")
    accept(pool, *[make_task(n) for n in range(20)])
    publish(pool, recipe, to=tmp_path / "a")
    publish(pool, recipe, to=tmp_path / "b")
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    accept(pool, *[make_task(n) for n in range(20, 30)])
    publish(pool, recipe, to=tmp_path / "a")
    before = snapshot(tmp_path / "a")
    for name in ("tasks", "CHANGELOG.md", "manifest.json"):  # a damaged or emptied folder is restored, same version
        path = tmp_path / "a" / name
        if path.is_dir():
            next(path.glob("train*")).unlink()
        else:
            path.unlink()
        if name == "manifest.json":
            for leftover in snapshot(tmp_path / "a"):
                (tmp_path / "a" / leftover).unlink()
            for folder in ("tasks", "alpaca", "openai"):
                (tmp_path / "a" / folder).rmdir()
        again = publish(pool, recipe, to=tmp_path / "a")
        assert (again.version, again.published) == ("v1.1.0", True)
        now = snapshot(tmp_path / "a")
        assert now["README.md"].decode() == before["README.md"].decode(), name
        assert now == before, name


def test_the_openai_export_is_outside_the_configs(pool: TaskPool, tmp_path: Path) -> None:
    tasks = [make_task(n) for n in range(12)]
    accept(pool, *tasks)
    publish(pool, make_recipe(tmp_path, formats="[alpaca, openai]"), to=tmp_path / "out")
    lines = [
        json.loads(line)
        for path in (tmp_path / "out" / "openai").glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == 12 and all(line["messages"][-1]["role"] == "assistant" for line in lines)
    assert same_rows(load(tmp_path / "out", "alpaca", tmp_path), alpaca_rows(tasks))


def test_an_interrupted_exchange_is_put_in_order(
    pool: TaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = make_recipe(tmp_path), tmp_path / "out"
    accept(pool, make_task(1))
    publish(pool, recipe, to=out)
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("keep", encoding="utf-8")
    old = snapshot(out)
    accept(pool, make_task(2))
    rename = os.rename
    for fatal in (1, 2, 4):  # before, within, and (the first rename of that run being a repair) after the exchange
        calls = 0

        def dying(source: Any, target: Any, fatal: int = fatal) -> None:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise KeyboardInterrupt
            rename(source, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "rename", dying)
            publish(pool, recipe, to=out)
    result = publish(pool, recipe, to=out)
    assert (result.version, result.published) == ("v1.1.0", False), "the third attempt had arrived"
    assert [release.version for release in pool.releases.all()] == ["v1.0.0", "v1.1.0"]
    assert snapshot(out)["notes/mine.txt"] == old["notes/mine.txt"]
    assert snapshot(out)["manifest.json"] != old["manifest.json"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_folders_of_others_are_left_alone(pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, make_task(1))
    recipe = make_recipe(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ReleaseError, match="no release of ours"):
        publish(pool, recipe, to=tmp_path / "full")
    with pytest.raises(ReleaseError, match="is a file"):
        publish(pool, recipe, to=tmp_path / "full" / "thesis.txt")
    assert snapshot(tmp_path / "full") == {"thesis.txt": b"x"}
    publish(pool, recipe, to=tmp_path / "mine")
    with TaskPool.open(f"sqlite:///{tmp_path}/other.db") as other:
        accept(other, make_task(2))
        with pytest.raises(ReleaseError, match="knows nothing of"):
            publish(other, recipe, to=tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    assert publish(pool, recipe, to=tmp_path / "empty").published


def test_nothing_to_publish(pool: TaskPool, tmp_path: Path) -> None:
    pool.import_tasks([make_task(1)], Status.CANDIDATE)
    with pytest.raises(ReleaseError, match="no accepted task") as caught:
        publish(pool, make_recipe(tmp_path), to=tmp_path / "out")
    assert caught.value.hint and "sia sync" in caught.value.hint
    assert not (tmp_path / "out").exists()
    with pytest.raises(ReleaseError, match="no place to publish"):
        publish(pool, make_recipe(tmp_path))
    with pytest.raises(ReleaseError, match="license"):
        publish(pool, make_recipe(tmp_path, license="mit2"), to=tmp_path / "out")


def test_a_dry_run_writes_nothing(pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, make_task(1))
    result = publish(pool, make_recipe(tmp_path), to=tmp_path / "out", dry_run=True)
    assert (result.version, result.published, result.added) == ("v1.0.0", False, (make_task(1).id,))
    assert not (tmp_path / "out").exists()
    assert not pool.releases.all()


def test_a_task_keeps_its_split_at_every_target_and_on_return(pool: TaskPool, tmp_path: Path) -> None:
    tasks = [make_task(n) for n in range(60)]
    pool.import_tasks(tasks, Status.CANDIDATE)
    for task in tasks[:30]:
        review(pool, task, Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path), to=tmp_path / "a")
    first = pool.releases.splits()
    assert len(set(first.values())) > 1
    for task in tasks[:30]:
        review(pool, task, Status.REJECTED)
    for task in tasks[30:]:
        review(pool, task, Status.ACCEPTED)
    publish(pool, make_recipe(tmp_path), to=tmp_path / "a")
    for task in tasks[:30]:
        review(pool, task, Status.ACCEPTED)
    shares = "{train: 0.1, validation: 0.1, test: 0.8}"
    for target in ("a", "b"):
        publish(pool, make_recipe(tmp_path, splits=shares), to=tmp_path / target)
        manifest = json.loads((tmp_path / target / "manifest.json").read_text(encoding="utf-8"))
        assert {task: manifest["tasks"][task]["split"] for task in first} == first


SECRETS = {
    "a Hugging Face token": "hf_" + "aB3" * 11,
    "an OpenAI key": "sk-proj-" + "Ab1_" * 10,
    "an AWS key": "AKIA" + "ABCDEFGH12345678",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
    "an e-mail address": "anna.b+c@mail.somewhere.org",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_stop_a_release(kind: str, pool: TaskPool, tmp_path: Path) -> None:
    leak = replace(make_task(7), instances=(Instance("", f"use {SECRETS[kind]}."),))
    accept(pool, make_task(1), leak, replace(make_task(8), instruction=f"Say {SECRETS[kind]}"))
    recipe = make_recipe(tmp_path)
    with pytest.raises(ReleaseError, match=f"{leak.id} \\({kind}\\)") as caught:
        publish(pool, recipe, to=tmp_path / "out")
    assert SECRETS[kind] not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ReleaseError, match=make_task(8).id):
        publish(pool, recipe, to=tmp_path / "out", allow=[leak.id])
    assert publish(pool, recipe, to=tmp_path / "out", allow=[leak.id, make_task(8).id]).tasks == 3
    accept(pool, make_task(9))
    assert publish(pool, recipe, to=tmp_path / "out").tasks == 4, "what is published already is not asked again"


def test_secrets_in_the_card_stop_a_release(pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, make_task(1))
    recipe, out = make_recipe(tmp_path), tmp_path / "out"
    publish(pool, recipe, to=out)
    with (out / "README.md").open("a", encoding="utf-8") as card:
        card.write("\n## Contact\n\nanna@somewhere.org\n")
    accept(pool, make_task(2))
    assert publish(pool, recipe, to=out).version == "v1.1.0", "what people wrote into the published card is theirs"


@pytest.mark.parametrize(
    "text",
    [
        "anna@example.com, bob@mail.example.org, x@host.test, y@a.invalid",
        "@decorator a @ b.com hf_short sk-learn-is-a-library-of-python AKIA1234 foo@bar",
        "-----BEGIN PUBLIC KEY-----",
        "a" * 100_000,
        "a." * 50_000 + "@",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert not list(find_secrets("t", {"x": [text]}))


def test_the_bundled_seeds_hold_no_secret() -> None:
    seeds = Path(__file__).parents[1] / "seeds" / "seed_tasks.jsonl"
    assert not list(find_secrets("seeds", seeds.read_text(encoding="utf-8")))


def test_a_holdout_keeps_its_distance(pool: TaskPool, tmp_path: Path) -> None:
    tasks = [make_task(n) for n in range(6)]
    accept(pool, *tasks)
    lines = [
        {"question": tasks[2].instruction + " please"},
        {"instruction": f"{tasks[4].instruction}", "input": tasks[4].instances[0].input, "output": "x"},
    ]
    for number, line in enumerate(lines):
        (tmp_path / f"bench{number}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    recipe = make_recipe(tmp_path, holdout="[bench0.jsonl, bench1.jsonl]")
    result = publish(pool, recipe, to=tmp_path / "out")
    assert {entry.task_id: entry.near for entry in result.withheld} == {
        tasks[2].id: ("bench0.jsonl",),
        tasks[4].id: ("bench1.jsonl",),
    }
    assert result.tasks == 4
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["withheld"].keys() == {tasks[2].id, tasks[4].id}
    with pytest.raises(ReleaseError, match="there is no file"):
        publish(pool, make_recipe(tmp_path, holdout="[nowhere.jsonl]"), to=tmp_path / "out")


def test_every_task_withheld(pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, make_task(1))
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": make_task(1).instruction}) + "\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match="every accepted task is withheld"):
        publish(pool, make_recipe(tmp_path, holdout="[b.jsonl]"), to=tmp_path / "out")


def test_ids_are_in_the_result(pool: TaskPool, tmp_path: Path) -> None:
    accept(pool, make_task(2), make_task(1))
    result: PublishResult = publish(pool, make_recipe(tmp_path), to=tmp_path / "out")
    assert result.added == (make_task(1).id, make_task(2).id)


def test_added_tasks_leave_the_bytes_of_the_others_alone(tmp_path: Path) -> None:
    """What makes uploads small: row groups end after the same tasks in every version, and know only of themselves."""
    rows = [formats.task_row(make_task(n, instances=1 + n % 2), edited=False) for n in range(3000)]
    for config in ("tasks", "alpaca", "prompt_completion", "messages"):
        groups = []
        for name, part in (("one", rows[:2970]), ("two", rows), ("middle", rows[:1200] + rows[1201:])):
            path = tmp_path / f"{config}-{name}.parquet"
            write_parquet(path, config, part)
            content, metadata = path.read_bytes(), pq.ParquetFile(path).metadata
            found = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
            starts = [group.column(0).file_offset or group.column(0).data_page_offset for group in found]
            groups.append([content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)])
            assert pq.read_table(path).to_pylist() == list(formats.rows(config, part))
        one, two, middle = groups
        assert len(one) > 5
        assert two[: len(one) - 1] == one[:-1], "an appended task changes the last group alone"
        assert len(set(middle) - set(two)) <= 2, "a task in between changes its own group (and the footer)"


def test_twenty_releases_keep_every_split(pool: TaskPool, tmp_path: Path) -> None:
    """The rows themselves: no task moves, and no pair at ROUGE-L >= 0.7 is in two splits of any version."""
    words, out = random.Random(1), tmp_path / "out"
    shares = "{train: 0.6, validation: 0.2, test: 0.2}"
    recipe = make_recipe(tmp_path, formats="[tasks]", splits=shares)
    texts: dict[str, str] = {}
    known: dict[str, str] = {}
    withheld: set[str] = set()
    for version in range(20):
        for number in range(8):
            near = words.choice(list(texts.values())).split() if texts and words.random() < 0.5 else None
            tokens = near or words.choices(WORDS[:14], k=5)
            for _ in range(words.randint(1, 3)):
                tokens[words.randrange(5)] = words.choice(WORDS[:14])
            texts[f"t{words.randrange(10**6):06d}_{version}_{number}"] = " ".join(tokens)
        there = {task.id for task in pool.tasks()}
        accept(pool, *(replace(make_task(1), id=id, instruction=texts[id]) for id in texts if id not in there))
        result = publish(pool, recipe, to=out)
        withheld |= {entry.task_id for entry in result.withheld}
        found = {
            id: split for split in SPLITS if (path := out / "tasks" / f"{split}-00000-of-00001.parquet").exists()
            for id in pq.read_table(path, columns=["id"])["id"].to_pylist()
        }  # fmt: skip
        assert known.items() <= found.items(), "a task moved, or went"
        assert len(found) == result.tasks
        known = found
    assert set(known.values()) == set(SPLITS)
    assert withheld, "no task was ever between two splits: this proves nothing"
    for a, b in combinations(known, 2):
        if known[a] != known[b]:
            assert rouge_l(texts[a], texts[b], tokens="auto") < 0.7


def test_sia_publish_allows_rows_one_by_one(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    make_recipe(tmp_path)
    tasks = [
        {"id": name, "instruction": f"Write to {name}", "instances": [{"input": "", "output": f"{name}@somewhere.org"}]}
        for name in ("ann", "bob")
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")

    def sia(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    assert sia("pool", "import", recipe, tmp_path / "tasks.jsonl", "--as", "accepted").exit_code == 0
    refused = sia("publish", recipe, "--to", tmp_path / "out")
    assert refused.exit_code == 1
    assert "ann (an e-mail address), bob (an e-mail address)" in refused.stderr and "--allow ann" in refused.stderr
    half = sia("publish", recipe, "--to", tmp_path / "out", "--allow", "ann")
    assert half.exit_code == 1 and "bob" in half.stderr and "ann (" not in half.stderr
    assert not (tmp_path / "out").exists()
    both = sia("publish", recipe, "--to", tmp_path / "out", "--allow", "ann", "--allow", "bob")
    assert both.exit_code == 0, both.stderr
    assert "Published v1.0.0 with 2 tasks" in both.stdout


def test_figures_are_part_of_a_release(pool: TaskPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    accept(pool, make_task(1), replace(make_task(2), max_rouge_l=0.4))
    recipe, out = make_recipe(tmp_path, figures="true"), tmp_path / "out"
    publish(pool, recipe, to=out)
    before = snapshot(out)
    manifest = json.loads(before["manifest.json"])
    assert manifest["figures"] == ["figures/lengths.png", "figures/novelty.png"]
    for name in manifest["figures"]:
        assert before[name].startswith(b"\x89PNG")
        assert name in manifest["files"]
        assert f"]({name})" in before["README.md"].decode()
    (out / "figures" / "novelty.png").unlink()
    assert publish(pool, recipe, to=out).version == "v1.0.0"
    assert snapshot(out) == before, "drawn again, the same bytes"
    # where matplotlib is missing, a new version has no figures, and an old one is not restored without its own
    monkeypatch.setattr(figures, "available", lambda: False)
    (out / "figures" / "novelty.png").unlink()
    with pytest.raises(ReleaseError, match="has figures, which cannot be drawn") as caught:
        publish(pool, recipe, to=out)
    assert caught.value.hint and "pip install" in caught.value.hint
    accept(pool, make_task(3))
    assert publish(pool, recipe, to=out).version == "v1.1.0"
    assert not (out / "figures").exists()
    assert ".png" not in (out / "README.md").read_text(encoding="utf-8")
    assert load(out, "alpaca", tmp_path)
