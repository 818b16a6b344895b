"""The local Argilla server's program. Runs in the server's own environment, never in ours:

    python boot.py --home FOLDER --host HOST --port PORT

`FOLDER/credentials.json` names the owner (`username`, `password`, `api_key`) and the key that signs web sessions
(`secret_key`). `ARGILLA_DATABASE_URL` and `ARGILLA_REDIS_URL` in the environment choose a database other than
`FOLDER/argilla.db`, and a Redis other than the one inside this process. The rest of the server's settings is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

WORKSPACE = "argilla"
SQLITE_TIMEOUT = 60  # seconds that a writer waits for another one


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    home: Path = arguments.home
    credentials = json.loads((home / "credentials.json").read_text())
    configure(home, credentials)

    # Only now: argilla_server reads its settings, and connects, when it is imported.
    import background_jobs

    background_jobs.use_embedded_redis_unless_configured()

    import database
    import speed

    database.migrate(home)
    speed.patch()
    asyncio.run(database.ensure_owner(credentials, WORKSPACE))

    import search_engine  # noqa: F401  (registers the engine "database")
    import uvicorn
    from argilla_server import app

    keep_page_offline(Path(tempfile.gettempdir()))
    # sets up logging, which must not meet the worker's own doing so
    server = uvicorn.Server(
        uvicorn.Config(app, host=arguments.host, port=arguments.port, access_log=False, timeout_graceful_shutdown=5)
    )
    background_jobs.start_worker()
    # what is here now stays; of a page of records, most objects are gone before a collector could look at them
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    sys.setswitchinterval(0.0005)  # seconds; a page shall not wait long for a thread that reads words ahead
    server.run()
    return 0 if server.started else 1


def configure(home: Path, credentials: dict[str, str]) -> None:
    """The server's settings, before it is imported."""
    scratch = home / "tmp"  # the server copies its web page there at every start and never clears it
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    os.environ.setdefault("ARGILLA_DATABASE_URL", f"sqlite+aiosqlite:///{home / 'argilla.db'}?check_same_thread=False")
    os.environ.update(
        ARGILLA_HOME_PATH=str(home),
        ARGILLA_SEARCH_ENGINE="database",
        ARGILLA_DATABASE_SQLITE_TIMEOUT=str(SQLITE_TIMEOUT),
        ARGILLA_AUTH_SECRET_KEY=credentials["secret_key"],
        ARGILLA_AUTH_OAUTH_CFG=str(home / "oauth.yaml"),
        ARGILLA_CORS_ORIGINS="[]",  # the page comes from the server itself; no other site may ask
        ARGILLA_SHOW_HUGGINGFACE_SPACE_PERSISTENT_STORAGE_WARNING="false",
        ARGILLA_ENABLE_TELEMETRY="false",
        HF_HUB_DISABLE_TELEMETRY="1",
    )


def keep_page_offline(scratch: Path) -> None:
    """Cut what the annotation page would fetch from other sites: two web fonts and a picture for sharing."""
    fonts = re.compile(r"@import url\(https:[^)]*\);")
    for path in scratch.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        if fonts.search(text):
            path.write_text(fonts.sub("", text), encoding="utf-8")
    for path in scratch.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        if "https://argilla.imglab-cdn.net/dibt/dibt_v2.png" in text:
            offline = text.replace('"https://argilla.imglab-cdn.net/dibt/dibt_v2.png"', "location.origin")
            path.write_text(offline, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
