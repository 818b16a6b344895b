"""The local Argilla: the real argilla-server in an environment of its own, as a detached process.

    server = ArgillaServer()                    # home: SELFINSTRUCT_HOME/argilla
    endpoint = server.start(progress)           # ArgillaEndpoint(api_url, username, password, api_key, workspace)
    server.status(), server.users(), server.add_user("ann"), server.backup(folder), server.restore(folder)
    server.stop()

`ensure_argilla(progress)` is the start of the default one: what a recipe's `api_url: local` means.

A home holds `argilla.db` (unless a PostgreSQL database was chosen), `credentials.json` and `settings.json` (mode 0600),
`process.json` and `log.txt`. The owner's password and API key are random. The server listens on 127.0.0.1 unless
another host is asked for. What runs inside the server's environment is the folder `argilla/` beside this file.

Everything here raises LocalError with a sentence and the next step, and prints nothing.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx

from selfinstruct_argilla.errors import LocalError
from selfinstruct_argilla.local.environments import Progress, argilla_environment, silent
from selfinstruct_argilla.local.home import selfinstruct_home
from selfinstruct_argilla.local.processes import Daemon, choose_port, write_private

DEFAULT_PORT = 6900
DEFAULT_WORKSPACE = "argilla"
OWNER = "argilla"
ROLES = ("annotator", "admin", "owner")
MIN_PASSWORD_LENGTH = 8  # Argilla's own rule
_START_TIMEOUT = 180.0  # seconds; it takes a few, more on a busy machine or when a large database is migrated
_START = "sia server start"
_SEE_LOGS = "See what it says: sia server logs"


@dataclass(frozen=True)
class Credentials:
    """The owner's account, and whether a person chose its password."""

    username: str
    password: str
    api_key: str
    secret_key: str  # signs web sessions: kept, so that a restart logs nobody out
    password_chosen: bool = False


@dataclass(frozen=True)
class ArgillaEndpoint:
    """What a client of the local Argilla needs."""

    api_url: str
    username: str
    password: str
    api_key: str
    workspace: str = DEFAULT_WORKSPACE


@dataclass(frozen=True)
class ArgillaStatus:
    """The state of a local Argilla; what only the server can tell is None while it is stopped or does not answer."""

    running: bool
    home: Path
    url: str | None = None
    pid: int | None = None
    version: str | None = None
    datasets: int | None = None
    records: int | None = None


@dataclass(frozen=True)
class ArgillaUser:
    """A user of the local Argilla; the password is known only for one just made."""

    username: str
    role: str
    workspaces: tuple[str, ...]
    api_key: str
    password: str | None = None


@dataclass(frozen=True)
class ServerSettings:
    """What a home remembers from one start to the next."""

    port: int = DEFAULT_PORT
    database: str | None = None
    redis: str | None = None


