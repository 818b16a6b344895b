"""A bootstrap round: what it decides, that its outcome depends on replies alone, and that it ends well or says why."""

from __future__ import annotations

import json
import multiprocessing
import random
from pathlib import Path
from typing import Any

import pytest
from generating import alpaca_text_for, exported, generate, overrides, problems, text_for, unhurried
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_argilla.bootstrap.loop import Finish, Judge, Plan, State, next_move
from selfinstruct_argilla.errors import GenerationError, ModelUnavailableError
from selfinstruct_argilla.llm import caller as caller_module
from selfinstruct_argilla.llm.base import Reply, Request, RequestRefused, TransientFailure
from selfinstruct_argilla.llm.caller import Patience
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.pool.engine import reading
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.pool.rounds import Rounds, Wave
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.similarity.index import NoveltyIndex
from selfinstruct_argilla.tasks import Origin, Status, Task

pytest_plugins = ["postgres"]

WRITERS = {"self_instruct": text_for, "alpaca": alpaca_text_for}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'pool.db'}"


# what next -------------------------------------------------------------------------------------

waves = st.lists(st.sampled_from(["judged", "planned"]), max_size=5).map(
    lambda states: tuple(Wave(1, number, 1, state) for number, state in enumerate(sorted(states), 1))
)
states = st.builds(
    State,
    target=st.integers(1, 100),
    admitted=st.integers(0, 120),
    open_drafts=st.integers(0, 50),
    unjudged_requests=st.integers(0, 20),
    waves=waves,
    tasks_per_request=st.floats(0.5, 8),
    fresh=st.booleans(),
)


@given(states, st.integers(1, 64), st.integers(0, 5))
def test_the_next_move(state: State, wave: int, lookahead: int) -> None:
    move = next_move(state, wave=wave, lookahead=lookahead)
    if state.admitted >= state.target:
        assert move is None
    elif state.fresh:
        assert isinstance(move, Plan)
    elif isinstance(move, Plan):
        assert 1 <= move.requests <= wave
        assert len(state.waves) <= lookahead
    elif isinstance(move, Judge):
        assert move.wave == next(w for w in state.waves if w.state == "planned"), "the oldest one"
    else:
        assert isinstance(move, Finish)
        assert move.wave == state.waves[0]
        assert all(w.state == "judged" for w in state.waves)


@given(states, st.integers(1, 64), st.integers(0, 5))
def test_nothing_is_planned_while_enough_is_on_its_way(state: State, wave: int, lookahead: int) -> None:
    expected = state.admitted + state.open_drafts + state.unjudged_requests * state.tasks_per_request
    if state.waves and not state.fresh and expected >= state.target:
        assert not isinstance(next_move(state, wave=wave, lookahead=lookahead), Plan)


# same inputs, same pool ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["self_instruct", "alpaca"])
def test_concurrency_does_not_change_the_pool(tmp_path: Path, method: str) -> None:
    exports = set()
    for concurrency in (1, 8, 64):
        url = f"sqlite:///{tmp_path / f'{concurrency}.db'}"
        result = generate(
            url, unhurried(WRITERS[method]), models__generator__concurrency=concurrency, bootstrap__method=method
        )
        assert (result.generated, result.ended) == (24, "target")
        assert problems(url) == []
        generate(
            url,
            unhurried(WRITERS[method]),
            target=40,
            models__generator__concurrency=concurrency,
            bootstrap__method=method,
        )
        exports.add(exported(url))
        assert problems(url) == []
    assert len(exports) == 1
    assert exports.pop().count('"generated"') == 40


@pytest.mark.parametrize("method", ["self_instruct", "alpaca"])
def test_the_faithful_mode_as_a_whole(tmp_path: Path, method: str) -> None:
    """Its replies are read as in 2022, and the rest holds for it too."""

    def write(request: Request) -> str:
        if method == "alpaca":
            return alpaca_text_for(request)
        text = text_for(request)
        return text.replace("Input: x", "Input 1: x") if request.step == "input_first" else text

    exports = set()
    for concurrency in (1, 16):
        url = f"sqlite:///{tmp_path / f'{concurrency}.db'}"
        values = {"bootstrap__method": method, "bootstrap__faithful": "true"}
        result = generate(url, unhurried(write), models__generator__concurrency=concurrency, **values)
        assert result.generated == 24
        assert problems(url) == []
        exports.add(exported(url))
    assert len(exports) == 1
    if method == "self_instruct":
        assert '"is_classification": null' not in exports.pop(), "a failed classification means no"


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_both_databases_give_the_same_pool_at_any_lookahead(pool_url: str, tmp_path: Path, lookahead: int) -> None:
    reference = f"sqlite:///{tmp_path / 'reference.db'}"
    generate(reference, bootstrap__lookahead=lookahead, models__generator__concurrency=1)
    result = generate(pool_url, bootstrap__lookahead=lookahead)
    assert result.generated == 24
    assert exported(pool_url) == exported(reference)
    assert problems(pool_url) == []


