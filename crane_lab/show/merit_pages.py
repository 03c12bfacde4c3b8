"""Tables, figures and sentences of candidates for a better criterion, explored and confirmed.

`merits` is the table of `merit.merits` or `exploration.curve_merits`, which has no intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.show import figures
from crane_lab.show.foreign import as_markdown, prose
from crane_lab.show.tables import p_value, written_intervals
from crane_lab.study.candidates import Candidate, worded
from crane_lab.study.confirmation import ConfirmationPlan
from crane_lab.texts.names import full_names

#: Figures of merit as axes name them.
LABELS = {
    "merit": "merit (nats per token)",
    "little_harm": "own loss at little harm (nats per token)",
}
SHORT = {"merit": "merit", "little_harm": "little harm"}


def merits_figure(merits: pd.DataFrame, names: Mapping[str, str], by: str = "merit") -> HTML:
    """Both figures of every candidate, language by language; the best by `by` stand on top."""
    mean = merits[merits["language"] == "all"].set_index("candidate")
    order = mean[by].sort_values(ascending=False, kind="stable").index
    own = merits[merits["language"] != "all"]
    panels = {}
    for column, label in LABELS.items():
        part = own[["candidate", "language"]].set_axis(["row", "series"], axis=1)
        part["row"] = part["row"].map(worded)
        part["value"] = own[column].to_numpy()
        if column == "merit" and "low" in own:
            part["low"], part["high"] = own["low"].to_numpy(), own["high"].to_numpy()
        panels[label] = part
    told = "; ".join(
        f"{worded(name)} {mean.loc[name, 'merit']:.2f} and {mean.loc[name, 'little_harm']:.2f}"
        for name in order[:6]
    )
    return figures.show(
        figures.dot_ranges(
            panels, zero=list(panels), order=[*map(worded, order)], names=dict(names)
        ),
        alt=f"Merit and own loss at little harm by candidate, best first; mean over languages of "
        f"the first: {told}.",
    )


def merits_table(merits: pd.DataFrame, caption: str) -> Styler:
    """Both figures, mean over languages, the best first."""
    mean = merits[merits["language"] == "all"].sort_values("merit", ascending=False, kind="stable")
    shown = pd.DataFrame({"candidate": mean["candidate"].map(worded)})
    with_intervals = "low" in mean and mean["low"].notna().any()
    shown["merit"] = (
        written_intervals(mean, "merit") if with_intervals else mean["merit"].map("{:+.3f}".format)
    )
    shown["own loss at little harm"] = mean["little_harm"]
    return figures.table(shown, caption, {"own loss at little harm": "{:.3f}"})


def by_language_tables(
    places: Mapping[str, tuple[pd.DataFrame, Mapping[str, str], pd.DataFrame | None]],
    candidates: Sequence[str],
) -> list[Styler]:
    """Both figures of some candidates side by side, a row per place and language.

    `places`: where -> merits, names of languages, and where sets lie among random masks
    (`percentile`), if that is known.
    """
    merit_rows: list[dict[str, Any]] = []
    harm_rows: list[dict[str, Any]] = []
    for place, (merits, names, nulls) in places.items():
        own = merits[(merits["language"] != "all") & merits["candidate"].isin(candidates)]
        own = own.assign(cell=written_intervals(own, "merit", form="{:.2f}"))
        if nulls is not None:
            of = nulls.set_index(["candidate", "language"])["percentile"].to_dict()
            keys = zip(own["candidate"], own["language"], strict=True)
            own["cell"] += [f" ({of[key]:.0f})" if key in of else "" for key in keys]
        harm = own.assign(cell=[f"{x:.2f}" for x in own["little_harm"]])
        for rows, table in ((merit_rows, own), (harm_rows, harm)):
            cells = table.set_index(["language", "candidate"])["cell"].to_dict()
            for x in (x for x in names if any((x, one) in cells for one in candidates)):
                row = {"where": place, "language": names[x]}
                rows.append(row | {worded(one): cells.get((x, one), "") for one in candidates})
    found = []
    for caption, rows in (
        (
            "Merit with its 95 % interval over windows and, where it is known, the percentile "
            "among random masks in brackets: of the merit on the testbed, of the difference at "
            "one budget where it was confirmed",
            merit_rows,
        ),
        ("Own loss at little harm", harm_rows),
    ):
        shown = pd.DataFrame(rows)
        found.append(figures.table(shown, f"{caption}; nats per token, language by language"))
    return found


def confirmed_in_short(merits: pd.DataFrame, plan: ConfirmationPlan) -> Markdown:
    """Both figures of a plan's candidates in the languages it was run on, the best merit first."""
    mean = merits[merits["language"] == "all"].sort_values("merit", ascending=False, kind="stable")
    of = int(merits.loc[merits["language"] != "all", "language"].nunique())
    told = "; ".join(
        f"“{as_markdown(worded(row['candidate']))}” {row['merit']:.2f} [{row['low']:.2f}, "
        f"{row['high']:.2f}], {row['little_harm']:.2f}"
        for row in mean.to_dict("records")
    )
    mains = " and ".join(f"“{as_markdown(worded(one.name))}”" for one in plan.mains)
    return prose(
        f"**Results.** In {of} languages that were not looked at before the plan was set down, own "
        f"less largest other loss over budgets of {_budgets(plan)} with its 95 % interval over "
        f"{plan.held_out} windows a language, and own loss where no other language loses more than "
        f"a tenth of a nat (nats per token): {told}. The plan's main candidates were {mains}."
    )


