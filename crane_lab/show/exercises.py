"""Checks of what a reader writes into the stubs of exercises.

A stub is a cell with `...` where the answer goes, and a call of one of these functions after it. A
check says that there is nothing yet, that the answer is right, or what is wrong with it: the usual
slips are recognised by the numbers or sets that they lead to. Nothing in a stub stops a notebook.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from crane_core.metrics import langspec_f1
from crane_core.neurons import NeuronSet
from crane_core.selection import SelectionWarning, normalise, select
from crane_lab.show.checks import (
    Checked,
    Slip,
    as_numbers,
    is_blank,
    not_yet,
    nothing_yet,
    returned,
    slipped,
)
from crane_lab.study.necessity import Necessity

# --- notebook 01 ----------------------------------------------------------------------------------


def relevance_by_hand(output: object, hidden: object, inputs: object) -> Checked:
    """Check the output and the relevance of all units of the two-layer network for x = (2, 1)."""
    if is_blank([output, hidden, inputs]):
        return nothing_yet("your numbers")
    handed_down = sum(as_numbers(inputs))
    wrong = (
        slipped(
            output,
            [12],
            [
                ([13], "The third hidden unit is below 0 before ReLU, so it is 0 after it."),
                ([5], "That is the output for the first input; here the input is (2, 1)."),
            ],
            "The output is not right. Compute the hidden units first, with ReLU, then their sum "
            "with the weights v.",
        )
        or slipped(
            hidden,
            [6, 6, 0],
            [
                ([3, 2, 0], "These are the hidden units. Relevance is what each of them puts into "
                 "the output: the unit times its weight in v."),
                ([2, 3, -1], "These are the weights v alone. Multiply each by its hidden unit."),
                ([6, 6, 1], "The third hidden unit is 0 after ReLU, and so is its relevance."),
            ],
            "The output is right, the relevance of the hidden units is not. Each gets the summand "
            "that it puts into the output.",
        )
        or slipped(
            inputs,
            [16, -4],
            [
                ([8, 4], "You have shared by the size of the summands. Shares keep their signs: a "
                 "summand against the sum gets a negative share."),
                ([4, 2], "That is what the first hidden unit hands down. The second one's "
                 "relevance has to be added."),
                ([12, -6], "That is what the second hidden unit hands down. The first one's "
                 "relevance has to be added."),
                ([-4, 16], "The right numbers, in the wrong order."),
            ],
            "The inputs' relevances add up to the output, as they should, but the shares are not "
            "right. Share out each hidden unit's relevance by the summands of that unit."
            if math.isclose(handed_down, 12, abs_tol=1e-4)
            else "What the inputs receive does not add up to the output. In a layer without bias "
            "nothing is lost and nothing is added.",
        )
    )  # fmt: skip
    return wrong or Checked(
        "right",
        "All that reaches the inputs adds up to the output. The second input speaks against it.",
    )


# --- notebook 02 ----------------------------------------------------------------------------------


def sets_by_magnitude(
    sets: object,
    magnitude: Mapping[str, Tensor],
    by_kurtosis: Mapping[str, Tensor],
    normalisation: str,
    threshold: float,
) -> Checked:
    """Check sets of neurons by mean |relevance|, a `NeuronSet` for each language.

    `magnitude` as it is, `by_kurtosis` normalised, both language -> (layers, neurons).
    """
    if is_blank(sets):
        return nothing_yet("a set of neurons for each language")
    if not isinstance(sets, Mapping) or set(sets) != set(magnitude):
        return not_yet("A dictionary is expected, with a set for each of the languages.")
    if not all(isinstance(found, NeuronSet) for found in sets.values()):
        return not_yet("A `NeuronSet` is expected for each language, as `select` returns it.")

    def chosen(scores: Mapping[str, Tensor], rule: str = "contrast") -> dict[str, NeuronSet]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SelectionWarning)
            return {x: select(scores, x, rule=rule, threshold=threshold) for x in magnitude}

    scaled = normalise(magnitude, normalisation)
    right = chosen(scaled)
    if sets == right:
        return Checked("right", "Now compare them with the sets of kurtosis, by `overlap`.")
    if sets == chosen(by_kurtosis):
        return not_yet("These are the sets of kurtosis. Take the scores from `look.magnitude`.")
    if sets == chosen(magnitude):
        return not_yet(
            "The threshold was held against magnitudes as they are. Bring them onto a scale within "
            "each layer first: `normalise(look.magnitude, normalisation)`."
        )
    if sets == chosen(scaled, "threshold"):
        return not_yet(
            "These neurons are above the threshold in their language, whatever they are in the "
            "others. The contrast rule also wants every other language at or below it."
        )
    if any(sets[x] == right[y] for x in sets for y in right if x != y and len(right[y])):
        return not_yet("A language has another language's set: look at the target of `select`.")
    return not_yet(
        "Not the expected sets. Is everything but the statistic as above: the normalisation, the "
        "rule, the threshold, and no budget?"
    )


# --- notebook 03b ---------------------------------------------------------------------------------


def random_down_set(found: object, neurons: NeuronSet) -> Checked:
    """Check a random set of `down_proj` outputs that follows the counts per layer of `neurons`."""
    if is_blank(found):
        return nothing_yet("a `NeuronSet`")
    if not isinstance(found, NeuronSet):
        return not_yet("A `NeuronSet` is expected, made as the exercise says.")
    if found.sites != ("down",):
        return not_yet(
            f"This set has the sites {', '.join(found.sites) or 'of nothing'}. The outputs of "
            '`down_proj` are the site `"down"`, and the set should have no other.'
        )
    mask = found.mask("down")
    depth, width = mask.shape
    uncapped = neurons.counts("intermediate")
    if depth != len(uncapped):
        return not_yet("The set has another number of layers than the model.")
    wanted = uncapped.clamp(max=width // 4)
    counts = mask.sum(1)
    if not torch.equal(counts, wanted):
        if torch.equal(counts, uncapped):
            return not_yet(
                "As many as the set has in each layer, but in some layers that is more than a "
                "quarter of the outputs. Cut the counts there."
            )
        if int(counts.sum()) == int(wanted.sum()):
            return not_yet("The total is right, but not the number in each layer.")
        return not_yet("Some layers do not have as many entries as the largest set has there.")
    if torch.equal(mask, torch.arange(width).expand(depth, width) < wanted[:, None]):
        return not_yet(
            "The numbers are right, but these are the first outputs of each layer, which is no "
            "draw. `baselines.random_matched` draws as many at random."
        )
    return Checked("right", "Now mask it, and compare the losses.")


# --- notebook 04 ----------------------------------------------------------------------------------

# Scores before and after, under masks for "a". Every reading gives other numbers.
_MASKED: tuple[tuple[dict[str, float], dict[str, float]], ...] = (
    ({"a": 0.8, "b": 0.6, "c": 0.5}, {"a": 0.5, "b": 0.5, "c": 0.45}),
    ({"a": 0.6, "b": 0.9, "c": 0.5}, {"a": 0.4, "b": 0.7, "c": 0.6}),
    ({"a": 0.5, "b": 0.4, "c": 0.9}, {"a": 0.3, "b": 0.35, "c": 0.6}),
)


def mean_and_relative(reading: Callable[[dict[str, float], dict[str, float], str], Any]) -> Checked:
    """Check a function of scores before and after and the target: F1 of relative drops, by mean."""
    answers = returned(reading, [(dict(before), dict(after), "a") for before, after in _MASKED])
    if isinstance(answers, Checked):
        return answers
    if is_blank(answers):
        return nothing_yet("the formula, or a call of `metrics.langspec_f1`,")
    if all(hasattr(answer, "f1") for answer in answers):
        return not_yet("That is the whole result. Return its `.f1`.")

    def by(how: str, relative: bool) -> list[float]:
        return [langspec_f1(b, a, "a", how=how, relative=relative).f1 for b, a in _MASKED]

    slips: list[Slip] = [
        (by("max", False), "That is Equation 3 as it stands: absolute drops, by the largest."),
        (by("mean", False), "The drops are absolute. Divide each by its language's score before."),
        (by("max", True), "The drops are relative, but the largest of the other languages counts. "
         "Take their mean."),
        (by("sum", True), "The other languages' drops are added up. Take their mean."),
        (by("sum", False), "These are absolute drops, added up. Take relative ones, and a mean."),
        ([_with_gains(b, a) for b, a in _MASKED], "A gain of another language is counted as a "
         "negative drop. Equation 3 counts it as 0."),
    ]  # fmt: skip
    else_ = (
        "Not the expected numbers. Precision compares the target's drop with the mean of the "
        "others', all relative; recall is the target's relative drop; F1 is their harmonic mean."
    )
    return slipped(answers, by("mean", True), slips, else_, 1e-5) or Checked(
        "right", "Now use it on both tables: does the best method of any language change?"
    )


def _with_gains(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The slip of not cutting drops at 0."""
    drops = {x: (before[x] - after[x]) / before[x] for x in before}
    own = drops.pop("a")
    precision = own / (own + sum(drops.values()) / len(drops))
    return 2 * precision * own / (precision + own)


