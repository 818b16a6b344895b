"""The bundled Chinese recipe against a scripted Chinese model: what it asks, and what it turns away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from generating import problems

from selfinstruct_argilla.llm.base import Request
from selfinstruct_argilla.llm.scripted import ScriptedModel
from selfinstruct_argilla.pool.pool import TaskPool
from selfinstruct_argilla.project import open_project
from selfinstruct_argilla.tasks import Origin

ITEMS = [
    (
        "请解释什么是复利，并举一个生活中的例子。",
        "",
        "复利是把利息计入本金继续生息。例如把一千元存入银行，利息第二年也会生息。",
    ),
    ("请解释什么是复利，并举一个生活中的例子。", "", "复利就是利滚利。"),  # identical
    ("请解释什么是复利，并举出一个生活中的例子。", "", "利滚利，比如定期存款。"),  # one character more
    ("请解释一下什么是复利，并举一个生活里的例子。", "", "利滚利。"),  # near
    ("请列出高血压患者应当避免的三类食物。", "", "高盐食物、油炸食物和酒精饮料。"),
    ("将下面这句话改写成更礼貌的说法。", "把门关上。", "麻烦您把门关上，谢谢。"),
    ("请根据图片描述这座建筑的外观。", "", "这座建筑很高。"),  # asks for a picture
    ("写诗。", "", "春眠不觉晓。"),  # too short
    ("请为一家社区书店写一句宣传语。", "", ""),  # without an output
    ("请判断这条评论的情感是正面还是负面。", "快递很慢，包装也破了。", "负面"),
]
KEPT = [ITEMS[0], ITEMS[4], ITEMS[5], ITEMS[9]]


def as_json(items: list[tuple[str, str, str]]) -> str:
    tasks = [dict(zip(("instruction", "input", "output"), item, strict=True)) for item in items]
    return json.dumps({"tasks": tasks}, ensure_ascii=False)


def as_text(items: list[tuple[str, str, str]]) -> str:
    """As chat models write it: full-width colons, numbers of their own."""
    return "\n###\n".join(
        f"{number}．指令：{instruction}\n{number}．输入：\n{given or '<无输入>'}\n{number}．输出：\n{output}"
        for number, (instruction, given, output) in enumerate(items, 4)
    )


@pytest.mark.parametrize(("structured", "write"), [("true", as_json), ("false", as_text)])
def test_identical_and_near_identical_instructions_are_caught(tmp_path: Path, structured: str, write: Any) -> None:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    asked: list[Request] = []

    def model(request: Request) -> str:
        asked.append(request)
        return write(ITEMS)

    overrides = [
        f"pool={url}", f"bootstrap.structured_output={structured}",
        f"bootstrap.target={len(KEPT)}", "bootstrap.wave=1", "bootstrap.lookahead=0",
    ]  # fmt: skip
    with open_project("alpaca_zh", overrides=overrides, model=ScriptedModel(model)) as project:
        result = project.generate()
    assert result.generated == len(KEPT)
    assert result.discards == {
        "blocked_word": 1,
        "near_duplicate": 3,
        "no_valid_instance": 1,
        "too_short": 1,
        "empty_output": 1,
    }
    assert "简体中文" in asked[0].prompt.header
    assert ("response_format" in asked[0].parameters) is (structured == "true")
    with TaskPool.open(url) as pool:
        tasks = [task for task in pool.tasks() if task.origin is Origin.GENERATED]
        found = [(task.instruction, task.instances[0].input, task.instances[0].output) for task in tasks]
        scores = [discard.score for discard in pool.rounds.discards(reason="near_duplicate")]
    assert found == KEPT
    assert scores[0] == 1.0 and all(score is not None and score > 0.7 for score in scores)
    assert problems(url) == []
