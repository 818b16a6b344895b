"""The Alpaca method (Taori et al., 2023): one request yields complete tasks, each with an instruction and an instance.

As plain text after a few numbered demonstrations, or as JSON where the recipe says that the endpoint keeps to a schema
(`bootstrap.structured_output`). There is no classification step: whether a task is one stays unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ..llm.base import Api, Prompt, Reply
from ..recipe import Recipe
from ..tasks import Instance, Task
from . import faithful, instances
from .demonstrations import one_line
from .filters import InstructionFilter
from .method import Ask, InvalidInstance, Parsed, Planned, Written, parameters
from .template import Template, load_template

# stanford_alpaca, generate_instruction.py
SAMPLING = {"max_tokens": 3072, "temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
_ASKED = 20  # tasks in a list, demonstrations included
_END_OF_TEXT = "50256"  # its token in the models of 2023, which must not end the list early

Item = tuple[str, Instance]


class Alpaca:
    """One recipe's way of asking; it holds no state of the run."""

    name = "alpaca"

    def __init__(self, recipe: Recipe) -> None:
        self._bootstrap = recipe.bootstrap
        self._faithful = recipe.bootstrap.faithful
        self._structured = recipe.bootstrap.structured_output
        self._api: Api = recipe.models.generator.api
        self.template: Template = load_template(recipe.language)
        self._filter = InstructionFilter.of(recipe.bootstrap.filters, self.template.filters)
        self._shown = sum(recipe.bootstrap.demonstrations_in_force)

    @property
    def tasks_per_request(self) -> int:
        return max(1, _ASKED - self._shown)

    def plan(self, shown: Sequence[Task]) -> Planned:
        prompt = render(shown, self._api, self.template, structured=self._structured)
        stop = [] if self._structured else faithful.ALPACA_STOPS if self._faithful else self._stops()
        sampling = parameters(SAMPLING, self._bootstrap.sampling.instructions, stop)
        if self._structured:
            sampling["response_format"] = response_format()
        if self._faithful:
            sampling["logit_bias"] = {_END_OF_TEXT: -100}
        return Planned(prompt, sampling)

    def _stops(self) -> list[str]:
        return [f"\n{_ASKED + 1}."] if self._api == "completions" else []

    def parse(self, reply: Reply) -> Parsed:
        items, cut = self._items(reply)
        return Parsed([instruction for instruction, _ in items], cut)

    def turn_away(self, instruction: str) -> tuple[str, str | None] | None:
        if self._faithful:
            return faithful.turn_away(instruction, alpaca=True)
        return self._filter.reason(instruction)

    async def write(self, instruction: str, reply: Reply, batch: Sequence[str], ask: Ask) -> Written:
        """The instance that stands beside the instruction; nothing more is asked."""
        found = [instance for other, instance in self._items(reply)[0] if other == instruction][:1]
        kept, invalid = instances.check(found, at_most=1)
        if kept:
            return Written(None, tuple(kept), turned_away=tuple(invalid))
        return Written(None, (), "no_valid_instance", _reasons(invalid), tuple(invalid))

    def _items(self, reply: Reply) -> tuple[list[Item], str | None]:
        if self._faithful:
            return faithful.parse_alpaca(reply, self._shown + 1), None
        if self._structured:
            return parse_json(reply)
        return parse_text(reply, self.template)


def render(shown: Sequence[Task], api: Api, template: Template, *, structured: bool) -> Prompt:
    """The requirement list, then numbered demonstrations; a completion goes on after the next number."""
    words, labels = template.alpaca, template.labels
    requirements = words.header.strip().format(count=_ASKED, language=words.language, no_input=words.no_input)
    parts = []
    for number, task in enumerate(shown, 1):
        instance = task.accepted_instances()[0] if task.accepted_instances() else task.instances[0]
        given = instance.input.strip() or words.no_input
        parts.append(
            f"###\n{number}. {labels.instruction} {one_line(task.instruction)}\n"
            f"{number}. {labels.input}\n{given}\n{number}. {labels.output}\n{instance.output.strip()}\n"
        )
    listed = "".join(parts)
    following = len(shown) + 1
    if structured:
        return Prompt(f"{requirements}\n\n", f"{listed}\n{words.as_json.format(first=following, last=_ASKED)}")
    if api == "chat":
        return Prompt(f"{requirements}\n\n", f"{listed}\n{words.continue_.format(first=following, last=_ASKED)}")
    return Prompt(f"{requirements}\n\n", f"{listed}###\n{following}. {labels.instruction}")


