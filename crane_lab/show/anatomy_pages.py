"""Tables, figures and sentences of criteria taken apart (`anatomy`), and of what sets are good for.

Losses are nats per token, means over languages.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML, Markdown
from numpy.typing import ArrayLike
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.criteria_pages import GREEDY, SINGLE
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.study.anatomy import ATTNLRP
from crane_lab.study.criteria import OBJECTIVES

#: What `anatomy.estimates` calls what is taken, in words.
TAKEN = {"sign": "signed mean", "size": "mean of sizes"}


def sets_apart_table(parts: pd.DataFrame, share: float) -> Styler:
    """What sets do together and one by one; `parts` is `anatomy.parts_of`."""
    shown = parts[["criterion", "own", "other", "predicted", "ratio", "elsewhere", "late"]].copy()
    for name in ("elsewhere", "late"):
        shown[name] = 100 * shown[name]
    names = {
        "own": "own loss",
        "other": "largest other",
        "predicted": "sum of neurons alone",
        "ratio": "together / alone",
        "elsewhere": "needed elsewhere",
        "late": "in the last third",
    }
    loss, percent = "{:+.3f}", "{:.0f} %"
    return figures.table(
        shown.rename(columns=names),
        f"Sets of {100 * share:g} % of all neurons on the testbed, by own less largest other loss "
        "(nats per token, mean over languages): the whole set, the sum of single ablations for the "
        "own language, neurons that are among the tenth most needed of another language, and those "
        "in the last third of the layers",
        {
            **dict.fromkeys(("own loss", "largest other", "sum of neurons alone"), loss),
            "together / alone": "{:.1f}",
            **dict.fromkeys(("needed elsewhere", "in the last third"), percent),
        },
    )


def parts_in_words(parts: pd.DataFrame) -> Markdown:
    """Whether measured single effects make the best sets, and what the search adds."""
    lead = dict(zip(parts["criterion"], parts["difference"], strict=True))
    better = [
        f"“{as_markdown(name)}” ({lead[name]:+.3f})"
        for name in lead
        if name not in (SINGLE, GREEDY) and lead[name] > lead[SINGLE]
    ]
    ratios = parts["ratio"].dropna()
    first = (
        f"The order by measured single effects ({lead[SINGLE]:+.3f}) is beaten by "
        f"{' and '.join(better)}, which know no ablation."
        if better
        else f"No candidate beats the order by measured single effects ({lead[SINGLE]:+.3f})."
    )
    return prose(
        f"{first} The greedy search, which looks at sets, has {lead[GREEDY]:+.3f}. Together a "
        f"set's neurons do {ratios.min():.1f} to {ratios.max():.1f} times what they do alone: one "
        "stands in for another, so that an ablation of one shows little of what all are worth."
    )


def estimates_figure(estimates: pd.DataFrame) -> HTML:
    """How well ways to trace predictions back foresee single ablations; `anatomy.estimates`."""
    every = estimates[estimates["language"] == "all"]
    rows = [
        f"{name}, {TAKEN[taken]}" for name in dict.fromkeys(every["estimator"]) for taken in TAKEN
    ]
    panels, told = {}, []
    for truth, own in every.groupby("truth", sort=False):
        part = own[["low", "high"]].copy()
        part["row"] = own["estimator"] + ", " + own["taken"].map(TAKEN)
        part["series"], part["value"] = "of the " + own["objective"].map(OBJECTIVES), own["rho"]
        panels[f"rank correlation with {truth}"] = part
        best = own.sort_values("rho").iloc[-1]
        told.append(f"{truth}: best {_estimator(best)}")
    return figures.show(
        figures.dot_ranges(panels, zero=list(panels), order=rows),
        alt=f"Rank correlation of estimators with single ablations. {'; '.join(told)}.",
    )


def estimates_in_words(estimates: pd.DataFrame) -> Markdown:
    """Which estimator foresees single ablations best, and how far AttnLRP comes."""
    every = estimates[estimates["language"] == "all"]
    lines = []
    for truth, own in every.groupby("truth", sort=False):
        ordered = own.sort_values("rho", ascending=False)
        first = _estimator(ordered.iloc[0])
        relevance = _estimator(ordered[ordered["estimator"] == ATTNLRP].iloc[0])
        lines.append(f"- {truth}: the best guide is {first}; of relevance, {relevance}.")
    return prose("\n".join(lines))


def _estimator(row: pd.Series) -> str:
    return (
        f"{row['estimator']} ({TAKEN[row['taken']]} of the {OBJECTIVES[row['objective']]}), "
        f"{row['rho']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    )


def windows_figure(means: pd.DataFrame) -> HTML:
    """What criteria find that are given few windows of text; `means` is `anatomy.by_windows`."""
    damage: dict[str, Sequence[ArrayLike]] = {}
    shared: dict[str, Sequence[ArrayLike]] = {}
    for name, own in means.sort_values("windows").groupby("criterion", sort=False):
        damage[str(name)] = (own["windows"], own["difference"], own["low"], own["high"])
        shared[str(name)] = (own["windows"], own["jaccard"])
    few = means[means["windows"] == means["windows"].min()]
    told = "; ".join(
        f"{row['criterion']} {row['difference']:+.3f} and {row['jaccard']:.2f}"
        for row in few.to_dict("records")
    )
    return figures.show(
        figures.curves(
            {"Own less largest other loss (nats per token)": damage, "Jaccard index": shared},
            "windows of text per language",
            "",
            xscale="log",
        ),
        alt="Difference of losses, and Jaccard index with the set found from the most windows, by "
        f"windows. With the fewest: {told}.",
    )


def uses_table(summary: pd.DataFrame, share: float, languages: int) -> Styler:
    """LangSpec-F1 and fidelity under candidates' sets; `summary` is `uses.uses_summary`."""
    shown = pd.DataFrame({"sets": summary["method"]})
    for read in ("tasks", "answers"):
        for model in ("base", "chat"):
            shown[f"F1, {read}, {model}"] = summary[f"{read}, {model}"]
    if "beyond" in summary:
        shown["beyond random"] = [f"{n} of {languages}" for n in summary["beyond"]]
    for model in ("base", "chat"):
        shown[f"fidelity, {model}"] = [
            f"{100 * own:+.0f} | {100 * other:+.0f}"
            for own, other in zip(summary[f"own, {model}"], summary[f"other, {model}"], strict=True)
        ]
    return figures.table(
        shown,
        f"Sets of {100 * share:g} % of all neurons, found in the base model: LangSpec-F1, mean "
        "over masked languages; and the change, in points, of answers in the language of the "
        "question: the masked language's | the most another loses",
        dict.fromkeys((c for c in map(str, shown) if c.startswith("F1")), "{:.3f}"),
    )
