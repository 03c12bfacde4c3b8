"""Tables, figures and sentences of notebook 15, Neurons of many languages.

`sets` is method -> language -> neurons, `overlaps` method -> the table of
`relatedness.language_overlaps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_core.neurons import NeuronSet
from crane_lab.show import figures, languages_figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value
from crane_lab.stages.standing import FDR
from crane_lab.study.language_profiles import depth_shares, language_tree
from crane_lab.study.many_languages import CONTRASTS, METHODS
from crane_lab.study.relatedness import excess_matrix
from crane_lab.texts.names import full_names
from crane_lab.texts.typology import by_family, family_of, script_of

Sets = Mapping[str, Mapping[str, NeuronSet]]
_MORE_THAN_CHANCE = "shared neurons more than by chance (standard deviations)"


def languages_made_in_words(about: Mapping[str, Any]) -> Markdown:
    """What sets of many languages were made with: the record of `many_languages.read_sets`."""
    choice, made = about["choice"], about["made"]
    rule, threshold, normalisation = about["rule"]
    layers, width = about["shape"]
    return prose(
        f"{len(about['languages'])} languages, {about['windows']} windows of {about['tokens']} "
        f"tokens each; {layers} layers of {width:,} neurons. LAPE takes {choice['rate']:.0%} of "
        f"them, relevance {choice['share']:.0%} for each language; CRANE's rule is "
        f"{as_markdown(rule)} at {threshold:g} ({as_markdown(normalisation)}). On "
        f"{as_markdown(str(made['machine']['cpu']))} with torch "
        f"{as_markdown(made['versions']['torch'])}, by `python -m crane_lab.cli.languages`."
    )


def languages_table(sets: Sets) -> Styler:
    """The languages by family, with their script and how many neurons each method gives them."""
    languages = by_family(list(next(iter(sets.values()))))
    names = full_names(languages)
    rows = [
        {
            "code": x,
            "language": names[x],
            "family": family_of(x),
            "script": script_of(x),
            **{method: len(of[x]) for method, of in sets.items()},
        }
        for x in languages
    ]
    return figures.table(
        pd.DataFrame(rows), "Neurons of each language by method", dict.fromkeys(sets, "{:,}")
    )


def lape_choices_table(choices: pd.DataFrame) -> Styler:
    """LAPE's sets by rate and languages compared: `many_languages.lape_choices`."""
    rows = []
    for (among, rate), own in choices.groupby(["among", "rate"], sort=False):
        sizes = own["neurons"]
        rows.append(
            {
                "languages": among,
                "taken": f"{rate:.0%}",
                "neurons of a language": f"{sizes.median():.0f} ({sizes.min()} to {sizes.max()})",
                "in the last third": own["late"].mean(),
                "Jaccard": own["jaccard"].mean(),
            }
        )
    return figures.table(
        pd.DataFrame(rows),
        "LAPE's sets by the languages compared and the share of all neurons that is taken: median "
        "size (least to most), mean share in the last third of the layers, and mean Jaccard index "
        "with the sets that are used on this page",
        {"in the last third": "{:.0%}", "Jaccard": "{:.2f}"},
    )


def lape_seven_table(choices: pd.DataFrame) -> Styler:
    """LAPE's sets among the second paper's seven languages (its Set1), language by language."""
    least = choices[["among", "rate"]].min()
    own = choices[(choices["among"] == least["among"]) & (choices["rate"] == least["rate"])]
    names = full_names(list(own["language"]))
    return figures.table(
        own.assign(language=[names[x] for x in own["language"]])[
            ["language", "neurons", "late", "jaccard"]
        ].rename(columns={"late": "in the last third", "jaccard": "Jaccard"}),
        f"LAPE's sets among {len(own)} languages, {least['rate']:.0%} of all neurons; Jaccard "
        "index with the sets that are used on this page",
        {"in the last third": "{:.0%}", "Jaccard": "{:.2f}"},
    )


def languages_depth_figure(sets: Sets) -> HTML:
    """Where the neurons are that LAPE and the contrasts give to a language."""
    languages = list(next(iter(sets.values())))
    every = {method: depth_shares(sets[method]) for method in CONTRASTS}
    tables = {method: own for method, own in every.items() if len(own) == len(languages)}
    told = []
    for method, own in tables.items():
        mean = own.mean()
        told.append(f"{method}: most in layer {int(mean.to_numpy().argmax())}, {mean.max():.0%}")
    return figures.show(
        languages_figures.depth_heatmaps(tables, {x: family_of(x) for x in languages}),
        alt="Share of each language's neurons in each layer. Mean over languages: "
        + "; ".join(told),
    )