def _budgets(plan: ConfirmationPlan) -> str:
    ends = min(plan.shares), max(plan.shares)
    return " to ".join(f"{100 * share:g} %" for share in ends) + " of all neurons"


def outcomes_in_words(
    outcomes: pd.DataFrame, merits: pd.DataFrame, plan: ConfirmationPlan
) -> Markdown:
    """What a confirmation has told and what it has not, and the harm that its figures hide.

    `outcomes` as `confirmation.hypothesis_outcomes` gives them, of `merits`.
    """
    by_language = merits[merits["language"] != "all"]
    of = by_language["language"].nunique()
    counts = [f"{outcome} {n}" for outcome, n in outcomes["outcome"].value_counts().items()]
    lines = [f"- Of {len(outcomes)} hypotheses: {', '.join(counts)}."]
    for one in plan.questions:
        wide = by_language.pivot(index="language", columns="candidate", values=one.figure)
        ahead = "; ".join(
            f"{_named([rival])} in {int((wide[one.main.name] > wide[rival.name]).sum())}"
            for rival in one.against
        )
        lines.append(
            f"- Not asked, but seen: by {LABELS[one.figure].partition(' (')[0]}, "
            f"“{as_markdown(worded(one.main.name))}” is ahead, of {of} languages, of {ahead}."
        )
    for main in plan.mains:
        own = by_language[by_language["candidate"] == main.name]
        most = str(own.sort_values("merit")["language"].iloc[-1])
        named = full_names([most])[most]
        rest = own[own["language"] != most]["merit"]
        lines.append(
            f"- The mean of “{as_markdown(worded(main.name))}” owes most to {named}: without it "
            f"{rest.mean():.2f} instead of {own['merit'].mean():.2f}."
        )
        harmful = int((own["little_harm"] == 0).sum())
        lines.append(
            f"- Selective does not mean harmless: in {harmful} of {of} languages every set of "
            f"“{as_markdown(worded(main.name))}” takes more than a tenth of a nat from another."
        )
    return prose("\n".join(lines))


def leading_in_words(merits: pd.DataFrame, few: Sequence[str]) -> Markdown:
    """Which candidate leads by each figure, and where some stand: mean over languages."""
    mean = merits[merits["language"] == "all"].set_index("candidate")
    lines = []
    for column, label in LABELS.items():
        ranks = mean[column].rank(ascending=False, method="min").astype(int)
        best = str(mean[column].idxmax())
        said = "; ".join(
            f"“{as_markdown(worded(name))}” {float(mean[column][name]):.2f} (place {ranks[name]})"
            for name in few
            if name in mean.index and name != best
        )
        lines.append(
            f"- {label.partition(' (')[0]}: of {len(mean)} candidates "
            f"“{as_markdown(worded(best))}” leads with {mean[column].max():.2f}; {said}."
        )
    return prose("\n".join(lines))


def questions_in_words(plan: ConfirmationPlan) -> Markdown:
    """What a plan asks, of which languages, and its digest."""
    lines = [
        f"- {LABELS[one.figure].partition(' (')[0]}: {_named([one.main])}, against "
        f"{_named(one.against)}."
        for one in plan.questions
    ]
    shares = ", ".join(f"{100 * share:g} %" for share in plan.shares)
    return prose(
        f"Plan {plan.digest}: {', '.join(plan.languages)}; budgets {shares}; {plan.windows} "
        f"windows a language for the criterion and {plan.held_out} others for the losses.\n\n"
        + "\n".join(lines)
    )


