"""The book's figures (paper Fig. 1-4 and what the notebooks add), as matplotlib figures.

Every function returns a `Figure` of its own, drawn in one style and unknown to pyplot; `show` puts
it on a page with an alternative text. Colours are Okabe and Ito's, viridis, or purple to orange
around zero, so that they can be told apart without red and green.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from IPython.display import HTML
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as MplPath
from numpy.typing import ArrayLike
from pandas.io.formats.style import Styler
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_core.selection import NeuronSet, Scores, margins, overlap

PAPER = "#fbfaf7"  # opaque, so that a figure reads the same on a light and on a dark page
INK = "#22262b"
QUIET = "#8a8f96"
BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
)
CYCLE = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)
LANGUAGE_COLOURS = {"en": BLUE, "zh": VERMILION, "vi": GREEN}
SIGNED = "PuOr_r"  # purple below zero, orange above
DPI = 144

P = ParamSpec("P")


@functools.cache
def style() -> dict[Any, Any]:
    """The settings (matplotlib rcParams) that all figures share.

    Latin and Vietnamese are set in DejaVu Sans and Chinese in Noto Sans CJK SC, which the package
    mplfonts carries; its file is registered with this process only. For a figure of your own:
    `with matplotlib.rc_context(figures.style()): ...`

    Raises FileNotFoundError if mplfonts or its font is not installed.
    """
    package = find_spec("mplfonts")
    folder = Path(package.origin).parent if package and package.origin else Path("mplfonts")
    font = folder / "fonts" / "NotoSansCJKsc-Regular.otf"
    if not font.is_file():
        raise FileNotFoundError(f"no font for Chinese at {font}: install the package mplfonts")
    font_manager.fontManager.addfont(str(font))
    return {
        "font.family": ["DejaVu Sans", font_manager.FontProperties(fname=str(font)).get_name()],
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.labelsize": 9.0,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": QUIET,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.unicode_minus": True,
        "axes.prop_cycle": cycler(color=CYCLE),
        "legend.frameon": False,
        "figure.dpi": 100.0,
    }


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the common style; ticks take theirs when first laid out, so that is done here."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(style()):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
        return figure

    return wrapper


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(style()):
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> HTML:
    """Display a figure with an alternative text, as the last expression of a notebook's cell.

    Parameters
    ----------
    figure : a figure of this module.
    alt : what the figure shows, for readers who cannot see it; it reaches the book's HTML.

    Raises ValueError if `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alternative text: say what it shows")
    data = base64.b64encode(png(figure)).decode()
    width = round(figure.get_figwidth() * 100)
    return HTML(
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" '
        f'style="width:{width}px;max-width:100%;height:auto">'
    )


def language_colour(language: str, position: int = 0) -> str:
    """The colour of a language, the same in every figure; others take theirs by position."""
    return LANGUAGE_COLOURS.get(language, CYCLE[position % len(CYCLE)])


# --- the paper's figures ----------------------------------------------------------------------


@_styled
def fig1_overview() -> Figure:
    """Figure 1: the method from corpora to LangSpec-F1, drawn by this project."""
    figure = Figure(figsize=(9.6, 4.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 96), ylim=(0, 43))
    axes.axis("off")
    stages = [
        ("1  Relevance", BLUE),
        ("2  Concentration and selection", GREEN),
        ("3  Functional necessity", VERMILION),
    ]
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
    column, gutter, box, gap, top = 28.0, 4.0, 8.8, 3.2, 28.8
    for i, (name, colour) in enumerate(stages):
        left = 2.0 + i * (column + gutter)
        axes.add_patch(
            Rectangle((left, 2.4), column, 39, facecolor=mpl.colors.to_rgba(colour, 0.08))
        )
        axes.text(left + 1.4, 39.6, name, color=colour, weight="bold", va="center")
        for j, (title, text, source) in enumerate(steps[3 * i : 3 * i + 3]):
            x, y = left + 1.4, top - j * (box + gap)
            axes.add_patch(
                FancyBboxPatch(
                    (x, y),
                    column - 2.8,
                    box,
                    boxstyle="round,pad=0,rounding_size=0.8",
                    facecolor="white",
                    edgecolor=colour,
                    linewidth=1.2,
                )
            )
            axes.text(x + 1.2, y + box - 1.1, title, weight="bold", va="top", fontsize=10)
            axes.text(x + 1.2, y + 1.0, text, va="bottom", fontsize=8.5, linespacing=1.3)
            axes.text(
                left + column - 2.4, y + box - 1.2, source, va="top", ha="right", fontsize=7.5,
                color="#5b6168",
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
    axes.add_patch(
        FancyArrowPatch(
            path=MplPath(points),
            arrowstyle="-|>",
            mutation_scale=11,
            color=INK,
            linewidth=1.2,
            joinstyle="miter",
            shrinkA=0,
            shrinkB=0,
        )
    )


@_styled
def fig2_intuition(
    samples: Mapping[str, ArrayLike] | None = None, target: str | None = None
) -> Figure:
    """Figure 2: a heavy-tailed and a light-tailed relevance distribution of one neuron.

    Parameters
    ----------
    samples : language -> relevance of one neuron (samples,), in any unit; by default a simulation,
        labelled as schematic, in which both distributions have the same spread.
    target : the language drawn in front; by default the first.

    The left panel shows densities of relevance standardised within its language, the right panel
    the same on a logarithmic scale, where the tails are; what lies beyond its edges, at most 12
    standard deviations, is counted at them.
    """
    schematic = samples is None
    if samples is None:
        rng = np.random.default_rng(0)
        samples = {
            "target language": rng.standard_t(3, 20_000) / math.sqrt(3),
            "another language": rng.standard_normal(20_000),
        }
    values = {name: np.asarray(x, dtype=np.float64) for name, x in samples.items()}
    target = next(iter(values)) if target is None else target
    if target not in values:
        raise ValueError(f"no samples for {target!r}: there are {list(values)}")
    scores = {name: (x - x.mean()) / x.std() for name, x in values.items()}
    reach = min(12.0, max(4.0, *(float(np.abs(z).max()) for z in scores.values())))
    bins = np.linspace(-reach, reach, 81)
    figure = Figure(figsize=(8.4, 3.3), layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    order = [target, *(name for name in scores if name != target)]
    for position, name in enumerate(order):
        z = scores[name].clip(-reach, reach)
        colour = language_colour(name, (1, 0, 2, 3)[position % 4] if schematic else position)
        label = f"{name}: kurtosis {np.mean(scores[name] ** 4):.1f}"
        for axes in (linear, logarithmic):
            kind = {"histtype": "step", "linewidth": 1.6, "color": colour, "density": True}
            axes.hist(z, bins, label=label, **kind)
            if name == target:
                axes.hist(z, bins, density=True, color=colour, alpha=0.18)
    for axes in (linear, logarithmic):
        axes.set(xlabel="relevance, in standard deviations from its mean")
    linear.set(ylabel="density", title="the peak", xlim=(-4, 4))
    logarithmic.set(ylabel="density, logarithmic", yscale="log", title="the tails")
    logarithmic.set_xlim(-reach * 1.05, reach * 1.05)
    linear.legend(loc="upper left", fontsize=8, handlelength=1.2)
    linear.set_ylim(top=linear.get_ylim()[1] * 1.25)
    if schematic:
        figure.suptitle("Schematic: simulated, equal spread", fontsize=9, color="#5b6168")
    return figure


@_styled
def fig3_contrast(
    normalised: Mapping[str, Scores],
    target: str,
    threshold: float = 1.0,
    site: str = "intermediate",
) -> Figure:
    """Figure 3: each neuron's normalised kurtosis, target language against the largest other.

    Parameters
    ----------
    normalised : language -> scores of `crane_core.selection.normalise`.
    target : the target language.
    threshold : where the dashed lines are; the selected region, lower right, is shaded.
    site : which site to show of projection scores.

    One panel per layer, all on one scale (linear near zero, logarithmic beyond 3). Neurons without
    a score are left out. Raises ValueError for an unknown language or site.
    """
    axis_x, axis_y = (
        {"intermediate": scores} if isinstance(scores, Tensor) else scores
        for scores in margins(normalised, target)
    )
    if site not in axis_x:
        raise ValueError(f"no scores for site {site!r}: there are {list(axis_x)}")
    x_all, y_all = axis_x[site].numpy(), axis_y[site].numpy()
    layers = len(x_all)
    columns = min(layers, 5 if layers <= 10 else 8)
    rows = math.ceil(layers / columns)
    side = 1.95 if columns <= 5 else 1.35
    figure = Figure(
        figsize=(side * columns + 0.5, (side + 0.15) * rows + 0.6), layout="constrained"
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    low = min(np.nanmin(x_all), np.nanmin(y_all), 0.0) - 0.4
    high = max(np.nanmax(x_all), np.nanmax(y_all), threshold) * 1.25 + 0.2
    colour = language_colour(target)
    ticks = [t for t in (-10, -3, -1, 0, 1, 3, 10, 30, 100, 300) if low <= t <= high]
    for layer, axes in enumerate(grid.flat):
        if layer >= layers:
            axes.axis("off")
            continue
        x, y = x_all[layer], y_all[layer]
        chosen = (x > threshold) & (y <= threshold)
        rest = ~chosen & ~np.isnan(x) & ~np.isnan(y)
        axes.set_xscale("symlog", linthresh=3, linscale=1.5)
        axes.set_yscale("symlog", linthresh=3, linscale=1.5)
        axes.set(xlim=(low, high), ylim=(low, high))
        axes.add_patch(
            Rectangle(
                (threshold, low), high - threshold, threshold - low, facecolor=colour, alpha=0.12
            )
        )
        for line in (axes.axvline, axes.axhline):
            line(threshold, color=INK, linestyle=(0, (4, 3)), linewidth=0.8)
        points = {"s": 5, "linewidths": 0, "rasterized": True}
        axes.scatter(x[rest], y[rest], color=QUIET, alpha=0.5, **points)
        axes.scatter(x[chosen], y[chosen], color=colour, **points)
        axes.set_title(f"layer {layer}: {int(chosen.sum())} of {len(x)}", fontsize=8.5)
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.set_yticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.tick_params(labelsize=7.5)
        axes.set_box_aspect(1)
    figure.supxlabel(f"normalised kurtosis, target language {target}", fontsize=9)
    figure.supylabel("maximum of the other languages", fontsize=9)
    return figure


def _score_columns(table: pd.DataFrame, languages: Sequence[str] | None) -> list[str]:
    if languages is None:
        known = [c for c in table.columns if c in LANGUAGE_COLOURS]
        end = list(table.columns).index("langspec_f1") if "langspec_f1" in table else 0
        between = [
            c for c in table.columns[:end] if c not in ("method", "mask_language", "n_neurons")
        ]
        languages = between or known
    needed = ["method", "mask_language", *languages, "langspec_f1"]
    if missing := [column for column in needed if column not in table]:
        raise ValueError(f"the results table lacks {missing}: it has {list(table.columns)}")
    if table.iloc[0]["method"] != "Org":
        raise ValueError("the results table must start with the row Org, the unmasked scores")
    return list(languages)


@_styled
def fig4_heatmap(
    table: pd.DataFrame,
    languages: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    unit: str = "accuracy",
    title: str = "",
    reach: float | None = None,
) -> Figure:
    """Figure 4: drops per benchmark under each mask, with LangSpec-F1 as bars.

    Parameters
    ----------
    table : results with the columns method, mask_language, the scores and langspec_f1, row Org
        first; n_neurons is shown if present, langspec_f1_low and _high are drawn as an interval.
    languages : the score columns; by default those between mask_language and langspec_f1.
    labels : language -> name of its benchmark.
    unit : what the scores are, for the axis.
    reach : the drop at the end of the colours, by default the largest there is; the same for
        figures that stand side by side, so that noise in one does not look like effects in another.

    The masked language's own column is outlined. Raises ValueError if columns or Org are missing.
    """
    languages = _score_columns(table, languages)
    original = table.iloc[0][languages].astype(float).to_numpy()
    rows = table.iloc[1:]
    drops = original - rows[languages].astype(float).to_numpy()
    names = [f"{a} · {b}" for a, b in zip(rows["method"], rows["mask_language"], strict=True)]
    if "n_neurons" in rows:
        names = [f"{x}  (n = {int(n):,})" for x, n in zip(names, rows["n_neurons"], strict=True)]
    figure = Figure(
        figsize=(3.4 + 1.15 * len(languages) + 2.4, 1.3 + 0.36 * len(rows)), layout="constrained"
    )
    heat, bars = figure.subplots(
        1, 2, sharey=True, gridspec_kw={"width_ratios": [1.15 * len(languages), 2.4]}
    )
    reach = reach or float(np.nanmax(np.abs(drops))) or 1.0
    image = _heatmap(
        heat,
        drops,
        Normalize(-reach, reach),
        names,
        [(labels or {}).get(language, language) for language in languages],
        ".3f" if reach < 2 else ".2f",
        SIGNED,
    )
    for i, language in enumerate(rows["mask_language"]):
        if language in languages:
            heat.add_patch(
                Rectangle(
                    (languages.index(language) - 0.49, i - 0.46),
                    0.98,
                    0.92,
                    fill=False,
                    ec=INK,
                    lw=1.6,
                )
            )
    figure.colorbar(
        image,
        ax=heat,
        location="bottom",
        shrink=0.8,
        aspect=30,
        label=f"drop in {unit} (Org − masked)",
    )
    f1 = rows["langspec_f1"].astype(float).to_numpy()
    colours = [language_colour(str(x), i) for i, x in enumerate(rows["mask_language"])]
    bars.barh(np.arange(len(rows)), f1, color=colours, height=0.62)
    ends = f1.copy()
    if {"langspec_f1_low", "langspec_f1_high"} <= set(rows.columns):
        low, high = (rows[f"langspec_f1_{x}"].astype(float).to_numpy() for x in ("low", "high"))
        bars.hlines(np.arange(len(rows)), low, high, color=INK, linewidth=1.2)
        ends = np.fmax(ends, high)
    for i, value in enumerate(f1):
        bars.text(ends[i], i, f" {value:.3f}", va="center", fontsize=8)
    bars.set(xlabel="LangSpec-F1", xlim=(0, max(0.1, float(np.nanmax(ends))) * 1.3))
    bars.tick_params(left=False, labelleft=False)
    groups = rows["method"].to_numpy()
    for i in range(1, len(rows)):
        if groups[i] != groups[i - 1]:
            for axes in (heat, bars):
                axes.axhline(i - 0.5, color=INK, linewidth=0.8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


@_styled
def fig5_transfer() -> Figure:
    """Figure 5: neurons found on the base model are masked on the chat model, drawn by us."""
    figure = Figure(figsize=(9.6, 3.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 96), ylim=(0, 35))
    axes.axis("off")
    chosen = {(0, 2), (0, 5), (1, 1), (2, 4), (2, 6), (3, 3)}

    def panel(left: float, width: float, colour: str, title: str, note: str) -> None:
        axes.add_patch(Rectangle((left, 4), width, 29, facecolor=mpl.colors.to_rgba(colour, 0.08)))
        axes.text(left + 1.4, 31, title, color=colour, weight="bold", va="center")
        axes.text(left + width / 2, 1.9, note, ha="center", va="center", fontsize=8.5)

    def neurons(left: float, colour: str, off: bool) -> None:
        for layer, unit in np.ndindex(4, 8):
            x, y = left + 2.9 * unit, 10.5 + 5 * layer
            mine = (layer, unit) in chosen
            face = colour if mine and not off else "white"
            axes.add_patch(
                Circle((x, y), 1.15, facecolor=face, edgecolor=colour if mine else QUIET)
            )
            if mine and off:
                axes.plot([x - 0.8, x + 0.8], [y - 0.8, y + 0.8], color=colour, lw=1.6)
                axes.plot([x - 0.8, x + 0.8], [y + 0.8, y - 0.8], color=colour, lw=1.6)
        axes.text(left + 10.1, 6.6, "MLP neurons, layer by layer", ha="center", fontsize=8)

    panel(2, 40, BLUE, "Base model", "relevance, kurtosis, selection: here and only here")
    neurons(5, BLUE, off=False)
    for y, text in (
        (25, "text in each\nlanguage"),
        (18, "kurtosis of\nrelevance"),
        (11, "set for one\nlanguage"),
    ):
        axes.text(35.5, y, text, ha="center", va="center", fontsize=8.5)
    for y in (22, 15):
        _arrow(axes, [(35.5, y + 0.6), (35.5, y - 1.4)])
    panel(54, 40, VERMILION, "Chat model", "same positions masked, no search of its own")
    neurons(57, VERMILION, off=True)
    for y, text in ((25, "set outputs\nto zero"), (18, "ask and\nevaluate"), (11, "LangSpec-F1")):
        axes.text(87.5, y, text, ha="center", va="center", fontsize=8.5)
    for y in (22, 15):
        _arrow(axes, [(87.5, y + 0.6), (87.5, y - 1.4)])
    _arrow(axes, [(42.6, 17), (53.4, 17)])
    axes.text(48, 20.6, "the same\nindices", ha="center", va="center", fontsize=8.5)
    axes.text(48, 13.2, "(layer,\nneuron)", ha="center", va="center", fontsize=8)
    return figure


@_styled
def fig6_transfer(
    table: pd.DataFrame,
    languages: Sequence[str],
    labels: Mapping[str, str] | None = None,
    ylabel: str = "accuracy",
    title: str = "",
    floor: float | None = None,
) -> Figure:
    """Figure 6: each target language's own score under its masks, base model against chat model.

    Parameters
    ----------
    table : as Table 3: `method`, `mask_language`, and `base_<language>` and `chat_<language>`, with
        `_low` and `_high` if there are intervals; row Org first.
    languages : the languages, one panel each.
    labels : language -> name of its benchmark.
    ylabel : what the scores are.
    floor : the score that guessing gives, as a dotted line.

    Raises ValueError if a column is missing or the first row is not Org.
    """
    needed = ["method", "mask_language"]
    needed += [f"{model}_{x}" for x in languages for model in ("base", "chat")]
    if lacking := [name for name in needed if name not in table]:
        raise ValueError(f"the table lacks {', '.join(lacking)}: it has {list(table.columns)}")
    if table.iloc[0]["method"] != "Org":
        raise ValueError("the table's first row is not Org, the unmasked model")
    figure = Figure(figsize=(1.2 + 2.6 * len(languages), 3.4), layout="constrained")
    grid = figure.subplots(1, len(languages), sharey=True, squeeze=False)
    for axes, language in zip(grid.flat, languages, strict=True):
        rows = table[(table["mask_language"] == language) | (table["method"] == "Org")]
        names = rows["method"].to_list()
        for model, colour, marker, shift in (
            ("base", BLUE, "o", -0.13),
            ("chat", ORANGE, "s", 0.13),
        ):
            x = np.arange(len(rows)) + shift
            column = f"{model}_{language}"
            values = rows[column].astype(float).to_numpy()
            axes.axhline(values[0], color=colour, linewidth=0.9, linestyle="--", alpha=0.7)
            if f"{column}_low" in rows:
                low, high = (rows[f"{column}_{end}"].astype(float) for end in ("low", "high"))
                axes.vlines(x, low, high, color=colour, linewidth=1.4)
            axes.scatter(x, values, s=34, color=colour, marker=marker, label=model, zorder=3)
        if floor is not None:
            axes.axhline(floor, color=QUIET, linewidth=1, linestyle=":")
        axes.set_xticks(range(len(rows)), names, rotation=35, ha="right")
        axes.set(title=(labels or {}).get(language, language), xlim=(-0.5, len(rows) - 0.5))
        axes.tick_params(axis="x", length=0)
    grid.flat[0].set_ylabel(ylabel)
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, x=0.02, ha="left")
    return figure


# --- sets and read-outs -----------------------------------------------------------------------


def _ink_on(ground: Sequence[float]) -> str:
    """Dark or white text, whichever has the higher contrast (WCAG) on a colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    return "white" if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.22 else INK


def _heatmap(
    axes: Axes,
    values: np.ndarray[Any, Any],
    norm: Normalize,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str,
    colours: str,
    texts: Sequence[Sequence[str]] | None = None,
) -> Any:
    """A heatmap with its values written in the cells; NaN cells stay empty."""
    image = axes.imshow(values, cmap=colours, norm=norm, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, j in np.argwhere(np.isfinite(values)):
        text = format(values[i, j], form) if texts is None else texts[i][j]
        colour = _ink_on(image.cmap(norm(values[i, j])))
        axes.text(
            j, i, text.replace("-", "−"), ha="center", va="center", fontsize=8.5, color=colour
        )
    return image


@_styled
def overlap_heatmap(sets: Mapping[str, NeuronSet], title: str = "") -> Figure:
    """How many neurons the languages' sets share, beside what chance would give.

    Cells show the shared neurons and, off the diagonal, their ratio to the number expected of
    random sets with the same counts per layer (`crane_core.selection.overlap`); the colour is the
    Jaccard index.
    """
    names = list(sets)
    results = [[overlap(sets[a], sets[b]) for b in names] for a in names]
    values = np.array([[result.jaccard for result in row] for row in results])
    texts = [
        [
            f"{r.shared:,}"
            if i == j or not r.expected_within_layers
            else f"{r.shared:,}\n{r.shared / r.expected_within_layers:.1f} × chance"
            for j, r in enumerate(row)
        ]
        for i, row in enumerate(results)
    ]
    figure = Figure(figsize=(1.3 * len(names) + 1.8, 1.0 * len(names) + 0.9), layout="constrained")
    axes = figure.subplots()
    image = _heatmap(axes, values, Normalize(0, 1), names, names, "", "viridis", texts)
    figure.colorbar(image, ax=axes, label="Jaccard index (shared / in either)")
    axes.set_title(title or "neurons shared by two languages' sets")
    return figure


@_styled
def layer_counts(sets: Mapping[str, NeuronSet], site: str | None = None, title: str = "") -> Figure:
    """Bars of how many neurons of each set lie in each layer, of one site or of all together."""
    counts = {name: neurons.counts(site).numpy() for name, neurons in sets.items()}
    layers = len(next(iter(counts.values())))
    figure = Figure(figsize=(min(10.0, 3.2 + 0.55 * layers), 2.9), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(counts)
    for i, (name, values) in enumerate(counts.items()):
        offset = (i - (len(counts) - 1) / 2) * width
        axes.bar(
            np.arange(layers) + offset,
            values,
            width,
            color=language_colour(name, i),
            label=f"{name} ({values.sum():,})",
        )
    axes.set(xlabel="layer", ylabel="neurons in the set", title=title)
    axes.set_xticks(range(0, layers, 1 if layers <= 16 else 4))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@_styled
def matrix_heatmap(
    matrix: pd.DataFrame,
    label: str = "perplexity, masked / unmasked",
    row_label: str = "language whose neurons are masked",
    column_label: str = "language of the text",
    title: str = "",
) -> Figure:
    """A language × language matrix of positive ratios, coloured logarithmically around 1.

    `matrix` has the masked language (or method and language) as index and the language evaluated
    as columns. Raises ValueError for a value that is not positive.
    """
    values = matrix.to_numpy(dtype=np.float64)
    if (values <= 0).any():
        raise ValueError("the matrix holds values that are not positive: expected ratios")
    reach = max(float(np.nanmax(np.abs(np.log(values)))), math.log(1.1))
    figure = Figure(
        figsize=(1.1 * len(matrix.columns) + 2.9, 0.55 * len(matrix) + 1.3), layout="constrained"
    )
    axes = figure.subplots()
    image = _heatmap(
        axes,
        values,
        LogNorm(math.exp(-reach), math.exp(reach)),
        [str(name) for name in matrix.index],
        [str(name) for name in matrix.columns],
        ".2f",
        SIGNED,
    )
    axes.set(xlabel=column_label, ylabel=row_label, title=title)
    bar = figure.colorbar(image, ax=axes, label=label)
    ticks = np.exp(np.linspace(-reach, reach, 5))
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:.3g}" for tick in ticks])
    bar.minorticks_off()
    return figure


@_styled
def margin_histogram(
    items: Mapping[str, ArrayLike], label: str = "margin in nats", title: str = ""
) -> Figure:
    """Histograms of item margins, one panel each: score of the gold option minus the best other.

    An item right of the dashed line is answered correctly; the share of them is written above.
    """
    values = {name: np.asarray(x, dtype=np.float64) for name, x in items.items()}
    columns = min(3, len(values))
    rows = math.ceil(len(values) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.0 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    every = np.concatenate(list(values.values()))
    bins = np.linspace(every.min(), every.max(), 41)
    for axes in grid.flat[len(values) :]:
        axes.axis("off")
    for i, (axes, (name, margin)) in enumerate(zip(grid.flat, values.items(), strict=False)):
        language = next((x for x in LANGUAGE_COLOURS if name == x or name.endswith(f"_{x}")), name)
        axes.hist(margin, bins, color=language_colour(language, i))
        axes.axvline(0, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        axes.set_title(f"{name}: {(margin > 0).mean():.0%} right", fontsize=9)
    figure.supxlabel(label, fontsize=9)
    figure.supylabel("items", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


@_styled
def token_heatmap(
    texts: Mapping[str, tuple[Sequence[str], ArrayLike]],
    label: str = "relevance (share of the text's largest)",
    width: float = 8.4,
) -> Figure:
    """Texts with each token on a ground of its signed relevance, wrapped to the figure's width.

    Parameters
    ----------
    texts : heading, such as a language -> (tokens as readable strings, relevance of each in any
        unit). Colours are relative to the largest absolute value of each text.
    width : of the figure in inches.

    Raises ValueError if tokens and relevance differ in number.
    """
    size, line = 10.5, 0.30
    left, right = 0.15, width - 0.15
    norm = Normalize(-1, 1)
    colours = mpl.colormaps[SIGNED]
    # Placed on a first canvas, because the height follows from where the lines break.
    ruler = FigureCanvasAgg(Figure(dpi=100)).get_renderer()
    properties = font_manager.FontProperties(size=size)
    boxes: list[tuple[float, float, float, str, float]] = []
    headings: list[tuple[float, str]] = []
    y = 0.1
    for heading, (tokens, relevance) in texts.items():
        values = np.asarray(relevance, dtype=np.float64)
        if values.shape != (len(tokens),):
            raise ValueError(f"{heading!r} has {len(tokens)} tokens, relevance {values.shape}")
        headings.append((y, heading))
        y += line
        x = left
        for token, value in zip(tokens, values / (np.abs(values).max() or 1.0), strict=True):
            shown = token.replace("\n", "⏎")
            # A space at either end has no ink of its own, so it is measured as a letter.
            inked = shown.replace(" ", "n")
            pixels = ruler.get_text_width_height_descent(inked, properties, ismath=False)[0]
            extent = pixels / 100 + 0.06
            if x > left and x + extent > right:
                x, y = left, y + line
            boxes.append((x, y, extent, shown, float(value)))
            x += extent
        y += line + 0.12
    height = y + 0.75
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for y, heading in headings:
        axes.text(left, y + line / 2, heading, va="center", weight="bold")
    for x, y, extent, shown, value in boxes:
        colour = colours(norm(value))
        axes.add_patch(
            Rectangle((x, y + 0.02), extent, line - 0.04, facecolor=colour, ec=PAPER, lw=0.8)
        )
        axes.text(
            x + extent / 2, y + line / 2, shown, ha="center", va="center", fontsize=size,
            color=_ink_on(colour), parse_math=False,
        )  # fmt: skip
    scale = figure.add_axes((0.3, 0.42 / height, 0.4, 0.1 / height))
    mappable = mpl.cm.ScalarMappable(norm, SIGNED)
    figure.colorbar(mappable, cax=scale, orientation="horizontal", label=label)
    return figure


@_styled
def next_token_bars(
    before: Mapping[str, float],
    after: Mapping[str, float],
    labels: tuple[str, str] = ("unmasked", "masked"),
    title: str = "",
) -> Figure:
    """Probabilities of some next tokens before and after a mask, as paired horizontal bars.

    `before` and `after` map a readable token to its probability; tokens of either are shown, one
    that is missing in one of them as 0.
    """
    tokens = list(dict.fromkeys([*before, *after]))
    figure = Figure(figsize=(6.0, 0.9 + 0.38 * len(tokens)), layout="constrained")
    axes = figure.subplots()
    for i, (label, values) in enumerate(zip(labels, (before, after), strict=True)):
        axes.barh(
            np.arange(len(tokens)) + (i - 0.5) * 0.38,
            [values.get(token, 0.0) for token in tokens],
            0.36,
            color=(QUIET, VERMILION)[i],
            label=label,
        )
    axes.set_yticks(range(len(tokens)), tokens, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="probability of the next token", title=title)
    axes.legend(loc="lower right")
    return figure


@_styled
def curves(
    lines: Mapping[
        str, tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]
    ],
    xlabel: str,
    ylabel: str,
    title: str = "",
    level: float | None = None,
    level_label: str = "chance",
) -> Figure:
    """Curves such as losses over training or scores over mask sizes, with bands if given.

    Parameters
    ----------
    lines : name -> (x, y) or (x, y, low, high); the band lies between low and high.
    xlabel, ylabel : axis labels with units.
    level, level_label : a horizontal dashed line and its name.
    """
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    axes = figure.subplots()
    marks = ("o", "s", "^", "D", "v", "P")
    for i, (name, line) in enumerate(lines.items()):
        x, y = line[0], line[1]
        language = next((k for k in LANGUAGE_COLOURS if name == k or name.endswith(f"_{k}")), name)
        colour = language_colour(language, i)
        few = len(np.asarray(x)) <= 20
        repeats = sum(used.get_color() == colour for used in axes.lines)
        axes.plot(
            x, y, color=colour, label=name, marker=marks[i % 6] if few else None, markersize=4,
            linestyle=("-", (0, (5, 2)), ":")[repeats % 3],
            linewidth=1.6,
        )  # fmt: skip
        if len(line) == 4:
            axes.fill_between(x, line[2], line[3], color=colour, alpha=0.15, linewidth=0)
    if level is not None:
        axes.axhline(level, color=INK, linestyle=(0, (4, 3)), linewidth=0.9, label=level_label)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@_styled
def dot_ranges(
    panels: Mapping[str, pd.DataFrame],
    zero: Sequence[str] = (),
    reference_label: str = "by chance",
    title: str = "",
) -> Figure:
    """Dots with ranges, one row for each thing compared and one panel for each measure.

    Parameters
    ----------
    panels : name of a measure with its unit -> table with columns `row`, `series` (such as a
        language), `value`, and optionally `low` and `high` (a range around the value) and
        `reference` (a level to hold the value against, drawn as a tick). Rows are those of all
        panels, in the order they first appear. NaN is left out.
    zero : panels with a line at 0.
    reference_label : what the ticks are, for the legend.
    """
    every = pd.concat(panels.values())
    rows, series = list(dict.fromkeys(every["row"])), list(dict.fromkeys(every["series"]))
    step = 0.68 / max(len(series), 1)
    height = 1.25 + len(rows) * max(0.3, 0.13 * len(series))
    figure = Figure(figsize=(1.9 + 1.85 * len(panels), height), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    marks = ("o", "s", "^", "D", "v", "P")
    ticked = False
    for axes, (name, table) in zip(grid.flat, panels.items(), strict=True):
        for y in range(1, len(rows), 2):
            axes.axhspan(y - 0.5, y + 0.5, color=QUIET, alpha=0.08, linewidth=0)
        for i, one in enumerate(series):
            own = table[table["series"] == one]
            places = np.array([rows.index(row) for row in own["row"]], dtype=float)
            places += (i - (len(series) - 1) / 2) * step
            colour = language_colour(str(one), i)
            if "low" in own:
                axes.hlines(places, own["low"], own["high"], color=colour, linewidth=1.4)
            axes.scatter(
                own["value"],
                places,
                s=22,
                marker=marks[i % 6],
                color=colour,
                linewidths=0,
                zorder=3,
            )
            if "reference" in own:
                ticked = ticked or bool(own["reference"].notna().any())
                axes.scatter(own["reference"], places, s=40, marker="|", color=INK, linewidths=1.0)
        if name in zero:
            axes.axvline(0, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        axes.set_xlabel(name)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color=QUIET, alpha=0.3, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    grid.flat[0].set_yticks(range(len(rows)), [str(row) for row in rows])
    grid.flat[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker=marks[i % 6], linestyle="", color=language_colour(str(one), i))
        for i, one in enumerate(series)
    ]
    labels = [str(one) for one in series]
    if ticked:
        handles.append(Line2D([], [], marker="|", linestyle="", color=INK, markersize=8))
        labels.append(reference_label)
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


@_styled
def correlation_heatmap(matrix: pd.DataFrame, title: str = "") -> Figure:
    """A square table of correlations as numbers on a colour scale from -1 to 1.

    Raises ValueError if a value lies outside -1 to 1.
    """
    values = matrix.to_numpy(dtype=np.float64)
    if (np.abs(values) > 1 + 1e-9).any():
        raise ValueError("the matrix holds values outside -1 to 1: expected correlations")
    size = len(matrix)
    figure = Figure(figsize=(0.62 * size + 2.9, 0.42 * size + 2.1), layout="constrained")
    axes = figure.subplots()
    rows, columns = ([str(x) for x in axis] for axis in (matrix.index, matrix.columns))
    image = _heatmap(axes, values, Normalize(-1, 1), rows, columns, ".2f", SIGNED)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="rank correlation")
    return figure


def readable_tokens(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int] | Tensor, values: ArrayLike | None = None
) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Tokens as readable strings, for labels and for `token_heatmap`.

    A byte-level tokenizer may cut a character in two; tokens that only together make a character
    become one piece.

    Parameters
    ----------
    ids : token ids (tokens,).
    values : one number per token, added up within a piece; by default 1, so that a piece gets its
        number of tokens.

    Returns the pieces and their values. Raises ValueError if tokens and values differ in number.
    """
    tokens = [int(token) for token in ids]
    numbers = np.ones(len(tokens)) if values is None else np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(tokens),):
        raise ValueError(f"{len(tokens)} tokens, but values {numbers.shape}: one each is needed")
    pieces: list[str] = []
    sums: list[float] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        piece = tokenizer.decode(tokens[start:end], clean_up_tokenization_spaces=False)
        if "\ufffd" in piece and end < len(tokens):
            continue  # half a character
        pieces.append(piece)
        sums.append(float(numbers[start:end].sum()))
        start = end
    return pieces, np.array(sums)


@_styled
def scatter(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    titles: Mapping[str, str] | None = None,
    log: bool = True,
) -> Figure:
    """Clouds of points on common axes, one panel each; a point with a NaN is left out.

    Parameters
    ----------
    panels : name, such as a language -> (x, y), both (points,); above 0 if `log`.
    xlabel, ylabel : axis labels with units.
    titles : name -> title of its panel, by default the name.
    log : logarithmic axes.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.7 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for i, (axes, (name, (x, y))) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        if log:
            axes.set(xscale="log", yscale="log")
        points = {"s": 6, "linewidths": 0, "alpha": 0.5, "rasterized": True}
        axes.scatter(np.asarray(x), np.asarray(y), color=language_colour(name, i), **points)
        axes.set_title((titles or {}).get(name, name), fontsize=9)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return figure


@_styled
def dots(
    table: pd.DataFrame,
    xlabel: str,
    panels: str = "truth",
    rows: str = "criterion",
    series: str = "language",
    value: str = "rho",
    order: Sequence[str] | None = None,
    markers: Mapping[str, Mapping[str, float]] | None = None,
    marker_label: str = "",
    level: float | None = 0.0,
    names: Mapping[str, str] | None = None,
) -> Figure:
    """Estimates with their intervals, a row of dots per name, one panel for each kind.

    Parameters
    ----------
    table : one row per panel, row and series, with columns `panels`, `rows`, `series`, `value`,
        `low` and `high` (NaN: no interval is drawn).
    order : the rows from top to bottom, by default as they come.
    markers, marker_label : panel -> series -> a value to be marked by a dotted line, and what.
    level : a vertical dashed line.
    names : what a series is called in the legend.
    """
    kinds, labels = list(dict.fromkeys(table[panels])), list(order or dict.fromkeys(table[rows]))
    lines = list(dict.fromkeys(table[series]))
    height = 0.9 + 0.075 * len(labels) * (len(lines) + 1.5)
    figure = Figure(figsize=(2.2 + 3.5 * len(kinds), height), layout="constrained")
    grid = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    shapes = ("o", "s", "^", "D", "v", "P")
    for axes, kind in zip(grid, kinds, strict=True):
        for y in range(0, len(labels), 2):
            axes.axhspan(y - 0.5, y + 0.5, color=QUIET, alpha=0.08, linewidth=0)
        if level is not None:
            axes.axvline(level, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        for i, line in enumerate(lines):
            own = table[(table[panels] == kind) & (table[series] == line)].set_index(rows)
            own = own.loc[[label for label in labels if label in own.index]]
            colour = language_colour(line, i) if line in LANGUAGE_COLOURS else INK
            places = np.array([labels.index(label) for label in own.index], dtype=np.float64)
            places += (i - (len(lines) - 1) / 2) * 0.8 / len(lines)
            axes.hlines(places, own["low"], own["high"], color=colour, linewidth=1.3, alpha=0.6)
            axes.plot(
                own[value], places, shapes[i % 6], color=colour, markersize=4,
                label=(names or {}).get(line, line),
            )  # fmt: skip
            mark = (markers or {}).get(kind, {}).get(line)
            if mark is not None:
                axes.axvline(mark, color=colour, linestyle=":", linewidth=1.1)
        axes.set_title(kind)
        axes.set_xlabel(xlabel)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(axis="x", color=QUIET, alpha=0.3, linewidth=0.6)
    if markers:
        grid[-1].plot([], [], ":", color=INK, linewidth=1.1, label=marker_label)
    grid[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@_styled
def budget_curves(
    panels: Mapping[str, Mapping[str, Sequence[ArrayLike]]],
    ylabel: str,
    xlabel: str = "neurons masked",
    level: float | None = 0.0,
    highlighted: Sequence[str] = (),
    scale: str = "linear",
) -> Figure:
    """Curves over growing sets, one panel each on common axes, budgets on a logarithmic axis.

    Parameters
    ----------
    panels : title -> curve name -> (budgets, values) or (budgets, values, low, high). A name has
        the same colour and mark in all panels.
    highlighted : curves drawn in colour; the others are grey lines under one legend entry. By
        default all are in colour.
    level : a horizontal dashed line.
    scale : of the vertical axis, as matplotlib names it ("linear", "log", "symlog").
    """
    figure = Figure(figsize=(3.1 * len(panels) + 1.6, 3.4), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    shown = [name for name in names if not highlighted or name in highlighted]
    marks = ("o", "s", "^", "D", "v", "P", "X", "*")
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        if level is not None:
            axes.axhline(level, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
        for name in sorted(curves, key=lambda name: name in shown):
            x, y, *band = (np.asarray(v, dtype=np.float64) for v in curves[name])
            if name not in shown:
                axes.plot(x, y, color=QUIET, linewidth=0.8, alpha=0.8)
                continue
            i = shown.index(name)
            colour = INK if name.startswith("random") else CYCLE[i % len(CYCLE)]
            axes.plot(
                x, y, color=colour, marker=marks[i % 8], markersize=4, linewidth=1.6, label=name,
                linestyle=("-", (0, (5, 2)))[i // len(CYCLE) % 2],
            )  # fmt: skip
            if band:
                axes.fill_between(x, band[0], band[1], color=colour, alpha=0.15, linewidth=0)
        budgets = sorted({float(b) for curve in curves.values() for b in np.asarray(curve[0])})
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, [f"{b:g}" for b in budgets])
        if scale == "symlog":
            axes.set_yscale(scale, linthresh=0.1)
            axes.set_yticks(ticks := [-3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3], map(str, ticks))
            axes.minorticks_off()
        else:
            axes.set_yscale(scale)
        axes.set_title(title)
    if scale == "symlog":  # ticks widen the axis beyond the curves
        values = [np.asarray(v) for c in panels.values() for curve in c.values() for v in curve[1:]]
        low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
        grid[0].set_ylim(min(low * 1.2, -0.02), max(high * 1.2, 0.02))
    grid[0].set_ylabel(ylabel)
    figure.supxlabel(xlabel, fontsize=9)
    if len(shown) < len(names):
        grid[-1].plot([], [], color=QUIET, linewidth=0.8, label="other criteria")
    grid[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def table(frame: pd.DataFrame, caption: str, formats: dict[Any, Any] | str | None = None) -> Styler:
    """A table for a page: captioned, without its index, numbers written as `formats` says.

    `formats` is what pandas' `Styler.format` takes; NaN becomes a dash. The same frame gives the
    same HTML, which pandas by itself does not promise.
    """
    name = hashlib.sha256((caption + frame.to_csv()).encode()).hexdigest()[:8]
    styled = frame.style.format(formats, na_rep="–").hide(axis="index").set_caption(caption)
    return styled.set_uuid(name)


@_styled
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
    figure = Figure(figsize=(across * len(sizes) - 0.6, height + 0.4), layout="constrained")
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
                x0 + t * (x1 - x0), y0 + t * (y1 - y0), f"{weight:g}".replace("-", "−"),
                ha="center", va="center", fontsize=8, bbox={"fc": PAPER, "ec": "none", "pad": 1},
            )  # fmt: skip
    reach = max(abs(relevance) for layer in layers for _, relevance in layer.values()) or 1.0
    norm, colours = Normalize(-reach, reach), mpl.colormaps[SIGNED]
    for layer, row_of in zip(layers, places, strict=True):
        for (name, (activation, relevance)), (x, y) in zip(layer.items(), row_of, strict=True):
            face = colours(norm(relevance))
            axes.add_patch(Circle((x, y), radius, facecolor=face, edgecolor=INK, zorder=2))
            axes.text(
                x, y, f"{activation:g}".replace("-", "−"), ha="center", va="center",
                color=_ink_on(face), weight="bold", zorder=3,
            )  # fmt: skip
            label = f"{name}, R = {relevance:g}".replace("-", "−")
            axes.text(x, y - radius - 0.16, label, ha="center", va="center", fontsize=8.5)
    axes.set(
        xlim=(-0.7, across * (len(sizes) - 1) + 0.7), ylim=(-0.1, height + 0.1), title=title,
        aspect="equal",
    )  # fmt: skip
    axes.axis("off")
    return figure


# --- what masks do ----------------------------------------------------------------------------


@_styled
def f1_strip(
    random: Mapping[str, ArrayLike],
    marks: Mapping[str, Mapping[str, float]],
    title: str = "",
) -> Figure:
    """LangSpec-F1 of random masks, a dot each, with other methods' values marked beside them.

    Parameters
    ----------
    random : row, such as a masked language -> LangSpec-F1 of each random mask; may be empty.
    marks : method -> row -> its LangSpec-F1.
    """
    rows = list(random)
    figure = Figure(figsize=(7.2, 1.1 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, values in enumerate(random.values()):
        values = np.asarray(values, dtype=np.float64)
        axes.scatter(
            values, np.full(len(values), y), s=26, color=QUIET, alpha=0.8, linewidths=0,
            label="random mask" if y == 0 else None,
        )  # fmt: skip
    shapes = ("D", "s", "^", "v", "P")
    for i, (name, values_by_row) in enumerate(marks.items()):
        known = [row for row in rows if row in values_by_row]
        axes.scatter(
            [values_by_row[row] for row in known], [rows.index(row) - 0.22 for row in known],
            s=34, marker=shapes[i % 5], color=CYCLE[i % len(CYCLE)], linewidths=0, label=name,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="LangSpec-F1", ylim=(len(rows) - 0.5, -0.6), xlim=(-0.02, None), title=title)
    axes.grid(axis="x", color=QUIET, alpha=0.3, linewidth=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@_styled
def stacked_bars(
    panels: Mapping[str, pd.DataFrame], xlabel: str = "share of the answers", title: str = ""
) -> Figure:
    """Shares as stacked horizontal bars, one panel for each table.

    Parameters
    ----------
    panels : name, such as a language -> table with a row for each bar and a column for each part;
        the same rows and columns in every panel.

    Raises ValueError if the panels differ in rows or columns.
    """
    first = next(iter(panels.values()))
    for name, shares in panels.items():
        if list(shares.columns) != list(first.columns) or list(shares.index) != list(first.index):
            raise ValueError(f"panel {name!r} has other rows or columns than the first one")
    figure = Figure(
        figsize=(1.6 + 2.3 * len(panels), 1.5 + 0.24 * len(first)), layout="constrained"
    )
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    colours = (BLUE, ORANGE, SKY, VERMILION, QUIET, GREEN, PINK)
    for axes, (name, shares) in zip(grid.flat, panels.items(), strict=True):
        left = np.zeros(len(shares))
        for i, part in enumerate(shares.columns):
            values = shares[part].to_numpy(dtype=np.float64)
            axes.barh(
                np.arange(len(shares)), values, 0.78, left=left, color=colours[i % 7], label=part
            )
            left += values
        axes.set_yticks(range(len(shares)), [str(row) for row in shares.index])
        axes.set(title=name, xlim=(0, 1))
        axes.tick_params(axis="y", length=0)
    grid.flat[0].invert_yaxis()
    figure.supxlabel(xlabel, fontsize=9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


@_styled
def shares_heatmap(panels: Mapping[str, pd.DataFrame], xlabel: str = "", title: str = "") -> Figure:
    """Shares as numbers on a colour scale from 0 to 1, one panel for each table.

    Parameters
    ----------
    panels : name -> table of shares; the same rows in every panel.

    Raises ValueError if the panels differ in rows or a share is not between 0 and 1.
    """
    first = next(iter(panels.values()))
    columns = sum(shares.shape[1] for shares in panels.values())
    figure = Figure(figsize=(2.0 + 0.62 * columns, 1.2 + 0.3 * len(first)), layout="constrained")
    widths = [shares.shape[1] for shares in panels.values()]
    grid = figure.subplots(
        1, len(panels), sharey=True, squeeze=False, gridspec_kw={"width_ratios": widths}
    )
    for axes, (name, shares) in zip(grid.flat, panels.items(), strict=True):
        values = shares.to_numpy(dtype=np.float64)
        if list(shares.index) != list(first.index):
            raise ValueError(f"panel {name!r} has other rows than the first one")
        if ((values < 0) | (values > 1)).any():
            raise ValueError(f"panel {name!r} has values outside 0 to 1: expected shares")
        rows, parts = ([str(x) for x in axis] for axis in (shares.index, shares.columns))
        _heatmap(axes, values, Normalize(0, 1), rows, parts, ".2f", "viridis")
        axes.set_title(name)
    figure.supxlabel(xlabel, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
