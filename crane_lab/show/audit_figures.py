"""The audit's figures, in the style of `crane_lab.show.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from crane_lab.show.figures import BLUE, CYCLE, INK, QUIET, VERMILION, _styled, language_colour

#: Colour and marker of a method.
MARKS = {"CRANE": (VERMILION, "D"), "LAPE": (BLUE, "s"), "Random": (QUIET, "o")}


@_styled
def recomputed(frame: pd.DataFrame) -> Figure:
    """Printed less recomputed LangSpec-F1, with what rounding allows as a bar (symlog scale).

    `frame` as `tables.recompute` makes it.
    """
    unit = 5e-5
    height = 1.3 + 0.19 * len(frame)
    figure = Figure(figsize=(7.4, height), layout="constrained")
    axes = figure.subplots()
    labels = [
        f"{r['table']} · {r['method']} {r['mask_language']}" for r in frame.to_dict("records")
    ]
    for y, row in enumerate(frame.to_dict("records")):
        low, high = row["low"] - unit - row["recomputed"], row["high"] + unit - row["recomputed"]
        wrong = row["verdict"] != "agrees"
        axes.plot([low, high], [y, y], color=QUIET, linewidth=5, alpha=0.5, solid_capstyle="butt")
        axes.scatter(
            [row["difference"]], [y], s=22, zorder=3, linewidths=0,
            color=VERMILION if wrong else BLUE, marker="X" if wrong else "o",
        )  # fmt: skip
        if wrong:
            axes.annotate(
                f"{row['printed']:.4f} printed, {row['recomputed']:.4f} follows",
                (row["difference"], y), fontsize=7.5, va="center", textcoords="offset points",
                xytext=(-9, 0) if row["difference"] > 0 else (9, 0),
                ha="right" if row["difference"] > 0 else "left",
            )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xscale("symlog", linthresh=1e-3, linscale=1.2)
    ticks = [-1e-2, -1e-3, -5e-4, 0, 5e-4, 1e-3, 1e-2]
    axes.set_xticks(ticks, ["−0.01", "−0.001", "−0.0005", "0", "0.0005", "0.001", "0.01"])
    axes.set_xlim(-0.045, 0.045)
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
    axes.set(ylim=(len(labels) - 0.4, -0.6), xlabel="printed less recomputed LangSpec-F1")
    axes.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.6)
    return figure


@_styled
def noise_ranges(frame: pd.DataFrame, level_z: float = 1.96, title: str = "") -> Figure:
    """How many standard errors each drop may be, as bars from the least to the most.

    `frame` as `noise.noise_table` makes it, of one table. A drop whose bar lies right of the dashed
    line is certain to exceed noise, one left of it cannot; the masked language's bar is filled.
    """
    masks = list(dict.fromkeys(zip(frame["method"], frame["mask_language"], strict=True)))
    figure = Figure(figsize=(7.4, 1.2 + 0.5 * len(masks)), layout="constrained")
    axes = figure.subplots()
    languages = list(dict.fromkeys(frame["language"]))
    for row in frame.to_dict("records"):
        base = masks.index((row["method"], row["mask_language"]))
        y = base + 0.24 * (languages.index(row["language"]) - (len(languages) - 1) / 2)
        colour = language_colour(row["language"], languages.index(row["language"]))
        high = max(row["z_high"], 0.08)
        axes.barh(
            y, high - row["z_low"], 0.19, left=row["z_low"], edgecolor=colour, linewidth=1.1,
            color=colour if row["role"] == "target" else "none",
            label=row["language"] if base == 0 else None,
        )  # fmt: skip
        sign = "−" if row["drop"] < 0 else ""
        size = abs(100 * row["drop"]) if abs(frame["drop"]).max() < 1 else abs(row["drop"])
        text = f"{sign}{size:.1f}" if abs(frame["drop"]).max() < 1 else f"{sign}{size:.2f}"
        axes.annotate(
            text, (high, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5
        )
    axes.axvline(level_z, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
    axes.set_xscale("symlog", linthresh=2, linscale=1.6)
    ticks = [0, 0.5, 1, 1.96, 5, 10, 20, 40]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(masks)), [f"{m} {x}" for m, x in masks])
    axes.set(
        ylim=(len(masks) - 0.45, -0.55), xlim=(0, max(14, frame["z_high"].max() * 1.35)),
        xlabel="standard errors, from the least to the most that the two scores allow",
        title=title,
    )  # fmt: skip
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: languages.index(names[i]))
    axes.legend(
        [handles[i] for i in order], [names[i] for i in order], title="drop of",
        loc="upper left", bbox_to_anchor=(1, 1),
    )  # fmt: skip
    return figure


@_styled
def iso_f1(
    frames: Mapping[str, pd.DataFrame],
    precision: str = "precision",
    recall: str = "recall",
    title: str = "",
) -> Figure:
    """Rows in the plane of recall and precision, over lines of equal LangSpec-F1.

    Parameters
    ----------
    frames : title of a panel -> rows with method, mask_language and the two columns named.
    """
    figure = Figure(figsize=(4.1 * len(frames), 3.9), layout="constrained")
    grid = figure.subplots(1, len(frames), sharex=True, sharey=True, squeeze=False)
    r, p = np.meshgrid(np.linspace(1e-3, 1, 300), np.linspace(1e-3, 1, 300))
    drawn = set()
    for axes, (name, frame) in zip(grid.flat, frames.items(), strict=True):
        lines = axes.contour(
            r, p, 2 * p * r / (p + r), levels=np.arange(0.1, 1, 0.1), colors=QUIET, linewidths=0.7
        )
        axes.clabel(lines, fmt="%.1f", fontsize=6.5, colors=QUIET)
        for row in frame.to_dict("records"):
            colour, marker = MARKS.get(row["method"], (CYCLE[2], "^"))
            label = None if row["method"] in drawn else row["method"]
            drawn.add(row["method"])
            x, y = row[recall], row[precision]
            axes.scatter(
                [x], [y], s=30, color=colour, marker=marker, linewidths=0, zorder=3, label=label,
                clip_on=False,
            )  # fmt: skip
            if row["method"] == "CRANE":
                below = row["mask_language"] == "zh"
                axes.annotate(
                    row["mask_language"], (x, y), xytext=(5, -10 if below else 3),
                    textcoords="offset points", fontsize=8, color=colour,
                )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.02), title=name)
        axes.set_box_aspect(1)
    figure.supxlabel("recall: share of the masked language's score that is lost", fontsize=9)
    figure.supylabel("precision: the masked language's share", fontsize=9)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


@_styled
def null_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    sizes: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """LangSpec-F1 of masks that do nothing, against the number of items (logarithmic).

    Parameters
    ----------
    curves : name -> (items, mean, 95th percentile); the percentile is dashed.
    sizes : name -> a number of items to mark.
    """
    figure = Figure(figsize=(7.0, 3.4), layout="constrained")
    axes = figure.subplots()
    for i, (name, (n, mean, high)) in enumerate(curves.items()):
        colour = CYCLE[i % len(CYCLE)]
        axes.plot(n, mean, color=colour, marker="o", markersize=3.5, label=name)
        axes.plot(n, high, color=colour, linestyle=(0, (4, 2)), linewidth=1.1)
    axes.plot([], [], color=INK, linestyle=(0, (4, 2)), linewidth=1.1, label="95th percentile")
    top = axes.get_ylim()[1]
    for name, n in (sizes or {}).items():
        axes.axvline(n, color=QUIET, linewidth=0.8, zorder=0)
        axes.text(
            n, top, f" {name}", rotation=90, va="top", ha="right", fontsize=7.5, color="#5b6168"
        )
    axes.set_xscale("log")
    axes.set_xticks([100, 1000, 10000], ["100", "1,000", "10,000"])
    axes.set(
        xlabel="items per language", ylabel="LangSpec-F1", ylim=(0, top), title=title,
    )  # fmt: skip
    axes.legend(
        loc="upper left", bbox_to_anchor=(1, 1), title="outcomes that the\nmask flips by chance"
    )
    return figure


@_styled
def even_damage_curves(
    shares: ArrayLike,
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    marks: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Figure:
    """LangSpec-F1 of masks that hit every language alike, against how much they take.

    Parameters
    ----------
    shares : what the mask takes of each language's score above its floor.
    panels : title of a panel -> masked language -> LangSpec-F1 (shares,).
    marks : title of a panel -> masked language -> a value to draw as a dotted line.
    """
    figure = Figure(figsize=(3.4 * len(panels) + 1.6, 3.3), layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    top = max(max(values) for lines in panels.values() for values in lines.values())
    for axes, (name, lines) in zip(grid.flat, panels.items(), strict=True):
        for i, (language, values) in enumerate(lines.items()):
            colour = language_colour(language, i)
            axes.plot(shares, values, color=colour, label=f"mask for {language}")
            mark = (marks or {}).get(name, {}).get(language)
            if mark is not None:
                axes.axhline(mark, color=colour, linestyle=":", linewidth=1.2)
        axes.set(title=name, xlim=(0, 1), ylim=(0, 1.04 * top))
        axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
    figure.supxlabel("share that the mask takes from every language alike", fontsize=9)
    figure.supylabel("LangSpec-F1", fontsize=9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if marks:
        handles.append(grid.flat[0].plot([], [], color=INK, linestyle=":", linewidth=1.2)[0])
        labels.append("CRANE's row")
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
