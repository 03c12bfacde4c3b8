"""The metric card of LangSpec-F1 in notebook 07b: what the score does that its formula hides.

The numbers come from `crane_lab.audit`; here they are only arranged and worded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from numpy.typing import ArrayLike
from pandas.io.formats.style import Styler

from crane_lab.audit.noise import CANNOT, CERTAIN, OPEN, NoiseBounds
from crane_lab.audit.tables import Published
from crane_lab.show import figures
from crane_lab.show.alternative import in_short
from crane_lab.show.foreign import prose
from crane_lab.show.readouts import each_row, mask_name, with_mask
from crane_lab.texts.languages import NAMES

#: The readings of `audit.f1_variants`, the paper's first.
READINGS = ("paper", "mean", "sum", "relative", "floor")
_BENCHMARKS, _GRADES = ("Table 1", "Table 3"), ("Table 2", "Table 4")


def iso_figure(variants: pd.DataFrame) -> HTML:
    """The published rows by recall and precision, of `audit.f1_variants`."""
    panels = {
        "benchmarks (Tables 1 and 3)": variants[variants["table"].isin(_BENCHMARKS)],
        "open-ended (Tables 2 and 4)": variants[variants["table"].isin(_GRADES)],
    }
    return figures.show(
        figures.iso_f1(panels),
        alt=in_short(
            "Published rows by recall (horizontal) and precision (vertical) over lines of equal "
            "LangSpec-F1.",
            [
                (
                    f"{mask_name(r)}: recall {r['recall']:.2f}, precision {r['precision']:.2f}",
                    r["paper"],
                )
                for r in variants.to_dict("records")
            ],
            "audit_variants.csv",
            by="LangSpec-F1",
        ),
    )


def ranked_by(variants: pd.DataFrame) -> Markdown:
    """With which of its two parts LangSpec-F1 goes, over the published rows."""
    active = variants[variants["paper"] > 0]
    rank = active[["paper", "recall", "precision"]].corr(method="spearman")["paper"]
    return prose(
        f"Over the {len(active)} published rows above zero, LangSpec-F1 has a rank correlation of "
        f"{rank['recall']:.2f} with recall and of {rank['precision']:.2f} with precision."
    )


def null_figure(nulls: pd.DataFrame, table: Published) -> HTML:
    """LangSpec-F1 of masks that do nothing, of `audit.null_by_size`, by the number of items."""
    curves = {
        f"{changed:.0%} of the answers": (own["items"], own["mean"], own["p95"])
        for changed, own in nulls.groupby("changed", sort=False)
    }
    sizes = dict(zip(("MMLU", "C-Eval", "Belebele"), table.items.values(), strict=True))
    return figures.show(
        figures.null_curves(curves, {"70 questions": 70, **sizes}),
        alt=in_short(
            "Mean and 95th percentile of LangSpec-F1 of simulated masks that do nothing, against "
            "the number of items.",
            [
                (
                    f"{r['changed']:.0%} of answers flipped, {r['items']:,.0f} items: mean "
                    f"{r['mean']:.3f}, 95th percentile {r['p95']:.3f}",
                    r["p95"],
                )
                for r in nulls.to_dict("records")
            ],
            "audit_null_masks.csv",
            by="the 95th percentile",
        ),
    )


def null_in_words(
    nulls: pd.DataFrame, variants: pd.DataFrame, items: int = 1346, changed: float = 0.1
) -> Markdown:
    """Which published benchmark rows are below what masks without effect may reach."""
    few = nulls[(nulls["items"] == items) & (nulls["changed"] == changed)].iloc[0]
    rows = variants[variants["table"].isin(_BENCHMARKS)]
    below = rows[(rows["paper"] > 0) & (rows["paper"] < few["p95"])]
    return prose(
        f"With {items:,} questions and {changed:.0%} of the answers flipped by chance, a mask "
        f"without any effect has a LangSpec-F1 of {few['mean']:.3f} on average, and one in twenty "
        f"has more than {few['p95']:.3f}. Of the published benchmark rows above zero, {len(below)} "
        "are below that: "
        + each_row(below, lambda r: f"{mask_name(r)} ({r['paper']:.4f})")
        + ". LangSpec-F1 should always be read beside that of random masks of the same size."
    )


Lines = Mapping[str, Sequence[float]]


def _crane(variants: pd.DataFrame, column: str) -> dict[str, float]:
    """Language -> LangSpec-F1 of CRANE's row of Table 1."""
    rows = variants[(variants["table"] == "Table 1") & (variants["method"] == "CRANE")]
    return dict(zip(rows["mask_language"], rows[column], strict=True))


def damage_figure(shares: ArrayLike, paper: Lines, floored: Lines, variants: pd.DataFrame) -> HTML:
    """LangSpec-F1 of masks that take a share from every language, beside CRANE's rows.

    `paper` and `floored` of `audit.even_damage_by_language`: as in the paper, and counted from the
    floor.
    """
    panels = {"as in the paper": paper, "scores from their floor": floored}
    marks = {
        title: _crane(variants, column)
        for title, column in zip(panels, ("paper", "floor"), strict=True)
    }
    return figures.show(
        figures.even_damage_curves(
            shares,
            panels,
            marks,
            "Masks that hit every language alike (unmasked scores of Table 1)",
        ),
        alt="LangSpec-F1 of masks that take the same share above guessing from every language, "
        "rising with the share. "
        + " ".join(
            f"{title}: "
            + ", ".join(f"{x} ends at {values[-1]:.2f}" for x, values in own.items())
            + f"; CRANE's rows: {', '.join(f'{x} {v:.2f}' for x, v in marks[title].items())}."
            for title, own in panels.items()
        ),
    )


