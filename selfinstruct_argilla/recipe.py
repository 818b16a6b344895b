"""The recipe: one YAML file that describes the loop.

`Recipe.load` reads it in two passes, shape (types, unknown keys) then meaning (files, addresses, sums), and reports
every problem of both at once, each with its path in the file. Secrets are named (`env:NAME`), never written; they
are looked up by the stage that uses them, with `secret`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from .errors import RecipeError

_PACKAGE = Path(__file__).parent
LOCAL = "local"
NO_KEY = "none"
BUNDLED_RUBRICS = ("paper", "quick")

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A mapping of the recipe; unknown keys and wrong types are problems, not conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# models ----------------------------------------------------------------------------------------


class Price(Section):
    """US dollars for a million tokens."""

    input_per_mtok: Annotated[float, Field(ge=0)] = 0.0
    output_per_mtok: Annotated[float, Field(ge=0)] = 0.0


class ModelConfig(Section):
    """A language model behind an OpenAI-compatible endpoint; `base_url: local` is the one on this machine, where
    `model` may be a GGUF path. Without `base_url`: OPENAI_BASE_URL, else OpenAI itself."""

    base_url: str | None = None
    model: Annotated[str, Field(min_length=1)]
    api: Literal["completions", "chat"] = "chat"
    api_key: str = "env:OPENAI_API_KEY"
    concurrency: Positive = 16
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    price: Price = Price()
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0


class Models(Section):
    """`judge` looks at candidates before people do: its answers are suggestions to them, and never a verdict."""

    generator: ModelConfig
    judge: ModelConfig | None = None


# bootstrap -------------------------------------------------------------------------------------


class Demonstrations(Section):
    """How many pool tasks a prompt shows (the method's own numbers where left out: 6 seed and 2 generated ones for
    self_instruct, 3 and 0 for alpaca), and which statuses the generated ones may have."""

    seed: Annotated[int, Field(ge=0)] | None = None
    generated: Annotated[int, Field(ge=0)] | None = None
    from_: Annotated[list[Literal["accepted", "candidate", "in_review"]], Field(alias="from")] = [
        "accepted",
        "candidate",
    ]


class Novelty(Section):
    """A task is turned away when its ROUGE-L with any pool task is above the threshold (Self-Instruct, section 2.2)."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    tokens: Literal["auto", "rouge"] = "auto"


class Filters(Section):
    """What a generated task must pass; a value left out is the language's own (`bootstrap/filters.py`)."""

    min_words: Annotated[int, Field(ge=0)] | None = None
    max_words: Positive | None = None
    blocked_words: list[str] | None = None
    blocked_starts: list[str] | None = None


class Budget(Section):
    """Caps over the whole pool; a stage stops before a request could pass one."""

    usd: Annotated[float, Field(gt=0)] | None = None
    requests: Positive | None = None
    tokens: Positive | None = None


class Sampling(Section):
    """Decoding parameters of one step; null means: not sent, for endpoints that refuse it."""

    max_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def given(self) -> dict[str, Any]:
        """Only what the recipe states, nulls included."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class StepSampling(Section):
    instructions: Sampling = Sampling()
    classification: Sampling = Sampling()
    instances: Sampling = Sampling()


class Distill(Section):
    """Method distill: which tasks are asked again, and whether `sia push` sends the new outputs to people."""

    status: Annotated[
        list[Literal["seed", "candidate", "in_review", "accepted", "rejected", "conflict"]], Field(min_length=1)
    ] = ["accepted"]
    review: bool = True


class Bootstrap(Section):
    """One round of generation. `wave` requests are planned from one state of the pool; `lookahead` further waves
    may be asked for before the first of them is judged. Neither depends on concurrency, so the outcome does not."""

    method: Literal["self_instruct", "alpaca", "distill"] = "self_instruct"
    target: Positive = 100
    seed: int = 42
    demonstrations: Demonstrations = Demonstrations()
    novelty: Novelty = Novelty()
    filters: Filters = Filters()
    budget: Budget = Budget()
    faithful: bool = False
    structured_output: bool = False  # alpaca: the endpoint keeps to a JSON schema
    wave: Positive = 8
    lookahead: Annotated[int, Field(ge=0)] = 1
    max_instances: Positive = 5
    sampling: StepSampling = StepSampling()
    distill: Distill = Distill()

    @property
    def demonstrations_in_force(self) -> tuple[int, int]:
        """How many seed and generated tasks a prompt shows: what the recipe says, else the method's own numbers."""
        seed, generated = {"self_instruct": (6, 2), "alpaca": (3, 0)}.get(self.method, (0, 0))
        given = self.demonstrations
        return (
            seed if given.seed is None else given.seed,
            generated if given.generated is None else given.generated,
        )

    @property
    def novelty_in_force(self) -> Novelty:
        """The faithful mode compares words as the reference does, whatever the recipe says."""
        return Novelty(threshold=self.novelty.threshold, tokens="rouge") if self.faithful else self.novelty


