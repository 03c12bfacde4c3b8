"""What notebook 07 shows of the audit: tables, figures with their alternative texts, sentences.

The numbers come from `crane_lab.audit`; here they are only arranged and worded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from pandas.io.formats.style import Styler

from crane_lab.audit.claims import tally
from crane_lab.audit.grim import seeds_coincidence
from crane_lab.audit.noise import CANNOT, CERTAIN, OPEN
from crane_lab.audit.tables import Published
from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import prose
from crane_lab.show.readouts import each_row, mask_name, with_mask
from crane_lab.show.tables import p_value
from crane_lab.texts.languages import NAMES


def _points(value: float, digits: int = 1) -> str:
    """An accuracy difference in points, with a real minus sign."""
    return f"{100 * value:.{digits}f}".replace("-", "−")


# --- does LangSpec-F1 follow from its row? ------------------------------------------------------


def recomputed_figure(checked: pd.DataFrame) -> HTML:
    """Printed less recomputed LangSpec-F1 of every row, of `audit.recompute`."""
    wrong = checked[checked["verdict"] == "disagrees"]
    return figures.show(
        figures.recomputed(checked),
        alt="Printed less recomputed LangSpec-F1 for every row of the four tables, with the range "
        f"that rounding allows as a grey bar. {len(checked) - len(wrong)} rows lie inside. "
        "Outside: "
        + each_row(
            wrong,
            lambda r: (
                f"{mask_name(r)}, {r['printed']:.4f} printed and {r['recomputed']:.4f} recomputed"
            ),
            "; ",
        )
        + ".",
    )


def recomputed_in_words(checked: pd.DataFrame) -> Markdown:
    """How many printed values follow from their rows."""
    right = int((checked["verdict"] != "disagrees").sum())
    return prose(
        f"**{right} of {len(checked)}** printed values follow from their rows. Those that do not:"
    )


def wrong_table(checked: pd.DataFrame) -> Styler:
    """The rows whose LangSpec-F1 does not follow."""
    wrong = checked[checked["verdict"] == "disagrees"].drop(columns="verdict")
    return figures.table(
        with_mask(wrong),
        "Rows whose LangSpec-F1 does not follow from their scores; low and high: what rounding "
        "allows",
        dict.fromkeys(["printed", "recomputed", "low", "high"], "{:.4f}")
        | {"difference": "{:+.4f}"},
    )


def grim_summary_table(by_scale: pd.DataFrame) -> Styler:
    """GRIM by kind of score, of `audit.grim_summary`."""
    return figures.table(
        by_scale,
        "GRIM over all tables: distinct printed scores, how many are possible means of n items, "
        "how many of as many arbitrary numbers would be, and the chance that all of those are",
        {"n": "{:,}", "expected blindly": "{:.1f}", "all pass blindly": p_value},
    )


def grim_in_words(
    cells: pd.DataFrame, by_scale: pd.DataFrame, sizes: Mapping[str, Sequence[int]]
) -> Markdown:
    """Which scores are impossible, where that says nothing, and which benchmarks fit.

    `cells` of `audit.grim_table`, `by_scale` of `audit.grim_summary`, `sizes` of
    `audit.benchmark_sizes`.
    """
    impossible = cells[~cells["possible"]]
    said = f"**All {len(cells)} printed scores are possible.** No score is in doubt."
    if len(impossible):
        said = f"{len(impossible)} scores are impossible: " + each_row(
            impossible, lambda r: f"{mask_name(r)} {r['language']} {r['printed']}"
        )
        said += "."
    blind = by_scale[by_scale["all pass blindly"] > 0.5]
    large = " and ".join(f"{n:,}" for n in blind["n"].unique())
    text = (
        f"{said} For {', '.join(NAMES.get(x, x) for x in blind['scores'])} that says nothing: "
        f"with {large} questions every four-digit number is possible, and one or two counts fit "
        "it. For the others it says much. "
    )
    smallest = {x: found[0] for x, found in sizes.items() if found}
    multiples = all(n % found[0] == 0 for found in sizes.values() for n in found)
    if multiples and len(smallest) == len(sizes):
        text += (
            "Of all sizes up to 3,000 the only ones that fit every score are "
            + " and ".join(f"{n:,} ({NAMES[x]})" for x, n in smallest.items())
            + ", with their multiples, which always fit. So the prints themselves confirm which "
            "sets were used, and in full; and every row looks like *one* run, because means over "
            "several random masks would not all come out as whole counts."
        )
    return prose(text)


def last_digits(exact: pd.DataFrame, checked: pd.DataFrame) -> Markdown:
    """What whole counts add to the comparison of prints.

    `exact` of `audit.recompute_from_counts`, `checked` of `audit.recompute`.
    """
    keys = ["table", "method", "mask_language"]
    wrong = checked.loc[checked["verdict"] == "disagrees", keys]
    known = set(wrong.itertuples(index=False, name=None))
    new = [row not in known for row in exact[keys].itertuples(index=False, name=None)]
    off = exact[new]
    off = off[off["verdict"] == "disagrees"]
    text = (
        f"From whole counts {int((exact['verdict'] == 'agrees').sum())} of {len(exact)} values "
        "follow to the last digit. "
    )

    def said(row: Mapping[str, Any]) -> str:
        low, high = f"{row['low']:.4f}", f"{row['high']:.4f}"
        should = low if low == high else f"{low} to {high}"
        return f"{mask_name(row)} ({row['printed']:.4f}, not {should})"

    if len(off):
        text += (
            f"Besides the rows above, {len(off)} are off by up to {off['off'].max():.5f}, which "
            f"four decimals would have allowed and whole counts do not: {each_row(off, said)}. "
            "Rounding some scores before the calculation and others not gives "
            f"{int(off['mixed'].sum())} of these {len(off)} values. Nothing hangs on it."
        )
    return prose(text)


# --- Table 2's random rows ----------------------------------------------------------------------


def reach_table(reach: pd.DataFrame) -> Styler:
    """What the random rows' recall allows, of `audit.unreachable`."""
    numbers = ["recall", "printed", "largest", "needed precision", "needed other", "largest other"]
    reach = reach.replace(float("inf"), float("nan"))  # where no precision would do
    return figures.table(
        with_mask(reach).rename(columns=lambda name: str(name).replace("_", " ")),
        "Table 2, random masks. Drop: lost grade points of all, over 70 answers. Largest: "
        "LangSpec-F1 at precision 1. Needed: the precision and the drop elsewhere that would give "
        "the printed value, beside the largest drop elsewhere in the row",
        dict.fromkeys(numbers, "{:.4f}"),
    )


