"""The `openai` package against a real socket: what each failure of an endpoint is taken for."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest
from openai_server import RESET, Answer, OpenAIServer, answer, cut, error, raw

from selfinstruct_argilla.errors import ModelRefusedError
from selfinstruct_argilla.llm.base import Prompt, Reply, Request, RequestRefused, TransientFailure
from selfinstruct_argilla.llm.openai_client import OpenAIModel

KEY = "sk-a-key-of-the-tests"


def request(api: str = "completions", **parameters: Any) -> Request:
    prompt = Prompt("Header\n\n", "Query?", (("Q1?", " A1\n\n"), ("Q2?", " A2\n\n")))
    return Request("instructions", "self_instruct", "small", api, prompt, parameters)  # type: ignore[arg-type]


def complete(said: Answer, *, api: str = "completions", timeout: float = 10.0, **parameters: Any) -> Reply:
    with OpenAIServer(lambda asked: said) as server:
        return complete_at(server.base_url, api=api, timeout=timeout, **parameters)


def complete_at(base_url: str, *, api: str = "completions", timeout: float = 10.0, **parameters: Any) -> Reply:
    async def run() -> Reply:
        model = OpenAIModel(base_url, KEY, timeout_seconds=timeout)
        try:
            return await model.complete(request(api, **parameters))
        finally:
            await model.close()

    return asyncio.run(run())


def test_a_completion_is_asked_for_as_one_text() -> None:
    with OpenAIServer(lambda asked: " ten. eleven.") as server:
        reply = complete_at(server.base_url, max_tokens=7, stop=["\n\n"], temperature=0.5)
    (asked,) = server.asked
    assert asked.path == "/v1/completions"
    assert asked.body == {
        "model": "small",
        "prompt": "Header\n\nQ1? A1\n\nQ2? A2\n\nQuery?",
        "max_tokens": 7,
        "stop": ["\n\n"],
        "temperature": 0.5,
    }
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert reply == Reply(" ten. eleven.", "stop", 6, 2)


def test_a_chat_is_asked_for_as_messages() -> None:
    with OpenAIServer(lambda asked: "Yes") as server:
        reply = complete_at(server.base_url, api="chat")
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    roles = [(message["role"], message["content"]) for message in asked.body["messages"]]
    assert roles == [
        ("system", "Header"), ("user", "Q1?"), ("assistant", "A1"), ("user", "Q2?"), ("assistant", "A2"),
        ("user", "Query?"),
    ]  # fmt: skip
    assert reply.text == "Yes"


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_cut_text_keeps_its_finish_reason(api: str) -> None:
    assert complete(answer("half a", finish_reason="length"), api=api).finish_reason == "length"


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (answer("no usage", usage=(0, 0)), Reply("no usage", "stop", 0, 0)),
        (answer("no block", object="x", choices=[]), Reply("", "empty", 3, 2)),
        (answer("\x00 and \ud800"), Reply("\ufffd and \ufffd", "stop", 3, 3)),
        (answer("", finish_reason="content_filter"), Reply("", "content_filter", 3, 0)),
    ],
    ids=["usage of zeros", "empty choices", "NUL and half a surrogate pair", "filtered"],
)
def test_odd_answers_are_replies(api: str, said: Answer, expected: Reply) -> None:
    reply = complete(said, api=api)
    assert (reply.text, reply.finish_reason) == (expected.text, expected.finish_reason)
    assert reply.completion_tokens == expected.completion_tokens


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "many",
        [],
        {"prompt_tokens": "12", "completion_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": -1},
        {"prompt_tokens": 10**12, "completion_tokens": 1.5},
    ],
)
def test_a_usage_that_counts_nothing_is_no_usage(usage: Any) -> None:
    reply = complete(lambda asked: _with(asked, usage=usage))
    assert (reply.prompt_tokens, reply.completion_tokens) == (0, 0)


def _with(asked: Any, **changes: Any) -> Any:
    value = json.loads(answer("fine")(asked).body or b"")
    value.update(changes)
    return raw(json.dumps(value).encode())


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize(
    "said",
    [
        raw(b"{not json at all"),
        raw(b""),
        raw(b"null"),
        raw(b"[]"),
        raw(b'"text"'),
        raw(b"{}"),
        raw(b'{"choices": null}'),
        raw(b'{"choices": {"text": 1}}'),
        raw(b'{"choices": [{"text": 5, "message": {"content": 5}}]}'),
        raw(b'{"choices": [{"text": ["a"], "message": {"content": [{"type": "text"}]}}]}'),
        raw(b"<html><body>Sign in</body></html>", "text/html"),
        raw(b"\xff\xfe\x00", "application/octet-stream"),
        raw(b'{"choices": [{"text": "\xff\xfe"}]}'),
    ],
)
def test_garbage_with_a_200_says_nothing_about_the_request(api: str, said: Answer) -> None:
    with pytest.raises(TransientFailure):
        complete(said, api=api)


@pytest.mark.parametrize("choices", [[None], ["text"], [{}], [{"message": None}], [{"message": "x"}], [[]]])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_choice_of_any_form_is_an_empty_reply_or_a_failure(api: str, choices: Any) -> None:
    try:
        reply = complete(lambda asked: _with(asked, choices=choices), api=api)
    except TransientFailure:
        return
    assert reply.text == ""


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_statuses_that_say_nothing_about_the_request(status: int) -> None:
    with pytest.raises(TransientFailure, match=f"HTTP {status}: scripted") as caught:
        complete(error(status))
    assert caught.value.reached
    assert not caught.value.lost
    assert caught.value.busy == (status in (429, 503))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "0.25"}, 0.25),
        ({"retry_after_ms": "1500", "Retry_After": "9"}, 1.5),
        ({"Retry_After": "an hour from now"}, 3600),
        ({"Retry_After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0),
        ({"Retry_After": "-3"}, 0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "inf"}, None),
        ({}, None),
        ({"x_ratelimit_reset_requests": "1m30s", "x_ratelimit_reset_tokens": "20ms"}, 90),
        (
            {
                "x_ratelimit_remaining_requests": "57",
                "x_ratelimit_reset_requests": "6m0s",
                "x_ratelimit_remaining_tokens": "0",
                "x_ratelimit_reset_tokens": "1.5s",
            },
            1.5,
        ),
        ({"x_ratelimit_reset_requests": "tomorrow"}, None),
    ],
)
def test_the_wait_that_an_endpoint_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    if seconds == 3600:  # a date, made now: parameters are made when tests are collected
        headers = {"Retry_After": formatdate(time.time() + 3600, usegmt=True)}
    with pytest.raises(TransientFailure) as caught:
        complete(error(429, **headers))
    if seconds is None:
        assert caught.value.retry_after is None
    else:
        assert caught.value.retry_after == pytest.approx(seconds, abs=30 if seconds == 3600 else 1e-9)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run(status: int) -> None:
    with pytest.raises(ModelRefusedError, match="refuses the key") as caught:
        complete(error(status, f"Incorrect API key provided: {KEY}"))
    assert KEY not in str(caught.value)
    assert "api_key" in str(caught.value.hint)


@pytest.mark.parametrize(
    "said",
    [
        error(404, "The model `small` does not exist", "model_not_found"),
        error(405),
        error(501),
        error(400, "no such model", "model_not_found"),
        error(400, "not with this model", "unsupported_parameter"),
    ],
)
def test_a_missing_model_or_api_ends_the_run(said: Answer) -> None:
    with pytest.raises(ModelRefusedError, match="no completions API for the model 'small'"):
        complete(said)


def test_an_empty_account_ends_the_run() -> None:
    with pytest.raises(ModelRefusedError, match="no credit left"):
        complete(error(429, "You exceeded your current quota", "insufficient_quota"))


@pytest.mark.parametrize("status", [400, 413, 422, 451])
def test_a_4xx_about_the_request_refuses_it_alone(status: int) -> None:
    with pytest.raises(RequestRefused, match=f"HTTP {status}: too long"):
        complete(error(status, "too long", "context_length_exceeded"))


@pytest.mark.parametrize("body", [b"", b"plain text", b"[1]", b'{"error": "text"}', b'{"error": {"message": 5}}'])
def test_an_error_of_any_form_is_explained(body: bytes) -> None:
    with pytest.raises(RequestRefused, match="HTTP 400"):
        complete(raw(body, status=400))


@pytest.mark.parametrize("said", [RESET, cut(), raw(b"{}", delay=2.0)], ids=["reset", "cut", "silent"])
def test_a_reply_that_got_lost_may_have_been_billed(said: Answer) -> None:
    with pytest.raises(TransientFailure) as caught:
        complete(said, timeout=0.3)
    assert caught.value.reached
    assert caught.value.lost


def test_an_answer_that_drips_is_out_of_time() -> None:
    started = time.monotonic()
    with pytest.raises(TransientFailure, match="in time"):
        complete(raw(b'{"choices": []}' * 20, drip=0.1), timeout=0.5)
    assert time.monotonic() - started < 5


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransientFailure, match=rf"connection to http://127.0.0.1:{port}/v1/ failed") as caught:
        complete_at(f"http://127.0.0.1:{port}/v1")
    assert not caught.value.reached
    assert not caught.value.lost
