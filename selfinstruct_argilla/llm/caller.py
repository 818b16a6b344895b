"""Buying replies: journal first, then slots, rates, budget, attempts and back-off.

A request is answered from the journal where it was bought before. Otherwise it waits for its turn, and each attempt
is committed before anybody sees it. What says nothing about the request (429, 5xx, timeouts, resets) is tried again
with back-off: alone, or together with all others where the endpoint itself is busy or away. A refusal is an answer
too; what no retry helps ends the whole run.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter

from ..errors import ModelError, ModelUnavailableError
from ..recipe import Budget, Price
from .base import CallRecord, Journal, Model, Outcome, Reply, Request, RequestRefused, TransientFailure, storable

MINUTE = 60.5  # seconds; a little more than the endpoint's, for requests that travel at different speeds
_GLANCE = 0.2  # seconds between looks at whether the run has ended


class BudgetReached(Exception):
    """The next request could pass a cap. Not a failure: the run ends here and says how to go on."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True)
class Patience:
    """How long transient failures are borne: retries with back-off from `first_seconds` to `longest_seconds`, how
    long to knock at an address where nobody has ever answered, and how long a wait the endpoint may ask for."""

    retries: int = 8
    first_seconds: float = 0.5
    longest_seconds: float = 60.0
    unreachable_seconds: float = 8.0
    longest_wait_seconds: float = 900.0


# money -----------------------------------------------------------------------------------------


_NO_CAP = Budget()


@dataclass
class Purse:
    """What may still be spent: settled requests as they were, those in flight at their worst case."""

    budget: Budget
    price: Price
    usd: float = 0.0
    requests: int = 0
    tokens: int = 0
    _reserved: dict[str, tuple[float, int]] = field(default_factory=dict)

    def worst_case(self, request: Request) -> tuple[float, int]:
        """(US dollars, tokens): one token a prompt byte, a few a message, and all of `max_tokens`; no tokenizer makes
        more of it."""
        size = request.prompt.size + 16 * (2 + 2 * len(request.prompt.examples))  # chat templates
        completion = int(request.parameters.get("max_tokens") or 0)
        return self.cost(size, completion), size + completion

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price.input_per_mtok + completion_tokens * self.price.output_per_mtok) / 1e6

    def cap(self, request: Request) -> str | None:
        """The cap that this request could pass on top of everything spent and reserved, as words."""
        budget = self.budget
        if budget == _NO_CAP:
            return None
        usd, tokens = self.worst_case(request)
        reserved_usd = sum(amount for amount, _ in self._reserved.values())
        reserved_tokens = sum(amount for _, amount in self._reserved.values())
        if budget.requests is not None and self.requests + len(self._reserved) + 1 > budget.requests:
            return f"{budget.requests} requests"
        if budget.tokens is not None and self.tokens + reserved_tokens + tokens > budget.tokens:
            return f"{budget.tokens} tokens"
        if budget.usd is not None and self.usd + reserved_usd + usd > budget.usd + 1e-12:
            return f"${budget.usd:g}"
        return None

    def reserve(self, request: Request) -> None:
        self._reserved[request.key] = self.worst_case(request)

    @property
    def in_flight(self) -> int:
        return len(self._reserved)

    def settle(self, request: Request, reply: Reply | None, *, lost: bool = False) -> None:
        """The end of an attempt; a reply that was lost on its way counts as if it had cost the worst."""
        usd, tokens = self._reserved.pop(request.key)
        if reply is not None:
            self.requests += 1
            self.tokens += reply.prompt_tokens + reply.completion_tokens
            self.usd += self.cost(reply.prompt_tokens, reply.completion_tokens)
        elif lost:
            self.tokens += tokens
            self.usd += usd


# turns -----------------------------------------------------------------------------------------


Rank = tuple[int, ...]


