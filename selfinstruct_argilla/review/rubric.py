"""Rubrics: the questions that people answer about a task instance, and what their answers mean.

A rubric is a YAML file; `paper` and `quick` are two such files beside this module. It lists questions of any Argilla
type, says which answers mean acceptance, and which text questions edit which field:

    questions:
      - {name: output_correct, type: label, title: Is the output right?, labels: {"yes": Yes, "no": No}}
      - {name: output_edit, type: text, title: Corrected output, required: false, edits: output}
    accept:
      output_correct: {is: ["yes"], or_edit: output}     # yes, or mended by an edit of the output
    task_level: []                                       # a failing answer here is about the whole task
    guidelines: guidelines.md

Titles, labels and guidelines may be a mapping from language to text. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import RecipeError
from ..tasks import digest

NO_INPUT = "<noinput>"  # the Alpaca convention: what a person writes to leave the input empty
EditedField = Literal["instruction", "input", "output"]
RECORD_FIELDS = ("instruction", "input", "output", "context")
KIND: Final = "is_classification"  # what a yes/no question may settle beside the texts
METADATA = ("task_id", "round", "origin", KIND, "max_rouge_l", "model", "resolution", "assigned")
Text = str | dict[str, str]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]

_BUNDLED = Path(__file__).parent / "rubrics"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _of_length(most: int) -> AfterValidator:
    """As Argilla limits it."""

    def check(text: Text) -> Text:
        for wording in _by_language(text).values():
            if not 1 <= len(wording) <= most:
                raise ValueError(f"must have 1 to {most:,} characters, not {len(wording):,}")
        return text

    return AfterValidator(check)


Title = Annotated[Text, _of_length(500)]
Description = Annotated[Text, _of_length(1000)]


class Question(_Part):
    """One question. `labels` maps a stored value to what people read; `values` are a rating's numbers (0 to 10)."""

    name: Name
    type: Literal["text", "label", "multi_label", "rating", "ranking", "span"]
    title: Title
    description: Description | None = None
    required: bool = True
    labels: dict[str, Title] = {}
    values: list[Annotated[int, Field(ge=0, le=10)]] = []
    field: Literal["instruction", "input", "output", "context"] | None = None
    edits: EditedField | Literal["is_classification"] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Question:
        labelled = self.type in ("label", "multi_label", "ranking", "span")
        if labelled != bool(self.labels):
            raise ValueError("label, multi_label, ranking and span questions have 'labels', the others none")
        if labelled and self.type != "span" and len(self.labels) < 2:
            raise ValueError("'labels' must be at least two")
        if (self.type == "rating") != bool(self.values):
            raise ValueError("a rating question has 'values', the others none")
        if self.values and (len(self.values) < 2 or len(set(self.values)) < len(self.values)):
            raise ValueError("'values' must be at least two different numbers")
        if (self.type == "span") != (self.field is not None):
            raise ValueError("a span question names its 'field', the others none")
        if self.edits == KIND and set(self.labels) != {"yes", "no"}:
            raise ValueError("what settles is_classification is a label question with the labels yes and no")
        if self.edits not in (None, KIND) and self.type != "text":
            raise ValueError("only a text question 'edits' a field")
        return self


class Condition(_Part):
    """When the answer to one question speaks for acceptance. With `or_edit`, an edit of that field mends it.

    An answer that was not given fails `is`, `at_least`, `any_of` and `first`, and passes `none_of` and `empty`.
    """

    is_: Annotated[list[str | int] | None, Field(alias="is")] = None  # label, rating
    at_least: int | None = None  # rating
    any_of: list[str] | None = None  # multi_label
    none_of: list[str] | None = None  # multi_label
    first: list[str] | None = None  # ranking: what stands first
    empty: Literal[True] | None = None  # text, span, multi_label: nothing written or marked
    or_edit: EditedField | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if all(getattr(self, name) is None for name in type(self).model_fields if name != "or_edit"):
            raise ValueError("say when the answer is good: is, at_least, any_of, none_of, first or empty")
        return self

    def holds(self, value: Any) -> bool:
        if self.is_ is not None and value not in self.is_:
            return False
        if self.at_least is not None and (not isinstance(value, int) or value < self.at_least):
            return False
        if self.any_of is not None and not set(value or ()) & set(self.any_of):
            return False
        if self.none_of is not None and set(value or ()) & set(self.none_of):
            return False
        if self.first is not None and not _top_ranked(value) & set(self.first):
            return False
        return not (self.empty and value)


