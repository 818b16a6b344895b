"""Argilla's search filters as SQL conditions on `records`.

As in Argilla's own engines: a missing value never matches, a list matches when one of its elements does, and each
filter on responses is satisfied by some one response, not by the same one as the next filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from argilla_server.enums import MetadataPropertyType, QuestionType, RecordStatus, ResponseStatus, SuggestionType
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Record, Response, Suggestion
from argilla_server.search_engine.base import (
    AndFilter,
    Filter,
    FilterScope,
    MetadataFilterScope,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
)
from sqlalchemy import ColumnElement, and_, case, exists, false, literal, or_, select, true

from .dates import date_bounds, utc_now
from .sql_json import JsonSql, PostgresqlJson

ValueType = Literal["keyword", "number"]
Condition = Callable[[ColumnElement[Any]], ColumnElement[bool]]

_QUESTION_VALUE_TYPES: dict[str, ValueType] = {
    QuestionType.label_selection: "keyword",
    QuestionType.multi_label_selection: "keyword",
    QuestionType.rating: "number",
}
_PENDING = "pending"


@dataclass(frozen=True)
class DatasetColumns:
    """What a dataset's metadata properties and questions hold, by name."""

    metadata: dict[str, MetadataPropertyType]
    questions: dict[str, tuple[UUID, QuestionType]]

    def metadata_value_type(self, name: str) -> ValueType:
        return "keyword" if self.metadata[name] == MetadataPropertyType.terms else "number"

    def question_value_type(self, name: str) -> ValueType | None:
        """None for text, ranking and span questions: Argilla does not search their values."""
        return _QUESTION_VALUE_TYPES.get(self.questions[name][1])


def response_of(scope: ResponseFilterScope) -> ColumnElement[bool]:
    """The responses of a record that `scope` speaks of: everybody's, or one user's."""
    mine = Response.record_id == Record.id
    return and_(mine, Response.user_id == scope.user.id) if scope.user else mine


def build_condition(filter: Filter, columns: DatasetColumns, json: JsonSql) -> ColumnElement[bool]:
    """Raises UnprocessableEntityError for a filter that has no meaning, such as a range over a response's status."""
    if isinstance(filter, AndFilter):
        return and_(true(), *(build_condition(part, columns, json) for part in filter.filters))
    scope: FilterScope = filter.scope
    if isinstance(scope, RecordFilterScope):
        return _record_condition(filter, scope.property, json)
    if isinstance(scope, MetadataFilterScope):
        if scope.metadata_property not in columns.metadata:
            return false()
        value_type = columns.metadata_value_type(scope.metadata_property)
        condition = _condition_on_value(filter, value_type, json)
        return _any_element(json, Record.metadata_, (scope.metadata_property,), value_type, condition)
    if isinstance(scope, SuggestionFilterScope):
        return _suggestion_condition(filter, scope, columns, json)
    if isinstance(scope, ResponseFilterScope):
        return _response_condition(filter, scope, columns, json)
    raise UnprocessableEntityError(f"Cannot process request for search scope {scope}")


def _record_condition(filter: TermsFilter | RangeFilter, name: str, json: JsonSql) -> ColumnElement[bool]:
    if name in ("inserted_at", "updated_at"):
        return _date_condition(filter, getattr(Record, name))
    if name == "external_id":
        return _condition_on_value(filter, "keyword", json)(Record.external_id)
    if name == "status":
        return _enum_condition(filter, Record.status, RecordStatus)
    if isinstance(filter, TermsFilter):
        return Record.id.in_(_record_ids(filter.values))
    # A range of identifiers: compared as the hexadecimal text they are.
    lower, upper = (None if bound is None else str(bound).replace("-", "") for bound in (filter.ge, filter.le))
    return _between(json.bytewise(json.hex_id(Record.id)), lower, upper)


def _record_ids(values: list[str]) -> list[UUID]:
    """The values that are UUIDs in the spelling under which records are known."""
    found = []
    for value in values:
        try:
            record_id = UUID(value)
        except ValueError:
            continue
        if str(record_id) == value:
            found.append(record_id)
    return found


def _suggestion_condition(
    filter: TermsFilter | RangeFilter, scope: SuggestionFilterScope, columns: DatasetColumns, json: JsonSql
) -> ColumnElement[bool]:
    if scope.question not in columns.questions:
        return false()
    if scope.property == "value":
        value_type = columns.question_value_type(scope.question)
        if value_type is None:
            return false()
        condition = _any_element(json, Suggestion.value, (), value_type, _condition_on_value(filter, value_type, json))
    elif scope.property == "score":
        condition = _any_element(json, Suggestion.score, (), "number", _condition_on_value(filter, "number", json))
    elif scope.property == "agent":
        condition = _condition_on_value(filter, "keyword", json)(Suggestion.agent)
    elif scope.property == "type":
        condition = _enum_condition(filter, Suggestion.type, SuggestionType)
    else:  # Argilla spells "no property" as "None", and nothing is indexed under that name
        return false()
    question_id = columns.questions[scope.question][0]
    return exists().where(Suggestion.record_id == Record.id, Suggestion.question_id == question_id, condition)


