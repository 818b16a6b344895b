"""`sia generate`, `push`, `sync`, `publish`, `run`, `quickstart`: the loop, stage by stage and as a whole."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from selfinstruct_argilla.bootstrap.loop import GenerateResult
from selfinstruct_argilla.bootstrap.preview import Preview
from selfinstruct_argilla.cli.options import JsonOption, RecipeArgument, SetOption
from selfinstruct_argilla.cli.output import print_data, print_json, progress_display, say
from selfinstruct_argilla.llm.base import Api
from selfinstruct_argilla.project import Progress, Project, open_project
from selfinstruct_argilla.recipe import LOCAL, Recipe
from selfinstruct_argilla.scaffold import RECIPE, create_project

if TYPE_CHECKING:
    from selfinstruct_argilla.release.publish import PublishResult
    from selfinstruct_argilla.review.push import PushResult
    from selfinstruct_argilla.review.sync import SyncResult

_Result = TypeVar("_Result")

app = typer.Typer()

WaitOption = Annotated[
    bool | None,
    typer.Option("--wait/--no-wait", help="Wait until people have judged everything. Default: only on a terminal."),
]


@app.command()
def generate(
    recipe: RecipeArgument,
    target: Annotated[
        int | None, typer.Option(min=1, help="Go on until the pool holds this many generated tasks.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first prompts and what the round would cost; ask nothing.")
    ] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the model write new tasks: one round, or the end of an unfinished one."""
    if dry_run:
        with open_project(recipe, overrides=overrides or ()) as project:
            shown = project.preview(target=target)
            api = project.recipe.models.generator.api
        print_json(asdict(shown)) if as_json else print_data(describe_preview(shown, api))
        return
    with open_project(recipe, overrides=overrides or ()) as project, progress_display() as progress:
        result = project.generate(target=target, progress=progress)
    print_json(asdict(result)) if as_json else print_data(describe_generate(result))


@app.command()
def push(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Send candidates to Argilla, for people to judge."""
    with open_project(recipe, overrides=overrides or ()) as project, progress_display() as progress:
        result = project.push(progress=progress)
    print_json(asdict(result)) if as_json else print_data(describe_push(result))


@app.command()
def sync(
    recipe: RecipeArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Follow people's answers until interrupted.")] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take people's verdicts and edits back into the pool."""
    with open_project(recipe, overrides=overrides or ()) as project, progress_display() as progress:
        results = project.watch(progress=progress) if watch else iter([project.sync(progress=progress)])
        for result in results:
            print_json(asdict(result)) if as_json else print_data(describe_sync(result))


@app.command()
def publish(
    recipe: RecipeArgument,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="A folder instead of the Hub.")] = None,
    repo: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="The Hub dataset.")] = None,
    version: Annotated[str | None, typer.Option(metavar="X.Y.Z", help="Instead of the next one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be published; change nothing.")] = False,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Release this task although the secret scan stops it.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a versioned release of the accepted tasks and publish it."""
    with open_project(recipe, overrides=overrides or ()) as project, progress_display() as progress:
        result = project.publish(
            to=to, repo=repo, version=version, dry_run=dry_run, allow=allow or (), progress=progress
        )
    print_json(asdict(result)) if as_json else print_data(describe_publish(result, dry_run=dry_run))


@app.command()
def run(
    recipe: RecipeArgument,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 1,
    wait: WaitOption = None,
    overrides: SetOption = None,
) -> None:
    """Go round the loop: sync, generate, push, wait for people, sync, publish."""
    with open_project(recipe, overrides=overrides or ()) as project:
        for number in range(1, rounds + 1):
            say(f"Round {number} of {rounds}")
            if project.status().review.get("pushed"):
                _say_stage(lambda progress: project.sync(progress=progress), describe_sync)
            _go_round(project, lambda progress: project.generate(progress=progress), wait=_waits(wait))


@app.command()
def quickstart(
    directory: Annotated[Path, typer.Option(metavar="DIR", help="The project's folder; made if missing.")] = Path(
        "quickstart"
    ),
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks the model is to write.")] = 12,
    wait: WaitOption = None,
) -> None:
    """The whole loop on this machine alone: a tiny local model, a local Argilla, a release in a folder."""
    path = directory / RECIPE
    if path.exists():
        say(f"Going on with {path}")
    else:
        # a name of its own, so that its review dataset is new too
        path = create_project(directory, "quickstart", name=f"quickstart-{secrets.token_hex(3)}", target=tasks)
        say(f"Made {path}, with 175 seed tasks")
    say("The local model is tiny (135 million parameters): it shows how the loop works; it does not write good data.")
    with open_project(path) as project:
        _start_local(project.recipe)
        _go_round(project, lambda progress: project.generate(target=tasks, progress=progress), wait=_waits(wait))


# the loop as a whole -----------------------------------------------------------------------------


def _go_round(project: Project, generate: Callable[[Progress], GenerateResult], *, wait: bool) -> None:
    """generate → push → people → sync → publish; without waiting, what people have judged so far."""
    source = project.recipe.source
    _say_stage(generate, describe_generate)
    pushed = _say_stage(lambda progress: project.push(progress=progress), describe_push)
    if wait:
        _tell_where(project, pushed.url)
        _wait_for_people(project)
    result = _say_stage(lambda progress: project.sync(progress=progress), describe_sync)
    settings = project.recipe.release
    if result.accepted and (settings.repo or settings.to):
        _say_stage(lambda progress: project.publish(progress=progress), describe_publish)
    if not wait:
        _tell_where(project, pushed.url)
        say("Then take the verdicts in, publish what people accepted, and go another round:")
        to = "" if settings.repo or settings.to else " --to release"
        for command in (f"sia sync {source}", f"sia publish {source}{to}", f"sia run {source}"):
            print_data(f"  {command}")


def _say_stage(stage: Callable[[Progress], _Result], describe: Callable[[_Result], str]) -> _Result:
    with progress_display() as progress:
        result = stage(progress)
    print_data(describe(result))
    return result


def _tell_where(project: Project, url: str) -> None:
    say(f"Judge the tasks in Argilla: {url}")
    if project.recipe.review.argilla.api_url == LOCAL:
        from selfinstruct_argilla.local.argilla_server import ArgillaServer

        credentials = ArgillaServer().endpoint()
        say(f"Log in as {credentials.username} with the password {credentials.password}")
        say("More people: sia server users add NAME --role annotator")
    say("Answer the three questions of each record; correct the texts in place where that mends it; then submit.")


def _wait_for_people(project: Project) -> None:
    """Follows people's answers until every record has a verdict."""
    say("Waiting until every record is judged. Ctrl-C stops waiting; the same command goes on from here.")
    with progress_display() as progress:
        for result in project.watch():
            counts = project.pool.reviews.summary()
            if not counts["pending"]:
                return
            share = counts["completed"] / counts["pushed"]
            passed_over = f", {result.discarded} discarded by all who answered" if result.discarded else ""
            progress(f"People: {counts['completed']} of {counts['pushed']} records judged{passed_over}", share)


