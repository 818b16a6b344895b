"""The instance step: inputs and outputs of an instruction (Self-Instruct, Tables 8 and 9).

Input-first for most tasks: the input, then its output. Output-first for classification tasks: the class label, then
an input that deserves it; asked the other way round, models give one label to everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from ..llm.base import Prompt, Reply
from ..tasks import Instance, Task
from .demonstrations import one_line
from .method import InvalidInstance
from .template import Template

# Self-Instruct, Table 4
SAMPLING = {"max_tokens": 300, "temperature": 0.0, "top_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 1.5}


# render ----------------------------------------------------------------------------------------


def render(instruction: str, examples: Sequence[Task], template: Template, *, classification: bool) -> Prompt:
    """The few-shot prompt; `examples` are seeds of the same kind."""
    heading = template.output_first if classification else template.input_first
    answer = _labels_first if classification else _inputs_first
    return Prompt(
        header=f"{heading.header.strip()}\n\n",
        examples=tuple((question(t.instruction, template), f"{answer(t.instances, template)}\n\n") for t in examples),
        query=question(instruction, template),
    )


def stops(template: Template, max_instances: int) -> list[str]:
    return [f"{template.labels.example} {max_instances + 1}", f"\n{template.labels.task}"]


def question(instruction: str, template: Template) -> str:
    """What differs between the prompts of a run."""
    return f"{template.labels.task} {one_line(instruction)}\n"


def _inputs_first(instances: Sequence[Instance], template: Template) -> str:
    words = template.labels
    parts = []
    for number, instance in enumerate(instances, 1):
        shown = f"{words.input} {instance.input.strip()}\n" if instance.input.strip() else ""
        numbered = f"{words.example} {number}\n" if len(instances) > 1 else ""
        parts.append(f"{numbered}{shown}{words.output} {instance.output.strip()}")
    return "\n".join(parts)


def _labels_first(instances: Sequence[Instance], template: Template) -> str:
    label = template.labels.class_label
    return "\n".join(f"{label} {i.output.strip()}\n{i.input.strip()}".rstrip() for i in instances)


# parse -----------------------------------------------------------------------------------------


def parse_input_first(reply: Reply, template: Template) -> list[Instance]:
    """Examples of a reply in its order. An untagged answer is the output of an instance with empty input; where the
    length limit cut the reply, its last example is left out."""
    words = template.labels
    numbered = re.compile(rf"(?:^|\n)[ \t*#]*{_word(words.example)}[ \t]*\d+[ \t]*[.:：)）]?[ \t*]*", re.IGNORECASE)
    pieces = numbered.split(reply.text)
    if len(pieces) > 1:
        pieces = pieces[1:] if not _has_output(pieces[0], template) else pieces
    if reply.finish_reason == "length":
        pieces = pieces[:-1]
    found = [_example(piece, template) for piece in pieces]
    return [instance for instance in found if instance is not None]


def parse_output_first(reply: Reply, template: Template) -> list[Instance]:
    """Class labels and their inputs, in the order of the reply; labels that differ only in case are folded to the
    form seen first. Without a label tag there is nothing."""
    tag = _tag(template.labels.class_label)
    forms: dict[str, str] = {}
    instances = []
    for piece in tag.split(reply.text)[1:]:
        label, _, text = piece.strip().partition("\n")
        label = label.strip().strip("*").strip()
        text = re.sub(rf"^{_word(template.labels.input)}", "", text.strip(), flags=re.IGNORECASE).strip()
        instances.append(Instance(text, forms.setdefault(label.casefold(), label)))
    return instances[:-1] if reply.finish_reason == "length" else instances


def _example(piece: str, template: Template) -> Instance | None:
    output_tag, input_tag = _tag(template.labels.output), _tag(template.labels.input)
    parts = output_tag.split(piece, maxsplit=1)
    if len(parts) == 1:
        parts = re.split(rf"\s{_word(template.labels.output)}", piece, maxsplit=1)  # on the line of its input
    if len(parts) == 1:
        return Instance("", piece.strip()) if piece.strip() and not input_tag.search(piece) else None
    before, after = parts
    given = input_tag.sub("", before, count=1) if input_tag.match(before) else before
    after = input_tag.split(output_tag.split(after, maxsplit=1)[0], maxsplit=1)[0]  # the next one, not numbered
    return Instance(given.strip(), after.strip())


def _has_output(text: str, template: Template) -> bool:
    return _tag(template.labels.output).search(text) is not None


@cache
def _tag(label: str) -> re.Pattern[str]:
    """A label at the beginning of a line."""
    return re.compile(rf"(?:^|\n)[ \t*]*{_word(label)}", re.IGNORECASE)


def _word(label: str) -> str:
    """A pattern of a label: its colon may be full-width, and stars or spaces may stand around it."""
    return re.escape(label.rstrip(":：")) + (r"[ \t*]*[:：][ \t*]*" if label[-1:] in ":：" else "")


# keep or turn away -----------------------------------------------------------------------------


def check(instances: Sequence[Instance], *, at_most: int) -> tuple[list[Instance], list[InvalidInstance]]:
    """Both piles: what can be used, in order and at most `at_most`, and what not, with the reason
    (Self-Instruct, section 2.2, step 4)."""
    kept: list[Instance] = []
    invalid: list[InvalidInstance] = []
    outputs: dict[str, set[str]] = {}
    for instance in instances:
        if instance.input:
            outputs.setdefault(instance.input, set()).add(instance.output)
    for instance in instances:
        reason = _problem(instance)
        if reason is None and len(outputs.get(instance.input, ())) > 1:
            reason = "conflicting_outputs"
        if reason is None and instance in kept:
            reason = "duplicate_instance"
        if reason is None and len(kept) == at_most:
            reason = "surplus_instance"
        if reason is None:
            kept.append(instance)
        else:
            invalid.append(InvalidInstance(instance, reason))
    return kept, invalid


def balanced(instances: Sequence[Instance], *, at_most: int) -> tuple[list[Instance], list[InvalidInstance]]:
    """Both piles for a classification task: no label stands more than once more often than the rarest one, and where
    not all fit, each label gets its turn. A model that labels at will would give one label to nearly everything."""
    turns: list[int] = []  # of each instance: how many of its label stand before it
    counts: Counter[str] = Counter()
    for instance in instances:
        turns.append(counts[instance.output])
        counts[instance.output] += 1
    limit = min(counts.values(), default=0) + 1
    fair = sorted((turn, place) for place, turn in enumerate(turns) if turn < limit)
    chosen = {place for _, place in fair[:at_most]}
    surplus = [
        InvalidInstance(instance, "surplus_label" if turns[place] >= limit else "surplus_instance")
        for place, instance in enumerate(instances)
        if place not in chosen
    ]
    return [instance for place, instance in enumerate(instances) if place in chosen], surplus


def _problem(instance: Instance) -> str | None:
    if not instance.output:
        return "empty_output"
    if instance.input == instance.output:
        return "input_equals_output"
    if instance.input.endswith((":", "：")) or instance.output.endswith((":", "：")):
        return "ends_with_colon"
    return None