def _response_condition(
    filter: TermsFilter | RangeFilter, scope: ResponseFilterScope, columns: DatasetColumns, json: JsonSql
) -> ColumnElement[bool]:
    if scope.question:
        value_type = columns.question_value_type(scope.question) if scope.question in columns.questions else None
        if value_type is None:
            return false()
        condition = _condition_on_value(filter, value_type, json)
        answered = _any_element(json, Response.values, (scope.question, "value"), value_type, condition)
        return exists().where(response_of(scope), answered)
    if scope.property == "status" and isinstance(filter, TermsFilter):
        return _response_status_condition(filter.values, scope)
    raise UnprocessableEntityError(f"Cannot process filter scope {scope}")


def _response_status_condition(values: list[str], scope: ResponseFilterScope) -> ColumnElement[bool]:
    """`pending` is no stored status: it means that the user (or, without one, anybody) has not responded at all."""
    stored = _members(ResponseStatus, [value for value in values if value != _PENDING])
    alternatives: list[ColumnElement[bool]] = []
    if _PENDING in values:
        alternatives.append(~exists().where(response_of(scope)))
    if len(values) > values.count(_PENDING):
        alternatives.append(exists().where(response_of(scope), Response.status.in_(stored)))
    if alternatives:
        return or_(*alternatives)
    return exists().where(response_of(scope)) if scope.user else true()


def _any_element(
    json: JsonSql, column: Any, keys: tuple[str, ...], value_type: ValueType, condition: Condition
) -> ColumnElement[bool]:
    """`condition` on the value at `keys`, or on some element of the list there."""
    rows = json.elements(column, *keys)
    if value_type == "keyword":
        scalar, element = json.text(column, *keys), json.element_text(rows)
    else:
        scalar, element = json.number(column, *keys), json.element_number(rows)
    in_list = select(literal(1)).select_from(rows).where(condition(element)).exists()
    if value_type == "number":  # hardly ever a list: ask about that last
        return or_(condition(scalar), and_(json.is_array(column, *keys), in_list))
    return case((json.is_array(column, *keys), in_list), else_=condition(scalar))


def _condition_on_value(filter: TermsFilter | RangeFilter, value_type: ValueType, json: JsonSql) -> Condition:
    if isinstance(filter, TermsFilter):
        if value_type == "number":
            numbers = [number for number in map(_number, filter.values) if number is not None]
            return lambda value: value.in_(_bound(numbers, json))
        # PostgreSQL cannot hold a NUL in a text, so no text there equals one that has it.
        texts = [value for value in filter.values if isinstance(json, PostgresqlJson) <= ("\0" not in value)]
        return lambda value: value.in_(texts)
    if value_type == "number":
        lower, upper = (None if bound is None else _bounding_number(bound) for bound in (filter.ge, filter.le))
        lower, upper = (None if bound is None else _bound([bound], json)[0] for bound in (lower, upper))
        return lambda value: _between(value, lower, upper)
    low, high = (None if bound is None else str(bound).replace("\0", "") for bound in (filter.ge, filter.le))
    return lambda value: _between(json.bytewise(value), low, high)


def _bound(numbers: list[int | float], json: JsonSql) -> list[Any]:
    """PostgreSQL compares `numeric` exactly, and its driver takes no other number for it."""
    return [Decimal(str(number)) for number in numbers] if isinstance(json, PostgresqlJson) else numbers


def _between(value: ColumnElement[Any], lower: Any, upper: Any) -> ColumnElement[bool]:
    if lower is not None and upper is not None:
        return value.between(lower, upper)  # reads the value once
    bounds = [value >= lower] if lower is not None else []
    return and_(true(), *bounds, *([value <= upper] if upper is not None else []))


def _number(text: str | float) -> int | float | None:
    """The number in `text`; whole ones that a column can hold stay exact. None when it is no number."""
    try:
        exact = Decimal(str(text).strip())
    except InvalidOperation:
        return None
    if not exact.is_finite():
        return None
    if exact == exact.to_integral_value() and abs(exact) < 2**63:
        return int(exact)
    number = float(exact)
    return number if math.isfinite(number) else None


def _bounding_number(bound: str | float) -> int | float:
    number = _number(bound)
    if number is None:
        raise UnprocessableEntityError(f"`{bound}` is not a number that a range can start or end with")
    return number


def _members(enumeration: type[Enum], values: list[str]) -> list[Any]:
    return [member for member in enumeration if member.value in values]


def _enum_condition(filter: TermsFilter | RangeFilter, column: Any, enumeration: type[Enum]) -> ColumnElement[bool]:
    if isinstance(filter, TermsFilter):
        return column.in_(_members(enumeration, filter.values))
    values = [member.value for member in enumeration]
    if filter.ge is not None:
        values = [value for value in values if value >= str(filter.ge)]
    if filter.le is not None:
        values = [value for value in values if value <= str(filter.le)]
    return column.in_(_members(enumeration, values))


def _date_condition(filter: TermsFilter | RangeFilter, column: Any) -> ColumnElement[bool]:
    now = utc_now()

    def bounds(value: Any) -> tuple[Any, Any]:
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        try:
            return date_bounds(text, now)
        except ValueError as exc:
            raise UnprocessableEntityError(f"failed to parse date `{text}`: {exc}") from exc

    if isinstance(filter, TermsFilter):
        return or_(false(), *(column.between(*bounds(value)) for value in filter.values))
    lower = None if filter.ge is None else bounds(filter.ge)[0]
    upper = None if filter.le is None else bounds(filter.le)[1]
    return _between(column, lower, upper)
