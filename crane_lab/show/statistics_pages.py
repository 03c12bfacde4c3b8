"""What notebook 08b shows of kurtosis beside other statistics, and of how far two halves agree."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_core.concentration import STATISTICS
from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.choices_pages import RANDOM, SIGNED, read_out_panels
from crane_lab.show.foreign import prose
from crane_lab.study import summaries

#: Name of a statistic -> what it is called on a page.
SHORT = {name: statistic.label for name, statistic in STATISTICS.items()}
MEASURES = {
    "LangSpec-F1": ("langspec_f1", "langspec_f1_random"),
    "selectivity (nats)": ("selectivity", "selectivity_random"),
    "Jaccard with CRANE": ("jaccard", "jaccard_chance"),
    "Jaccard of two halves": ("repeat", "repeat_chance"),
}


def registry() -> Styler:
    """All statistics that can stand in for kurtosis, and what each needs in memory."""
    return figures.table(
        pd.DataFrame(
            [
                {
                    "statistic": s.label,
                    "what it is": s.about,
                    "kind": s.kind,
                    "memory": "running sums" if s.one_pass else "a sample of the texts",
                }
                for s in STATISTICS.values()
            ]
        ),
        "The registry of statistics",
    )


def agreement_figure(rho: pd.DataFrame) -> HTML:
    """How alike the statistics rank neurons; `rho` as `choices.agreement` returns it."""
    between = rho[rho["kind"] == "between"].groupby(["a", "b"])["rho"].mean().unstack()
    between = between.loc[list(SHORT), list(SHORT)].rename(index=SHORT, columns=SHORT)
    names, values = [str(name) for name in between.columns], between.to_numpy()
    told = [
        (f"{names[i]} and {names[j]} {values[i, j]:+.2f}", float(values[i, j]))
        for i, j in combinations(range(len(names)), 2)
    ]
    return figures.show(
        figures.correlation_heatmap(between, "Agreement of the statistics"),
        alt=in_short(
            "Rank correlations of the statistics with each other.", told, "choices_agreement.csv"
        ),
    )


def statistics_reliability(rho: pd.DataFrame, n_samples: int) -> Styler:
    """How well each statistic agrees with itself on other texts, of one language and of two."""
    columns = {"halves": "two halves of one language", "languages": "halves of two languages"}
    frame = pd.DataFrame({"statistic": SHORT.values()})
    for kind, title in columns.items():
        mean = rho[rho["kind"] == kind].groupby("a")["rho"].mean()
        frame[title] = mean[list(SHORT)].to_numpy()
    return figures.table(
        frame,
        f"Rank correlation between halves of the windows ({n_samples // 2:,} each). The first "
        "column is reliability; where the second is as high, the ranking of neurons depends little "
        "on the language",
        dict.fromkeys(columns.values(), "{:+.2f}"),
    )


def _ordered(selected: pd.DataFrame) -> pd.DataFrame:
    row = selected["statistic"].map(SHORT) + ", " + selected["how"]
    return selected.assign(row=row).sort_values("how", kind="stable")


def selected(table: pd.DataFrame) -> HTML:
    """What the sets of each statistic do and how far they can be repeated.

    `table` is `choices.compare_statistics` beside the random masks (`choices.with_floor`).
    """
    ordered = _ordered(table)
    told = [
        (
            f"{row}: "
            + ", ".join(
                f"{r['mask_language']} {r['langspec_f1']:.2f} and {r['selectivity']:+.3f}"
                for r in group.to_dict("records")
            ),
            group["selectivity"].mean(),
        )
        for row, group in ordered.groupby("row", sort=False)
    ]
    return figures.show(
        figures.dot_ranges(
            read_out_panels(ordered, "row", MEASURES),
            zero=SIGNED,
            reference_label=RANDOM,
            title="What each statistic selects, at CRANE's number of neurons",
        ),
        alt=in_short(
            "LangSpec-F1, selectivity, overlap with CRANE and repeatability of what each statistic "
            "selects.",
            told,
            "choices_statistics.csv",
            by="mean selectivity",
        ),
    )


def scored(found: pd.DataFrame, sweep: pd.DataFrame, random: pd.DataFrame) -> Styler:
    """`summaries.of_statistics` as a table; CRANE's own sets (of `sweep`) are in its caption."""
    crane = summaries.default_reading(sweep)
    seeds = random.loc[random["kind"] == "default", "seed"].nunique()
    names = {
        "langspec_f1": "LangSpec-F1, mean",
        "above_random": "above every random mask",
        "selectivity": "selectivity, mean",
        "own_most": "hurts its own language most",
        "repeat": "Jaccard of two halves",
    }
    return figures.table(
        found[["statistic", "how", *names]].rename(columns=names),
        f"By mean selectivity; counts are out of {len(crane)} languages. Above every random mask: "
        f"the interval of LangSpec-F1 lies above the largest of {seeds} random masks with CRANE's "
        f"counts per layer. CRANE's own sets: LangSpec-F1 {crane['langspec_f1'].mean():.3f}, "
        f"selectivity {crane['selectivity'].mean():+.3f}, "
        f"{int((crane['verdict'] == 'larger').sum())} hurt their own language most",
        {
            names["langspec_f1"]: "{:.3f}",
            names["selectivity"]: "{:+.3f}",
            names["repeat"]: "{:.2f}",
        },
    )


