"""Learning from review: what people accepted is shown to the model, and only what the recipe allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from generating import overrides, text_for

from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.tasks import Instance, Origin, Status, Task

STATUSES = [Status.CANDIDATE, Status.IN_REVIEW, Status.ACCEPTED, Status.REJECTED, Status.CONFLICT]


@pytest.mark.parametrize("allowed", [["accepted"], ["candidate"], ["accepted", "in_review"], []])
def test_only_the_named_statuses_are_shown(tmp_path: Path, allowed: list[str]) -> None:
    tasks = [
        Task(f"{status.value}_{n}", f"{status.value} word{n} thing{n}", (Instance("", "x"),), status=status,
             origin=Origin.GENERATED)
        for status in STATUSES
        for n in range(4)
    ]  # fmt: skip
    model = ScriptedModel(text_for)
    url = f"sqlite:///{tmp_path}/pool.db"
    shown_from = f"{{seed: 2, generated: 3, from: [{', '.join(allowed)}]}}"
    settings = overrides(url, bootstrap__demonstrations=shown_from, bootstrap__target=20, bootstrap__wave=8)
    with open_project("quickstart", overrides=settings, model=model) as project:
        with project.pool.write() as writer:
            writer.add(tasks, kind="test")
        project.generate()
    shown = {id for request in model.requests if request.step == "instructions" for id in request.demonstrations}
    ours = {id for id in shown if id.rpartition("_")[0] in {status.value for status in STATUSES}}
    assert {id.rpartition("_")[0] for id in ours} == set(allowed)