def _start_local(recipe: Recipe) -> None:
    """Both local servers at once: most of the time goes into installing their environments."""
    from selfinstruct_argilla.local.argilla_server import ensure_argilla
    from selfinstruct_argilla.local.model_server import ensure_model

    with progress_display() as progress, ThreadPoolExecutor(2) as threads:
        started: list[Future[Any]] = []
        if recipe.models.generator.base_url == LOCAL:
            started.append(threads.submit(ensure_model, recipe.models.generator.model, progress))
        if recipe.review.argilla.api_url == LOCAL:
            started.append(threads.submit(ensure_argilla, progress))
        for starting in started:
            starting.result()


def _waits(wait: bool | None) -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty() if wait is None else wait


# results as a person reads them ------------------------------------------------------------------


def describe_generate(result: GenerateResult) -> str:
    if result.round is None:
        return f"Nothing to generate: the pool holds {result.total} generated tasks"
    lines = [
        f"Round {result.round}: {result.generated} new tasks from {result.requests} requests; {result.total} in all"
    ]
    if result.discards:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in result.discards.items())
        lines.append(f"Turned away: {reasons}")
    if result.unclassified:
        lines.append(f"{result.unclassified} tasks stayed unclassified: the model said neither yes nor no")
    if result.ended == "budget":
        lines.append(f"Stopped at the budget of {result.cap}. To go on, raise bootstrap.budget and run this again.")
    return "\n".join(lines)


def describe_preview(preview: Preview, api: Api) -> str:
    parts = []
    for step in preview.steps:
        prompt = step.prompt
        shown = (
            prompt.text
            if api == "completions"
            else "\n".join(f"[{m['role']}] {m['content']}" for m in prompt.messages())
        )
        parts.append(f"--- {step.step} {json.dumps(step.parameters, ensure_ascii=False)}\n{shown}\n")
    basis = "this pool's own averages" if preview.observed else "rules of thumb: about half of what is asked for passes"
    parts.append(f"--- estimate for {preview.target} new tasks, by {basis}")
    for step in preview.steps:
        tokens = f"{step.prompt_tokens:,} prompt and {step.completion_tokens:,} completion tokens"
        parts.append(f"{step.step:15} {step.requests:6,} requests, {tokens}, ${step.usd:.4f}")
    parts.append(f"{'in all':15} {preview.requests:6,} requests, ${preview.usd:.4f}")
    return "\n".join(parts)


def describe_push(result: PushResult) -> str:
    text = f"Pushed {result.pushed} records, {result.unchanged} were there already: {result.dataset} at {result.url}"
    if result.calibration:
        text += f"\n{result.calibration} calibration records are among them"
    if result.waiting:
        text += f"\n{result.waiting} candidates are not due yet (review.batch, review.sample)"
    return "\n".join([text, *(f"Argilla refuses {name}: {reason}" for name, reason in result.refused.items())])


def describe_sync(result: SyncResult) -> str:
    text = (
        f"Synced {result.responses} new responses: {result.accepted} tasks accepted, {result.rejected} rejected,"
        f" {result.conflicts} in conflict, {result.pending} pending; {result.edited} edited"
    )
    lines = [text, *(f"Flagged {task}: its edited text fails {reason}" for task, reason in result.flagged)]
    if result.withdrawn:
        lines.append(f"{result.withdrawn} tasks are withdrawn: their records were deleted in Argilla")
    if result.discarded:
        lines.append(f"{result.discarded} records were discarded by all who answered: somebody else must judge them")
    if result.unknown_adjudicators:
        names = ", ".join(result.unknown_adjudicators)
        lines.append(f"review.adjudicators names people who are not in the workspace: {names}")
    return "\n".join(lines)


def describe_publish(result: PublishResult, *, dry_run: bool = False) -> str:
    what = f"{result.version} with {result.tasks} tasks and {result.instances} instances"
    if dry_run:
        text = f"Would publish {what} to {result.target}"
    elif not result.published:
        return f"Nothing new to publish: {result.target} is at {result.version}"
    else:
        text = f"Published {what} to {result.target}"
    return "\n".join([text, *(f"Withheld {item.task_id}: {item.reason}" for item in result.withheld)])
