"""Distillation: outputs written again by another model, both kept, and the new one published once it is accepted."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generating import exported, generate, problems
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from typer.testing import CliRunner

from selfinstruct_argilla.bootstrap.distill import parse, render
from selfinstruct_argilla.bootstrap.edits import edit_check
from selfinstruct_argilla.bootstrap.loop import GenerateResult
from selfinstruct_argilla.bootstrap.template import load_template
from selfinstruct_argilla.cli.app import app
from selfinstruct_argilla.errors import GenerationError
from selfinstruct_argilla.llm.base import Reply, Request, RequestRefused, TransientFailure
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.pool import schema
from selfinstruct_argilla.pool.engine import writing
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.tasks import Instance, Status, Task, Verdict

pytest_plugins = ["postgres"]

TASKS = [
    Task("sum", "Add the two numbers.", (Instance("1 and 2", "4"), Instance("5 and 5", "11")), False),
    Task("capital", "Name the capital of France.", (Instance("", "Lyon"),), False),
    Task("mood", "Is the sentence happy or sad?", (Instance("I won.", "happy"),), True),
]


def stronger(request: Request) -> str:
    """Another output for everything but one thing that was right already."""
    return "happy" if "I won." in request.prompt.query else f" better {request.key[:6]}\n"


def unhurried(request: Request) -> Any:
    async def answer() -> str:
        await asyncio.sleep(random.Random(request.key).random() * 0.003)
        return stronger(request)

    return answer()


def distill(
    url: str, model: Callable[[Request], Any] = stronger, *, target: int | None = None, **values: Any
) -> GenerateResult:
    settings = {"pool": url, **{name.replace("__", "."): value for name, value in values.items()}}
    overrides = [f"{name}={value}" for name, value in settings.items()]
    with open_project("distill_outputs", overrides=overrides, model=ScriptedModel(model)) as project:
        return project.generate(target=target)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    with TaskPool.open(url) as pool:
        pool.import_tasks(TASKS, Status.ACCEPTED)
    return url


# what is asked and read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "language, words", [("en", ["Task:", "Input:", "Output:"]), ("zh-CN", ["任务：", "输入：", "输出："])]
)
def test_the_prompt(language: str, words: list[str]) -> None:
    template = load_template(language)
    prompt = render("Add.", "1 and 2", template)
    assert prompt.query == f"{words[0]} Add.\n{words[1]} 1 and 2\n{words[2]}"
    assert words[1] not in render("Add.", " ", template).query
    assert prompt.messages()[0]["role"] == "system"


@pytest.mark.parametrize(
    "reply, found",
    [
        (Reply(" Paris.\n", "stop"), ("Paris.", None)),
        (Reply("Output: Paris.", "stop"), ("Paris.", None)),
        (Reply("Par", "length"), ("Par", "cut_by_length")),
        (Reply(" \n", "stop"), ("", "empty_output")),
        (Reply("in", "stop"), ("in", "input_equals_output")),
        (None, ("", "request_refused")),
    ],
)
def test_parse(reply: Reply | None, found: tuple[str, str | None]) -> None:
    assert parse(reply, "in", load_template("en")) == found


@given(st.text(), st.sampled_from(["stop", "length", None]), st.text(max_size=5))
def test_no_reply_breaks_the_parser(text: str, finish: str | None, input: str) -> None:
    output, reason = parse(Reply(text, finish), input, load_template("en"))
    assert reason is not None or (output and output != input)


# rounds ---------------------------------------------------------------------------------------------


def test_both_outputs_are_kept(url: str) -> None:
    result = distill(url)
    assert (result.round, result.generated, result.target, result.requests) == (1, 2, 3, 4)
    assert result.discards == {"same_output": 1}
    with TaskPool.open(url) as pool:
        assert [replace(t, status=Status.CANDIDATE) for t in pool.tasks("accepted")] == sorted(
            TASKS, key=lambda t: t.id
        )
        new = pool.tasks("candidate")
        assert [(t.id, t.distilled_from) for t in new] == [
            ("distilled_00000001", "capital"),
            ("distilled_00000002", "sum"),
        ]
        assert new[1].instruction == "Add the two numbers."
        assert [i.input for i in new[1].instances] == ["1 and 2", "5 and 5"]
        assert all(i.output.startswith("better") for i in new[1].instances)
        assert new[1].provenance.model == "gpt-4.1"
        assert pool.journal.request(str(new[1].provenance.request)) is not None
        assert json.loads(exported(url).splitlines()[1])["distilled_from"] == "capital"
    assert problems(url) == []


def test_nothing_is_asked_twice(url: str) -> None:
    distill(url)
    again = distill(url)
    assert (again.round, again.generated, again.requests) == (None, 0, 0)
    other = distill(url, models__generator__model="another")
    assert (other.generated, other.requests) == (2, 4), "another model is another matter; what is distilled is left out"
    assert problems(url) == []


def test_a_task_that_people_edit_later_is_due_again(url: str) -> None:
    distill(url)
    with TaskPool.open(url) as pool, pool.write() as writer:
        task = pool.task("capital")
        assert task is not None
        writer.apply_reviews([replace(task, instruction="Name the capital of Spain.")])
    result = distill(url)
    assert (result.generated, result.requests) == (1, 1)
    assert problems(url) == []


def test_target_and_statuses(url: str) -> None:
    assert distill(url, bootstrap__target=1).requests == 1
    assert distill(url, target=2).generated == 1
    with pytest.raises(GenerationError, match="none is rejected"):
        distill(url, bootstrap__distill__status="[rejected]")


def test_only_accepted_instances_are_asked(url: str) -> None:
    with TaskPool.open(url) as pool, pool.write() as writer:
        task = pool.task("sum")
        assert task is not None
        first, second = task.instances
        judged = (replace(first, verdict=Verdict.REJECTED), replace(second, verdict=Verdict.ACCEPTED))
        writer.apply_reviews([replace(task, instances=judged)])
    distill(url)
    with TaskPool.open(url) as pool:
        assert [i.input for i in pool.tasks("candidate")[1].instances] == ["5 and 5"]


def test_tasks_that_say_the_same_are_each_asked(url: str) -> None:
    with TaskPool.open(url) as pool:
        pool.import_tasks([replace(TASKS[1], id="twin")], Status.ACCEPTED)
    result = distill(url)
    assert (result.generated, result.requests) == (3, 5)
    assert problems(url) == []


def test_a_stopped_round_goes_on_to_the_same_pool(pool_url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    extra = [replace(TASKS[0], id=f"more_{n}", instruction=f"Add number {n}.") for n in range(30)]
    for address in (pool_url, other):
        with TaskPool.open(address) as pool:
            pool.import_tasks([*TASKS, *extra], Status.ACCEPTED)
    bought: list[str] = []

    def counted(request: Request) -> Any:
        bought.append(request.key)
        return unhurried(request)

    for cap in (7, 20, 45, 100):
        result = distill(pool_url, counted, bootstrap__budget=f"{{requests: {cap}}}", models__generator__concurrency=8)
        assert len(bought) <= cap
    assert result.ended == "target"
    assert len(bought) == len(set(bought)) == 64
    distill(other, models__generator__concurrency=1)
    assert exported(pool_url) == exported(other)
    assert problems(pool_url) == problems(other) == []


def test_failures_are_recorded_with_their_reasons(url: str) -> None:
    """A task is written again whole or not at all: the new one may take the old one's place."""

    def poor(request: Request) -> Any:
        if "1 and 2" in request.prompt.query:
            return RequestRefused("HTTP 400: no")
        return Reply("cut", "length", 1, 1) if "capital" in request.prompt.query else stronger(request)

    result = distill(url, poor)
    assert result.generated == 0
    assert result.discards == {"request_refused": 1, "cut_by_length": 1, "same_output": 1}
    with TaskPool.open(url) as pool:
        assert all(discard.nearest in ("sum", "capital", "mood") for discard in pool.rounds.discards())
    assert problems(url) == []


