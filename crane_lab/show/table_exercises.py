"""Checks of exercises about printed tables, choices, and sets of neurons.

Pages of open answers, the chat model, the audit, choices and damage curves. The right answers are
computed here, from a page's own tables or from what an exercise says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from crane_core.metrics import LangSpecF1, langspec_f1
from crane_lab import audit
from crane_lab.show.checks import Checked, check_names, check_numbers
from crane_lab.study import choices

# --- open answers and the chat model --------------------------------------------------------------


def counted_from_one(answer: object, table: pd.DataFrame, method: str = "CRANE") -> Checked:
    """Check, by language, LangSpec-F1 of a method's masks if grades are counted from 1.

    `table` as `audit.read_scores("2")`, row Org first.
    """
    original, *masks = table.to_dict("records")
    rows = {str(row["mask_language"]): row for row in masks if row["method"] == method}
    before = {x: float(original[x]) for x in rows}

    def read(off_before: float, off_after: float) -> dict[str, LangSpecF1]:
        start = {x: grade - off_before for x, grade in before.items()}
        return {
            x: langspec_f1(start, {y: float(row[y]) - off_after for y in before}, x)
            for x, row in rows.items()
        }

    found = read(1, 1)
    return check_numbers(
        answer,
        {x: one.f1 for x, one in found.items()},
        [
            ({x: one.f1 for x, one in read(0, 0).items()}, "These are counted from 0, as the paper "
             "does. Take one from every grade first."),
            ({x: one.f1 for x, one in read(0, 1).items()}, "You have taken one from the grades "
             "after only. Take it from those before as well."),
            ({x: one.f1 for x, one in read(1, 0).items()}, "You have taken one from the grades "
             "before only. Take it from those after as well."),
            ({x: one.f1 for x, one in read(-1, -1).items()}, "You have added one to every grade. "
             "Take it away."),
            ({x: one.recall for x, one in found.items()}, "That is recall. Take the harmonic mean "
             "of it and precision."),
            ({x: one.precision for x, one in found.items()}, "That is precision, which does not "
             "change: drops are the same wherever grades are counted from."),
        ],
        then="All of them are larger than from 0: the closer a grade is to the floor, the larger a "
        "share of it is lost.",
        else_="Not the expected numbers. Take one from all grades of the row Org and of CRANE's "
        "rows, and hand them to `metrics.langspec_f1`.",
        within=0.001,
        what="a number for each language",
    )  # fmt: skip


def kept_on_chat(answer: object, table: pd.DataFrame, method: str = "CRANE") -> Checked:
    """Check, by language, which share of a mask's drop on the base model the chat model has, too.

    `table` as `audit.read_scores("3")`, row Org first.
    """
    original, *masks = table.to_dict("records")
    rows = {str(row["mask_language"]): row for row in masks if row["method"] == method}

    def drops(model: str, relative: bool = False) -> dict[str, float]:
        start = {x: float(original[f"{model}_{x}"]) for x in rows}
        return {
            x: (start[x] - float(row[f"{model}_{x}"])) / (start[x] if relative else 1)
            for x, row in rows.items()
        }

    def over(top: Mapping[str, float], bottom: Mapping[str, float]) -> dict[str, float]:
        return {x: top[x] / bottom[x] if bottom[x] else np.nan for x in rows}

    base, chat = drops("base"), drops("chat")
    kept = over(chat, base)
    scores = ({x: float(row[f"{m}_{x}"]) for x, row in rows.items()} for m in ("chat", "base"))
    return check_numbers(
        answer,
        kept,
        [
            (over(base, chat), "The other way round: divide the chat model's drop by the base "
             "model's."),
            (chat, "These are the drops on the chat model. Divide by those on the base model."),
            ({x: base[x] - chat[x] for x in rows}, "These are differences. Which share of a drop "
             "is kept?"),
            ({x: 1 - kept[x] for x in rows}, "That is what is lost. How much is kept?"),
            ({x: 100 * kept[x] for x in rows}, "These are percent. A share is 1 where all is "
             "kept."),
            (over(drops("chat", True), drops("base", True)), "You have divided drops relative to "
             "each model's own score. The question is of the drops themselves."),
            (over(*scores), "These are scores under the masks. Subtract them from the row Org "
             "first, model by model."),
        ],
        then="Now the random rows of ours: how much do they keep?",
        else_="Not the expected shares. For each language take its column of the row Org less that "
        "of CRANE's mask for it, on both models, and divide.",
        within=0.005,
        what="a share for each language",
    )  # fmt: skip


# --- the audit ------------------------------------------------------------------------------------


def possible_counts(answer: object) -> Checked:
    """Check how many counts of right answers are printed so: 0.2817, 0.2233 of 900; 0.2817 of MMLU.

    MMLU has 14,042 questions.
    """
    given = ((0.2817, 900), (0.2233, 900), (0.2817, 14042))
    right = [len(audit.grim(value, n)) for value, n in given]
    return check_numbers(
        answer,
        right,
        [
            ([1, 1, 1], "There always is a nearest whole number. Divide it by the number of "
             "questions again: is that printed as the accuracy?"),
            ([1, 1, right[2]], "For 0.2817 of 900: the nearest counts are 253 and 254. What do "
             "they give in four decimals?"),
            ([right[1], right[0], right[2]], "The two on Belebele are the other way round."),
            ([0, 0, right[2]], "0.2233 is possible: divide 201 by 900."),
            ([right[0], right[1], 1], "On MMLU a question is less than a ten-thousandth, so more "
             "than one count is printed so."),
            ([right[0], right[1], 0], "On MMLU a question is less than a ten-thousandth: no "
             "four-digit accuracy can be missed."),
            ([*(value * n for value, n in given)], "These are the accuracies times the questions. "
             "How many whole numbers, over the questions, are printed as the accuracy?"),
        ],
        then="An impossible print is a mistake somewhere, and a possible one on a large benchmark "
        "says nothing.",
        else_="Not the expected numbers. Try every whole number near accuracy times questions: "
        "which of them, over the questions, round to the accuracy in four decimals?",
        within=0.01,
        what="your three numbers",
    )  # fmt: skip


def most_changed(answer: object, lost: int = 21, n: int = 1346) -> Checked:
    """Check at most how many of `n` answers may have changed if `lost` more were lost than gained.

    So that McNemar's exact test is significant at 95 %.
    """

    def most(level: float = 0.05, sides: int = 2) -> int:
        changed = np.arange(lost, n, 2)  # odd and even with the difference
        p = sides * stats.binom.sf((changed + lost) // 2 - 1, changed, 0.5)
        return int(changed[p < level].max())

    right = most()
    return check_numbers(
        answer,
        right,
        [
            (lost, "That is the fewest that can have changed: all for the worse. How many more "
             "can there be, as many for the better as for the worse?"),
            (most(sides=1), "That is for a test of one side. A mask could have helped, too: "
             "take both sides."),
            (right + 2, "With so many it is no longer significant. Take the last before that."),
            ((right + lost) // 2, "So many were lost. Those that were gained changed as well."),
            ((right - lost) // 2, "So many were gained. Those that were lost changed as well."),
            (most(0.01), "That is at 99 %. The question is 95 %."),
            (int((lost / 1.96) ** 2), "That is by the normal approximation, which here allows too "
             "many. Take the exact test of a coin."),
            (int(((lost - 1) / 1.96) ** 2), "That is by the normal approximation with correction. "
             "Nearly: take the exact test, and a number that is odd as the difference is."),
        ],
        then=f"A small part of {n:,} answers. Would you expect a mask to change fewer?",
        else_="Not the expected number. With D changes, (D + 21) / 2 of them are for the worse: "
        "`scipy.stats.binomtest` says how likely that is of a coin. Count D up.",
        within=0.1,
    )  # fmt: skip


# --- choices and sets of neurons ------------------------------------------------------------------


def kurtosis_of_lengths(answer: object, lengths: tuple[int, int] = (16, 112)) -> Checked:
    """Check three kurtoses: windows of one length, sums and means over windows of two `lengths`.

    Each length has half of the windows, and tokens are independent and normal.
    """
    of = np.array(lengths, dtype=float)

    def mixture(variance: np.ndarray, factor: float = 3.0) -> float:
        return float(factor * (variance**2).mean() / variance.mean() ** 2)

    sums, means = mixture(of), mixture(1 / of)
    return check_numbers(
        answer,
        [3.0, sums, means],
        [
            ([0.0, sums - 3, means - 3], "These are excess kurtosis. Equation 2 subtracts "
             "nothing."),
            ([3.0, 3.0, 3.0], "With two lengths the values are a mixture of two normals, and that "
             "is not normal."),
            ([3.0, sums, 3.0], "A mean over more tokens varies less, so means are a mixture as "
             "well."),
            ([3.0, 3.0, means], "A sum over more tokens varies more, so sums are a mixture as "
             "well."),
            ([1.0, mixture(of, 1), mixture(1 / of, 1)], "The fourth moment of a normal variable is "
             "three times the square of its variance."),
            ([3.0, mixture(of**2), mixture(1 / of**2)], "The *variance* of a sum grows with the "
             "number of tokens, not its standard deviation."),
        ],
        then="So with unequal lengths kurtosis measures how lengths vary, in every neuron.",
        else_="Not the expected numbers. A sum's variance is the length, a mean's one over it; the "
        "kurtosis of a mixture of normals is 3 E[v²] / E[v]², v the variance.",
        within=0.06,
        what="your three numbers",
    )  # fmt: skip


#: Measures of a sweep that choices are ranked by.
_MEASURES = ("langspec_f1", "langspec_f1_above", "selectivity")


def first_under_all(answer: object, sweep: pd.DataFrame, many: int = 3) -> Checked:
    """Check which choices are among the first under each of three measures and three rules.

    `sweep` as `choices.sweep` returns it, with what is above random masks.
    """

    def first(measure: str, how: str) -> set[str]:
        if how == "most moved":
            languages = sweep.groupby("mask_language", sort=False)
            each = [choices.departures(own, measure).set_index("choice") for _, own in languages]
            size = pd.concat([own["largest"] for own in each], axis=1).max(axis=1)
        else:
            size = choices.departures(sweep, measure).set_index("choice")[how]
        return set(map(str, size.sort_values(ascending=False, kind="stable").index[:many]))

    def both(over: Callable[..., set[str]], hows: list[str], measures: tuple[str, ...]) -> set[str]:
        return over(*(first(measure, how) for measure in measures for how in hows))

    hows = ["largest", "typical", "most moved"]
    usual = first("langspec_f1", "largest")
    everywhere = both(set.intersection, hows, _MEASURES)
    return check_names(
        answer,
        everywhere,
        [
            (usual, "These are the three of the ranking above. Which of them are among the first "
             "three by the other measures and rules, too?"),
            (usual - everywhere, "These are the ones of the three that some rule leaves out."),
            (both(set.union, hows, _MEASURES), "These are among the first three under *some* rule. "
             "It has to be under every one."),
            (both(set.intersection, ["largest"], _MEASURES), "That is by `largest`, and the mean "
             "over languages. Rank by the other rules as well."),
            (both(set.intersection, hows, _MEASURES[:1]), "That is by LangSpec-F1. Take the other "
             "measures as well."),
            (both(set.intersection, hows[:2], _MEASURES), "You have left out the language that is "
             "moved most."),
        ],
        then="What is left is no matter of taste. The others depend on what one looks at.",
        else_="Not the expected choices. For each measure and rule sort the choices, take the "
        "first three, and see which of them are there every time.",
        what='a set of names as in the column `choice`, such as `{"rule"}`,',
    )  # fmt: skip


def beside_random_sets(answer: object, ratios: pd.DataFrame) -> Checked:
    """Check how many times random sets' ratio the criteria's is, at the largest budget.

    `ratios` as `summaries.additivity` returns it; medians count.
    """
    by = {
        str(kind): own.set_index("budget")["median"].sort_index()
        for kind, own in ratios.groupby("kind")
    }
    most = ratios["budget"].max()

    def median(kind: str, budget: float | None = None) -> float:
        own = by.get(kind, pd.Series(dtype=float))
        return float(own.get(most if budget is None else budget, np.nan))

    criteria, random = median("criteria"), median("random order")
    shared = [b for b in ratios["budget"] if not np.isnan(median("criteria", b))
              and not np.isnan(median("random order", b))]  # fmt: skip
    least = min(shared, default=most)
    return check_numbers(
        answer,
        criteria / random,
        [
            (criteria, "That is the criteria's own. Divide by that of random order."),
            (random / criteria, "The other way round: the criteria's over that of random order."),
            (criteria - random, "That is the difference. How many times as large is it?"),
            (median("greedy search") / random, "That is the greedy search's. Take the row of the "
             "criteria."),
            (median("single effects") / random, "That is of sets by single effects. Take the row "
             "of the criteria."),
            (median("criteria", least) / median("random order", least), "That is at a small "
             "budget. Take the largest."),
        ],
        then="What any set of that size does is not yet a sign that its neurons stand in for each "
        "other.",
        else_="Not the expected number. Of `ratios` take `median` at the largest budget, of the "
        "criteria and of random order, and divide.",
        within=0.01,
    )  # fmt: skip
