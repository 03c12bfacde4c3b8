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
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.style import QUIET, palette, panels, shared_legend, styled


def openings_table(losses: pd.DataFrame, relevance: pd.DataFrame) -> Styler:
    """What the token that opens windows is worth, and how alike relevance is with and without it.

    `losses` is as `real_model.losses_by_opening` returns it, `relevance` as `relevance_by_opening`.
    """
    frame = losses[(losses["first"] == 1) & (losses["last"] == 0)][["language"]].reset_index(
        drop=True
    )
    by_place: dict[Any, pd.DataFrame] = {
        key: own.set_index("language") for key, own in losses.groupby(["first", "last"])
    }
    for name in ("with", "without"):
        frame[f"loss {name}"] = by_place[1, 0][name].loc[frame["language"]].to_numpy()
    columns: list[str] = []
    for first, last in ((int(a), int(b)) for a, b in by_place):
        until = f" to {last}" if last else (" and after" if first > 1 else "")
        columns.append("costs" if (first, last) == (1, 0) else f"token {first}{until}")
        of = by_place[first, last].loc[frame["language"]]
        frame[columns[-1]] = [
            f"{row['costs']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
            for row in of.to_dict("records")
        ]
    for statistic, name in (("mean_abs", "mean |relevance|"), ("kurtosis", "kurtosis")):
        of = relevance[relevance["statistic"] == statistic].set_index("language")
        frame[f"ρ of {name} (other windows)"] = [
            f"{of.loc[x, 'rho']:.2f} ({of.loc[x, 'rho_windows']:.2f})" for x in frame["language"]
        ]
    return figures.table(
        frame,
        f"Held-out loss in nats per token of the same {losses['windows'].iloc[0]} windows with and "
        "without the token that opens them, what it costs to leave it out (with 95 % interval over "
        "windows), by the place of the predicted token, and the rank correlation of neurons with "
        f"and without it over {relevance['windows'].iloc[0]} windows; in brackets that between "
        "these windows and as many others, both with it",
        {"loss with": "{:.2f}", "loss without": "{:.2f}"},
    )


