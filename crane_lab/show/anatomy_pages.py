"""Tables, figures and sentences of criteria taken apart (`anatomy`), and of what sets are good for.

Losses are nats per token, means over languages.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.criteria_pages import damage_curves
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value
from crane_lab.study.anatomy import ATTNLRP, FED, IN_TURNS, MUCH, PRUNED
from crane_lab.study.candidates import HELD, worded
from crane_lab.study.criteria import OBJECTIVES
from crane_lab.study.damage import GREEDY, SINGLE
from crane_lab.study.exploration import criterion_of
from crane_lab.study.merit import HARM
from crane_lab.study.uses import masked_rows

#: What `anatomy.estimates` calls what is taken, in words.
TAKEN = {"sign": "signed mean", "size": "mean of sizes"}


def sets_apart_table(parts: pd.DataFrame, share: float, languages: int) -> Styler:
    """What sets do together and one by one; `parts` is `anatomy.parts_of`."""
    shown = parts[["criterion", "own", "other"]].assign(criterion=parts["criterion"].map(worded))
    shown["own less other ± se"] = [
        f"{value:+.3f} ± {error:.3f}"
        for value, error in zip(parts["difference"], parts["difference_se"], strict=True)
    ]
    shown = shown.join(parts[["predicted", "ratio", "elsewhere", "late"]])
    by_chance = 1 - (1 - MUCH) ** (languages - 1)
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
        "own language, neurons that are among the tenth most needed of another language (of any "
        f"neurons {100 * by_chance:.0f} %, if languages did not share them), and those in the last "
        "third of the layers",
        {
            **dict.fromkeys(("own loss", "largest other", "sum of neurons alone"), loss),
            "together / alone": "{:.1f}",
            **dict.fromkeys(("needed elsewhere", "in the last third"), percent),
        },
    )


def parts_in_words(parts: pd.DataFrame) -> Markdown:
    """Which orders are told from that of measured single effects, and what sets add to neurons."""
    known = parts.set_index("criterion")
    single = known.loc[SINGLE]
    apart = known["difference"] - single["difference"]
    error = np.hypot(known["difference_se"], single["difference_se"])
    ahead, behind = (
        [f"“{as_markdown(worded(name))}”" for name in known.index[told]]
        for told in (apart > 2 * error, apart < -2 * error)
    )
    late = 100 * known["late"]
    even = [n for n in known.index if n != SINGLE and abs(apart[n]) <= 2 * error[n]]
    harm = known["other"].max()
    why = (
        f"No set takes more than {harm:.2f} nats from another language, so it is not the model as "
        "a whole that breaks down. Within the language it fits neurons that stand in for each "
        "other, which single ablations cannot see; a loss that rises ever faster would look alike."
        if harm <= HARM
        else f"That fits neurons which stand in for each other, and does not show it: some take up "
        f"to {harm:.2f} nats from another language as well, and a model that breaks down would do "
        "so, too."
    )
    return prose(
        f"Beside the order by measured single effects ({single['difference']:+.3f}), by more than "
        f"two standard errors:\n\n- ahead: {'; '.join(ahead) or 'none'}\n"
        f"- behind: {'; '.join(behind) or 'none'}\n- not to be told apart: "
        f"{'; '.join(f'“{as_markdown(worded(n))}”' for n in even) or 'none'}\n\nTogether a set's "
        f"neurons do {known['ratio'].min():.1f} to {known['ratio'].max():.1f} times what they do "
        f"alone. {why} In the last third of the layers lie {late.min():.0f} to {late.max():.0f} % "
        "of a set."
    )


def ceiling_figure(sets: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """What sets do by budget, beside the greedy search; `sets` is `anatomy.sets_apart`'s table."""
    shown = [GREEDY, SINGLE, PRUNED, IN_TURNS, *(one.name for one in (*FED[:1], *FED[3:]))]
    budget = int(sets["budget"].max())
    sets = sets.assign(criterion=sets["criterion"].map(worded))
    return damage_curves(sets, names, budget, highlighted=[*map(worded, shown)])


def real_ceiling_figure(
    found: pd.DataFrame, damaged: pd.DataFrame, names: Mapping[str, str]
) -> HTML:
    """The same of a real model: `found` and `damaged` as `ceiling.at_the_largest` takes them."""
    curves = pd.concat([found.assign(seed=-1), damaged], ignore_index=True)
    shown = [GREEDY, SINGLE, *(criterion_of(one) for one in HELD)]
    curves = curves[curves["criterion"].isin(shown)]
    return damage_curves(curves, names, int(found["budget"].max()), highlighted=shown)


def ceiling_table(at: pd.DataFrame) -> Styler:
    """A greedy search on a real model beside criteria; `at` is `ceiling.at_the_largest`."""
    names = {"own": "own loss", "other": "largest other", "difference_se": "standard error"}
    shown = at.rename(columns={**names, "criterion": "set by"}).drop(columns="budget")
    return figures.table(
        shown,
        f"Sets of {int(at['budget'].iloc[0])} neurons on Gemma 3 270M, by what masking them adds "
        "to the own loss less the largest other's (nats per token, mean over languages; standard "
        "errors over windows)",
        dict.fromkeys(list(shown)[1:], "{:+.3f}"),
    )


