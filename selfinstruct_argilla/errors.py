"""Everything that can go wrong and be explained, as one tree.

SelfInstructError                 exit 1; expected failure: one sentence, and a hint that says what to do next
├── UsageError                    exit 2; wrong arguments
│   └── RecipeError               a recipe with problems, each with its path in the file
├── DataFileError                 a seeds or task file with a broken line (path, line)
├── PoolError                     the pool cannot be opened, is of another version, or is damaged
│   ├── TaskConflictError         the same id with other content
│   └── StatusError               a move that the status table does not allow
├── ModelError                    the language model
│   ├── ModelUnavailableError     nobody answers, or only with transient failures
│   └── ModelRefusedError         wrong key, unknown model, an API that the endpoint does not have
├── GenerationError               a round that cannot go on (waves without a candidate)
├── ReviewError                   Argilla
│   ├── ReviewUnavailableError    nobody answers at its address, or only with server errors
│   └── ReviewRefusedError        wrong key, missing workspace, a dataset that belongs to another pool
├── ReleaseError                  nothing to release, a version that exists, a target that refuses
└── LocalError                    local environments, the local Argilla, the local model

Facts hang on the exceptions as attributes; the message is one sentence for a person; `hint` names the next step,
as a command where there is one. The command line prints both and exits with `exit_code`; anything outside
this tree is a bug and comes out as a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SelfInstructError(Exception):
    """Base of every expected failure."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SelfInstructError):
    """Wrong arguments."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be used.

    `problems` holds every problem found, each a pair of its path in the file (`review.min_submitted`) and a sentence.
    """

    def __init__(self, source: str, problems: Sequence[tuple[str, str]], *, hint: str | None = None) -> None:
        lines = [f"{path}: {text}" if path else text for path, text in problems]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        super().__init__(f"{count} in recipe {source}:\n  " + "\n  ".join(lines), hint=hint)
        self.source = source
        self.problems = list(problems)


class DataFileError(SelfInstructError):
    """A line of a task file that cannot be read."""

    def __init__(self, path: Path | str, line: int | None, message: str, *, hint: str | None = None) -> None:
        where = f"{path}, line {line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {message}", hint=hint)
        self.path = path
        self.line = line


class PoolError(SelfInstructError):
    """The task pool cannot be used."""


class TaskConflictError(PoolError):
    """A task id that is there already with other content."""

    def __init__(self, task_id: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.task_id = task_id


class StatusError(PoolError):
    """A move between statuses that the pool's table does not allow."""


class ModelError(SelfInstructError):
    """The language model cannot be used."""


class ModelUnavailableError(ModelError):
    """Nobody answers at the model's address, or only with failures that say nothing about the request."""


class ModelRefusedError(ModelError):
    """The endpoint refuses the key, the model name or the kind of API."""


class GenerationError(SelfInstructError):
    """A round that cannot go on."""


class ReviewError(SelfInstructError):
    """Argilla cannot be used as the recipe asks."""


class ReviewUnavailableError(ReviewError):
    """Nobody answers at Argilla's address, or only with server errors."""


class ReviewRefusedError(ReviewError):
    """Argilla answers, but not to this: a key, a workspace or a dataset is not as needed."""


class ReleaseError(SelfInstructError):
    """A release cannot be built or published."""


class LocalError(SelfInstructError):
    """A local environment, the local Argilla or the local model cannot be used."""