# --- notebook 09 ----------------------------------------------------------------------------------


def share_at_both(shares: object, necessity: Necessity, level: float) -> Checked:
    """Check, for each language, the share of neurons necessary at zero that are so at the mean."""
    if is_blank(shares):
        return nothing_yet("a share for each language")
    if not {"zero", "mean"} <= set(necessity.values):
        return Checked("nothing", "This run has no ablations to the mean to check against.")
    languages = necessity.languages
    if not isinstance(shares, Mapping) or set(shares) != set(languages):
        return not_yet("A dictionary is expected, with a share for each of the languages.")
    counts = []
    for x in languages:
        zero, mean = (necessity.significant(x, "necessity", v, level) for v in ("zero", "mean"))
        both = int((zero & mean).sum())
        counts.append((both, int(zero.sum()), int(mean.sum()), int((zero | mean).sum())))
    right = [both / max(zero, 1) for both, zero, _, _ in counts]
    slips: list[Slip] = [
        ([float(both) for both, *_ in counts], "These are the numbers of neurons. Divide by the "
         "number that is necessary at zero."),
        ([100 * share for share in right], "These are percent. A share lies between 0 and 1."),
        ([both / max(mean, 1) for both, _, mean, _ in counts], "You have divided by the neurons "
         "that are necessary at the mean. The question starts from those at zero."),
        ([both / max(either, 1) for both, _, _, either in counts], "You have divided by the "
         "neurons that are necessary at either. The question starts from those at zero."),
        ([mean / max(zero, 1) for _, zero, mean, _ in counts], "You have divided one number by the "
         "other. Count the neurons that are in both sets, with `&`."),
    ]  # fmt: skip
    else_ = (
        "Not the expected shares. `necessity.significant(x, \"necessity\", value, fdr)` says which "
        "neurons are necessary, at `\"zero\"` and at `\"mean\"`."
    )  # fmt: skip
    return slipped([shares[x] for x in languages], right, slips, else_, 0.005) or Checked(
        "right", "What might the others be doing, those that are necessary at zero only?"
    )