def test_another_seed_gives_another_pool(tmp_path: Path) -> None:
    exports = []
    for seed in (1, 2):
        url = f"sqlite:///{tmp_path / f'{seed}.db'}"
        generate(url, bootstrap__seed=seed)
        exports.append(exported(url))
    assert exports[0] != exports[1]


# rounds ----------------------------------------------------------------------------------------


def test_a_round_brings_its_target_and_shows_what_came_before(url: str) -> None:
    first = generate(url)
    assert (first.round, first.generated, first.total, first.target, first.cap) == (1, 24, 24, 24, None)
    second = generate(url, bootstrap__target=10)
    assert (second.round, second.generated, second.total) == (2, 10, 34)
    with TaskPool.open(url) as pool:
        tasks = [task for task in pool.tasks() if task.origin is Origin.GENERATED]
        assert [task.id for task in tasks] == [f"generated_{number:08d}" for number in range(1, 35)]
        assert {task.round for task in tasks[:24]} == {1}
        assert {task.round for task in tasks[24:]} == {2}
        shown = {id for task in tasks[24:] for id in task.provenance.demonstrations}
        assert any(id.startswith("generated_") for id in shown)
        for task in tasks:
            asked = pool.journal.request(str(task.provenance.request))
            assert asked is not None
            assert asked.demonstrations == task.provenance.demonstrations


def test_target_counts_what_is_there(url: str) -> None:
    generate(url)
    assert generate(url, target=30).generated == 6
    nothing = generate(url, target=30)
    assert (nothing.round, nothing.generated, nothing.requests) == (None, 0, 0)


def test_what_people_rejected_counts_for_the_target_and_is_not_shown(url: str) -> None:
    generate(url)
    with TaskPool.open(url) as pool:
        ids = [task.id for task in pool.tasks("candidate")]
        with pool.write() as writer:
            writer.mark_pushed(ids)
            for id in ids:
                writer.move(id, Status.REJECTED, kind="reviewed")
    assert generate(url, target=26).generated == 2
    with TaskPool.open(url) as pool:
        shown = {id for request in pool.journal.requests(round=2) for id in request.demonstrations}
        assert not shown & set(ids)


def test_leftover_waves_are_used_by_the_next_round(url: str) -> None:
    """What a round had asked for beyond its target is used first in the next one, not thrown away."""
    generate(url, bootstrap__wave=8, bootstrap__lookahead=3, bootstrap__target=2)
    with TaskPool.open(url) as pool, reading(pool.engine) as connection:
        left = len(Rounds.open_drafts(connection))
    assert left
    generate(url, bootstrap__wave=8, bootstrap__lookahead=3, bootstrap__target=left + 5)
    with TaskPool.open(url) as pool:
        second = [task for task in pool.tasks() if task.round == 2]
        asked = [pool.journal.request(str(task.provenance.request)) for task in second]
        origins = [request.place.round for request in asked if request is not None]
    assert origins[0] == 1
    assert origins == sorted(origins)
    with TaskPool.open(url) as pool, reading(pool.engine) as connection:
        assert all(draft.round == 2 for draft in Rounds.open_drafts(connection))
    assert problems(url) == []


def test_a_round_that_leftovers_fill_asks_with_what_is_accepted_now(url: str) -> None:
    generate(url, bootstrap__wave=8, bootstrap__lookahead=3, bootstrap__target=5)
    with TaskPool.open(url) as pool:
        with pool.write() as writer:
            writer.mark_pushed(["generated_00000001"])
            writer.move("generated_00000001", Status.ACCEPTED, kind="reviewed")
    generate(url, bootstrap__target=1, bootstrap__demonstrations__from="[accepted]")
    with TaskPool.open(url) as pool:
        shown = {id for request in pool.journal.requests(round=2) for id in request.demonstrations}
    assert "generated_00000001" in shown


def test_changed_filters_hold_for_what_an_earlier_round_left(url: str) -> None:
    generate(url, bootstrap__wave=8, bootstrap__target=5)
    generate(url, bootstrap__target=30, bootstrap__filters__blocked_words="[apple]", bootstrap__max_instances=1)
    assert problems(url) == [], "each task is verified as it was judged"