# review ----------------------------------------------------------------------------------------


class ArgillaConfig(Section):
    """Where people judge; `api_url: local` is the Argilla on this machine. `dataset` defaults to the recipe's name."""

    api_url: str = "env:ARGILLA_API_URL"
    api_key: str = "env:ARGILLA_API_KEY"
    workspace: Annotated[str, Field(min_length=1)] = "argilla"
    dataset: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Review(Section):
    """Who judges what, and how. `overlap` is the share of records that `min_submitted` people judge, the others are
    judged by one; with `annotators` each record is assigned to some of them, in fair shares. `batch` is how many
    records wait for people at most, `sample` how many tasks are judged at all, drawn at random. `calibration` names a
    file of records with known answers to mix in (`review/calibration.py`). `webhook` is an address of this machine
    that Argilla can reach, http://HOST:PORT: `sia sync --watch` is told there when people answer."""

    argilla: ArgillaConfig = ArgillaConfig()
    rubric: Annotated[str, Field(min_length=1)] = "paper"
    ask_classification: bool = False
    min_submitted: Positive = 1
    resolution: Literal["majority", "unanimous", "any", "adjudicated"] = "majority"
    adjudicators: list[str] = []
    overlap: Share = 1.0
    annotators: list[Annotated[str, Field(min_length=1)]] = []
    batch: Positive | None = None
    sample: Positive | None = None
    calibration: Annotated[str, Field(min_length=1)] | None = None
    webhook: str | None = None


# release ---------------------------------------------------------------------------------------

Format = Literal["tasks", "alpaca", "prompt_completion", "messages", "responses", "openai"]


class Include(Section):
    seeds: bool = False


class Splits(Section):
    train: Share = 0.9
    validation: Share = 0.05
    test: Share = 0.05


class Release(Section):
    """What is published and where: `to` is a folder, for releases that stay on this machine, `repo` a Hub dataset.
    `holdout` names files or datasets (`ORG/NAME[:CONFIG]`) to keep at a distance; the format `responses` is what each
    annotator answered, under a pseudonym, and `openai` an export, chat JSON lines beside the configs; `figures` are
    drawn for the card where matplotlib is installed."""

    repo: str | None = None
    to: Annotated[str, Field(min_length=1)] | None = None
    private: bool = True
    license: str | None = None
    include: Include = Include()
    splits: Splits = Splits()
    formats: Annotated[list[Format], Field(min_length=1)] = ["tasks", "alpaca", "prompt_completion", "messages"]
    holdout: list[str] = []
    figures: bool = True


# the recipe ------------------------------------------------------------------------------------


