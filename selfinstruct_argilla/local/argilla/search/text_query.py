"""The search box's language: Elasticsearch's `simple_query_string` with AND between words, and its standard analyzer.

`parse` never fails: whatever makes no sense as an operator is ignored. Sources: Lucene's SimpleQueryParser (grammar),
Unicode Standard Annex 29 as Lucene's StandardTokenizer applies it (words).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EDITS = 2
MAX_TOKEN_LENGTH = 255


@dataclass(frozen=True)
class Words:
    """All of `tokens` in one field, in any order."""

    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Phrase:
    """`tokens` side by side in one field, or moved apart by at most `slop` places in sum."""

    text: str
    tokens: tuple[str, ...]
    slop: int


@dataclass(frozen=True)
class Prefix:
    """A token that begins with `text`."""

    text: str


@dataclass(frozen=True)
class Fuzzy:
    """A token at most `edits` insertions, deletions or substitutions away from `text`."""

    text: str
    edits: int


@dataclass(frozen=True)
class Everything:
    pass


@dataclass(frozen=True)
class Not:
    child: Node


@dataclass
class And:
    children: list[Node]


@dataclass
class Or:
    children: list[Node]


Leaf = Words | Phrase | Prefix | Fuzzy
Node = Leaf | Everything | Not | And | Or


# --- words ------------------------------------------------------------------------------------------------------


def _character_class(*categories: str) -> str:
    """The characters of these Unicode categories, as the inside of a regular expression's class."""
    ranges: list[list[int]] = []
    for code in [*range(0x300, 0x1F000), *range(0xE0001, 0xE01F0)]:
        if unicodedata.category(chr(code)) in categories:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_IDEOGRAPH = r"\u3006\u3007\u3021-\u3029\u3038-\u303a\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HIRAGANA = r"\u3041-\u3096\u309d-\u309f\U0001b001-\U0001b11f\U0001f200"
_KATAKANA = r"\u3031-\u3035\u309b\u309c\u30a0-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u32d0-\u32fe\u3300-\u3357\uff66-\uff9d"
_COMPLEX = r"\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109f\u1780-\u17d3\u17d7\u17dc\u17dd\u1950-\u19df\u1a20-\u1a7f\u1a90-\u1aad\uaa60-\uaadf"  # noqa: E501
_MARK = _character_class("Mn", "Mc", "Me", "Cf")
_PICTOGRAPH = r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u2460\u24c2\u25aa-\u25fe\u2600-\u27bf\u2934\u2935\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5\U0001f201-\U0001f3fa\U0001f400-\U0001faff"  # noqa: E501
_SKIN = r"\U0001f3fb-\U0001f3ff"

_BOUND = rf"{_IDEOGRAPH}{_HIRAGANA}{_KATAKANA}{_COMPLEX}"
_LETTER = rf"[^\W\d_{_BOUND}]"
# Letters, digits and underscores; a dot, an apostrophe or a colon joins letters, a dot or a comma joins digits.
_ALPHANUMERIC = (
    rf"[^\W{_BOUND}](?:[^\W{_BOUND}]+|[{_MARK}]+"
    rf"|(?<=[{_MARK}]|[^\W\d_])['’‘.:·․‧︓﹕：·״](?={_LETTER})"
    rf"|(?<=\d)[.,;'’٬，；﹐](?=\d))*"
)
_TOKEN = re.compile(
    rf"(?P<word>{_ALPHANUMERIC})"
    rf"|[{_IDEOGRAPH}{_HIRAGANA}][{_MARK}]*"
    rf"|(?:[{_KATAKANA}][{_MARK}]*)+"
    rf"|[{_COMPLEX}](?:[{_COMPLEX}{_MARK}])*"
    rf"|[0-9#*]\ufe0f?\u20e3|[\U0001f1e6-\U0001f1ff]{{2}}"
    rf"|[{_PICTOGRAPH}](?:\ufe0f|[{_SKIN}])?(?:\u200d[{_PICTOGRAPH}](?:\ufe0f|[{_SKIN}])?)*"
)
_ASCII_TOKEN = re.compile(r"\w(?:\w+|(?<=[a-z])['.:](?=[a-z])|(?<=\d)[.,;'](?=\d))*")
# Java lowers each character alone: the dotted capital I and the final sigma come out otherwise than in Python.
_JAVA_LOWER = str.maketrans({"İ": "i", "Σ": "σ"})


def lowercase(text: str) -> str:
    return text.translate(_JAVA_LOWER).lower() if not text.isascii() else text.lower()


def tokenize(text: str) -> list[str]:
    """The words of `text` in lower case: ideographs one by one, other scripts by their words, no stemming."""
    lowered = lowercase(text)
    pattern = _ASCII_TOKEN if lowered.isascii() else _TOKEN
    tokens = [match.group() for match in pattern.finditer(lowered)] if pattern is _TOKEN else pattern.findall(lowered)
    if any(len(token) > MAX_TOKEN_LENGTH or token[0] == "_" for token in tokens):
        return [piece for token in tokens for piece in _pieces(token)]
    return tokens


