"""Buying replies: once each, never past a cap, as many at a time as the endpoint bears, and never without end."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import RESET, Asked, OpenAIServer, answer, cut, error, raw, usage_of

from selfinstruct_argilla.errors import ModelError, ModelRefusedError, ModelUnavailableError
from selfinstruct_argilla.llm import caller as caller_module
from selfinstruct_argilla.llm.base import CallRecord, Prompt, Reply, Request, RequestRefused, TransientFailure
from selfinstruct_argilla.llm.caller import BudgetReached, Caller, Patience, Purse, Slots
from selfinstruct_argilla.llm.openai_client import OpenAIModel
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.recipe import Budget, Price

PRICE = Price(input_per_mtok=1000.0, output_per_mtok=2000.0)
QUICK = Patience(first_seconds=0.001, longest_seconds=0.01, unreachable_seconds=0.05)


class MemoryJournal:
    """What `Caller` asks of a journal, in a list."""

    def __init__(self) -> None:
        self.calls: list[CallRecord] = []

    async def settled(self, key: str) -> CallRecord | None:
        return next((c for c in self.calls if c.request_key == key and c.outcome != "transient"), None)

    async def record(self, request: Request, call: CallRecord, *, others: int = 0) -> None:
        await asyncio.sleep(0)
        self.calls.append(call)

    def outcomes(self, request: Request) -> list[str]:
        return [call.outcome for call in self.calls if call.request_key == request.key]


def request(number: int = 0, words: str = "", max_tokens: int | None = 10) -> Request:
    parameters = {} if max_tokens is None else {"max_tokens": max_tokens}
    return Request("instructions", "self_instruct", "small", "completions", Prompt("", f"{number} {words}"), parameters)


class Setting:
    """A caller with its parts at hand."""

    def __init__(self, model: Any, *, budget: Budget | None = None, patience: Patience = QUICK, **limits: Any) -> None:
        self.model = ScriptedModel(model) if callable(model) else model
        self.journal = MemoryJournal()
        self.purse = Purse(budget or Budget(), PRICE)
        self.caller = Caller(self.model, self.journal, self.purse, patience=patience, **limits)

    async def ask_all(self, requests: list[Request]) -> list[CallRecord | BaseException]:
        return await asyncio.gather(*map(self.caller.ask, requests), return_exceptions=True)


def run(setting: Callable[[], Coroutine[Any, Any, Any]], seconds: float = 30.0) -> Any:
    return asyncio.run(asyncio.wait_for(setting(), seconds))


# once ------------------------------------------------------------------------------------------


def test_the_same_request_asked_twice_at_once_is_bought_once() -> None:
    async def check() -> None:
        asked = Setting(lambda _: "a reply")
        first, second = await asked.ask_all([request(1), request(1)])
        assert first == second
        assert len(asked.model.requests) == asked.caller.bought == 1

    run(check)


def test_what_the_journal_knows_is_not_bought() -> None:
    async def check() -> None:
        asked = Setting(lambda _: "a reply")
        known = await asked.caller.ask(request(1))
        again = Caller(ScriptedModel([]), asked.journal, asked.purse)
        assert await again.ask(request(1)) == known
        assert again.bought == 0

    run(check)


def test_two_draws_are_two_purchases() -> None:
    async def check() -> None:
        asked = Setting(lambda _: "a reply")
        once = request(1)
        twice = Request(once.step, once.method, once.model, once.api, once.prompt, once.parameters, draw=1)
        await asked.ask_all([once, twice])
        assert asked.caller.bought == 2

    run(check)


def test_a_reply_is_in_the_journal_before_anybody_sees_it() -> None:
    async def check() -> None:
        asked = Setting(lambda _: "a reply")
        call = await asked.caller.ask(request(1))
        assert asked.journal.calls == [call]

    run(check)


def test_a_caller_that_gives_up_does_not_cancel_the_purchase() -> None:
    async def check() -> None:
        go = asyncio.Event()

        async def model(_: Request) -> str:
            await go.wait()
            return "paid for"

        asked = Setting(model)
        waiting = asyncio.create_task(asked.caller.ask(request(1)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        go.set()
        await asked.caller.drain()
        assert [call.outcome for call in asked.journal.calls] == ["reply"]

    run(check)


# failures --------------------------------------------------------------------------------------


def test_a_transient_failure_is_tried_again_and_every_attempt_is_kept() -> None:
    async def check() -> None:
        failures = [
            TransientFailure("HTTP 500"),
            TransientFailure("HTTP 429", busy=True),
            TransientFailure("cut", lost=True),
        ]
        asked = Setting(ScriptedModel([*failures, "at last"]))
        call = await asked.caller.ask(request(1))
        assert call.reply is not None and call.reply.text == "at last"
        kept = [(c.attempt, c.outcome, c.error) for c in asked.journal.calls]
        assert kept == [
            (1, "transient", "HTTP 500"), (2, "transient", "HTTP 429"), (3, "transient", "cut"), (4, "reply", None),
        ]  # fmt: skip

    run(check)


def test_an_endpoint_that_only_fails_ends_the_run_after_eight_retries() -> None:
    async def check() -> None:
        asked = Setting(lambda _: TransientFailure("HTTP 500: down"))
        with pytest.raises(ModelUnavailableError, match="failed 9 times in a row: HTTP 500: down"):
            await asked.caller.ask(request(1))
        assert asked.journal.outcomes(request(1)) == ["transient"] * 9
        with pytest.raises(ModelUnavailableError):
            await asked.caller.ask(request(2))
        assert not asked.journal.outcomes(request(2)), "the run has ended: nothing further is asked"

    run(check)


def test_a_refusal_settles_one_request_and_no_other() -> None:
    async def check() -> None:
        asked = Setting(lambda r: RequestRefused("HTTP 400: too long") if r.prompt.query.startswith("3 ") else "fine")
        calls = await asked.ask_all([request(n) for n in range(6)])
        assert [c.outcome for c in calls if isinstance(c, CallRecord)] == ["reply"] * 3 + ["refused"] + ["reply"] * 2
        assert (await asked.caller.ask(request(3))).error == "HTTP 400: too long"
        assert len(asked.model.requests) == 6, "a refusal is not asked again"

    run(check)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_request_that_always_fails_while_others_are_answered_is_passed_over(concurrency: int) -> None:
    async def check() -> None:
        async def model(asked: Request) -> Any:
            await asyncio.sleep(0.001)
            return TransientFailure("HTTP 500") if asked.prompt.query.startswith("0 ") else "fine"

        asked = Setting(model, concurrency=concurrency)
        calls = await asked.ask_all([request(n) for n in range(400)])
        assert isinstance(calls[0], CallRecord)
        assert (calls[0].outcome, calls[0].error) == ("refused", "always fails: HTTP 500")
        assert asked.journal.outcomes(request(0)) == ["transient"] * 9 + ["refused"]
        assert asked.caller.bought == 399

    run(check)


@pytest.mark.parametrize("number", [0, 5])
def test_a_refused_key_ends_the_run_and_is_kept(number: int) -> None:
    async def check() -> None:
        asked = Setting(
            lambda r: ModelRefusedError("wrong key") if r.prompt.query.startswith(f"{number} ") else "fine",
            concurrency=1,
        )
        calls = await asked.ask_all([request(n) for n in range(20)])
        assert asked.caller.bought == number
        assert all(isinstance(call, ModelRefusedError) for call in calls[number:])
        assert asked.journal.calls[-1].error == "wrong key"
        assert asked.purse.in_flight == 0

    run(check)


def test_texts_that_no_database_can_hold_are_mended() -> None:
    async def check() -> None:
        asked = Setting(ScriptedModel([TransientFailure("a\x00b\ud800"), Reply("c\x00d\udfff", "st\x00op", 1, 1)]))
        call = await asked.caller.ask(request(1))
        assert call.reply is not None
        assert (call.reply.text, call.reply.finish_reason) == ("c\ufffdd\ufffd", "st\ufffdop")
        assert asked.journal.calls[0].error == "a\ufffdb\ufffd"

    run(check)


def test_nobody_at_the_address_is_reported_within_thirty_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    async def check() -> None:
        model = OpenAIModel(address, "key")
        asked = Setting(model, patience=Patience(unreachable_seconds=1.0), concurrency=4)
        calls = await asked.ask_all([request(n) for n in range(8)])
        assert all(isinstance(call, ModelUnavailableError) for call in calls)
        assert "no model answers there" in str(calls[0])
        await model.close()

    started = time.monotonic()
    run(check)
    assert time.monotonic() - started < 10
    default = Patience()
    assert default.unreachable_seconds + 1.25 * default.unreachable_seconds + 10 < 30, "a knock takes ten at most"


def test_an_address_that_goes_away_later_gets_all_its_retries() -> None:
    async def check() -> None:
        gone = TransientFailure("the connection failed", reached=False)
        patience = Patience(first_seconds=0.001, longest_seconds=0.01, unreachable_seconds=0.0)
        asked = Setting(ScriptedModel(["hello", *[gone] * 8, "back again"]), patience=patience)
        await asked.caller.ask(request(1))
        assert (await asked.caller.ask(request(2))).outcome == "reply"

    run(check)


# back-off --------------------------------------------------------------------------------------


def test_a_busy_endpoint_is_left_alone_by_all_for_as_long_as_it_says() -> None:
    begun: list[float] = []

    async def check() -> None:
        async def model(_: Request) -> Any:
            begun.append(time.monotonic())
            if len(begun) == 1:
                return TransientFailure("HTTP 429", busy=True, retry_after=0.3)
            return "fine"

        asked = Setting(model, concurrency=1)
        await asked.ask_all([request(n) for n in range(5)])
        assert asked.caller.bought == 5

    run(check)
    assert begun[1] - begun[0] >= 0.3


def test_a_failure_of_one_request_does_not_stop_the_others() -> None:
    async def check() -> None:
        first = iter([TransientFailure("HTTP 500")])
        asked = Setting(
            lambda r: next(first, "fine") if r.prompt.query.startswith("0 ") else "fine",
            patience=Patience(first_seconds=0.5), concurrency=1,
        )  # fmt: skip
        started = time.monotonic()
        waiting = [asyncio.create_task(asked.caller.ask(request(n))) for n in range(20)]
        await asyncio.gather(*waiting[1:])
        assert time.monotonic() - started < 0.3
        assert not waiting[0].done()
        assert (await waiting[0]).outcome == "reply"

    run(check)


def test_a_wait_of_hours_ends_the_run() -> None:
    async def check() -> None:
        asked = Setting(lambda _: TransientFailure("HTTP 429", busy=True, retry_after=7200.0))
        with pytest.raises(ModelUnavailableError, match="asks to wait 120 minutes"):
            await asked.caller.ask(request(1))

    run(check)


def test_more_requests_than_the_endpoint_bears_are_fitted_to_it() -> None:
    """Eight at a time are answered, the rest gets 429; nobody fails for good, and few are turned away."""
    in_flight, turned_away = 0, 0

    async def check() -> None:
        async def model(_: Request) -> Any:
            nonlocal in_flight, turned_away
            if in_flight >= 8:
                turned_away += 1
                return TransientFailure("HTTP 429", busy=True)
            in_flight += 1
            await asyncio.sleep(0.005)
            in_flight -= 1
            return "fine"

        asked = Setting(model, concurrency=64)
        calls = await asked.ask_all([request(n) for n in range(600)])
        assert all(isinstance(call, CallRecord) and call.outcome == "reply" for call in calls)

    run(check)
    assert turned_away < 300


# slots -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 7, 64])
def test_no_more_than_concurrency_are_on_their_way(concurrency: int) -> None:
    in_flight = most = 0

    async def check() -> None:
        async def model(asked: Request) -> str:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(random.Random(asked.key).random() * 0.01)
            in_flight -= 1
            return "fine"

        await Setting(model, concurrency=concurrency).ask_all([request(n) for n in range(200)])

    run(check)
    assert most == concurrency


def test_the_lowest_rank_goes_first_and_a_retry_before_all() -> None:
    order: list[str] = []

    async def check() -> None:
        slots = Slots(1)
        await slots.take()

        async def wait(name: str, rank: tuple[int, ...] = (), *, first: bool = False) -> None:
            await slots.take(rank, first=first)
            order.append(name)
            slots.give_back()

        waiting = [
            asyncio.create_task(wait("later wave", (1, 2))),
            asyncio.create_task(wait("earlier wave", (1, 1))),
            asyncio.create_task(wait("earlier wave, second", (1, 1))),
            asyncio.create_task(wait("instructions")),
            asyncio.create_task(wait("retry", (1, 2), first=True)),
        ]
        await asyncio.sleep(0)
        slots.give_back()
        await asyncio.gather(*waiting)

    run(check)
    assert order == ["retry", "instructions", "earlier wave", "earlier wave, second", "later wave"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["take", "first", "give", "cancel", "narrow", "widen"]), max_size=80))
def test_slots_are_never_lost(moves: list[str]) -> None:
    async def check() -> None:
        slots = Slots(3)
        held, waiting = 0, []
        for move in moves:
            if move in ("take", "first"):
                waiting.append(asyncio.create_task(slots.take(first=move == "first")))
            elif move == "give" and held:
                held -= 1
                slots.give_back()
            elif move == "cancel" and waiting:
                waiting[0].cancel()
            elif move == "narrow":
                slots.narrow()
            elif move == "widen":
                slots.widen()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            held += sum(task.done() and not task.cancelled() for task in waiting)
            waiting = [task for task in waiting if not task.done()]
            assert held <= 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        held += sum(not task.cancelled() for task in waiting)
        for _ in range(held):
            slots.give_back()
        for _ in range(20):
            slots.widen()
        await asyncio.gather(*(asyncio.wait_for(slots.take(), 1) for _ in range(3)))

    run(check)


# rates -----------------------------------------------------------------------------------------


def _asked_at(count: int, **limits: int) -> list[float]:
    begun: list[float] = []

    async def check() -> None:
        async def model(_: Request) -> Reply:
            begun.append(asyncio.get_running_loop().time())
            return Reply("fine", "stop", 5, 5)

        asked = Setting(model, concurrency=50, **limits)
        await asked.ask_all([request(n) for n in range(count)])
        assert asked.caller.bought == count

    run(check)
    return begun


def test_requests_per_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "MINUTE", 0.25)
    begun = _asked_at(23, requests_per_minute=5)
    windows = [sum(at <= other < at + 0.2 for other in begun) for at in begun]
    assert max(windows) == 5, "the limit is kept, and used"
    assert begun[-1] - begun[0] < 0.25 * 6


def test_tokens_per_minute_count_what_replies_really_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "MINUTE", 0.25)
    worst = Purse(Budget(), PRICE).worst_case(request(1))[1]
    assert worst > 40
    begun = _asked_at(40, tokens_per_minute=2 * worst)  # 10 tokens each in fact
    windows = [sum(at <= other < at + 0.2 for other in begun) * 10 for at in begun]
    assert max(windows) <= 2 * worst
    assert max(windows) >= 30, "more than the two that fit at their worst"


def test_a_request_larger_than_a_minute_waits_for_an_empty_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "MINUTE", 0.05)
    assert len(_asked_at(4, tokens_per_minute=7)) == 4


def test_the_end_of_a_run_does_not_wait_for_the_next_minute() -> None:
    async def check() -> None:
        asked = Setting(lambda _: "fine", requests_per_minute=2, concurrency=16)
        waiting = [asyncio.create_task(asked.caller.ask(request(n))) for n in range(40)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        started = time.monotonic()
        await asked.caller.drain()
        assert time.monotonic() - started < 2
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(result, BudgetReached) for result in results) == 38
        assert asked.purse.in_flight == 0

    run(check)


# money -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    usd=st.floats(0.01, 2.0),
    tokens=st.one_of(st.none(), st.integers(50, 3000)),
    count=st.one_of(st.none(), st.integers(1, 30)),
    concurrency=st.integers(1, 20),
    prices=st.tuples(st.floats(0, 3000), st.floats(0, 3000)),
    seed=st.integers(0, 1000),
)
def test_no_cap_is_ever_passed(
    usd: float, tokens: int | None, count: int | None, concurrency: int, prices: tuple[float, float], seed: int
) -> None:
    """Whatever replies cost up to their worst case, in whatever order they come, lost ones at their worst included."""
    price = Price(input_per_mtok=prices[0], output_per_mtok=prices[1])
    rng = random.Random(seed)
    billed_usd, billed_tokens, answered = 0.0, 0, 0

    async def check() -> None:
        async def model(asked: Request) -> Any:
            nonlocal billed_usd, billed_tokens, answered
            await asyncio.sleep(0)
            prompt_tokens = rng.randint(1, len(asked.prompt.text.encode()))
            completion_tokens = rng.randint(0, asked.parameters["max_tokens"])
            fate = rng.random()
            if fate < 0.1:
                return TransientFailure("HTTP 500")
            billed_usd += (prompt_tokens * price.input_per_mtok + completion_tokens * price.output_per_mtok) / 1e6
            billed_tokens += prompt_tokens + completion_tokens
            if fate < 0.2:
                return TransientFailure("cut", lost=True)
            answered += 1
            return Reply("fine", "stop", prompt_tokens, completion_tokens)

        asked = Setting(model, budget=Budget(usd=usd, tokens=tokens, requests=count), concurrency=concurrency)
        asked.purse.price = price
        requests = [request(n, "wort ä 字" * rng.randint(0, 8), rng.randint(1, 60)) for n in range(40)]
        calls = await asked.ask_all(requests)
        reached = [call for call in calls if isinstance(call, BudgetReached)]
        assert all(isinstance(call, CallRecord | BudgetReached) for call in calls)
        assert asked.caller.bought == answered
        assert reached or answered == 40
        assert asked.purse.in_flight == 0

    run(check)
    assert billed_usd <= usd + 1e-9
    assert tokens is None or billed_tokens <= tokens
    assert count is None or answered <= count


def test_a_cap_waits_for_replies_that_turn_out_cheaper_than_feared() -> None:
    async def check() -> None:
        worst = Purse(Budget(), PRICE).worst_case(request(1))[0]
        asked = Setting(lambda _: Reply("fine", "stop", 1, 0), budget=Budget(usd=worst * 1.5), concurrency=8)
        calls = await asked.ask_all([request(n) for n in range(10)])
        assert all(isinstance(call, CallRecord) for call in calls), "one at a time, all of them fit"

    run(check)


def test_the_reached_cap_is_named() -> None:
    async def check(budget: Budget, words: str) -> None:
        asked = Setting(lambda _: "fine", budget=budget)
        calls = await asked.ask_all([request(n) for n in range(5)])
        assert {call.what for call in calls if isinstance(call, BudgetReached)} == {words}

    run(lambda: check(Budget(requests=2), "2 requests"))
    run(lambda: check(Budget(usd=0.05), "$0.05"))
    run(lambda: check(Budget(tokens=46), "46 tokens"))


def test_a_reply_without_usage_counts_as_its_worst() -> None:
    async def check() -> None:
        asked = Setting(lambda _: Reply("four words of text", "stop"), concurrency=1)
        call = await asked.caller.ask(request(1))
        assert call.reply is not None
        assert call.reply.prompt_tokens >= len(request(1).prompt.text)
        assert call.reply.completion_tokens == 10, "max_tokens, as the text may have as many"
        assert call.usd == asked.purse.usd > 0

    run(check)


def test_lost_replies_count_against_the_cap_and_are_kept_with_their_cost() -> None:
    async def check() -> None:
        asked = Setting(ScriptedModel([TransientFailure("cut", lost=True), "fine"]))
        await asked.caller.ask(request(1))
        lost, reply = asked.journal.calls
        assert lost.usd == asked.purse.worst_case(request(1))[0]
        assert asked.purse.usd == lost.usd + reply.usd

    run(check)


# the whole, over real sockets ------------------------------------------------------------------


def test_a_wild_endpoint_costs_no_reply_and_passes_no_cap() -> None:
    """Each request meets up to three misfortunes before its answer; each answer is bought exactly once."""
    told = [
        RESET, cut(), raw(b"<html>"), raw(b"{"), error(500), error(503, Retry_After="0"), error(429, retry_after_ms="5"),
        raw(b"{}", delay=1.0), error(502),
    ]  # fmt: skip
    seen: dict[str, int] = {}

    def script(asked: Asked) -> Any:
        number = seen[asked.prompt] = seen.get(asked.prompt, -1) + 1
        plays = random.Random(asked.prompt).sample(told, 3)
        return plays[number] if number < 3 else answer(f"answer to {asked.prompt}")

    with OpenAIServer(script) as server:

        async def check() -> None:
            model = OpenAIModel(server.base_url, "key", timeout_seconds=0.5)
            asked = Setting(model, concurrency=8, budget=Budget(usd=100.0))
            requests = [request(n) for n in range(30)]
            calls = await asked.ask_all(requests)
            for wanted, call in zip(requests, calls, strict=True):
                assert isinstance(call, CallRecord) and call.reply is not None, call
                assert call.reply.text == f"answer to {wanted.prompt.text}"
                assert asked.journal.outcomes(wanted) == ["transient"] * 3 + ["reply"]
            good = [a for a, status in server.served if status == 200 and seen[a.prompt] == 3]
            billed = sum(
                asked.purse.cost(*usage_of(a, f"answer to {a.prompt}")) for a in {a.prompt: a for a in good}.values()
            )
            assert sum(call.usd for call in calls if isinstance(call, CallRecord)) == pytest.approx(billed)
            await model.close()

        run(check)
        assert server.most_in_flight <= 8 + 8, "those that were given up may still hang there"


def test_a_wrong_key_costs_a_question_for_each_slot_at_most() -> None:
    with OpenAIServer(lambda _: error(401, "Incorrect API key")) as server:

        async def check() -> None:
            model = OpenAIModel(server.base_url, "key")
            asked = Setting(model, concurrency=4)
            calls = await asked.ask_all([request(n) for n in range(50)])
            assert all(isinstance(call, ModelError) for call in calls)
            await model.close()

        run(check)
        assert len(server.asked) <= 4
