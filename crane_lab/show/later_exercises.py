"""Checks of exercises about later papers, a real model, and what finds needed neurons.

The right answers are computed here, from a page's own tables or from what an exercise says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from crane_core.neurons import NeuronSet
from crane_lab.show.checks import Checked, check_names, check_numbers

# --- trainings, random sets, items ----------------------------------------------------------------


def counted_p(answer: object, draws: int = 9, rows: int = 20) -> Checked:
    """Check a counted p-value, and what is left of it corrected if alone, and if in all rows.

    A set is ahead of all `draws`. It is one of `rows`; the other p-values are 1, or the same.
    """
    p = 1 / (draws + 1)

    def corrected(others: float) -> float:
        return float(stats.false_discovery_control([p] + [others] * (rows - 1))[0])

    alone, everywhere = corrected(1.0), corrected(p)
    return check_numbers(
        answer,
        [p, alone, everywhere],
        [
            ([1 / draws, min(1, rows / draws), 1 / draws], "The set itself counts, too: it is one "
             "of those that are at least as large as it is."),
            ([0.0, 0.0, 0.0], "The set itself is as large as it is, so the share is not 0."),
            ([p, rows * p, p], "Nearly: a p-value cannot be above 1."),
            ([p, p / rows, p], "Corrected, p-values do not fall. With more rows more are first by "
             "chance, so multiply."),
            ([p, alone, alone], "If all rows are as small, as many as all of them are found at "
             "this level: then nothing has to be multiplied."),
            ([p, p, p], "The second: one of many p-values, and the others are 1. Multiply it by "
             "the number of rows."),
        ],
        then="No number of rows makes it smaller; only more draws do.",
        else_="Not the expected numbers. Count the set among the ten. "
        "`scipy.stats.false_discovery_control` corrects a list of p-values.",
        within=0.001,
        what="your three numbers",
    )  # fmt: skip


def free_of_b(
    answer: object, neurons: NeuronSet, rank: int, shape: Mapping[str, tuple[int, int]]
) -> Checked:
    """Check how many numbers of LoRA's B in `gate_proj` are free if `neurons` are chosen.

    `shape` is the model's.
    """
    k, (layers, width), hidden = len(neurons), shape["intermediate"], shape["down"][1]
    return check_numbers(
        answer,
        k * rank,
        [
            (k, "So many rows are free. Each has as many numbers as the rank."),
            (rank, "That is for one neuron. How many are chosen?"),
            (k * hidden, "So many weights change, as the table says. B is smaller: its rows have "
             "as many numbers as the rank."),
            (layers * width * rank, "That is all of B. Rows of neurons that were not chosen are "
             "kept at zero."),
            (k * rank + layers * rank * hidden, "That is B's and A's. A is learned as well, but B "
             "alone is asked for."),
            (3 * k * rank, "That is for three projections. `gate_proj` is one of them."),
        ],
        then="Far fewer numbers than weights: so the neurons' weights cannot move in any way.",
        else_="Not the expected number. B has a row for each chosen neuron; how long is a row?",
        within=0.5,
    )  # fmt: skip


def interval_of_few(answer: object, gains: Sequence[float] = (4, 1, -2)) -> Checked:
    """Check the mean of a few trainings' gains and how far its 95 % interval reaches."""
    n, mean, spread = len(gains), float(np.mean(gains)), float(np.std(gains, ddof=1))
    t = float(stats.t.ppf(0.975, n - 1))
    reach = t * spread / math.sqrt(n)
    return check_numbers(
        answer,
        [mean, reach],
        [
            ([mean, 1.96 * spread / math.sqrt(n)], "1.96 is for many values. With three it is the "
             "number that the exercise gives."),
            ([mean, spread / math.sqrt(n)], "That is the standard error. How many of them does the "
             "interval reach?"),
            ([mean, t * spread], "The standard error is the standard deviation divided by √3."),
            ([mean, spread], "That is the standard deviation. Divide by √3, then multiply."),
            ([mean, t * spread * math.sqrt((n - 1) / n) / math.sqrt(n)], "Divide the sum of "
             "squares by one less than the number of values (`ddof=1` in NumPy)."),
            ([mean, 2 * reach], "That is from end to end. How far does it reach to one side?"),
        ],
        then="The interval holds no gain, a large one, and a loss.",
        else_="Not the expected numbers. Take the mean, then the standard deviation over √3, "
        "times what the exercise gives.",
        within=0.1,
        what="your two numbers",
    )  # fmt: skip


