"""Texts as tokens, in any script.

"rouge"  the tokens of `rouge_score`'s default tokenizer: runs of a-z and 0-9 of the lower-cased text. Everything else
         is a gap, so a Chinese or Russian text has no token at all; kept to reproduce figures of the papers.
"auto"   the same tokens on ASCII text, and what a reader would call a unit elsewhere: one character for Han, kana,
         bopomofo and Hangul; one cluster (a consonant with its vowels and marks) for Thai, Lao, Khmer and Myanmar,
         which write no spaces; whole words, with accents and vowel signs, for every other script. Non-ASCII text is
         first folded by NFKC and case folding (full-width forms, ligatures, composed and decomposed accents become
         equal), and invisible characters (joiners, direction marks, variation selectors, soft hyphens) are dropped.
         A text without any token (empty, or "???") becomes one token, the whole text without outer spaces, so that
         two such texts are alike exactly when they are the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

Tokenizer = Callable[[str], list[str]]

_ROUGE_TOKEN = re.compile("[a-z0-9]+")

# Zero-width space (U+200B) is not among them: it separates words.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200c-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+"
)

_BY_CHARACTER = (
    "\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # bopomofo
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"  # Hangul
)
_LEADING_VOWEL = "\u0e40-\u0e44\u0ec0-\u0ec4"  # Thai and Lao write these before the consonant they follow
_FINAL_VOWEL = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"
_CONSONANT = "\u0e01-\u0e2f\u0e81-\u0eae\u0edc-\u0edf\u1780-\u17b3\u1000-\u102a\u103f\u1050-\u1055"
_STACKER = "\u17d2\u1039"  # joins the next Khmer or Myanmar consonant below this one
_BY_CLUSTER = (  # the letters of these four scripts; their digits form numbers, as everywhere
    "\u0e01-\u0e30\u0e32-\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2-\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf\u1780-\u17b3\u17d7\u17dc"
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065-\u1066\u106e-\u1070\u1075-\u1081\u108e\uaa60-\uaa7a"
)
UNSPACED = re.compile(f"[{_BY_CHARACTER}{_BY_CLUSTER}]")  # scripts that do not put a space after each word


@cache
def _mark() -> str:
    """The class of all marks, which `re` does not have; collected at first use."""
    return "[" + "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c)[0] == "M") + "]"


@cache
def _excess_marks() -> re.Pattern[str]:
    """More than 30 marks in a row: no script needs them (UAX #15, stream-safe text), and normalizing is quadratic."""
    return re.compile(rf"({_mark()}{{30}}){_mark()}+")


@cache
def _any_script() -> re.Pattern[str]:
    """The pattern of one token of folded text."""
    letter = rf"[^\W_{_BY_CHARACTER}{_BY_CLUSTER}]"
    mark = _mark()
    return re.compile(
        rf"{letter}+(?:{mark}+{letter}*)*"
        rf"|[{_BY_CHARACTER}]{mark}*"
        rf"|[{_LEADING_VOWEL}]?[{_CONSONANT}](?:[{_STACKER}][{_CONSONANT}]|{mark})*[{_FINAL_VOWEL}]?"
        rf"|[{_BY_CLUSTER}]{mark}*"
    )


def rouge_tokens(text: str) -> list[str]:
    """The tokens that `rouge_score` compares (no stemming)."""
    return _ROUGE_TOKEN.findall(text.lower())


def auto_tokens(text: str) -> list[str]:
    """The tokens of a text in any script; never empty. See the module's header."""
    if text.isascii():
        tokens = _ROUGE_TOKEN.findall(text.lower())
    else:
        text = _excess_marks().sub(r"\1", text)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = _INVISIBLE.sub("", text)
        tokens = _any_script().findall(text)
    return tokens or [text.strip()]


_TOKENIZERS: dict[str, Tokenizer] = {"rouge": rouge_tokens, "auto": auto_tokens}


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer called `name`, "rouge" or "auto"; ValueError for any other name."""
    try:
        return _TOKENIZERS[name]
    except KeyError:
        raise ValueError(f"tokens must be one of {', '.join(_TOKENIZERS)}, not {name!r}") from None
