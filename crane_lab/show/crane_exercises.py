"""Checks of exercises about CRANE that are answered from what a page has computed.

Pages of the testbed, of kurtosis, Table 1, the metric, single neurons and the verdicts. The right
answers are computed here, from a page's own tables.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from crane_core.metrics import langspec_f1
from crane_lab.audit import Published
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show.checks import (
    Checked,
    check_function,
    check_names,
    check_numbers,
    is_blank,
    not_yet,
    nothing_yet,
    slipped,
    stopped,
)
from crane_lab.show.foreign import as_code
from crane_lab.study import criteria

# --- kurtosis -------------------------------------------------------------------------------------


def kurtosis_of_mixture(mine: Callable[[float, float], float]) -> Checked:
    """Check a function of p and s: the kurtosis of N(0, s²) on a share p of texts, else N(0, 1)."""

    def variance(p: float, s: float) -> float:
        return p * s**2 + 1 - p

    def fourth(p: float, s: float) -> float:
        return 3 * (p * s**4 + 1 - p)

    return check_function(
        mine,
        lambda p, s: fourth(p, s) / variance(p, s) ** 2,
        [
            (lambda p, s: 3 / p, "That is for a neuron that is silent on the other texts."),
            (lambda p, s: 3, "That holds of one normal distribution. This is a mixture of two: "
             "average their second and fourth moments."),
            (lambda p, s: fourth(p, s) / 3 / variance(p, s) ** 2, "The fourth moment of a normal "
             "variable is three times the fourth power of its standard deviation."),
            (lambda p, s: fourth(p, s) / variance(p, s), "σ to the fourth power is the *square* of "
             "the variance."),
            (lambda p, s: fourth(p, s) / variance(p, s) ** 2 - 3, "That is excess kurtosis. "
             "Equation 2 subtracts nothing."),
            (lambda p, s: 3 * (p * s**4 + 1) / (p * s**2 + 1) ** 2, "The other texts are only a "
             "share 1 − p of all."),
            (lambda p, s: fourth(p, s) / p / variance(p, s) ** 2, "The share p weighs each moment "
             "once, and nothing else."),
        ],
        [(0.02, 1), (0.02, 5), (0.3, 0.5), (0.5, 10), (1, 2)],
        then="Now `s` matters: the louder the rare texts, the closer to 3/p.",
        else_="Not the expected values. Divide the fourth moment of the mixture by the square of "
        "its second one.",
    )  # fmt: skip


def selected_if_unrelated(mine: Callable[[int, float, int], float]) -> Checked:
    """Check a function of n neurons, a share a above the threshold, and k unrelated languages."""
    return check_function(
        mine,
        lambda n, a, k: n * a * (1 - a) ** (k - 1),
        [
            (lambda n, a, k: n * a, "So many are above the threshold. Leave out those that are so "
             "in another language as well."),
            (lambda n, a, k: a * (1 - a) ** (k - 1), "That is the share. How many neurons is it?"),
            (lambda n, a, k: n * a * (1 - a), "That is for two languages. Every other language "
             "keeps out its share of what is left."),
            (lambda n, a, k: n * a * (1 - a) ** k, "One factor too many: the target does not keep "
             "out its own neurons."),
            (lambda n, a, k: n * a**k, "So many are above the threshold in all languages. The rule "
             "wants the others at or below it."),
            (lambda n, a, k: n * a * (1 - (k - 1) * a), "Shares of the other languages overlap, so "
             "they cannot be added up. Multiply what each leaves."),
            (lambda n, a, k: k * n * a * (1 - a) ** (k - 1), "That is of all languages together. "
             "How many does one get?"),
        ],
        [(2048, 0.1, 3), (1000, 0.2, 2), (1000, 0.5, 4), (500, 0.1, 1)],
        then="The more languages there are, the fewer neurons are left to any of them.",
        else_="Not the expected numbers. A neuron has to be above the threshold in one language "
        "and not above it in each of the others.",
    )  # fmt: skip


# --- Table 1 and its metric -----------------------------------------------------------------------


def own_hit_in_both(
    answer: object, tables: Mapping[str, pd.DataFrame], languages: Mapping[str, str]
) -> Checked:
    """Check which languages are hit hardest by CRANE's mask for them, in every one of `tables`.

    `tables` as `Evaluated.table` returns them, by the kind of task.
    """

    def hit(table: pd.DataFrame, relative: bool) -> set[str]:
        start = table.iloc[0]
        found = set()
        for row in table[table["method"] == "CRANE"].to_dict("records"):
            drops = {
                x: (start[x] - row[x]) / (start[x] if relative and start[x] else 1)
                for x in languages
            }
            own = drops.pop(row["mask_language"])
            if own > max(0, *drops.values()):
                found.add(str(row["mask_language"]))
        return found

    each = {kind: hit(table, True) for kind, table in tables.items()}
    right, either = set.intersection(*each.values()), set.union(*each.values())
    slips = [
        (set(languages) - right, "These are the others: their largest drop is elsewhere in one of "
         "the two tables."),
        *((found, f"That is so in {kind}. It has to be so in the other table as well.")
          for kind, found in each.items()),
        (either, "For these it is so in one of the tables. It has to be so in both."),
        (set.intersection(*(hit(table, False) for table in tables.values())),
         "You have compared absolute drops. Divide each by its language's score before."),
    ]  # fmt: skip
    return check_names(
        answer,
        right,
        slips,
        then="An effect that stays with the language and not with the task would look like that; "
        "whether it is more than chance, the tables above say."
        if right
        else "No mask keeps its row: what looks like a language in one table is not in the other.",
        else_="Not the expected languages. Take CRANE's rows of each table, and of each the "
        "language with the largest relative drop, which has to be above 0.",
        what="a set of languages' codes",
    )


def changed_without_effect(answer: object, own: pd.DataFrame) -> Checked:
    """Check, by language, which share of items CRANE's masks move from wrong to wrong.

    `own` as `comparisons.own_tasks` returns it.
    """
    rows = own[own["method"] == "CRANE"].set_index("language")

    def by(share: pd.Series) -> dict[str, float]:
        return {str(x): float(value) for x, value in share.items()}

    changed, lost, gained = 1 - rows["same"], rows["lost"], rows["gained"]
    return check_numbers(
        answer,
        by(changed - lost - gained),
        [
            (by(changed), "That is all that changed. Leave out what was lost and what was gained."),
            (by(rows["same"]), "That is what did not change."),
            (by(lost - gained), "That is the drop in accuracy. The question is what it misses."),
            (by(lost + gained), "That is what changed sides. The question is what changed and did "
             "not."),
            (by(100 * (changed - lost - gained)), "These are percent. A share lies between 0 "
             "and 1."),
        ],
        then="Accuracy sees none of this, nor what is lost and gained again: it sees the "
        "difference of the two.",
        else_="Not the expected shares. An item that changed was lost, was gained, or went from "
        "one wrong answer to another.",
        within=0.002,
        what="a share for each language",
    )  # fmt: skip


def down_to_guessing(answer: object, table: Published, target: str = "zh") -> Checked:
    """Check the LangSpec-F1 of a mask that takes `target` to its floor and leaves the others."""
    start, floor = table.original[target], table.floor[target]
    masked = table.original | {target: floor}
    recall = (start - floor) / start
    return check_numbers(
        answer,
        langspec_f1(table.original, masked, target).f1,
        [
            (recall, "That is recall. Precision is 1 here; take the harmonic mean of the two."),
            (1.0, "That is precision, or LangSpec-F1 counted from the floor. Counted from 0, "
             "recall is less than 1."),
            ((1 + recall) / 2, "That is the arithmetic mean of precision and recall. Take the "
             "harmonic one."),
            (start - floor, "That is the drop. Recall divides it by the score before."),
            (2 * (floor / start) / (1 + floor / start), "You have taken what is left for what is "
             "lost."),
            (langspec_f1(table.original, dict(table.floor), target).f1, "That mask takes all "
             "languages to guessing. Here the others lose nothing."),
        ],
        then="More is not to be had without answers that are wrong more often than guesses.",
        else_="Not the expected number. No other language loses anything, so what is precision? "
        "And which share of the score is gone?",
        within=0.001,
    )  # fmt: skip


def harmless_mask(
    answer: object, table: Published, method: str = "LAPE", target: str = "zh"
) -> Checked:
    """Check precision, recall and LangSpec-F1 of a printed mask, in this order."""
    start, masked = table.original, table.row(method, target)["masked"]
    found = langspec_f1(start, masked, target)
    drop = start[target] - masked[target]
    others = {x: start[x] - masked[x] for x in start if x != target}
    recall = drop / start[target]
    sizes = drop / (drop + max(abs(other) for other in others.values()))
    return check_numbers(
        answer,
        [found.precision, recall, found.f1],
        [
            ([recall, found.precision, found.f1], "Precision and recall are the other way round."),
            ([found.precision, drop, 2 * drop / (1 + drop)], "Recall is the drop *relative to the "
             "score before*."),
            ([found.precision, recall, (1 + recall) / 2], "LangSpec-F1 is the harmonic mean of the "
             "two, not the arithmetic one."),
            ([sizes, recall, 2 * sizes * recall / (sizes + recall)], "You have counted a gain as "
             "a drop. Gains count as 0."),
        ],
        then="Recall tells you.",
        else_="Not the expected numbers. Which languages lose anything at all, and which share of "
        "what Chinese had?",
        within=0.001,
        what="your three numbers",
    )  # fmt: skip


# --- statistics and single neurons ----------------------------------------------------------------


def without_noise(answer: object, halves: pd.DataFrame) -> Checked:
    """Check what kurtosis of two languages would correlate at without noise, at most windows.

    `halves` as `halves.split_half_reliability` returns it.
    """
    at = halves.pivot_table(index="n", columns="measure", values="mean")
    within, between = (at[name] for name in ("spearman", "spearman, other language"))
    most, fewest = at.index.max(), at.index.min()
    return check_numbers(
        answer,
        between[most] / within[most],
        [
            (between[most], "That is between languages as it was measured, with the noise."),
            (within[most], "That is of two halves of one language. What is the other's share "
             "of it?"),
            (within[most] / between[most], "The other way round: the correlation within a language "
             "is the most that noise leaves."),
            (within[most] - between[most], "That is the difference. Noise lowers a correlation by "
             "a factor, so divide."),
            (between[most] * within[most], "You have multiplied. Noise has lowered the correlation "
             "already, so divide by what it leaves."),
            (between[fewest] / within[fewest], "That is with the fewest windows. Take the most."),
        ],
        then="The nearer that is to 1, the less a ranking says of its language.",
        else_="Not the expected number. Average both measures over the languages, at the largest "
        "number of windows; then divide.",
        within=0.005,
    )  # fmt: skip


def rate_contrast(answer: object, active: Mapping[str, Tensor], n: Mapping[str, int]) -> Checked:
    """Check, by language, how much more often each neuron is active in it than in any other.

    `active`, `n` as `Pipeline.activation_counts` returns them.
    """
    what = "a tensor (layers, neurons) for each language"
    if is_blank(answer):
        return nothing_yet(what)
    if not isinstance(answer, Mapping) or set(answer) != set(active):
        return not_yet(f"A dictionary is expected, with {what}.")
    rate = {x: active[x].double() / n[x] for x in active}
    parts = [answer[x] for x in active]
    if not all(isinstance(part, Tensor) and part.shape == rate[x].shape
               for x, part in zip(active, parts, strict=True)):  # fmt: skip
        return not_yet(f"Not the expected shape: {what}, as `active` has it.")

    def flat(scores: Mapping[str, Tensor]) -> list[float]:
        found: list[float] = torch.stack([scores[x].double() for x in active]).flatten().tolist()
        return found

    others = {x: torch.stack([rate[y] for y in rate if y != x]) for x in rate}
    slips = [
        (flat(rate), "These are the rates. Take from each the largest rate in another language."),
        (flat(criteria.contrasted({x: active[x].double() for x in active})), "These are numbers of "
         "tokens. Divide by `n` first, since texts differ in length."),
        (flat({x: rate[x] - others[x].mean(0) for x in rate}), "You have taken off the mean of the "
         "others. The question says *any* other: take their largest."),
        (flat({x: others[x].max(0).values - rate[x] for x in rate}), "The sign is turned round: "
         "high should mean more often in the language."),
        (flat({x: rate[x] - others[x].min(0).values for x in rate}), "You have taken off the "
         "smallest of the others. A neuron should be above all of them: take the largest."),
    ]  # fmt: skip
    else_ = "Not the expected scores. The rate is `active[x] / n[x]`; take off the largest of the "
    else_ += "other languages' rates, neuron by neuron."
    return slipped(flat(dict(answer)), flat(criteria.contrasted(rate)), slips, else_) or Checked(
        "right", "Now put it beside the others, or better, one of your own."
    )


# --- the testbed, verdicts, and a run of one's own ------------------------------------------------


def items_told_apart(answer: object, before: float = 0.60, after: float = 0.57) -> Checked:
    """Check from how many items on the Wilson intervals of two accuracies do not overlap."""
    z = float(stats.norm.ppf(0.975))

    def apart(n: int) -> bool:
        high, low = (
            stats.binomtest(round(share * n), n).proportion_ci(method="wilson")
            for share in (before, after)
        )
        return bool(high.low > low.high)

    spread = [math.sqrt(share * (1 - share)) for share in (before, after)]
    gap = before - after
    return check_numbers(
        answer,
        next(n for n in range(100, 100_000, 100) if apart(n)),
        [
            ((z * spread[0] / gap) ** 2, "With so many one interval reaches as far as the other "
             "score. But the other has an interval, too."),
            (z**2 * (spread[0] ** 2 + spread[1] ** 2) / gap**2, "With so many the interval of the "
             "*difference* leaves out 0. Two intervals that do not overlap ask for more."),
        ],
        then="And the same items, in pairs, need far fewer.",
        else_="Not the expected number, which is accepted to the next hundred or two. Try sizes in "
        "a loop, or ask when the two half-widths together are the gap.",
        within=150,
    )  # fmt: skip


def as_many_by_chance(answer: object, printed: pd.DataFrame, method: str = "CRANE") -> Checked:
    """Check how likely so many masks hit their own language most if each does so in one of three.

    `printed` as `audit.definition` returns it.
    """
    own = printed.loc[printed["method"] == method, "relative"] == "yes"
    k, n, chance = int(own.sum()), len(own), 1 / 3
    every = printed["relative"] == "yes"
    return check_numbers(
        answer,
        float(stats.binom.sf(k - 1, n, chance)),
        [
            (float(stats.binom.pmf(k, n, chance)), "That is the chance of exactly as many. More "
             "would count as well."),
            (float(stats.binom.sf(k, n, chance)), "That is the chance of *more* than there are. As "
             "many count as well."),
            (float(stats.binom.cdf(k, n, chance)), "That is the chance of as many or *fewer*."),
            (float(stats.binom.sf(k - 1, n, 0.5)), "There are three languages, so chance is one in "
             "three and not one in two."),
            (k / n, "That is the share of masks that do. How likely is it to be so large?"),
            (float(stats.binom.sf(int(every.sum()) - 1, len(every), chance)), "That is of all "
             "methods' masks. Take CRANE's."),
        ],
        then="That takes masks for independent, which they are not quite: all are of one model "
        "and the same questions.",
        else_="Not the expected number. Count CRANE's rows in which `relative` is \"yes\"; "
        "`scipy.stats.binom.sf(k - 1, n, 1 / 3)` is the chance of `k` or more of `n`.",
        within=0.001,
    )  # fmt: skip


#: What makes another run of it, and no cheaper one.
_ANOTHER = ("model", "chat_model", "languages")


def within_a_day(
    answer: object, paper: Settings, hours: Callable[[Any], float], most: float = 8.0
) -> Checked:
    """Check changes of `paper`'s parameters that bring a run's `hours` down to `most`."""
    if is_blank(answer):
        return nothing_yet("a dictionary of parameters")
    if not isinstance(answer, Mapping):
        return not_yet('A dictionary is expected, such as `{"task_limit": 1000}`.')
    known = {field.name for field in dataclasses.fields(paper)}
    unknown = [as_code(name) for name in answer if name not in known]
    if unknown:
        return not_yet(f"There is no parameter {', '.join(unknown)}. `paper` shows all there are.")
    if another := [as_code(name) for name in _ANOTHER if name in answer]:
        return not_yet(f"That is cheaper because it is another run: leave {', '.join(another)}.")
    try:
        needed = float(hours(dataclasses.replace(paper, **answer)))
    except Exception as error:  # whatever a reader's parameters bring about
        return stopped(error, "Nothing can be run with that")
    before = float(hours(paper))
    if needed >= before:
        return not_yet(f"That takes {needed:.0f} hours, no less than before. What takes longest?")
    if needed > most:
        return not_yet(f"{needed:.1f} hours instead of {before:.0f}, still more than {most:.0f}.")
    return Checked("right", f"{needed:.1f} hours instead of {before:.0f}. What does each cost you?")


def bits_per_byte(answer: object, pipeline: Pipeline) -> Checked:
    """Check, by language, the bits per byte that a model needs for its held-out windows."""
    losses, windows = pipeline.losses(), pipeline.perplexity_windows
    nats, texts, size = {}, {}, {}
    for x in losses:
        predicted = windows[x][:, 1:]  # the first token of a window is not
        nats[x] = losses[x].double().sum().item() * predicted.shape[1]
        lines = pipeline.tokenizer.batch_decode(predicted, skip_special_tokens=True)
        texts[x] = "".join(lines)
        size[x] = len(texts[x].encode())
    right = {x: nats[x] / math.log(2) / size[x] for x in nats}
    return check_numbers(
        answer,
        right,
        [
            ({x: nats[x] / size[x] for x in nats}, "These are nats per byte. A bit is log 2 nats."),
            ({x: nats[x] * math.log(2) / size[x] for x in nats}, "There are more bits than nats: "
             "divide by log 2."),
            ({x: right[x] * size[x] / len(texts[x]) for x in nats}, "These are bits per "
             "character. Encode the texts: a character can take several bytes."),
            ({x: losses[x].mean().item() / math.log(2) for x in nats}, "These are bits per token. "
             "Tokens are of different lengths; divide by bytes."),
            ({x: right[x] / windows[x][:, 1:].shape[1] for x in nats}, "A loss is the mean over "
             "a window's predicted tokens. Multiply by their number."),
        ],
        then="Does the order of the languages change?",
        else_="Not the expected numbers. The total loss is that of all windows, each its mean "
        "times its number of predicted tokens; the bytes are those of the same tokens, decoded.",
        within=0.005,
        what="a number for each language",
    )  # fmt: skip