def items_for_a_point(answer: object, changed: float = 0.1, reach: float = 0.01) -> Checked:
    """Check how many items leave ± `reach` if a share `changed` of them goes up or down by 1."""
    each = math.sqrt(changed)

    def items(spread: float, z: float = 1.96) -> float:
        return (z * spread / reach) ** 2

    return check_numbers(
        answer,
        items(each),
        [
            (items(each, 1.0), "That makes one standard error a point. An interval reaches 1.96."),
            (items(changed), "The *variance* of an item is a tenth. Its standard deviation is the "
             "root of that."),
            (4 * items(each), "That is an interval of one point from end to end. ±1 is twice as "
             "wide."),
            (1.96 * each / reach, "That is the root of the number of items. Square it."),
            (items(0.5), "That is for an accuracy near one half. Here a difference is estimated, "
             "and nine items in ten do not change."),
        ],
        then="And that is before another training is drawn.",
        else_="Not the expected number. The standard error is the standard deviation of an item's "
        "change over √n, and 1.96 of it should be a hundredth.",
        within=150,
    )  # fmt: skip


# --- steering and switching off -------------------------------------------------------------------


def share_by_random(answer: object, summary: pd.DataFrame, method: str = "LAPE") -> Checked:
    """Check which part of a method's gain random neurons bring about; adding the mean once.

    `summary` as `steering_effects.steering_summary` returns it.
    """
    setup = summary["kind"].eq("add") & summary["statistic"].eq("mean") & summary["strength"].eq(1)
    before = float(summary.loc[summary["method"] == "none", "share"].iloc[0])
    row = summary[setup & summary["method"].eq(method)].iloc[0]
    share, random = float(row["share"]), float(row["random"])
    return check_numbers(
        answer,
        (random - before) / (share - before),
        [
            (random / share, "Some answers are in the wanted language without any steering (the "
             "row `none`). Subtract that from both."),
            (random / (share - before), "You have subtracted what is there without steering from "
             "one of the two only."),
            (random - before, "That is what random neurons add. Which part of the method's gain "
             "is it?"),
            (share - before, "That is the gain. Which part of it do random neurons bring?"),
            (share - random, "That is by how much the method is ahead. The question is a part."),
            (1 - (random - before) / (share - before), "That is the part that random neurons do "
             "*not* bring about."),
        ],
        then="A push of that size alone brings next to none of it: so it matters which neurons."
        if random - before < 0.1 * (share - before)
        else "So much of the gain is a matter of pushing, whichever neurons.",
        else_="Not the expected number. Take `share` and `random` of the row, and of both take off "
        "the `share` of the row `none`.",
        within=0.001,
    )  # fmt: skip


def answers_lost_to_random(
    answer: object, kept: pd.DataFrame, method: str = "signed mean"
) -> Checked:
    """Check the most answers, at any step, that random sets keep in the language and a method not.

    `kept` as `fallback_effects.kept_language` returns it.
    """
    own = kept[kept["method"] == method].set_index("step")
    behind = own["random_kept"] - own["kept"]
    start = float(own["kept"].iloc[0])
    others = kept[kept["method"] != method]
    elsewhere = float((others["random_kept"] - others["kept"]).max())
    return check_numbers(
        answer,
        float(behind.max()),
        [
            (start - float(own["kept"].min()), "That is against the model with nothing off. Random "
             "sets lose answers as well: subtract from what they keep at the same step."),
            (float((-behind).max()), "That is where the method keeps *more*. Subtract the other "
             "way round."),
            (float(behind.iloc[-1]), "That is at the last step. Look at all of them."),
            (float((behind / own["asked"]).max()), "That is a share. How many answers is it?"),
            (float(behind.mean()), "That is the mean over steps. Which is the most?"),
            (elsewhere, f"That is of other methods. Take the rows of `{method}`."),
        ],
        then=f"Of {int(own['asked'].iloc[0])} answers. Is that more than chance at so many steps? "
        "The last column of the table says.",
        else_="Not the expected number. At every step subtract `kept` from `random_kept`, and take "
        "the largest difference.",
        within=0.05,
    )  # fmt: skip


# --- a real model, and criteria -------------------------------------------------------------------


