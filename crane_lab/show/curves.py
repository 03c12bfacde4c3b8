"""Lines over a quantity, with bands where intervals are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from crane_lab.show.style import (
    BESIDE,
    DASHED,
    FAINT,
    INK,
    MARKS,
    NOTE,
    QUIET,
    palette,
    panels,
    plain_log,
    shared_legend,
    styled,
)

#: (x, y) or (x, y, low, high); the band lies between low and high.
Line: TypeAlias = Sequence[ArrayLike]


def _table(lines: Mapping[str, Mapping[str, Line]]) -> pd.DataFrame:
    """Panel -> name -> line as one table: panel, name, x, y, low and high (NaN: no band)."""
    columns = ["x", "y", "low", "high"]
    rows = [
        pd.DataFrame(dict(zip(columns, map(np.asarray, line), strict=False)), dtype=np.float64)
        .reindex(columns=columns)
        .assign(panel=panel, name=name)
        for panel, own in lines.items()
        for name, line in own.items()
    ]
    return pd.concat(rows, ignore_index=True)


@styled
def curves(
    lines: Mapping[str, Line] | Mapping[str, Mapping[str, Line]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    level: float | None = None,
    level_label: str = "chance",
    highlighted: Sequence[str] = (),
    rest: str = "other criteria",
    marks: Mapping[str, Mapping[str, float]] | None = None,
    mark_label: str = "",
    xscale: str = "linear",
    yscale: str = "linear",
    columns: int | None = None,
) -> Figure:
    """Curves such as losses over training or damage over mask sizes, with bands if given.

    Parameters
    ----------
    lines : name -> (x, y) or (x, y, low, high), for one panel; or title of a panel -> name -> the
        same, for several on common axes. A name has the same colour and mark in all panels.
    xlabel, ylabel : axis labels with units.
    level, level_label : a horizontal dashed line and its name ("" for none).
    highlighted, rest : curves drawn in colour (default: all); the others are grey lines under one
        legend entry, and what that says.
    marks, mark_label : title of a panel -> name -> a level for a dotted line, and what it is.
    xscale, yscale : "linear", "log" or "symlog"; on a logarithmic horizontal axis the ticks are the
        values that occur, if they are few.
    columns : panels in a row, by default all of them.
    """
    several = all(isinstance(line, Mapping) for line in lines.values())
    table = _table(lines if several else {title: lines})  # type: ignore[arg-type, dict-item]
    names = list(dict.fromkeys(table["name"]))
    shown = [name for name in names if not highlighted or name in highlighted]
    colours = palette(shown)
    repeats = {
        name: [colours[x] for x in shown[:i]].count(colours[name]) for i, name in enumerate(shown)
    }
    few = table.groupby(["panel", "name"]).size().max() <= 20
    look: dict[str, Any] = {
        "hue": "name", "hue_order": shown, "palette": colours, "style": "name", "estimator": None,
        "dashes": {name: ((), (5, 2), (1, 1))[repeats[name] % 3] for name in shown},
        "markers": dict(zip(shown, MARKS * len(shown), strict=False)) if few else False,
        "markeredgewidth": 0,
    }  # fmt: skip
    size = (3.1 if several else 4.8, 3.4)
    figure, grid = panels(len(table["panel"].unique()), size, (1.6, 0), columns)
    for axes, (name, own) in zip(grid, table.groupby("panel", sort=False), strict=True):
        drawn = own[own["name"].isin(shown)]
        for _, line in own.drop(drawn.index).groupby("name", sort=False):
            axes.plot(line["x"], line["y"], color=FAINT, linewidth=0.9)
        sns.lineplot(drawn, x="x", y="y", ax=axes, **look)
        if level is not None:
            axes.axhline(level, label=level_label or None, zorder=1, **DASHED)
        for line_name, band in drawn.dropna(subset="low").groupby("name", sort=False):
            colour = colours[line_name]
            axes.fill_between(band["x"], band["low"], band["high"], color=colour, alpha=0.15, lw=0)
        for line_name, mark in (marks or {}).get(str(name), {}).items():
            axes.axhline(mark, color=colours[line_name], linestyle=":", linewidth=1.2)
        axes.set(title=name, xlabel="" if several else xlabel, ylabel=ylabel)
        _scale(axes, table, xscale, yscale)
        if axes is not grid[-1] and (legend := axes.get_legend()):
            legend.remove()
    if len(shown) < len(names):
        grid[-1].plot([], [], color=FAINT, linewidth=0.9, label=rest)
    if marks:
        grid[-1].plot([], [], color=INK, linestyle=":", linewidth=1.2, label=mark_label)
    grid[-1].legend(**BESIDE)
    if columns:
        shared_legend(figure, grid, "outside upper center")
    if several:
        figure.supxlabel(xlabel)
        figure.suptitle(title)
    return figure


def _scale(axes: Axes, table: pd.DataFrame, xscale: str, yscale: str) -> None:
    axes.set_xscale(xscale)
    values = sorted(set(table["x"]))
    if xscale == "log" and len(values) <= 12:
        axes.set_xticks(values, [f"{x:,g}" for x in values])
        axes.minorticks_off()
    elif xscale == "log":
        plain_log(axes.xaxis)
    if yscale == "symlog":
        axes.set_yscale(yscale, linthresh=0.1)
        axes.set_yticks(ticks := [-3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3], map(str, ticks))
        axes.minorticks_off()
        drawn = table[["y", "low", "high"]].to_numpy()
        low, high = np.nanmin(drawn), np.nanmax(drawn)
        axes.set_ylim(min(low * 1.2, -0.02), max(high * 1.2, 0.02))  # ticks widen the axis
    else:
        axes.set_yscale(yscale)
        if yscale == "log":
            plain_log(axes.yaxis)


@styled
def null_curves(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    sizes: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """LangSpec-F1 of masks that do nothing, against the number of items (logarithmic).

    Parameters
    ----------
    lines : name -> (items, mean, 95th percentile); the percentile is dashed.
    sizes : name -> a number of items to mark.
    """
    flipped, kinds = "outcomes that the\nmask flips by chance", ("mean", "95th percentile")
    table = pd.concat(
        [
            pd.DataFrame({"items": n, "LangSpec-F1": f1, flipped: name, "of the masks": kind})
            for name, (n, *found) in lines.items()
            for kind, f1 in zip(kinds, found, strict=True)
        ]
    )
    figure, (axes,) = panels(1, (7.0, 3.4), (0, 0))
    sns.lineplot(
        table, x="items", y="LangSpec-F1", hue=flipped, palette=palette(lines), estimator=None,
        style="of the masks", dashes=dict(zip(kinds, ((), (4, 2)), strict=True)),
        ax=axes,
    )  # fmt: skip
    top = axes.get_ylim()[1]
    for name, n in (sizes or {}).items():
        axes.axvline(n, color=QUIET, linewidth=0.8, zorder=0)
        axes.text(n, top, f" {name}", rotation=90, va="top", ha="right", fontsize=7.5, color=NOTE)
    axes.set(xscale="log", xlabel="items per language", ylim=(0, top), title=title)
    axes.set_xticks([100, 1000, 10000], ["100", "1,000", "10,000"])
    axes.minorticks_off()
    sns.move_legend(axes, **BESIDE)
    return figure


def even_damage_curves(
    shares: ArrayLike,
    lines: Mapping[str, Mapping[str, Sequence[float]]],
    marks: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Figure:
    """LangSpec-F1 of masks that hit every language alike, against how much they take.

    Parameters
    ----------
    shares : what the mask takes of each language's score above its floor.
    lines : title of a panel -> masked language -> LangSpec-F1 (shares,).
    marks : title of a panel -> masked language -> a value to draw as a dotted line.
    """
    name = "mask for {}".format
    figure = curves(
        {p: {name(x): (shares, y) for x, y in own.items()} for p, own in lines.items()},
        "share that the mask takes from every language alike",
        "LangSpec-F1",
        title,
        marks={p: {name(x): y for x, y in own.items()} for p, own in (marks or {}).items()},
        mark_label="CRANE's row",
    )
    figure.axes[0].set(xlim=(0, 1), ylim=(0, None))
    return figure
