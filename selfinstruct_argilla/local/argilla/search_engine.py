"""The search engine `database`: Argilla's searches answered from Argilla's own SQL tables.

Importing this module registers it; `ARGILLA_SEARCH_ENGINE=database` chooses it. Nothing is indexed when records are
written, so nothing can fall behind: filters, sorts and counts are SQL; words and vectors are kept in memory as copies
that are brought up to date before each search (`search/row_cache.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import sqlalchemy
from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import (
    Dataset,
    Field,
    MetadataProperty,
    Question,
    Record,
    Response,
    Suggestion,
    User,
    Vector,
    VectorSettings,
)
from argilla_server.search_engine.base import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from search import filters, sorting
from search.ahead import AheadReader
from search.indexes import create_indexes
from search.row_cache import RowCopies
from search.sql_json import JsonSql, json_sql
from search.text_index import TextIndex
from search.text_query import parse
from search.vectors import VectorMatrix
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_object_session

MAX_RESULT_WINDOW = 500_000
MAX_TERMS = 2**14

_copies = RowCopies()
_reader = AheadReader()


@SearchEngine.register(engine_name="database")
class DatabaseSearchEngine(SearchEngine):
    """One instance serves one request. It reads through the session of the request that asks."""

    @classmethod
    async def new_instance(cls) -> DatabaseSearchEngine:
        return cls()

    async def close(self) -> None: ...

    async def ping(self) -> bool:
        """Called when the server starts: the moment to prepare the database."""
        async with AsyncSessionLocal() as session:
            await create_indexes(session)
            recent = select(Dataset.id).order_by(Dataset.last_activity_at.desc())
            dataset_ids = list((await session.execute(recent)).scalars())
        _reader.start(_read_ahead)
        for dataset_id in dataset_ids:
            _reader.ask(dataset_id)
        return True

    async def info(self) -> dict[str, Any]:
        return {"name": "database", "version": {"number": sqlalchemy.__version__}}

    # What other engines do when something is written. The tables already hold it; reading new words before somebody
    # searches for them only saves that person the wait.

    async def create_index(self, dataset: Dataset) -> None: ...

    async def delete_index(self, dataset: Dataset) -> None: ...

    async def configure_metadata_property(self, dataset: Dataset, metadata_property: MetadataProperty) -> None: ...

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None: ...

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        _reader.ask(dataset.id)

    async def partial_record_update(self, record: Record, **update: Any) -> None: ...

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None: ...

    async def update_record_response(self, response: Response) -> None: ...

    async def delete_record_response(self, response: Response) -> None: ...

    async def update_record_suggestion(self, suggestion: Suggestion) -> None: ...

    async def delete_record_suggestion(self, suggestion: Suggestion) -> None: ...

    # Counts

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """`total` and the records of each status that occurs; empty for a draft dataset."""
        if dataset.is_draft:
            return {}
        statement = select(Record.status, func.count()).where(Record.dataset_id == dataset.id).group_by(Record.status)
        return await self._progress(dataset, statement)

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """`total` and the user's responses of each status that occurs; empty for a draft dataset."""
        if dataset.is_draft:
            return {}
        in_dataset = Response.record_id.in_(select(Record.id).where(Record.dataset_id == dataset.id))
        statement = (
            select(Response.status, func.count())
            .where(Response.user_id == user.id, in_dataset)
            .group_by(Response.status)
        )
        return await self._progress(dataset, statement)

    @staticmethod
    async def _progress(dataset: Dataset, statement: Select[Any]) -> dict[str, int]:
        async with _session_of(dataset) as session:
            counts = {status.value: count for status, count in await session.execute(statement)}
        return {"total": sum(counts.values()), **counts}

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """Terms by how often they occur, or the range of numbers."""
        in_dataset = Record.dataset_id == metadata_property.dataset_id
        name = metadata_property.name
        async with _session_of(metadata_property) as session:
            json = _json_sql(session)
            rows = json.elements(Record.metadata_, name)
            if metadata_property.type == MetadataPropertyType.terms:
                term = json.element_text(rows).label("term")
                counted = (
                    select(term, func.count().label("count"))
                    .select_from(Record)
                    .join(rows, sqlalchemy.true())
                    .where(in_dataset, json.element_text(rows).is_not(None))
                    .group_by(term)
                    .subquery()
                )
                by_count = select(counted).order_by(counted.c.count.desc(), json.bytewise(counted.c.term))
                terms = (await session.execute(by_count.limit(MAX_TERMS))).all()
                total = (await session.execute(select(func.coalesce(func.sum(counted.c.count), 0)))).scalar_one()
                return TermsMetrics(
                    total=int(total), values=[TermsMetrics.TermCount(term=term, count=count) for term, count in terms]
                )
            number = json.number(Record.metadata_, name)
            least, most = (await session.execute(select(func.min(number), func.max(number)).where(in_dataset))).one()
        if metadata_property.type == MetadataPropertyType.integer:
            return IntegerMetadataMetrics(min=least, max=most)
        return FloatMetadataMetrics(min=least, max=most)

    # Searches

    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | None = None,
    ) -> SearchResponses:
        """One page of the records that match, and how many do.

        Without `sort` the best match comes first; with `user_id` the scores are multiplied with a random number, the
        same one each time for this user and record. Raises UnprocessableEntityError past `MAX_RESULT_WINDOW`.
        """
        if offset + limit > MAX_RESULT_WINDOW:
            raise UnprocessableEntityError(
                f"Result window is too large, from + size must be less than or equal to: [{MAX_RESULT_WINDOW}] "
                f"but was [{offset + limit}]"
            )
        window = slice(offset, offset + limit)
        async with _session_of(dataset) as session:
            if query is not None:
                record_ids, scores = await _text_matches(session, dataset, query, filter, sort)
            elif user_id is None or sort:
                statement = await _matching_records(session, dataset, filter, sort)
                count = select(func.count()).select_from(statement.order_by(None).subquery())
                total = (await session.execute(count)).scalar_one()
                page_ids: list[str] = []
                if offset < total:  # else looking for the page would read everything once more
                    page_ids = list((await session.execute(statement.offset(offset).limit(limit))).scalars())
                return _page(page_ids, None if sort else [1.0] * len(page_ids), total)
            else:
                record_ids = await _all_matching_ids(session, dataset, filter)
                scores = np.ones(len(record_ids))
        if sort:
            return _page(record_ids[window], None, len(record_ids))
        if user_id is not None:
            scores = scores * sorting.random_scores(record_ids, user_id)
        page = np.argsort(-scores, kind="stable")[window]
        return _page([record_ids[row] for row in page], scores[page].tolist(), len(record_ids))

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """The records whose vectors point most (or least) the way of `value`, or of the vector of `record`, which is
        left out then. The score is (1 + cosine) / 2, of the negated vector when the least similar are wanted.

        Raises ValueError unless there is exactly one of `value` and `record`, and it has a vector;
        UnprocessableEntityError for a vector that cannot be compared.
        """
        if bool(value) == bool(record):
            raise ValueError("Must provide either vector value or record to compute the similarity search")
        if record is not None:
            value = record.vector_value_by_vector_settings(vector_settings)
        if not value:
            raise ValueError("Cannot find a vector value to apply with provided info")
        direction = _direction(value, vector_settings)
        if order == SimilarityOrder.least_similar:
            direction = -direction
        async with _session_of(dataset) as session:
            among: set[str] | None = None
            if query is not None:
                among = set((await _text_matches(session, dataset, query, filter, None))[0])
            elif filter is not None:
                among = set(await _all_matching_ids(session, dataset, filter))
            excluded = record.id.hex if record is not None else None
            async with _vectors(session, vector_settings.id, vector_settings.dimensions) as matrix:
                best = await asyncio.to_thread(matrix.most_similar, direction, max_results, among, excluded)
        best = [(record_id, score) for record_id, score in best if threshold is None or score >= threshold]
        return _page([record_id for record_id, _ in best], [score for _, score in best], len(best))