# --- notebooks 12b, 13 and 15 ---------------------------------------------------------------------


def silu_states(outputs: object, reachable: object) -> Checked:
    """Check SiLU's outputs at the two printed percentiles, and which of the two it can put out."""
    if is_blank([outputs, reachable]):
        return nothing_yet("your numbers")
    inputs = (-0.68, 0.17)
    sigmoid = [1 / (1 + math.exp(-x)) for x in inputs]
    wrong = slipped(
        outputs,
        [x * share for x, share in zip(inputs, sigmoid, strict=True)],
        [
            (sigmoid, "That is σ(x). SiLU multiplies it by x."),
            ((0.0, 0.17), "That is ReLU. SiLU lets some of a negative input through."),
            (inputs, "These are the inputs. SiLU(x) is x · σ(x)."),
            ([x * (1 - share) for x, share in zip(inputs, sigmoid, strict=True)],
             "Look at the sign in σ(x) = 1 / (1 + exp(−x))."),
        ],
        "SiLU's outputs are not right. SiLU(x) is x · σ(x), and σ(x) = 1 / (1 + exp(−x)).",
        0.006,
    )  # fmt: skip
    if wrong:
        return wrong
    if not isinstance(reachable, list | tuple | set):
        reachable = [reachable]
    states = sorted(as_numbers(list(reachable)))
    if states == [0.17]:
        return Checked("right", "SiLU never goes below about −0.28, and upwards it has no end.")
    if not states:
        return not_yet(
            "SiLU's outputs are right. For large inputs it comes close to x: is there really no "
            "input that gives 0.17?"
        )
    if -0.68 in states:
        return not_yet(
            "SiLU's outputs are right. Now draw SiLU for negative inputs: how far down does it go, "
            "and is −0.68 above that?"
        )
    return not_yet(
        "SiLU's outputs are right. The states in question are −0.68 and 0.17, as printed."
    )


