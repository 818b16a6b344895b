"""`sia init`, `recipes`, `validate`, `status`: a project and where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfinstruct_argilla.analysis.agreement import by_question, describe_agreement, describe_interval
from selfinstruct_argilla.cli.options import JsonOption, RecipeArgument, SetOption
from selfinstruct_argilla.cli.output import print_data, print_json, say
from selfinstruct_argilla.pool.jsonl import read_tasks
from selfinstruct_argilla.pool.status import PoolStatus
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.recipe import Recipe, bundled_recipes
from selfinstruct_argilla.scaffold import create_project

app = typer.Typer()


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new project's folder.")],
    recipe: Annotated[str, typer.Option(help="The bundled recipe to start from.")] = "self_instruct",
) -> None:
    """Start a project: DIR/recipe.yaml and DIR/seeds/, from a bundled recipe."""
    path = create_project(directory, recipe)
    print_data(str(path))
    say(f"Edit it, then check it: sia validate {path}")


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """List the bundled recipes."""
    listed = {name: _summary(path) for name, path in bundled_recipes().items()}
    if as_json:
        print_json([{"name": name, "description": text} for name, text in listed.items()])
        return
    for name, text in listed.items():
        print_data(f"{name:20} {text}")


@app.command()
def validate(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Check a recipe and its seed files; print every problem with its path in the file."""
    loaded = Recipe.load(recipe, overrides or ())
    seeds = sum(len(read_tasks(path)) for path in loaded.seed_paths)
    print_data(f"{recipe} is valid: {loaded.name}, {seeds} seed tasks, pool {loaded.pool_url}")


@app.command()
def status(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Show where everything stands, from the pool alone."""
    with open_project(recipe, overrides=overrides or ()) as project:
        found = project.status()
    if as_json:
        print_json(found.to_json())
    else:
        print_data(describe(found))


def describe(status: PoolStatus) -> str:
    """The status as a person reads it."""
    spend, review = status.spend, status.review
    lines = ["Pool       " + _counts({name: count for name, count in status.pool.items() if count} or {"tasks": 0})]
    if status.discards:
        lines.append("Discards   " + _counts(status.discards))
    tokens = f"{spend.prompt_tokens:,} prompt and {spend.completion_tokens:,} completion tokens"
    lines.append(f"Spend      {spend.requests:,} requests, {tokens}, ${spend.usd:.4f}")
    if spend.usd:
        each = [f"${usd:.4f} a task {kind}" for kind, usd in status.usd_per.items() if usd is not None]
        lines[-1] += f" ({', '.join(each)})" if each else ""
        lines += [
            f"           round {part['round']}, {part['step']}, {part['model']}:"
            f" {part['requests']:,} requests, ${part['usd']:.4f};"
            f" {part['tasks']:,} tasks, {part['discards']:,} discards"
            for part in status.spend_by
        ]
    if review.get("pushed"):
        records = {name: review[name] for name in ("pushed", "pending", "completed", "conflicts")}
        lines.append(f"Review     {_counts(records)} (records of the dataset {review['dataset']} at {review['url']})")
        lines += [f"           {line}" for line in describe_quality(review["quality"])]
    else:
        lines.append("Review     nothing pushed yet")
    if status.releases:
        lines += [f"Release    {r['version']}, {r['tasks']:,} tasks, {r['target']}" for r in status.releases[-3:]]
    else:
        lines.append("Release    none yet")
    return "\n".join(lines)


def describe_quality(quality: dict[str, Any] | None) -> list[str]:
    """Acceptance, the paper's Table 2, agreement, reasons and the judge model; brackets hold 95 % intervals."""
    if quality is None or not quality["accepted"]["total"]:
        return []
    accepted, found = quality["accepted"], quality["verdicts"]
    lines = [f"accepted: {_share(accepted)} of {accepted['total']:,} records with a verdict"]
    lines.append(
        "good before any edit: " + ", ".join(f"{name} {_share(share)}" for name, share in quality["answers"].items())
    )
    if found is None:
        lines.append("agreement: not known, no record was judged by two people")
    else:
        who = f"{found['annotators']} people, {found['records']:,} records"
        lines.append(f"agreement on the verdict: {describe_agreement(found)} ({who})")
        lines += [
            f"agreement on {name}: {describe_agreement(answers)}" for name, answers in by_question(quality).items()
        ]
    for number, figures in quality["rounds"].items():
        if figures["reasons"]:
            lines.append(f"rejected in round {number} for: {_counts(figures['reasons'])}")
    for name, judge in quality["judge"].items():
        kappa = "" if judge["cohen_kappa"] is None else f", Cohen's κ {judge['cohen_kappa']:.2f}"
        lines.append(f"judge model on {name}: {judge['percent']:.0%} as people{kappa} ({judge['records']:,} records)")
    if quality["calibration"]:
        known = quality["calibration"]
        right = f"{known['share']:.0%} of {known['total']:,} known answers right"
        lines.append(f"calibration: {right} (by person: sia team list)")
    return lines


def _share(share: dict[str, Any]) -> str:
    return f"{share['share']:.0%}{describe_interval(share['interval'], '.0%')}"


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())


def _summary(path: Path) -> str:
    """The recipe's first comment line."""
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").strip()
