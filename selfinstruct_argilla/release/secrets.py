"""What must not be published: keys, tokens, private keys and people's e-mail addresses, found by their shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_KINDS = {
    "a Hugging Face token": r"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{20,}",
    "an OpenAI key": r"(?<![A-Za-z0-9_])sk-(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]{20,}",
    "an AWS key": r"(?<![A-Za-z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|(?i:aws_secret_access_key)[\"']?\s{0,9}[=:]\s{0,9}[\"']?[A-Za-z0-9/+]{40}",
    "a private key": r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----",
    "an e-mail address": r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}",
}
_PATTERN = re.compile("|".join(f"({pattern})" for pattern in _KINDS.values()))
_HINT = re.compile(r"@|hf_|sk-|A[KS]IA|PRIVATE KEY|(?i:aws_secret)")  # in every match, and quickly found to be absent
_EXAMPLE = re.compile(r"[@.](example\.(com|net|org|edu)|example|test|invalid|localhost)$", re.IGNORECASE)  # RFC 2606


@dataclass(frozen=True)
class Finding:
    """A text that looks like a secret: the row (a task's id) or file it is in, its kind, and the text itself."""

    place: str
    kind: str
    text: str


def find_secrets(place: str, value: Any) -> Iterator[Finding]:
    """Every secret in a text, or in the texts of lists and mappings (their keys too)."""
    if isinstance(value, str):
        if not _HINT.search(value):
            return
        for match in _PATTERN.finditer(value):
            kind = list(_KINDS)[match.lastindex - 1] if match.lastindex else ""
            if not (kind == "an e-mail address" and _EXAMPLE.search(match[0])):
                yield Finding(place, kind, match[0])
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from find_secrets(place, key)
            yield from find_secrets(place, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from find_secrets(place, item)