def cost_per_hundred(answer: object, losses: pd.DataFrame, method: str = "CRANE") -> Checked:
    """Check, by language, what a method's masks add to their own loss per hundred neurons.

    `losses` as `comparisons.loss_changes` returns it.
    """
    rows = losses[losses["method"] == method].to_dict("records")
    languages = [str(row["mask_language"]) for row in rows]
    own = {x: float(row[x]) for x, row in zip(languages, rows, strict=True)}
    n = {x: int(row["n_neurons"]) for x, row in zip(languages, rows, strict=True)}
    most = {
        x: max(float(row[y]) for y in languages if y != x)
        for x, row in zip(languages, rows, strict=True)
    }
    right = {x: 100 * own[x] / n[x] if n[x] else math.nan for x in languages}
    return check_numbers(
        answer,
        right,
        [
            ({x: right[x] / 100 for x in right}, "That is per neuron. Multiply by a hundred."),
            (own, "That is what the whole mask adds. Divide by its neurons."),
            ({x: 100 * most[x] / max(n[x], 1) for x in own}, "That is of the hardest-hit other "
             "language. Take the masked one."),
            ({x: 100 * (own[x] - most[x]) / max(n[x], 1) for x in own}, "That is own less other. "
             "Take the own loss alone."),
            ({x: n[x] / 100 / own[x] if own[x] else 0.0 for x in own}, "That is hundreds of "
             "neurons per nat. Turn it round."),
        ],
        then="Would a mask of twice the size cost twice as much?",
        else_="Not the expected numbers. In CRANE's row for a language, that language's column "
        "over `n_neurons`, times a hundred.",
        within=5e-4,
        what="a number for each language",
    )  # fmt: skip


def without_their_noise(
    answer: object, measured: Sequence[float] = (0.45, 0.3), ceilings: Sequence[float] = (0.9, 0.5)
) -> Checked:
    """Check what correlations would be if what they are held against had no noise."""
    m, c = np.array(measured), np.array(ceilings)
    return check_numbers(
        answer,
        (m / c).tolist(),
        [
            ((m * c).tolist(), "Noise has lowered the correlations already. Divide by the "
             "ceiling."),
            ((c - m).tolist(), "That is the distance to the ceiling. Noise works as a factor."),
            ((m / np.sqrt(c)).tolist(), "No root: the ceiling is a correlation already."),
            ((m / c)[::-1].tolist(), "The right numbers, in the wrong order."),
            (m.tolist(), "These are the correlations with the noise."),
        ],
        then="On which does the criterion foresee better, and how sure is that?",
        else_="Not the expected numbers. Which share of what a criterion without error could "
        "reach does this one reach?",
        within=0.005,
        what="your two numbers",
    )  # fmt: skip


def first_by_both(answer: object, merits: pd.DataFrame, many: int = 5) -> Checked:
    """Check which candidates are among the first by both figures of merit.

    `merits` as `exploration.read_exploration` has it; rows of the mean over languages count.
    """
    mean = merits[merits["language"] == "all"].set_index("candidate")

    def first(column: str, least: bool = False) -> set[str]:
        ranks = mean[column].sort_values(ascending=least, kind="stable")
        return set(map(str, ranks.index[:many]))

    merit, harmless = first("merit"), first("little_harm")
    single = merits[merits["language"] != "all"]
    by_rows = [
        set(single.sort_values(column, ascending=False)["candidate"][:many])
        for column in ("merit", "little_harm")
    ]
    return check_names(
        answer,
        merit & harmless,
        [
            (merit, "These are the first by the merit alone."),
            (harmless, "These are the first by the second figure alone."),
            (merit | harmless, "These are the first by either. Take those that are so by both."),
            (merit - harmless, "These are the first by the merit that are *not* so by the other."),
            (first("merit", True) & first("little_harm", True), "These are the last by both. Sort "
             "the other way round."),
            (by_rows[0] & by_rows[1], "You have compared single languages. Take the rows of "
             "`all`."),
        ],
        then="Which figure do the others fail by?",
        else_="Not the expected candidates. Of the rows of `all`, take the names with the largest "
        "`merit`, those with the largest `little_harm`, and what is in both.",
        what="a set of candidates' names",
    )  # fmt: skip


def only_together(answer: object, parts: pd.DataFrame, criterion: str = "greedy search") -> Checked:
    """Check which share of what a criterion's sets do is not the sum of their neurons alone.

    `parts` as `anatomy.parts_of` returns it.
    """
    row = parts[parts["criterion"] == criterion].iloc[0]
    own, alone, difference = (float(row[c]) for c in ("own", "predicted", "difference"))
    return check_numbers(
        answer,
        (own - alone) / own,
        [
            (alone / own, "That is the share that single effects account for. What is left?"),
            (own / alone, "That is how many times as much they do together. Which share of it is "
             "not in the single effects?"),
            ((own - alone) / alone, "You have divided by the single effects. Divide by what they "
             "do together."),
            (own - alone, "That is in nats. Which share of the whole is it?"),
            (difference / own, "That is own less other. Take the sum of neurons alone "
             "(`predicted`) off the own loss."),
        ],
        then="Single effects have no way of seeing that part.",
        else_="Not the expected number. Take `predicted` off `own` in the row of the search, and "
        "divide by `own`.",
        within=0.005,
    )  # fmt: skip