def late_table(found: pd.DataFrame) -> Styler:
    """How much of the sets lies in the last third: `language_profiles.late_shares`."""
    shown = found.assign(
        range=[f"{row.low:.2f} to {row.high:.2f}" for row in found.itertuples()],
        above=[f"{row.more} of {row.languages}" for row in found.itertuples()],
    )
    columns = ["method", "share", "range", "chance", "above", "p", "q"]
    return figures.table(
        shown[columns].rename(
            columns={
                "share": "in the last third",
                "range": "over languages",
                "above": "languages above",
            }
        ),
        "Share of a language's neurons in the last third of the layers, mean over languages; p is "
        f"over {int(found['families'].max())} families, since related languages share neurons, and "
        "q corrected over the methods",
        {"in the last third": "{:.2f}", "chance": "{:.2f}", "p": p_value, "q": p_value},
    )


def script_table(found: pd.DataFrame) -> Styler:
    """Sizes by script: `language_profiles.sizes_by_script`."""
    names = {
        "latin": "languages in Latin script",
        "latin_median": "median neurons",
        "other": "in others",
        "other_median": "median neurons there",
    }
    formats = {"median neurons": "{:,.0f}", "median neurons there": "{:,.0f}"}
    return figures.table(
        found.rename(columns=names),
        "How many neurons a language has, by script (methods that give all languages the same "
        "number are left out)",
        {**formats, "p": p_value, "q": p_value},
    )


def overlap_figure(overlaps: pd.DataFrame, languages: Sequence[str], method: str) -> HTML:
    """What every two languages share beside chance, families side by side."""
    ordered = by_family(languages)
    matrix = pd.DataFrame(excess_matrix(overlaps, ordered), ordered, ordered)
    most = overlaps.nlargest(4, "excess")
    told = ", ".join(
        f"{row.a} and {row.b} {row.shared} (chance {row.pool_chance:.1f})"
        for row in most.itertuples()
    )
    return figures.show(
        languages_figures.relation_heatmap(
            matrix, {x: family_of(x) for x in ordered}, _MORE_THAN_CHANCE, method
        ),
        alt=f"Neurons that two languages' sets share beside chance, {method}. Most: {told}.",
    )


def language_tree_figure(overlaps: pd.DataFrame, languages: Sequence[str], method: str) -> HTML:
    """The tree that the overlaps make, with families as colours."""
    ordered = by_family(languages)
    names = full_names(ordered)
    tree = language_tree(overlaps, ordered)
    first = ", ".join(
        f"{names[ordered[int(a)]]} with {names[ordered[int(b)]]}"
        for a, b in tree[:, :2]
        if max(a, b) < len(ordered)
    )
    return figures.show(
        languages_figures.tree_figure(
            tree,
            [names[x] for x in ordered],
            {names[x]: family_of(x) for x in ordered},
            "how much less is shared than by the closest pair (standard deviations)",
        ),
        alt=f"A tree of languages by the neurons that they share, {method}. Languages that are "
        f"joined with each other before any third: {first}.",
    )


def mantel_table(found: Mapping[str, pd.DataFrame]) -> Styler:
    """Overlap against distance, by method: `relatedness.mantel_tests`."""
    every = pd.concat(found, names=["method", None]).reset_index("method")
    return figures.table(
        every[["method", "distance", "rho", "p", "q"]],
        "Rank correlation of what two languages share beside chance with the distance between "
        "them, negative if near ones share more (Mantel's test; q is corrected over a method's "
        "five)",
        {"rho": "{:+.2f}", "p": "{:.4f}", "q": "{:.4f}"},
    )


def together_table(found: Mapping[str, pd.DataFrame]) -> Styler:
    """All distances in one regression, by method: `relatedness.distances_together`."""
    every = pd.concat(found, names=["method", None]).reset_index("method")
    return figures.table(
        every.rename(columns={"inflation": "variance inflation"}),
        "What two languages share beside chance on all distances at once: standardised slopes of "
        "ranks, negative if near ones share more with the others equal (languages are permuted; q "
        "is corrected over a method's)",
        {"slope": "{:+.2f}", "p": "{:.4f}", "q": "{:.4f}", "variance inflation": "{:.1f}"},
    )


def mantel_in_words(found: Mapping[str, pd.DataFrame], level: float = FDR) -> Markdown:
    """Which distances the overlaps follow, method by method."""
    lines = []
    for method, own in found.items():
        sure = own[own["q"] <= level].sort_values("rho")
        said = ", ".join(f"{row.distance} ({row.rho:+.2f})" for row in sure.itertuples())
        lines.append(f"- {as_markdown(method)}: {said or 'none of the five'}.")
    return prose("Near languages share more, certainly, by these distances:\n\n" + "\n".join(lines))


def together_in_words(found: Mapping[str, pd.DataFrame], level: float = FDR) -> Markdown:
    """Which distances are left with something of their own, method by method."""
    lines = []
    for method, own in found.items():
        sure = own[(own["q"] <= level) & (own["slope"] < 0)]
        said = ", ".join(f"{row.distance} ({row.slope:+.2f})" for row in sure.itertuples())
        none = "none, so that kinship is not told from place, grammar and script"
        lines.append(f"- {as_markdown(method)}: {said or none}.")
    return prose("Certain with the others equal, by method:\n\n" + "\n".join(lines))


