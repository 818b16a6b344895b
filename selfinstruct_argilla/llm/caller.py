"""Buying replies: journal first, then slots, rates, budget, attempts and back-off.

A request is answered from the journal where it was bought before. Otherwise it waits for its turn, and each attempt
is committed before anybody sees it. What says nothing about the request (429, 5xx, timeouts, resets) is tried again,
with back-off that all requests share; a refusal is an answer too; what no retry helps ends the whole run.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter

from ..errors import ModelError, ModelUnavailableError
from ..recipe import Budget, Price
from .base import CallRecord, Journal, Model, Reply, Request, RequestRefused, TransientFailure, storable

MINUTE = 60.0


class BudgetReached(Exception):
    """The next request could pass a cap. Not a failure: the run ends here and says how to go on."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True)
class Patience:
    """How long transient failures are borne: retries with back-off from `first_seconds` to `longest_seconds`, and
    how long to knock at an address where nobody has ever answered."""

    retries: int = 8
    first_seconds: float = 0.5
    longest_seconds: float = 60.0
    unreachable_seconds: float = 8.0


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
        """(US dollars, tokens): one token a prompt byte and all of `max_tokens`; no tokenizer makes more of it."""
        prompt = request.prompt
        size = len(prompt.header) + len(prompt.query) + sum(len(q) + len(a) for q, a in prompt.examples)
        if any(limit is not None for limit in (self.budget.usd, self.budget.tokens)):
            size = len(prompt.text.encode()) + 16 * (2 + 2 * len(prompt.examples))  # chat templates add a few a message
        completion = int(request.parameters.get("max_tokens") or 0)
        return self.cost(size, completion), size + completion

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.price.input_per_mtok + completion_tokens * self.price.output_per_mtok) / 1e6

    def cap(self, request: Request) -> str | None:
        """The cap that this request could pass on top of everything spent and reserved, as words."""
        usd, tokens = self.worst_case(request)
        reserved_usd = sum(amount for amount, _ in self._reserved.values())
        reserved_tokens = sum(amount for _, amount in self._reserved.values())
        budget = self.budget
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

    def settle(self, request: Request, reply: Reply | None) -> None:
        del self._reserved[request.key]
        if reply is not None:
            self.requests += 1
            self.tokens += reply.prompt_tokens + reply.completion_tokens
            self.usd += self.cost(reply.prompt_tokens, reply.completion_tokens)