def test_no_pair_of_generated_tasks_is_near(url: str) -> None:
    generate(url, target=60)
    with TaskPool.open(url) as pool:
        index = NoveltyIndex(0.7)
        for task in pool.tasks():
            match = index.check(task.instruction) if task.origin is Origin.GENERATED else None
            assert match is None, (task.instruction, match)
            index.add(task.id, task.instruction)
        assert pool.rounds.discard_counts()["near_duplicate"] > 0
        assert pool.rounds.discard_counts()["blocked_word"] > 0


def test_the_status_shows_cost_and_yield_by_round_step_and_model(url: str) -> None:
    generate(url, models__generator__price="{input_per_mtok: 1.0, output_per_mtok: 2.0}")
    with open_project("quickstart", overrides=[f"pool={url}"]) as project:
        status = project.status()
    rows = {part["step"]: part for part in status.spend_by}
    assert rows.keys() == {"instructions", "classification", "input_first", "output_first"}
    assert all((part["round"], part["tasks"], part["accepted"]) == (1, 24, 0) for part in rows.values())
    assert rows["instructions"]["discards"] == status.discards["near_duplicate"] + status.discards["blocked_word"]
    assert sum(part["usd"] for part in rows.values()) == pytest.approx(status.spend.usd)
    assert status.usd_per == {"generated": pytest.approx(status.spend.usd / 24), "accepted": None}


# stops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["requests: 7", "tokens: 9000", "usd: 0.02"])
def test_a_reached_cap_is_a_normal_end_and_a_higher_one_goes_on_to_the_same_pool(tmp_path: Path, budget: str) -> None:
    price = "{input_per_mtok: 2.0, output_per_mtok: 8.0}"
    url, whole = f"sqlite:///{tmp_path / 'stopped.db'}", f"sqlite:///{tmp_path / 'whole.db'}"
    name, first = budget.split(": ")
    cap, spent = float(first), 0.0
    for _ in range(60):
        value = int(cap) if name != "usd" else cap
        result = generate(url, bootstrap__budget=f"{{{name}: {value}}}", models__generator__price=price)
        with TaskPool.open(url) as pool:
            spend = pool.journal.spend()
        spent = {"requests": spend.requests, "tokens": spend.prompt_tokens + spend.completion_tokens, "usd": spend.usd}[
            name
        ]
        assert spent <= cap
        if result.ended == "target":
            break
        assert result.cap == {"requests": f"{value} requests", "tokens": f"{value} tokens", "usd": f"${value:g}"}[name]
        again = generate(url, bootstrap__budget=f"{{{name}: {value}}}", models__generator__price=price)
        assert (again.ended, again.requests) == ("budget", 0)
        cap *= 1.4
    assert cap > float(first), "the first cap was too low for the round"
    assert result.ended == "target"
    generate(whole)
    assert exported(url) == exported(whole)


def test_ten_waves_without_a_candidate_end_with_the_reasons(url: str) -> None:
    asked: list[Request] = []

    def model(request: Request) -> str:
        asked.append(request)
        return " image of a map\n10. too short"

    with pytest.raises(GenerationError, match="10 waves in a row brought no candidate") as caught:
        generate(url, model, bootstrap__wave=2)
    assert "blocked_word (" in str(caught.value)
    assert 20 <= len(asked) <= 24


def test_a_pool_without_seeds_says_what_to_do(url: str) -> None:
    with pytest.raises(GenerationError, match="no seed tasks") as caught:
        generate(url, seeds="[]")
    assert "sia pool import" in str(caught.value.hint)


def test_a_dead_endpoint_ends_the_run_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "Patience", lambda: Patience(first_seconds=0.001, longest_seconds=0.002))
    url, whole = f"sqlite:///{tmp_path / 'dead.db'}", f"sqlite:///{tmp_path / 'whole.db'}"
    bought: list[str] = []

    def mortal(request: Request) -> Any:
        if len(bought) >= 20:
            return TransientFailure("HTTP 500")
        bought.append(request.key)
        return text_for(request)

    with pytest.raises(ModelUnavailableError, match="failed 9 times in a row"):
        generate(url, mortal)
    with pytest.raises(ModelUnavailableError):
        generate(url, mortal)
    assert len(bought) == 20
    rest: list[str] = []

    def alive(request: Request) -> str:
        rest.append(request.key)
        return text_for(request)

    generate(url, alive)
    assert len({*bought, *rest}) == len(bought) + len(rest), "nothing is bought twice"
    generate(whole)
    assert exported(url) == exported(whole)


