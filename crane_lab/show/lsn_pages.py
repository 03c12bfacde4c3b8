"""Tables, figures and sentences of notebooks 12 and 12b, Language-specific neurons.

`changes` is everywhere the table of `value_losses.perplexity_changes`, `reach` that of
`activations.out_of_reach`; `names` is language -> its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_core.neurons import NeuronSet
from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value
from crane_lab.stages.standing import ENOUGH, FDR
from crane_lab.study.activations import (
    PLACES,
    STATISTICS,
    written_name,
)

ZERO = written_name(None)
#: Of a deeper model a table has a column for each quarter instead of each layer.
_LAYERS_SHOWN = 8


# --- who the neurons are --------------------------------------------------------------------------


def sizes_table(sizes: pd.DataFrame) -> Styler:
    """How many neurons each method gives to each language, by layer, or by quarter of the depth.

    `sizes` as `contenders.layer_sizes` gives it.
    """
    rows = []
    for (method, x), own in sizes.groupby(["method", "language"], sort=False):
        counts = own.sort_values("layer")["neurons"].to_list()
        parts = {f"layer {i}": n for i, n in enumerate(counts)}
        if len(counts) > _LAYERS_SHOWN:
            quarters = np.array_split(counts, 4)
            parts = {f"quarter {i + 1}": int(part.sum()) for i, part in enumerate(quarters)}
        rows.append({"method": method, "language": x, "neurons": sum(counts), **parts})
    return figures.table(pd.DataFrame(rows), "Neurons per method and language, by depth")


def languages_figure(sets: Mapping[str, NeuronSet], name: str) -> HTML:
    """What the languages' sets of one method share, beside chance."""
    told = ", ".join(f"{x} {len(neurons):,}" for x, neurons in sets.items())
    shared = "; ".join(f"{a} and {b} {len(sets[a] & sets[b]):,}" for a, b in combinations(sets, 2))
    return figures.show(
        figures.overlap_heatmap(sets, name),
        alt=f"Neurons that two languages' sets share, {name}. Sizes: {told}. Shared: {shared}.",
    )


def rates_table(rates: pd.DataFrame) -> Styler:
    """How little Act Prob 90p's score tells neurons apart: `contenders.rates_above_own_90th`."""
    shown = rates.rename(
        columns={
            "low": "1st percentile",
            "high": "99th percentile",
            "same": "within 0.001 of 0.1",
        }
    )
    return figures.table(
        shown,
        "Share of tokens on which a neuron exceeds its own 90th percentile (percentiles are over "
        "neurons)",
        {
            "1st percentile": "{:.4f}",
            "median": "{:.4f}",
            "99th percentile": "{:.4f}",
            "within 0.001 of 0.1": "{:.0%}",
        },
    )


def lape_languages_table(found: pd.DataFrame) -> Styler:
    """LAPE's sets from every choice of languages: `contenders.lape_by_languages`."""
    shown = found.assign(without=found["without"].fillna("none")).rename(
        columns={
            "without": "left out",
            "shared": "shared with the set from all",
            "jaccard": "Jaccard",
        }
    )
    return figures.table(shown, "LAPE's sets by the language left out", {"Jaccard": "{:.2f}"})


def lape_languages_in_words(found: pd.DataFrame) -> Markdown:
    """What is left of a language's LAPE set when other languages are given to it."""
    fewer = found[found["without"].notna()].dropna(subset="jaccard")
    if fewer.empty:
        return prose("There is no other language to leave out.")
    ordered = fewer.sort_values("jaccard", kind="stable")
    least, most = ordered.iloc[0], ordered.iloc[-1]
    text = (
        f"With one other language less a set has a Jaccard index of {most['jaccard']:.2f} at best "
        f"({as_markdown(most['language'])} without {as_markdown(most['without'])}) and "
        f"{least['jaccard']:.2f} at worst ({as_markdown(least['language'])} without "
        f"{as_markdown(least['without'])}) with the set from all."
    )
    if least["jaccard"] < 1:
        text += (
            " A language's neurons in LAPE's sense are neurons of a language *among certain "
            "others*."
        )
    return prose(text)


def methods_shared_table(found: pd.DataFrame) -> Styler | Markdown:
    """What methods share, beside chance: `contenders.shared_by_methods`; or that there is none."""
    if found.empty:
        return prose("No two methods have neurons of the same language.")
    shown = found[["language", "a", "b", "shared", "chance", "ratio", "p", "against"]].rename(
        columns={
            "a": "one method",
            "b": "the other",
            "chance": "by chance",
            "p": "p of so many",
            "against": "than chance",
        }
    )
    return figures.table(
        shown,
        "Neurons of one language that two methods both choose; by chance: random sets with their "
        "counts in every layer (more or fewer at p < .01, each row by itself)",
        {"by chance": "{:.1f}", "ratio": "{:.2f}", "p of so many": p_value},
    )


