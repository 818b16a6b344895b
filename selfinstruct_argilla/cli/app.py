"""`sia`: the command line. Each command prints over a function that works; errors are turned into sentences here."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer
import typer.core

from selfinstruct_argilla.cli import loop, model, pool, project, pull, report, server, team
from selfinstruct_argilla.cli.output import say
from selfinstruct_argilla.errors import SelfInstructError


class Commands(typer.core.TyperGroup):
    """A known error is one sentence, what to do next, and its exit code; anything else is a bug and a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SelfInstructError as error:
            say(f"Error: {error.message}")
            if error.hint:
                say(error.hint)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            say("Interrupted; the same command goes on from here.")
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
            raise typer.Exit(0) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            say(f"Error: {error.strerror} ({error.filename or 'while writing'})")
            say("Free some space or choose another folder, then run the same command again: what was done is kept.")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Grow an instruction dataset with a language model and keep people in the loop.",
)
for commands in (project.app, loop.app, pull.app, report.app):
    app.registered_commands += commands.registered_commands
app.add_typer(pool.app, name="pool")
app.add_typer(team.app, name="team")
app.add_typer(server.app, name="server")
app.add_typer(model.app, name="model")


def main() -> None:
    """The console script."""
    app()