# replies of every kind -------------------------------------------------------------------------

BIG = "very long text " * 70_000
WEIRD = [
    "", " ", "\n\n\n", "\x00", "\x00" * 1000, "\ud800\udfff", "a\x07b\x1b[31m six words are in this one", "�" * 50,
    BIG, "1. " + BIG, "\n".join(f"{n}. {BIG[:2000]} {n}" for n in range(9, 60)), " " * 1_000_000, "\n" * 1_000_000,
    "9." * 200_000, "9. " * 200_000, "Output:" * 100_000, "Example 1\n" * 50_000, "Input: " * 100_000, "*" * 500_000,
    "写一首关于秋天的诗，要求押韵并且不少于八行。", "Напишите короткое стихотворение об осени и дожде.",
    "اكتب قصيدة قصيرة عن الخريف والمطر في المدينة", "I'm sorry, but I can't help with that request.",
    '{"tasks": [{"instruction": 5}]}', "<html><body>502</body></html>", "￼" * 40, "e\u0301" * 3000, "\u202e" + "abc " * 9,
]  # fmt: skip


@pytest.mark.parametrize("method", ["self_instruct", "alpaca"])
def test_weird_replies_are_recorded_and_never_crash(pool_url: str, method: str) -> None:
    odd = iter(WEIRD * 3)

    def model(request: Request) -> Any:
        rng = random.Random(request.key)
        if rng.random() < 0.6:
            text = next(odd, None)
            if text is not None:
                return Reply(text, rng.choice(["stop", "length", "content_filter", None, "odd\x00"]), 5, 5)
        return WRITERS[method](request)

    result = generate(
        pool_url, model, bootstrap__method=method, bootstrap__target=60, bootstrap__wave=10, bootstrap__lookahead=3
    )
    assert result.generated == 60
    assert next(odd, None) is None or method == "alpaca"
    assert problems(pool_url) == []
    with TaskPool.open(pool_url) as pool:
        discards = pool.rounds.discards()
        assert discards
        assert all(len(discard.text) <= 2000 and discard.request for discard in discards)
        for line in exported(pool_url).splitlines():
            json.loads(line)
            line.encode()


def test_a_refused_request_is_recorded_and_passed_over(url: str) -> None:
    def model(request: Request) -> Any:
        if random.Random(request.key).random() < 0.2:
            return RequestRefused("HTTP 400: too long")
        return text_for(request)

    result = generate(url, model)
    assert result.generated == 24
    assert result.discards["request_refused"] > 0
    assert problems(url) == []
    with TaskPool.open(url) as pool:
        assert any(discard.detail == "HTTP 400: too long" for discard in pool.rounds.discards(reason="request_refused"))


def test_a_script_that_runs_out_is_refused_not_stuck(url: str) -> None:
    with pytest.raises(GenerationError, match="request_refused"):
        generate(url, ScriptedModel([]))


def test_a_recorded_journal_answers_a_second_pool(tmp_path: Path) -> None:
    first, second = f"sqlite:///{tmp_path / 'first.db'}", f"sqlite:///{tmp_path / 'second.db'}"
    generate(first)
    with TaskPool.open(first) as pool:
        calls = pool.journal.settled_calls([request.key for request in pool.journal.requests()])
    recorded = ScriptedModel({key: call.reply for key, call in calls.items() if call.reply is not None})
    generate(second, recorded)
    assert exported(second) == exported(first)


# two at once -----------------------------------------------------------------------------------


def _generate_in_a_process(url: str, seed: int) -> None:
    generate(url, bootstrap__seed=seed, bootstrap__target=40, bootstrap__wave=4)


def test_two_generators_on_one_pool_never_admit_near_duplicates(pool_url: str) -> None:
    """Both ask with the same seed, so that they would write the same tasks if they did not see each other."""
    with open_project("quickstart", overrides=overrides(pool_url)) as project:
        project.add_seeds()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_generate_in_a_process, args=(pool_url, 42)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    with TaskPool.open(pool_url) as pool:
        generated: list[Task] = [task for task in pool.tasks() if task.origin is Origin.GENERATED]
        assert len(generated) == 80
        assert {task.round for task in generated} == {1, 2}
        index = NoveltyIndex(0.7)
        for task in generated:
            assert index.is_novel(task.instruction), task.instruction
            index.add(task.id, task.instruction)
        keys = [request.key for request in pool.journal.requests()]
        attempts = [pool.journal.attempts(key) for key in keys]
        assert all(len(calls) <= 1 for calls in attempts), "nothing is bought twice"
    assert problems(pool_url) == []
