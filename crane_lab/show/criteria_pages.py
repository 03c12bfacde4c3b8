"""What notebooks 09b and 09c show of criteria: against single ablations, and by what their sets do.

`names` is everywhere language -> its name; `agreed`, `found` and `damaged` are the tables of
`criteria.rank_agreement` (with a column `set_to`), `criteria.precision` and `damage.damage`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import written_intervals
from crane_lab.study import criteria, summaries
from crane_lab.study.damage import GREEDY, SINGLE

RANDOM = "random order"
#: Columns of `damaged` that a figure can show -> what is on its axis.
DAMAGE = {
    "difference": "own loss increase less the largest other (nats)",
    "own": "increase of the masked language's loss (nats)",
}

# ------------------------------------------------------------------------ against single ablations


def correlations(
    agreed: pd.DataFrame, trust: pd.DataFrame, names: Mapping[str, str], value: str = "zero"
) -> HTML:
    """How each criterion ranks neurons, language by language, with the limits that noise sets.

    `trust` is `criteria.split_half` of the effects at `value`.
    """
    overall = summaries.overall(agreed, value)
    shown = agreed[(agreed["set_to"] == value) & (agreed["language"] != "all")]
    shown = shown.merge(trust, on=["truth", "language"]).rename(
        columns={"criterion": "row", "language": "series", "rho": "value", "all": "reference"}
    )
    shown["reference"] = criteria.attainable(shown["reference"])
    panels = {
        f"rank correlation with {truth}": own for truth, own in shown.groupby("truth", sort=False)
    }
    figure = figures.dot_ranges(
        panels,
        zero=list(panels),
        reference_label="limit set by noise",
        order=overall["criterion"].to_list(),
        names=names,
    )
    return figures.show(
        figure,
        alt=in_short(
            "Rank correlation of each criterion with necessity and with selectivity, by language, "
            "with intervals. Mean over languages, selectivity:",
            [(f"{r['criterion']} {r['rho']:+.2f}", r["rho"]) for r in overall.to_dict("records")],
            "criteria_ranking.csv",
        ),
    )


def correlations_table(agreed: pd.DataFrame, reference: str, value: str = "zero") -> Styler:
    """The correlations as means over languages, at every value that neurons were set to."""
    overall = summaries.overall(agreed, value)
    shown = overall[["criterion"]].copy()
    for set_to in dict.fromkeys(agreed["set_to"]):
        for kind in criteria.KINDS[::-1]:
            own = agreed[
                (agreed["set_to"] == set_to)
                & (agreed["truth"] == kind)
                & (agreed["language"] == "all")
            ].set_index("criterion")
            own = own.loc[shown["criterion"]]
            shown[f"{kind} ({set_to})"] = written_intervals(own, "rho", form="{:+.2f}")
    shown["ahead of CRANE"] = written_intervals(
        overall, "ahead", "ahead_low", "ahead_high", "{:+.2f}"
    )
    return figures.table(
        shown,
        "Rank correlations, mean over languages, with 95 % intervals; in round brackets what "
        "neurons were set to. Last column: correlation with selectivity less that of CRANE's "
        f"default score ({reference}), from the same resamples",
    )


def correlations_in_words(agreed: pd.DataFrame, reference: str, value: str = "zero") -> Markdown:
    """Whether CRANE's default score, and how many criteria, rank better than a random order."""
    overall = summaries.overall(agreed, value)
    rows = overall.to_dict("records")
    best, crane = rows[0], next(row for row in rows if row["criterion"] == reference)

    def said(row: Mapping[Hashable, Any]) -> str:
        return f"{row['rho']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"

    if crane["low"] > 0:
        verdict = "clearly above a random order."
    elif crane["high"] < 0:
        verdict = "clearly below a random order."
    else:
        verdict = "not to be told from a random order: a null result."
    return prose(
        f"CRANE's default score correlates with selectivity at {said(crane)} (mean over "
        f"languages), which is {verdict} {int((overall['low'] > 0).sum())} of {len(overall)} "
        "criteria are clearly above a random order; "
        f"{int((overall['ahead_low'] > 0).sum())} are clearly ahead of CRANE. The first is "
        f"{best['criterion']} with {said(best)}."
    )