# --- what they put out ----------------------------------------------------------------------------


def statistics_table(means: pd.DataFrame, least: float | None = None) -> Styler:
    """The paper's Table 6, before and after `act_fn`: `activations.means_over_neurons`."""
    caption = "Statistics of activations, averaged over all neurons"
    if least is not None:
        caption += f"; the least value that act_fn can put out is {least:.3f}"
    shown = means.assign(place=means["place"] + " act_fn").rename(columns={"place": "read"})
    return figures.table(shown, caption, dict.fromkeys(STATISTICS, "{:.3f}"))


def out_of_reach_table(reach: pd.DataFrame) -> Styler:
    """How many of the values to be written are below anything the neuron can put out."""
    wide = reach.pivot_table(
        index=["method", "language"], columns=["statistic", "place"], values="share", sort=False
    )
    columns = [(name, place) for place in PLACES for name in ("P5", "P10", "P25", "mean")]
    shown = wide[columns].copy()
    shown.columns = [f"{name} {place}" for name, place in columns]
    return figures.table(
        shown.reset_index(),
        "Share of a set's neurons whose value, read before or after act_fn, is below anything that "
        "act_fn puts out",
        dict.fromkeys(shown.columns, "{:.0%}"),
    )


def written_values_table(reach: pd.DataFrame) -> Styler:
    """Statistics of each set's activations, before and after `act_fn`: means over its neurons."""
    wide = reach.pivot_table(
        index=["method", "language", "place"], columns="statistic", values="value", sort=False
    )
    shown = wide[[*STATISTICS]].reset_index()
    shown["place"] = shown["place"] + " act_fn"
    return figures.table(
        shown.rename(columns={"place": "read"}),
        "Statistics of activations in the set's own language, averaged over its neurons",
        dict.fromkeys(STATISTICS, "{:.3f}"),
    )


def out_of_reach_in_words(reach: pd.DataFrame) -> Markdown:
    """Which of the paper's deactivating values are states that no text brings a neuron into."""
    p10 = reach[reach["statistic"] == "P10"]
    before = p10[p10["place"] == "before"].groupby("method", sort=False)["share"]
    after = p10[p10["place"] == "after"]["share"].max()
    said = "; ".join(
        f"{as_markdown(method)} {own.min():.0%} to {own.max():.0%}" for method, own in before
    )
    return prose(
        "Of the tenth percentiles as the paper's code takes them, before `act_fn`, these shares "
        f"lie below what the neurons can put out, by method (range over languages): {said}. Read "
        f"where they are written, after `act_fn`, {after:.0%} do."
    )


# --- what is done to the loss ---------------------------------------------------------------------


def ratios_figure(changes: pd.DataFrame, method: str) -> HTML:
    """Perplexity with one method's sets set to zero, over that without (Figure 1: less)."""
    own = changes[(changes["method"] == method) & (changes["set_to"] == ZERO)]
    matrix = own.pivot_table(
        index="mask_language", columns="text_language", values="ratio", sort=False
    )
    matrix = matrix[[*matrix.index, *matrix.columns.difference(matrix.index)]]
    told = "; ".join(
        f"{row} neurons: " + ", ".join(f"{x} {v:.2f}" for x, v in values.items())
        for row, values in matrix.iterrows()
    )
    return figures.show(
        figures.matrix_heatmap(
            matrix,
            "perplexity, set to zero / untouched",
            row_label="language whose neurons are set to zero",
            title=method,
        ),
        alt=f"Ratio of perplexities for {method}, by language of the text. {told}.",
    )


