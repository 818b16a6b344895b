"""The order of search results: sort keys in SQL, and the order that shuffles records for each user.

As in Argilla's own engines: records without the value come last in both directions, and a list sorts by its smallest
element ascending and by its largest descending. Ties are broken by insertion.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from argilla_server.enums import SortOrder
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Record, Response, Suggestion
from argilla_server.search_engine.base import (
    MetadataFilterScope,
    Order,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
)
from sqlalchemy import ColumnElement, Text, case, cast, func, null, select, true

from .filters import DatasetColumns, ValueType, response_of
from .sql_json import JsonSql

INSERTION_ORDER = (Record.inserted_at, Record.id)


def build_order(sort: list[Order], columns: DatasetColumns, json: JsonSql) -> list[ColumnElement[Any]]:
    """The ORDER BY of `sort`, complete: no two records are equal under it.

    Raises UnprocessableEntityError for a key that has no meaning.
    """
    keys: list[ColumnElement[Any]] = []
    for order in sort:
        descending = order.order == SortOrder.desc
        key = _sort_key(order, descending, columns, json)
        keys += [key.desc().nulls_last() if descending else key.asc().nulls_last()]
    return [*keys, *INSERTION_ORDER]


def _sort_key(order: Order, descending: bool, columns: DatasetColumns, json: JsonSql) -> ColumnElement[Any]:
    scope = order.scope
    if isinstance(scope, RecordFilterScope):
        column = getattr(Record, scope.property)
        if scope.property == "status":  # PostgreSQL would sort an enumeration in the order of its declaration
            return json.bytewise(cast(column, Text))
        return json.bytewise(column) if scope.property == "external_id" else column
    if isinstance(scope, MetadataFilterScope):
        if scope.metadata_property not in columns.metadata:
            return cast(null(), Text)
        value_type = columns.metadata_value_type(scope.metadata_property)
        return _extreme(json, Record.metadata_, (scope.metadata_property,), value_type, descending)
    if isinstance(scope, SuggestionFilterScope):
        return _suggestion_key(scope, descending, columns, json)
    if isinstance(scope, ResponseFilterScope):
        return _response_key(scope, descending, columns, json)
    raise UnprocessableEntityError(f"Cannot process request for search scope {scope}")


def _suggestion_key(
    scope: SuggestionFilterScope, descending: bool, columns: DatasetColumns, json: JsonSql
) -> ColumnElement[Any]:
    value_type = columns.question_value_type(scope.question) if scope.question in columns.questions else None
    if scope.property == "score":
        key = _extreme(json, Suggestion.score, (), "number", descending)
    elif scope.property == "agent":
        key = json.bytewise(Suggestion.agent)
    elif scope.property == "type":
        key = json.bytewise(cast(Suggestion.type, Text))
    elif scope.property == "value" and value_type is not None:
        key = _extreme(json, Suggestion.value, (), value_type, descending)
    else:
        return cast(null(), Text)
    question_id = columns.questions[scope.question][0]
    return select(key).where(Suggestion.record_id == Record.id, Suggestion.question_id == question_id).scalar_subquery()


def _response_key(
    scope: ResponseFilterScope, descending: bool, columns: DatasetColumns, json: JsonSql
) -> ColumnElement[Any]:
    """Ratings sort by their mean over the responses; labels have no mean and sort like any list."""
    if scope.question is None:
        if scope.property != "status":
            raise UnprocessableEntityError("Cannot sort by responses without a question or a property")
        status = json.bytewise(cast(Response.status, Text))
        return select(_aggregate(descending)(status)).where(response_of(scope)).scalar_subquery()
    value_type = columns.question_value_type(scope.question) if scope.question in columns.questions else None
    if value_type is None:
        return cast(null(), Text)
    keys = (scope.question, "value")
    if value_type == "number":
        return select(func.avg(json.number(Response.values, *keys))).where(response_of(scope)).scalar_subquery()
    rows = json.elements(Response.values, *keys)
    label = json.bytewise(json.element_text(rows))
    return (
        select(_aggregate(descending)(label))
        .select_from(Response)
        .join(rows, true())
        .where(response_of(scope))
        .scalar_subquery()
    )


def _extreme(
    json: JsonSql, column: Any, keys: tuple[str, ...], value_type: ValueType, descending: bool
) -> ColumnElement[Any]:
    rows = json.elements(column, *keys)
    if value_type == "keyword":
        scalar, element = json.bytewise(json.text(column, *keys)), json.bytewise(json.element_text(rows))
    else:
        scalar, element = json.number(column, *keys), json.element_number(rows)
    in_list = select(_aggregate(descending)(element)).select_from(rows).scalar_subquery()
    if value_type == "number":  # hardly ever a list: ask about that last
        return func.coalesce(scalar, case((json.is_array(column, *keys), in_list)))
    return case((json.is_array(column, *keys), in_list), else_=scalar)


def _aggregate(descending: bool) -> Any:
    return func.max if descending else func.min


def random_scores(record_ids: list[str], user_id: UUID) -> npt.NDArray[np.float64]:
    """A number in (0, 1] for each record (32 hexadecimal digits): always the same for one user, and unrelated to
    another user's. Sorting by it gives annotators who start together different records."""
    halves = np.frombuffer(bytes.fromhex("".join(record_ids)), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    seed = np.uint64(user_id.int & (2**64 - 1)) ^ np.uint64(user_id.int >> 64)
    mixed = _splitmix64(_splitmix64(halves[:, 0] ^ seed) ^ halves[:, 1])
    return ((mixed >> np.uint64(11)).astype(np.float64) + 1.0) / 2.0**53


def _splitmix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014); array arithmetic wraps around."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
