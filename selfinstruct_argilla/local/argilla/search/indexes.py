"""Database indexes beyond Argilla's own, under which a search of a large dataset reads little more than it returns.

They also keep SQLite, which knows no statistics here, from choosing Argilla's index over all responses of a status
when it looks for the few of one record.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_INDEXES = {
    "search_records_inserted_at": "records (dataset_id, inserted_at, id)",
    "search_records_updated_at": "records (dataset_id, updated_at, inserted_at, id)",
    "search_records_status": "records (dataset_id, status, inserted_at, id)",
    "search_records_dataset": "records (id, dataset_id)",
    "search_responses_status": "responses (record_id, status, user_id)",
    "search_responses_user": "responses (user_id, record_id, status)",
    "search_vectors_updated_at": "vectors (vector_settings_id, updated_at)",
}


async def create_indexes(session: AsyncSession) -> None:
    """Create those that are missing."""
    for name, columns in _INDEXES.items():
        await session.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}"))
    await session.commit()
