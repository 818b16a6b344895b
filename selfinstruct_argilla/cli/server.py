"""`sia server`: the local Argilla."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_argilla.cli.output import print_data, print_json, progress_display, say
from selfinstruct_argilla.errors import UsageError
from selfinstruct_argilla.local.argilla_server import DEFAULT_WORKSPACE, ROLES, ArgillaServer, is_loopback

PASSWORD_VARIABLE = "SELFINSTRUCT_SERVER_PASSWORD"

app = typer.Typer(help="The local Argilla: start it, stop it, its people, its backups.", no_args_is_help=True)
users = typer.Typer(help="The people of the local Argilla.", no_args_is_help=True)
app.add_typer(users, name="users")

Home = Annotated[
    Path | None, typer.Option(help="Folder of this server's data. Default: inside the SELFINSTRUCT_HOME folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Username = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]


@app.command()
def start(
    port: Annotated[
        int | None,
        typer.Option(help="Default: the one used last (at first 6900), or a free one if another program has it."),
    ] = None,
    home: Home = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anything but 127.0.0.1 lets other machines in.")
    ] = "127.0.0.1",
    database: Annotated[
        str | None,
        typer.Option(help="postgresql+asyncpg://user@host/name instead of SQLite; remembered."),
    ] = None,
    redis: Annotated[
        str | None, typer.Option(help="redis://host:port/0 instead of the one inside; remembered.")
    ] = None,
    password: Annotated[
        bool,
        typer.Option("--password", help=f"Ask for a new owner's password (or set {PASSWORD_VARIABLE})."),
    ] = False,
) -> None:
    """Start Argilla, or find it running; its address goes to stdout."""
    chosen = os.environ.get(PASSWORD_VARIABLE)
    if password and chosen is None:
        if not sys.stdin.isatty():
            raise UsageError("There is no terminal to ask for the password.", hint=f"Set {PASSWORD_VARIABLE} instead.")
        chosen = typer.prompt("New owner's password", hide_input=True, confirmation_prompt=True, err=True)
    with progress_display() as progress:
        endpoint = ArgillaServer(home).start(
            progress, port=port, host=host, database=database, redis=redis, password=chosen
        )
    print_data(endpoint.api_url)
    if not is_loopback(host):
        say(
            f"Open to every machine that reaches {host}: the page, the API, all records and accounts, without "
            "encryption. Put a proxy with HTTPS before it where the network is not yours."
        )
    say(f"Log in as {endpoint.username}; the password: sia server credentials{_home_option(home)}")


@app.command()
def stop(home: Home = None) -> None:
    """Stop Argilla; nothing is lost."""
    say("The local Argilla has stopped." if ArgillaServer(home).stop() else "The local Argilla was not running.")


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Say whether Argilla runs, where, and what it holds."""
    state = ArgillaServer(home).status()
    if as_json:
        print_json(asdict(state))
    elif state.running:
        print_data(
            f"Argilla {state.version} at {state.url} (pid {state.pid}): {state.datasets} datasets, "
            f"{state.records} records; home {state.home}"
        )
    else:
        print_data(f"The local Argilla is not running; home {state.home}")


@app.command()
def logs(
    home: Home = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as lines come, until interrupted.")] = False,
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Print the end of Argilla's log."""
    server = ArgillaServer(home)
    for line in server.log_tail(lines):
        print_data(line)
    if follow:
        with server.log_file.open(errors="replace") as log:
            log.seek(0, os.SEEK_END)
            while True:
                line = log.readline()
                if line:
                    print_data(line.rstrip("\n"))
                else:
                    time.sleep(0.3)


@app.command()
def credentials(home: Home = None, as_json: AsJson = False) -> None:
    """Print the running Argilla's address and its owner's account."""
    endpoint = ArgillaServer(home).endpoint()
    shown = {
        "api_url": endpoint.api_url,
        "username": endpoint.username,
        "password": endpoint.password,
        "api_key": endpoint.api_key,
    }
    if as_json:
        print_json(shown)
    else:
        for name, value in shown.items():
            print_data(f"{name}: {value}")


@app.command()
def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")], home: Home = None
) -> None:
    """Copy everything into a folder, while Argilla runs or not."""
    folder = ArgillaServer(home).backup(directory)
    say(f"Backed up to {folder}. It holds the owner's password: keep it as you keep the server.")


@app.command()
def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by sia server backup.")],
    home: Home = None,
) -> None:
    """Put a backup in the place of what is there (which is backed up first); a running Argilla starts again."""
    with progress_display() as progress:
        before = ArgillaServer(home).restore(directory, progress)
    say(f"Restored {directory}." + (f" What was there before is in {before}." if before else ""))


@users.command("add")
def add_user(
    name: Username,
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "annotator",
    workspace: Annotated[str, typer.Option(help="Workspace to join; made if missing.")] = DEFAULT_WORKSPACE,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a user with a random password, and print it: it is shown only now."""
    user = ArgillaServer(home).add_user(name, role=role, workspaces=[workspace])
    shown = {"username": user.username, "password": user.password, "api_key": user.api_key}
    if as_json:
        print_json(shown)
    else:
        for key, value in shown.items():
            print_data(f"{key}: {value}")
        say(f"{user.username} ({user.role}) can log in at {ArgillaServer(home).endpoint().api_url}")


@users.command("list")
def list_users(home: Home = None, as_json: AsJson = False) -> None:
    """List every user with role and workspaces."""
    people = [
        {"username": user.username, "role": user.role, "workspaces": list(user.workspaces)}
        for user in ArgillaServer(home).users()
    ]
    if as_json:
        print_json(people)
    else:
        for person in people:
            print_data(f"{person['username']}\t{person['role']}\t{', '.join(person['workspaces'])}")


@users.command("remove")
def remove_user(
    name: Username,
    with_responses: Annotated[
        bool, typer.Option("--with-responses", help="Also when responses are deleted with the user.")
    ] = False,
    home: Home = None,
) -> None:
    """Remove a user; one who has responses only with --with-responses, because Argilla deletes those too."""
    ArgillaServer(home).remove_user(name, with_responses=with_responses)
    say(f"Removed {name}.")


def _home_option(home: Path | None) -> str:
    return f" --home {home}" if home is not None else ""
