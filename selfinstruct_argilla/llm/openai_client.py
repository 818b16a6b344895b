"""Any OpenAI-compatible endpoint, through the `openai` package: the only module that imports it.

The package's own retries are off, so that each attempt is one call and one row in the journal.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, cast

import openai
from openai.types import Completion
from openai.types.chat import ChatCompletion

from ..errors import ModelRefusedError
from .base import Reply, Request, RequestRefused, TransientFailure, storable

# 400s that are about the recipe's settings, not about this one prompt
_SETTINGS = ("unsupported_parameter", "unsupported_value", "model_not_found", "invalid_model", "unknown_parameter")
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
_MOST_TOKENS = 2**31 - 1


class OpenAIModel:
    """One model behind one endpoint. Raises what `llm/base.py` draws."""

    def __init__(self, base_url: str | None, api_key: str, *, timeout_seconds: float = 120.0) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=openai.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds)),
            max_retries=0,
        )
        self._where, self._key, self._timeout = str(self._client.base_url), api_key, timeout_seconds

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, request: Request) -> Reply:
        try:
            # the client's own limit is for silence; an endpoint may also drip
            return _reply(await asyncio.wait_for(self._create(request), self._timeout))
        except (asyncio.TimeoutError, openai.APITimeoutError, openai.APIConnectionError) as error:
            reason = type(error.__cause__ or error).__name__
            late = not isinstance(error, openai.APIConnectionError) or isinstance(error, openai.APITimeoutError)
            what = f"no answer from {self._where} in time" if late else f"the connection to {self._where} failed"
            sent = reason not in _NEVER_SENT
            raise TransientFailure(f"{what} ({reason})", reached=sent, lost=sent) from error
        except openai.APIStatusError as error:
            raise self._explained(error, request) from error
        except (openai.OpenAIError, ValueError) as error:
            raise TransientFailure(f"an answer that cannot be read ({type(error).__name__})", lost=True) from error

    async def _create(self, request: Request) -> Any:
        parameters = dict(request.parameters)
        if request.api == "completions":
            return await self._client.completions.create(model=request.model, prompt=request.prompt.text, **parameters)
        messages = cast(Any, request.prompt.messages())
        return await self._client.chat.completions.create(model=request.model, messages=messages, **parameters)

    def _explained(self, error: openai.APIStatusError, request: Request) -> Exception:
        status, text = error.status_code, _message(error)
        if len(self._key) >= 8:
            text = text.replace(self._key, "…")  # some repeat it
        if status == 429 and error.code == "insufficient_quota":
            return ModelRefusedError(f"{self._where} says that the account has no credit left: {text}")
        if status in (408, 409, 425, 429) or (status >= 500 and status != 501):
            return TransientFailure(
                f"HTTP {status}: {text}",
                retry_after=_retry_after(error.response.headers),
                busy=status in (429, 503),
            )
        if status in (401, 403):
            return ModelRefusedError(
                f"{self._where} refuses the key (HTTP {status}): {text}",
                hint="Check models.generator.api_key in the recipe and the environment variable that it names.",
            )
        if status in (404, 405, 501) or error.code in _SETTINGS:
            return ModelRefusedError(
                f"{self._where} has no {request.api} API for the model {request.model!r} with these settings"
                f" (HTTP {status}): {text}",
                hint="Check models.generator (base_url, model, api) and bootstrap.sampling in the recipe.",
            )
        return RequestRefused(f"HTTP {status}: {text}")


def _reply(answer: Any) -> Reply:
    """Raises TransientFailure where a 200 holds something else than a completion (a proxy's page, half an answer).

    The package does not check what it is sent, so nothing of it is taken on trust here.
    """
    choices = getattr(answer, "choices", None)
    if not isinstance(answer, Completion | ChatCompletion) or not isinstance(choices, list):
        raise TransientFailure("an answer that is no completion", reached=False)
    usage = getattr(answer, "usage", None)
    tokens = _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")
    if not choices:
        return Reply("", "empty", *tokens)
    choice = choices[0]
    if isinstance(answer, Completion):
        text = getattr(choice, "text", None)
    else:
        text = getattr(getattr(choice, "message", None), "content", None)
    finish_reason = getattr(choice, "finish_reason", None)
    if not isinstance(text, str | None):
        raise TransientFailure("an answer that is no completion", reached=False)
    return Reply(storable(text or ""), finish_reason if isinstance(finish_reason, str) else None, *tokens)


def _tokens(usage: Any, name: str) -> int:
    """A count of the usage block; 0 where it is no count."""
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and 0 <= count <= _MOST_TOKENS else 0


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(text or error.message).split())[:300]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms`, `Retry-After` (seconds or a date) or the rate-limit headers."""
    if value := headers.get("retry-after-ms"):
        return _number(value, 1e-3)
    if value := headers.get("retry-after"):
        if (seconds := _number(value)) is not None:
            return seconds
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time())
        except ValueError:
            return None
    spent = [what for what in ("requests", "tokens") if headers.get(f"x-ratelimit-remaining-{what}", "0") == "0"]
    spans = [_span(headers.get(f"x-ratelimit-reset-{what}", "")) for what in spent]
    return max((seconds for seconds in spans if seconds is not None), default=None)


def _number(text: str, unit: float = 1.0) -> float | None:
    try:
        number = float(text) * unit
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _span(text: str) -> float | None:
    """Seconds of `6m0s`, `1.5s`, `20ms`, `2`."""
    text = text.strip()
    parts = re.findall(r"([0-9.]+)(h|ms|m|s|$)", text)
    if not text or "".join(number + unit for number, unit in parts) != text:
        return None
    numbers = [_number(number, _UNITS[unit]) for number, unit in parts]
    return None if None in numbers else sum(number for number in numbers if number is not None)


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