async def _read_ahead(dataset_id: UUID) -> None:
    """The words and vectors of a dataset, as long as there is room."""
    vectors = (
        select(VectorSettings.id, VectorSettings.dimensions, func.count(Vector.id))
        .join(Vector, Vector.vector_settings_id == VectorSettings.id)
        .where(VectorSettings.dataset_id == dataset_id)
        .group_by(VectorSettings.id, VectorSettings.dimensions)
    )
    async with AsyncSessionLocal() as session:
        if _copies.has_room():
            async with _text_index(session, dataset_id):
                pass
        for vector_settings_id, dimensions, count in (await session.execute(vectors)).all():
            if _copies.has_room(VectorMatrix.most_bytes(count, dimensions), (vector_settings_id, dimensions)):
                async with _vectors(session, vector_settings_id, dimensions):
                    pass


@asynccontextmanager
async def _session_of(instance: Any) -> AsyncIterator[AsyncSession]:
    """The session that `instance` was loaded in. A second connection for one request could starve the pool."""
    session = async_object_session(instance)
    if session is not None:
        yield session
        return
    async with AsyncSessionLocal() as session:
        yield session


def _json_sql(session: AsyncSession) -> JsonSql:
    return json_sql(session.get_bind().dialect.name)


async def _dataset_columns(session: AsyncSession, dataset: Dataset) -> filters.DatasetColumns:
    properties = await session.execute(
        select(MetadataProperty.name, MetadataProperty.settings).where(MetadataProperty.dataset_id == dataset.id)
    )
    questions = await session.execute(
        select(Question.name, Question.id, Question.settings).where(Question.dataset_id == dataset.id)
    )
    return filters.DatasetColumns(
        metadata={name: settings["type"] for name, settings in properties},
        questions={name: (question_id, settings["type"]) for name, question_id, settings in questions},
    )


