"""The words of one dataset's records, and which records a query finds with which score.

All words stand in one array, as numbers, record after record and field after field. A query is answered by one pass
over that array: for 50,000 records it takes a few milliseconds, and there is no inverted index to build or to mend.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .row_cache import RowCopy
from .text_query import And, Everything, Fuzzy, Leaf, Node, Not, Or, Phrase, Prefix, Words, lowercase, tokenize

FieldType = Literal["text", "chat", "custom", "image"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_FUZZY_EXPANSIONS = 10
_BM25_K1, _BM25_B = 1.2, 0.75
# A chat role is no text but a keyword, found by exactly its whole value: marked so that it equals no word.
_KEYWORD = "\0"
# Stands between the messages of a chat, and as far apart as Elasticsearch puts them: no phrase spans two messages.
_BREAK = ""
_BREAK_WIDTH = 100


@dataclass(frozen=True)
class Matches:
    """`found` and `score` by slot."""

    found: Mask
    score: Floats


class TextIndex(RowCopy):
    """Records live in numbered slots; each of their fields is a segment of the array of words."""

    def __init__(self, fields: dict[str, FieldType]) -> None:
        """`fields` are the dataset's, in order."""
        super().__init__()
        self._fields = fields
        self.clear_rows()

    def clear_rows(self) -> None:
        self.slot_of: dict[str, int] = {}
        self.record_ids: list[str] = []
        self._inserted_at = array("d")
        self._slot_segments: list[range] = []
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__
        self._number_of = numbers
        self._tokens = array("i")
        self._segment_start = array("q")
        self._segment_slot = array("i")
        self._segment_field = array("i")
        self._segment_alive = bytearray()
        self._dead_tokens = 0

    @property
    def nbytes(self) -> int:
        return (
            4 * len(self._tokens)
            + 24 * len(self._segment_start)
            + 300 * len(self.record_ids)
            + 100 * len(self._number_of)
        )

    @property
    def is_fragmented(self) -> bool:
        return self._dead_tokens > 100_000 and 2 * self._dead_tokens > len(self._tokens)

    def put_row(self, record_id: str, *payload: Any) -> None:
        """`payload`: when the record was inserted, and its fields."""
        inserted_at: datetime = payload[0]
        fields: dict[str, Any] = payload[1]
        slot = self.slot_of.get(record_id)
        if slot is None:
            slot = self.slot_of[record_id] = len(self.record_ids)
            self.record_ids.append(record_id)
            self._inserted_at.append((inserted_at - datetime(1970, 1, 1)).total_seconds())
            self._slot_segments.append(range(0))
        else:
            self._kill_segments(slot)
        first = len(self._segment_start)
        for number, (name, field_type) in enumerate(self._fields.items()):
            for tokens in field_tokens(fields.get(name), field_type):
                self._segment_start.append(len(self._tokens))
                self._segment_slot.append(slot)
                self._segment_field.append(number)
                self._segment_alive.append(1)
                self._tokens.extend(map(self._number_of.__getitem__, tokens))
        self._slot_segments[slot] = range(first, len(self._segment_start))

    def remove_row(self, record_id: str) -> None:
        slot = self.slot_of.pop(record_id)
        self._kill_segments(slot)

    def _kill_segments(self, slot: int) -> None:
        segments = self._slot_segments[slot]
        for segment in segments:
            self._segment_alive[segment] = 0
        if segments:
            after = segments.stop
            end = self._segment_start[after] if after < len(self._segment_start) else len(self._tokens)
            self._dead_tokens += end - self._segment_start[segments.start]
        self._slot_segments[slot] = range(0)

    def find(
        self, query: Node | None, field: str | None, candidates: list[str] | None, keep_order: bool
    ) -> tuple[list[str], Floats]:
        """The matching records among `candidates` (None: all) and their scores: in that order, or by insertion."""
        matches = self.search(query, field)
        if candidates is None:
            slots = np.flatnonzero(matches.found)
        else:
            known = np.array([self.slot_of.get(candidate, -1) for candidate in candidates], dtype=np.int64)
            known = known[known >= 0]
            slots = known[matches.found[known]]
        if not keep_order:
            slots = slots[np.lexsort((slots, np.array(self._inserted_at)[slots]))]
        return [self.record_ids[slot] for slot in slots.tolist()], matches.score[slots]

    def search(self, query: Node | None, field: str | None = None) -> Matches:
        """The records that `query` finds in `field`, or over all fields (then each word may be in another one)."""
        slots = len(self.record_ids)
        present = np.zeros(slots, dtype=bool)
        present[list(self.slot_of.values())] = True
        nothing = Matches(np.zeros(slots, dtype=bool), np.zeros(slots))
        if query is None or not slots:
            return nothing
        everything = Matches(present, present.astype(np.float64))
        operands: list[Matches] = []
        steps = _postfix(query)
        evaluator = _LeafEvaluator(self, [step for step in steps if not isinstance(step, tuple)], field)
        for step in steps:
            if not isinstance(step, tuple):
                operands.append(everything if isinstance(step, Everything) else evaluator.matches(step))
                continue
            operator, arity = step
            arguments, operands = operands[-arity:], operands[:-arity]
            found, score = arguments[0].found, arguments[0].score
            if operator is Not:
                found = present & ~found
                operands.append(Matches(found, found.astype(np.float64)))
                continue
            for argument in arguments[1:]:
                found = found & argument.found if operator is And else found | argument.found
                score = score + argument.score
            operands.append(Matches(found, np.where(found, score, 0.0)))
        return operands[0]