class Slots:
    """At most `limit` requests on their way, and fewer while the endpoint is busy: the number is halved when it says
    so, and grows by one for each round of answers (additive increase, multiplicative decrease)."""

    def __init__(self, limit: int) -> None:
        self._limit, self._allowed, self._taken = limit, float(limit), 0
        self._waiting: list[tuple[Rank, int, asyncio.Future[None]]] = []
        self._number = 0

    async def take(self, rank: Rank = (), *, first: bool = False) -> None:
        """Waits for a slot: the lowest rank goes first, then who came first; `first` goes before all who wait."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, ((), -self._number, turn) if first else (rank, self._number, turn))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back()  # it was handed over just as its taker left
            raise

    def give_back(self) -> None:
        self._taken -= 1
        self._hand_out()

    def widen(self) -> None:
        self._allowed = min(self._limit, self._allowed + 1 / self._allowed)
        self._hand_out()

    def narrow(self) -> None:
        self._allowed = max(1.0, min(self._allowed, self._taken) / 2)

    def _hand_out(self) -> None:
        while self._waiting and self._taken < int(self._allowed):
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._taken += 1
                turn.set_result(None)


@dataclass
class Ticket:
    """What one request has taken of a rate."""

    at: float
    tokens: int


class Rate:
    """At most so many requests and tokens in any window of one minute."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self._requests, self._tokens = requests, tokens
        self._taken: deque[Ticket] = deque()
        self._sum = 0
        self._turn, self._corrected = asyncio.Lock(), asyncio.Event()

    async def take(self, tokens: int, *, ended: Callable[[], bool]) -> Ticket | None:
        """Waits for room, or until `ended`; more than a whole minute's tokens wait for an empty window."""
        if self._requests is None and self._tokens is None:
            return None
        loop = asyncio.get_running_loop()
        tokens = tokens if self._tokens is None else min(tokens, self._tokens)
        async with self._turn:  # first come, first served
            while not self._room(tokens, loop.time()) and not ended():
                self._corrected.clear()
                seconds = min(_GLANCE, max(0.0, self._taken[0].at + MINUTE - loop.time()))
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._corrected.wait(), seconds)
            ticket = Ticket(loop.time(), tokens)
            self._taken.append(ticket)
            self._sum += tokens
            return ticket

    def correct(self, ticket: Ticket | None, tokens: int) -> None:
        """Gives back what a request was feared to take and did not."""
        if ticket is not None and ticket.at > asyncio.get_running_loop().time() - MINUTE:
            self._sum += tokens - ticket.tokens
            ticket.tokens = tokens
            self._corrected.set()

    def _room(self, tokens: int, now: float) -> bool:
        while self._taken and self._taken[0].at <= now - MINUTE:
            self._sum -= self._taken.popleft().tokens
        enough = self._requests is None or len(self._taken) < self._requests
        return enough and (self._tokens is None or not self._taken or self._sum + tokens <= self._tokens)


# the caller ------------------------------------------------------------------------------------


