"""The dataset card, `README.md`, and the change log.

The card is written anew with every release, and what people wrote into it stays: a section (from one `## ` heading to
the next) is ours as long as it is, letter by letter, what the last release wrote there. Once somebody has edited it
it is theirs, as are sections with other headings; a section that was deleted stays away. In the YAML, what the release
decides is ours (language, license, size, configs, our tags), the rest is filled in once and then belongs to people.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import yaml

from ..analysis.agreement import by_question, describe_agreement, describe_interval, wilson_interval
from ..analysis.lengths import word_counts
from ..errors import ReleaseError
from .formats import Row

_TAGS = ("synthetic", "self-instruct", "argilla", "human-feedback")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0
lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail
openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
_EXAMPLE_LENGTH = 600  # characters of each text


def check_license(license: str | None) -> None:
    """Raises ReleaseError for a license that the Hub does not know by this name."""
    known = _LICENSES.split()
    if license is not None and license not in known:
        close = difflib.get_close_matches(license.lower(), known, n=1)
        raise ReleaseError(
            f"{license!r} is not the id of a license that the Hub knows",
            hint=f"Did you mean {close[0]}?" if close else "For example mit, apache-2.0, cc-by-4.0, or other.",
        )


def statistics(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of the Self-Instruct paper's Table 1; lengths are mean numbers of words (`word_counts`)."""
    instances = [instance for row in rows for instance in row["instances"]]
    inputs = [instance["input"] for instance in instances if instance["input"]]
    return {
        "instructions": len(rows),
        "classification": sum(row["is_classification"] is True for row in rows),
        "not_classification": sum(row["is_classification"] is not True for row in rows),
        "instances": len(instances),
        "empty_input": len(instances) - len(inputs),
        "instruction_words": _mean_words(row["instruction"] for row in rows),
        "input_words": _mean_words(inputs),
        "output_words": _mean_words(instance["output"] for instance in instances),
    }


def changelog(history: Sequence[Mapping[str, Any]]) -> str:
    """CHANGELOG.md from the manifest's history, newest first."""
    lines = ["# Changelog", "", "Counts of tasks; their ids are in the `manifest.json` of each version.", ""]
    for entry in history:
        lines += [f"## {entry['version']}", "", f"{_changes(entry)} {_count(entry['tasks'], 'task')} in all.", ""]
    return "\n".join(lines)


