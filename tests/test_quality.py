"""A scripted round of three annotators on a real Argilla: shares as in the paper, agreement as in the libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from review_people import YES, Workspace, candidates

from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.review.quality import agreement_json, known_quality, review_quality
from selfinstruct_argilla.review.rubric import load_rubric

krippendorff = pytest.importorskip("krippendorff")
metrics = pytest.importorskip("sklearn.metrics")
scipy_stats = pytest.importorskip("scipy.stats")
proportion = pytest.importorskip("statsmodels.stats.proportion")


RATING = """
questions:
  - name: quality
    type: rating
    title: "4 is A (correct), 3 is B (minor flaws), 2 is C (serious errors), 1 is D (irrelevant)"
    values: [1, 2, 3, 4]
accept: {quality: {at_least: 3}}
guidelines: guide.md
"""


def test_three_annotators_rate_as_the_papers_experts_did(workspace: Workspace, tmp_path: Path) -> None:
    """A–D as categories (κ, α), as acceptable or not (κ), and as ranks (ρ)."""
    (tmp_path / "rubric.yaml").write_text(RATING, encoding="utf-8")
    (tmp_path / "guide.md").write_text("Rate it.", encoding="utf-8")
    workspace.rubric = load_rubric("quality", tmp_path / "rubric.yaml")
    workspace.rules["min_submitted"] = 2
    workspace.add(candidates(12))
    workspace.push()
    records = [str(record["id"]) for _, record in sorted(workspace.records().items())]
    people = [workspace.person(name) for name in ("ann", "bob", "eve")]
    ratings = [
        [4, 4, 3, 2, 1, 4, 3, 3, 2, 1, 4, 2],
        [4, 3, 3, 2, 2, 4, 4, 3, 1, 1, 4, 3],
        [4, 4, 2, 2, 1, None, 3, None, 2, 1, 3, 2],
    ]
    for person, row in zip(people, ratings, strict=True):
        for record, value in zip(records, row, strict=True):
            if value is not None:
                person.submit(record, {"quality": value})
    workspace.sync()
    quality = review_quality(workspace.pool)
    assert quality is not None
    ranks = quality.overall.questions["quality"].answers
    binary = quality.overall.questions["quality"].acceptable
    assert ranks is not None
    assert binary is not None
    table = [[np.nan if value is None else value for value in row] for row in ratings]
    for measure, ours in (("ordinal", ranks.ordinal_alpha), ("nominal", ranks.alpha)):
        assert ours is not None
        assert ours.interval is not None
        assert ours.value == pytest.approx(
            krippendorff.alpha(table, level_of_measurement=measure, value_domain=[1, 2, 3, 4])
        )
        assert ours.interval[0] <= ours.value <= ours.interval[1]
    good = [[np.nan if value is None else int(value >= 3) for value in row] for row in ratings]
    assert binary.alpha is not None
    assert binary.alpha.value == pytest.approx(krippendorff.alpha(good, level_of_measurement="nominal"))
    names = [person.username for person in people]
    assert len(ranks.pairs) == 3
    for pair, also in zip(ranks.pairs, binary.pairs, strict=True):
        rows = [ratings[names.index(pair.first)], ratings[names.index(pair.second)]]
        both = [(a, b) for a, b in zip(*rows, strict=True) if a is not None and b is not None]
        ones, others = zip(*both, strict=True)
        assert pair.items == len(both)
        assert pair.kappa == pytest.approx(metrics.cohen_kappa_score(ones, others))
        assert pair.rho == pytest.approx(scipy_stats.spearmanr(ones, others).statistic)
        acceptable = ([value >= 3 for value in ones], [value >= 3 for value in others])
        assert also.kappa == pytest.approx(metrics.cohen_kappa_score(*acceptable))
    assert quality.overall.verdicts == binary
    published = agreement_json(quality.to_json())
    assert published is not None
    assert published["records"] == 12
    assert published["questions"]["quality"]["krippendorff_alpha_ordinal"] == ranks.ordinal_alpha.value  # type: ignore[union-attr]
    assert published["rounds"]["1"]["cohen_kappa"] == published["cohen_kappa"]
    assert quality.rounds[1] == quality.overall
    assert not any(name in str(quality.to_json()) + str(published) for name in names)
    json.dumps(quality.to_json(), allow_nan=False)


def test_the_papers_table_2(workspace: Workspace) -> None:
    workspace.add(candidates(5))
    workspace.push()
    records = [str(record["id"]) for _, record in sorted(workspace.records().items())]
    ann = workspace.person()
    ann.submit(records[0])
    ann.submit(records[1], {**YES, "output_correct": "no"})
    ann.submit(records[2], {**YES, "output_correct": "no", "output_edit": "mended"})
    ann.submit(records[3], dict.fromkeys(YES, "no"))
    workspace.sync()
    quality = review_quality(workspace.pool)
    assert quality is not None
    counts = {name: (share.count, share.total) for name, share in quality.overall.answers.items()}
    assert counts == {"instruction_valid": (3, 4), "input_appropriate": (3, 4), "output_correct": (1, 4), "all": (1, 4)}
    accepted = quality.overall.accepted
    assert (accepted.count, accepted.total) == (2, 4)
    assert accepted.to_json()["interval"] == list(proportion.proportion_confint(2, 4, method="wilson"))
    assert quality.overall.verdicts is None
    assert quality.overall.reasons == {"instruction_valid": 1, "input_appropriate": 1, "output_correct": 2}
    assert agreement_json(quality.to_json()) is None
    assert set(quality.rounds) == {1}


def test_figures_follow_a_new_rule_with_the_verdicts(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("Rate it.", encoding="utf-8")
    workspace.add(candidates(1))
    ann = None
    for least, accepted in ((4, 0), (2, 1)):
        rule = RATING.replace("at_least: 3", f"at_least: {least}")
        (tmp_path / "rubric.yaml").write_text(rule, encoding="utf-8")
        workspace.rubric = load_rubric("quality", tmp_path / "rubric.yaml")
        if ann is None:
            workspace.push()
            ann = workspace.person()
            ann.submit(workspace.record_id("generated_00000000:0"), {"quality": 3})
        assert workspace.sync().accepted == accepted
        found = known_quality(workspace.pool)
        assert found is not None
        assert found["accepted"]["count"] == found["answers"]["quality"]["count"] == accepted
    workspace.push()  # the wording is still brought to Argilla
    assert workspace.sync().changed == 0


def test_what_is_kept_is_what_is_worked_out(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.add(candidates(3))
    workspace.push()
    records = [str(record["id"]) for _, record in sorted(workspace.records().items())]
    ann, bob = workspace.person("ann"), workspace.person("bob")
    pool = workspace.pool

    def worked_out() -> dict[str, Any]:
        quality = review_quality(pool)
        assert quality is not None
        return quality.to_json()

    ann.submit(records[0])
    workspace.sync()
    assert known_quality(pool) == worked_out()
    with monkeypatch.context() as patch:
        patch.setattr("selfinstruct_argilla.review.quality.review_quality", lambda pool: pytest.fail("again"))
        workspace.sync()  # nothing is new
        kept = known_quality(pool)
    assert kept == worked_out()
    bob.submit(records[0], {**YES, "output_correct": "no"})
    workspace.sync()
    assert kept != known_quality(pool) == worked_out()
    workspace.rules["resolution"] = "any"  # the same answers come to something else
    workspace.sync()
    assert known_quality(pool) == worked_out()


def test_before_any_push(tmp_path: Path) -> None:
    with TaskPool.open(f"sqlite:///{tmp_path}/pool.db") as pool:
        assert review_quality(pool) is None