def controls_figure(found: pd.DataFrame) -> HTML:
    """What is left of a language's set in its own text romanised or shuffled, by method."""
    own = found[found["method"].isin(METHODS)]
    names = {"none": "other half of its text", "shuffled": "shuffled", "romanised": "romanised"}
    languages = by_family(list(dict.fromkeys(own["language"])))
    tables, told = {}, []
    for method, part in own.groupby("method", sort=False):
        series = part["control"].map(names)
        tables[str(method)] = pd.DataFrame(
            {"row": part["language"], "series": series, "value": part["jaccard"]}
        )
        means = part.groupby("control", sort=False)["jaccard"].mean()
        said = ", ".join(f"{names[str(x)]} {value:.2f}" for x, value in means.items())
        told.append((f"{method}: {said}", means.max()))
    return figures.show(
        figures.dot_ranges(
            tables,
            order=languages,
            title="Jaccard index with a language's set",
            same_scale=True,
        ),
        alt=in_short(
            "Jaccard index of a language's set with those of its other half, of its shuffled and "
            "of its romanised text. Means:",
            told,
            "languages_controls.csv",
        ),
    )


def controls_table(found: pd.DataFrame) -> Styler:
    """The same in numbers: each control beside the other half of the same languages' text."""
    rows = []
    for (method, control), own in found.groupby(["method", "control"], sort=False):
        if control == "none":
            continue
        half = found[(found["method"] == method) & (found["control"] == "none")]
        pair = own.merge(half, on="language", suffixes=("", "_half"))
        rows.append(
            {
                "method": method,
                "text": control,
                "languages": len(pair),
                "neurons": pair["neurons"].mean(),
                "Jaccard, other half": pair["jaccard_half"].mean(),
                "Jaccard": pair["jaccard"].mean(),
                "less than the half": int((pair["jaccard"] < pair["jaccard_half"]).sum()),
                "times chance": pair["shared"].sum() / pair["chance"].sum(),
                "times chance, other half": pair["shared_half"].sum() / pair["chance_half"].sum(),
            }
        )
    forms = {"neurons": "{:,.0f}", "Jaccard": "{:.3f}", "Jaccard, other half": "{:.3f}"}
    forms |= dict.fromkeys(("times chance", "times chance, other half"), "{:.1f}")
    return figures.table(
        pd.DataFrame(rows),
        "What a language's set shares with that of its text under a control, and with that of its "
        "other half, means over the same languages; chance is that of random sets with as many "
        "neurons in every layer",
        forms,
    )


def overlaps_in_words(overlaps: Mapping[str, pd.DataFrame], level: float = FDR) -> Markdown:
    """How many pairs share certainly more than chance, of all neurons and within the pool."""
    lines = []
    for method, own in overlaps.items():
        sure = int((own["q"] <= level).sum())
        lines.append(
            f"- {as_markdown(method)}: pairs share {own['shared'].mean():.1f} neurons on average; "
            f"sets drawn from all neurons would share {own['chance'].mean():.1f}, sets drawn from "
            f"the method's own {own['pool_chance'].mean():.1f}. {sure} of {len(own)} pairs share "
            "certainly more than the latter."
        )
    return prose("\n".join(lines))


def stability_table(found: pd.DataFrame) -> Styler:
    """How much two sets from different windows share, by how many windows each has."""
    grouped = found.groupby(["method", "windows"], sort=False)
    rows = grouped.agg(languages=("language", "size"), mean=("jaccard", "mean"))
    rows["least"], rows["most"] = grouped["jaccard"].min(), grouped["jaccard"].max()
    return figures.table(
        rows.reset_index().rename(columns={"mean": "Jaccard, mean"}),
        "Jaccard index of two sets of one language from different windows, over languages",
        dict.fromkeys(["Jaccard, mean", "least", "most"], "{:.2f}"),
    )


def stability_in_words(found: pd.DataFrame) -> Markdown:
    """How much text is enough, method by method; `found` as `stability_table` takes it."""
    means = found.groupby(["method", "windows"])["jaccard"].mean().unstack("windows")
    few, many = means.columns[0], means.columns[-1]
    lines = []
    for method, own in means.sort_values(many, ascending=False).iterrows():
        before = f" ({own[few]:.2f} with {few})" if few != many else ""
        line = f"- {as_markdown(method)}: {own[many]:.2f} with {many} windows each{before}"
        if own[many] < 0.5:
            line += "; most neurons of such a set depend on which windows are read"
        lines.append(f"{line}.")
    return prose(
        "What two sets of one language from different windows share (Jaccard, mean over "
        "languages):\n\n" + "\n".join(lines)
    )