def field_tokens(value: Any, field_type: FieldType) -> Iterable[list[str]]:
    """What is searched of a field's value: its words, and for a chat the words of all messages and then their roles."""
    if value is None or field_type == "image":
        return
    if field_type == "chat":
        messages = [message for message in value if isinstance(message, dict)] if isinstance(value, list) else []
        words: list[str] = []
        for message in messages:
            words += [*tokenize(str(message.get("content") or "")), _BREAK]
        yield words
        yield [_KEYWORD + str(message.get("role") or "") for message in messages]
    else:
        yield tokenize(value if isinstance(value, str) else str(value))


def _postfix(query: Node) -> list[Any]:
    """The tree's leaves and (operator, arity) pairs in the order of evaluation; without recursion, for deep trees."""
    pending: list[Node] = [query]
    steps: list[Any] = []
    while pending:
        node = pending.pop()
        if isinstance(node, (And, Or)):
            steps.append((type(node), len(node.children)))
            pending.extend(node.children)
        elif isinstance(node, Not):
            steps.append((Not, 1))
            pending.append(node.child)
        else:
            steps.append(node)
    return steps[::-1]


class _LeafEvaluator:
    """Answers all leaves of one query from one pass over the words."""

    def __init__(self, index: TextIndex, leaves: list[Leaf], field: str | None) -> None:
        self._slots = len(index.record_ids)
        self._number_of = index._number_of
        self._tokens = _view(index._tokens, np.int32)
        self._starts = _view(index._segment_start, np.int64)
        self._lengths = np.diff(self._starts, append=len(self._tokens))
        self._slot_of_segment = _view(index._segment_slot, np.int32)
        self._field_of_segment = _view(index._segment_field, np.int32)
        searched = _view(index._segment_alive, np.bool_)
        if field is not None:
            searched = searched & (self._field_of_segment == list(index._fields).index(field))
        self._searched = searched
        # Per field: how many segments there are, and their mean length (what BM25 asks for).
        fields = len(index._fields)
        count = np.bincount(self._field_of_segment, weights=searched, minlength=fields)
        total = np.bincount(self._field_of_segment, weights=searched * self._lengths, minlength=fields)
        self._segment_count = np.maximum(count, 1.0)
        self._mean_length = np.maximum(total / self._segment_count, 1.0)

        self._expansions = {leaf: self._expand(leaf) for leaf in leaves}
        self._select({number for expansion in self._expansions.values() for number, _ in expansion})

    def _expand(self, leaf: Leaf) -> list[tuple[int, float]]:
        """The numbers of the words that `leaf` asks for, each with its weight."""
        if isinstance(leaf, Words | Phrase):
            wanted = [*leaf.tokens, _KEYWORD + leaf.text]
            return [(self._number_of[token], 1.0) for token in wanted if token in self._number_of]
        if isinstance(leaf, Prefix):
            word, role = lowercase(leaf.text), _KEYWORD + leaf.text
            return [(number, 1.0) for token, number in self._number_of.items() if token.startswith((word, role))]
        if isinstance(leaf, Fuzzy):
            return self._similar(lowercase(leaf.text), leaf.edits) + self._similar(_KEYWORD + leaf.text, leaf.edits)
        return []

    def _similar(self, text: str, edits: int) -> list[tuple[int, float]]:
        """The closest words within `edits`, weighted by closeness."""
        # `edits` changes leave one of `edits + 1` pieces whole.
        step, pieces = len(text) // (edits + 1), []
        if step:
            pieces = [text[start : start + step] for start in range(0, step * (edits + 1), step)]
        closest = []
        for token, number in self._number_of.items():
            if (
                abs(len(token) - len(text)) > edits
                or not token
                or (token[0] != text[0] and _KEYWORD in (token[0], text[0]))
            ):
                continue
            if pieces and not any(piece in token for piece in pieces):
                continue
            distance = edit_distance(text, token, edits)
            if distance <= edits:
                closest.append((1.0 - distance / max(1, min(len(text), len(token))), token, number))
        closest.sort(key=lambda candidate: (-candidate[0], candidate[1]))
        return [(number, max(0.0, weight)) for weight, _, number in closest[:MAX_FUZZY_EXPANSIONS]]

    def _select(self, numbers: set[int]) -> None:
        """Find where the wanted words stand; everything after this looks at those places only."""
        wanted = np.zeros(len(self._number_of), dtype=bool)
        wanted[list(numbers)] = True
        places = np.flatnonzero(wanted[self._tokens]) if numbers else np.zeros(0, dtype=np.int64)
        segments = np.searchsorted(self._starts, places, side="right") - 1
        kept = self._searched[segments]
        places, segments = places[kept], segments[kept]
        order = np.argsort(self._tokens[places], kind="stable")
        self._places, self._segments = places[order], segments[order]
        self._sorted_numbers = self._tokens[self._places]

    def _slice(self, number: int) -> slice:
        first, last = np.searchsorted(self._sorted_numbers, (number, number + 1))
        return slice(int(first), int(last))

    def matches(self, leaf: Leaf) -> Matches:
        segments, scores = self._segment_scores(leaf)
        if isinstance(leaf, Words | Phrase) and _KEYWORD + leaf.text in self._number_of:
            role_segments, role_scores = self._word_scores(self._number_of[_KEYWORD + leaf.text])
            segments, scores = np.concatenate((segments, role_segments)), np.concatenate((scores, role_scores))
        slots = self._slot_of_segment[segments]
        found = np.zeros(self._slots, dtype=bool)
        found[slots] = True
        return Matches(found, np.bincount(slots, weights=scores, minlength=self._slots))

    def _segment_scores(self, leaf: Leaf) -> tuple[Ints, Floats]:
        """The fields of records that match, and how well."""
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
        if isinstance(leaf, Prefix):
            parts = [self._segments[self._slice(number)] for number, _ in self._expansions[leaf]]
            segments = np.unique(np.concatenate(parts)) if parts else nothing[0]
            return segments, np.ones(len(segments))
        if isinstance(leaf, Fuzzy):
            scored = [(self._word_scores(number), weight) for number, weight in self._expansions[leaf]]
            if not scored:
                return nothing
            return np.concatenate([part[0] for part, _ in scored]), np.concatenate(
                [part[1] * weight for part, weight in scored]
            )
        if any(token not in self._number_of for token in leaf.tokens):
            return nothing
        numbers = [self._number_of[token] for token in leaf.tokens]
        if isinstance(leaf, Phrase) and len(numbers) > 1:
            return self._phrase_scores(numbers, leaf.slop)
        segments, scores = self._word_scores(numbers[0])
        for number in numbers[1:]:
            others, other_scores = self._word_scores(number)
            segments, left, right = np.intersect1d(segments, others, assume_unique=True, return_indices=True)
            scores = scores[left] + other_scores[right]
        return segments, scores

    def _word_scores(self, number: int) -> tuple[Ints, Floats]:
        segments, frequency = np.unique(self._segments[self._slice(number)], return_counts=True)
        return segments, self._bm25(segments, frequency, self._idf(segments))

    def _phrase_scores(self, numbers: list[int], slop: int) -> tuple[Ints, Floats]:
        idf = np.zeros(len(self._segment_count))
        candidates: Ints | None = None
        for number in numbers:
            segments = np.unique(self._segments[self._slice(number)])
            idf += self._idf(segments)
            candidates = segments if candidates is None else np.intersect1d(candidates, segments, assume_unique=True)
        assert candidates is not None
        if slop == 0:
            begins = self._places[self._slice(numbers[0])]
            for distance, number in enumerate(numbers[1:], start=1):
                begins = begins[begins + distance < len(self._tokens)]
                begins = begins[self._tokens[begins + distance] == number]
            segments = np.searchsorted(self._starts, begins, side="right") - 1
            # The last word must stand in the same field as the first.
            ends = self._starts[segments] + self._lengths[segments]
            segments, frequency = np.unique(segments[begins + len(numbers) <= ends], return_counts=True)
            return segments, self._bm25(segments, frequency, idf)
        break_number = self._number_of.get(_BREAK, -1)
        found, weights = [], []
        for segment in candidates.tolist():
            start = self._starts[segment]
            tokens = self._tokens[start : start + self._lengths[segment]]
            positions = np.arange(len(tokens)) + (_BREAK_WIDTH - 1) * np.cumsum(tokens == break_number)
            weight = sloppy_frequency([positions[tokens == number].tolist() for number in numbers], slop)
            if weight:
                found.append(segment)
                weights.append(weight)
        segments = np.array(found, dtype=np.int64)
        return segments, self._bm25(segments, np.array(weights), idf)

    def _idf(self, segments: Ints) -> Floats:
        """Inverse document frequency of a word that occurs in `segments`, by field."""
        having = np.bincount(self._field_of_segment[segments], minlength=len(self._segment_count))
        return np.log1p(np.maximum(self._segment_count - having + 0.5, 0.5) / (having + 0.5))

    def _bm25(self, segments: Ints, frequency: npt.NDArray[Any], idf: Floats) -> Floats:
        field = self._field_of_segment[segments]
        length = self._lengths[segments] / self._mean_length[field]
        return idf[field] * frequency / (frequency + _BM25_K1 * (1.0 - _BM25_B + _BM25_B * length))


