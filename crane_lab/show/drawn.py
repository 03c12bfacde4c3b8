"""What is drawn by hand, with matplotlib: Figures 1 and 5 and a network of a few units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as MplPath
from numpy.typing import ArrayLike

from crane_lab.show.style import (
    BOLD,
    INK,
    NOTE,
    PAPER,
    PLAIN,
    QUIET,
    SIGNED,
    ink_on,
    minus,
    palette,
    styled,
)


def _sheet(width: float, height: float) -> tuple[Figure, Axes]:
    """A blank figure with axes over all of it, in tenths of an inch."""
    figure = Figure(figsize=(width / 10, height / 10), layout=PlaceHolderLayoutEngine(False, False))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _stage(
    axes: Axes, x: float, y: float, width: float, height: float, colour: str, title: str
) -> None:
    """A tinted ground with a title."""
    axes.add_patch(Rectangle((x, y), width, height, fc=mpl.colors.to_rgba(colour, 0.08)))
    axes.text(x + 1.4, y + height - 1.9, title, **BOLD, va="center")


@styled
def fig1_overview() -> Figure:
    """Figure 1: the method from corpora to LangSpec-F1, drawn by this project."""
    figure, axes = _sheet(96, 43)
    stages = palette(["Relevance", "Concentration and selection", "Functional necessity"])
    steps = [
        ("Corpora", "windows of text, equal\nin length and number", "Alg. 1, line 3"),
        ("AttnLRP", "relevance of each MLP\nneuron in each sample", "§3.2, Eq. 1"),
        ("Distribution", "of one neuron's relevance\nover all samples", "§3.3"),
        ("Kurtosis", "how heavy its tails are,\nlanguage by language", "Eq. 2"),
        ("Normalise", "on one scale within\neach layer", "Alg. 1, line 15"),
        ("Contrast", "high for the target, low\nfor every other language", "Fig. 3"),
        ("Mask", "the selected neurons\nput out zero", "§3.4"),
        ("Evaluate", "every language's tasks,\nbefore and after", "§4.3"),
        ("LangSpec-F1", "damage to the target,\nsparing the others", "Eq. 3–5"),
    ]
    sketches = _sketches()
    rounded: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.8", "fc": PLAIN, "lw": 1.2}
    column, gutter, box, gap, top = 28.0, 4.0, 8.8, 3.2, 28.8
    for i, (name, colour) in enumerate(stages.items()):
        left = 2.0 + i * (column + gutter)
        _stage(axes, left, 2.4, column, 39, colour, f"{i + 1}  {name}")
        for j, (title, text, source) in enumerate(steps[3 * i : 3 * i + 3]):
            x, y = left + 1.4, top - j * (box + gap)
            axes.add_patch(FancyBboxPatch((x, y), column - 2.8, box, ec=colour, **rounded))
            axes.text(x + 1.2, y + box - 1.1, title, **BOLD, va="top", fontsize=10)
            axes.text(x + 1.2, y + 1.0, text, va="bottom", fontsize=8.5, linespacing=1.3)
            axes.text(
                left + column - 2.4, y + box - 1.2, source, va="top", ha="right", fontsize=7.5,
                color=NOTE,
            )  # fmt: skip
            for style_, points in sketches[3 * i + j]:
                u, v = np.transpose(points)
                axes.plot(x + 18.6 + 5.6 * u, y + 0.9 + 4.2 * v, style_, color=colour, ms=3, lw=1.3)
            if j < 2:
                middle = left + column / 2
                _arrow(axes, [(middle, y), (middle, y - gap)])
        if i < 2:
            low, high = top - 2 * (box + gap) + box / 2, top + box / 2
            edge, turn = left + column - 1.4, left + column + gutter / 2
            _arrow(axes, [(edge, low), (turn, low), (turn, high), (edge + gutter + 2.8, high)])
    return figure


def _sketches() -> list[list[tuple[str, Any]]]:
    """One small drawing per step of Figure 1: (matplotlib format, points in the unit square)."""
    t = np.linspace(-3, 3, 61)
    unit = (t + 3) / 6
    bell, peak = 0.55 * np.exp(-(t**2) / 2), 1 / (1 + 3 * t**2)
    steps = np.repeat([0.08, 0.2, 0.5, 1, 0.6, 0.25, 0.08], 2)
    edges = np.repeat(np.linspace(0, 1, 8), 2)[1:-1]

    def bars(*heights: float) -> list[tuple[str, Any]]:
        xs = np.linspace(0.1, 0.9, len(heights))
        return [("-", [(0, 0), (1, 0)])] + [
            ("-", [(x - 0.09, 0), (x - 0.09, h), (x + 0.09, h), (x + 0.09, 0)])
            for x, h in zip(xs, heights, strict=True)
        ]

    lines = [("-", [(0, y), (x, y)]) for y, x in ((0.1, 0.6), (0.4, 1), (0.7, 0.9), (1, 1))]
    rays = [("-", [(0.5, 1), (x, 0.1)]) for x in (0.05, 0.35, 0.65, 0.95)]
    return [
        lines,
        [*rays, ("o", [(0.5, 1), (0.05, 0.1), (0.35, 0.1), (0.65, 0.1), (0.95, 0.1)])],
        [("-", np.column_stack([edges, steps]))],
        [("-", np.column_stack([unit, peak])), (":", np.column_stack([unit, bell]))],
        [("-", [(0, 0.5), (1, 0.5)]), ("o", [(0.1, 0.3), (0.3, 0.65), (0.5, 0.45), (0.7, 0.95)])],
        [
            (":", [(0.45, 0), (0.45, 1)]),
            (":", [(0, 0.5), (1, 0.5)]),
            ("o", [(0.65, 0.2), (0.85, 0.3), (0.9, 0.1)]),
            (".", [(0.1, 0.1), (0.2, 0.3), (0.3, 0.15), (0.25, 0.7), (0.75, 0.85)]),
        ],
        [("o", [(0.1, 0.5), (0.9, 0.5)]), ("x", [(0.37, 0.5), (0.63, 0.5)])],
        bars(0.95, 0.4, 0.8, 0.75),
        bars(1.0, 0.12, 0.2),
    ]


def _arrow(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    arrow = FancyArrowPatch(
        path=MplPath(points), arrowstyle="-|>", mutation_scale=11, color=INK, linewidth=1.2,
        joinstyle="miter", shrinkA=0, shrinkB=0,
    )  # fmt: skip
    axes.add_patch(arrow)


@styled
def fig5_transfer() -> Figure:
    """Figure 5: neurons found on the base model are masked on the chat model, drawn by us."""
    figure, axes = _sheet(96, 35)
    base, chat = palette(["base", "chat"]).values()
    chosen = {(0, 2), (0, 5), (1, 1), (2, 4), (2, 6), (3, 3)}

    def model(left: float, colour: str, title: str, note: str, steps: Sequence[str]) -> None:
        off = colour == chat
        _stage(axes, left, 4, 40, 29, colour, title)
        axes.text(left + 20, 1.9, note, ha="center", va="center", fontsize=8.5)
        axes.text(left + 13.1, 6.6, "MLP neurons, layer by layer", ha="center", fontsize=8)
        for layer, unit in np.ndindex(4, 8):
            x, y = left + 3 + 2.9 * unit, 10.5 + 5 * layer
            mine = (layer, unit) in chosen
            face = colour if mine and not off else PLAIN
            axes.add_patch(Circle((x, y), 1.15, fc=face, ec=colour if mine else QUIET))
            if mine and off:
                axes.plot(x, y, "x", color=colour, markersize=8, markeredgewidth=1.6)
        for y, text in zip((25, 18, 11), steps, strict=True):
            axes.text(left + 33.5, y, text, ha="center", va="center", fontsize=8.5)
        for y in (22, 15):
            _arrow(axes, [(left + 33.5, y + 0.6), (left + 33.5, y - 1.4)])

    found = ("text in each\nlanguage", "kurtosis of\nrelevance", "set for one\nlanguage")
    note = "relevance, kurtosis, selection: here and only here"
    model(2, base, "Base model", note, found)
    masked = ("set outputs\nto zero", "ask and\nevaluate", "LangSpec-F1")
    model(54, chat, "Chat model", "same positions masked, no search of its own", masked)
    _arrow(axes, [(42.6, 17), (53.4, 17)])
    axes.text(48, 20.6, "the same\nindices", ha="center", va="center", fontsize=8.5)
    axes.text(48, 13.2, "(layer,\nneuron)", ha="center", va="center", fontsize=8)
    return figure


@styled
def network(
    layers: Sequence[Mapping[str, tuple[float, float]]],
    weights: Sequence[ArrayLike],
    title: str = "",
) -> Figure:
    """A network small enough to follow by hand, with its activations and their relevance.

    Parameters
    ----------
    layers : from the input to the output, name of a unit -> (activation, relevance).
    weights : between each layer and the next (units of the next, units); written on the edges.

    Raises ValueError if the sizes of weights and layers do not agree.
    """
    sizes = [len(layer) for layer in layers]
    matrices = [np.asarray(weight, dtype=np.float64) for weight in weights]
    if [m.shape for m in matrices] != list(zip(sizes[1:], sizes[:-1], strict=True)):
        raise ValueError(
            f"layers have {sizes} units, so the weights {[m.shape for m in matrices]} do not fit"
        )
    across, down, radius = 2.6, 1.3, 0.3
    height = down * max(sizes)
    figure = Figure(figsize=(across * len(sizes) - 0.6, height + 0.4))
    axes = figure.subplots()
    places = [
        [(across * i, height / 2 - down * (j - (size - 1) / 2)) for j in range(size)]
        for i, size in enumerate(sizes)
    ]
    for i, matrix in enumerate(matrices):
        for (row, column), weight in np.ndenumerate(matrix):
            (x0, y0), (x1, y1) = places[i][column], places[i + 1][row]
            axes.plot([x0, x1], [y0, y1], color=QUIET, linewidth=1, zorder=1)
            # Staggered along the edges, so that labels do not meet where edges cross.
            t = 0.3 if column % 2 else 0.22
            axes.text(
                x0 + t * (x1 - x0), y0 + t * (y1 - y0), minus(f"{weight:g}"),
                ha="center", va="center", fontsize=8, bbox={"fc": PAPER, "ec": "none", "pad": 1},
            )  # fmt: skip
    reach = max(abs(relevance) for layer in layers for _, relevance in layer.values()) or 1.0
    norm, colours = Normalize(-reach, reach), mpl.colormaps[SIGNED]
    for layer, row_of in zip(layers, places, strict=True):
        for (name, (activation, relevance)), (x, y) in zip(layer.items(), row_of, strict=True):
            face = colours(norm(relevance))
            axes.add_patch(Circle((x, y), radius, facecolor=face, edgecolor=INK, zorder=2))
            axes.text(
                x, y, minus(f"{activation:g}"), ha="center", va="center",
                color=ink_on(face), **BOLD, zorder=3,
            )  # fmt: skip
            label = minus(f"{name}, R = {relevance:g}")
            axes.text(x, y - radius - 0.16, label, ha="center", va="center", fontsize=8.5)
    axes.set(
        xlim=(-0.7, across * (len(sizes) - 1) + 0.7), ylim=(-0.1, height + 0.1), title=title,
        aspect="equal",
    )  # fmt: skip
    axes.axis("off")
    return figure
