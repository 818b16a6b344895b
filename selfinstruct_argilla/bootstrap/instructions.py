"""The instruction step: eight numbered tasks are shown, the model goes on with eight more (Self-Instruct, Table 6)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..llm.base import Api, Prompt, Reply
from .demonstrations import one_line
from .method import Parsed
from .template import Template

# Self-Instruct, Table 4
SAMPLING = {"max_tokens": 1024, "temperature": 0.7, "top_p": 0.5, "frequency_penalty": 0.0, "presence_penalty": 2.0}

# "9.", "9)", "Task 9:", "9、", "**9.**", full-width digits, at the start of a line
_NUMBER = re.compile(
    r"(?:^|\n)[ \t\u3000>*_#-]*(?:[^\W\d_]{1,12}[ \t])?[0-9０-９]{1,4}[ \t]?[.)．）、:：][ \t\u3000*_]*(?=\S)"
)


def render(demonstrations: Sequence[str], api: Api, template: Template) -> Prompt:
    """`demonstrations` are instructions; the prompt ends with the next number, without a space after its dot."""
    words = template.instructions
    first, last = len(demonstrations) + 1, 2 * len(demonstrations)
    lines = [f"{number}. {one_line(text)}" for number, text in enumerate(demonstrations, 1)]
    shown = "\n".join([words.header, *lines])
    if api == "completions":
        return Prompt(header="", query=f"{shown}\n{first}.")
    return Prompt(header="", query=f"{shown}\n\n{words.continue_.format(first=first, last=max(first, last))}")


def stops(demonstrations: int, api: Api) -> list[str]:
    """Where a completion ends: after as many new tasks as were shown, or at a blank line. A chat model is told."""
    return ["\n\n", f"\n{2 * demonstrations + 1}."] if api == "completions" else []


def parse(reply: Reply, api: Api) -> Parsed:
    """The instructions of a reply: split at numbers of any usual form, white space folded, first letter upper-cased."""
    text = reply.text
    first = _NUMBER.search(text)
    if api == "completions":
        text = text if first and not text[: first.start()].strip() else "\n1. " + text.lstrip()
        items = _NUMBER.split(text)[1:]
    else:
        items = _NUMBER.split(text)[1:] if first else [text]
    items = [re.sub(r"\s+", " ", item).strip().strip("*").strip() for item in items]
    cut = items.pop() if items and reply.finish_reason == "length" else None
    return Parsed([item[:1].upper() + item[1:] for item in items if item], cut or None)
