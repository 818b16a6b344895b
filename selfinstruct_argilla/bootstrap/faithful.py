r"""How the 2022 code reads replies, quirk by quirk: `faithful: true` (Self-Instruct and Alpaca reference code).

| quirk                                                                        | here                     |
|------------------------------------------------------------------------------|--------------------------|
| `capitalize()` lower-cases names and acronyms in every instruction           | `parse_instructions`     |
| a reply that the length limit cut is dropped whole                           | `parse_instructions`     |
| the list splits only at newline, digits, at most one space, dot, space       | `parse_instructions`     |
| an instruction must start with an ASCII letter or digit                      | `turn_away`              |
| only "Yes", "yes" and "YES" mean yes; a failed request means no              | `is_classification`      |
| 300 tokens where any task of a group of five is a classification task        | `instance_tokens`        |
| an untagged reply has no instance; inputs keep field names                   | `instances_of`           |
| one conflicting output for the same input voids the whole task               | `instances_of`           |
| identical instances fall together, at most five of the rest stay, by chance  | `instances_of`           |
| Alpaca: an item must split into exactly three fields under its own number    | `parse_alpaca`           |
| words outside a-z and 0-9 vanish in ROUGE-L                                   | `novelty.tokens: rouge`  |

The default mode mends each of these; the rules are those of the two repositories, the wording is ours.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence

from ..llm.base import Reply
from ..tasks import Instance
from .method import InvalidInstance, Parsed

STOPS = ["\n\n", "\n16", "16.", "16 ."]
ALPACA_STOPS = ["\n20", "20."]

_BLOCKED = ["image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot"]
_BLOCKED_PHRASE = "go to"
_ALPACA_BLOCKED = ["video", "audio", "music", "flowchart", "diagram"]


# instructions ----------------------------------------------------------------------------------


def parse_instructions(reply: Reply) -> Parsed:
    """Nothing of a cut reply; else the items between numbers, white space folded, `capitalize()`d."""
    if reply.finish_reason == "length":
        return Parsed([], None)
    items = (re.sub(r"\s+", " ", item).strip().capitalize() for item in re.split(r"\n\d+\s?\. ", reply.text))
    return Parsed([item for item in items if item])


def turn_away(instruction: str, *, alpaca: bool = False) -> tuple[str, str | None] | None:
    """The first rule that an instruction fails: 4 to 150 words, no blocked word, no "Write a program", an ASCII
    letter or digit at its start."""
    words = len(instruction.split())
    if words <= 3:
        return "too_short", str(words)
    if words > 150:
        return "too_long", str(words)
    for word in [*_BLOCKED, _BLOCKED_PHRASE, *(_ALPACA_BLOCKED if alpaca else [])]:
        if re.search(rf"\b{word}\b", instruction, re.IGNORECASE):
            return "blocked_word", word
    if instruction.startswith("Write a program"):
        return "blocked_start", "Write a program"
    if instruction[0] in string.punctuation:
        return "starts_with_punctuation", instruction[0]
    if not instruction[0].isascii():
        return "starts_with_non_ascii", instruction[0]
    return None


# classification --------------------------------------------------------------------------------


def is_classification(reply: Reply | None) -> bool:
    return reply is not None and reply.text.strip() in ("Yes", "yes", "YES")


def instance_tokens(kinds: Sequence[bool | None]) -> int:
    """`max_tokens` of the instance step for a group of five tasks."""
    return 300 if any(kinds) else 350


# instances -------------------------------------------------------------------------------------


def instances_of(
    reply: Reply, *, classification: bool, at_most: int, rng: random.Random
) -> tuple[list[Instance], list[InvalidInstance]]:
    """Both piles: the instances that stay, and those that do not, with the reason."""
    found = _output_first(reply.text) if classification else _input_first(reply.text)
    if reply.finish_reason == "length":
        found = found[:-1]
    invalid = [InvalidInstance(instance, reason) for instance in found if (reason := _problem(instance))]
    valid = [instance for instance in found if not _problem(instance)]
    outputs: dict[str, set[str]] = {}
    for instance in valid:
        if instance.input:
            outputs.setdefault(instance.input, set()).add(instance.output)
    if any(len(different) > 1 for different in outputs.values()):
        return [], invalid + [InvalidInstance(instance, "conflicting_outputs") for instance in valid]
    kept = list(dict.fromkeys(valid))
    if len(kept) > at_most:
        chosen = rng.sample(kept, at_most)
        invalid += [InvalidInstance(instance, "surplus_instance") for instance in kept if instance not in chosen]
        kept = chosen
    return kept, invalid


def _input_first(text: str) -> list[Instance]:
    if re.search(r"Example\s?\d*\.?", text):
        pieces = [piece.strip() for piece in re.split(r"Example\s?\d*\.?", text)]
        return [_pair(piece) for piece in pieces if piece]
    return [_pair(text)] if re.search(r"Output\s*(?:\d+\s*)?:", text) else []


def _pair(piece: str) -> Instance:
    """Before the first output tag the input, up to the next one the output; without a tag all is output."""
    parts = re.split(r"Output\s*(?:\d+\s*)?:", piece)
    given, output = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    output = re.split(r"Input\s*(?:\d+\s*)?:", output)[0].strip()
    return Instance(re.sub(r"^Input\s*(?:\d+\s*)?:", "", given.strip()).strip(), output)


def _output_first(text: str) -> list[Instance]:
    """After each "Class label:" its line is the label, the rest the input."""
    instances = []
    for piece in text.split("Class label:")[1:]:
        label, _, given = piece.strip().partition("\n")
        instances.append(Instance(given.strip(), label.strip()))
    return instances


def _problem(instance: Instance) -> str | None:
    if instance.input == instance.output:
        return "input_equals_output"
    if not instance.output:
        return "empty_output"
    if instance.input.endswith(":") or instance.output.endswith(":"):
        return "ends_with_colon"
    return None


# Alpaca ----------------------------------------------------------------------------------------


def parse_alpaca(reply: Reply, first: int) -> list[tuple[str, Instance]]:
    """Instructions with their instance; `first` is the number that the prompt ends with. The last item of a cut
    reply is dropped, and every item that does not split into exactly instruction, input and output."""
    items = re.split("###", f"{first}. Instruction:" + reply.text)
    found = []
    for index, item in enumerate(items):
        if index == len(items) - 1 and reply.finish_reason == "length":
            continue
        number = index + first
        parts = re.split(rf"{number}\.\s+(Instruction|Input|Output):", item)
        if len(parts) != 7:
            continue
        given = parts[4].strip()
        given = "" if given.lower() == "<noinput>" else given
        found.append((parts[2].strip(), Instance(given, parts[6].strip())))
    return found
