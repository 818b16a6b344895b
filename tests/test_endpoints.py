"""What a user is told about an endpoint that is not as the recipe says: one sentence, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai_server import Asked, OpenAIServer, answer, error
from typer.testing import CliRunner, Result

from selfinstruct_argilla.cli.app import app

KEY = "sk-not-a-real-one-0123456789"


def generate(server: OpenAIServer, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Result:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    settings = [f"pool=sqlite:///{folder / 'pool.db'}", f"models.generator.base_url={server.base_url}", *overrides]
    arguments = ["generate", "self_instruct", *(part for setting in settings for part in ("--set", setting))]
    return CliRunner().invoke(app, arguments)


def spent(folder: Path) -> dict[str, Any]:
    status = CliRunner().invoke(
        app, ["status", "self_instruct", "--set", f"pool=sqlite:///{folder / 'pool.db'}", "--json"]
    )
    return dict(json.loads(status.stdout)["spend"])


@pytest.mark.parametrize(
    ("refusal", "sentence", "hint"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "refuses the key (HTTP 401)", "models.generator.api_key"),
        (
            error(404, "The model does not exist", code="model_not_found"),
            "for the model 'gpt-4o-mini'",
            "models.generator",
        ),
        (error(404, "Not Found"), "has no chat API", "(base_url, model, api)"),
        (error(400, "Unsupported value", code="unsupported_value"), "with these settings", "bootstrap.sampling"),
        (error(429, "You exceeded your quota", code="insufficient_quota"), "no credit left", None),
        (error(400, "No chat template is defined"), "the endpoint says: HTTP 400: No chat template is defined", None),
    ],
)
def test_one_sentence_and_nothing_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Any, sentence: str, hint: str | None
) -> None:
    with OpenAIServer(lambda asked: refusal) as server:
        result = generate(server, tmp_path, monkeypatch)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert KEY not in result.output
    if hint is not None:
        assert hint in result.stderr
    found = spent(tmp_path)
    assert (found["requests"], found["usd"]) == (0, 0.0)


def test_a_key_that_is_revoked_in_the_middle_keeps_what_was_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(asked: Asked) -> Any:
        return answer("9. Name the seven colours of a rainbow.") if asked.number <= 3 else error(401, "revoked")

    with OpenAIServer(script) as server:
        result = generate(server, tmp_path, monkeypatch)
    assert result.exit_code == 1
    assert "refuses the key" in result.stderr
    assert spent(tmp_path)["requests"] == 3