class Rubric(_Part):
    """A rubric as its file states it; make one with `load_rubric`."""

    questions: Annotated[list[Question], Field(min_length=1)]
    accept: Annotated[dict[str, Condition], Field(min_length=1)]
    task_level: list[str] = []
    guidelines: Text

    @model_validator(mode="after")
    def _names_agree(self) -> Rubric:
        names = [question.name for question in self.questions]
        taken = [*names, *RECORD_FIELDS, *METADATA]
        twice = sorted({name for name in taken if taken.count(name) > 1})
        if twice:
            raise ValueError(f"these names are taken already, or used twice: {', '.join(twice)}")
        unknown = [name for name in self.accept if name not in names]
        unknown += [name for name in self.task_level if name not in self.accept]
        if unknown:
            raise ValueError(f"'accept' and 'task_level' speak of questions that are not there: {', '.join(unknown)}")
        if not any(question.required for question in self.questions):
            raise ValueError("at least one question must be required")
        for name, condition in self.accept.items():
            if condition.or_edit is not None and not any(q.edits == condition.or_edit for q in self.questions):
                raise ValueError(f"'{name}' can be mended by an edit of {condition.or_edit}, which no question edits")
        edited = [question.edits for question in self.questions if question.edits is not None]
        if len(set(edited)) < len(edited):
            raise ValueError("two questions edit the same field")
        return self

    @property
    def closed(self) -> list[Question]:
        """Questions with one answer out of a list."""
        return [question for question in self.questions if question.type in ("label", "rating")]

    @property
    def version(self) -> str:
        """Names this wording: the first 12 hex digits of the digest of everything the rubric says."""
        return digest(self.model_dump(mode="json"))[:12]

    @property
    def structure(self) -> str:
        """What Argilla cannot change in a published dataset, as a digest: names, types, values, what is required."""
        shape = [[q.name, q.type, q.required, list(q.labels), sorted(q.values), q.field] for q in self.questions]
        return digest(shape)[:12]

    @property
    def meaning(self) -> str:
        """What answers mean, as a digest: where it changes, every verdict is worked out again."""
        return digest(
            [
                {name: condition.model_dump(mode="json") for name, condition in self.accept.items()},
                sorted(self.task_level),
                {q.name: q.edits for q in self.questions if q.edits},
            ]
        )[:12]


@dataclass(frozen=True)
class Judgement:
    """What one response says: is the instance good as it is or as edited, or bad, and is that about the whole task."""

    accepted: bool
    task_valid: bool
    edits: Mapping[str, str] = field(default_factory=dict)  # field → new text, only what differs
    failed: tuple[str, ...] = ()  # questions whose answers speak against it


def judge(rubric: Rubric, values: Mapping[str, Any], fields: Mapping[str, str]) -> Judgement:
    """The judgement in one submitted response.

    values: answers by question name. fields: the texts of the record as they were shown. A text question with the
    text that was shown, or with nothing but spaces, is no edit; `<noinput>` empties the input. What is said of
    `is_classification` is an edit, whether it is new or not.
    """
    edits: dict[str, str] = {}
    for question in rubric.questions:
        text = values.get(question.name)
        if question.edits is None or not isinstance(text, str) or not text.strip():
            continue
        if question.edits == KIND:
            edits[KIND] = text
            continue
        new = "" if question.edits == "input" and text.strip().lower() == NO_INPUT else _comparable(text)
        if new != _comparable(fields[question.edits]):
            edits[question.edits] = new
    failed = tuple(
        name
        for name, condition in rubric.accept.items()
        if not condition.holds(values.get(name)) and condition.or_edit not in edits
    )
    return Judgement(
        accepted=not failed, task_valid=not set(failed) & set(rubric.task_level), edits=edits, failed=failed
    )


def load_rubric(source: str, path: Path | None = None) -> Rubric:
    """The bundled rubric `source`, or the one of the file at `path`. Raises RecipeError with every problem."""
    path = path or _BUNDLED / f"{source}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        rubric = Rubric.model_validate(values)
        guidelines = {
            language: _guidelines(path.parent / name) for language, name in _by_language(rubric.guidelines).items()
        }
    except ValidationError as error:
        raise RecipeError(str(path), [_problem(item) for item in error.errors(include_url=False)]) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(str(path), [("", f"it cannot be read: {error}")]) from error
    except ValueError as error:
        raise RecipeError(str(path), [("guidelines", str(error))]) from error
    return rubric.model_copy(update={"guidelines": guidelines})


def with_classification(rubric: Rubric) -> Rubric:
    """The rubric, and the question whether this is a classification task; as it is where it asks that already."""
    if any(question.edits == KIND for question in rubric.questions):
        return rubric
    question = Question(
        name="classification_task",
        type="label",
        title={"en": "Is it a classification task?", "zh": "这是分类任务吗？"},
        description={
            "en": "Yes, if the output is one of a few fixed labels.",
            "zh": "如果输出只能是少数几个固定标签之一，选“是”。",
        },
        labels={"yes": {"en": "Yes", "zh": "是"}, "no": {"en": "No", "zh": "否"}},
        edits=KIND,
    )
    return rubric.model_copy(update={"questions": [*rubric.questions, question]})


def in_language(text: Text, language: str) -> str:
    """The text in a language (`zh-Hans` falls back to `zh`, then to English, then to whatever there is)."""
    by_language = _by_language(text)
    for key in (language, language.split("-", maxsplit=1)[0], "en"):
        if key in by_language:
            return by_language[key]
    return next(iter(by_language.values()))


def _by_language(text: Text) -> dict[str, str]:
    return {"en": text} if isinstance(text, str) else text


def _guidelines(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    if not 1 <= len(text) <= 10_000:  # Argilla's limits
        raise ValueError(f"{path.name} must have 1 to 10,000 characters, not {len(text)}")
    return text


def _problem(item: Any) -> tuple[str, str]:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return where, "unknown key"
    return where, item["msg"].removeprefix("Value error, ")


def _comparable(text: str) -> str:
    """Without what a text box in a browser may add: other line ends, blank ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _top_ranked(value: Any) -> set[str]:
    """Values of rank 1 in a ranking answer, a list of {value, rank}; ties share it."""
    ranks = [(item.get("rank"), item["value"]) for item in value or () if isinstance(item, dict)]
    best = min((rank for rank, _ in ranks if rank is not None), default=None)
    return {item for rank, item in ranks if rank == best and best is not None}
