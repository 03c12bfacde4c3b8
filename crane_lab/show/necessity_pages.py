"""What notebook 09 shows of single ablations: which neurons a language needs, and it alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_core.selection import NeuronSet, margins
from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.study import summaries
from crane_lab.study.necessity import Necessity

#: What the values that a neuron is set to are called in a sentence.
VALUES = {"zero": "zero", "mean": "its mean"}


def measured(
    necessity: Necessity, names: Mapping[str, str], window: int, recomputed: bool
) -> Markdown:
    """How many neurons were ablated, to what, on how much text, and when."""
    n_neurons = next(iter(necessity.set_to.values())).numel()
    n = necessity.n_texts
    return prose(
        f"{n_neurons:,} neurons, each set to "
        + " and to ".join(VALUES.get(value, value) for value in necessity.values)
        + f", in {len(names)} languages with {n} texts of {window} tokens "
        f"({n * (window - 1):,} predictions) each. "
        + ("Measured in this run." if recomputed else "Read from the shipped file.")
    )


def spread_table(table: pd.DataFrame) -> Styler:
    """`summaries.spread` as a table, in thousandths of a nat."""

    def signed(nats: float) -> str:
        return f"{1000 * nats:+.2f}"

    return figures.table(
        table,
        "Quantiles of the loss increase by a single ablation (millinats per token), the median of "
        "its standard error over texts, and the share of all increases that falls to one percent "
        "of the neurons",
        {
            **{f"{q:.0%}": signed for q in summaries.QUANTILES},
            "standard error": lambda nats: f"{1000 * nats:.2f}",
            "top 1 % of neurons": "{:.0%}",
        },
    )


def clouds(
    necessity: Necessity, names: Mapping[str, str], value: str = "zero", reach: float = 15
) -> HTML:
    """Each neuron's effect on a language against its largest effect on another one.

    Axes end at `reach` millinats per token; what lies beyond is left out and counted.
    """
    effects = {x: necessity.necessity(x, value).value for x in necessity.languages}
    inside, titles, told = {}, {}, []
    for x in effects:
        own, other = (1000 * part.flatten().numpy() for part in margins(effects, x))
        far = np.maximum(np.abs(own), np.abs(other)) > reach
        inside[x] = (np.where(far, np.nan, other), np.where(far, np.nan, own))
        titles[x] = f"{names[x]} ({int(far.sum())} beyond ±{reach:g} left out)"
        rho = pd.Series(other).corr(pd.Series(own), method="spearman")
        told.append(f"{names[x]}: rank correlation {rho:.2f}.")
    return figures.show(
        figures.scatter(
            inside,
            "largest increase of another language's loss (millinats per token)",
            "increase of this language's loss",
            titles,
            log=False,
        ),
        alt="Each neuron's effect on one language against its largest effect on another. "
        + " ".join(told),
    )


def significant(counts: pd.DataFrame, level: float, shape: tuple[int, int]) -> Styler:
    """`summaries.significant_counts` at a false-discovery rate; `shape` is (layers, neurons)."""
    layers, width = shape
    return figures.table(
        counts.rename(columns=lambda name: name.replace("_", " ")),
        f"Neurons that are significantly necessary or selective, false-discovery rate {level:.0%}, "
        f"of {layers * width:,} ({width} per layer)",
        {"n": "{:,}", "share": "{:.1%}"},
    )


def selective_by_layer(
    necessity: Necessity, names: Mapping[str, str], level: float, value: str = "zero"
) -> HTML:
    """In which layers the neurons lie that are significantly selective for each language."""
    sets = {}
    for x in necessity.languages:
        hit = necessity.significant(x, "selectivity", value, level)
        sets[names[x]] = NeuronSet({"intermediate": hit}, {"intermediate": tuple(hit.shape)})
    told = " ".join(
        f"{name}: {', '.join(str(n) for n in own.counts('intermediate').tolist())}."
        for name, own in sets.items()
    )
    return figures.show(
        figures.layer_counts(sets, "intermediate", "Selective neurons by layer"),
        alt=f"Number of selective neurons per layer. {told}",
    )


def effects_reliability(trust: pd.DataFrame) -> Styler:
    """How well the effects agree with themselves; `trust` as `criteria.split_half` returns it."""
    return figures.table(
        trust.rename(columns={"truth": "effect"}),
        "Rank correlation of the effects on one half of the texts with those on the other, and "
        "what it amounts to for all texts (Spearman and Brown): about the most one can reach",
        {"halves": "{:.2f}", "all": "{:.2f}"},
    )


def zero_against_mean_in_words(necessity: Necessity, names: Mapping[str, str]) -> Markdown:
    """How far it matters what a neuron is set to."""
    found = summaries.zero_against_mean(necessity)
    if not found:
        values = ", ".join(VALUES.get(value, value) for value in necessity.values)
        return prose(f"Neurons were set to {values} only, so there is nothing to compare.")
    return prose(
        "Zero against mean: the rank correlation of the two selectivities is "
        + ", ".join(f"{as_markdown(names[x])} {rho:.2f}" for x, rho in found.items())
        + "."
    )