def test_what_was_cut_off_is_asked_again_with_more_tokens(url: str) -> None:
    failures = [TransientFailure("a bad line")]

    def short(request: Request) -> Reply | str:
        if "capital" in request.prompt.query and failures:
            raise failures.pop()
        longer = request.parameters["max_tokens"] > 400
        return stronger(request) if longer or "capital" not in request.prompt.query else Reply("cut", "length", 1, 1)

    values = {"bootstrap__sampling__instances__max_tokens": 400}
    assert distill(url, short, **values).discards == {"cut_by_length": 1, "same_output": 1}
    assert distill(url, short, **values).requests == 0
    again = distill(url, short, bootstrap__sampling__instances__max_tokens=800)
    assert (again.requests, again.generated, again.discards) == (1, 1, {})
    assert distill(url, short, bootstrap__sampling__instances__max_tokens=800).requests == 0
    assert problems(url) == []


def test_an_output_that_was_right_stays_beside_a_new_one(url: str) -> None:
    distill(url, lambda request: "4" if "1 and 2" in request.prompt.query else "10")
    with TaskPool.open(url) as pool:
        new = next(task for task in pool.tasks("candidate") if task.distilled_from == "sum")
    assert [instance.output for instance in new.instances] == ["4", "10"]
    assert problems(url) == []