def ceiling_in_words(at: pd.DataFrame) -> Markdown:
    """How far the best criterion stays behind the greedy search; `at` as in `ceiling_table`."""
    greedy, single = (at[at["criterion"] == name].iloc[0] for name in (GREEDY, SINGLE))
    criteria = at[~at["criterion"].isin([GREEDY, SINGLE])]
    best = criteria.iloc[0]  # the largest difference comes first
    errors = np.hypot(greedy["difference_se"], criteria["difference_se"])
    behind = int((greedy["difference"] - criteria["difference"] > 2 * errors).sum())

    def said(row: pd.Series) -> str:
        return (
            f"{row['own']:.2f} nats from the own language and {row['other']:.2f} from the most hit "
            "other"
        )

    return prose(
        f"{int(greedy['budget'])} neurons by the greedy search take {said(greedy)}; by single "
        f"effects, {said(single)}; by the criterion that comes nearest, "
        f"“{as_markdown(str(best['criterion']))}”, {said(best)}. By more than two standard errors "
        f"{behind} of {len(criteria)} criteria stay behind the greedy search."
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


def windows_figures(means: pd.DataFrame) -> list[HTML]:
    """What criteria find that are given few windows of text; `means` is `anatomy.by_windows`."""
    ranges = {"difference": ("difference", "low", "high"), "jaccard": ("jaccard",)}
    few = means[means["windows"] == means["windows"].min()].set_index("criterion")
    found = []
    for column, label in (
        ("difference", "own less largest other loss (nats per token)"),
        ("jaccard", "Jaccard index with the set from most windows"),
    ):
        curves = {
            worded(name): tuple(own[part] for part in ("windows", *ranges[column]))
            for name, own in means.sort_values("windows").groupby("criterion", sort=False)
        }
        told = [(f"{worded(name)} {value:+.3f}", value) for name, value in few[column].items()]
        found.append(
            figures.show(
                figures.curves(curves, "windows of text per language", label, xscale="log"),
                alt=in_short(
                    f"{label[0].upper()}{label[1:]}, by windows of text. With the fewest:",
                    told,
                    "criterion_windows.csv",
                ),
            )
        )
    return found


def uses_table(summary: pd.DataFrame, share: float, languages: int) -> Styler:
    """LangSpec-F1 under candidates' sets and random masks; `summary` is `uses.uses_summary`."""
    names = {"read": "read-out", "method": "sets", "langspec_f1": "F1", "null_mean": "F1, random"}
    names |= {"above": "above all random", "q": "least q"}
    shown = summary.assign(
        method=summary["method"].map(worded),
        above=[f"{int(n)} of {languages}" for n in summary["above"]],
    ).rename(columns=names)
    return figures.table(
        shown,
        f"Sets of {100 * share:g} % of all neurons, found in the base model: LangSpec-F1, mean "
        "over masked languages, beside random masks of the same size in every layer; in how many "
        "languages it is above all of them, and the least q, corrected over the read-out",
        {**dict.fromkeys(("F1", "F1, random"), "{:.3f}"), "least q": p_value},
    )


def fidelity_table(changed: pd.DataFrame) -> Styler:
    """Changes of answers in the language asked, in points; `changed`: `uses.fidelity_changes`."""
    wide = 100 * changed.pivot_table(
        index="method", columns="model", values=["own", "other"], sort=False
    )
    shown = pd.DataFrame(
        {
            f"{model} model": [
                f"{_whole(own)} | {_whole(other)}"
                for own, other in zip(wide["own", model], wide["other", model], strict=True)
            ]
            for model in dict.fromkeys(changed["model"])
        },
        index=wide.index.map(worded).rename("sets"),
    )
    return figures.table(
        shown.reset_index(),
        "Answers in the language of the question, change in points, mean over masked languages: "
        "the masked language's | the most another loses",
    )


def _whole(value: float) -> str:
    return f"{round(value):+d}" if round(value) else "0"


def uses_in_words(summary: pd.DataFrame, languages: int) -> Markdown:
    """Which candidates are above all their random masks in every language, read-out by read-out."""
    lines = []
    for (read, model), own in summary.groupby(["read", "model"], sort=False):
        every = own.loc[own["above"] == languages, "method"]
        said = ", ".join(f"“{as_markdown(worded(name))}”" for name in every) or "none"
        lines.append(f"- {read} of the {model} model: {said}.")
    head = "Above all of its random masks in every language is, by LangSpec-F1 on"
    return prose(f"{head}\n\n" + "\n".join(lines))


def uses_figure(uses: pd.DataFrame, names: Mapping[str, str]) -> HTML:
    """LangSpec-F1 of each mask with its interval, read-out by read-out; `uses.ship_uses`' rows."""
    masks = masked_rows(uses)
    panels, told = {}, []
    for (read, model), own in masks.groupby(["read", "model"], sort=False):
        told.append(f"{read} of the {model} model {own['langspec_f1'].mean():.2f}")
        part = own[["method", "mask_language"]].set_axis(["row", "series"], axis=1)
        part["row"] = part["row"].map(worded)
        part["value"] = own["langspec_f1"]
        for end in ("low", "high"):
            part[end] = own[f"langspec_f1_{end}"]
        panels[f"{read}, {model} (F1)"] = part
    return figures.show(
        figures.dot_ranges(panels, zero=list(panels), names=dict(names), same_scale=True),
        alt="LangSpec-F1 with intervals by candidate and masked language. Means: "
        f"{', '.join(told)}.",
    )
