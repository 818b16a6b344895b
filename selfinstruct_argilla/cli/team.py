"""`sia team add|list|comments`: the people of a review, on the recipe's Argilla."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from selfinstruct_argilla.cli.options import JsonOption, RecipeArgument, SetOption
from selfinstruct_argilla.cli.output import print_data, print_json, say
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.review.team import ROLES, Member
from selfinstruct_argilla.tasks import external_id

app = typer.Typer(no_args_is_help=True, help="The people of a review: accounts, and how far each of them is.")


@app.command()
def add(
    recipe: RecipeArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="User names.")],
    role: Annotated[str, typer.Option(help=f"Of new accounts: one of {', '.join(ROLES)}.")] = "annotator",
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make accounts in the review's workspace and print their passwords: they are shown only now."""
    added: list[Member] = []
    try:
        with open_project(recipe, overrides=overrides or ()) as project:
            workspace = project.recipe.review.argilla.workspace
            for name in dict.fromkeys(names):  # one by one: a password that was made is shown, whatever follows
                added += project.add_team([name], role=role)
                if not as_json:
                    print_data(_account(added[-1], workspace))
    finally:
        if as_json and added:
            print_json([asdict(member) for member in added])
    if as_json:
        return
    say("Give each person their own line. To share out the records among them, name them under review.annotators.")


def _account(member: Member, workspace: str) -> str:
    if member.password is None:
        return f"{member.username}  had an account already and is now in the workspace {workspace}"
    return f"{member.username}  password {member.password}  api_key {member.api_key}"


@app.command(name="list")
def list_members(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Show how far each person is, as of the last sync, and how accurate; for the lead, never published."""
    with open_project(recipe, overrides=overrides or ()) as project:
        people = project.team()
    if as_json:
        print_json([_as_json(person) for person in people])
        return
    for person in people:
        parts = [f"{person.submitted:,} submitted", f"{person.drafts:,} drafts", f"{person.discarded:,} discarded"]
        if person.assigned:
            parts.append(f"{person.waiting:,} of {person.assigned:,} assigned still waiting")
        if person.calibration is not None:
            right = person.calibration
            parts.append(f"{right.count / right.total:.0%} of {right.total:,} known answers right")
        print_data(f"{person.username} ({person.role}): {', '.join(parts)}")


@app.command(name="comments")
def list_comments(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Show what people wrote beside their answers, as of the last sync; for the lead, never published."""
    with open_project(recipe, overrides=overrides or ()) as project:
        found = project.comments()
    if as_json:
        print_json([asdict(comment) for comment in found])
        return
    for comment in found:
        record = external_id(comment.task_id, comment.instance)
        print_data(f"{record}  {comment.username} ({comment.status}): {comment.text}")


def _as_json(person: Any) -> dict[str, Any]:
    calibration = person.calibration.to_json() if person.calibration is not None else None
    return {**asdict(person), "calibration": calibration}