def test_ten_waves_without_a_usable_output_end_the_round(url: str) -> None:
    with TaskPool.open(url) as pool:
        pool.import_tasks([replace(TASKS[1], id=f"t{n}", instruction=f"Say {n}.") for n in range(40)], Status.ACCEPTED)
    with pytest.raises(GenerationError, match="empty_output"):
        distill(url, lambda request: "", bootstrap__wave=1, bootstrap__lookahead=0, models__generator__concurrency=2)


def test_a_changed_output_is_found(url: str) -> None:
    distill(url)
    with TaskPool.open(url) as pool, writing(pool.engine) as connection:
        place = schema.instances.c.task_id == "distilled_00000001"
        connection.execute(update(schema.instances).where(place).values(output="else"))
    assert problems(url) == ["the outputs of task distilled_00000001 are not those of the replies that they came from"]


def test_a_model_that_the_recipe_no_longer_names_is_not_asked(url: str) -> None:
    distill(url, bootstrap__budget="{requests: 1}")
    with TaskPool.open(url) as pool:
        assert pool.rounds.all()[0].state == "open"
    asked: list[str] = []

    def newer(request: Request) -> str:
        asked.append(request.model)
        return stronger(request)

    distill(url, newer, models__generator__model="newer")
    distill(url, newer, models__generator__model="newer")
    assert set(asked) == {"newer"}
    with TaskPool.open(url) as pool:
        assert all(round.state == "done" for round in pool.rounds.all())
        assert {t.distilled_from for t in pool.tasks("candidate")} == {"capital", "sum"}
    assert problems(url) == []


# the rest of the loop -------------------------------------------------------------------------------


def test_distilled_tasks_are_no_demonstrations_and_do_not_count(url: str) -> None:
    distill(url)
    result = generate(url, target=10)
    assert (result.generated, result.total) == (10, 10)
    generate(url, target=20)
    with TaskPool.open(url) as pool:
        shown = {id for request in pool.journal.requests(step="instructions") for id in request.demonstrations}
        assert "sum" in shown
        assert not {id for id in shown if id.startswith("distilled_")}
    assert problems(url) == []


def test_an_open_round_of_the_other_kind_is_left_alone(url: str) -> None:
    stopped = distill(url, bootstrap__budget="{requests: 1}")
    assert stopped.ended == "budget"
    assert generate(url, target=10).round == 2
    assert distill(url).round == 1


def test_an_edit_of_it_is_not_held_against_the_task_it_came_from(url: str) -> None:
    distill(url)
    with open_project("distill_outputs", overrides=[f"pool={url}"]) as project:
        check = edit_check(project.pool, project.recipe)
        task = project.pool.tasks("candidate")[0]
        assert check(replace(task, instruction="Name the capital of France now.")) is None
        assert check(replace(task, instruction="Add the two numbers.")) == "near_duplicate (ROUGE-L 1.00 with sum)"


def accept(url: str, id: str, status: Status = Status.ACCEPTED) -> None:
    with TaskPool.open(url) as pool, pool.write() as writer:
        task = pool.task(id)
        assert task is not None
        if task.status is Status.CANDIDATE:
            writer.mark_pushed([id])
        verdict = Verdict(status.value)
        judged = tuple(replace(instance, verdict=verdict) for instance in task.instances)
        writer.apply_reviews([replace(task, instances=judged, status=status)])


def test_the_accepted_version_takes_the_old_ones_place_in_its_split(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "release"

    def publish() -> dict[str, Any]:
        with open_project("distill_outputs", overrides=[f"pool={url}"]) as project:
            project.publish(to=folder)
        return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))

    before = publish()["tasks"]
    distill(url)
    assert publish()["tasks"].keys() == before.keys(), "what nobody judged is not published"
    accept(url, "distilled_00000002")
    after = publish()
    assert after["tasks"].keys() == {"capital", "mood", "distilled_00000002"}
    assert after["tasks"]["distilled_00000002"]["split"] == before["sum"]["split"]
    assert after["withheld"] == {
        "sum": {"reason": "its outputs were written again, and accepted", "near": ["distilled_00000002"]}
    }
    accept(url, "distilled_00000002", Status.REJECTED)
    assert publish()["tasks"] == before, "people changed their minds"


def test_dry_run_and_command_line(url: str) -> None:
    shown = CliRunner().invoke(app, ["generate", "distill_outputs", "--set", f"pool={url}", "--dry-run"])
    assert shown.exit_code == 0
    assert "Name the capital of France." in shown.stdout
    assert "distill              4 requests" in shown.stdout
    wrong = CliRunner().invoke(app, ["validate", "distill_outputs", "--set", "bootstrap.distill.status=[withdrawn]"])
    assert wrong.exit_code == 2
