"""A recipe with its pool, models and review connection: what the command line and notebooks work with.

    with open_project("recipe.yaml") as project:
        project.generate()
        project.push()
        ...                      # people judge in Argilla
        project.sync()
        project.publish(to="out")

Each method delegates to one function of a stage, returns its result, prints nothing and never exits. `progress` is
called with a sentence and the part that is done (0 to 1, or None where nobody can tell).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .bootstrap.distill import Distillation
from .bootstrap.edits import edit_check
from .bootstrap.loop import Bootstrap, GenerateResult
from .bootstrap.preview import Preview, preview
from .bootstrap.verify import Verification, verify
from .llm.base import Model
from .llm.caller import Caller, Purse
from .pool.engine import in_parts
from .pool.jsonl import read_tasks
from .pool.pool import ImportResult, TaskPool
from .pool.status import PoolStatus, pool_status
from .recipe import BUNDLED_RUBRICS, LOCAL, NO_KEY, ModelConfig, Recipe, secret
from .scaffold import RECIPE, continue_project
from .tasks import Status, Task

if TYPE_CHECKING:
    from .release.publish import PublishResult
    from .release.pull import PullResult
    from .report import Report
    from .review.argilla_client import ArgillaClient
    from .review.due import Entry
    from .review.push import PushResult
    from .review.records import Opinion
    from .review.rubric import Rubric
    from .review.sync import SyncResult
    from .review.team import Comment, Member, MemberProgress

Progress = Callable[[str, float | None], None]
Role = Literal["generator", "judge"]  # of a model in the recipe


def silent(message: str, fraction: float | None) -> None:
    """No progress."""


def open_project(recipe: Recipe | str | Path, *, overrides: Iterable[str] = (), model: Model | None = None) -> Project:
    """The project of a recipe, a YAML path or a bundled recipe's name; use it as a context manager.

    `model` takes the place of the recipe's endpoint, for example a `ScriptedModel`. Raises RecipeError and PoolError.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe, overrides)
    return Project(recipe, TaskPool.open(recipe.pool_url), model)


def project_from_hub(
    repo: str, directory: str | Path | None = None, *, revision: str | None = None, progress: Progress = silent
) -> Path:
    """The recipe of a new project that goes on from the dataset `ORG/NAME[:CONFIG]`, with what its release says of
    how it was made; its pool is empty until `Project.pull`. The folder is by default named as the dataset; one that
    has a recipe already is left as it is. Raises ReleaseError and UsageError."""
    from .release.pull import look, recipe_values

    directory = Path(directory) if directory is not None else Path(repo.partition(":")[0].rpartition("/")[2])
    if (directory / RECIPE).exists():
        return directory / RECIPE
    found = look(repo, revision=revision, progress=progress)
    recipe, values = recipe_values(found)
    version = f" at {found.manifest['version']}" if found.manifest else ""
    return continue_project(directory, recipe, values, heading=f"Goes on from {found.source}{version}.")


