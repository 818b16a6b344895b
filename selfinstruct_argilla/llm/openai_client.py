"""Any OpenAI-compatible endpoint, through the `openai` package: the only module that imports it.

The package's own retries are off, so that each attempt is one call and one row in the journal.
"""

from __future__ import annotations

import json
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


class OpenAIModel:
    """One model behind one endpoint. Raises what `llm/base.py` draws."""

    def __init__(self, base_url: str | None, api_key: str, *, timeout_seconds: float = 120.0) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=openai.Timeout(timeout_seconds, connect=min(10.0, timeout_seconds)),
            max_retries=0,
        )
        self._where = str(self._client.base_url)

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, request: Request) -> Reply:
        parameters = dict(request.parameters)
        stop = parameters.pop("stop", None)
        if stop:
            parameters["stop"] = list(stop)
        try:
            if request.api == "completions":
                answer: Any = await self._client.completions.create(
                    model=request.model, prompt=request.prompt.text, **parameters
                )
            else:
                answer = await self._client.chat.completions.create(
                    model=request.model,
                    messages=cast(Any, request.prompt.messages()),
                    **parameters,
                )
        except openai.APIConnectionError as error:
            reason = type(error.__cause__ or error).__name__
            what = (
                f"no answer from {self._where} in time"
                if isinstance(error, openai.APITimeoutError)
                else f"the connection to {self._where} failed"
            )
            raise TransientFailure(
                f"{what} ({reason})", connected=reason not in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol")
            ) from error
        except openai.APIStatusError as error:
            raise self._explained(error, request) from error
        except (openai.OpenAIError, json.JSONDecodeError, ValueError) as error:
            raise TransientFailure(f"an answer that cannot be read ({type(error).__name__})") from error
        return _reply(answer)

    def _explained(self, error: openai.APIStatusError, request: Request) -> Exception:
        status, text = error.status_code, _message(error)
        if status == 429 and error.code == "insufficient_quota":
            return ModelRefusedError(f"{self._where} says that the account has no credit left: {text}")
        if status in (408, 409, 425, 429) or status >= 500:
            return TransientFailure(f"HTTP {status}: {text}", retry_after=_retry_after(error.response.headers))
        if status in (401, 403):
            return ModelRefusedError(
                f"{self._where} refuses the key (HTTP {status}): {text}",
                hint="Check models.generator.api_key in the recipe and the environment variable that it names.",
            )
        if status in (404, 405) or error.code in _SETTINGS:
            return ModelRefusedError(
                f"{self._where} has no {request.api} API for the model {request.model!r} with these settings"
                f" (HTTP {status}): {text}",
                hint="Check models.generator (base_url, model, api) and bootstrap.sampling in the recipe.",
            )
        return RequestRefused(f"HTTP {status}: {text}")


def _reply(answer: Any) -> Reply:
    """Raises TransientFailure where a 200 holds something else than a completion (a proxy's page, half an answer)."""
    if not isinstance(answer, Completion | ChatCompletion) or not isinstance(answer.choices, list):
        raise TransientFailure("an answer that is no completion")
    usage = answer.usage
    prompt_tokens = (usage.prompt_tokens or 0) if usage else 0
    completion_tokens = (usage.completion_tokens or 0) if usage else 0
    if not answer.choices:
        return Reply("", "empty", prompt_tokens, completion_tokens)
    choice = answer.choices[0]
    text = choice.text if isinstance(answer, Completion) else choice.message.content  # type: ignore[union-attr]
    return Reply(storable(text or ""), choice.finish_reason, prompt_tokens, completion_tokens)


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
    spans = [headers.get(f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")]
    known = [seconds for span in spans if span and (seconds := _span(span)) is not None]
    return max(known) if known else None


def _number(text: str, unit: float = 1.0) -> float | None:
    try:
        return max(0.0, float(text) * unit)
    except ValueError:
        return None


def _span(text: str) -> float | None:
    """Seconds of `6m0s`, `1.5s`, `20ms`."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    total, number, rest = 0.0, "", text.strip()
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = "ms" if rest.startswith("ms") else rest[0]
        value = _number(number)
        if unit not in units or value is None:
            return None
        total, number, rest = total + value * units[unit], "", rest[len(unit) :]
    return total if not number else _number(number)
