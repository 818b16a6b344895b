"""Changes of the schema since version 1, oldest first: `MIGRATIONS[n]` takes a pool from version n+1 to n+2.

Users' pools hold paid work and people's judgements: a function here is never changed once released.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

MIGRATIONS: list[Callable[[Connection], None]] = []