class ArgillaServer:
    """One local Argilla, known by its home folder; several live side by side."""

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = (Path(home) if home is not None else selfinstruct_home() / "argilla").expanduser().resolve()
        self._daemon = Daemon("The local Argilla", self.home, Path(__file__).parent / "argilla" / "boot.py")

    # Life cycle

    def start(
        self,
        progress: Progress = silent,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        database: str | None = None,
        redis: str | None = None,
        password: str | None = None,
    ) -> ArgillaEndpoint:
        """Start the server, or find it running; return when it answers.

        port: default the last one used (at first 6900), or a free one if another program has that.
        host: an address other than loopback needs a `password` chosen by a person, now or at an earlier start.
        database, redis: URLs (`postgresql+asyncpg://…`, `redis://…`) instead of what comes with it; remembered.
        """
        python = argilla_environment().ensure(progress)
        with self._home_errors(), self._daemon.lock():
            running = self._daemon.facts()
            if running is not None:
                self._refuse_other_options(running, port=port, host=host, database=database, redis=redis)
                if password is not None and password != self._credentials().password:
                    raise _stop_first("The local Argilla is running; its password is changed at a start.")
                credentials = self._credentials()
            else:
                credentials = self._prepare_credentials(password)
                self._insist_on_chosen_password(host, credentials)
                settings = self._settings()
                settings = ServerSettings(
                    port=choose_port(port, settings.port, host, _START),
                    database=_checked_database(database) or settings.database,
                    redis=redis or settings.redis,
                )
                write_private(self.home / "credentials.json", json.dumps(asdict(credentials), indent=2))
                write_private(self.home / "settings.json", json.dumps(asdict(settings), indent=2))
                running = {"host": host, **asdict(settings)}
                self._daemon.spawn(
                    python,
                    ["--host", host, "--port", str(settings.port)],
                    _child_environment(settings),
                    running,
                )
            endpoint = _endpoint(running, credentials)
            if not _answers(endpoint):
                progress("Starting Argilla", None)
            self._daemon.wait_until(lambda: _answers(endpoint), _START_TIMEOUT)
        return endpoint

    def stop(self) -> bool:
        """Stop the server; False if it was not running."""
        with self._home_errors(), self._daemon.lock():
            return self._daemon.stop()

    def status(self) -> ArgillaStatus:
        """Whether it runs, where, and what it holds."""
        running = self._daemon.facts()
        if running is None:
            return ArgillaStatus(running=False, home=self.home)
        endpoint = _endpoint(running, self._credentials())
        if not _answers(endpoint):
            return ArgillaStatus(running=True, home=self.home, url=endpoint.api_url, pid=running["pid"])
        with _api(endpoint) as api:
            datasets = _call(api, "GET", "/me/datasets")["items"]
            return ArgillaStatus(
                running=True,
                home=self.home,
                url=endpoint.api_url,
                pid=running["pid"],
                version=_call(api, "GET", "/version")["version"],
                datasets=len(datasets),
                records=sum(_records(api, dataset) for dataset in datasets),
            )

    def endpoint(self) -> ArgillaEndpoint:
        """The running server's address and its owner's account. Raises LocalError if it is not running."""
        running = self._daemon.facts()
        if running is None:
            raise LocalError(f"No local Argilla is running with the home {self.home}.", hint=f"Start it: {_START}")
        return _endpoint(running, self._credentials())

    @property
    def log_file(self) -> Path:
        """Where the server writes its log."""
        return self._daemon.log_file

    def log_tail(self, lines: int) -> list[str]:
        """The last lines of the log; [] if there is none yet."""
        return self._daemon.log_tail(lines)

    # People

    def users(self) -> list[ArgillaUser]:
        """Every user, the owner included, in the order they were made."""
        with _api(self.endpoint()) as api:
            return [
                ArgillaUser(
                    username=user["username"],
                    role=user["role"],
                    workspaces=tuple(w["name"] for w in _call(api, "GET", f"/users/{user['id']}/workspaces")["items"]),
                    api_key=user["api_key"],
                )
                for user in _call(api, "GET", "/users")["items"]
            ]

    def add_user(
        self,
        username: str,
        *,
        role: str = "annotator",
        workspaces: Sequence[str] = (DEFAULT_WORKSPACE,),
        password: str | None = None,
    ) -> ArgillaUser:
        """Make a user, member of the workspaces (made if missing), with a random password unless one is given."""
        if role not in ROLES:
            raise LocalError(f"There is no role {role!r}.", hint=f"Choose one of {', '.join(ROLES)}.")
        password = password if password is not None else secrets.token_urlsafe(9)
        with _api(self.endpoint()) as api:
            if username in {user["username"] for user in _call(api, "GET", "/users")["items"]}:
                raise LocalError(
                    f"There is a user {username!r} already.",
                    hint="Choose another name; who is there: sia server users list",
                )
            account = {"username": username, "first_name": username, "role": role, "password": password}
            user = _call(api, "POST", "/users", json=account)
            known = {workspace["name"]: workspace["id"] for workspace in _call(api, "GET", "/me/workspaces")["items"]}
            for name in workspaces:
                workspace_id = known.get(name) or _call(api, "POST", "/workspaces", json={"name": name})["id"]
                _call(api, "POST", f"/workspaces/{workspace_id}/users", json={"user_id": user["id"]})
        return ArgillaUser(username, role, tuple(workspaces), user["api_key"], password)

    def remove_user(self, username: str, *, with_responses: bool = False) -> None:
        """Remove a user. Argilla removes the user's responses too, so someone who has any is refused unless
        `with_responses`."""
        with _api(self.endpoint()) as api:
            by_name = {user["username"]: user["id"] for user in _call(api, "GET", "/users")["items"]}
            if username not in by_name:
                raise LocalError(f"There is no user {username!r}.", hint="See who is there: sia server users list")
            if username == OWNER:
                raise LocalError(f"{username!r} owns this server and stays.", hint="Remove another user.")
            responses = 0 if with_responses else _responses_of(api, username)
            if responses:
                raise LocalError(
                    f"{username!r} has {responses} response{'s' if responses > 1 else ''}, which would be deleted too.",
                    hint=f"To delete both: sia server users remove {username} --with-responses",
                )
            _call(api, "DELETE", f"/users/{by_name[username]}")

    # Backup

    def backup(self, folder: Path | str) -> Path:
        """Copy the database and the credentials into a new or empty folder, while the server runs or not."""
        folder = Path(folder).expanduser().resolve()
        if folder.exists() and any(folder.iterdir()):
            raise LocalError(f"{folder} is not empty.", hint="Give a new folder: sia server backup DIR")
        with self._home_errors():
            source = self._sqlite_file()
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            copy = folder / "argilla.db"
            os.close(os.open(copy, os.O_CREAT | os.O_WRONLY, 0o600))
            _copy_database(source, copy)
            write_private(folder / "credentials.json", (self.home / "credentials.json").read_text())
        return folder

    def restore(self, folder: Path | str, progress: Progress = silent) -> Path | None:
        """Put a backup in the place of what is there, and start the server again if it was running.

        What was there is backed up first; returns that backup's folder (None: there was nothing)."""
        folder = Path(folder).expanduser().resolve()
        backup = folder / "argilla.db"
        credentials = _read_credentials(folder / "credentials.json")
        if credentials is None or not _is_argilla_database(backup):
            raise LocalError(f"{folder} holds no backup.", hint="Make one with: sia server backup DIR")
        if self._settings().database is not None:
            raise self._not_sqlite()
        with self._home_errors(), self._daemon.lock():
            running = self._daemon.facts()
            before = None
            if (self.home / "argilla.db").exists():
                progress("Backing up what is there", None)
                before = self.backup(self.home / f"before-restore-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}")
            progress("Stopping Argilla", None)
            self._daemon.stop()
            progress("Restoring", None)
            incoming = self.home / "argilla.incoming.db"
            _copy_database(backup, incoming)
            # The stopped server left these empty; beside another database they would damage it.
            for suffix in ("-wal", "-shm"):
                (self.home / f"argilla.db{suffix}").unlink(missing_ok=True)
            incoming.replace(self.home / "argilla.db")
            write_private(self.home / "credentials.json", json.dumps(asdict(credentials), indent=2))
        if running is not None:
            self.start(progress, host=running["host"], port=running["port"])
        return before

    @staticmethod
    def _not_sqlite() -> LocalError:
        return LocalError(
            "This Argilla keeps its data in a PostgreSQL database, which has its own tools for backups.",
            hint="Use pg_dump and pg_restore.",
        )

    def _sqlite_file(self) -> Path:
        if self._settings().database is not None:
            raise self._not_sqlite()
        path = self.home / "argilla.db"
        if not path.exists():
            raise LocalError(f"There is no database in {self.home} yet.", hint=f"Start the server first: {_START}")
        return path

    # Files of the home

    def _credentials(self) -> Credentials:
        credentials = _read_credentials(self.home / "credentials.json")
        if credentials is None:
            raise LocalError(
                f"{self.home / 'credentials.json'} is missing or damaged.",
                hint=f"Make new ones: sia server stop, then {_START}",
            )
        return credentials

    def _prepare_credentials(self, password: str | None) -> Credentials:
        credentials = _read_credentials(self.home / "credentials.json") or Credentials(
            OWNER, secrets.token_urlsafe(12), secrets.token_urlsafe(32), secrets.token_hex(32)
        )
        if password is None:
            return credentials
        if len(password) < MIN_PASSWORD_LENGTH:
            raise LocalError(
                f"The password needs at least {MIN_PASSWORD_LENGTH} characters.", hint="Choose a longer one."
            )
        return replace(credentials, password=password, password_chosen=True)

    def _settings(self) -> ServerSettings:
        try:
            return ServerSettings(**json.loads((self.home / "settings.json").read_text()))
        except (OSError, ValueError, TypeError):
            return ServerSettings()

    @staticmethod
    def _insist_on_chosen_password(host: str, credentials: Credentials) -> None:
        if not is_loopback(host) and not credentials.password_chosen:
            raise LocalError(
                f"Listening on {host} opens this Argilla (its page, its API, every record and account) to whoever "
                "reaches this machine, unencrypted; choose the owner's password first.",
                hint=f"{_START} --host {host} --password (asks for one), or set SELFINSTRUCT_SERVER_PASSWORD.",
            )

    @staticmethod
    def _refuse_other_options(running: dict[str, Any], **wanted: Any) -> None:
        for name, value in wanted.items():
            # The default host is no wish.
            if value not in (None, "127.0.0.1", running[name]):
                raise _stop_first(f"The local Argilla is running with another {name} ({running[name]}).")

    @contextmanager
    def _home_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as exc:
            raise LocalError(
                f"The local Argilla's files cannot be used: {exc}.", hint=f"Check that {self.home} can be written."
            ) from exc


