"""A Hugging Face Hub for tests: dataset repositories in memory behind the Hub's own routes (LFS only, no Xet).

The unmodified clients talk to it through HF_ENDPOINT, which they read when they are imported: import this module
first (tests/conftest.py does), it picks the port and sets the environment. `Hub.fault` breaks requests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

_socket = socket.socket()
_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
_socket.bind(("127.0.0.1", 0))
ENDPOINT = f"http://127.0.0.1:{_socket.getsockname()[1]}"
os.environ |= {
    "HF_ENDPOINT": ENDPOINT,
    "HF_HOME": tempfile.mkdtemp(prefix="hf-home-"),
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
os.environ.pop("HF_TOKEN", None)

LARGE = re.compile(r"\.(parquet|png|jpg|zip|bin)$")
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass(frozen=True)
class File:
    """`oid` is git's blob id (for a large file: of its pointer), `sha256` is set for large files."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        body = self.content
        if self.large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(body)}\n"
            body = pointer.encode()
        return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, File]


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit:
        revision = self.tags.get(revision, revision)
        if revision == "main":
            return self.head
        for commit in self.commits:
            if commit.oid == revision:
                return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add(self, title: str, files: dict[str, File]) -> Commit:
        parent = self.commits[-1].oid if self.commits else ""
        listing = json.dumps([parent, title, sorted((path, file.oid) for path, file in files.items())])
        self.commits.append(Commit(hashlib.sha1(listing.encode()).hexdigest(), title, files))
        return self.head


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **extra: Any) -> None:
        self.status, self.message, self.code, self.extra = status, message, code, extra


