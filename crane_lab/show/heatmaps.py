"""Tables as heatmaps, with their numbers in the cells (Figure 4 among them)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from crane_core.selection import NeuronSet, overlap
from crane_lab.show.style import INK, ORDERED, SIGNED, ink_on, minus, palette, panels, styled


def _heatmap(
    axes: Axes,
    table: pd.DataFrame,
    form: str = "",
    texts: Sequence[Sequence[str]] | None = None,
    colours: str = SIGNED,
    **settings: Any,
) -> None:
    """A heatmap with its values in `form`, or `texts`, in the cells; NaN cells stay empty.

    `settings` go to `seaborn.heatmap`: the scale (`vmin` and `vmax`, or `norm`), the colour bar.
    """
    values = table.to_numpy(dtype=np.float64)
    shown = [[minus(format(x, form)) for x in row] for row in values] if texts is None else texts
    sns.heatmap(
        values, ax=axes, cmap=colours, annot=np.array(shown), fmt="", annot_kws={"size": 8.5},
        xticklabels=[str(x) for x in table.columns], yticklabels=[str(x) for x in table.index],
        **{"cbar": False} | settings,
    )  # fmt: skip
    axes.tick_params(length=0)
    axes.tick_params(axis="y", rotation=0)
    cells = axes.collections[0]
    drawn = np.flatnonzero(np.isfinite(values))
    for text, ground in zip(axes.texts, np.asarray(cells.get_facecolor())[drawn], strict=True):
        text.set_color(ink_on(ground))


def _score_columns(table: pd.DataFrame, languages: Sequence[str] | None) -> list[str]:
    if languages is None:
        columns = list(table.columns)
        end = columns.index("langspec_f1") if "langspec_f1" in columns else 0
        languages = [c for c in columns[:end] if c not in ("method", "mask_language", "n_neurons")]
    needed = ["method", "mask_language", *languages, "langspec_f1"]
    if missing := [column for column in needed if column not in table]:
        raise ValueError(f"the results table lacks {missing}: it has {list(table.columns)}")
    if table.iloc[0]["method"] != "Org":
        raise ValueError("the results table must start with the row Org, the unmasked scores")
    return list(languages)


@styled
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
    rows = table.iloc[1:]
    drops = table.iloc[0][languages].astype(float) - rows[languages].astype(float)
    names = rows["method"] + " · " + rows["mask_language"]
    if "n_neurons" in rows:
        names += rows["n_neurons"].map("  (n = {:,.0f})".format)
    drops.index = pd.Index(names)
    reach = reach or float(np.nanmax(np.abs(drops))) or 1.0
    wide = 1.15 * len(languages)
    figure, (heat, bars) = panels(
        2, ((wide + 2.4) / 2, 0.36 * len(rows)), (3.4, 1.3), sharex=False, sharey=False,
        gridspec_kw={"width_ratios": [wide, 2.4]},
    )  # fmt: skip
    bar = {"location": "bottom", "shrink": 0.8, "aspect": 30}
    _heatmap(
        heat, drops.rename(columns=dict(labels or {})), ".3f" if reach < 2 else ".2f", vmin=-reach,
        vmax=reach, cbar=True, cbar_kws=bar | {"label": f"drop in {unit} (Org − masked)"},
    )  # fmt: skip
    for i, language in enumerate(rows["mask_language"]):
        if language in languages:
            place = (languages.index(language) + 0.01, i + 0.04)
            heat.add_patch(Rectangle(place, 0.98, 0.92, fill=False, ec=INK, lw=1.6))
    _f1_bars(bars, rows)
    methods = rows["method"].to_list()
    for i in range(1, len(methods)):
        if methods[i] != methods[i - 1]:
            heat.axhline(i, color=INK, linewidth=0.8)
            bars.axhline(i - 0.5, color=INK, linewidth=0.8)
    figure.suptitle(title)
    return figure


def _f1_bars(axes: Axes, rows: pd.DataFrame) -> None:
    """LangSpec-F1 of each row as a bar with its interval, in the colour of the masked language."""
    f1 = ends = rows["langspec_f1"].to_numpy(float)
    places, language = np.arange(len(rows)), rows["mask_language"].to_numpy(str)
    sns.barplot(
        x=f1, y=places, hue=language, palette=palette(language), orient="h", width=0.62,
        saturation=1, errorbar=None, legend=False, ax=axes,
    )  # fmt: skip
    if {"langspec_f1_low", "langspec_f1_high"} <= set(rows.columns):
        low, high = (rows[f"langspec_f1_{end}"].to_numpy(float) for end in ("low", "high"))
        axes.hlines(places, low, high, color=INK, linewidth=1.2)
        ends = np.fmax(f1, high)
    for place, (end, value) in enumerate(zip(ends, f1, strict=True)):
        axes.text(end, place, f" {value:.3f}", va="center", fontsize=8)
    axes.set(xlabel="LangSpec-F1", ylabel="", ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlim(0, max(0.1, float(np.nanmax(ends))) * 1.3)
    axes.tick_params(left=False, labelleft=False)


@styled
def overlap_heatmap(sets: Mapping[str, NeuronSet], title: str = "") -> Figure:
    """How many neurons the languages' sets share, beside what chance would give.

    Cells show the shared neurons and, off the diagonal, their ratio to the number expected of
    random sets with the same counts per layer (`crane_core.selection.overlap`); the colour is the
    Jaccard index.
    """
    names = list(sets)
    found = {(a, b): overlap(sets[a], sets[b]) for a in names for b in names}
    texts = {
        (a, b): f"{one.shared:,}"
        if a == b or not one.expected_within_layers
        else f"{one.shared:,}\n{one.shared / one.expected_within_layers:.1f} × chance"
        for (a, b), one in found.items()
    }
    jaccard = pd.DataFrame([[found[a, b].jaccard for b in names] for a in names], names, names)
    figure, (axes,) = panels(1, (1.3 * len(names), 1.0 * len(names)), (1.8, 0.9))
    _heatmap(
        axes, jaccard, texts=[[texts[a, b] for b in names] for a in names], colours=ORDERED, vmin=0,
        vmax=1, cbar=True, cbar_kws={"label": "Jaccard index (shared / in either)"},
    )  # fmt: skip
    axes.set_title(title or "neurons shared by two languages' sets")
    return figure


@styled
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
    if (matrix <= 0).any(axis=None):
        raise ValueError("the matrix holds values that are not positive: expected ratios")
    logs = matrix.astype(float).map(math.log)
    reach = max(float(np.nanmax(logs.abs())), math.log(1.1))
    texts = [[f"{x:.2f}" for x in row] for row in matrix.to_numpy()]
    ticks = {"ticks": np.linspace(-reach, reach, 5), "format": lambda x, _: f"{math.exp(x):.3g}"}
    figure, (axes,) = panels(1, (1.1 * len(matrix.columns), 0.46 * len(matrix)), (2.9, 1.3))
    _heatmap(
        axes, logs, texts=texts, vmin=-reach, vmax=reach, cbar=True,
        cbar_kws={"label": label, **ticks},
    )  # fmt: skip
    axes.set(xlabel=column_label, ylabel=row_label, title=title)
    return figure


@styled
def correlation_heatmap(matrix: pd.DataFrame, title: str = "") -> Figure:
    """A square table of correlations as numbers on a colour scale from -1 to 1.

    Raises ValueError if a value lies outside -1 to 1.
    """
    if (matrix.abs() > 1 + 1e-9).any(axis=None):
        raise ValueError("the matrix holds values outside -1 to 1: expected correlations")
    figure, (axes,) = panels(1, (0.62 * len(matrix), 0.42 * len(matrix)), (2.9, 2.1))
    bar = {"label": "rank correlation"}
    _heatmap(axes, matrix, ".2f", vmin=-1, vmax=1, cbar=True, cbar_kws=bar)
    axes.set_xticks(axes.get_xticks(), [str(x) for x in matrix.columns], rotation=35, ha="right")
    axes.set_title(title)
    return figure


@styled
def shares_heatmap(tables: Mapping[str, pd.DataFrame], xlabel: str = "", title: str = "") -> Figure:
    """Shares as numbers on a colour scale from 0 to 1, one panel for each table.

    Parameters
    ----------
    tables : name -> table of shares; the same rows in every panel.

    Raises ValueError if the panels differ in rows or a share is not between 0 and 1.
    """
    first = next(iter(tables.values()))
    for name, shares in tables.items():
        if list(shares.index) != list(first.index):
            raise ValueError(f"panel {name!r} has other rows than the first one")
        if ((shares < 0) | (shares > 1)).any(axis=None):
            raise ValueError(f"panel {name!r} has values outside 0 to 1: expected shares")
    widths = [shares.shape[1] for shares in tables.values()]
    figure, grid = panels(
        len(tables), (0.62 * sum(widths) / len(widths), 0.3 * len(first)), (2.0, 1.2),
        sharex=False, gridspec_kw={"width_ratios": widths},
    )  # fmt: skip
    for axes, (name, shares) in zip(grid, tables.items(), strict=True):
        _heatmap(axes, shares, ".2f", colours=ORDERED, vmin=0, vmax=1)
        axes.set_title(name)
    figure.supxlabel(xlabel)
    figure.suptitle(title)
    return figure


@styled
def shares_grid(
    tables: Mapping[str, pd.DataFrame], xlabel: str, ylabel: str, columns: int = 2
) -> Figure:
    """Shares as numbers on a colour scale from 0 to 1, one panel for each table, in rows.

    `tables`: name -> table of shares with the same rows and columns; NaN cells stay empty.
    """
    first = next(iter(tables.values()))
    figure, grid = panels(
        len(tables), (0.42 * first.shape[1], 0.3 * len(first) + 0.5), (0.9, 0.7), columns
    )
    for axes, (name, shares) in zip(grid, tables.items(), strict=True):
        own = shares.reindex(index=first.index, columns=first.columns)
        texts = [["" if x != x else f"{x:.1f}" for x in row] for row in own.to_numpy()]
        _heatmap(axes, own, texts=texts, colours=ORDERED, vmin=0, vmax=1)
        axes.set_title(name)
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    return figure