def values_figure(changes: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """What every value does to the language's own loss and to the largest other, by method."""
    rows = _own_and_other(changes).copy()
    rows["row"] = rows["method"] + ", " + rows["set_to"]
    panels = {}
    for column, label in (("own", "own loss (nats per token)"), ("other", "largest other loss")):
        part = rows[["row", "mask_language"]].rename(columns={"mask_language": "series"})
        part["value"] = rows[column].to_numpy()
        part["low"], part["high"] = rows[f"{column}_low"], rows[f"{column}_high"]
        panels[label] = part
    told = [
        (
            f"{row}: own {own['own'].mean():+.2f}, largest other {own['other'].mean():+.2f}",
            own["own"].mean(),
        )
        for row, own in rows.groupby("row", sort=False)
    ]
    return figures.show(
        figures.dot_ranges(panels, zero=list(panels), names=dict(names)),
        alt=in_short(
            "Change of held-out loss by method and value, in nats per token. Means over languages:",
            told,
            "lsn_perplexity*.csv",
            by="own loss",
        ),
    )


def _own_and_other(changes: pd.DataFrame) -> pd.DataFrame:
    """One row per set and value: the change of its own loss, and of the one hit most besides."""
    rows = []
    keys = ["method", "mask_language", "set_to"]
    for (method, x, set_to), found in changes.groupby(keys, sort=False):
        own = found[found["text_language"] == x].iloc[0]
        others = found[found["text_language"] != x]
        other = others.iloc[int(others["change"].to_numpy().argmax())]
        row = {"method": method, "mask_language": x, "set_to": set_to}
        row |= {"n_neurons": own["n_neurons"], "other_language": other["text_language"]}
        for name, of in (("own", own), ("other", other)):
            row |= {name: of["change"], f"{name}_low": of["change_low"]}
            row |= {f"{name}_high": of["change_high"]}
        for name in ("null_masks", "null_mean", "percentile", "q"):
            row[name] = own.get(name)
        rows.append(row)
    return pd.DataFrame(rows)


def changes_table(changes: pd.DataFrame) -> Styler:
    """What zero, and values with a null, do in numbers, and where that lies among random masks."""
    found = _own_and_other(changes)
    found = found[(found["set_to"] == ZERO) | (found["null_masks"].fillna(0) > 0)]
    found["own"] = [
        f"{v:+.3f} [{low:+.3f}, {high:+.3f}]"
        for v, low, high in zip(found["own"], found["own_low"], found["own_high"], strict=True)
    ]
    shown = found.rename(
        columns={
            "mask_language": "neurons of",
            "set_to": "set to",
            "own": "own loss",
            "other": "largest other",
            "other_language": "which",
            "null_masks": "random masks",
            "null_mean": "their mean",
        }
    )
    values = sorted(dict.fromkeys(shown["set to"]), key=lambda value: value != ZERO)
    columns = ["set to", "method", "neurons of", "own loss", "largest other", "which"]
    columns += ["random masks", "their mean", "percentile", "q"]
    return figures.table(
        pd.concat(shown.loc[shown["set to"] == value, columns] for value in values),
        "Change of held-out loss in nats per token, with 95 % intervals over windows, and where "
        "the own change lies among random masks with as many neurons in every layer, set likewise "
        "(q: Benjamini–Hochberg over the rows of a value)",
        {
            "largest other": "{:+.3f}",
            "random masks": "{:.0f}",
            "their mean": "{:+.3f}",
            "percentile": "{:.0f}",
            "q": "{:.3f}",
        },
    )


def zero_in_words(changes: pd.DataFrame) -> Markdown:
    """In how many sets each value harms the own language more than zero, and more than chance."""
    found = _own_and_other(changes)
    wide = found.pivot_table(
        index=["method", "mask_language"], columns="set_to", values="own", sort=False
    )
    said = []
    for value in (name for name in wide if name != ZERO):
        more = int((wide[value] > wide[ZERO]).sum())
        said.append(f"{as_markdown(value)} in {more} of {len(wide)} sets")
    lines = [
        "Numerically more is added to the language's own loss than by zero when the neurons are "
        "set to " + ", ".join(said) + "."
    ]
    for value in (ZERO, *(name for name in wide if name != ZERO)):
        at = found[found["set_to"] == value]
        known = at[at["null_masks"].fillna(0) >= ENOUGH]
        if known.empty:
            continue
        beyond = known[(known["q"] <= FDR) & (known["own_low"] > 0)]
        names = ", ".join(
            f"{as_markdown(row['method'])} {as_markdown(row['mask_language'])}"
            for _, row in beyond.iterrows()
        )
        lines.append(
            f"Set to {as_markdown(value)}, {len(beyond)} of the {len(known)} sets with a null "
            "clearly add to their own language's loss and more than random masks of their own "
            "profile do" + (f": {names}." if names else ".")
        )
        open_yet = known[(known["percentile"] == 100) & (known["q"] > FDR)]
        if len(open_yet):
            lines.append(
                f"{len(open_yet)} more lie beyond all of theirs, which are too few to tell."
            )
    return prose("\n\n".join(lines))
