"""`sia report`: where a pool stands, as report.md for people, report.json for programs, and plots where matplotlib is
installed. It holds nobody's name and no text of a task, and the same pool gives the same report.

    tasks, origins           tasks by status and by origin
    rounds                   of each bootstrap round: requests, tasks by status, discards by reason, dollars
    table_1                  the statistics of the Self-Instruct paper, of generated tasks and of accepted ones
    lengths                  words of instructions, inputs and outputs of generated tasks
    novelty                  each generated task's ROUGE-L with the closest before it, in tenths
    review                   records, and what people said (`review/quality.py`)
    spend, releases          as `sia status` has them
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .analysis import figures
from .analysis.agreement import by_question, describe_agreement, describe_interval
from .analysis.lengths import summary, word_counts
from .errors import UsageError
from .pool.pool import TaskPool
from .pool.status import PoolStatus
from .recipe import Recipe
from .release.card import statistics
from .release.formats import task_row
from .tasks import Origin, Status, Task

_WRITTEN = (Origin.GENERATED, Origin.INDUCED)
_TABLE_1 = {
    "instructions": "instructions",
    "classification": "- classification instructions",
    "not_classification": "- non-classification instructions",
    "instances": "instances",
    "empty_input": "- instances with empty input",
    "instruction_words": "ave. instruction length (in words)",
    "input_words": "ave. non-empty input length (in words)",
    "output_words": "ave. output length (in words)",
}


@dataclass(frozen=True)
class Report:
    """A report that was written: its folder, its values (report.json), its plots, and why there are none."""

    folder: Path
    values: dict[str, Any]
    plots: tuple[str, ...]
    missing: str | None


def write_report(recipe: Recipe, pool: TaskPool, status: PoolStatus, folder: Path) -> Report:
    """Writes the report on a pool. Raises UsageError where the folder cannot be written to."""
    tasks = pool.tasks()
    values = collect(recipe, pool, tasks, status)
    drawings = list(_drawings(recipe, tasks, values)) if figures.available() else []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in drawings:
            draw(folder / name)
        plots = tuple(name for name, _ in drawings)
        text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        (folder / "report.md").write_text(render(values, plots), encoding="utf-8")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(
            f"the report cannot be written to {folder}: {error.strerror}", hint="Name another folder with --output."
        ) from error
    return Report(folder, values, plots, None if figures.available() else figures.MISSING)


def collect(recipe: Recipe, pool: TaskPool, tasks: Sequence[Task], status: PoolStatus) -> dict[str, Any]:
    """The values of the report."""
    written = [task for task in tasks if task.origin in _WRITTEN]
    accepted = [task for task in tasks if task.status is Status.ACCEPTED]
    instances = [instance for task in written for instance in task.instances]
    discards: dict[int, dict[str, int]] = {}
    for (round, reason), count in pool.rounds.discards_by("round", "reason").items():
        discards.setdefault(round, {})[reason] = count
    spend = {round: spend for (round,), spend in pool.journal.spend_by("round").items()}
    numbers = sorted({task.round for task in written} | discards.keys() | spend.keys())
    return {
        "name": recipe.name,
        "tasks": status.pool,
        "origins": _counts(task.origin.value for task in tasks),
        "rounds": {
            str(number): {
                "requests": spend[number].requests if number in spend else 0,
                "usd": spend[number].usd if number in spend else 0.0,
                "tasks": _counts(task.status.value for task in written if task.round == number),
                "discards": discards.get(number, {}),
            }
            for number in numbers
        },
        "table_1": {"generated": _table_1(written), "accepted": _table_1(accepted)},
        "lengths": {name: summary(counts) for name, counts in _lengths(written, instances).items()},
        "novelty": _tenths(written),
        "review": status.review,
        "spend": asdict(status.spend),
        "releases": status.releases,
    }


def render(values: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The report in Markdown."""
    spend, review = values["spend"], values["review"]
    statuses = [(name.replace("_", " "), count) for name, count in values["tasks"].items() if count]
    parts = [
        f"# {values['name']}",
        _table(("tasks", "count"), [*statuses, ("all", sum(values["tasks"].values()))]),
        "By origin: " + (_listed(values["origins"]) or "none") + ".",
        f"Spent: {spend['requests']:,} requests, {spend['prompt_tokens']:,} prompt and {spend['completion_tokens']:,} "
        f"completion tokens, ${spend['usd']:.4f}.",
        "## Yield",
        *_yield(values["rounds"]),
        *_shown(plots, "yield", "Tasks and discards of each round"),
        "## Generated tasks",
        "Table 1 of the Self-Instruct paper:",
        _table(
            ("statistic", "generated", "accepted"),
            [
                (title, values["table_1"]["generated"][key], values["table_1"]["accepted"][key])
                for key, title in _TABLE_1.items()
            ],
        ),
        _table(
            ("words of", "texts", "mean", "median", "90 %", "most"),
            [(name, *(value if value is not None else "–" for value in found.values()))
             for name, found in values["lengths"].items()],
        ),
        *_shown(plots, "lengths", "Words of instructions, non-empty inputs and outputs"),
        *_shown(plots, "novelty", "ROUGE-L with the closest earlier task"),
        "## Review",
        *_review(review),
        *_shown(plots, "quality", "Records that are good before any edit, with 95 % intervals"),
        "## Releases",
        _table(("version", "tasks", "target"), [(r["version"], r["tasks"], r["target"]) for r in values["releases"]])
        if values["releases"]
        else "None yet.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


# parts ------------------------------------------------------------------------------------------


def _table_1(tasks: Sequence[Task]) -> dict[str, Any]:
    return statistics([task_row(task, edited=False) for task in tasks])


def _lengths(tasks: Sequence[Task], instances: Sequence[Any]) -> dict[str, list[int]]:
    return {
        "instruction": word_counts(task.instruction for task in tasks),
        "input": word_counts(instance.input for instance in instances if instance.input),
        "output": word_counts(instance.output for instance in instances),
    }


def _tenths(tasks: Sequence[Task]) -> dict[str, int]:
    found = Counter(min(9, int(10 * task.max_rouge_l)) for task in tasks if task.max_rouge_l is not None)
    return {f"{tenth / 10:.1f}": found[tenth] for tenth in range(10)} if found else {}


def _yield(rounds: Mapping[str, Any]) -> Iterator[str]:
    if not rounds:
        yield "No round yet."
        return
    rows = []
    for number, part in rounds.items():
        kept, lost = sum(part["tasks"].values()), sum(part["discards"].values())
        share = f"{kept / (kept + lost):.0%}" if kept + lost else "–"
        rows.append((number, part["requests"], kept, lost, share, f"${part['usd']:.4f}"))
    yield _table(("round", "requests", "tasks", "discards", "yield", "spent"), rows)
    reasons: Counter[str] = Counter()
    for part in rounds.values():
        reasons.update(part["discards"])
    if reasons:
        yield "Turned away: " + _listed(dict(reasons.most_common())) + "."


def _review(review: Mapping[str, Any]) -> Iterator[str]:
    if not review["pushed"]:
        yield "Nothing pushed yet."
        return
    records = {name: review[name] for name in ("pushed", "pending", "completed", "conflicts")}
    yield f"Records of {review['dataset']}: {_listed(records)}."
    quality = review["quality"]
    if not quality or not quality["accepted"]["total"]:
        return
    accepted = quality["accepted"]
    yield (
        f"Accepted, as they are or edited: {accepted['count']:,} of {accepted['total']:,} records"
        f"{describe_interval(accepted['interval'], '.0%')}. Good before any edit (Table 2 of the paper):"
    )
    yield _table(
        ("question", "good", "of", "share"),
        [
            (name, share["count"], share["total"], f"{share['share']:.0%}{describe_interval(share['interval'], '.0%')}")
            for name, share in quality["answers"].items()
            if share["total"]
        ],
    )
    agreement = review["agreement"]
    if agreement is None:
        yield "No record was judged by more than one person: their agreement is not known."
        return
    people = f"{agreement['annotators']} people on {agreement['records']:,} records that several judged"
    yield f"Agreement of {people}, on the verdict: {describe_agreement(agreement)}."
    for name, found in by_question(quality).items():
        yield f"On {name}: {describe_agreement(found)}."


def _drawings(
    recipe: Recipe, tasks: Sequence[Task], values: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The plots that there is something to show in."""
    written = [task for task in tasks if task.origin in _WRITTEN]
    if values["rounds"]:
        stacks = {
            f"round {n}": {"tasks": sum(r["tasks"].values()), **r["discards"]} for n, r in values["rounds"].items()
        }
        yield "figures/yield.png", lambda path: figures.draw_stacks(path, stacks, "instructions")
    if written:
        counts = _lengths(written, [instance for task in written for instance in task.instances])
        yield "figures/lengths.png", lambda path: figures.draw_lengths(path, counts)
    scores = [task.max_rouge_l for task in written if task.max_rouge_l is not None]
    if scores:
        threshold = recipe.bootstrap.novelty.threshold
        yield "figures/novelty.png", lambda path: figures.draw_novelty(path, scores, threshold)
    quality = values["review"]["quality"]
    answers = {
        name: (share["share"], tuple(share["interval"]))
        for name, share in (quality["answers"] if quality else {}).items()
        if share["total"]
    }
    if answers:
        yield "figures/quality.png", lambda path: figures.draw_shares(path, answers)


# text -------------------------------------------------------------------------------------------


def _counts(values: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())


def _shown(plots: Sequence[str], name: str, caption: str) -> list[str]:
    path = f"figures/{name}.png"
    return [f"![{caption}]({path})"] if path in plots else []
