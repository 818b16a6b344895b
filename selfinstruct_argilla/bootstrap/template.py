"""The wording of the prompts, one YAML file a language under `templates/`.

The headings of the method are the paper's (Self-Instruct, appendix A.2); the rest is ours. A new language is a file.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

_FOLDER = Path(__file__).parent / "templates"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InstructionWords(_Part):
    header: str
    continue_: Annotated[str, Field(alias="continue")]


class ClassificationWords(_Part):
    header: str
    task: str
    question: str
    yes: str
    no: str


class Heading(_Part):
    header: str


class AlpacaWords(_Part):
    language: str
    header: str
    no_input: str
    continue_: Annotated[str, Field(alias="continue")]
    as_json: str


class Labels(_Part):
    task: str
    instruction: str
    example: str
    input: str
    output: str
    class_label: str


class FilterWords(_Part):
    unit: Literal["words", "characters"]
    min_length: int
    max_length: int
    blocked_words: list[str]
    blocked_starts: list[str]


class Template(_Part):
    """Everything that a language says differently."""

    instructions: InstructionWords
    classification: ClassificationWords
    input_first: Heading
    output_first: Heading
    alpaca: AlpacaWords
    distill: Heading
    labels: Labels
    filters: FilterWords


@lru_cache
def load_template(language: str) -> Template:
    """The template of a language tag (`en`, `zh-CN`); a language without one of its own is asked in English."""
    for name in (language.lower(), language.lower().split("-")[0], "en"):
        path = _FOLDER / f"{name}.yaml"
        if path.is_file():
            return Template.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    raise AssertionError("the English template is missing from the package")