def beyond_reach(reach: pd.DataFrame) -> pd.DataFrame:
    """The rows of `audit.unreachable` whose print is larger than any possible value."""
    return reach[reach["printed"] > reach["largest"] + 5e-5]


def random_rows_in_words(reach: pd.DataFrame, tried: pd.DataFrame) -> Markdown:
    """What the search for a rule behind Table 2's random rows came to, `tried` of `hypotheses`."""
    text = "".join(
        f"**{r['printed']:.4f} ({NAMES[r['mask_language']]}) cannot be reached at all**: with a "
        f"recall of {r['drop']} the largest possible value is {r['largest']:.4f}. "
        for r in beyond_reach(reach).to_dict("records")
    )
    best = int(tried["reproduced"].max()) if len(tried) else 0
    text += (
        f"We tried {tried.attrs['tried']:,} ways to make the three values from the table: other "
        "rows taken for the unmasked scores, rows or columns swapped, the mean or sum of the other "
        "drops, relative drops, grades counted from 1, gains counted as drops or against them, "
        "other values of epsilon, other means of precision and recall. "
    )
    if best == len(reach):
        rule = tried[tried["reproduced"] == best].iloc[0].to_dict()
        text += f"At least one reproduces all three: {rule}. "
    else:
        text += (
            f"None reproduces all three; the most that any rule reproduces is {best}, as some will "
            "by chance among so many. "
        )
    share = seeds_coincidence([2, 3], 9)
    return prose(
        text + "Averaging over seeds is no way out either: means over two or three unrelated runs "
        f"would look like single runs in all nine scores with a chance of {share[2]:.3f} or "
        f"{share[3]:.5f}. The values may belong to other runs than the scores beside them; the "
        "table cannot show that, and we leave them unexplained."
    )


