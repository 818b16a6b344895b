"""The dataset card: what we write and what people wrote."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from release_help import make_task

from selfinstruct_argilla.errors import ReleaseError
from selfinstruct_argilla.release import formats
from selfinstruct_argilla.release.card import changelog, check_license, render_card, statistics
from selfinstruct_argilla.tasks import Instance, Origin, Provenance, Task

ROWS = [formats.task_row(make_task(n), edited=n == 3) for n in range(8)]


def manifest(version: str = "v1.0.0", rows: list[formats.Row] = ROWS) -> dict[str, Any]:
    return {
        "version": version,
        "repo": "acme/demo",
        "configs": {
            name: {"columns": dict.fromkeys(formats.schema(name).names, "string"), "splits": {"train": 5, "test": 3}}
            for name in ("tasks", "alpaca")
        },
        "metadata": {"name": "demo", "language": "en", "license": "mit", "exports": [], "review_settings": None},
        "figures": [],
        "history": [{"version": version, "tasks": len(rows), "added": len(rows), "edited": 0, "withdrawn": 0}],
        "statistics": statistics(rows),
        "recipe": {"method": "self_instruct", "demonstrations": {"seed": 6, "generated": 2}, "novelty_threshold": 0.7},
        "review": {
            "rubric": "paper", "min_submitted": 2, "resolution": "majority", "accepted": 8, "rejected": 2, "conflict": 0,
        },
        "withheld": {},
    }  # fmt: skip


def header(card: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return value


def test_the_yaml_names_configs_and_splits() -> None:
    card, _ = render_card(manifest(), ROWS)
    found = header(card)
    assert found["configs"][0] == {
        "config_name": "tasks",
        "default": True,
        "data_files": [{"split": "train", "path": "tasks/train-*"}, {"split": "test", "path": "tasks/test-*"}],
    }
    assert sum(bool(config.get("default")) for config in found["configs"]) == 1
    assert found["license"] == "mit"
    assert found["language"] == ["en"]
    assert found["size_categories"] == ["n<1K"]
    assert {"synthetic", "self-instruct", "argilla", "human-feedback"} <= set(found["tags"])


def test_norwegian_stays_a_text() -> None:
    value = manifest()
    value["metadata"]["language"] = "no"
    card, _ = render_card(value, ROWS)
    assert header(card)["language"] == ["no"]


def test_the_card_says_how_people_judged() -> None:
    card, _ = render_card(manifest(), ROWS)
    assert "10 tasks judged: 8 accepted, 2 rejected, 0 in conflict; the acceptance rate is 80%" in card
    assert "| instructions | 8 |" in card
    assert 'revision="v1.0.0"' in card


def test_the_card_says_how_it_was_made() -> None:
    tasks = [
        replace(make_task(n), origin=Origin.GENERATED, round=1 + n % 2, provenance=Provenance(f"model-{n % 2}"))
        for n in range(5)
    ]
    rows = [formats.task_row(task, edited=task is tasks[0]) for task in tasks]
    value = manifest(rows=rows)
    value["withheld"] = {"t": {"reason": "it is too close to a holdout", "near": ["bench"]}}
    card, _ = render_card(value, rows)
    sections = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert sections == [
        "How to load it", "Versions", "How it was made", "How people judged", "Statistics", "Examples",
        "Limits and biases",
    ]  # fmt: skip
    assert "5 generated; 1 of them edited by people" in card
    assert "`model-0`, `model-1`; 2 rounds of generation" in card
    assert "`self_instruct`; a prompt shows 6 seed and 2 generated demonstrations" in card
    assert "ROUGE-L with an earlier one was above 0.7" in card
    assert "Withheld: 1 task" in card
    assert f"`{tasks[0].id}`\n\ninstruction:\n```text\n{tasks[0].instruction}\n```" in card
    assert "from datasets import load_dataset" in card


def test_an_untouched_card_is_written_anew() -> None:
    first, written = render_card(manifest(), ROWS)
    second, again = render_card(manifest("v1.1.0"), ROWS, first, written)
    fresh, fresh_written = render_card(manifest("v1.1.0"), ROWS)
    assert second == fresh
    assert again == fresh_written


def test_hand_written_parts_stay_through_many_releases() -> None:
    card, written = render_card(manifest(), ROWS)
    card = card.replace("license: mit\n", "license: mit\ndoi: 10.1/x\nreleased: 2026-01-01\n")
    card = card.replace("pretty_name: demo", "pretty_name: The Demo").replace("- synthetic\n", "- mine\n- synthetic\n")
    card = card.replace("## Limits and biases\n", "## Limits and biases\n\nOurs: no poems about `## Versions`.\n")
    card = card.replace("## Statistics", "## Citation\n\n```bibtex\n## not a heading\n```\n\n## Statistics")
    for number in range(1, 4):
        card, written = render_card(manifest(f"v1.{number}.0"), ROWS, card, written)
    assert "Ours: no poems about `## Versions`." in card
    assert "```bibtex\n## not a heading\n```\n\n## Statistics" in card
    assert 'revision="v1.3.0"' in card
    assert "v1.2.0" not in card
    found = header(card)
    assert found["pretty_name"] == "The Demo"
    assert found["doi"] == "10.1/x"
    assert found["tags"].count("mine") == found["tags"].count("synthetic") == 1
    assert card.count("## Limits and biases") == 1


def test_a_deleted_section_stays_away() -> None:
    card, written = render_card(manifest(), ROWS)
    start, end = card.index("## Examples"), card.index("## Limits")
    card, written = render_card(manifest("v1.1.0"), ROWS, card[:start] + card[end:], written)
    card, written = render_card(manifest("v1.2.0"), ROWS, card, written)
    assert "## Examples" not in card


def test_a_foreign_card_keeps_its_text() -> None:
    card, _ = render_card(manifest(), ROWS, "---\nlicense: other\nconfigs: []\nfoo: bar\n---\n# Hello\n\nText.\n")
    assert "# Hello\n\nText." in card
    assert "## Statistics" in card
    found = header(card)
    assert found["foo"] == "bar"
    assert len(found["configs"]) == 2
    for broken in ("no yaml at all", "---\n: : :\n- x\n---\nbody"):
        assert broken.splitlines()[-1] in render_card(manifest(), ROWS, broken)[0]


def test_examples_cannot_break_the_card() -> None:
    text = "```\n## Statistics\n````\n---\n## Versions"
    rows = [formats.task_row(Task("t", text, (Instance(text, text),)), edited=False)]
    card, written = render_card(manifest(rows=rows), rows)
    again, _ = render_card(manifest(rows=rows), rows, card, written)
    assert again == card


def test_statistics_are_table_one() -> None:
    tasks = [
        Task("a", "one two three", (Instance("", "x y"), Instance("a b c d", "z")), is_classification=True),
        Task("b", "one", (Instance("", ""),), is_classification=None),
    ]
    assert statistics([formats.task_row(task, edited=False) for task in tasks]) == {
        "instructions": 2,
        "classification": 1,
        "not_classification": 1,
        "instances": 3,
        "empty_input": 2,
        "instruction_words": 2.0,
        "input_words": 4.0,
        "output_words": 1.0,
    }


def test_a_language_without_spaces_has_lengths_too() -> None:
    task = Task("a", "写一首关于春天的诗。", (Instance("", "春眠不觉晓"),))
    found = statistics([formats.task_row(task, edited=False)])
    assert (found["instruction_words"], found["output_words"]) == (9.0, 5.0)


def test_changelog_is_newest_first() -> None:
    text = changelog(
        [
            {"version": "v1.1.0", "tasks": 3, "added": 1, "edited": 2, "withdrawn": 0},
            {"version": "v1.0.0", "tasks": 2, "added": 2, "edited": 0, "withdrawn": 0},
        ]
    )
    assert text.index("## v1.1.0") < text.index("1 added, 2 edited") < text.index("## v1.0.0")


def test_unknown_licenses_are_refused() -> None:
    check_license(None)
    check_license("cc-by-4.0")
    with pytest.raises(ReleaseError) as caught:
        check_license("Apache 2.0")
    assert caught.value.hint == "Did you mean apache-2.0?"