def scored_in_words(found: pd.DataFrame, table: pd.DataFrame) -> Markdown:
    """Which statistics do what a mask is for, where kurtosis stands, and how both measures agree.

    `found` is `summaries.of_statistics` of `table`.
    """
    count = table["mask_language"].nunique()
    hits = found[found["own_most"] == count]
    every = "; ".join(hits["statistic"] + ", " + hits["how"])
    places = [
        f"{row['how']} is number {place} of {len(found)} by mean selectivity and does so in "
        f"{row['own_most']} of {count}"
        for place, row in enumerate(found.to_dict("records"), start=1)
        if row["statistic"] == SHORT["kurtosis"]
    ]
    seen = np.mean(
        [
            own["langspec_f1"].corr(own["selectivity"], method="spearman")
            for _, own in table.groupby("mask_language")
        ]
    )
    return prose(
        "Masks that clearly hurt their own language most in every language: "
        f"{every or 'of no statistic'}. Kurtosis {' and '.join(places)}. Over all these masks the "
        f"rank correlation of LangSpec-F1 with selectivity is {seen:+.2f} (mean over languages). "
        "Accuracy on one benchmark per language decides the one, loss on held-out text the other. "
        f"These are {len(table)} masks with an interval each, and some of the intervals miss by "
        "chance alone."
    )


# ------------------------------------------------------------------------------------- two halves


def _measured(halves: pd.DataFrame, measure: str, reference: str | None = None) -> pd.DataFrame:
    own = halves[halves["measure"] == measure]
    frame = pd.DataFrame(
        {
            "row": own["n"].map("{:,} windows".format),
            "series": own["language"],
            "value": own["mean"],
            "low": own["low"],
            "high": own["high"],
        }
    )
    if reference:
        frame["reference"] = halves.loc[halves["measure"] == reference, "mean"].to_numpy()
    return frame


def _told(halves: pd.DataFrame, measure: str) -> tuple[str, float]:
    """A measure's means over languages with the fewest and the most windows, and the latter."""
    means = halves[halves["measure"] == measure].groupby("n")["mean"].mean()
    return f"{means.iloc[0]:.2f} to {means.iloc[-1]:.2f}", float(means.iloc[-1])


def _from_to(halves: pd.DataFrame) -> str:
    return f"from {halves['n'].min():,} to {halves['n'].max():,} windows, mean over languages"