# --- the paper's own definition -----------------------------------------------------------------


def definition_table(meets: pd.DataFrame) -> Styler:
    """Relative drops and whose is the largest, of `audit.definition`."""
    columns = ["table", "method", "mask", *(f"relative_{x}" for x in NAMES)]
    frame = with_mask(meets)[[*columns, "relative", "hardest", "absolute"]]
    frame = frame.rename(columns=lambda name: str(name).replace("relative_", ""))
    return figures.table(
        frame.rename(columns={"relative": "largest relative", "absolute": "largest absolute"}),
        "Relative drops (share of the unmasked score lost), whether the masked language's is the "
        "largest, which language's is, and the same question for absolute drops",
        dict.fromkeys(NAMES, "{:+.1%}"),
    )


def _met_by_language(meets: pd.DataFrame) -> dict[str, int]:
    """In how many tables CRANE's mask for each language meets the definition."""
    own = meets[(meets["method"] == "CRANE") & (meets["relative"] == "yes")]
    counts = own["mask_language"].value_counts()
    return {x: int(counts.get(x, 0)) for x in NAMES}


def definition_in_words(meets: pd.DataFrame) -> Markdown:
    """Which rows meet the definition of §3.1."""
    yes = meets.assign(**{name: meets[name] == "yes" for name in ("relative", "absolute")})
    counts = yes.groupby("method", sort=False)[["relative", "absolute"]].sum()
    total = meets.groupby("method", sort=False).size()
    own = meets[meets["method"] == "CRANE"]
    hardest = own["hardest"].value_counts()
    tables = meets["table"].nunique()
    return prose(
        "The definition is met by "
        + ", ".join(
            f"{counts.loc[m, 'relative']} of {total[m]} rows of {m} ({counts.loc[m, 'absolute']} "
            "in absolute terms)"
            for m in total.index
        )
        + ". If masks hit a language at random, a third would meet it. Of CRANE's, "
        + ", ".join(
            f"those for {NAMES[x]} meet it in {n} of {tables} tables"
            for x, n in _met_by_language(meets).items()
        )
        + f". {NAMES[hardest.index[0]]} is the language that suffers most under {hardest.iloc[0]} "
        f"of CRANE's {len(own)} masks, whichever language they are for."
    )


# --- what could be noise ------------------------------------------------------------------------


def noise_figure(noise: pd.DataFrame, number: str) -> HTML:
    """How many standard errors each drop of one table may be, of `audit.noise_table`."""
    own = noise[noise["number"] == number]
    unit = "points" if number in "13" else "grades"
    name = own["table"].iloc[0]
    return figures.show(
        figures.noise_ranges(own, title=f"{name}: drops, in {unit} at the bars' ends"),
        alt=in_short(
            f"{name}: for every mask and language the smallest and largest number of standard "
            "errors that the drop may be, against 1.96.",
            [
                (
                    f"{r['method']} {r['mask_language']}, {r['language']}: {r['z_low']:.1f} to "
                    f"{r['z_high']:.1f}, {r['verdict']}",
                    r["z_low"],
                )
                for r in own.to_dict("records")
            ],
            "audit_noise.csv",
            by="the smallest number",
        ),
    )