class Recipe(Section):
    """A whole recipe; see the README for each key. Make one with `Recipe.load`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$")] = "en"
    seeds: list[str] = []
    pool: str = ""
    models: Models
    bootstrap: Bootstrap = Bootstrap()
    review: Review = Review()
    release: Release = Release()

    _source: str = PrivateAttr(default="recipe")
    _directory: Path = PrivateAttr(default_factory=Path.cwd)
    _seed_directory: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def load(cls, source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """The recipe of a YAML path or a bundled recipe's name, with `path.to.key=value` overrides applied.

        Relative paths are relative to the file; for a bundled recipe seeds come from the package and everything
        else is relative to the working directory. Raises RecipeError with every problem found.
        """
        path = find_recipe(source)
        bundled = path.parent == bundled_directory("recipes")
        problems: list[tuple[str, str]] = []
        values = _read_yaml(path)
        _apply_overrides(values, overrides, problems)
        recipe: Recipe | None = None
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            problems += _explain(error)
        directory = Path.cwd() if bundled else path.parent
        seed_directory = bundled_directory("seeds").parent if bundled else path.parent
        problems += _check_meaning(values, recipe, directory, seed_directory)
        if problems or recipe is None:
            raise RecipeError(
                str(source), _unique(problems), hint="Correct the file, then check it: sia validate " + str(source)
            )
        recipe._source, recipe._directory, recipe._seed_directory = str(source), directory, seed_directory
        return recipe

    @property
    def source(self) -> str:
        """What the user named: for messages that repeat a command."""
        return self._source

    @property
    def pool_url(self) -> str:
        """The SQLAlchemy address of the pool, with a relative SQLite path made absolute."""
        url = self.pool or f"sqlite:///{self.name}.db"
        match = re.fullmatch(r"sqlite:///(.*)", url)
        return f"sqlite:///{(self._directory / match[1]).resolve()}" if match else url

    @property
    def seed_paths(self) -> list[Path]:
        return [(self._seed_directory / seed).resolve() for seed in self.seeds]

    @property
    def review_dataset(self) -> str:
        return self.review.argilla.dataset or self.name

    def path(self, relative: str) -> Path:
        """A path written in the recipe, made absolute."""
        return (self._directory / relative).resolve()

    @property
    def fingerprint(self) -> str:
        """sha256 of every value of the recipe; it holds no secret, since a recipe holds none."""
        values = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()


def secret(value: str, key: str, *, source: str = "recipe") -> str:
    """The value, or for `env:NAME` that environment variable's. RecipeError where the variable is not set."""
    if not value.startswith("env:"):
        return value
    name = value[4:]
    found = os.environ.get(name, "").strip()
    if not found:
        raise RecipeError(source, [(key, f"the environment variable {name} is not set")], hint=f"export {name}=…")
    return found


# finding ---------------------------------------------------------------------------------------


def bundled_directory(kind: Literal["recipes", "seeds"]) -> Path:
    """The folder of bundled recipes or seeds: inside an installed package, at the top of a checkout."""
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def bundled_recipes() -> dict[str, Path]:
    """Bundled recipes by name, sorted."""
    return {path.stem: path for path in sorted(bundled_directory("recipes").glob("*.yaml"))}


def find_recipe(source: str | Path) -> Path:
    """The file a user means: a path first, then a bundled recipe's name. RecipeError where there is neither."""
    path = Path(source)
    if path.is_file():
        return path.resolve()
    bundled = bundled_recipes()
    if str(source) in bundled:
        return bundled[str(source)]
    close = difflib.get_close_matches(str(source), bundled, n=1)
    what = "it is a folder" if path.is_dir() else "there is no such file, and no bundled recipe of that name"
    hint = f"Did you mean {close[0]}? All of them: sia recipes" if close else "The bundled recipes: sia recipes"
    raise RecipeError(str(source), [("", what)], hint=hint)


# reading ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key written twice is an error: the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is written twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(str(path), [(where, error.problem or "this is not YAML")]) from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError) as error:
        raise RecipeError(str(path), [("", f"it cannot be read: {error}")]) from error
    if not isinstance(values, dict):
        raise RecipeError(str(path), [("", "it must be a mapping (name: …, models: …)")])
    return values


def _apply_overrides(values: dict[str, Any], overrides: Iterable[str], problems: list[tuple[str, str]]) -> None:
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            problems.append((f"--set {override}", "write it as path.to.key=value"))
            continue
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            problems.append((f"--set {override}", "the value is not YAML; quote it"))
            continue
        place = values
        for part in parts[:-1]:
            inner = place.get(part)
            if inner is None:
                inner = place[part] = {}
            if not isinstance(inner, dict):
                problems.append((f"--set {override}", f"'{part}' is not a mapping"))
                break
            place = inner
        else:
            place[parts[-1]] = value


# explaining ------------------------------------------------------------------------------------

_WORDS = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "missing": "is required",
}


