"""Figures as PNG files, drawn with matplotlib, which is the extra `analysis`: who wants figures asks `available` first.

The same values and the same matplotlib give the same bytes: no date and no version is written into them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MISSING = "figures need matplotlib: pip install 'selfinstruct-argilla[analysis]'"
_COLORS = ("#2f6db0", "#e08b3e", "#4f9d69", "#b3506b", "#8a75b5", "#8c8c8c", "#c3a62e", "#4aa3a8", "#a0603c", "#5c6f82")
_BINS = 40


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_lengths(path: Path, counts: Mapping[str, Sequence[int]]) -> None:
    """A histogram of each kind of text; its words, up to the 99th percentile."""

    def panel(name: str, values: Sequence[int]) -> Callable[[Any], None]:
        return lambda axes: draw(axes, name, values)

    def draw(axes: Any, name: str, values: Sequence[int]) -> None:
        end = round(float(np.quantile(values, 0.99))) if values else 1
        width = 1 + end // _BINS  # whole words
        axes.hist(np.minimum(values, end), bins=np.arange(0, end + width + 1, width), color=_COLORS[0])
        axes.set_xlabel(f"{name} (words)")

    _draw(path, [panel(name, values) for name, values in counts.items()], "texts")


def draw_novelty(path: Path, scores: Sequence[float], threshold: float) -> None:
    """A histogram of each generated task's ROUGE-L with the closest task before it, and what was too close."""

    def draw(axes: Any) -> None:
        axes.hist(scores, bins=_BINS, range=(0, 1), color=_COLORS[0])
        axes.axvline(threshold, color=_COLORS[1], linestyle="--")
        axes.set_xlabel(f"ROUGE-L with the closest earlier task (turned away above {threshold:g})")

    _draw(path, [draw], "tasks")


def draw_stacks(path: Path, stacks: Mapping[str, Mapping[str, int]], label: str) -> None:
    """A stacked bar each, of counts by name; the names share their colors."""
    names = list(dict.fromkeys(name for stack in stacks.values() for name in stack))

    def draw(axes: Any) -> None:
        below = np.zeros(len(stacks))
        for number, name in enumerate(names):
            heights = np.array([stack.get(name, 0) for stack in stacks.values()])
            axes.bar(list(stacks), heights, bottom=below, label=name, color=_COLORS[number % len(_COLORS)])
            below += heights
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

    _draw(path, [draw], label)


def draw_shares(path: Path, shares: Mapping[str, tuple[float, tuple[float, float]]]) -> None:
    """A bar each from 0 to 1, with its interval."""

    def draw(axes: Any) -> None:
        places = range(len(shares))
        for place, (share, (low, high)) in zip(places, shares.values(), strict=True):
            axes.barh(place, share, color=_COLORS[0])
            axes.plot([low, high], [place, place], color="black", linewidth=1.5)
        axes.set_yticks(list(places), list(shares))
        axes.set_xlim(0, 1)
        axes.invert_yaxis()

    _draw(path, [draw], "")


def _draw(path: Path, panels: Sequence[Callable[[Any], None]], label: str) -> None:
    """The panels beside each other. No window and no state that others share: notebooks keep their own figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.4, 3.2 * len(panels)), 3.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (panel, axes) in enumerate(zip(panels, np.ravel(figure.subplots(1, len(panels))), strict=True)):
        panel(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if not number:
            axes.set_ylabel(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