def counted_changes(fewest: object, p_fewest: object, p_more: object) -> Checked:
    """Check the fewest items that can have changed from 134 to 144 right, and two p-values."""
    if is_blank([fewest, p_fewest, p_more]):
        return nothing_yet("your numbers")
    few, more = (stats.binomtest(better, n).pvalue for better, n in ((10, 10), (35, 60)))
    doubled = stats.binomtest(30, 50).pvalue
    one_sided = "That is the chance of so many for the better. So many for the worse would have "
    one_sided += "counted as well: take both sides."
    wrong = (
        slipped(
            fewest,
            [10],
            [
                ([5], "Five points, of 238 items: how many items is that?"),
                ([20], "With the fewest changes, no item has changed for the worse."),
            ],
            "The fewest items change if all of them change for the better.",
        )
        or slipped(
            p_fewest,
            [few],
            [
                ([few / 2], one_sided),
                ([stats.binomtest(144, 238).pvalue], "A sign test looks only at the items that "
                 "changed: all of them, for the better."),
            ],
            "The first p-value is not right. How likely are ten heads or ten tails in ten throws?",
            0.0006,
        )
        or slipped(
            p_more,
            [more],
            [
                ([more / 2], one_sided),
                ([few], "The fifty items count, too: half of them are for the better."),
                ([doubled], "The ten items that made the difference count as well."),
            ],
            "The second p-value is not right. Of sixty changes now, how many are for the better?",
            0.006,
        )
    )  # fmt: skip
    return wrong or Checked("right", "Both fit the printed numbers, so the table cannot tell.")


def shared_by_chance(of_layer: object, of_600: object) -> Checked:
    """Check the neurons that two pairs of sets share by chance, in a layer and in 600 of it."""
    if is_blank([of_layer, of_600]):
        return nothing_yet("your numbers")
    pairs, width = ((400, 400), (100, 100)), 2048
    shared = [a * b / width for a, b in pairs]
    wrong = slipped(
        of_layer,
        shared,
        [
            ([a / width * b / width for a, b in pairs], "That is the chance that one given "
             "neuron is in both sets. Multiply by the number of neurons in the layer."),
            ([a / width for a, _ in pairs], "That is the share of the layer that a set has. Take "
             "that share of the other set."),
            ([80.0, 10.0], "These are the numbers that are shared. How many would chance give?"),
            (shared[::-1], "The right numbers, in the wrong order."),
        ],
        "Each neuron of one set is in the other with the share of the layer that the other has.",
        0.5,
    ) or slipped(
        of_600,
        [a * b / 600 for a, b in pairs],
        [
            (shared, "That is for the whole layer again. Now all neurons come from 600 of it."),
            ([x * 600 / width for x in shared], "The other way round: with fewer to choose from, "
             "sets share more."),
        ],
        "The first two are right. For the other two, put 600 in place of the width of the layer.",
        0.5,
    )  # fmt: skip
    return wrong or Checked(
        "right", "Which pair shares more than chance, and does the answer hold?"
    )