def _named(several: Sequence[Candidate]) -> str:
    return "; ".join(f"“{as_markdown(worded(one.name))}”" for one in several)


def outcomes_table(outcomes: pd.DataFrame) -> Styler:
    """What became of each hypothesis: `confirmation.hypothesis_outcomes`."""
    shown = pd.DataFrame({"hypothesis": outcomes["hypothesis"].map(worded)})
    counted = outcomes["p"].isna()
    written = written_intervals(outcomes, "estimate")
    shown["found"] = [
        f"{row['estimate']:.0f} of {row['languages']} languages" if count else text
        for row, count, text in zip(outcomes.to_dict("records"), counted, written, strict=True)
    ]
    shown["p"] = outcomes["p"]
    shown["outcome"] = outcomes["outcome"]
    return figures.table(
        shown,
        "What was set down, and what became of it: mean over languages of the paired difference, "
        "nats per token, with its 95 % interval, or a count of languages; p corrected (Holm)",
        {"p": p_value},
    )


def nulls_table(nulls: pd.DataFrame, of: str) -> Styler:
    """Differences among random masks, one row per candidate; `nulls` is `merit.in_nulls`'s."""
    share = 100 * float(nulls["share"].iloc[0])
    what = (
        f"Own less largest other loss (nats per token) of sets of {share:g} % of all neurons {of}"
    )
    return _among_random(nulls, "difference", what)


def merit_nulls_table(nulls: pd.DataFrame, of: str) -> Styler:
    """Merits among those of random masks, one row per candidate: `merit.merits_in_nulls`."""
    return _among_random(nulls, "merit", f"Merit over all budgets (nats per token) {of}")


def _among_random(nulls: pd.DataFrame, column: str, what: str) -> Styler:
    rows = []
    for name, own in nulls.groupby("candidate", sort=False):
        rows.append(
            {
                "candidate": worded(name),
                column: own[column].mean(),
                "random masks": own["null_mean"].mean(),
                "percentiles": f"{own['percentile'].min():.0f} to {own['percentile'].max():.0f}",
                "above all": f"{int((own['percentile'] == 100).sum())} of {len(own)}",
                "q": own["q"].max(),
            }
        )
    masks = int(nulls["null_masks"].max())
    return figures.table(
        pd.DataFrame(rows),
        f"{what}, mean over languages; that of {masks} random masks of each set's size in every "
        "layer; where sets lie among these; in how many languages above all of them; and the "
        "largest q, corrected over all rows (so few masks give no p below "
        f"{1 / (masks + 1):.3f}, and q is above that if any set is not above its masks)",
        {**dict.fromkeys((column, "random masks"), "{:+.3f}"), "q": p_value},
    )


def sign_or_size_table(
    places: Mapping[str, pd.DataFrame], statistics: Mapping[str, Candidate]
) -> Styler:
    """The same contrast of different statistics of relevance, by both figures.

    `places`: where -> merits with intervals; `statistics`: a statistic's name -> its contrast.
    """
    tables = []
    for place, merits in places.items():
        mean = merits[merits["language"] == "all"].set_index("candidate")
        own = mean.loc[[one.name for one in statistics.values()]].reset_index()
        shown = pd.DataFrame({"model": place, "statistic": list(statistics)})
        shown["merit"] = written_intervals(own, "merit", form="{:.2f}")
        tables.append(shown.assign(**{SHORT["little_harm"]: own["little_harm"].to_numpy()}))
    return figures.table(
        pd.concat(tables, ignore_index=True),
        "Own less largest other of a statistic of relevance, by both figures (nats per token), "
        "mean over languages; 95 % over windows",
        {SHORT["little_harm"]: "{:.2f}"},
    )


def explored_and_confirmed(tables: Mapping[str, pd.DataFrame], plan: ConfirmationPlan) -> Styler:
    """Both figures of a plan's candidates, mean over languages, where they were explored and where
    they were confirmed: name of the place -> `merits`."""
    shown = pd.DataFrame({"candidate": [one.name for one in plan.candidates]})
    for column, short in SHORT.items():
        for place, merits in tables.items():
            mean = merits[merits["language"] == "all"].set_index("candidate")[column]
            shown[f"{short}, {place}"] = mean.reindex(shown["candidate"]).to_numpy()
    shown["candidate"] = shown["candidate"].map(worded)
    return figures.table(
        shown,
        "The plan's candidates by both figures (nats per token), mean over languages. Budgets and "
        "the languages that compete differ from place to place, so that columns are to be read one "
        "by one and not subtracted",
        dict.fromkeys(shown.columns[1:], "{:.2f}"),
    )