def ensure_argilla(progress: Progress = silent) -> ArgillaEndpoint:
    """The default local Argilla, started if need be: what `api_url: local` means."""
    return ArgillaServer().start(progress)


def is_loopback(host: str) -> bool:
    """Whether a server on this address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop_first(message: str) -> LocalError:
    return LocalError(message, hint=f"Stop it first: sia server stop, then {_START} again.")


def _checked_database(url: str | None) -> str | None:
    if url is not None and not url.startswith("postgresql+asyncpg://"):
        raise LocalError(
            "The database must be given as postgresql+asyncpg://user@host/name.",
            hint="Leave --database out for SQLite, which needs nothing.",
        )
    return url


def _child_environment(settings: ServerSettings) -> dict[str, str]:
    """Ours, without what is meant for the Argilla client or for our own Python."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ARGILLA_", "PYTHON", "VIRTUAL_ENV"))}
    if settings.database is not None:
        environment["ARGILLA_DATABASE_URL"] = settings.database
    if settings.redis is not None:
        environment["ARGILLA_REDIS_URL"] = settings.redis
    return environment


def _endpoint(running: dict[str, Any], credentials: Credentials) -> ArgillaEndpoint:
    host = running["host"]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return ArgillaEndpoint(
        api_url=f"http://{f'[{host}]' if ':' in host else host}:{running['port']}",
        username=credentials.username,
        password=credentials.password,
        api_key=credentials.api_key,
    )