def render_card(
    manifest: Mapping[str, Any],
    rows: Sequence[Row],
    existing: str | None = None,
    written: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, str]]:
    """The card of a release, and the sha256 of each section that we wrote, by heading.

    `existing` is the card of the target so far, `written` what this function returned with it.
    """
    header, body = _split_card(existing or "")
    ours = {
        "": _summary(manifest),
        "How to load it": _loading(manifest),
        "Versions": _versions(manifest["history"]),
        "How it was made": _making(manifest, rows),
        "How people judged": _judging(manifest["review"]),
        "Statistics": _statistics(manifest["statistics"], manifest["figures"]),
        "Examples": _examples(rows),
        "Limits and biases": _LIMITS,
    }
    ours = {heading: f"## {heading}\n\n{text}" if heading else text for heading, text in ours.items()}
    there = _sections(body)
    written = written or {}
    digests = {heading: _digest(text) for heading, text in ours.items()}
    kept: list[str] = []
    for heading, text in there:
        is_ours = heading in ours and written.get(heading) == _digest(text)
        kept.append(ours[heading] if is_ours else text)
        if heading in digests and not is_ours:
            digests[heading] = written.get(heading, "")
    headings = {heading for heading, _ in there}
    fresh = [text for heading, text in ours.items() if heading not in headings and heading not in written]
    front = yaml.safe_dump(_header(manifest, header), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{front}---\n\n" + "\n\n".join([*kept, *fresh]) + "\n", digests


def _sections(body: str) -> list[tuple[str, str]]:
    """The body cut at its `## ` headings, outside code blocks: (heading, text with it), the first without one."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    fence = ""
    for line in body.splitlines():
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and fence and mark[1].startswith(fence) and not line.strip(" `~"):
            fence = ""
        elif not fence and line.startswith("## "):
            sections.append((line[3:].strip(), []))
        sections[-1][1].append(line)
    texts = [(heading, "\n".join(lines).strip()) for heading, lines in sections]
    return [(heading, text) for heading, text in texts if text]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _split_card(text: str) -> tuple[dict[str, Any], str]:
    """YAML and body of a card; text without (valid) YAML is all body."""
    match = re.match(r"\ufeff?---\r?\n(.*?)^---\s*?(?:\n|$)", text, re.DOTALL | re.MULTILINE)
    if match is None:
        return {}, text
    try:
        header = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return {}, text
    return (header, text[match.end() :]) if isinstance(header, dict) else ({}, text[match.end() :])


def _header(manifest: Mapping[str, Any], existing: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML of the card."""
    metadata, configs = manifest["metadata"], manifest["configs"]
    tags = existing.get("tags") or []
    tasks = manifest["statistics"]["instructions"]
    ours: dict[str, Any] = {
        "language": [metadata["language"].split("-")[0]],
        **({"license": metadata["license"]} if metadata["license"] else {}),
        "tags": [*tags, *(tag for tag in _TAGS if tag not in tags)] if isinstance(tags, list) else list(_TAGS),
        "size_categories": [next((name for size, name in _SIZES if tasks < size), "1M<n<10M")],
        "configs": [
            {
                "config_name": config,
                **({"default": True} if number == 0 else {}),
                "data_files": [{"split": split, "path": f"{config}/{split}-*"} for split in configs[config]["splits"]],
            }
            for number, config in enumerate(configs)
        ],
    }
    defaults: dict[str, Any] = {
        "pretty_name": metadata["name"],
        "task_categories": ["text-generation"],
        "annotations_creators": ["expert-generated"],
        "language_creators": ["machine-generated"],
        "source_datasets": ["original"],
    }
    # `dataset_info` of an older writer would contradict the parquet files
    kept = {key: value for key, value in existing.items() if key not in ours and key != "dataset_info"}
    return {**{key: value for key, value in defaults.items() if key not in kept}, **kept, **ours}


def _summary(manifest: Mapping[str, Any]) -> str:
    return f"""# {manifest["metadata"]["name"]}

Instructions with inputs and outputs, written with a language model by
[Self-Instruct](https://arxiv.org/abs/2212.10560), judged and corrected by people in
[Argilla](https://github.com/argilla-io/argilla)."""


def _loading(manifest: Mapping[str, Any]) -> str:
    configs = manifest["configs"]
    example = "alpaca" if "alpaca" in configs else next(iter(configs))
    rows = []
    for name, config in configs.items():
        columns = ", ".join(f"`{column}`" for column in config["columns"])
        splits = ", ".join(f"{split} {count:,}" for split, count in config["splits"].items())
        rows.append(f"| `{name}` | {columns} | {splits} |")
    return f"""```python
from datasets import load_dataset

{_load(manifest["repo"], example, manifest["version"])}
```

| config | columns | rows |
|---|---|---|
{_lines(rows)}

A task keeps its split in every version, all its instances share it, and no two instructions with a ROUGE-L of 0.7 or
more are in different splits. `manifest.json` lists every task with its content hash and split.{_reopening(manifest)}"""


def _load(repo: str | None, config: str, version: str) -> str:
    if repo is None:
        return f'dataset = load_dataset("PATH", "{config}")  # {version}'
    return f'dataset = load_dataset("{repo}", "{config}", revision="{version}")  # a version never changes'


def _reopening(manifest: Mapping[str, Any]) -> str:
    if manifest["repo"] is None or not manifest["metadata"]["review_settings"]:
        return ""
    what = 'subset="alpaca"' if "alpaca" in manifest["configs"] else "with_records=False"
    return f"""

The review opens again in any Argilla, with the same questions:

```python
import argilla

argilla.Dataset.from_hub("{manifest["repo"]}", settings="auto", {what}, workspace="argilla", name="again")
```"""


def _versions(history: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"| {entry['version']} | {entry['tasks']:,} | {entry['added']:,} | {entry['edited']:,} "
        f"| {entry['withdrawn']:,} |"
        for entry in history
    ]
    return f"| version | tasks | added | edited | withdrawn |\n|---|---|---|---|---|\n{_lines(rows)}"


def _making(manifest: Mapping[str, Any], rows: Sequence[Row]) -> str:
    recipe = manifest["recipe"]
    models = sorted({row["model"] for row in rows if row["model"]})
    rounds = {row["round"] for row in rows if row["round"]}
    origins = Counter(row["origin"] for row in rows)
    edited = sum(row["edited"] for row in rows)
    withheld = manifest["withheld"]
    return _lines(
        [
            f"- Tasks by origin: {', '.join(f'{origins[name]:,} {name}' for name in sorted(origins))}; "
            f"{edited:,} of them edited by people.",
            f"- Models: {', '.join(f'`{model}`' for model in models) or 'none'}; "
            f"{_count(len(rounds), 'round')} of generation.",
            f"- Method: `{recipe['method']}`; a prompt shows {recipe['demonstrations']['seed']} seed and "
            f"{recipe['demonstrations']['generated']} generated demonstrations.",
            "- A generated instruction was turned away when its ROUGE-L with an earlier one was above "
            f"{recipe['novelty_threshold']:g}.",
            *([f"- Withheld: {_count(len(withheld), 'task')}, listed in `manifest.json`."] if withheld else []),
        ]
    )


def _judging(review: Mapping[str, Any]) -> str:
    """What this pool knows, then what the one knew whose release it goes on from."""
    if "earlier" not in review:
        return _judged(review)
    return f"{_judged(review)}\n\nThe tasks of the versions that it goes on from:\n\n{_judging(review['earlier'])}"


def _judged(review: Mapping[str, Any]) -> str:
    judged = review["accepted"] + review["rejected"] + review["conflict"]
    if not judged:
        return "No task of this pool was judged in it: they were imported as accepted."
    return _lines(
        [
            f"- Rubric `{review['rubric']}`; at least {_count(review['min_submitted'], 'response')} a record, "
            f"resolved by `{review['resolution']}`.",
            f"- {_count(judged, 'task')} judged: {review['accepted']:,} accepted, {review['rejected']:,} rejected, "
            f"{review['conflict']:,} in conflict; the acceptance rate is {review['accepted'] / judged:.0%}"
            f"{describe_interval(wilson_interval(review['accepted'], judged), '.0%')}.",
            *_quality(review.get("quality") or {}),
        ]
    )


def _quality(quality: Mapping[str, Any]) -> list[str]:
    """The paper's Table 2 and the agreement on the verdict; intervals are 95 %."""
    lines = []
    if quality.get("answers"):
        shares = ", ".join(
            f"`{name}` {share['share']:.0%}{describe_interval(share['interval'], '.0%')}"
            for name, share in quality["answers"].items()
        )
        total = max(share["total"] for share in quality["answers"].values())
        lines.append(f"- Good before any edit, of {_count(total, 'record')} judged: {shares}.")
    found = quality.get("verdicts")
    if found:
        people = f"{found['annotators']} people on {_count(found['records'], 'record')} that several judged"
        lines.append(f"- Agreement of {people}, on the verdict: {describe_agreement(found)}.")
        lines += [f"- On `{name}`: {describe_agreement(answers)}." for name, answers in by_question(quality).items()]
    return lines


def _statistics(figures: Mapping[str, Any], images: Sequence[str]) -> str:
    rows = {
        "instructions": f"{figures['instructions']:,}",
        "- classification": f"{figures['classification']:,}",
        "- not classification": f"{figures['not_classification']:,}",
        "instances": f"{figures['instances']:,}",
        "- with empty input": f"{figures['empty_input']:,}",
        "mean instruction length (words)": f"{figures['instruction_words']:.1f}",
        "mean non-empty input length (words)": f"{figures['input_words']:.1f}",
        "mean output length (words)": f"{figures['output_words']:.1f}",
    }
    table = "| statistic | value |\n|---|---|\n" + _lines(f"| {name} | {value} |" for name, value in rows.items())
    return "\n\n".join([table, *(f"![{_CAPTIONS[image]}]({image})" for image in images)])


_CAPTIONS = {
    "figures/lengths.png": "Words of instructions, non-empty inputs and outputs",
    "figures/novelty.png": "ROUGE-L of each generated instruction with the closest earlier one",
}


def _examples(rows: Sequence[Row]) -> str:
    """The first, the middle and the last task."""
    shown = []
    for number in sorted({0, len(rows) // 2, len(rows) - 1}):
        row, instance = rows[number], rows[number]["instances"][0]
        shown.append(f"`{row['id']}`\n\n{_quote('instruction', row['instruction'])}")
        if instance["input"]:
            shown.append(_quote("input", instance["input"]))
        shown.append(_quote("output", instance["output"]))
    return "\n\n".join(shown)


_LIMITS = """\
The tasks and most answers were written by a language model, so they carry its errors, its favourite topics and its
turns of phrase; the seed tasks set the range. People judged them by the rubric above: what they accepted can still be
wrong, out of date or unfair. Near-duplicates were turned away by shared words, not by meaning. Check the data before
you rely on a model that was trained on it, and mind the terms of the model that wrote it."""


def _quote(label: str, text: str) -> str:
    """A text as a code block that no back-ticks inside can close."""
    text = text if len(text) <= _EXAMPLE_LENGTH else text[:_EXAMPLE_LENGTH].rstrip() + " …"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{label}:\n{fence}text\n{text}\n{fence}"


def _changes(entry: Mapping[str, Any]) -> str:
    parts = [f"{entry[name]:,} {name}" for name in ("added", "edited", "withdrawn") if entry[name]]
    return (", ".join(parts) if parts else "No task changed") + "."


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _mean_words(texts: Iterable[str]) -> float:
    lengths = word_counts(texts)
    return round(fmean(lengths), 2) if lengths else 0.0