def _view(buffer: Any, dtype: Any) -> npt.NDArray[Any]:
    """`buffer` as an array, not copied: it cannot grow as long as somebody holds the view."""
    return np.frombuffer(buffer, dtype=dtype) if len(buffer) else np.zeros(0, dtype=dtype)


def edit_distance(left: str, right: str, limit: int) -> int:
    """Levenshtein's distance; any number above `limit` when it is above `limit`."""
    previous = list(range(len(right) + 1))
    for row, character in enumerate(left, start=1):
        current = [row]
        for column, other in enumerate(right, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (character != other)))
        if min(current) > limit:
            return limit + 1
        previous = current
    return previous[-1]


def sloppy_frequency(positions: list[list[int]], slop: int) -> float:
    """How often words stand near each other in about the order of the phrase: 1 / (1 + moves) for each occurrence
    with at most `slop` moves. `positions[i]` are those of the phrase's i-th word."""
    # Where each word would make the phrase begin: in a perfect phrase all agree.
    events = sorted((place - rank, rank, place) for rank, places in enumerate(positions) for place in places)
    latest: dict[int, tuple[int, int]] = {}
    frequency = 0.0
    for begin, rank, place in events:
        latest[rank] = (begin, place)
        if len(latest) < len(positions) or len({used for _, used in latest.values()}) < len(positions):
            continue
        moves = begin - min(first for first, _ in latest.values())
        if moves <= slop:
            frequency += 1.0 / (1.0 + moves)
            latest.clear()
    return frequency
