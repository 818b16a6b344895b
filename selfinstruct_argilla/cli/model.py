"""`sia model`: the local model server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from selfinstruct_argilla.cli.output import print_data, print_json, progress_display, say
from selfinstruct_argilla.local.model_server import ModelServer

app = typer.Typer(help="The local model server (OpenAI-compatible, on this machine only).", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def start(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF file. Default: SmolLM2-135M-Instruct, which comes with it.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Default: 6901, or a free one if another program has it.")] = None,
) -> None:
    """Start the model server, or find it running."""
    with progress_display() as progress:
        endpoint = ModelServer().start(progress, model=model, port=port)
    print_data(endpoint.base_url)
    say(f"{endpoint.model} answers there. In a recipe: base_url: local")


@app.command()
def stop() -> None:
    """Stop the model server."""
    say("The local model has stopped." if ModelServer().stop() else "The local model was not running.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the model server runs, and where."""
    state = ModelServer().status()
    if as_json:
        print_json(asdict(state))
    elif state.running:
        print_data(f"{state.model} at {state.url} (pid {state.pid})")
    else:
        print_data("The local model is not running.")
