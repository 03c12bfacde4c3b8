"""Values with their intervals or ranges: dots in rows, strips, Figure 6, the audit's bars.

Intervals are always given; seaborn computes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from crane_lab.show.style import (
    BESIDE,
    DASHED,
    INK,
    MARKS,
    PALE,
    QUIET,
    SERIES,
    minus,
    palette,
    panels,
    shared_legend,
    styled,
)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """A horizontal row for each label, from top to bottom, every other one on a darker ground."""
    for y in range(1, len(labels), 2):
        axes.axhspan(y - 0.5, y + 0.5, color=PALE, alpha=0.5, linewidth=0, zorder=0)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x")


def _lanes(series: pd.Series, names: Sequence[str], width: float = 0.68) -> pd.Series:
    """How far from the middle of its row each value lies, so that no series hides another."""
    return (series.map(list(names).index) - (len(names) - 1) / 2) * width / max(len(names), 1)


@styled
def dot_ranges(
    tables: Mapping[str, pd.DataFrame],
    zero: Sequence[str] = (),
    reference_label: str = "by chance",
    title: str = "",
    order: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    same_scale: bool = False,
) -> Figure:
    """Dots with ranges, one row for each thing compared and one panel for each measure.

    Parameters
    ----------
    tables : name of a measure with its unit -> table with columns `row`, `series` (such as a
        language), `value`, and optionally `low` and `high` (a range around the value) and
        `reference` (a level to hold the value against, drawn as a tick). NaN is left out.
    zero : panels with a line at 0.
    reference_label : what the ticks are, for the legend.
    order : the rows from top to bottom, by default those of all panels as they first appear.
    names : what a series is called in the legend.
    same_scale : whether the panels have one horizontal scale.
    """
    every = pd.concat(tables, names=["measure", None]).reset_index("measure")
    every["series"] = every["series"].replace(dict(names or {}))
    rows = [str(row) for row in order or dict.fromkeys(every["row"])]
    series = list(dict.fromkeys(every["series"]))
    every["place"] = every["row"].astype(str).map(rows.index) + _lanes(every["series"], series)
    colours = palette(series)
    every["colour"] = every["series"].map(colours)
    height = 1.25 + len(rows) * max(0.3, 0.12 * len(series))
    width = max(1.85, 7.0 / len(tables))
    figure, grid = panels(len(tables), (width, 0), (1.9, height), sharex=same_scale)
    for axes, (name, own) in zip(grid, every.groupby("measure", sort=False), strict=True):
        _rows(axes, rows)
        if name in zero:
            axes.axvline(0, **DASHED)
        if "low" in own:
            axes.hlines(own["place"], own["low"], own["high"], colors=list(own["colour"]), lw=1.4)
        sns.scatterplot(
            own, x="value", y="place", hue="series", palette=colours, style="series", s=26,
            markers=dict(zip(series, MARKS * len(series), strict=False)), linewidth=0, zorder=3,
            ax=axes,
        )  # fmt: skip
        if "reference" in own:
            axes.scatter(own["reference"], own["place"], s=40, marker="|", color=INK, lw=1)
        axes.set(xlabel=name, ylabel="")
        axes.locator_params(axis="x", nbins=4 if len(tables) > 2 else 7)
    if "reference" in every and every["reference"].notna().any():
        grid[-1].scatter([], [], s=60, marker="|", color=INK, lw=1, label=reference_label)
        grid[-1].legend()
    shared_legend(figure, grid, "outside lower center")
    figure.suptitle(title)
    return figure


@styled
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
    null = "random mask"
    values = [(row, null, f1) for row, found in random.items() for f1 in np.asarray(found)]
    values += [(row, name, f1) for name, own in marks.items() for row, f1 in own.items()]
    frame = pd.DataFrame(values, columns=["row", "method", "f1"])
    frame = frame[frame["row"].isin(rows)]
    methods = [*marks, null]
    frame["place"] = frame["row"].map(rows.index) + _lanes(frame["method"], methods, 0.8)
    height = (0.25 + 0.1 * len(methods)) * len(rows)
    figure, (axes,) = panels(1, (7.2, height), (0, 1.1))
    _rows(axes, rows)
    sns.stripplot(
        frame[frame["method"] == null], x="f1", y="place", hue="method", palette=palette([null]),
        orient="h", native_scale=True, jitter=False, size=5, alpha=0.8, ax=axes,
    )  # fmt: skip
    sns.scatterplot(
        frame[frame["method"] != null], x="f1", y="place", hue="method", hue_order=list(marks),
        palette=palette(marks), style="method", style_order=list(marks),
        markers=list(MARKS[1 : len(methods)]), s=36, linewidth=0, zorder=3, ax=axes,
    )  # fmt: skip
    axes.set(xlabel="LangSpec-F1", ylabel="", xlim=(-0.02, None), title=title)
    axes.legend(**BESIDE)
    return figure


@styled
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
    colours, apart = palette(["base", "chat"]), 0.26
    figure, grid = panels(len(languages), (2.6, 3.4), (1.2, 0), sharex=False)
    for axes, language in zip(grid, languages, strict=True):
        rows = table[(table["mask_language"] == language) | (table["method"] == "Org")]
        scores = pd.DataFrame({m: rows[f"{m}_{language}"].astype(float) for m in colours})
        sns.pointplot(
            scores.assign(method=rows["method"]).melt("method", var_name="model"), x="method",
            y="value", hue="model", palette=colours, markers=["o", "s"], dodge=apart,
            linestyle="none", markersize=5.5, markeredgewidth=0, errorbar=None, ax=axes,
        )  # fmt: skip
        for i, (model, colour) in enumerate(colours.items()):
            axes.axhline(scores[model].iloc[0], color=colour, lw=0.9, ls="--", alpha=0.7)
            column = f"{model}_{language}"
            if f"{column}_low" in rows:
                low, high = (rows[f"{column}_{end}"].astype(float) for end in ("low", "high"))
                places = np.arange(len(rows)) + (i - 0.5) * apart
                axes.vlines(places, low, high, color=colour, linewidth=1.4)
        if floor is not None:
            axes.axhline(floor, color=QUIET, linewidth=1, linestyle=":")
        axes.set_xticks(range(len(rows)), rows["method"], rotation=35, ha="right")
        axes.set(title=(labels or {}).get(language, language), xlabel="", ylabel=ylabel)
        axes.tick_params(axis="x", length=0)
    shared_legend(figure, grid, "outside upper right")
    figure.suptitle(title, x=0.02, ha="left")
    return figure


@styled
def recomputed(frame: pd.DataFrame) -> Figure:
    """Printed less recomputed LangSpec-F1, with what rounding allows as a bar (symlog scale).

    `frame` as `crane_lab.audit.recompute` makes it.
    """
    unit = 5e-5
    own = frame.assign(place=range(len(frame)))
    labels = (own["table"] + " · " + own["method"] + " " + own["mask_language"]).to_list()
    figure, (axes,) = panels(1, (7.4, 0.19 * len(own)), (0, 1.3))
    axes.hlines(
        own["place"], own["low"] - unit - own["recomputed"], own["high"] + unit - own["recomputed"],
        color=QUIET, linewidth=5, alpha=0.5,
    )  # fmt: skip
    wrong = own["verdict"] != "agrees"
    sns.scatterplot(
        own, x="difference", y="place", hue=wrong, palette={False: INK, True: SERIES[2]},
        style=wrong, markers={False: "o", True: "X"}, s=26, linewidth=0, zorder=3, legend=False,
        ax=axes,
    )  # fmt: skip
    for row in own[wrong].to_dict("records"):
        right = row["difference"] > 0
        axes.annotate(
            f"{row['printed']:.4f} printed, {row['recomputed']:.4f} follows",
            (row["difference"], row["place"]), fontsize=7.5, va="center",
            textcoords="offset points", xytext=(-9, 0) if right else (9, 0),
            ha="right" if right else "left",
        )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xscale("symlog", linthresh=1e-3, linscale=1.2)
    ticks = (-0.01, -0.001, -0.0005, 0, 0.0005, 0.001, 0.01)
    axes.set_xticks(ticks, [minus(f"{tick:g}") for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(labelsize=7.5)
    axes.set(
        xlim=(-0.045, 0.045), ylim=(len(labels) - 0.4, -0.6), ylabel="",
        xlabel="printed less recomputed LangSpec-F1",
    )  # fmt: skip
    axes.grid(axis="x")
    return figure


@styled
def noise_ranges(frame: pd.DataFrame, level_z: float = 1.96, title: str = "") -> Figure:
    """How many standard errors each drop may be, as bars from the least to the most.

    `frame` as `crane_lab.audit.noise_table` makes it, of one table. A drop whose bar lies right of
    the dashed line is certain to exceed noise, one left of it cannot; the masked language's bar is
    filled.
    """
    own = frame.assign(
        mask=frame["method"] + " " + frame["mask_language"], end=frame["z_high"].clip(lower=0.08)
    )
    masks, languages = (list(dict.fromkeys(own[x])) for x in ("mask", "language"))
    colours = palette(languages)
    own["place"] = own["mask"].map(masks.index) + _lanes(own["language"], languages, 0.72)
    as_points = own["drop"].abs().max() < 1
    figure, (axes,) = panels(1, (7.4, 0.5 * len(masks)), (0, 1.2))
    _rows(axes, masks)
    for language, bars in own.groupby("language", sort=False):
        colour = colours[language]
        filled = [colour if role == "target" else "none" for role in bars["role"]]
        axes.barh(
            bars["place"], bars["end"] - bars["z_low"], 0.19, left=bars["z_low"], color=filled,
            edgecolor=colour, linewidth=1.1,
        )  # fmt: skip
        for end, place, drop in zip(bars["end"], bars["place"], bars["drop"], strict=True):
            axes.annotate(
                minus(f"{100 * drop:.1f}" if as_points else f"{drop:.2f}"), (end, place),
                xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5,
            )  # fmt: skip
    axes.axvline(level_z, **DASHED)
    axes.set_xscale("symlog", linthresh=2, linscale=1.6)
    ticks = [0, 0.5, 1, 1.96, 5, 10, 20, 40]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set(
        xlim=(0, max(14, own["z_high"].max() * 1.35)), title=title,
        xlabel="standard errors, from the least to the most that the two scores allow",
    )  # fmt: skip
    handles = [Patch(color=colour, label=language) for language, colour in colours.items()]
    axes.legend(handles=handles, title="drop of", **BESIDE)
    return figure
