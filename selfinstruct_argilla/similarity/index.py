"""The novelty index: which text of a pool is closest to this one, by exact ROUGE-L, in microseconds.

The idea. A pair can only score above the threshold t when its longest common subsequence reaches a certain length,
`least_lcs(m, n, t)`, and the texts share at least as many words as that subsequence has. (A word's second, third, …
occurrence in a text counts as a word of its own, so "sharing words" is plain set overlap.) So let a text x of m words
look for a partner of n words, with a = least_lcs(m, n, t):

    they share at least a of x's m words. Take any c <= a, and the m - a + c words of x that are rarest in the pool:
    the other words are a - c, so at least c of the shared words are among these. Only pool texts that hold c of them
    need a look.

That holds for any order of x's words, so "rarest" can follow the pool as it grows, and nothing is ever rebuilt. Every
word keeps a posting list, the numbers of the pool texts that hold it. A query joins the lists of its rarest words,
sorts, and keeps the numbers that occur c times: a handful of texts, whose true score is then computed by rapidfuzz.
Nothing is approximate: the counting only leaves out pairs that provably score too little.

Frequent words keep one list per group of text lengths. Within a group of lengths the least possible `a` holds for all,
so fewer words have to be looked at for longer partners, and lengths that can never score above t are not read at all.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count, islice, pairwise, repeat
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist, extract

from selfinstruct_argilla.similarity.rouge import f_measure, least_lcs
from selfinstruct_argilla.similarity.tokens import tokenizer

Key = Any  # hashable
Operand: TypeAlias = "str | array[int]"  # a text as its tokens' codes: characters while code points last, else integers
Slots: TypeAlias = "array[int]"  # positions in the pool

_UNKNOWN = 0  # the code of a token that no pool text holds
_SHARED = 3  # the c of the header: 2 reads less and verifies more, 4 the reverse
_SPLIT = 48  # a posting list of this size is split by length groups
_BLOCK_CELLS = 1 << 25  # scores computed at once by statistics


def _group_starts() -> list[int]:
    """The least length of each group: 0, 1, 2, …, then growing by 15 %. The last group is open."""
    starts = list(range(8))
    while starts[-1] < 10**7:
        starts.append(max(starts[-1] + 1, int(starts[-1] * 1.15)))
    return starts


_GROUP_STARTS = _group_starts()


def _group(length: int) -> int:
    return bisect_right(_GROUP_STARTS, length) - 1


class _Posting:
    """The pool texts that hold a word: all in `slots`, or, once split, one array per length group in `groups`."""

    __slots__ = ("frequency", "groups", "slots")

    def __init__(self) -> None:
        self.frequency = 0
        self.slots: Slots = array("I")
        self.groups: list[Slots | bytes] | None = None  # b"" for an empty group

    def slots_of(self, group: int) -> Slots:
        """Where the slots of texts of this length group are kept."""
        if self.groups is None:
            return self.slots
        if group >= len(self.groups):
            self.groups += [b""] * (group + 1 - len(self.groups))
        slots = self.groups[group]
        if isinstance(slots, bytes):
            self.groups[group] = slots = array("I")
        return slots

    def split(self, groups: Iterable[int]) -> None:
        """Distribute the slots to these groups, one for each."""
        whole, self.slots = self.slots, array("I")
        self.groups = [b""]
        for slot, group in zip(whole, groups, strict=True):
            self.slots_of(group).append(slot)


_frequency = attrgetter("frequency")


class Match(NamedTuple):
    """A pool text and its ROUGE-L F with the text that was asked about."""

    key: Key
    score: float


class Statistics(NamedTuple):
    """The most similar texts, best first, and the mean ROUGE-L F over all that were compared (0.0 over none)."""

    top: list[Match]
    mean: float


class _Plan(NamedTuple):
    """What a text of a certain length reads: the words in order of rarity, word r in groups [first, stops[r])."""

    cutoff: int  # the lcs that a partner of any length needs at least
    shared: int
    first: int
    stops: list[int]


@lru_cache(maxsize=1024)
def _plan(m: int, threshold: float) -> _Plan | None:
    """The plan of a text of `m` words; None when no length can score above the threshold."""
    first = 0
    least = []  # of every group from the first that can hold a partner: the least lcs that any of its lengths needs
    for start, next_start in pairwise((*_GROUP_STARTS, sys.maxsize)):
        likeliest = min(max(m, start), next_start - 1)  # the length closest to m
        if least_lcs(m, likeliest, threshold) <= min(m, likeliest):
            least.append(least_lcs(m, start, threshold))
        elif least:
            break
        else:
            first += 1
    if not least:
        return None
    shared = min(_SHARED, least[0])
    stops: list[int] = []
    for group in reversed(range(len(least))):
        stops += [first + group + 1] * (m - least[group] + shared - len(stops))
    return _Plan(least[0], shared, first, stops)


def _words(codes: Iterable[int]) -> list[int]:
    """The codes with the k-th repeat of one made a word of its own, so that multiset overlap becomes set overlap."""
    words = list(codes)
    if len(set(words)) == len(words):
        return words
    seen: dict[int, int] = {}
    for position, code in enumerate(words):
        if code in seen:
            seen[code] = repeat = seen[code] + 1
            words[position] = code | repeat << 32
        else:
            seen[code] = 0
    return words


def _operand(codes: Sequence[int]) -> Operand:
    try:
        return "".join(map(chr, codes))
    except ValueError:  # more distinct tokens than code points
        return array("I", codes)


class NoveltyIndex:
    """A pool of texts under keys, searched by exact ROUGE-L.

    `threshold`, in [0, 1]: a text is novel when no score is above it. At 1 everything is novel, even a repeated text;
    at 0 whatever shares a token with the pool is not. `tokens`: "rouge" or "auto", see `similarity.tokens`.
    Equal scores are ordered by position in the pool, lowest first: the order of `add`; `replace` keeps the position.
    Without any token (possible with "rouge" only) a text scores 0 with every other. Not safe for concurrent use.
    """

    def __init__(self, threshold: float = 0.7, tokens: str = "rouge") -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], not {threshold!r}")
        self.threshold = float(threshold)
        self.tokens = tokens
        self._tokenize = tokenizer(tokens)
        self._codes: dict[str, int] = defaultdict(count(1).__next__)  # a new token takes the next code
        self._slots: dict[Key, int] = {}  # in ascending order of slot
        self._keys: list[Key] = []  # by slot
        self._operands: list[Operand] = []  # by slot
        self._removed: list[int] = []  # slots without a text; they are not used again
        self._postings: dict[int, _Posting] = {}  # by word

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: Key) -> bool:
        return key in self._slots

    # -- the pool

    def add(self, key: Key, text: str) -> None:
        """Put a text into the pool, similar to others or not; ValueError when the key is there already."""
        if key in self._slots:
            raise ValueError(f"the key {key!r} is in the index already; use replace()")
        codes = self._intern(text)
        slot = len(self._operands)
        self._slots[key] = slot
        self._keys.append(key)
        self._operands.append("")
        self._link(slot, codes)

    def remove(self, key: Key) -> None:
        """Take a text out of the pool; KeyError when there is none under the key."""
        slot = self._slots.pop(key)
        self._unlink(slot)
        self._operands[slot] = ""
        self._keys[slot] = None
        self._removed.append(slot)

    def replace(self, key: Key, text: str) -> None:
        """Put another text in the place of the one under `key`; KeyError when there is none."""
        slot = self._slots[key]
        codes = self._intern(text)
        self._unlink(slot)
        self._link(slot, codes)

    def _intern(self, text: str) -> list[int]:
        """The codes of the tokens of a text, new ones for new tokens."""
        return list(map(self._codes.__getitem__, self._tokenize(text)))

    def _known(self, text: str) -> list[int]:
        """The codes of the tokens of a text that is not put into the pool."""
        return list(map(self._codes.get, self._tokenize(text), repeat(_UNKNOWN)))

    def _link(self, slot: int, codes: list[int]) -> None:
        self._operands[slot] = _operand(codes)
        group = _group(len(codes))
        for word in _words(codes):
            posting = self._postings.get(word)
            if posting is None:
                posting = self._postings[word] = _Posting()
            posting.frequency += 1
            groups = posting.groups
            if groups is not None and group < len(groups) and groups[group]:
                groups[group].append(slot)  # type: ignore[union-attr]  # not empty, so no bytes
                continue
            posting.slots_of(group).append(slot)
            if len(posting.slots) == _SPLIT:
                posting.split(_group(len(self._operands[slot])) for slot in posting.slots)

    def _unlink(self, slot: int) -> None:
        operand = self._operands[slot]
        group = _group(len(operand))
        for word in _words(map(ord, operand) if isinstance(operand, str) else operand):
            posting = self._postings[word]
            posting.frequency -= 1
            posting.slots_of(group).remove(slot)
            if not posting.frequency:
                del self._postings[word]

    # -- questions about one text

    def is_novel(self, text: str) -> bool:
        """Whether no pool text scores above the threshold."""
        return next(self._above(text, self.threshold), None) is None

    def check(self, text: str) -> Match | None:
        """The most similar pool text when the text is not novel, None when it is."""
        return self._best(self._above(text, self.threshold))

    def closest(self, text: str, at_least: float) -> Match | None:
        """The most similar pool text if it scores `at_least` that much, in (0, 1]; None otherwise."""
        return self._best(self._above(text, _just_below(at_least)))

    def matches(self, text: str, at_least: float) -> list[Match]:
        """All pool texts that score `at_least` that much, in (0, 1], best first."""
        found = sorted(self._above(text, _just_below(at_least)), key=lambda pair: (-pair[1], pair[0]))
        return [Match(self._keys[slot], score) for slot, score in found]

    def nearest(self, text: str) -> Match | None:
        """The most similar pool text, whatever its score; None when the pool is empty."""
        return self.check(text) or next(iter(self.top(text, 1)), None)

    def top(self, text: str, k: int = 10) -> list[Match]:
        """The `k` most similar pool texts, best first (all of them when the pool holds fewer)."""
        return next(self.statistics((text,), k)).top

    def mean(self, text: str) -> float:
        """The mean ROUGE-L F with all pool texts: `np.mean` of the scores in pool order; 0.0 when there are none."""
        return next(self.statistics((text,), 0)).mean

    def _best(self, found: Iterator[tuple[int, float]]) -> Match | None:
        slot, score = max(found, key=lambda pair: (pair[1], -pair[0]), default=(None, 0.0))
        return None if slot is None else Match(self._keys[slot], score)

    def _above(self, text: str, threshold: float) -> Iterator[tuple[int, float]]:
        """Slot and score of every pool text that scores above the threshold."""
        codes = self._known(text)
        m = len(codes)
        plan = _plan(m, threshold)
        if plan is None:
            return
        postings = list(filter(None, map(self._postings.get, _words(codes))))
        postings.sort(key=_frequency)
        slots: list[Slots | bytes] = []
        # The words that nobody holds are the rarest: they take the first stops, and have nothing to read.
        for posting, stop in zip(postings, plan.stops[m - len(postings) :], strict=False):
            if posting.groups:
                slots += posting.groups[plan.first : stop]
            else:
                slots.append(posting.slots)
        found = np.frombuffer(bytearray().join(slots), np.uint32)  # a bytearray, so that it can be sorted in place
        found.sort()
        last = plan.shared - 1
        frequent = found[last:][found[last:] == found[: len(found) - last]]
        if not len(frequent):
            return
        numbers = list(dict.fromkeys(frequent.tolist()))
        operands = [self._operands[slot] for slot in numbers]
        verified = extract(_operand(codes), operands, scorer=LCSseq.similarity, score_cutoff=plan.cutoff, limit=None)
        for other, lcs, position in verified:
            score = f_measure(lcs, m, len(other))
            if score > threshold:
                yield numbers[position], score

    # -- the whole pool, by blocks

    def statistics(self, texts: Iterable[str], k: int = 10) -> Iterator[Statistics]:
        """Top `k` and mean of each text over the whole pool, computed by blocks."""
        texts = iter(texts)
        while block := list(islice(texts, self._block_size())):
            operands = [_operand(self._known(text)) for text in block]
            yield from self._statistics(operands, [len(self._operands)] * len(block), k)

    def statistics_before(self, keys: Iterable[Key], k: int = 10) -> Iterator[Statistics]:
        """Top `k` and mean of pool texts, each over those before it in the pool, as when it was added."""
        keys = iter(keys)
        while block := [self._slots[key] for key in islice(keys, self._block_size())]:
            yield from self._statistics([self._operands[slot] for slot in block], block, k)

    def _block_size(self) -> int:
        return max(16, min(256, _BLOCK_CELLS // (len(self._operands) + 1)))

    def _statistics(self, queries: list[Operand], stops: list[int], k: int) -> Iterator[Statistics]:
        """`stops`: each query is compared with the slots below its stop."""
        pool = self._operands[: max(stops)]
        lengths = np.fromiter(map(len, pool), np.float64, len(pool))
        longest = int(min(max(map(len, queries)), lengths.max(initial=0)))
        np.maximum(lengths, 1, out=lengths)
        removed = np.array(sorted(self._removed), np.intp)
        rows = cdist(queries, pool, scorer=LCSseq.similarity, dtype=np.min_scalar_type(longest), workers=-1)
        for query, stop, row in zip(queries, stops, rows, strict=True):
            scores = _f_measures(row[:stop], len(query), lengths[:stop])
            gone = removed[: removed.searchsorted(stop)]
            scores[gone] = -1.0
            kept = np.delete(scores, gone) if len(gone) else scores
            mean = float(kept.mean()) if len(kept) else 0.0
            top = [Match(self._keys[slot], float(scores[slot])) for slot in _largest(scores, min(k, len(kept)))]
            yield Statistics(top, mean)


def _just_below(at_least: float) -> float:
    """The threshold t for which "above t" means "at least this"."""
    if not 0 < at_least <= 1:
        raise ValueError(f"at_least must be in (0, 1], not {at_least!r}")
    return math.nextafter(at_least, 0.0)


def _f_measures(lcs: NDArray[np.unsignedinteger], m: int, n: NDArray[np.float64]) -> NDArray[np.float64]:
    """`f_measure` of arrays by the same float steps, in place where possible; `n` is at least 1."""
    score: NDArray[np.float64] = lcs / n
    recall = lcs / np.float64(max(m, 1))
    total = score + recall
    np.maximum(total, 1e-300, out=total)  # where nothing is shared: 0 / 1e-300 instead of 0 / 0
    score *= 2
    score *= recall
    score /= total
    return score


def _largest(scores: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """The positions of the `k` largest scores, largest first, ties lowest position first."""
    if not k:
        return np.empty(0, np.intp)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    positions = np.flatnonzero(scores >= least)
    return positions[np.argsort(-scores[positions], kind="stable")][:k]
