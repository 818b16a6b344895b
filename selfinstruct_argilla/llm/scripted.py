"""A model that answers from a script: for tests, dry runs, and trying a recipe without spending anything."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping

from .base import Reply, Request, RequestRefused

Answer = str | Reply | Exception
Script = Iterable[Answer] | Mapping[str, Answer] | Callable[[Request], Answer | Awaitable[Answer]]


class ScriptedModel:
    """Answers from a list (in the order of the calls), a function of the request, or a recorded journal.

    A recorded journal is a mapping from request keys to replies. An answer that is an exception is raised, so a
    script can play every failure. `requests` holds what was asked, in order. Where the script has no answer (left),
    the request is refused.
    """

    def __init__(self, answers: Script) -> None:
        self.requests: list[Request] = []
        self._answer = _as_function(answers)

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        answer = self._answer(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Reply):
            return answer
        # one token a word is as good as any for a script, and makes budgets testable
        return Reply(answer, "stop", len(request.prompt.text.split()), len(answer.split()))

    async def close(self) -> None:
        pass


def _as_function(answers: Script) -> Callable[[Request], Answer | Awaitable[Answer]]:
    if callable(answers):
        return answers
    refused = RequestRefused("the script has no answer to this request")
    if isinstance(answers, Mapping):
        return lambda request: answers.get(request.key, refused)
    rest = iter(answers)
    return lambda request: next(rest, refused)