def noise_counts(noise: pd.DataFrame) -> Styler:
    """How many changes are certain, may be noise, or cannot be told from it."""
    count = noise.groupby(["table", "method", "role", "verdict"]).size().unstack(fill_value=0)
    return figures.table(
        count.reindex(columns=[CERTAIN, OPEN, CANNOT], fill_value=0).reset_index(),
        "Changes that are certain to exceed noise, may or may not, or cannot, by role",
    )


def _collateral(noise: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """CRANE's drops of other languages in Table 1 that are certain, and of how many."""
    own = noise[
        (noise["method"] == "CRANE") & (noise["number"] == "1") & (noise["role"] == "other")
    ]
    return own[own["verdict"] == CERTAIN], len(own)


def noise_in_words(noise: pd.DataFrame) -> Markdown:
    """Which of CRANE's drops elsewhere are certain, and how many of LAPE's changes."""
    certain, total = _collateral(noise)
    lape = noise.loc[noise["method"] == "LAPE", "verdict"]
    return prose(
        f"Of CRANE's drops in Table 1, {len(certain)} of {total} in languages that were *not* "
        "masked are certain to be real: "
        + each_row(
            certain,
            lambda r: (
                f"{_points(r['drop'])} points of {r['language']} under the mask for "
                f"{r['mask_language']}"
            ),
        )
        + f". Of LAPE's {len(lape)} changes in all tables, {int((lape == CERTAIN).sum())} are "
        f"certain, and {int((lape == CANNOT).sum())} cannot be told from noise."
    )


def near_chance_table(chance: pd.DataFrame) -> Styler:
    """The accuracies nearest to guessing, of `audit.chance_table`."""
    return figures.table(
        with_mask(chance[chance["low"] <= 0.26].sort_values("score")).rename(
            columns={"p_value": "p"}
        ),
        "Accuracies whose 95 % interval reaches down to 0.26, against guessing (0.25)",
        {"score": "{:.4f}", "n": "{:,}", "low": "{:.3f}", "high": "{:.3f}", "p": "{:.3f}"},
    )


def chance_in_words(chance: pd.DataFrame, checked: pd.DataFrame) -> Markdown:
    """Which accuracies cannot be told from guessing, and whether one is Table 1's best row."""
    at = chance[chance["verdict"] != "above"]
    if not len(at):
        return prose(f"All {len(chance)} accuracies are above guessing.")
    first = checked[checked["table"] == "Table 1"]
    best = mask_name(max(first.to_dict("records"), key=lambda row: row["printed"]))
    is_best = best in map(mask_name, at.to_dict("records"))
    return prose(
        f"{len(at)} of {len(chance)} accuracies cannot be told from guessing: "
        + each_row(
            at,
            lambda r: (
                f"{r['table']}, {r['method']} {r['mask_language']}, {r['language']}: "
                f"{r['score']:.4f} = {r['count']} of {r['n']}, interval {r['low']:.3f} to "
                f"{r['high']:.3f}"
            ),
        )
        + "."
        + (f" {best} is also the row with the highest LangSpec-F1 of Table 1." if is_best else "")
    )


def closeness_table(close: pd.DataFrame) -> Styler:
    """Scores under CRANE's English and Vietnamese masks, of `audit.closeness`."""
    return figures.table(
        close,
        "Scores under CRANE's masks for en and for vi; items: the difference as right answers or "
        "grade points; z: least and most standard errors",
        {"en": "{:.4f}", "vi": "{:.4f}", "difference": "{:+.4f}", "z_low": "{:.1f}"}
        | {"z_high": "{:.1f}", "items": "{:+d}"},
    )


def closeness_in_words(close: pd.DataFrame, table: Published) -> Markdown:
    """What both masks take from each language, on the benchmarks of Table 1."""
    one = {r["language"]: r for r in close[close["table"] == table.name].to_dict("records")}
    drops = {x: table.drop("CRANE", x) for x in ("en", "vi")}
    zh = "cannot" if one["zh"]["verdict"] == CANNOT else "may"
    exceeds = {
        CERTAIN: "which is certain to exceed noise",
        OPEN: "which may or may not exceed noise",
        CANNOT: "which cannot exceed noise",
    }[one["vi"]["verdict"]]
    return prose(
        "On the benchmarks of the base model both masks take much the same from English "
        f"({_points(drops['en']['en'])} and {_points(drops['vi']['en'])} points) and from Chinese "
        f"({_points(drops['en']['zh'])} and {_points(drops['vi']['zh'])}). The "
        f"{abs(one['zh']['items'])} questions between them in Chinese {zh} be told from noise. "
        f"Only Vietnamese tells them apart, by {abs(one['vi']['items'])} of "
        f"{table.items['vi']} questions, {exceeds}. So whatever else the two sets are, much of "
        "what they do is common to both."
    )


# --- the claims ---------------------------------------------------------------------------------


def claims_in_words(claims: pd.DataFrame) -> Markdown:
    """How many claims hold, of `audit.claims_table`."""
    said = tally(claims)
    return prose(
        f"Of {len(claims)} claims **{said['holds']}** hold, **{said['does not']}** do not, and for "
        f"**{said['cannot tell']}** the tables cannot tell."
    )


def _by_verdict(claims: pd.DataFrame) -> pd.DataFrame:
    order = {"does not": 0, "cannot tell": 1, "holds": 2}
    return claims.sort_values("verdict", key=lambda column: column.map(order), kind="stable")


def claims_by_verdict(claims: pd.DataFrame) -> Styler:
    """The claims and the evidence, those that do not hold first."""
    shown = _by_verdict(claims).replace({"verdict": {"does not": "does not hold"}})
    return figures.table(
        shown[["claim", "section", "verdict", "evidence"]],
        "Claims of the paper and what its tables say to them. Section: where the claim is made",
    )


def claim_criteria(claims: pd.DataFrame) -> Markdown:
    """The criterion of each claim, in the order of `claims_by_verdict`, behind a click."""
    lines = each_row(_by_verdict(claims), lambda r: f"- *{r['claim']}* — {r['criterion']}", "\n")
    return prose(lines, fold="By which criterion")


# --- in short ------------------------------------------------------------------------------------


def audit_in_short(
    cells: pd.DataFrame,
    checked: pd.DataFrame,
    reach: pd.DataFrame,
    claims: pd.DataFrame,
    meets: pd.DataFrame,
    noise: pd.DataFrame,
) -> Markdown:
    """The audit's findings in four sentences."""
    possible, right = int(cells["possible"].sum()), int((checked["verdict"] != "disagrees").sum())
    said, met, tables = tally(claims), _met_by_language(meets), meets["table"].nunique()
    certain, total = _collateral(noise)
    return prose(
        f"- {possible} of {len(cells)} scores are possible means of the sets they are said to come "
        f"from, and {right} of {len(checked)} LangSpec-F1 follow from them. "
        f"{len(checked) - right} do not, and {len(beyond_reach(reach))} of these cannot be "
        "reached.\n"
        f"- Of {len(claims)} claims of the text, {said['holds']} hold in its own tables, "
        f"{said['does not']} do not, and for {said['cannot tell']} they lack what is needed.\n"
        "- What is well supported: CRANE's masks do much more than LAPE's do, and the mask for "
        f"Vietnamese costs Vietnamese most, by the paper's definition in {met['vi']} of {tables} "
        f"tables. What is not: that other languages are spared ({len(certain)} of {total} "
        "collateral drops in Table 1 are certain to be real), and that the masks for English and "
        f"Chinese are specific (the definition is met in {met['en']} and {met['zh']} of {tables} "
        "tables).\n"
        "- Whether CRANE's masks do more because they are better chosen or because they are larger "
        "cannot be told: no number of neurons is printed."
    )
