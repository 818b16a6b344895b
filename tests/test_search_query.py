"""The search box's language and its dates, without a server: parsing, words, and finding words in memory."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct_argilla.local.argilla.search.dates import date_bounds
from selfinstruct_argilla.local.argilla.search.row_cache import RowCopies
from selfinstruct_argilla.local.argilla.search.text_index import TextIndex, edit_distance, sloppy_frequency
from selfinstruct_argilla.local.argilla.search.text_query import (
    And,
    Everything,
    Fuzzy,
    Node,
    Not,
    Or,
    Phrase,
    Prefix,
    Words,
    parse,
    tokenize,
)
from selfinstruct_argilla.local.argilla.search.vectors import VectorMatrix


def test_what_is_read_ahead_must_fit_in() -> None:
    matrix, copies = VectorMatrix(8), RowCopies(max_bytes=VectorMatrix.most_bytes(1000, 8))
    copies.get("vectors", lambda: matrix)
    for number in range(1000):
        matrix.put_row(f"{number:032x}", [1.0] * 8)
    assert matrix.nbytes <= VectorMatrix.most_bytes(1000, 8) < 2 * matrix.nbytes
    assert copies.has_room()
    assert copies.has_room(VectorMatrix.most_bytes(1000, 8), instead_of="vectors")
    assert not copies.has_room(VectorMatrix.most_bytes(1000, 8))


def word(text: str) -> Words:
    return Words(text, tuple(tokenize(text)))


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("card", word("card")),
        ("Card  payment\t\n", And([word("Card"), word("payment")])),
        ("cash | negative", Or([word("cash"), word("negative")])),
        ("cash + negative", And([word("cash"), word("negative")])),
        ("a | b c", And([Or([word("a"), word("b")]), word("c")])),  # operators work from left to right
        ("a (b | c)", And([word("a"), Or([word("b"), word("c")])])),
        ("-(a | b)", Not(Or([word("a"), word("b")]))),
        ("a -b", And([word("a"), Not(word("b"))])),
        ("a - b", And([word("a"), word("b")])),  # a space takes the minus away
        ("--a", word("a")),
        ("foo-bar", Words("foo-bar", ("foo", "bar"))),  # inside a word it is no operator
        ('"a b"', Phrase("a b", ("a", "b"), 0)),
        ('"a b"~3 c', And([Phrase("a b", ("a", "b"), 3), word("c")])),
        ('"a b"~', Phrase("a b", ("a", "b"), 0)),
        ("pay*", Prefix("pay")),
        ("pa*y", Words("pa*y", ("pa", "y"))),
        ("fo~", Fuzzy("fo", 2)),
        ("fo~1", Fuzzy("fo", 1)),
        ("fo~9", Fuzzy("fo", 2)),
        ("fo~0", word("fo")),
        ("fo~x", word("fo")),
        ("*", Everything()),
        (r"\"a", Words('"a', ("a",))),
        (r"pay\*", Words("pay*", ("pay",))),
        ('a "b', And([word("a"), word("b")])),  # never closed
        ("(a", word("a")),
        ("a)", word("a")),
        ("a | () b", And([word("a"), word("b")])),  # an empty pair takes the operator with it
        ("a !!! b", And([word("a"), word("b")])),  # nothing to search for in !!!
    ],
)
def test_parses_as_simple_query_string(query: str, tree: Node) -> None:
    assert parse(query) == tree


@pytest.mark.parametrize("query", ["", "   ", "|||", "+-|", "()", "(((", '""', '"', "!!!", "-", "~", "\\"])
def test_a_query_of_nothing_is_no_query(query: str) -> None:
    assert parse(query) is None


@given(st.text(alphabet='ab()"|+-~*\\ 1é中', max_size=60))
def test_never_a_syntax_error_and_always_an_answer(query: str) -> None:
    index = index_of("a b", "b é", "中 1")
    assert len(index.search(parse(query)).found) == 3


def test_depth_is_no_danger() -> None:
    assert parse("(" * 50_000 + "a" + ")" * 50_000) == word("a")
    alternating = " | ".join(["a + b"] * 3_000)
    assert index_of("a b", "a").search(parse(alternating)).found.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The 2 QUICK Brown-Foxes jumped", ["the", "2", "quick", "brown", "foxes", "jumped"]),
        ("the dog's bone, isn't it?", ["the", "dog's", "bone", "isn't", "it"]),
        ("foo_bar example.com 3.14 1,000 a,b", ["foo_bar", "example.com", "3.14", "1,000", "a", "b"]),
        ("___ -- !!", []),
        ("中文字", ["中", "文", "字"]),
        ("ひらカタカナ", ["ひ", "ら", "カタカナ"]),
        ("한국어 ภาษาไทย", ["한국어", "ภาษาไทย"]),
        ("हिन्दी भाषा العربية", ["हिन्दी", "भाषा", "العربية"]),
        ("ÉCOLE ΟΔΟΣ İstanbul", ["école", "οδοσ", "istanbul"]),
        ("cafe\u0301 don’t", ["cafe\u0301", "don’t"]),
        ("ok👍🏽 🇩🇪", ["ok", "👍🏽", "🇩🇪"]),
        ("a\x00b \ud800c", ["a", "b", "c"]),
        ("x" * 300, ["x" * 255, "x" * 45]),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


@given(st.text(alphabet="aB1_.,'é ", max_size=40))
def test_ascii_and_other_text_are_split_alike(text: str) -> None:
    assert tokenize(text + " 中") == [*tokenize(text), "中"]


@given(st.text(max_size=80))
def test_words_are_found_by_themselves(text: str) -> None:
    for token in tokenize(text):
        assert token
        assert "".join(tokenize(token)) == token


MOMENT = datetime(2026, 1, 1)


def index_of(*texts: str) -> TextIndex:
    index = TextIndex({"text": "text"})
    for number, text in enumerate(texts):
        index.put_row(f"{number:032x}", MOMENT, {"text": text})
    return index


def found(index: TextIndex, query: str, field: str | None = None) -> list[int]:
    return [int(record_id, 16) for record_id in index.find(parse(query), field, None, False)[0]]


def test_phrases() -> None:
    index = index_of("big red house", "red big house", "big old red house", "big", "red house big")
    assert found(index, '"big red"') == [0]
    assert found(index, '"red house"') == [0, 2, 4]
    assert found(index, '"big red"~1') == [0, 2]
    assert found(index, '"big red"~2') == [0, 1, 2]  # changing places costs two moves
    assert found(index, '"big house red"') == []


def test_a_phrase_stays_in_its_field_and_message() -> None:
    index = TextIndex({"title": "text", "chat": "chat"})
    talk = [{"role": "user", "content": "good morning"}, {"role": "assistant", "content": "dear friend"}]
    index.put_row("0" * 32, MOMENT, {"title": "hello good", "chat": talk})
    assert found(index, '"good morning"') == found(index, '"dear friend"') == [0]
    assert (
        found(index, '"hello good good"') == found(index, '"morning dear"') == found(index, '"morning dear"~50') == []
    )
    assert found(index, "morning friend hello") == [0]
    assert found(index, "assistant") == found(index, "assistant", "chat") == [0]
    assert found(index, "Assistant") == found(index, "assistant", "title") == []  # a role is a keyword


def test_prefixes_and_typing_errors() -> None:
    index = index_of("payment", "payments", "repayment", "pavement", "paymnet", "pay")
    assert found(index, "pay*") == [0, 1, 4, 5]
    assert found(index, "PAYM*") == [0, 1, 4]
    assert found(index, "payment~1") == [0, 1]
    assert found(index, "payment~") == [0, 1, 2, 3, 4]  # two letters exchanged are two edits
    assert found(index, "pxyment") == []


def test_only_the_ten_closest_words() -> None:
    index = index_of("word", *(f"word{letter}" for letter in "abcdefghijklmn"))
    assert found(index, "word~1") == list(range(10))


def test_better_matches_come_first() -> None:
    index = index_of("a long text about many other things and one cat", "cat", "cat cat cat", "dog")
    matches = index.search(parse("cat"))
    assert matches.score[2] > matches.score[1] > matches.score[0] > matches.score[3] == 0


def test_rows_replaced_and_removed() -> None:
    index = index_of("one", "two", "three")
    index.put_row(f"{1:032x}", MOMENT, {"text": "zwei"})
    index.remove_row(f"{0:032x}")
    assert found(index, "two") == found(index, "one") == []
    assert found(index, "zwei") == [1]
    assert found(index, "-zwei") == [2]
    assert found(index, "*") == [1, 2]


@given(st.text(alphabet="abc", max_size=7), st.text(alphabet="abc", max_size=7), st.integers(0, 2))
def test_edit_distance_agrees_with_its_definition(left: str, right: str, limit: int) -> None:
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return distance(a[1:], b[1:])
        return 1 + min(distance(a[1:], b), distance(a, b[1:]), distance(a[1:], b[1:]))

    true = distance(left, right)
    assert edit_distance(left, right, limit) == true or (true > limit and edit_distance(left, right, limit) > limit)


def test_sloppy_frequency() -> None:
    assert sloppy_frequency([[0], [1]], 0) == 1.0
    assert sloppy_frequency([[0], [3]], 1) == 0.0
    assert sloppy_frequency([[0], [3]], 2) == pytest.approx(1 / 3)
    assert sloppy_frequency([[0, 10], [1, 11]], 0) == 2.0
    assert sloppy_frequency([[5], [5]], 3) == 0.0  # one place is not two words


NOW = datetime(2026, 3, 31, 12, 30, 15, 500)


@pytest.mark.parametrize(
    ("text", "earliest", "latest"),
    [
        ("2026-05-06T07:08:09.123456", "2026-05-06 07:08:09.123456", "2026-05-06 07:08:09.123456"),
        ("2026-05-06T07:08:09", "2026-05-06 07:08:09", "2026-05-06 07:08:09.999999"),
        ("2026-05-06", "2026-05-06", "2026-05-06 23:59:59.999999"),
        ("2026-05", "2026-05-01", "2026-05-01 23:59:59.999999"),
        ("2026-05-06T07:00:00.5Z", "2026-05-06 07:00:00.500000", "2026-05-06 07:00:00.500000"),
        ("2026-05-06T07:00:00.000+02:00", "2026-05-06 05:00", "2026-05-06 05:00"),
        ("1700000000000", "2023-11-14 22:13:20", "2023-11-14 22:13:20"),
        ("now-1d", "2026-03-30 12:30:15.000500", "2026-03-30 12:30:15.000500"),
        ("now-1M", "2026-02-28 12:30:15.000500", "2026-02-28 12:30:15.000500"),
        ("now/d", "2026-03-31", "2026-03-31 23:59:59.999999"),
        ("now/w", "2026-03-30", "2026-04-05 23:59:59.999999"),
        ("2026-12-15||+1M/M", "2027-01-01", "2027-01-31 23:59:59.999999"),
    ],
)
def test_dates_as_elasticsearch_reads_them(text: str, earliest: str, latest: str) -> None:
    assert date_bounds(text, NOW) == (datetime.fromisoformat(earliest), datetime.fromisoformat(latest))


@given(st.text(alphabet="0123456789-:+T.Znow|/dMyx", max_size=24))
def test_any_other_text_is_a_value_error(text: str) -> None:
    try:
        earliest, latest = date_bounds(text, NOW)
    except ValueError:
        return
    assert earliest <= latest
