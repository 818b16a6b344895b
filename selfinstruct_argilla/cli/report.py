"""`sia report`: figures and plots of where a pool stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_argilla.cli.options import JsonOption, RecipeArgument, SetOption
from selfinstruct_argilla.cli.output import print_data, print_json, say
from selfinstruct_argilla.project import open_project

app = typer.Typer()


@app.command()
def report(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option(metavar="DIR", help="The report's folder; made if missing.")],
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write figures about the pool: counts, yield, lengths, novelty, what people said; as text, JSON and plots."""
    with open_project(recipe, overrides=overrides or ()) as project:
        found = project.report(output)
    if as_json:
        print_json(found.values)
    else:
        print_data(str(found.folder / "report.md"))
    if found.missing:
        say(f"Without plots: {found.missing}")
