"""ROUGE-L of two token lists, to the last bit of `rouge_score` (Lin, 2004; the novelty filter of Self-Instruct).

ROUGE-L is the harmonic mean of precision and recall of the longest common subsequence. In real numbers that is
2 * lcs / (m + n), but `rouge_score` computes it through precision and recall in floats, and its rounding decides ties:
7 of (10, 10) tokens scores 0.7, 7 of (9, 11) scores 0.7000000000000001. So every score here takes the same float steps,
and every decision asks for the least subsequence length whose float score is above the threshold.
"""

from __future__ import annotations

from functools import lru_cache

from rapidfuzz.distance import LCSseq

from selfinstruct_argilla.similarity.tokens import tokenizer


def f_measure(lcs: int, m: int, n: int) -> float:
    """ROUGE-L F of texts of `m` and `n` tokens with a longest common subsequence of `lcs`; symmetric in m and n."""
    if not lcs:
        return 0.0
    precision, recall = lcs / n, lcs / m
    return 2 * precision * recall / (precision + recall)


@lru_cache(maxsize=1 << 16)
def least_lcs(m: int, n: int, threshold: float) -> int:
    """The least `lcs` with f_measure(lcs, m, n) > threshold; above min(m, n) when none is. Rises with m and n."""
    lcs = max(1, int(threshold * (m + n) / 2) - 1)  # at most one below the answer in real numbers
    while lcs <= min(m, n) and f_measure(lcs, m, n) <= threshold:
        lcs += 1
    return lcs


def rouge_l(a: str, b: str, tokens: str = "rouge") -> float:
    """ROUGE-L F of two texts, in [0, 1]; with tokens="rouge" equal to `rouge_score`'s rougeL fmeasure.

    Two texts without tokens score 0 with "rouge", and 1 or 0 with "auto" (see `tokens`).
    """
    tokenize = tokenizer(tokens)
    codes: dict[str, int] = {}  # numbers, because rapidfuzz compares strings in a list by their hash
    a_codes, b_codes = ([codes.setdefault(token, len(codes)) for token in tokenize(text)] for text in (a, b))
    return f_measure(LCSseq.similarity(a_codes, b_codes), len(a_codes), len(b_codes))