def even_damage_in_words(paper: Lines, floored: Lines, checked: pd.DataFrame) -> Markdown:
    """What taking everything from everyone would score, beside Table 1's highest row."""
    ends = {x: values[-1] for x, values in paper.items()}
    highest = max(ends, key=ends.__getitem__)
    top = checked.loc[checked["table"] == "Table 1", "printed"].max()
    return prose(
        f"Taking everything from everyone scores {ends[highest]:.3f} as a mask for "
        f"{NAMES[highest]}: "
        + (
            f"more than any row of Table 1 (the highest is {top:.4f})"
            if ends[highest] > top
            else f"less than the highest row of Table 1 ({top:.4f})"
        )
        + ". And the same mask scores differently by the language it is said to be for ("
        + ", ".join(f"{value:.3f} for {NAMES[x]}" for x, value in ends.items())
        + "), only because the unmasked scores differ. Compare rows of one language, or none. "
        "The reason is in the formula: with the largest *other* drop in the denominator, three "
        "equal drops leave a precision of one half, and recall does the rest. Counting scores from "
        "their floor does not cure it, on the contrary (the right panel ends at "
        + ", ".join(f"{values[-1]:.3f}" for values in floored.values())
        + "). Only random masks that do as much damage can."
    )


def yardstick(shares: ArrayLike, paper: Lines, variants: pd.DataFrame) -> Markdown:
    """How much a mask must take from every language to score what CRANE's row of Table 1 does."""
    told = []
    for x, value in _crane(variants, "paper").items():
        needed = float(np.interp(value, paper[x], np.asarray(shares, dtype=np.float64)))
        reached = f"a mask that takes {needed:.0%} from every language"
        never = "no such mask reaches it"
        told.append(f"{NAMES[x]} {value:.3f}: {never if value > paper[x][-1] else reached}")
    return prose(f"CRANE's rows of Table 1. {'; '.join(told)}.")


def variants_table(variants: pd.DataFrame) -> Styler:
    """LangSpec-F1 under each reading, of `audit.f1_variants`."""
    return figures.table(
        with_mask(variants[["table", "method", "mask_language", *READINGS]]),
        "LangSpec-F1 recomputed as in the paper, and with one thing changed",
        dict.fromkeys(READINGS, "{:.3f}"),
    )


def leaders_in_words(leading: pd.DataFrame) -> Markdown:
    """Whether the ranking of methods depends on the reading, of `audit.leaders`."""
    readings = list(READINGS)
    changed = leading[leading[readings].nunique(axis=1) > 1]
    crane = (leading[readings] == "CRANE").sum()
    return prose(
        f"CRANE leads in {crane['paper']} of {len(leading)} settings as in the paper, and in "
        + ", ".join(f"{crane[c]} ({c})" for c in readings[1:])
        + " by the others. "
        + (
            "The order of methods depends on the reading in "
            + each_row(changed, lambda r: f"{r['table']} {r['mask_language']}")
            if len(changed)
            else "Which method leads does not depend on the reading in any of them"
        )
        + ": the choice moves values, and the ranking of methods is "
        + ("not robust to it." if len(changed) else "robust to it.")
    )


def intervals_table(intervals: pd.DataFrame) -> Styler:
    """Table 1's LangSpec-F1 under both extreme pairings, of `audit.interval_table`."""
    shown = intervals[["method", "mask"]].copy()
    for label in ("paper", "floor"):
        shown[label] = intervals[label].map("{:.3f}".format)
        for kind in ("similar", "opposed"):
            ends = (intervals[f"{label}_{kind}_{end}"] for end in ("low", "high"))
            shown[f"{label}, {kind}"] = [f"{a:.2f} to {b:.2f}" for a, b in zip(*ends, strict=True)]
    return figures.table(
        shown,
        "Table 1: LangSpec-F1 and its 95 % interval (bootstrap over items) if outcomes before and "
        "after masking were as similar, or as opposed, as the counts allow",
    )


def chinese_in_words(intervals: pd.DataFrame, apart: NoiseBounds, items: int) -> Markdown:
    """CRANE's Chinese row of Table 1 against the random one.

    `apart`: `audit.between` of CRANE's and the random mask's accuracy on Chinese, over `items`.
    """
    zh = intervals[intervals["mask"] == "zh"].set_index("method")["paper"]
    said = {
        CERTAIN: "CRANE's mask certainly takes less from Chinese than the random one.",
        OPEN: "that CRANE takes less from Chinese than a random mask may or may not be noise.",
        CANNOT: "the two cannot be told apart.",
    }[apart.verdict]
    return prose(
        f"For Chinese, where random masks beat CRANE ({zh['Random']:.3f} against "
        f"{zh['CRANE']:.3f}), the intervals of the two overlap or nearly so under the "
        "first pairing and widely under the second. On C-Eval itself "
        f"{abs(round(apart.difference * items))} questions lie between the two masks, "
        f"{apart.z_low:.1f} to {apart.z_high:.1f} standard errors: {said}"
    )
