"""Recipes: every problem at once, each with its path; overrides; paths; secrets that stay outside."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from selfinstruct_argilla.errors import RecipeError
from selfinstruct_argilla.recipe import Recipe, bundled_recipes, find_recipe, secret

MINIMAL = "name: mine\nmodels:\n  generator: {model: some-model}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(source: Path | str, *overrides: str) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(source, overrides)
    assert caught.value.exit_code == 2
    return dict(caught.value.problems)


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_is_valid(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.seed_paths or recipe.bootstrap.method == "distill"
    assert all(path.is_file() for path in recipe.seed_paths)
    assert find_recipe(name) == find_recipe(str(bundled_recipes()[name]))


def test_every_recipe_of_the_readme_is_valid(tmp_path: Path) -> None:
    """The first block is a whole recipe; the others, where they have no name, say what may be added to it."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(part.split("```")[0]) for part in readme.split("```yaml\n")[1:]]
    whole = blocks[0]
    for block in blocks:
        sections = {} if "name" in block else {key: {**whole.get(key, {}), **block[key]} for key in block}
        values = {**whole, **sections} if sections else block
        for path in (*values.get("seeds", []), values.get("review", {}).get("calibration")):
            if path:
                (tmp_path / path).parent.mkdir(exist_ok=True)
                (tmp_path / path).write_text("")
        Recipe.load(write(tmp_path, yaml.safe_dump(values, sort_keys=False)))


def test_all_problems_at_once_each_with_its_path(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
name: "a name with spaces"
seeds: [missing.jsonl]
pool: mysql://somewhere
nonsense: 1
models:
  generator: {model: m, base_url: "ftp://x", api: completion, concurrency: "16", api_key: sk-secret}
bootstrap: {targt: 5, novelty: {threshold: 1.5}}
release: {splits: {train: 0.9, validation: 0.9, test: 0.1}}
""",
    )
    found = problems(path)
    assert set(found) >= {
        "name", "seeds.0", "pool", "nonsense", "models.generator.base_url", "models.generator.api",
        "models.generator.concurrency", "models.generator.api_key", "bootstrap.targt", "bootstrap.novelty.threshold",
    }  # fmt: skip
    assert "did you mean 'target'" in found["bootstrap.targt"]
    assert "sk-secret" not in str(found)
    assert "missing.jsonl" in found["seeds.0"]


@pytest.mark.parametrize(
    ("addition", "path"),
    [
        ("release: {splits: {train: 0.9, validation: 0.9, test: 0.1}}", "release.splits"),
        ("release: {repo: 'a/b/c'}", "release.repo"),
        ("release: {formats: [openai, responses]}", "release.formats"),
        ("release: {formats: [tasks, tasks]}", "release.formats"),
        ("review: {resolution: adjudicated}", "review.adjudicators"),
        ("review: {rubric: mine.yaml}", "review.rubric"),
        ("review: {argilla: {api_url: 'localhost:6900'}}", "review.argilla.api_url"),
        ("bootstrap: {demonstrations: {seed: 0, generated: 0}}", "bootstrap.demonstrations"),
        ("bootstrap: {filters: {min_words: 9, max_words: 3}}", "bootstrap.filters"),
        ("bootstrap: {structured_output: true}", "bootstrap.structured_output"),
        (
            "bootstrap: {budget: {usd: 1}, sampling: {instances: {max_tokens: null}}}",
            "bootstrap.sampling.instances.max_tokens",
        ),
        ("language: no", "language"),
    ],
)
def test_the_second_pass(tmp_path: Path, addition: str, path: str) -> None:
    assert path in problems(write(tmp_path, MINIMAL + addition))


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "name: x\nname: y\nmodels: {}", "\x00"])
def test_what_is_no_recipe(tmp_path: Path, text: str) -> None:
    assert problems(write(tmp_path, text))


def test_a_missing_recipe_and_a_slip_of_the_pen(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load("self_instuct")
    assert "self_instruct" in (caught.value.hint or "")
    assert problems(tmp_path)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    recipe = Recipe.load(
        path, ["review.min_submitted=1", "review.min_submitted=2", "bootstrap.novelty={threshold: 0.5}"]
    )
    assert recipe.review.min_submitted == 2
    assert recipe.bootstrap.novelty.threshold == 0.5
    assert "bootstrap.targt" in problems(path, "bootstrap.targt=5")
    assert problems(path, "nothing")
    assert problems(path, "name.inner=1")
    assert recipe.fingerprint != Recipe.load(path).fingerprint


def test_paths_are_relative_to_the_file_or_for_bundled_ones_to_where_you_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Recipe.load(write(tmp_path, MINIMAL)).pool_url == f"sqlite:///{tmp_path}/mine.db"
    monkeypatch.chdir(tmp_path)
    assert Recipe.load("self_instruct").pool_url == f"sqlite:///{tmp_path}/self-instruct.db"


def test_secrets_are_looked_up_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret("plain", "key") == "plain"
    with pytest.raises(RecipeError, match="MY_KEY is not set"):
        secret("env:MY_KEY", "models.generator.api_key")
    monkeypatch.setenv("MY_KEY", "value")
    assert secret("env:MY_KEY", "models.generator.api_key") == "value"