def _pieces(token: str) -> Iterator[str]:
    if token.strip("_"):  # underscores join words, alone they are none
        for start in range(0, len(token), MAX_TOKEN_LENGTH):
            yield token[start : start + MAX_TOKEN_LENGTH]


# --- grammar ----------------------------------------------------------------------------------------------------

_WHITESPACE = " \t\n\r"
_ENDS_TOKEN = frozenset('"|+()' + _WHITESPACE)


@dataclass
class _Level:
    """What has been read of one pair of parentheses (or of the whole query), which ends at `end`."""

    end: int
    top: Node | None = None
    operation: type[And] | type[Or] | None = None
    previous: type[And] | type[Or] | None = None
    negations: int = 0

    def add(self, branch: Node | None) -> None:
        """Operators have no precedence: each applies to everything on its left and the next term on its right."""
        if branch is not None:
            if self.negations % 2:
                branch = Not(branch)
            if self.top is None:
                self.top = branch
            else:
                operation = self.operation or And
                if self.previous is not operation:
                    self.top = operation([self.top])
                assert isinstance(self.top, (And, Or))
                self.top.children.append(branch)
                self.previous = operation
            self.operation = None
        self.negations = 0


def parse(query: str) -> Node | None:
    """The query's tree, or None when it holds nothing to search for (which finds nothing)."""
    if query.strip(_WHITESPACE) == "*":
        return Everything()
    closing = _closing_parentheses(query)
    levels = [_Level(len(query))]
    index = 0
    while True:
        level = levels[-1]
        if index >= level.end:
            if len(levels) == 1:
                return level.top
            levels.pop()
            levels[-1].add(level.top)
            index += 1
            continue
        character = query[index]
        if character == "(":
            end = closing.get(index)
            index += 1
            if end == index:
                level.operation = None
                index += 1
            elif end is not None:
                levels.append(_Level(end))
                continue
        elif character == '"':
            index = _read_phrase(query, index + 1, level)
        elif character in "+|":
            if level.operation is None and level.top is not None:
                level.operation = And if character == "+" else Or
            index += 1
        elif character == "-":
            level.negations += 1
            index += 1
            continue
        elif character in _WHITESPACE or character == ")":
            index += 1
        else:
            index = _read_token(query, index, level)
        level.negations = 0


def _closing_parentheses(query: str) -> dict[int, int]:
    """Where each `(` that is closed is closed; quotes do not count, backslashes do."""
    pairs: dict[int, int] = {}
    open_at: list[int] = []
    index = 0
    while index < len(query):
        if query[index] == "\\":
            index += 1
        elif query[index] == "(":
            open_at.append(index)
        elif query[index] == ")" and open_at:
            pairs[open_at.pop()] = index
        index += 1
    return pairs


def _read_phrase(query: str, start: int, level: _Level) -> int:
    characters: list[str] = []
    index = start
    while index < level.end and query[index] != '"':
        if query[index] == "\\":
            index += 1
            if index == level.end:
                break
        characters.append(query[index])
        index += 1
    if index >= level.end:
        return start  # never closed: the quotation mark means nothing
    if index == start:
        level.operation = None
        return index + 1
    index += 1
    slop = 0
    if index < level.end and query[index] == "~":
        index += 1
        if index < level.end:  # a bare ~ that ends the query asks for nothing
            slop, index = _read_number(query, index, level.end)
    text = "".join(characters)
    tokens = tuple(tokenize(text))
    level.add(Phrase(text, tokens, slop) if tokens else None)
    return index


def _read_token(query: str, index: int, level: _Level) -> int:
    characters: list[str] = []
    prefix = False
    while index < level.end:
        character = query[index]
        if character == "\\":
            index += 1
            prefix = False
            if index == level.end:
                break
            characters.append(query[index])
            index += 1
            continue
        if character in _ENDS_TOKEN:
            break
        if characters and character == "~":
            edits, index = _read_number(query, index + 1, level.end)
            _add_token("".join(characters), min(edits, MAX_EDITS), level)
            return index
        prefix = bool(characters) and character == "*"
        characters.append(character)
        index += 1
    if prefix:
        level.add(Prefix("".join(characters[:-1])))
    elif characters:
        _add_token("".join(characters), 0, level)
    return index


def _add_token(text: str, edits: int, level: _Level) -> None:
    if edits:
        level.add(Fuzzy(text, edits))
        return
    tokens = tuple(tokenize(text))
    level.add(Words(text, tokens) if tokens else None)


def _read_number(query: str, index: int, end: int) -> tuple[int, int]:
    """The number after `~`, and where it ends: 2 when there is none, 0 when it is no number."""
    start = index
    while index < end and query[index] not in _ENDS_TOKEN:
        index += 1
    text = query[start:index]
    if not text:
        return 2, index
    is_number = re.fullmatch(r"\+?[0-9]{1,10}", text) is not None and int(text) < 2**31
    return (int(text) if is_number else 0), index
