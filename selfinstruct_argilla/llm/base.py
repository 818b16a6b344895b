"""What a language model is to the rest of the package: a prompt goes in, one reply comes out, nothing is hidden.

Request ──► Model.complete ──► Reply                        (one choice, no streaming)
   │                    └────► TransientFailure             says nothing about the request: try again
   │                    └────► RequestRefused               says no to this request: record it and pass over
   └─ key: what makes two requests the same purchase
CallRecord: one attempt, as the journal keeps it, before anyone parses the reply
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol

Api = Literal["completions", "chat"]


@dataclass(frozen=True)
class Prompt:
    """Few-shot content that is one text for `completions` and a list of messages for `chat`.

    `header` and `examples` are shared by the requests of a step (the journal stores them once); `query` is what
    differs. The parts carry their own separators, so that the text is their plain concatenation.
    """

    header: str
    query: str
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        return self.header + "".join(question + answer for question, answer in self.examples) + self.query

    @property
    def preamble_hash(self) -> str:
        """sha256 of what many requests have in common: the header and the examples."""
        return _preamble_hash(self.header, self.examples)

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return _preamble_size(self.header, self.examples) + _size(self.query)

    def messages(self) -> list[dict[str, str]]:
        """Chat messages: the header as the system message, each example as a user and an assistant turn."""
        messages = [{"role": "system", "content": self.header.strip()}] if self.header.strip() else []
        for question, answer in self.examples:
            messages.append({"role": "user", "content": question.strip()})
            messages.append({"role": "assistant", "content": answer.strip()})
        return [*messages, {"role": "user", "content": self.query.strip()}]


@dataclass(frozen=True)
class Place:
    """Where in a bootstrap round a request belongs; replies are judged in this order."""

    round: int = 0
    wave: int = 0
    position: int = 0


@dataclass(frozen=True)
class Request:
    """One purchase: what is asked of which model, with which parameters, for which time.

    `draw` numbers repeated purchases of the same thing, so that sampling twice is two requests. `place` and
    `demonstrations` (ids of the pool tasks that the prompt shows) are no part of the key.
    """

    step: str
    method: str
    model: str
    api: Api
    prompt: Prompt
    parameters: Mapping[str, Any] = field(default_factory=dict)
    draw: int = 0
    place: Place = Place()
    demonstrations: tuple[str, ...] = ()

    @cached_property
    def base_key(self) -> str:
        """sha256 of everything but the draw number."""
        content = [
            self.method,
            self.step,
            self.model,
            self.api,
            [self.prompt.preamble_hash, self.prompt.query],
            dict(self.parameters),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def key(self) -> str:
        """64 hex digits; the same key is never bought twice (design, rule 2)."""
        return hashlib.sha256(f"{self.base_key}:{self.draw}".encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What came back. `finish_reason` is the endpoint's own word; "length" means that the text was cut."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


Outcome = Literal["reply", "refused", "transient"]


@dataclass(frozen=True)
class CallRecord:
    """One attempt: a reply, a refusal or a transient failure, with its time (seconds) and cost (US dollars; of a reply
    that was lost on its way, what it may have cost at most)."""

    request_key: str
    attempt: int
    outcome: Outcome
    reply: Reply | None = None
    error: str | None = None
    latency_seconds: float = 0.0
    usd: float = 0.0


class Model(Protocol):
    """Anything that answers requests: an endpoint, or a `ScriptedModel`."""

    async def complete(self, request: Request) -> Reply:
        """One attempt. Raises TransientFailure, RequestRefused or a ModelError; retries nothing itself."""
        ...

    async def close(self) -> None: ...


class Journal(Protocol):
    """Where attempts are kept (`pool/journal.py`)."""

    async def settled(self, key: str) -> CallRecord | None:
        """The reply or refusal that answers a request for good, if there is one."""
        ...

    async def record(self, request: Request, call: CallRecord, *, others: int = 0) -> None:
        """Returns once the attempt is committed; `others` is how many more requests are on their way."""
        ...


class TransientFailure(Exception):
    """429, 5xx, a timeout, a reset, a cut connection: it says nothing about the request.

    `reached` is False where no such endpoint seems to be there at all; `busy` where it is, and asks for fewer requests,
    for `retry_after` seconds where it says so; `lost` where a reply may have been written, and billed, that never came.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reached: bool = True,
        busy: bool = False,
        lost: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.reached, self.busy, self.lost = reached, busy, lost


class RequestRefused(Exception):
    """A 4xx about this request alone (too long, refused content): asking again would not help."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@lru_cache(maxsize=64)
def _preamble_hash(header: str, examples: tuple[tuple[str, str], ...]) -> str:
    return hashlib.sha256(json.dumps([header, examples]).encode()).hexdigest()


@lru_cache(maxsize=64)
def _preamble_size(header: str, examples: tuple[tuple[str, str], ...]) -> int:
    return _size(header) + sum(_size(question) + _size(answer) for question, answer in examples)


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def storable(text: str) -> str:
    """The text with NULs and lone surrogates replaced by U+FFFD: no database and no UTF-8 file can hold those."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
