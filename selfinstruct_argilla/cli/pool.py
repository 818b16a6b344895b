"""`sia pool`: tasks in and out, and the proof that the journal is whole."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_argilla.cli.options import JsonOption, RecipeArgument, SetOption
from selfinstruct_argilla.cli.output import print_data, print_json, say
from selfinstruct_argilla.pool.jsonl import format_tasks, read_tasks
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.tasks import Status

app = typer.Typer(help="The task pool: import, export, verify.", no_args_is_help=True)


class ImportAs(str, Enum):
    seed = "seed"
    candidate = "candidate"
    accepted = "accepted"


@app.command("import")
def import_tasks(
    recipe: RecipeArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines in the seed-task format.")],
    status: Annotated[ImportAs, typer.Option("--as", help="What the tasks come in as.")] = ImportAs.candidate,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take tasks in, all of the file or none; nothing is filtered."""
    tasks = read_tasks(file)
    with open_project(recipe, overrides=overrides or ()) as project:
        result = project.pool.import_tasks(tasks, Status(status.value))
    if as_json:
        print_json({"added": result.added, "unchanged": result.unchanged})
    else:
        print_data(f"{result.added} tasks taken in as {status.value}, {result.unchanged} were there already")


@app.command("export")
def export_tasks(
    recipe: RecipeArgument,
    status: Annotated[list[Status] | None, typer.Option(help="Only tasks of this status. Repeatable.")] = None,
    output: Annotated[Path | None, typer.Option(help="A file instead of stdout.")] = None,
    overrides: SetOption = None,
) -> None:
    """Write tasks as JSON lines, sorted by id, with status, origin, round and provenance."""
    with open_project(recipe, overrides=overrides or ()) as project:
        tasks = project.pool.tasks(status or None)
    if output is None:
        sys.stdout.writelines(format_tasks(tasks))
        return
    with output.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(format_tasks(tasks))
    say(f"{len(tasks)} tasks written to {output}")


@app.command()
def verify(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Prove that the journal is whole and that every generated task follows from it."""
    with open_project(recipe, overrides=overrides or ()) as project:
        result = project.verify()
    if as_json:
        print_json({"tasks": result.tasks, "replies": result.replies, "problems": result.problems})
    else:
        print_data(f"{result.tasks} generated tasks parsed again from {result.replies} replies")
        for problem in result.problems:
            print_data(f"- {problem}")
    if result.problems:
        say(
            f"Error: {len(result.problems)} problems; this pool was changed by something else than selfinstruct-argilla"
        )
        raise typer.Exit(1)
