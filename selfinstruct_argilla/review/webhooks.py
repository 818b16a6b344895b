"""Being told by Argilla that somebody answered, instead of asking again and again.

A notice is only a reason to look: what happened is still read by `sync`. So one that is lost, doubled or late changes
nothing, and the outcome is the one of polling. Where Argilla cannot reach us, or the key is not an owner's, it is
polling.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import ReviewError

if TYPE_CHECKING:
    from .argilla_client import ArgillaClient

_EVENTS = ["response.created", "response.updated", "response.deleted", "record.deleted"]
_LARGEST_NOTICE = 10_000_000  # bytes
_PING_SECONDS = 5.0


@contextmanager
def notices(client: ArgillaClient, address: str, *, name: str) -> Iterator[Callable[[float], object] | None]:
    """A function that waits so many seconds, or until Argilla gives notice; None where it cannot reach `address`.

    address: http://HOST:PORT of this machine as Argilla sees it; port 0 is any free one. name: whose webhook it is; one
    of the same name that was left behind is removed.
    """
    listener = _Listener(address)
    hook = None
    try:
        try:
            listener.start()
            _remove(client, name)
            body = {"url": listener.url, "events": _EVENTS, "description": name}
            hook = client.send("POST", "webhooks", body)
            listener.secret = _key(hook["secret"])
            client.send("POST", f"webhooks/{hook['id']}/ping", patience=0.0)
            reached = listener.noticed.wait(_PING_SECONDS)
        except (ReviewError, OSError):  # not an owner, too many webhooks, a port that is taken, an address in vain
            reached = False
        yield listener.wait if reached else None
    finally:
        listener.close()
        if hook is not None:
            with suppress(ReviewError):  # else the next watch removes it
                client.send("DELETE", f"webhooks/{hook['id']}", patience=0.0)


def _remove(client: ArgillaClient, name: str) -> None:
    for hook in client.get("webhooks")["items"]:
        if hook["description"] == name:
            client.send("DELETE", f"webhooks/{hook['id']}")


class _Listener:
    """A small HTTP server in a thread that only knows whether a signed notice came in."""

    def __init__(self, address: str) -> None:
        self.noticed = threading.Event()
        self.secret = b""
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 0
        self._server: ThreadingHTTPServer | None = None
        self.url = ""

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(min(int(self.headers.get("content-length") or 0), _LARGEST_NOTICE))
                signed = listener.is_signed(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(204 if signed else 401)
                self.end_headers()
                if signed:
                    listener.noticed.set()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        # loopback names are for this machine alone; any other name may be one of several of its addresses
        interface = "127.0.0.1" if self._host in ("127.0.0.1", "localhost") else ""
        self._server = ThreadingHTTPServer((interface, self._port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{self._host}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, name="notices", daemon=True).start()

    def wait(self, seconds: float) -> None:
        self.noticed.wait(seconds)
        self.noticed.clear()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def is_signed(self, body: bytes, headers: dict[str, str]) -> bool:
        """Whether Argilla wrote it (standardwebhooks.com, v1). Its age does not matter: a replay is one look more."""
        content = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.digest(self.secret, content, hashlib.sha256)).decode()
        given = headers.get("webhook-signature", "").split(" ")
        return bool(self.secret) and any(hmac.compare_digest(expected, signature) for signature in given)


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_") + "==")


def hook_name(pool_id: str) -> str:
    """The name of this pool's webhook for this machine."""
    return f"selfinstruct-argilla {pool_id} on {socket.gethostname()}"
