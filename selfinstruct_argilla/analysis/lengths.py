"""How long texts are in words, which end at white space as in the Self-Instruct paper's Table 1 and Figure 4; where a
script writes none, every character (or cluster) counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..similarity.tokens import UNSPACED, auto_tokens


def word_counts(texts: Iterable[str]) -> list[int]:
    """The number of words of each text."""
    return [len(auto_tokens(text) if UNSPACED.search(text) else text.split()) for text in texts]


def summary(counts: list[int]) -> dict[str, Any]:
    """How many, mean, median, 90th percentile and most; None where there is nothing to say it of."""
    if not counts:
        return {"count": 0, "mean": None, "median": None, "p90": None, "max": None}
    return {
        "count": len(counts),
        "mean": round(float(np.mean(counts)), 2),
        "median": float(np.median(counts)),
        "p90": float(np.quantile(counts, 0.9)),
        "max": max(counts),
    }