class Caller:
    """Answers requests from the journal or by buying them from a model, `concurrency` at a time."""

    def __init__(
        self,
        model: Model,
        journal: Journal,
        purse: Purse,
        *,
        concurrency: int = 16,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.bought = 0
        self._model, self._journal, self._purse = model, journal, purse
        self._slots = Slots(concurrency)
        self._rate = Rate(requests_per_minute, tokens_per_minute)
        self._patience = patience or Patience()
        self._settled = asyncio.Event()
        self._resume_at = 0.0
        self._reached = False
        self._ended: Exception | None = None
        self._asked: dict[str, asyncio.Future[CallRecord]] = {}

    async def ask(self, request: Request, rank: Rank = ()) -> CallRecord:
        """The reply or refusal that settles the request, bought at most once even if asked twice at the same time.
        Of requests that wait for a slot the one of the lowest rank goes first.

        Raises BudgetReached, ModelUnavailableError or ModelRefusedError; after the first of them every other
        request that is not on its way yet ends the same.
        """
        running = self._asked.get(request.key)
        if running is None:
            running = self._asked[request.key] = asyncio.ensure_future(self._settle(request, rank))
            running.add_done_callback(lambda _: self._asked.pop(request.key, None))
        return await asyncio.shield(running)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Whatever ends the block, the replies on their way are waited for; only an interrupt gives them up."""
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self.drain()
            raise
        else:
            await self.drain()

    async def drain(self) -> None:
        """Waits for the requests on their way, whose replies are paid for; starts no further one."""
        self._ended = self._ended or BudgetReached("the run has ended")
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _settle(self, request: Request, rank: Rank) -> CallRecord:
        known = await self._journal.settled(request.key)
        if known is not None:
            return known
        try:
            return await self._buy(request, rank)
        except (BudgetReached, ModelError) as error:
            self._ended = self._ended or error
            raise

    async def _buy(self, request: Request, rank: Rank) -> CallRecord:
        """Attempts until one settles the request. Between them the slot is free for others."""
        started, attempt, failures, bought = asyncio.get_running_loop().time(), 0, 0, self.bought
        while True:
            attempt += 1
            await self._slots.take(rank, first=attempt > 1)
            try:
                call, failure = await self._attempt(request, attempt)
            finally:
                self._slots.give_back()
            if failure is None:
                return call
            if self._ended is not None:
                raise self._ended
            others_answered, bought = self.bought > bought, self.bought
            failures = 1 if failure.busy and others_answered else failures + 1
            if failures > self._patience.retries and not others_answered:
                raise ModelUnavailableError(
                    f"the model's endpoint failed {failures} times in a row: {failure.message}",
                    hint="Every reply so far is kept; run the same command again to go on from here.",
                )
            if failures > self._patience.retries:  # all others are answered: it is this request
                call = CallRecord(request.key, attempt + 1, "refused", None, f"always fails: {call.error}")
                await self._journal.record(request, call)
                return call
            waited = asyncio.get_running_loop().time() - started
            if not self._reached and not failure.reached and waited > self._patience.unreachable_seconds:
                raise ModelUnavailableError(
                    f"no model answers there: {failure.message}",
                    hint="Start the model server or correct models.generator.base_url; then run this command again.",
                )
            await self._back_off(failures, failure)

    async def _attempt(self, request: Request, number: int) -> tuple[CallRecord, TransientFailure | None]:
        await self._reserve(request)
        reply: Reply | None = None
        failure: TransientFailure | None = None
        ticket: Ticket | None = None
        begun = perf_counter()

        async def keep(outcome: Outcome, error: str | None = None, usd: float = 0.0) -> CallRecord:
            text = None if error is None else storable(error)
            call = CallRecord(request.key, number, outcome, reply, text, perf_counter() - begun, usd)
            await self._journal.record(request, call, others=self._purse.in_flight - 1)
            return call

        try:
            ticket = await self._wait_for_turn(request)
            begun = perf_counter()
            try:
                reply = self._counted(request, await self._model.complete(request))
            except RequestRefused as refusal:
                self._reached = True
                return await keep("refused", refusal.message), None
            except TransientFailure as transient:
                failure = transient
                self._reached = self._reached or failure.reached
                return await keep(
                    "transient", failure.message, self._purse.worst_case(request)[0] if failure.lost else 0.0
                ), failure
            except ModelError as error:
                await keep("transient", error.message)
                raise
            self._reached = True
            call = await keep("reply", usd=self._purse.cost(reply.prompt_tokens, reply.completion_tokens))
            self.bought += 1
            self._slots.widen()
            return call, None
        finally:
            self._rate.correct(ticket, reply.prompt_tokens + reply.completion_tokens if reply else 0)
            self._purse.settle(request, reply, lost=failure is not None and failure.lost)
            self._settled.set()

    def _counted(self, request: Request, reply: Reply) -> Reply:
        """The reply as it can be stored, with its tokens as the endpoint counts them; where it does not say, the worst
        case, so that no cap is passed."""
        text, finish_reason = storable(reply.text), reply.finish_reason and storable(reply.finish_reason)
        if reply.prompt_tokens or reply.completion_tokens:
            return Reply(text, finish_reason, reply.prompt_tokens, reply.completion_tokens)
        most = int(request.parameters.get("max_tokens") or 0)
        prompt_tokens = self._purse.worst_case(request)[1] - most
        completion_tokens = len(text.encode())
        return Reply(text, finish_reason, prompt_tokens, min(completion_tokens, most) if most else completion_tokens)

    async def _reserve(self, request: Request) -> None:
        """Sets the worst case aside; waits while requests on their way may turn out cheaper than feared."""
        while True:
            if self._ended is not None:
                raise self._ended
            cap = self._purse.cap(request)
            if cap is None:
                break
            if not self._purse.in_flight:
                raise BudgetReached(cap)
            self._settled.clear()
            await self._settled.wait()
        self._purse.reserve(request)

    async def _wait_for_turn(self, request: Request) -> Ticket | None:
        loop = asyncio.get_running_loop()
        while (wait := self._resume_at - loop.time()) > 0 and self._ended is None:
            await asyncio.sleep(min(wait, _GLANCE))
        ticket = await self._rate.take(self._purse.worst_case(request)[1], ended=lambda: self._ended is not None)
        if self._ended is not None:
            raise self._ended
        return ticket

    async def _back_off(self, failures: int, failure: TransientFailure) -> None:
        """Waits; where the endpoint is busy or away, all requests do, and fewer go on together afterwards."""
        now = asyncio.get_running_loop().time()
        seconds = min(self._patience.first_seconds * 2 ** (failures - 1), self._patience.longest_seconds)
        seconds *= 0.75 + random.random() / 2
        if failure.retry_after is not None:
            if failure.retry_after > self._patience.longest_wait_seconds:
                raise ModelUnavailableError(
                    f"the model's endpoint asks to wait {failure.retry_after / 60:.0f} minutes: {failure.message}",
                    hint="Every reply so far is kept; run the same command again then, to go on from here.",
                )
            seconds = max(failure.retry_after, seconds if failures > 2 else 0.0)
        if failure.busy or not failure.reached:
            if failure.busy and now >= self._resume_at:  # once for all that fail together
                self._slots.narrow()
            self._resume_at = max(self._resume_at, now + seconds)
            return
        until = now + seconds
        while (wait := until - asyncio.get_running_loop().time()) > 0 and self._ended is None:
            await asyncio.sleep(min(wait, _GLANCE))