def two_halves(halves: pd.DataFrame) -> HTML:
    """How far two halves of the texts agree; `halves`: `halves.split_half_reliability`."""
    return figures.show(
        figures.dot_ranges(
            {
                "correlation, same language": _measured(halves, "spearman"),
                "correlation, other language": _measured(halves, "spearman, other language"),
                "Jaccard of the sets": _measured(halves, "jaccard", "chance"),
                "neurons selected": _measured(halves, "neurons"),
            },
            reference_label=RANDOM,
            title="Two halves of the texts: rank correlation of kurtosis, and selected sets",
        ),
        alt=f"Split-half agreement, {_from_to(halves)}. Rank correlation of kurtosis "
        f"within a language: {_told(halves, 'spearman')[0]}. Between languages: "
        f"{_told(halves, 'spearman, other language')[0]}. Jaccard of the sets: "
        f"{_told(halves, 'jaccard')[0]}. By chance: {_told(halves, 'chance')[0]}. "
        "By language and number: choices_reliability.csv.",
    )


def two_halves_by_layer(halves: pd.DataFrame) -> HTML:
    """The rank correlation of kurtosis between two halves in each layer."""
    layers = sorted({m for m in halves["measure"] if m.startswith("spearman, layer")})
    names = {measure: measure.removeprefix("spearman, ") for measure in layers}
    return figures.show(
        figures.dot_ranges(
            {name.capitalize(): _measured(halves, m) for m, name in names.items()},
            title="Rank correlation of kurtosis between two halves, layer by layer",
        ),
        alt=in_short(
            f"Rank correlation of kurtosis between halves in each layer, {_from_to(halves)}.",
            [
                (f"{name}: {text}", last)
                for m, name in names.items()
                for text, last in [_told(halves, m)]
            ],
            "choices_reliability.csv",
            by="that with the most windows",
        ),
    )


def two_halves_in_words(halves: pd.DataFrame) -> Markdown:
    """From the fewest to the most windows: what becomes of the correlation and of the sets."""
    at = halves.pivot_table(index="n", columns="measure", values="mean")
    first, last = at.index.min(), at.index.max()

    def growth(measure: str) -> str:
        return f"{at.loc[first, measure]:.2f} to {at.loc[last, measure]:.2f}"

    stable = at.index[at["jaccard"] >= 0.5]
    return prose(
        f"From {first:,} to {last:,} windows per half the rank correlation of kurtosis goes from "
        f"{growth('spearman')} (mean over languages and layers), and between *different* languages "
        f"from {growth('spearman, other language')}. The Jaccard index of the selected sets goes "
        f"from {growth('jaccard')}, where random sets would have {at.loc[last, 'chance']:.2f}. "
        + (
            f"Half of all neurons in either set are in both from {stable.min():,} windows per half."
            if len(stable)
            else f"Even with {last:,} windows per half, fewer than half of all neurons in either "
            "set are in both."
        )
    )


# ------------------------------------------------------------------------------------ conclusions


def statistics_conclusions(scored: pd.DataFrame, halves: pd.DataFrame, count: int) -> Markdown:
    """What the page found, as a list.

    `scored` is `summaries.of_statistics` over `count` languages, `halves` the table of
    `halves.split_half_reliability`.
    """
    last = halves[halves["n"] == halves["n"].max()]
    mean = last.groupby("measure")["mean"].mean()
    hits = scored[scored["own_most"] == count]
    statistics = "; ".join(hits["statistic"] + ", " + hits["how"])
    return prose(
        "- At CRANE's number of neurons, statistics whose masks clearly hurt their own language "
        f"most in every language: {statistics or 'none'}.\n"
        f"- Two halves of {last['n'].iloc[0]:,} windows each rank neurons by kurtosis with a "
        f"correlation of {mean['spearman']:.2f} and select sets with a Jaccard index of "
        f"{mean['jaccard']:.2f}. A set found once is one draw."
    )
