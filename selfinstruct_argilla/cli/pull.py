"""`sia pull`: a pool from a dataset on the Hub."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_argilla.cli.options import JsonOption, SetOption
from selfinstruct_argilla.cli.output import print_data, print_json, progress_display, say
from selfinstruct_argilla.errors import UsageError
from selfinstruct_argilla.project import open_project, project_from_hub
from selfinstruct_argilla.tasks import Status

if TYPE_CHECKING:
    from selfinstruct_argilla.release.pull import PullResult

app = typer.Typer()


class PullAs(str, Enum):
    candidate = "candidate"
    seed = "seed"


@app.command()
def pull(
    repo: Annotated[str, typer.Option(metavar="ORG/NAME[:CONFIG]", help="The Hub dataset.")],
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Whose pool to fill. Default: a new project's.")
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="vX.Y.Z", help="A version. Default: the newest.")] = None,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The new project's folder. Default: the dataset's name.")
    ] = None,
    status: Annotated[
        PullAs | None, typer.Option("--as", help="What tasks of somebody else's dataset become. Default: candidate.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rebuild a pool from a published release, to go on from it, or take in another instruction dataset."""
    if recipe is not None and directory is not None:
        raise UsageError("a recipe has its own folder", hint="Name either RECIPE or --directory.")
    with progress_display() as progress:
        source = recipe or str(project_from_hub(repo, directory, revision=revision, progress=progress))
        with open_project(source, overrides=overrides or ()) as project:
            result = project.pull(
                repo, revision=revision, status=Status(status.value) if status else None, progress=progress
            )
    if as_json:
        print_json({**asdict(result), "recipe": source})
        return
    print_data(describe_pull(result))
    say(f"Go on from it: sia generate {source}")


def describe_pull(result: PullResult) -> str:
    what = f"{result.version} of {result.repo}" if result.version else result.repo
    text = f"Pulled {what}: {result.added} tasks taken in, {result.unchanged} were there already"
    return text + (f"; {result.skipped} rows are not one question with its answer" if result.skipped else "")
