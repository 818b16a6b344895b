"""Where everything local lives: environments, the local Argilla's data, the local model's process."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_dir


def selfinstruct_home() -> Path:
    """The folder of everything local: `SELFINSTRUCT_HOME`, by default the user's data folder."""
    chosen = os.environ.get("SELFINSTRUCT_HOME")
    return Path(chosen).expanduser().resolve() if chosen else Path(user_data_dir("selfinstruct-argilla"))