class Hub:
    """The state of the hub. `tokens` maps a token to (user, role); `orgs` are those every user belongs to."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.tokens = {"hf_writer": ("anna", "write"), "hf_reader": ("anna", "read"), "hf_other": ("bob", "write")}
        self.tokens["hf_narrow"] = ("anna", "fineGrained")  # one that does not cover what it is used for
        self.orgs = {"anna": ["acme"], "bob": []}
        self.requests: list[str] = []
        self.sent = 0  # bytes of large files that clients uploaded
        self.fault: Callable[[int, str], str | None] = lambda number, request: None
        self.observe: Callable[[], None] = lambda: None  # called after every request
        self.lock = threading.RLock()
        self.connections: list[socket.socket] = []

    def repo(self, name: str) -> Repo:
        return self.repos["dataset", name]


@contextmanager
def running() -> Iterator[Hub]:
    """A fresh hub at ENDPOINT."""
    hub = Hub()
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(urlsplit(ENDPOINT).netloc.split(":"), handler, bind_and_activate=False)  # type: ignore[arg-type]
    server.socket.close()
    server.socket = _socket.dup()
    server.server_address = _socket.getsockname()
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        for connection in hub.connections:  # clients keep them open, and would go on with this hub
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    with running() as hub:
        yield hub


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        path = urlsplit(self.path).path
        hub = self.hub
        with hub.lock:
            request = f"{self.command} {unquote(path)}"
            hub.requests.append(request)
            fault = hub.fault(len(hub.requests), request)
            if fault == "reset":
                return self._cut()
            if fault == "429":
                return self._send(429, {"error": "slow down"}, {"Retry-After": "1"})
            if fault == "500":
                return self._send(500, {"error": "internal"})
            try:
                status, value, headers = self._answer(unquote(path), parse_qs(urlsplit(self.path).query), body)
            except Refusal as refusal:
                headers = {"X-Error-Message": refusal.message}
                if refusal.code:
                    headers["X-Error-Code"] = refusal.code
                status, value = refusal.status, {"error": refusal.message, **refusal.extra}
            hub.observe()
            if fault == "lost":
                return self._cut()
            return self._send(status, value, headers)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _cut(self) -> None:
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # routes ------------------------------------------------------------------------------------

    def _answer(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any, dict[str, str]]:
        for method, pattern, function in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                answer = function(self, body=body, query=query, **match.groupdict())
                return answer if isinstance(answer, tuple) else (200, answer, {})
        raise Refusal(404, f"no route {path}")

    def _user(self) -> tuple[str, str]:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            message = "Invalid credentials in Authorization header" if token else "Invalid username or password."
            raise Refusal(401, message)
        return self.hub.tokens[token]

    def _spaces(self, user: str) -> list[str]:
        return [user, *self.hub.orgs[user]]

    def _readable(self, repo: str, kind: str = "dataset") -> Repo:
        found = self.hub.repos.get((kind, repo))
        if found is not None and found.private:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            user = self.hub.tokens.get(token, ("", ""))[0]
            if not user or repo.split("/", maxsplit=1)[0] not in self._spaces(user):
                found = None
        if found is None:
            raise Refusal(404 if self.headers.get("Authorization") else 401, "Repository not found", "RepoNotFound")
        return found

    def _writable(self, repo: str) -> Repo:
        user, role = self._user()
        found = self._readable(repo)
        if role != "write" or repo.split("/", maxsplit=1)[0] not in self._spaces(user):
            raise Refusal(403, "You don't have the rights to write to this repository")
        return found

    def whoami(self, **_: Any) -> Any:
        user, role = self._user()
        orgs = [{"name": name, "type": "org"} for name in self.hub.orgs[user]]
        return {
            "type": "user",
            "name": user,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": {"role": role}},
        }

    def create_repo(self, body: bytes, **_: Any) -> Any:
        user, role = self._user()
        wanted = json.loads(body)
        repo = f"{wanted.get('organization') or user}/{wanted['name']}"
        if role != "write" or repo.split("/", maxsplit=1)[0] not in self._spaces(user):
            raise Refusal(403, "You don't have the rights to create a repository here")
        key = (wanted.get("type", "model"), repo)
        url = f"{ENDPOINT}/datasets/{repo}"
        if key in self.hub.repos:
            raise Refusal(409, "You already created this dataset repo", url=url)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repos[key] = Repo(private)
        attributes = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
        self.hub.repos[key].add("initial commit", {".gitattributes": File(attributes, False)})
        return {"url": url, "name": repo, "id": repo}

    def info(self, repo: str, kind: str, revision: str = "main", **_: Any) -> Any:
        found = self._readable(repo, kind[:-1])
        commit = found.at(revision)
        return {
            "_id": "1", "id": repo, "sha": commit.oid, "private": found.private, "tags": [], "downloads": 0, "likes": 0,
            "disabled": False, "gated": False, "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }  # fmt: skip

    def preupload(self, repo: str, revision: str, body: bytes, **_: Any) -> Any:
        there = self._writable(repo).at(revision).files
        answers = []
        for file in json.loads(body)["files"]:
            base64.b64decode(file["sample"])
            large = bool(LARGE.search(file["path"])) or file["size"] > 10 << 20
            old = there.get(file["path"])
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": (old.sha256 if old.large else old.oid) if old else None,
                }
            )
        return {"files": answers}

    def batch(self, repo: str, body: bytes, **_: Any) -> Any:
        self._writable(repo)
        objects = []
        for item in json.loads(body)["objects"]:
            entry: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.lfs:
                entry["actions"] = {
                    "upload": {"href": f"{ENDPOINT}/storage/{item['oid']}", "header": {}},
                    "verify": {"href": f"{ENDPOINT}/verify", "header": {}},
                }
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def store(self, oid: str, body: bytes, **_: Any) -> Any:
        assert "Authorization" not in self.headers, "a token went to the storage"
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "the content is not what was announced")
        self.hub.lfs[oid] = body
        self.hub.sent += len(body)
        return {}

    def verify(self, body: bytes, **_: Any) -> Any:
        self._user()
        item = json.loads(body)
        if len(self.hub.lfs.get(item["oid"], b"")) != item["size"]:
            raise Refusal(404, "Object does not exist")
        return {}

    def commit(self, repo: str, branch: str, body: bytes, **_: Any) -> Any:
        found = self._writable(repo)
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, found.head.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(found.head.files)
        for line in lines[1:]:
            value = line["value"]
            path = value["path"]
            if line["key"] == "file":
                files[path] = File(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Refusal(400, "Your push was rejected: LFS pointer pointed to a file that does not exist")
                files[path] = File(self.hub.lfs[value["oid"]], True)
            else:
                if path not in files:
                    raise Refusal(400, f"cannot delete {path}")
                del files[path]
        commit = found.add(header["summary"], files)
        return {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{ENDPOINT}/datasets/{repo}/commit/{commit.oid}",
        }

    def tree(self, repo: str, revision: str, query: dict[str, list[str]], folder: str | None = None, **_: Any) -> Any:
        files = self._readable(repo).at(revision).files
        prefix = f"{folder.strip('/')}/" if folder else ""
        inside = {path: file for path, file in files.items() if path.startswith(prefix)}
        if prefix and not inside:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        entries = []
        folders = set()
        for path, file in sorted(inside.items()):
            parts = path.removeprefix(prefix).split("/")
            folders |= {prefix + "/".join(parts[:n]) for n in range(1, len(parts))}
            if len(parts) == 1 or query.get("recursive", ["false"])[0].lower() == "true":
                entries.append(_entry(path, file))
        recursive = query.get("recursive", ["false"])[0].lower() == "true"
        shown = [name for name in sorted(folders) if recursive or "/" not in name.removeprefix(prefix)]
        return [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in shown] + entries

    def paths_info(self, repo: str, revision: str, body: bytes, **_: Any) -> Any:
        files = self._readable(repo).at(revision).files
        return [_entry(path, files[path]) for path in parse_qs(body.decode()).get("paths", []) if path in files]

    def refs(self, repo: str, **_: Any) -> Any:
        found = self._readable(repo)
        tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in found.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.head.oid}
        return {"branches": [main], "tags": tags, "converts": []}

    def commits(self, repo: str, revision: str, **_: Any) -> Any:
        found = self._readable(repo)
        last = found.commits.index(found.at(revision))
        return [
            {"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
            for commit in reversed(found.commits[: last + 1])
        ]

    def tag(self, repo: str, revision: str, body: bytes, **_: Any) -> Any:
        found = self._writable(repo)
        name = json.loads(body)["tag"]
        if name in found.tags:
            raise Refusal(409, f"Tag {name} already exists")
        found.tags[name] = found.at(revision).oid
        return {}

    def resolve(self, repo: str, revision: str, file: str, **_: Any) -> Any:
        commit = self._readable(repo).at(revision)
        if file not in commit.files:
            raise Refusal(
                404,
                "Entry not found",
                "EntryNotFound",
            )
        found = commit.files[file]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{found.oid}"', "Content-Type": "application/octet-stream"}
        if found.large:
            headers |= {"X-Linked-Etag": f'"{found.sha256}"', "X-Linked-Size": str(len(found.content))}
        return 200, found.content, headers

    def validate_card(self, body: bytes, **_: Any) -> Any:
        content = json.loads(body)["content"]
        header = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
        license = header.get("license")
        if license is not None and not re.fullmatch(r"mit|apache-2.0|cc-by-4.0|other", license):
            raise Refusal(400, "", errors=[{"message": f'"license" must be one of the known ones, not {license}'}])
        return {"warnings": [], "errors": []}


def _entry(path: str, file: File) -> dict[str, Any]:
    entry = {"type": "file", "oid": file.oid, "size": len(file.content), "path": path}
    if file.large:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 130}
    return entry


REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create_repo),
    ("POST", "/api/validate-yaml", Handler.validate_card),
    ("GET", f"/api/(?P<kind>datasets|models|spaces)/{REPO}", Handler.info),
    ("GET", f"/api/(?P<kind>datasets|models|spaces)/{REPO}/revision/{REVISION}", Handler.info),
    ("POST", f"/api/datasets/{REPO}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/datasets/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", Handler.store),
    ("POST", "/verify", Handler.verify),
    ("POST", f"/api/datasets/{REPO}/commit/(?P<branch>[^/]+)", Handler.commit),
    ("GET", f"/api/datasets/{REPO}/tree/{REVISION}(?P<folder>/.*)?", Handler.tree),
    ("POST", f"/api/datasets/{REPO}/paths-info/{REVISION}", Handler.paths_info),
    ("GET", f"/api/datasets/{REPO}/refs", Handler.refs),
    ("GET", f"/api/datasets/{REPO}/commits/{REVISION}", Handler.commits),
    ("POST", f"/api/datasets/{REPO}/tag/{REVISION}", Handler.tag),
    ("GET HEAD", f"/datasets/{REPO}/resolve/{REVISION}/(?P<file>.+)", Handler.resolve),
]