def _precision(found: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Criteria by budgets, means over languages; the last row is a random order's."""
    wide = found.groupby(["criterion", "budget"])["significant"].mean().unstack().loc[list(order)]
    wide.loc[RANDOM] = found.groupby("language")["significant_chance"].first().mean()
    return wide


def precision_table(found: pd.DataFrame, order: Sequence[str]) -> Styler:
    """The share of each criterion's first neurons that are selective, in the `order` given."""
    wide = _precision(found, order).rename(columns=str)
    return figures.table(
        wide.reset_index(),
        "Precision at budget: the share of each criterion's first neurons that are significantly "
        "selective for the language (mean over languages). A random order gets the share among all",
        dict.fromkeys(wide.columns, "{:.0%}"),
    )


def precision_curves(
    found: pd.DataFrame,
    order: Sequence[str],
    names: Mapping[str, str],
    highlighted: Sequence[str] = (),
) -> HTML:
    """The same, language by language; `highlighted` criteria are in colour."""
    budgets = sorted(set(found["budget"]))
    panels = {}
    for x, own in found.groupby("language", sort=False):
        curves = {
            str(name): (rows["budget"], rows["significant"])
            for name, rows in own.groupby("criterion", sort=False)
        }
        level = own["significant_chance"].iloc[0]
        panels[names[str(x)]] = curves | {RANDOM: (budgets, [level] * len(budgets))}
    last = _precision(found, order)[budgets[-1]]
    return figures.show(
        figures.curves(
            panels,
            "neurons taken",
            "share significantly selective",
            highlighted=highlighted,
            xscale="log",
        ),
        alt=in_short(
            "Precision at budget by language. Mean over languages at the largest budget:",
            [(f"{name} {share:.0%}", share) for name, share in last.items()],
            "criteria_precision.csv",
        ),
    )


# ---------------------------------------------------------------------------- whole sets of neurons


def damage_bands(
    damaged: pd.DataFrame, names: Mapping[str, str], size: str, column: str
) -> dict[str, dict[str, tuple[pd.Index, pd.Series, pd.Series, pd.Series]]]:
    """Curves of `column` over `size` with their bands, language by language, for `figures.curves`.

    The band is one standard error, where there is one; for random orders the range over seeds.
    """
    panels: dict[str, dict[str, tuple[pd.Index, pd.Series, pd.Series, pd.Series]]] = {}
    for x, rows in damaged.groupby("language", sort=False):
        curves = panels.setdefault(names[str(x)], {})
        for name, own in rows.groupby("criterion", sort=False):
            by_size = own.groupby(size)
            values = by_size[column].mean()
            low, high = by_size[column].min(), by_size[column].max()
            if name != RANDOM and f"{column}_se" in own:
                error = by_size[f"{column}_se"].mean()
                low, high = low - error, high + error
            curves[str(name)] = (values.index, values, low, high)
    return panels


def damage_curves(
    damaged: pd.DataFrame,
    names: Mapping[str, str],
    budget: int,
    column: str = "difference",
    highlighted: Sequence[str] = (),
) -> HTML:
    """What the first neurons of each order do, with a band of one standard error.

    For random orders the band is the range over seeds. `column` is one of `DAMAGE`; `budget` is
    the one whose numbers the alternative text gives.
    """
    panels = damage_bands(damaged, names, "budget", column)
    mean = summaries.mean_damage(damaged, budget, column)
    return figures.show(
        figures.curves(
            panels,
            "neurons masked",
            DAMAGE[column],
            level=0.0,
            level_label="",
            highlighted=highlighted,
            xscale="log",
            yscale="symlog",
        ),
        alt=in_short(
            f"Damage curves: {DAMAGE[column]}, by number of neurons masked. At {budget} neurons, "
            "mean over languages:",
            [(f"{name} {value:+.3f}", value) for name, value in mean.items()],
            "the tables of this page",
        ),
    )


def damage_table(damaged: pd.DataFrame, names: Mapping[str, str], budget: int) -> Styler:
    """What masking the first `budget` neurons of each order does, own and largest other loss."""
    mean = summaries.mean_damage(damaged, budget)
    here = damaged[damaged["budget"] == budget].groupby(["criterion", "language"])
    own, other = here["own"].mean().to_dict(), here["other"].mean().to_dict()
    rows = []
    for name, lead in mean.items():
        row: dict[str, Any] = {"set": name}
        for x in dict.fromkeys(damaged["language"]):
            row[names[x]] = f"{own[name, x]:+.3f} | {other[name, x]:+.3f}"
        rows.append(row | {"own less other, mean": lead})
    return figures.table(
        pd.DataFrame(rows),
        f"Loss increase under masks of {budget} neurons (nats per token): the masked language's "
        "own | the largest of another's. Random: mean over seeds",
        {"own less other, mean": "{:+.3f}"},
    )


def by_languages(hits: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> str:
    """A line for all languages, or some, with the criteria that have a hit in just these."""
    found: dict[tuple[str, ...], list[str]] = {}
    for criterion, own in hits.items():
        if own:
            found.setdefault(tuple(own), []).append(criterion)
    if not found:
        return "- None. A null result."
    return "\n".join(
        f"- {as_markdown(', '.join(names[x] for x in own))}: {as_markdown('; '.join(of))}"
        for own, of in sorted(found.items(), key=lambda one: -len(one[0]))
    )


def damage_in_words(
    damaged: pd.DataFrame,
    scores: Iterable[str],
    names: Mapping[str, str],
    budget: int,
    reference: str,
) -> Markdown:
    """Which criteria's sets clearly do what they are for, and whether any beats the greedy search.

    `scores` are the criteria's names, `reference` is CRANE's.
    """
    hits = summaries.clear_hits(damaged, scores, budget)
    ahead = summaries.ahead_of_greedy(damaged, budget)
    mean = summaries.mean_damage(damaged, budget)
    own = as_markdown(", ".join(names[x] for x in hits[reference]))
    text = (
        f"At {budget} neurons, criteria whose sets hit their own language more than any other by "
        "more than two standard errors, and more than every random set does, by language:\n\n"
        f"{by_languages(hits, names)}\n\nCRANE's default score: "
        f"{own or 'for no language'}. Its mean over "
        f"languages is {mean[reference]:+.3f}, that of the order by single effects "
        f"{mean[SINGLE]:+.3f}"
    )
    if GREEDY in mean:
        text += f", of the greedy search {mean[GREEDY]:+.3f}"
    text += f", of random orders {mean[RANDOM]:+.3f}."
    if ahead:
        beaten = "; ".join(
            as_markdown(f"{names[x]} ({', '.join(own)})") for x, own in ahead.items()
        )
        text += (
            f"\n\nThe greedy search is no ceiling: at this size it is beaten in {beaten}. It takes "
            "many neurons at a time, and judges them on few texts."
        )
    elif GREEDY in mean:
        text += " No criterion beats the greedy search."
    return prose(text)


def additivity_figure(ratios: pd.DataFrame) -> HTML:
    """Effect of a set over the sum of its neurons' effects; `ratios`: `summaries.additivity`."""
    curves = {
        str(kind): (own["budget"], own["median"], own["low"], own["high"])
        for kind, own in ratios.groupby("kind", sort=False)
    }
    told = " ".join(
        f"{kind}: " + ", ".join(f"{b} {r:.2f}" for b, r in zip(c[0], c[1], strict=True)) + "."
        for kind, c in curves.items()
    )
    return figures.show(
        figures.curves(
            {"Effect of the set / sum of single effects": curves},
            "neurons masked",
            "ratio (median, middle half)",
            level=1.0,
            level_label="",
            xscale="log",
            yscale="log",
        ),
        alt="Effect of a set divided by the sum of single effects, by number of neurons. " + told,
    )


def additivity_in_words(ratios: pd.DataFrame, added: pd.DataFrame) -> Markdown:
    """Whether sets do more or less than their neurons do alone; `added`: `damage.predicted`."""
    last = ratios.groupby("kind", sort=False).last()
    if (last["median"] > 1.1).all():
        verdict = "Sets do more than their neurons do alone"
    elif (last["median"] < 0.9).all():
        verdict = "Sets do less than their neurons do alone"
    else:
        verdict = "There is no one answer for all kinds of sets"
    enough = added[added["predicted"] > summaries.ENOUGH]
    rho = enough["own"].corr(enough["predicted"], method="spearman")
    told = ", ".join(
        f"{kind} {row['median']:.2f} ({row['budget']:.0f} neurons)" for kind, row in last.iterrows()
    )
    return prose(
        f"The median ratio at the largest budget: {told}. {verdict}. The rank correlation between "
        f"sums and effects over the {len(enough)} sets whose sum is above five millinats is "
        f"{rho:.2f}."
    )


def criteria_conclusions(
    counts: pd.DataFrame,
    agreed: pd.DataFrame,
    damaged: pd.DataFrame,
    names: Mapping[str, str],
    budget: int,
    reference: str,
    value: str = "zero",
) -> Markdown:
    """What the page found, as a list; `counts` is `summaries.significant_counts`."""
    selective = counts[(counts["set_to"] == value) & (counts["kind"] == "selectivity")]
    overall = summaries.overall(agreed, value)
    order = overall["criterion"].to_list()
    rho = overall.set_index("criterion")["rho"]
    by_damage = [
        str(name)
        for name in summaries.mean_damage(damaged, budget).index
        if name not in (GREEDY, SINGLE)
    ]
    lines = [
        "Selective neurons, by single ablation: "
        + ", ".join(
            f"{as_markdown(names[r['language']])} {r['n']} ({r['share']:.0%})"
            for r in selective.to_dict("records")
        )
        + ".",
        f"By rank correlation with selectivity, {order[0]} ({rho.iloc[0]:+.2f}) and {order[1]} "
        f"({rho.iloc[1]:+.2f}) come first of {len(order)}; CRANE's default score is number "
        f"{order.index(reference) + 1} ({rho[reference]:+.2f}), LAPE number "
        f"{order.index('LAPE') + 1}.",
        f"At {budget} neurons the damage to the own language beyond any other's is largest for "
        f"{by_damage[0]}; CRANE's default score is number {by_damage.index(reference) + 1} of "
        f"{len(by_damage)}, random order included.",
    ]
    return prose("\n".join(f"- {line}" for line in lines))