class Rate:
    """At most `limit` units in any window of one minute."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._turn = asyncio.Lock()

    async def take(self, amount: int) -> None:
        """Waits for room; more than a whole minute's worth waits for an empty window."""
        if self._limit is None:
            return
        amount = min(amount, self._limit)
        loop = asyncio.get_running_loop()
        async with self._turn:  # first come, first served
            while True:
                while self._taken and self._taken[0][0] <= loop.time() - MINUTE:
                    self._sum -= self._taken.popleft()[1]
                if self._sum + amount <= self._limit:
                    break
                await asyncio.sleep(self._taken[0][0] + MINUTE - loop.time())
            self._taken.append((loop.time(), amount))
            self._sum += amount


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
        self._slots = asyncio.Semaphore(concurrency)
        self._requests, self._tokens = Rate(requests_per_minute), Rate(tokens_per_minute)
        self._patience = patience or Patience()
        self._money = asyncio.Condition()
        self._resume_at = 0.0
        self._reached = False
        self._ended: Exception | None = None
        self._asked: dict[str, asyncio.Future[CallRecord]] = {}

    async def ask(self, request: Request) -> CallRecord:
        """The reply or refusal that settles the request, bought at most once even if asked twice at the same time.

        Raises BudgetReached, ModelUnavailableError or ModelRefusedError; after the first of them every other
        request that is not on its way yet ends the same.
        """
        running = self._asked.get(request.key)
        if running is None:
            running = self._asked[request.key] = asyncio.ensure_future(self._settle(request))
            running.add_done_callback(lambda _: self._asked.pop(request.key, None))
        return await asyncio.shield(running)

    async def drain(self) -> None:
        """Waits for the requests on their way, whose replies are paid for; starts no further one."""
        self._ended = self._ended or BudgetReached("the run has ended")
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    async def _settle(self, request: Request) -> CallRecord:
        known = await self._journal.settled(request.key)
        if known is not None:
            return known
        async with self._slots:
            try:
                return await self._buy(request)
            except (BudgetReached, ModelError) as error:
                self._ended = self._ended or error
                raise

    async def _buy(self, request: Request) -> CallRecord:
        started = asyncio.get_running_loop().time()
        for attempt in range(1, self._patience.retries + 2):
            call, failure = await self._attempt(request, attempt)
            if failure is None:
                return call
            if self._ended is not None:
                raise self._ended
            waited = asyncio.get_running_loop().time() - started
            if not (self._reached or failure.connected) and waited > self._patience.unreachable_seconds:
                raise ModelUnavailableError(
                    f"nobody answers there: {failure.message}",
                    hint="Start the model server or correct models.generator.base_url; then run this command again.",
                )
            self._back_off(attempt, failure)
        raise ModelUnavailableError(
            f"the model's endpoint failed {attempt} times in a row: {call.error}",
            hint="Every reply so far is kept; run the same command again to go on from here.",
        )

    async def _attempt(self, request: Request, number: int) -> tuple[CallRecord, TransientFailure | None]:
        await self._wait_for_turn(request)
        begun = perf_counter()
        reply: Reply | None = None
        try:
            reply = await self._model.complete(request)
            reply = Reply(storable(reply.text), reply.finish_reason, *self._usage(request, reply))
            self._reached = True
            usd = self._purse.cost(reply.prompt_tokens, reply.completion_tokens)
            call = CallRecord(request.key, number, "reply", reply, None, perf_counter() - begun, usd)
            await self._journal.record(request, call)
            self.bought += 1
            return call, None
        except RequestRefused as refusal:
            self._reached = True
            call = CallRecord(request.key, number, "refused", None, refusal.message, perf_counter() - begun)
            await self._journal.record(request, call)
            return call, None
        except TransientFailure as failure:
            self._reached = self._reached or failure.connected
            call = CallRecord(request.key, number, "transient", None, failure.message, perf_counter() - begun)
            await self._journal.record(request, call)
            return call, failure
        finally:
            async with self._money:
                self._purse.settle(request, reply)
                self._money.notify_all()

    def _usage(self, request: Request, reply: Reply) -> tuple[int, int]:
        """Tokens as the endpoint counts them; where it does not say, the worst case, so that no cap is passed."""
        if reply.prompt_tokens or reply.completion_tokens:
            return reply.prompt_tokens, reply.completion_tokens
        worst = self._purse.worst_case(request)[1]
        completion = min(len(reply.text.encode()), int(request.parameters.get("max_tokens") or worst))
        return worst - int(request.parameters.get("max_tokens") or 0), completion

    async def _wait_for_turn(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        while (wait := self._resume_at - loop.time()) > 0 and self._ended is None:
            await asyncio.sleep(min(wait, 0.2))
        await self._requests.take(1)
        await self._tokens.take(self._purse.worst_case(request)[1])
        async with self._money:
            while True:
                if self._ended is not None:
                    raise self._ended
                cap = self._purse.cap(request)
                if cap is None:
                    break
                if not self._purse.in_flight:  # nothing on its way could turn out cheaper than feared
                    raise BudgetReached(cap)
                await self._money.wait()
            self._purse.reserve(request)

    def _back_off(self, attempt: int, failure: TransientFailure) -> None:
        seconds = min(self._patience.first_seconds * 2 ** (attempt - 1), self._patience.longest_seconds)
        seconds *= 0.75 + random.random() / 2
        if failure.retry_after is not None:
            seconds = max(failure.retry_after, min(seconds, 0.05))
        self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + seconds)