def _explain(error: ValidationError) -> Iterator[tuple[str, str]]:
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"])
        kind = item["type"]
        if kind == "extra_forbidden":
            known = _keys_beside(item["loc"])
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            yield (
                path,
                f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known here: {', '.join(known)}",
            )
        elif kind in _WORDS:
            shown = "" if kind == "missing" else f", not {item['input']!r}"
            yield path, _WORDS[kind] + shown
        else:
            yield path, f"{item['msg'].removeprefix('Value error, ')}, not {item['input']!r}"


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section around `loc` knows."""
    section: type[BaseModel] = Recipe
    for part in loc[:-1]:
        field = next((f for n, f in section.model_fields.items() if part in (n, f.alias)), None)
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return [field.alias or name for name, field in section.model_fields.items()]


def _check_meaning(
    values: dict[str, Any], recipe: Recipe | None, directory: Path, seed_directory: Path
) -> Iterator[tuple[str, str]]:
    """The second pass; it works on raw values where the shape is wrong elsewhere, so that all problems come at once."""
    seeds = values.get("seeds")
    for number, seed in enumerate(seeds if isinstance(seeds, list) else []):
        if isinstance(seed, str) and not (seed_directory / seed).is_file():
            yield f"seeds.{number}", f"there is no file {seed_directory / seed}"
    pool = values.get("pool")
    if isinstance(pool, str) and pool and not re.match(r"(sqlite|postgresql(\+psycopg)?)://", pool):
        yield "pool", f"must be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE, not {pool!r}"
    yield from _check_address(values, "models", "generator", "base_url")
    yield from _check_address(values, "models", "judge", "base_url")
    yield from _check_address(values, "review", "argilla", "api_url")
    yield from _check_address(values, "review", "webhook")
    yield from _check_key(values, "models", "generator", "api_key")
    yield from _check_key(values, "models", "judge", "api_key")
    yield from _check_key(values, "review", "argilla", "api_key")
    if recipe is None:
        return
    splits = recipe.release.splits
    if abs(splits.train + splits.validation + splits.test - 1) > 1e-9:
        yield "release.splits", "train, validation and test must add up to 1"
    formats = recipe.release.formats
    if len(set(formats)) < len(formats):
        yield "release.formats", "a format is named twice"
    if set(formats) <= {"openai", "responses"}:
        yield "release.formats", "name at least one of tasks, alpaca, prompt_completion and messages"
    demonstrations = recipe.bootstrap.demonstrations
    if demonstrations.seed == 0 and not demonstrations.generated:
        yield "bootstrap.demonstrations", "a prompt needs at least one demonstration"
    if recipe.bootstrap.structured_output and (recipe.bootstrap.method != "alpaca" or recipe.bootstrap.faithful):
        yield "bootstrap.structured_output", "goes with method alpaca, and not with faithful"
    budget, sampling = recipe.bootstrap.budget, recipe.bootstrap.sampling
    for step in ("instructions", "classification", "instances"):
        given = getattr(sampling, step).given()
        if (budget.usd or budget.tokens) and given.get("max_tokens", 1) is None:
            yield f"bootstrap.sampling.{step}.max_tokens", "a budget in dollars or tokens needs it: it bounds a request"
    filters = recipe.bootstrap.filters
    if filters.min_words is not None and filters.max_words is not None and filters.min_words > filters.max_words:
        yield "bootstrap.filters", "min_words is above max_words"
    review = recipe.review
    if review.resolution == "adjudicated" and not review.adjudicators:
        yield "review.adjudicators", "resolution 'adjudicated' needs at least one user name"
    if review.overlap < 1 and review.min_submitted == 1:
        yield "review.overlap", "needs a min_submitted above 1: how many people judge that share of the records"
    if len(set(review.annotators)) < len(review.annotators):
        yield "review.annotators", "somebody is named twice"
    if review.annotators and len(review.annotators) < review.min_submitted:
        yield "review.annotators", f"must be at least as many as min_submitted, {review.min_submitted}"
    if review.calibration is not None and not (directory / review.calibration).is_file():
        yield "review.calibration", f"there is no file {directory / review.calibration}"
    if review.rubric not in BUNDLED_RUBRICS and not (directory / review.rubric).is_file():
        yield "review.rubric", f"must be paper, quick or a file; there is no file {directory / review.rubric}"
    if recipe.release.repo is not None and not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", recipe.release.repo):
        yield "release.repo", f"must be ORG/NAME, not {recipe.release.repo!r}"


def _check_key(values: dict[str, Any], *path: str) -> Iterator[tuple[str, str]]:
    value = _at(values, path)
    if isinstance(value, str) and value != NO_KEY and not re.fullmatch(r"env:[A-Za-z_]\w*", value):
        # the value itself stays out of the message: it may be a real key
        yield (
            ".".join(path),
            f"must name an environment variable (env:NAME), not hold a key; {NO_KEY} for a server without",
        )


def _at(values: dict[str, Any], path: Iterable[str]) -> Any:
    value: Any = values
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _check_address(values: dict[str, Any], *path: str) -> Iterator[tuple[str, str]]:
    value = _at(values, path)
    if not isinstance(value, str) or value == LOCAL or value.startswith("env:"):
        return
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        yield ".".join(path), f"must be an http(s) address, local, or env:NAME, not {value!r}"


def _unique(problems: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(problems))
