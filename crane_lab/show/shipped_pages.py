"""Tables, figures and sentences of the chapter on a real model, beside the testbed's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.style import QUIET, palette, panels, shared_legend, styled


def openings_table(losses: pd.DataFrame, relevance: pd.DataFrame) -> Styler:
    """Held-out loss of windows with and without BOS before them, and how alike relevance is."""
    wide = losses.pivot(index="language", columns="opening", values="loss")
    frame = pd.DataFrame(
        {
            "language": relevance["language"],
            "windows open with BOS": wide["bos"].reindex(relevance["language"]).to_numpy(),
            "cut from a stream": wide["stream"].reindex(relevance["language"]).to_numpy(),
            "ρ of mean |relevance|": relevance["rho"],
        }
    )
    frame.insert(3, "costs", frame["cut from a stream"] - frame["windows open with BOS"])
    return figures.table(
        frame,
        "Held-out loss in nats per token by how windows open, and the rank correlation of neurons' "
        "mean |relevance| between the two",
        {
            **dict.fromkeys(("windows open with BOS", "cut from a stream"), "{:.2f}"),
            "costs": "{:+.2f}",
            "ρ of mean |relevance|": "{:.2f}",
        },
    )


def tasks_gate_table(gate: pd.DataFrame) -> Styler:
    """Accuracy of every task without a mask, and under random masks of growing size."""
    unmasked = gate[gate["fraction"] == 0]
    frame = pd.DataFrame(
        {
            "task": unmasked["task"],
            "items": unmasked["n"],
            "unmasked": [
                f"{row.accuracy:.3f} [{row.low:.3f}, {row.high:.3f}]"
                for row in unmasked.itertuples()
            ],
        }
    ).reset_index(drop=True)
    for fraction, own in gate[gate["fraction"] > 0].groupby("fraction"):
        means = own.groupby("task")["accuracy"].agg(["mean", "min", "max"])
        frame[f"{fraction:.0%} at random"] = [
            f"{means.loc[task, 'mean']:.3f} ({means.loc[task, 'min']:.3f} to "
            f"{means.loc[task, 'max']:.3f})"
            for task in frame["task"]
        ]
    seeds = gate.loc[gate["fraction"] > 0, "seed"].nunique()
    return figures.table(
        frame,
        f"Accuracy before any method is tried (chance .25): unmasked with its 95 % interval, and "
        f"under random masks, mean and range of {seeds}",
    )


def room_in_words(gate: pd.DataFrame, chance: float = 0.25) -> Markdown:
    """Which tasks have no room: at chance without a mask, or next to perfect."""
    unmasked = gate[gate["fraction"] == 0]
    at_chance = unmasked.loc[unmasked["low"] <= chance, "task"].to_list()
    ceiling = unmasked.loc[unmasked["high"] >= 0.95, "task"].to_list()
    said = [
        "Not told from chance: " + (", ".join(map(as_markdown, at_chance)) or "none") + ".",
        "Next to perfect: " + (", ".join(map(as_markdown, ceiling)) or "none") + ".",
    ]
    return prose(" ".join(said))


@styled
def _layers(shares: Mapping[str, pd.DataFrame]) -> Figure:
    figure, grid = panels(len(shares), (3.6, 2.6), (0.2, 0.6), 2, sharex=True, sharey=False)
    colours = palette(next(iter(shares.values()))["language"].unique())
    for axes, (title, own) in zip(grid, shares.items(), strict=True):
        for language, rows in own.groupby("language", sort=False):
            axes.plot(rows["depth"], rows["share"], color=colours[language], label=language)
        axes.axhline(own.attrs["even"], color=QUIET, linewidth=0.8, linestyle=":")
        axes.set(title=title, xlabel="depth of the layer, from 0 to 1", ylabel="share of the set")
        axes.legend()
    shared_legend(figure, grid, "outside lower center")
    return figure


def depth_figure(counts: Mapping[str, pd.DataFrame], methods: tuple[str, ...]) -> HTML:
    """In which depth each method's neurons lie; model -> `real_model.counts_by_layer`."""
    shares, words = {}, []
    for method in methods:
        for model, table in counts.items():
            own = table[table["method"] == method].copy()
            layers = int(own["layer"].max()) + 1
            total = own.groupby("language")["n_neurons"].transform("sum")
            own["share"] = own["n_neurons"] / total.where(total > 0)
            own["depth"] = own["layer"] / max(layers - 1, 1)
            own.attrs["even"] = 1 / layers
            title = f"{method}, {model}"
            shares[title] = own
            for x, rows in own.groupby("language", sort=False):
                if rows["n_neurons"].sum():
                    mean = np.average(rows["depth"], weights=rows["n_neurons"])
                    words.append(f"{title}, {x}: mean depth {mean:.2f}.")
    return figures.show(
        _layers(shares),
        alt="Lines of the share of each set in each layer, by depth. " + " ".join(words),
    )


def no_causal_check() -> Markdown:
    """What stands where the causal check would, if it is not shipped."""
    return prose(
        "This check is not among the shipped results, so this section has no figures for Gemma; "
        "`python -m crane_lab.cli.real_model` makes them."
    )


_OF_CHANCE = {"by chance": "{:.1f}", "p (more than chance)": "{:.2g}"}


def _beside_chance(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "n": f"{row['n']:,}, {row['n_2']:,}",
        "shared": row["shared"],
        "by chance": row["chance"],
        "p (more than chance)": row["p"],
    }


def overlaps_table(found: Mapping[str, pd.DataFrame], method: str) -> Styler:
    """What the sets of one method share between languages, beside chance, by model."""
    rows = [
        {
            "model": model,
            "sets": f"{row['language']}, {row['language_2']}",
            **_beside_chance(row),
        }
        for model, table in found.items()
        for row in table.to_dict("records")
        if row["method"] == row["method_2"] == method
    ]
    caption = f"What {method}'s sets of two languages share"
    return figures.table(pd.DataFrame(rows), caption, _OF_CHANCE)


def between_methods_table(found: Mapping[str, pd.DataFrame]) -> Styler:
    """What the sets of two methods for one language share, beside chance, by model."""
    rows = [
        {
            "model": model,
            "language": row["language"],
            "sets": f"{row['method']}, {row['method_2']}",
            **_beside_chance(row),
        }
        for model, table in found.items()
        for row in table.to_dict("records")
        if row["language"] == row["language_2"] and "CRANE" in (row["method"], row["method_2"])
    ]
    caption = "What CRANE's set of a language shares with LAPE's of the same language"
    return figures.table(pd.DataFrame(rows), caption, _OF_CHANCE)


def cost_table(losses: pd.DataFrame) -> Styler:
    """Added loss of the masked language per hundred neurons, and beside the hardest-hit other's.

    `losses` is as `comparisons.loss_changes` returns it.
    """
    other = pd.Series([row[row["other"]] for _, row in losses.iterrows()], losses.index, float)
    own = losses["difference"] + other
    frame = losses[["method", "mask_language", "n_neurons"]].assign(
        own=own, each=100 * own / losses["n_neurons"], times=own / other.where(other > 0)
    )
    frame.columns = [
        *("method", "masked", "neurons", "nats added to its own language"),
        *("per 100 neurons", "times the hardest-hit other's"),
    ]
    return figures.table(
        frame,
        "What a mask adds to the loss of its own language, by its size and beside what it adds to "
        "the other language that it hits hardest",
        dict(zip(frame.columns[2:], ("{:,}", "{:+.2f}", "{:+.3f}", "{:.1f}"), strict=True)),
    )
