"""A scripted OpenAI-compatible server on a real socket: it answers, refuses, hangs, lies and hangs up as told.

    with OpenAIServer(lambda request: "Nine.") as server:
        OpenAIModel(server.base_url, "key")
        server.asked, server.most_in_flight

A script is a function of what was asked. It returns a text (a good answer, with usage) or one of the plays below.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; `number` counts from 1."""

    number: int
    path: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    at: float

    @property
    def prompt(self) -> str:
        """The text of a completion's prompt, or of all messages of a chat."""
        if "prompt" in self.body:
            return str(self.body["prompt"])
        return "\n".join(message["content"] for message in self.body["messages"])


@dataclass(frozen=True)
class Play:
    """What the server does with one request, after `delay` seconds."""

    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut_at: int | None = None  # bytes of the body that are sent before the connection ends
    reset: bool = False  # no answer: the connection is reset
    drip: float = 0.0  # seconds between bytes


def answer(
    text: str,
    *,
    finish_reason: str | None = "stop",
    usage: tuple[int, int] | None = None,
    delay: float = 0.0,
    **changes: Any,
) -> Callable[[Asked], Play]:
    """A good answer; `changes` replace top-level keys of its JSON, or remove them where they are None."""

    def play(asked: Asked) -> Play:
        return Play(body=json.dumps(_completion(asked, text, finish_reason, usage, changes)).encode(), delay=delay)

    return play


def error(status: int, message: str = "scripted", code: Any = None, delay: float = 0.0, **headers: str) -> Play:
    """An error in OpenAI's form; header names are given with underscores."""
    body = {"error": {"message": message, "type": "scripted", "param": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Play(status, json.dumps(body).encode(), named, delay)


def raw(body: bytes, content_type: str = "application/json", **options: Any) -> Play:
    """A 200 with any body at all."""
    return Play(body=body, headers={"Content-Type": content_type}, **options)


def cut(text: str = "never whole") -> Callable[[Asked], Play]:
    """An answer that ends in the middle of its body."""

    def play(asked: Asked) -> Play:
        body = json.dumps(_completion(asked, text, "stop", None, {})).encode()
        return Play(body=body, cut_at=len(body) // 2)

    return play


RESET = Play(reset=True)

Answer = str | Play | Callable[[Asked], Play]
Script = Callable[[Asked], Answer]


def usage_of(asked: Asked, text: str) -> tuple[int, int]:
    """The tokens that an answer reports unless it is told otherwise: one for each word."""
    return len(asked.prompt.split()), len(text.split())


def _completion(
    asked: Asked, text: str, finish_reason: str | None, usage: tuple[int, int] | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    chat = asked.path.endswith("/chat/completions")
    prompt_tokens, completion_tokens = usage or usage_of(asked, text)
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    value = {
        "id": f"scripted-{asked.number}",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": asked.body.get("model"),
        "choices": [{"index": 0, "finish_reason": finish_reason, "logprobs": None, **content}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
    value.update(changes)
    return {key: item for key, item in value.items() if item is not None}


class OpenAIServer:
    """The server in a thread of its own; it closes with the block."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.served: list[tuple[Asked, int]] = []  # every answer that left whole, with its status
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> OpenAIServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def begin(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Asked:
        with self._lock:
            asked = Asked(len(self.asked) + 1, path, body, headers, time.monotonic())
            self.asked.append(asked)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        return asked

    def end(self, asked: Asked, status: int | None) -> None:
        with self._lock:
            self._in_flight -= 1
            if status is not None:
                self.served.append((asked, status))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the play."""


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = server.begin(self.path, body, {name.lower(): value for name, value in self.headers.items()})
            status: int | None = None
            try:
                status = self._play(asked)
            finally:
                server.end(asked, status)

        def _play(self, asked: Asked) -> int | None:
            said = server.script(asked)
            if isinstance(said, str):
                said = answer(said)
            play = said if isinstance(said, Play) else said(asked)
            time.sleep(play.delay)
            if play.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return None
            body = play.body or b""
            self.send_response(play.status)
            for name, value in {"Content-Type": "application/json", **play.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if play.drip:
                for position in range(len(body)):
                    self.wfile.write(body[position : position + 1])
                    self.wfile.flush()
                    time.sleep(play.drip)
            else:
                self.wfile.write(body[: play.cut_at])
            self.wfile.flush()
            if play.cut_at is not None:
                self.close_connection = True
                return None
            return play.status

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