class Project:
    """One recipe at work."""

    def __init__(self, recipe: Recipe, pool: TaskPool, model: Model | None = None) -> None:
        self.recipe, self.pool = recipe, pool
        self._model = model

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.pool.close()

    # the stages --------------------------------------------------------------------------------

    def add_seeds(self) -> ImportResult:
        """The recipe's seed files into the pool; what is there already stays."""
        results = [self.pool.add_seeds(read_tasks(path)) for path in self.recipe.seed_paths]
        return ImportResult(sum(result.added for result in results), sum(result.unchanged for result in results))

    def generate(self, *, target: int | None = None, progress: Progress = silent) -> GenerateResult:
        """One round, or the end of an unfinished one; with `target`, until the pool holds that many generated tasks."""
        self.add_seeds()
        return asyncio.run(self._generate(target, progress))

    async def _generate(self, target: int | None, progress: Progress) -> GenerateResult:
        async with self._caller("generator", progress) as caller:
            driver = Distillation if self.recipe.bootstrap.method == "distill" else Bootstrap
            return await driver(self.pool, self.recipe, caller, progress).run(target)

    @asynccontextmanager
    async def _caller(self, role: Role, progress: Progress) -> AsyncIterator[Caller]:
        """Buys replies of one of the recipe's models; what was spent before counts against the budget."""
        model = self._model or self._connect_model(role, progress)
        settings = self._model_settings(role)
        spend = self.pool.journal.spend()
        purse = Purse(
            self.recipe.bootstrap.budget,
            settings.price,
            usd=spend.usd + spend.lost_usd,
            requests=spend.requests,
            tokens=spend.prompt_tokens + spend.completion_tokens,
        )
        caller = Caller(
            model,
            self.pool.journal,
            purse,
            concurrency=settings.concurrency,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        )
        try:
            yield caller
        finally:
            if model is not self._model:
                await model.close()

    def preview(self, *, target: int | None = None) -> Preview:
        """The first prompts of the next round and what it would cost; nothing is asked."""
        self.add_seeds()
        return preview(self.pool, self.recipe, target)

    def push(self, *, progress: Progress = silent) -> PushResult:
        """Candidates to Argilla, for people to judge; what is there already is not sent again.

        With `models.judge` that model is asked about them first.
        """
        from .review.calibration import read_calibration
        from .review.push import push

        rubric, known = self._rubric(), self.recipe.review.calibration
        calibration = read_calibration(self.recipe.path(known), rubric) if known is not None else []

        def judge(entries: Sequence[Entry]) -> dict[str, Opinion]:
            return asyncio.run(self._ask_judge(entries, rubric, progress))

        with self._connect_review(progress) as client:
            return push(
                self.pool,
                self.recipe.review,
                client,
                dataset=self.recipe.review_dataset,
                rubric=rubric,
                judge=judge if self.recipe.models.judge is not None else None,
                calibration=calibration,
                language=self.recipe.language,
                distilled=self.recipe.bootstrap.distill.review,
                progress=progress,
            )

    async def _ask_judge(self, entries: Sequence[Entry], rubric: Rubric, progress: Progress) -> dict[str, Opinion]:
        from .review.judge import ask_judge

        def records() -> Iterator[tuple[Task, int]]:
            for some in in_parts(entries):
                tasks = self.pool.shown([entry.task_id for entry in some])
                yield from ((tasks[entry.task_id], instance) for entry in some for instance in entry.instances)

        progress("Asking the judge model", None)
        async with self._caller("judge", progress) as caller, caller.session():
            return await ask_judge(
                records(), rubric, self._model_settings("judge"), caller, language=self.recipe.language
            )

    def sync(self, *, progress: Progress = silent) -> SyncResult:
        """People's verdicts and edits back into the pool."""
        from .review.sync import sync

        with self._connect_review(progress) as client:
            return sync(
                self.pool,
                self.recipe.review,
                client,
                dataset=self.recipe.review_dataset,
                rubric=self._rubric(),
                check=edit_check(self.pool, self.recipe),
                progress=progress,
            )

    def watch(self, *, progress: Progress = silent) -> Iterator[SyncResult]:
        """The result of a sync now, and of each one after people did something, without end."""
        from .review.watch import NOTICED_SECONDS, POLL_SECONDS, watch
        from .review.webhooks import hook_name, notices

        review = self.recipe.review
        address = review.webhook or ("http://127.0.0.1:0" if review.argilla.api_url == LOCAL else None)
        with self._connect_review(progress) as client, ExitStack() as stack:
            wait = stack.enter_context(notices(client, address, name=hook_name(self.pool.id))) if address else None
            if review.webhook and wait is None:
                progress(
                    f"Argilla cannot reach {review.webhook}; asking it every {POLL_SECONDS:g} seconds instead", None
                )
            yield from watch(
                self.pool,
                self.recipe.review,
                client,
                dataset=self.recipe.review_dataset,
                rubric=self._rubric(),
                check=edit_check(self.pool, self.recipe),
                interval_seconds=NOTICED_SECONDS if wait else POLL_SECONDS,
                wait=wait or time.sleep,
            )

    def publish(
        self,
        *,
        to: str | Path | None = None,
        repo: str | None = None,
        version: str | None = None,
        dry_run: bool = False,
        allow: Sequence[str] = (),
        progress: Progress = silent,
    ) -> PublishResult:
        """A release of what people accepted, into a folder or to the Hub; an unchanged pool makes none.

        Without `to` and `repo`: where the recipe says.
        """
        from .release.publish import publish
        from .review.export import public_responses, settings_files
        from .review.quality import known_quality

        if self.recipe.release.include.seeds:
            self.add_seeds()
        settings = self.recipe.release
        if to is None and repo is None and settings.repo is None and settings.to is not None:
            to = self.recipe.path(settings.to)
        return publish(
            self.pool,
            self.recipe,
            to=Path(to) if to is not None else None,
            repo=repo,
            version=version,
            dry_run=dry_run,
            allow=allow,
            quality=known_quality(self.pool),
            review_files=settings_files(
                self._rubric(),
                name=self.recipe.name,
                language=self.recipe.language,
                min_submitted=self.recipe.review.min_submitted,
            ),
            responses=public_responses(self.pool) if "responses" in settings.formats else None,
            progress=progress,
        )

    def pull(
        self, repo: str, *, revision: str | None = None, status: Status | None = None, progress: Progress = silent
    ) -> PullResult:
        """A dataset `ORG/NAME[:CONFIG]` of the Hub into the pool: a release with all it knows, so that the pool can
        publish the next version; tasks of another dataset as candidates, or as the `status` seed."""
        from .release.pull import look, pull

        return pull(self.pool, look(repo, revision=revision, progress=progress), status=status, progress=progress)

    def verify(self) -> Verification:
        """Proves that every generated task follows from the journal."""
        return verify(self.pool)

    def add_team(self, names: Sequence[str], *, role: str = "annotator", progress: Progress = silent) -> list[Member]:
        """Accounts for people in the review's workspace; who has one keeps it."""
        from .review.team import add_members

        with self._connect_review(progress) as client:
            return add_members(client, self.recipe.review, names, role=role)

    def team(self, *, progress: Progress = silent) -> list[MemberProgress]:
        """How far each person is, as of the last sync; for the lead."""
        from .review.team import members, team_progress

        with self._connect_review(progress) as client:
            return team_progress(self.pool, members(client, self.recipe.review))

    def comments(self) -> list[Comment]:
        """What people wrote beside their answers, as of the last sync; for the lead."""
        from .review.team import comments

        return comments(self.pool)

    def report(self, output: str | Path) -> Report:
        """Figures about the pool into a folder: report.md, report.json, and plots where matplotlib is installed."""
        from .report import write_report

        return write_report(self.recipe, self.pool, self.status(), Path(output))

    def status(self) -> PoolStatus:
        """Where everything stands, from the pool alone."""
        from .review.quality import agreement_json, known_quality

        found, quality = pool_status(self.pool), known_quality(self.pool)
        if quality is None:
            return found
        judged = {"agreement": agreement_json(quality), "quality": quality}
        return replace(found, review={**found.review, **judged})

    # connections -------------------------------------------------------------------------------

    def _model_settings(self, role: Role) -> ModelConfig:
        settings = getattr(self.recipe.models, role)
        assert isinstance(settings, ModelConfig)
        return settings

    def _connect_model(self, role: Role, progress: Progress) -> Model:
        from .llm.openai_client import OpenAIModel

        settings = self._model_settings(role)
        if settings.base_url == LOCAL:
            from .local.model_server import ensure_model

            endpoint = ensure_model(settings.model, progress)
            return OpenAIModel(endpoint.base_url, endpoint.api_key, timeout_seconds=settings.timeout_seconds)
        base_url = self._secret(settings.base_url, f"models.{role}.base_url") if settings.base_url else None
        key = self._secret(settings.api_key, f"models.{role}.api_key")
        return OpenAIModel(base_url, key, timeout_seconds=settings.timeout_seconds)

    def _connect_review(self, progress: Progress) -> ArgillaClient:
        from .review.argilla_client import connect

        settings = self.recipe.review.argilla
        if settings.api_url == LOCAL:
            from .local.argilla_server import ensure_argilla

            endpoint = ensure_argilla(progress)
            return connect(endpoint.api_url, endpoint.api_key)
        url = self._secret(settings.api_url, "review.argilla.api_url")
        return connect(url, self._secret(settings.api_key, "review.argilla.api_key"))

    def _rubric(self) -> Rubric:
        from .review.rubric import load_rubric, with_classification

        name = self.recipe.review.rubric
        rubric = load_rubric(name, None if name in BUNDLED_RUBRICS else self.recipe.path(name))
        return with_classification(rubric) if self.recipe.review.ask_classification else rubric

    def _secret(self, value: str, key: str) -> str:
        return value if value == NO_KEY else secret(value, key, source=self.recipe.source)
