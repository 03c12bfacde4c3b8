"""How things are distributed: relevance (Figure 2), kurtosis (Figure 3), margins, answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from torch import Tensor

from crane_core.selection import NeuronSet, Scores, margins
from crane_lab.show.style import (
    BESIDE,
    DASHED,
    MARKS,
    NOTE,
    ORDERED,
    PAPER,
    QUIET,
    palette,
    panels,
    plain_log,
    shared_legend,
    styled,
)


@styled
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
    colours = palette(scores)
    order = [target, *(name for name in scores if name != target)]
    label = {name: f"{name}: kurtosis {np.mean(scores[name] ** 4):.1f}" for name in order}
    drawn = {label[name]: pd.Series(scores[name].clip(-reach, reach)) for name in order}
    settings: dict[str, Any] = {
        "bins": np.linspace(-reach, reach, 81), "stat": "density", "element": "step",
        "palette": {label[name]: colours[name] for name in order},
    }  # fmt: skip
    figure, (linear, logarithmic) = panels(2, (4.2, 3.3), (0, 0), sharex=False, sharey=False)
    for axes in (linear, logarithmic):
        own = {label[target]: drawn[label[target]]}
        sns.histplot(own, ax=axes, alpha=0.18, linewidth=0, legend=False, **settings)
        sns.histplot(
            drawn, ax=axes, fill=False, common_norm=False, legend=axes is linear, **settings
        )
        axes.set(xlabel="relevance, in standard deviations from its mean")
    linear.set(ylabel="density", title="the peak", xlim=(-4, 4))
    logarithmic.set(ylabel="density, logarithmic", yscale="log", title="the tails")
    logarithmic.set_xlim(-reach * 1.05, reach * 1.05)
    plain_log(logarithmic.yaxis)
    sns.move_legend(linear, "upper left", title=None)
    linear.set_ylim(top=linear.get_ylim()[1] * 1.25)
    if schematic:
        figure.suptitle("Schematic: simulated, equal spread", color=NOTE)
    return figure


@styled
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
    own, others = (
        {"intermediate": scores} if isinstance(scores, Tensor) else scores
        for scores in margins(normalised, target)
    )
    if site not in own:
        raise ValueError(f"no scores for site {site!r}: there are {list(own)}")
    layers, width = own[site].shape
    neurons = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers), width),
            "target": own[site].numpy().ravel(),
            "others": others[site].numpy().ravel(),
        }
    ).dropna()
    neurons["chosen"] = (neurons["target"] > threshold) & (neurons["others"] <= threshold)
    low = min(neurons["target"].min(), neurons["others"].min(), 0.0) - 0.4
    high = max(neurons["target"].max(), neurons["others"].max(), threshold) * 1.25 + 0.2
    ticks = [t for t in (-10, -3, -1, 0, 1, 3, 10, 30, 100, 300) if low <= t <= high]
    colour = palette([target])[target]
    columns = 5 if layers <= 10 else 8
    side = 1.95 if layers <= 10 else 1.35
    figure, grid = panels(layers, (side, side + 0.15), (0.5, 0.6), columns)
    for layer, axes in enumerate(grid):
        points = neurons[neurons["layer"] == layer].sort_values("chosen", kind="stable")
        region = (high - threshold, threshold - low)
        axes.add_patch(Rectangle((threshold, low), *region, facecolor=colour, alpha=0.12))
        axes.axvline(threshold, **DASHED)
        axes.axhline(threshold, **DASHED)
        sns.scatterplot(
            points, x="target", y="others", hue="chosen", palette={False: QUIET, True: colour},
            s=6, linewidth=0, alpha=0.7, rasterized=True, legend=False, ax=axes,
        )  # fmt: skip
        axes.set_title(f"layer {layer}: {int(points['chosen'].sum())} of {width}")
        for axis in ("x", "y"):
            axes.set(**{f"{axis}label": "", f"{axis}lim": (low, high)})
            getattr(axes, f"set_{axis}scale")("symlog", linthresh=3, linscale=1.5)
            axes.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": [str(t) for t in ticks]})
        axes.minorticks_off()
        axes.set_box_aspect(1)
    figure.supxlabel(f"normalised kurtosis, target language {target}")
    figure.supylabel("maximum of the other languages")
    return figure


@styled
def scatter(
    clouds: Mapping[str, tuple[ArrayLike, ArrayLike]],
    xlabel: str,
    ylabel: str,
    titles: Mapping[str, str] | None = None,
    log: bool = True,
) -> Figure:
    """Clouds of points on common axes, one panel each; a point with a NaN is left out.

    Parameters
    ----------
    clouds : name, such as a language -> (x, y), both (points,); above 0 if `log`.
    xlabel, ylabel : axis labels with units.
    titles : name -> title of its panel, by default the name.
    log : logarithmic axes.
    """
    figure, grid = panels(len(clouds), (2.9, 2.7), (0, 0.3), columns=3)
    colours = palette(clouds)
    for axes, (name, (x, y)) in zip(grid, clouds.items(), strict=True):
        sns.scatterplot(
            x=np.asarray(x), y=np.asarray(y), color=colours[name], s=7, linewidth=0, alpha=0.5,
            rasterized=True, ax=axes,
        )  # fmt: skip
        if log:
            axes.set(xscale="log", yscale="log")
            plain_log(axes.xaxis)
            plain_log(axes.yaxis)
        axes.set_title((titles or {}).get(name, name))
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    return figure


@styled
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
    methods = list(dict.fromkeys(pd.concat(frames.values())["method"]))
    figure, grid = panels(len(frames), (4.1, 3.9), (0, 0))
    r, p = np.meshgrid(np.linspace(1e-3, 1, 300), np.linspace(1e-3, 1, 300))
    for axes, (name, frame) in zip(grid, frames.items(), strict=True):
        lines = axes.contour(
            r, p, 2 * p * r / (p + r), levels=np.arange(0.1, 1, 0.1), colors=QUIET, linewidths=0.7
        )
        axes.clabel(lines, fmt="%.1f", fontsize=6.5, colors=QUIET)
        sns.scatterplot(
            frame, x=recall, y=precision, hue="method", hue_order=methods, style="method",
            style_order=methods, palette=palette(methods), markers=list(MARKS[: len(methods)]),
            s=34, linewidth=0, zorder=3, ax=axes,
        )  # fmt: skip
        axes.collections[-1].set_clip_on(False)
        for row in frame[frame["method"] == "CRANE"].to_dict("records"):
            axes.annotate(
                row["mask_language"], (row[recall], row[precision]), fontsize=8,
                xytext=(5, -10 if row["mask_language"] == "zh" else 3), textcoords="offset points",
            )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.02), title=name, xlabel="", ylabel="")
        axes.set_box_aspect(1)
    shared_legend(figure, grid, "outside upper center")
    figure.supxlabel("recall: share of the masked language's score that is lost")
    figure.supylabel("precision: the masked language's share")
    figure.suptitle(title)
    return figure


@styled
def margin_histogram(
    items: Mapping[str, ArrayLike], label: str = "margin in nats", title: str = ""
) -> Figure:
    """Histograms of item margins, one panel each: score of the gold option minus the best other.

    An item right of the dashed line is answered correctly; the share of them is written above.
    """
    values = {name: np.asarray(x, dtype=np.float64) for name, x in items.items()}
    every = np.concatenate(list(values.values()))
    bins = np.linspace(every.min(), every.max(), 41)
    figure, grid = panels(len(values), (2.9, 2.0), (0, 0.5), columns=3)
    colours = palette(values)
    for axes, (name, margin) in zip(grid, values.items(), strict=True):
        sns.histplot(x=margin, bins=bins, color=colours[name], alpha=1, linewidth=0, ax=axes)
        axes.axvline(0, **DASHED)
        axes.set(title=f"{name}: {(margin > 0).mean():.0%} right", ylabel="")
    figure.supxlabel(label)
    figure.supylabel("items")
    figure.suptitle(title)
    return figure


@styled
def layer_counts(sets: Mapping[str, NeuronSet], site: str | None = None, title: str = "") -> Figure:
    """Bars of how many neurons of each set lie in each layer, of one site or of all together."""
    counts = {name: neurons.counts(site).numpy() for name, neurons in sets.items()}
    label = {name: f"{name} ({values.sum():,})" for name, values in counts.items()}
    frame = pd.DataFrame(counts).rename(columns=label)
    layers = len(frame)
    figure, (axes,) = panels(1, (min(6.8, 0.55 * layers), 2.9), (3.2, 0))
    sns.barplot(
        frame.melt(ignore_index=False).reset_index(), x="index", y="value", hue="variable",
        palette={label[name]: colour for name, colour in palette(counts).items()}, saturation=1,
        errorbar=None, ax=axes,
    )  # fmt: skip
    axes.set(xlabel="layer", ylabel="neurons in the set", title=title)
    ticks = range(0, layers, 1 if layers <= 16 else 4)
    axes.set_xticks(ticks, [str(layer) for layer in ticks])
    axes.legend(**BESIDE)
    return figure


@styled
def stacked_bars(
    tables: Mapping[str, pd.DataFrame], xlabel: str = "share of the answers", title: str = ""
) -> Figure:
    """Shares as stacked horizontal bars, one panel for each table; colours run in columns' order.

    Parameters
    ----------
    tables : name, such as a language -> table with a row for each bar and a column for each part;
        the same rows and columns in every panel.

    Raises ValueError if the panels differ in rows or columns.
    """
    first = next(iter(tables.values()))
    for name, shares in tables.items():
        if list(shares.columns) != list(first.columns) or list(shares.index) != list(first.index):
            raise ValueError(f"panel {name!r} has other rows or columns than the first one")
    parts = [str(part) for part in first.columns]
    colours = list(mpl.colormaps[ORDERED](np.linspace(0, 0.95, len(parts))))
    figure, grid = panels(len(tables), (2.3, 0.24 * len(first)), (1.6, 1.5))
    for axes, (name, shares) in zip(grid, tables.items(), strict=True):
        long = shares.set_axis(parts, axis=1).rename_axis("row").reset_index()
        sns.histplot(
            long.melt("row", var_name="part", value_name="share"), y="row", weights="share",
            hue="part", hue_order=parts[::-1], multiple="stack", shrink=0.78, alpha=1,
            edgecolor=PAPER, palette=colours, legend=axes is grid[-1], ax=axes,
        )  # fmt: skip
        axes.set(title=name, xlim=(0, 1), xlabel="", ylabel="")
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.tick_params(axis="y", length=0)
    shared_legend(figure, grid, "outside upper center", reverse=True)
    figure.supxlabel(xlabel)
    figure.suptitle(title)
    return figure
