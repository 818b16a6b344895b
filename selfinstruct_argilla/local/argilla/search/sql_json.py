"""Reading JSON columns in SQL, on SQLite and on PostgreSQL.

A value is named by its column and the keys that lead to it; no keys means the column itself. Each function returns an
SQL expression that is NULL where the value is absent or has another type, so no row can make a cast fail.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Integer, Numeric, Text, case, cast, func, literal, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.sql.selectable import FromClause


class SqliteJson:
    """JSON1 functions of SQLite; columns hold JSON text."""

    @staticmethod
    def _path(keys: tuple[str, ...]) -> str:
        return "$" + "".join(f'."{key}"' for key in keys)

    def is_array(self, column: Any, *keys: str) -> ColumnElement[bool]:
        return func.json_type(column, self._path(keys)) == "array"

    def text(self, column: Any, *keys: str) -> ColumnElement[Any]:
        return cast(func.json_extract(column, self._path(keys)), Text)

    def number(self, column: Any, *keys: str) -> ColumnElement[Any]:
        value = func.json_extract(column, self._path(keys))
        return case((func.typeof(value).in_(("integer", "real")), value))

    def elements(self, column: Any, *keys: str) -> FromClause:
        """The elements of an array, or the one value that is no array, as rows."""
        return func.json_each(column, self._path(keys)).table_valued("value")

    def element_text(self, row: FromClause) -> ColumnElement[Any]:
        return cast(row.c.value, Text)

    def element_number(self, row: FromClause) -> ColumnElement[Any]:
        return case((func.typeof(row.c.value).in_(("integer", "real")), row.c.value))

    def bytewise(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """`text` compared by code point, as Elasticsearch compares keywords."""
        return text

    def hex_id(self, column: Any) -> ColumnElement[str]:
        """A UUID column as 32 hexadecimal digits."""
        return type_coerce(column, Text)

    def joined(self, column: Any) -> ColumnElement[str]:
        """All rows' texts as one, in no order."""
        return func.group_concat(column, "")

    def microseconds_of_minute(self, column: Any) -> ColumnElement[int]:
        stored = type_coerce(column, Text)  # "YYYY-MM-DD HH:MM:SS.ffffff"
        return cast(func.substr(stored, 18, 2).concat(func.substr(stored, 21, 6)), Integer)


def _path(*keys: str) -> ColumnElement[Any]:
    return cast(literal(list(keys), ARRAY(Text)), ARRAY(Text))


class PostgresqlJson:
    """Operators of PostgreSQL on `json` columns."""

    @staticmethod
    def _node(column: Any, keys: tuple[str, ...]) -> ColumnElement[Any]:
        # A NUL may be stored, as an escape, but PostgreSQL would raise when it has to read it.
        stored = cast(column, Text)
        clean = func.regexp_replace(stored, r"(^|[^\\])((\\\\)*)\\u0000", r"\1\2", "g")
        readable = case((func.strpos(stored, "\\u0000") > 0, cast(clean, JSON)), else_=column)
        return type_coerce(readable, JSON()).op("#>", return_type=JSON())(_path(*keys))

    @staticmethod
    def _text(node: ColumnElement[Any]) -> ColumnElement[Any]:
        return node.op("#>>", return_type=Text())(_path())

    @classmethod
    def _number(cls, node: ColumnElement[Any]) -> ColumnElement[Any]:
        return case((func.json_typeof(node) == "number", cast(cast(node, Text), Numeric)))

    def is_array(self, column: Any, *keys: str) -> ColumnElement[bool]:
        return func.json_typeof(self._node(column, keys)) == "array"

    def text(self, column: Any, *keys: str) -> ColumnElement[Any]:
        return self._text(self._node(column, keys))

    def number(self, column: Any, *keys: str) -> ColumnElement[Any]:
        return self._number(self._node(column, keys))

    def elements(self, column: Any, *keys: str) -> FromClause:
        """The elements of an array, or the one value that is no array, as rows."""
        node = self._node(column, keys)
        array = case((func.json_typeof(node) == "array", node), else_=func.json_build_array(node))
        return func.json_array_elements(array).table_valued("value")

    def element_text(self, row: FromClause) -> ColumnElement[Any]:
        return self._text(type_coerce(row.c.value, JSON()))

    def element_number(self, row: FromClause) -> ColumnElement[Any]:
        return self._number(type_coerce(row.c.value, JSON()))

    def bytewise(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """`text` compared by code point, as Elasticsearch compares keywords."""
        return text.collate("C")

    def hex_id(self, column: Any) -> ColumnElement[str]:
        """A UUID column as 32 hexadecimal digits."""
        return func.replace(cast(column, Text), "-", "")

    def joined(self, column: Any) -> ColumnElement[str]:
        """All rows' texts as one, in no order."""
        return func.string_agg(column, "")

    def microseconds_of_minute(self, column: Any) -> ColumnElement[int]:
        return cast(func.extract("microseconds", column), Integer)


JsonSql = SqliteJson | PostgresqlJson


def json_sql(dialect_name: str) -> JsonSql:
    return PostgresqlJson() if dialect_name == "postgresql" else SqliteJson()