def parse_text(reply: Reply, template: Template) -> tuple[list[Item], str | None]:
    """Items between `###`, each with its three labels, however numbered. The last one of a cut reply is left out."""
    labels, no_input = template.labels, template.alpaca.no_input
    tag = re.compile(  # bounded repeats: a reply may be half a million stars
        r"(?:^|\n)[ \t*#]{0,20}(?:\d{1,4}[ \t]{0,4}[.)、．:]?[ \t]{0,4})?\*{0,3}(?P<label>"
        + "|".join(re.escape(label.rstrip(":：")) for label in (labels.instruction, labels.input, labels.output))
        + r")\**[ \t]*[:：]\**",
        re.IGNORECASE,
    )
    found: list[dict[str, str]] = []
    matches = list(tag.finditer(reply.text))
    head = reply.text[: matches[0].start()] if matches else reply.text
    names = {label.rstrip(":：").casefold(): key for key, label in _labels(template).items()}
    if head.strip(" \n#") and (not matches or names[matches[0]["label"].casefold()] != "instruction"):
        found.append({"instruction": head})  # the prompt ended with its label
    for number, match in enumerate(matches):
        end = matches[number + 1].start() if number + 1 < len(matches) else len(reply.text)
        key = names[match["label"].casefold()]
        if key == "instruction" or not found:
            found.append({})
        found[-1].setdefault(key, reply.text[match.end() : end])
    cut = found.pop().get("instruction", "") if found and reply.finish_reason == "length" else None
    items = [_item(values, no_input) for values in found]
    return [item for item in items if item is not None], _clean(cut) if cut else None


def _labels(template: Template) -> dict[str, str]:
    labels = template.labels
    return {"instruction": labels.instruction, "input": labels.input, "output": labels.output}


def _item(values: dict[str, str], no_input: str) -> Item | None:
    instruction = _clean(values.get("instruction", ""))
    if not instruction:
        return None
    given = _body(values.get("input", ""))
    given = "" if given.casefold().strip("<>().") in ("", no_input.strip("<>").casefold(), "noinput") else given
    return instruction, Instance(given, _body(values.get("output", "")))


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" *#")


def _body(text: str) -> str:
    body, _, last = text.rstrip().rpartition("\n")
    mark = last.strip()
    return body.strip() if len(mark) >= 3 and not mark.strip("#") else text.strip()


def parse_json(reply: Reply) -> tuple[list[Item], str | None]:
    """The objects of a JSON reply that are whole; what surrounds or follows them does not matter."""
    decoder = json.JSONDecoder()
    items: list[Item] = []
    text = reply.text
    position = text.find("[") + 1
    while (position := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError):
            break  # cut in its middle
        item = _object(value)
        if item is not None:
            items.append(item)
    cut = text[position : position + 200] if position >= 0 and reply.finish_reason == "length" else None
    return items, cut


def _object(value: Any) -> Item | None:
    texts = [value.get(key) or "" for key in ("instruction", "input", "output")]
    if not all(isinstance(text, str) for text in texts):
        return None
    instruction, given, output = texts
    return (_clean(instruction), Instance(given.strip(), output.strip())) if instruction.strip() else None


def response_format() -> dict[str, Any]:
    """The schema of a structured reply, as OpenAI's `response_format` takes it."""
    text = {"type": "string"}
    fields = {"instruction": text, "input": text, "output": text}
    task = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    schema = {
        "type": "object",
        "properties": {"tasks": {"type": "array", "items": task}},
        "required": ["tasks"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "tasks", "strict": True, "schema": schema}}


def _reasons(invalid: Sequence[InvalidInstance]) -> str:
    return ", ".join(sorted({item.reason for item in invalid})) or "the reply has none"