def openings_in_words(losses: pd.DataFrame, relevance: pd.DataFrame) -> Markdown:
    """Where a window's missing opening is felt, and whether it reorders neurons."""
    whole = losses[(losses["first"] == 1) & (losses["last"] == 0)]["costs"]
    first = losses[(losses["first"] == 1) & (losses["last"] > 0)]["costs"]
    late = losses[(losses["first"] > 1) & (losses["last"] == 0)]["costs"]
    said = [
        f"Without its opening token a window costs {whole.min():.2f} to {whole.max():.2f} nats a "
        f"token more: {first.min():.2f} to {first.max():.2f} for the first tokens that are "
        f"predicted and {late.min():.2f} to {late.max():.2f} for the last."
    ]
    for statistic, name in (("mean_abs", "mean |relevance|"), ("kurtosis", "kurtosis")):
        of = relevance[relevance["statistic"] == statistic]
        differ = (of["rho"] < of["rho_windows"]).all()
        said.append(
            f"By {name} neurons come in an order that correlates with the other at "
            f"{of['rho'].min():.2f} to {of['rho'].max():.2f}, where other windows, opened alike, "
            f"give {of['rho_windows'].min():.2f} to {of['rho_windows'].max():.2f}: "
            + (
                "the token changes the order more than other texts do."
                if differ
                else "in some language the token changes the order no more than other texts do."
            )
        )
    return prose(" ".join(said))


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
    """Which tasks have little room: not told from chance without a mask, or next to perfect."""
    unmasked = gate[gate["fraction"] == 0]
    at_chance = unmasked.loc[unmasked["low"] <= chance, "task"].to_list()
    ceiling = unmasked.loc[unmasked["accuracy"] >= 0.95, "task"].to_list()
    said = [
        "Not told from chance: " + (", ".join(map(as_markdown, at_chance)) or "none") + ".",
        "Right in 95 % of the items or more: "
        + (", ".join(map(as_markdown, ceiling)) or "none")
        + ".",
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
                    words.append((f"{title}, {x}: mean depth {mean:.2f}", mean))
    return figures.show(
        _layers(shares),
        alt=in_short(
            "Lines of the share of each set in each layer, by depth.",
            words,
            "data/gemma/layers.csv and the run's neurons_*.safetensors",
        ),
    )


def no_causal_check() -> Markdown:
    """What stands where the causal check would, if it is not shipped."""
    return prose(
        "This check is not among the shipped results, so this section has no figures for Gemma; "
        "`.venv/bin/python -m crane_lab.cli.real_model` makes them, in hours, where the model is."
    )


_OF_CHANCE = {"by chance": "{:.1f}"}


def _beside_chance(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {
        "n": f"{row['n']:,}, {row['n_2']:,}",
        "shared": row["shared"],
        "by chance": row["chance"],
        "than by chance": {"open": "not clearly other"}.get(row["against"], row["against"]),
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
    caption = f"What {method}'s sets of two languages share (by chance: random sets, as many in "
    caption += "each layer; more or fewer: at p < .01)"
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
    caption = "What CRANE's set of a language shares with LAPE's of the same language, as released "
    caption += "and matched"
    return figures.table(pd.DataFrame(rows), caption, _OF_CHANCE)


def cost_table(losses: pd.DataFrame) -> Styler:
    """Added loss of the masked language per hundred neurons, and beside the hardest-hit other's.

    `losses` is as `comparisons.loss_changes` returns it.
    """
    languages = [c.removesuffix("_se") for c in map(str, losses) if c.endswith("_se")]
    rows = []
    for row in losses.to_dict("records"):
        own, n = row[row["mask_language"]], row["n_neurons"]
        other = max(row[x] for x in languages if x != row["mask_language"])
        each, times = 100 * own / n if n else np.nan, own / other if other > 0 else np.nan
        rows.append((row["method"], row["mask_language"], n, own, each, times))
    frame = pd.DataFrame(rows)
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


def settings_table(settings: Mapping[str, Any], names: Mapping[str, str]) -> Styler:
    """What was run, of how much; `settings` as they are shipped."""
    s = settings
    rows = {
        "languages": ", ".join(names.values()),
        "relevance, kurtosis, counts of LAPE": f"{s['n_samples']} windows of {s['window']} tokens "
        "a language",
        "held-out loss": f"{s['n_perplexity']} other windows a language",
        "tasks": f"{s['task_limit']} items of each",
        "open answers": f"{s['n_questions']} questions a language, {s['max_new_tokens']} new "
        "tokens",
        "random masks of CRANE's sizes": f"{len(s['random_seeds'])} for each language, drawn with "
        "the same seeds for all",
    }
    return figures.table(
        pd.DataFrame({"what": rows.keys(), "of how much": rows.values()}), "What was run on Gemma"
    )


def findings_in_words(losses: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Markdown:
    """Which of the testbed's findings about held-out loss the real model shows, method by method.

    `losses` : model -> `comparisons.loss_changes`, the testbed first.
    """
    lines = []
    home, away = losses
    for method in (m for m in losses[home]["method"].unique() if m != "Random"):
        verdicts = {
            model: dict(
                found.loc[found["method"] == method, ["mask_language", "verdict"]].to_numpy()
            )
            for model, found in losses.items()
        }
        told = {
            model: ", ".join(
                f"{as_markdown(names[x])} {'clearly most' if v == 'larger' else 'clearly not most'}"
                for x, v in own.items()
                if v != "open"
            )
            or "no language told apart"
            for model, own in verdicts.items()
        }
        lines.append(
            f"- **{as_markdown(method)}**, own language hit: on the {as_markdown(home)} "
            f"{told[home]}; on {as_markdown(away)} {told[away]}. "
            + ("The same." if verdicts[home] == verdicts[away] else "Not the same.")
        )
    return prose("\n".join(lines))


def below_random(perplexities: pd.DataFrame, names: Mapping[str, str]) -> Markdown:
    """In how many cells, mask by text, CRANE's set adds less than every random mask of its size.

    `perplexities` as `Evaluated.perplexities` returns them.
    """
    less = 0
    for x in names:
        own = perplexities[perplexities["mask_language"] == x]
        crane, random = (
            own.loc[own["method"] == method, [f"{y}_change" for y in names]].min()
            for method in ("CRANE", "Random")
        )
        less += int((crane < random).sum())
    return prose(
        f"CRANE's sets add less to the loss than *every* random mask of their size and layers in "
        f"{less} of {len(names) ** 2} cells of the matrix."
    )


def nulls_in_words(verdicts: pd.DataFrame, losses: pd.DataFrame) -> Markdown:
    """How many random masks the shipped nulls have, and what that allows to be said.

    `verdicts` of Table 1 (`comparisons.verdicts`), `losses` of `comparisons.loss_changes`.
    """
    said = []
    for name, masks in (
        ("tasks", verdicts["langspec_f1_null_masks"]),
        ("held-out loss", losses["null_masks"]),
    ):
        own = masks[masks > 0].astype(int)
        if not len(own):
            said.append(f"of {name} there are none, so nothing is called clear by them")
            continue
        low, high = own.min(), own.max()
        n = f"{low}" if low == high else f"{low} to {high}"
        said.append(
            f"of {name} {n} for each set, so that no p-value can be below "
            f"{1 / (high + 1):.3f}{'' if low == high else f' to {1 / (low + 1):.3f}'} before it is "
            "corrected"
        )
    return prose(
        f"Random masks with a set's own size and layers were measured here: {'; '.join(said)}. "
        "What a few masks cannot decide stays open."
    )


def findings_table(
    selected: Mapping[str, pd.DataFrame],
    losses: Mapping[str, pd.DataFrame],
    verdicts: Mapping[str, pd.DataFrame],
    places: Mapping[str, str],
) -> Styler:
    """What came out, model by model.

    Parameters
    ----------
    selected : model -> `scores.region_counts`.
    losses : model -> `comparisons.loss_changes`.
    verdicts : model -> `comparisons.verdicts` of Table 1.
    places : model -> the place of CRANE's score among criteria; {} if it is not known.
    """
    methods = [m for m in next(iter(losses.values()))["method"].unique() if m != "Random"]
    rows: list[dict[str, Any]] = [
        {
            "finding": "neurons that CRANE selects (if languages were unrelated)",
            **{
                model: ", ".join(
                    f"{row['target']} {row['target only (selected)']:,} "
                    f"({row['selected if unrelated']:,.0f})"
                    for row in found.to_dict("records")
                )
                for model, found in selected.items()
            },
        }
    ]
    for said, tables, column, wanted in (
        ("own language's loss clearly hit most", losses, "verdict", "larger"),
        ("another language's loss clearly hit more", losses, "verdict", "smaller"),
        ("LangSpec-F1 of Table 1 above its null", verdicts, "against_random", "above"),
    ):
        for method in methods:
            row = {"finding": f"{method}: {said}"}
            for model, found in tables.items():
                own = found[found["method"] == method]
                hit = own.loc[own[column] == wanted, "mask_language"]
                open_yet = int((own[column] == "open").sum()) if tables is verdicts else 0
                row[model] = f"{len(hit)} of {len(own)}" + f" ({', '.join(hit)})" * bool(len(hit))
                row[model] += f"; {open_yet} cannot be told" * bool(open_yet)
            rows.append(row)
    if places:
        rows.append({"finding": "place of CRANE's score among criteria (selectivity)", **places})
    return figures.table(pd.DataFrame(rows), "What came out on either model")
