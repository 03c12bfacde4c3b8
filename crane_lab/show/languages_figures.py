"""Figures of many languages at once: depth, overlap by family, and the tree that overlaps make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram

from crane_lab.show.style import (
    INK,
    NOTE,
    ORDERED,
    QUIET,
    SIGNED,
    panels,
    styled,
)
from crane_lab.texts.typology import ALONE


@styled
def depth_heatmaps(tables: Mapping[str, pd.DataFrame], groups: Mapping[str, str]) -> Figure:
    """Share of each language's neurons by layer, a panel per method.

    `tables`: method -> languages × layers, the same languages in each; `groups`: language -> its
    family, between which a line is drawn.
    """
    first = next(iter(tables.values()))
    top = max(float(table.to_numpy().max()) for table in tables.values())
    figure, grid = panels(len(tables), (2.9, 0.2 * len(first)), (1.3, 0.9))
    for axes, (name, table) in zip(grid, tables.items(), strict=True):
        sns.heatmap(
            table.to_numpy(), ax=axes, cmap=ORDERED, vmin=0, vmax=top, cbar=False,
            xticklabels=[str(x) if x % 3 == 0 else "" for x in range(table.shape[1])],
            yticklabels=[str(x) for x in table.index],
        )  # fmt: skip
        axes.set_title(name)
        axes.set(xlabel="layer", ylabel="")
        axes.tick_params(axis="y", rotation=0)
        _between(axes, list(first.index), groups, columns=False)
    figure.colorbar(grid[-1].collections[0], ax=grid, label="share of the language's neurons")
    return figure


@styled
def relation_heatmap(
    matrix: pd.DataFrame, groups: Mapping[str, str], label: str, title: str = ""
) -> Figure:
    """A symmetric language × language matrix around zero, families side by side."""
    names = list(matrix.index)
    reach = float(np.nanmax(np.abs(matrix.to_numpy())))
    figure, (axes,) = panels(1, (0.28 * len(names), 0.26 * len(names)), (1.9, 0.9))
    sns.heatmap(
        matrix.to_numpy(), ax=axes, cmap=SIGNED, vmin=-reach, vmax=reach, square=True,
        xticklabels=names, yticklabels=names, cbar_kws={"label": label},
    )  # fmt: skip
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)
    axes.set_title(title)
    _between(axes, names, groups, columns=True)
    return figure


def _between(axes: Axes, names: Sequence[str], groups: Mapping[str, str], columns: bool) -> None:
    """Lines between families."""
    axes.tick_params(length=0)
    for place in range(1, len(names)):
        if groups[names[place - 1]] != groups[names[place]]:
            axes.axhline(place, color=INK, lw=0.7)
            if columns:
                axes.axvline(place, color=INK, lw=0.7)


@styled
def tree_figure(
    tree: NDArray[np.float64], names: Sequence[str], groups: Mapping[str, str], label: str
) -> Figure:
    """Languages joined by what their sets share; the name's colour is the family's."""
    figure, (axes,) = panels(1, (5.6, 0.23 * len(names)), (0.9, 0.9))
    drawn: dict[str, Any] = dendrogram(
        tree, labels=list(names), orientation="left", ax=axes, color_threshold=0,
        above_threshold_color=QUIET,
    )  # fmt: skip
    families = list(dict.fromkeys(groups.values()))
    colours = dict(zip(families, sns.color_palette("colorblind", len(families)), strict=True))
    colours |= {ALONE: NOTE} if ALONE in colours else {}
    for text in axes.get_yticklabels():
        text.set_color(colours[groups[text.get_text()]])
        text.set_fontsize(9)
    for name, colour in colours.items():
        axes.plot([], [], "s", color=colour, label=name)
    figure.legend(loc="outside upper center", ncols=3, title="family")
    axes.set(xlabel=label, ylabel="")
    axes.spines["left"].set_visible(False)
    assert len(drawn["ivl"]) == len(names)
    return figure