async def _matching_records(
    session: AsyncSession, dataset: Dataset, filter: Filter | None, sort: list[Order] | None
) -> Select[tuple[str]]:
    """The records (32 hexadecimal digits) that pass `filter`, in the order of `sort`, or else of insertion."""
    json = _json_sql(session)
    statement = select(json.hex_id(Record.id)).where(Record.dataset_id == dataset.id)
    if filter or sort:
        columns = await _dataset_columns(session, dataset)
        if filter:
            statement = statement.where(filters.build_condition(filter, columns, json))
        if sort:
            statement = statement.order_by(*sorting.build_order(sort, columns, json))
    return statement if sort else statement.order_by(*sorting.INSERTION_ORDER)


async def _all_matching_ids(session: AsyncSession, dataset: Dataset, filter: Filter | None) -> list[str]:
    """The records (32 hexadecimal digits) that pass `filter`, in no order: in one piece, as rows cost more to carry
    than to find."""
    matching = (await _matching_records(session, dataset, filter, None)).order_by(None).subquery()
    joined = (await session.execute(select(_json_sql(session).joined(matching.c[0])))).scalar_one() or ""
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]


async def _text_matches(
    session: AsyncSession, dataset: Dataset, query: TextQuery | str, filter: Filter | None, sort: list[Order] | None
) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The records that `query` finds among those that pass `filter`, and their scores."""
    text = TextQuery(q=query) if isinstance(query, str) else query
    if text.field and dataset.field_by_name(text.field) is None:
        raise UnprocessableEntityError(f"Field `{text.field}` not found in dataset `{dataset.id}`.")
    candidates: list[str] | None = None
    if sort:
        candidates = list((await session.execute(await _matching_records(session, dataset, filter, sort))).scalars())
    elif filter:
        candidates = await _all_matching_ids(session, dataset, filter)
    async with _text_index(session, dataset.id) as index:
        return await asyncio.to_thread(index.find, parse(text.q), text.field or None, candidates, bool(sort))


@asynccontextmanager
async def _text_index(session: AsyncSession, dataset_id: UUID) -> AsyncIterator[TextIndex]:
    """The words of a dataset as they are now; nobody changes them inside the context."""
    statement = select(Field.name, Field.settings).where(Field.dataset_id == dataset_id).order_by(Field.inserted_at)
    fields = {name: settings["type"] for name, settings in await session.execute(statement)}
    index = _copies.get((dataset_id, tuple(fields.items())), lambda: TextIndex(fields))
    async with index.lock:
        payload = [Record.inserted_at, Record.fields]
        await index.refresh(session, _json_sql(session), Record.id, Record, Record.dataset_id == dataset_id, payload)
        yield index
    _copies.trim()


@asynccontextmanager
async def _vectors(session: AsyncSession, vector_settings_id: UUID, dimensions: int) -> AsyncIterator[VectorMatrix]:
    """The vectors of a vector setting as they are now; nobody changes them inside the context."""
    matrix = _copies.get((vector_settings_id, dimensions), lambda: VectorMatrix(dimensions))
    async with matrix.lock:
        in_setting = Vector.vector_settings_id == vector_settings_id
        await matrix.refresh(session, _json_sql(session), Vector.record_id, Vector, in_setting, [Vector.value])
        yield matrix
    _copies.trim()


def _direction(value: list[float], vector_settings: VectorSettings) -> npt.NDArray[np.float64]:
    if len(value) != vector_settings.dimensions:
        raise UnprocessableEntityError(
            f"the query vector has a different dimension [{len(value)}] than the index vectors "
            f"[{vector_settings.dimensions}]"
        )
    direction = np.array(value, dtype=np.float64)
    if not np.isfinite(direction).all() or not direction.any():
        raise UnprocessableEntityError("the query vector must have finite elements, and not all of them zero")
    return direction / np.abs(direction).max()


def _page(record_ids: list[str], scores: list[float] | None, total: int) -> SearchResponses:
    items = [
        SearchResponseItem(record_id=UUID(record_id), score=scores[row] if scores else None)
        for row, record_id in enumerate(record_ids)
    ]
    return SearchResponses(items=items, total=total)