def _read_credentials(path: Path) -> Credentials | None:
    try:
        return Credentials(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


# Argilla's REST API, as far as this room needs it (the client package's place is the review room)


@contextmanager
def _api(endpoint: ArgillaEndpoint) -> Iterator[httpx.Client]:
    # trust_env: a proxy from the environment must not stand between us and this machine.
    with httpx.Client(
        base_url=f"{endpoint.api_url}/api/v1",
        headers={"X-Argilla-Api-Key": endpoint.api_key},
        timeout=60,
        trust_env=False,
    ) as client:
        yield client


def _answers(endpoint: ArgillaEndpoint) -> bool:
    try:
        with _api(endpoint) as api:
            return bool(api.get("/me", timeout=10).status_code == httpx.codes.OK)
    except httpx.HTTPError:
        return False


def _call(api: httpx.Client, method: str, path: str, *, json: dict[str, Any] | None = None) -> Any:
    try:
        response = api.request(method, path, json=json)
    except httpx.HTTPError as exc:
        raise LocalError(f"The local Argilla does not answer: {exc}.", hint=_SEE_LOGS) from exc
    if response.is_error:
        raise LocalError(f"The local Argilla refuses: {_reason(response)}.", hint=_SEE_LOGS)
    return response.json()


def _reason(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
    if isinstance(detail, dict) and "params" in detail:
        detail = detail["params"].get("detail") or detail["params"].get("errors") or detail
    return detail if isinstance(detail, str) else json.dumps(detail)


def _records(api: httpx.Client, dataset: dict[str, Any]) -> int:
    return int(_call(api, "GET", f"/datasets/{dataset['id']}/progress").get("total", 0))


def _responses_of(api: httpx.Client, username: str) -> int:
    """How many responses (drafts and discards included) a user has in all datasets."""
    total = 0
    for dataset in _call(api, "GET", "/me/datasets")["items"]:
        for user in _call(api, "GET", f"/datasets/{dataset['id']}/users/progress")["users"]:
            if user["username"] == username:
                total += sum(user["completed"].values()) + sum(user["pending"].values())
    return total


# SQLite files


def _copy_database(source: Path, target: Path) -> None:
    """A consistent copy, also of a database in use."""
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


def _is_argilla_database(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            sound = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            return sound and bool(connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,))
    except sqlite3.Error:
        return False
