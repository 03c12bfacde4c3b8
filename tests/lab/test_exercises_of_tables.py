"""Checks of exercises whose answers are computed from a page's tables: right, empty, each slip."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from checked_cases import require_all_told, shown
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crane_core.metrics import langspec_f1
from crane_core.neurons import NeuronSet
from crane_lab import audit
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as crane
from crane_lab.show import later_exercises as later
from crane_lab.show.checks import Checked

NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
PUBLISHED = audit.published()
PRINTED = audit.definition(PUBLISHED)


def table1(en: list[float], zh: list[float], vi: list[float]) -> pd.DataFrame:
    """Org at 0.8, 0.4 and 0.8, then CRANE's masks with the scores that are given."""
    rows = [["Org", "", 0.8, 0.4, 0.8], ["CRANE", "en", *en], ["CRANE", "zh", *zh]]
    return pd.DataFrame([*rows, ["CRANE", "vi", *vi]], columns=["method", "mask_language", *NAMES])


# Chinese loses 0.15 of 0.4 under its mask and English 0.2 of 0.8: most relatively, not absolutely.
TABLES = {
    "knowledge": table1([0.4, 0.4, 0.8], [0.6, 0.25, 0.8], [0.8, 0.4, 0.8]),
    "reading": table1([0.7, 0.2, 0.8], [0.6, 0.25, 0.8], [0.8, 0.4, 0.5]),
}
CHOSEN = pd.DataFrame(
    [("Org", "en", 1.0, 0.0, 0.0), ("CRANE", "en", 0.7, 0.1, 0.05), ("CRANE", "zh", 0.6, 0.2, 0.1)],
    columns=["method", "language", "same", "lost", "gained"],
)
HALVES = pd.DataFrame(
    [
        (n, x, measure, value)
        for n, within, between in ((30, 0.4, 0.1), (90, 0.8, 0.6))
        for x in NAMES
        for measure, value in (("spearman", within), ("spearman, other language", between))
    ],
    columns=["n", "language", "measure", "mean"],
)
ACTIVE = {
    x: torch.randint(0, 90, (2, 5), generator=torch.Generator().manual_seed(i))
    for i, x in enumerate(NAMES)
}
TOKENS = {"en": 100, "zh": 200, "vi": 150}
RATE = {x: ACTIVE[x].double() / TOKENS[x] for x in NAMES}


def beyond(what: Callable[[torch.Tensor], torch.Tensor], rate: Any = None) -> dict[str, Any]:
    rate = rate or RATE
    return {x: rate[x] - what(torch.stack([rate[y] for y in NAMES if y != x])) for x in NAMES}


def largest(x: torch.Tensor) -> torch.Tensor:
    return x.max(0).values


PAPER = Settings(task_limit=None, max_new_tokens=512)


def hours(s: Settings) -> float:
    """A plan of 12 hours, of which tokens are 2 of 512 and fewer items save nearly all."""
    if (s.num_fewshot or 0) < 0:
        raise ValueError("examples cannot be fewer than 0")
    return 2 * s.max_new_tokens / 512 + (10 if s.task_limit is None else s.task_limit / 100)


# Two windows of three tokens, of which two are predicted, at two nats a token; five bytes each.
PIPELINE = SimpleNamespace(
    losses=lambda: {"en": torch.tensor([2.0, 2.0])},
    perplexity_windows={"en": torch.zeros((2, 3), dtype=torch.int64)},
    tokenizer=SimpleNamespace(batch_decode=lambda windows, **_: ["ééb"] * len(windows)),
)
BITS = 8 / math.log(2) / 10

SHAPE = {"intermediate": (2, 10), "down": (2, 6)}
CHOSEN_NEURONS = NeuronSet.from_flat([0, 1, 12], SHAPE)
STEERED = pd.DataFrame(
    [
        ("none", None, None, 0.0, 0.1, None),
        ("LAPE", "add", "mean", 1.0, 0.6, 0.2),
        ("LAPE", "set", "mean", 1.0, 0.9, 0.3),
        ("CRANE", "add", "mean", 1.0, 0.2, 0.2),
    ],
    columns=["method", "kind", "statistic", "strength", "share", "random"],
)
KEPT = pd.DataFrame(
    [
        ("LAPE", 0, 60, 60.0),
        ("LAPE", 1, 50, 58.5),
        ("LAPE", 2, 40, 45.0),
        ("LAPE", 3, 30, 20.0),
        ("CRANE", 1, 10, 58.5),
    ],
    columns=["method", "step", "kept", "random_kept"],
).assign(asked=70)
LOSSES = pd.DataFrame(
    [
        ("LAPE", "en", 10, 0.9, 0.1, 0.1),
        ("CRANE", "en", 50, 0.2, 0.05, 0.1),
        ("CRANE", "zh", 200, 0.3, 0.4, 0.2),
        ("CRANE", "vi", 100, 0.0, 0.1, 0.3),
    ],
    columns=["method", "mask_language", "n_neurons", *NAMES],
)
HARMLESS = dict(zip("abcdefg", (6, 0, 1, 5, 4, 2, 3), strict=True))
MERITS = pd.DataFrame(
    [("all", name, merit, HARMLESS[name]) for merit, name in enumerate(HARMLESS)]
    + [("en", name, 10 + merit, 20 + merit) for merit, name in enumerate("abcef")],
    columns=["language", "candidate", "merit", "little_harm"],
)
PARTS = pd.DataFrame(
    [("greedy search", 0.8, 0.7, 0.2), ("kurtosis", 0.1, 0.0, 0.1)],
    columns=["criterion", "own", "difference", "predicted"],
)

CASES: dict[str, tuple[Callable[[Any], Checked], Any, Any, list[tuple[Any, str]]]] = {
    # name: the check, the right answer, an empty stub, and slips with words of what is said.
    "mixture": (
        crane.kurtosis_of_mixture,
        lambda p, s: 3 * (p * s**4 + 1 - p) / (p * s**2 + 1 - p) ** 2,
        lambda p, s: ...,
        [
            (lambda p, s: 3 / p, "silent on the other texts"),
            (lambda p, s: 3, "mixture of two"),
            (lambda p, s: (p * s**4 + 1 - p) / (p * s**2 + 1 - p) ** 2, "three times the fourth"),
            (lambda p, s: 3 * (p * s**4 + 1 - p) / (p * s**2 + 1 - p), "square of the variance"),
            (lambda p, s: 3 * (p * s**4 + 1 - p) / (p * s**2 + 1 - p) ** 2 - 3, "excess"),
            (lambda p, s: 3 * (p * s**4 + 1) / (p * s**2 + 1) ** 2, "share 1 − p"),
            (lambda p, s: 3 * (s**4 + (1 - p) / p) / (p * s**2 + 1 - p) ** 2, "weighs each moment"),
            (lambda p, s: 3 * s, "Not the expected values"),
            (lambda p, s: 1 / 0, "ZeroDivisionError"),
            (lambda p, s: [p, s], "should return one number"),
            (lambda p: p, "TypeError"),
        ],
    ),
    "unrelated": (
        crane.selected_if_unrelated,
        lambda n, a, k: n * a * (1 - a) ** (k - 1),
        lambda n, a, k: None,
        [
            (lambda n, a, k: n * a, "Leave out those"),
            (lambda n, a, k: a * (1 - a) ** (k - 1), "That is the share"),
            (lambda n, a, k: n * a * (1 - a), "for two languages"),
            (lambda n, a, k: n * a * (1 - a) ** k, "One factor too many"),
            (lambda n, a, k: n * a**k, "in all languages"),
            (lambda n, a, k: n * a * (1 - (k - 1) * a), "cannot be added up"),
            (lambda n, a, k: k * n * a * (1 - a) ** (k - 1), "all languages together"),
            (lambda n, a, k: n / k, "Not the expected numbers"),
        ],
    ),
    "own in both": (
        lambda answer: crane.own_hit_in_both(answer, TABLES, NAMES),
        {"zh"},
        ...,
        [
            ({"en", "vi"}, "These are the others"),
            (["en", "zh"], "so in knowledge"),
            ({"zh", "vi"}, "so in reading"),
            ({"en", "zh", "vi"}, "in one of the tables"),
            (set(), "absolute drops"),
            ("vi", "Not the expected languages"),
            (3, "A set of names is expected"),
        ],
    ),
    "no effect": (
        lambda answer: crane.changed_without_effect(answer, CHOSEN),
        {"en": 0.15, "zh": 0.1},
        {"en": 0.15, "zh": ...},
        [
            ({"en": 0.3, "zh": 0.4}, "all that changed"),
            ({"en": 0.7, "zh": 0.6}, "did not change"),
            ({"en": 0.05, "zh": 0.1}, "drop in accuracy"),
            ({"en": 0.15, "zh": 0.3}, "what changed sides"),
            ({"en": 15, "zh": 10}, "percent"),
            ({"en": 0.2, "zh": 0.2}, "Not the expected shares"),
            ({"en": 0.15}, "for each of en, zh"),
        ],
    ),
    "guessing": (
        lambda answer: crane.down_to_guessing(answer, PUBLISHED["1"]),
        2 * (97 / 347) / (1 + 97 / 347),
        ...,
        [
            (97 / 347, "That is recall"),
            (1, "That is precision"),
            ((1 + 97 / 347) / 2, "arithmetic mean"),
            (0.097, "That is the drop"),
            (2 * (250 / 347) / (1 + 250 / 347), "what is left"),
            (
                langspec_f1(PUBLISHED["1"].original, PUBLISHED["1"].floor, "zh").f1,
                "all languages to guessing",
            ),
            (0.5, "Not the expected number"),
        ],
    ),
    "harmless": (
        lambda answer: crane.harmless_mask(answer, PUBLISHED["1"]),
        (1, 0.0173, 0.034),
        (1, ..., ...),
        [
            ((0.0173, 1, 0.034), "other way round"),
            ((1, 0.006, 0.0119), "relative to the score before"),
            ((1, 0.0173, 0.5086), "harmonic mean"),
            ((0.5172, 0.0173, 0.0335), "Gains count as 0"),
            ((1, 0.1, 0.2), "Not the expected numbers"),
            (1, "3 numbers are expected"),
        ],
    ),
    "noise": (
        lambda answer: crane.without_noise(answer, HALVES),
        0.75,
        ...,
        [
            (0.6, "as it was measured"),
            (0.8, "two halves of one language"),
            (0.8 / 0.6, "other way round"),
            (0.25, "That is with the fewest windows"),
            (0.2, "That is the difference"),
            (0.48, "You have multiplied"),
            (0.9, "Not the expected number"),
        ],
    ),
    "rate": (
        lambda answer: crane.rate_contrast(answer, ACTIVE, TOKENS),
        beyond(largest),
        dict.fromkeys(NAMES, ...),
        [
            (RATE, "These are the rates"),
            (beyond(largest, {x: v.double() for x, v in ACTIVE.items()}), "Divide by n first"),
            (beyond(lambda x: x.mean(0)), "mean of the others"),
            ({x: -v for x, v in beyond(largest).items()}, "sign is turned"),
            (beyond(lambda x: x.min(0).values), "smallest of the others"),
            ({x: v + 1 for x, v in RATE.items()}, "Not the expected scores"),
            ({x: v[0] for x, v in RATE.items()}, "Not the expected shape"),
            (RATE["en"], "A dictionary is expected"),
        ],
    ),
    "items": (
        crane.items_told_apart,
        4141,
        ...,
        [
            ((1.96 / 0.03) ** 2 * 0.24, "the other has an interval, too"),
            ((1.96 / 0.03) ** 2 * 0.4851, "interval of the difference"),
            (5120, "Not the expected number"),
        ],
    ),
    "verdict": (
        lambda answer: crane.as_many_by_chance(answer, PRINTED),
        0.3685,
        ...,
        [],
    ),
    "a day": (
        lambda answer: crane.within_a_day(answer, PAPER, hours),
        {"task_limit": 500},
        ...,
        [
            ({"tasks_limit": 500}, "no parameter tasks_limit"),
            ({"model": "small"}, "another run"),
            ({"task_limit": 2000}, "no less than before"),
            ({"max_new_tokens": 128}, "still more than 8"),
            ({"num_fewshot": -1}, "Nothing can be run with that"),
            (500, "A dictionary is expected"),
        ],
    ),
    "bits": (
        lambda answer: crane.bits_per_byte(answer, cast(Pipeline, PIPELINE)),
        {"en": BITS},
        {"en": ...},
        [
            ({"en": 0.8}, "nats per byte"),
            ({"en": 0.8 * math.log(2)}, "divide by log 2"),
            ({"en": 10 / 6 * BITS}, "per character"),
            ({"en": 2 / math.log(2)}, "Tokens are of different lengths"),
            ({"en": BITS / 2}, "Multiply by their number"),
            ({"en": 1.0}, "Not the expected numbers"),
            (1.0, "A dictionary is expected"),
        ],
    ),
    "counted": (
        later.counted_p,
        (0.1, 1, 0.1),
        (0.1, ..., ...),
        [
            ((1 / 9, 1, 1 / 9), "The set itself counts"),
            ((0, 0, 0), "as large as it is"),
            ((0.1, 2, 0.1), "cannot be above 1"),
            ((0.1, 0.005, 0.1), "multiply"),
            ((0.1, 1, 1), "nothing has to be multiplied"),
            ((0.1, 0.1, 0.1), "by the number of rows"),
            ((0.05, 1, 0.05), "Not the expected numbers"),
        ],
    ),
    "free": (
        lambda answer: later.free_of_b(answer, CHOSEN_NEURONS, 4, SHAPE),
        12,
        ...,
        [
            (3, "So many rows"),
            (4, "for one neuron"),
            (18, "So many weights"),
            (80, "all of B"),
            (60, "B's and A's"),
            (36, "three projections"),
            (24, "Not the expected number"),
        ],
    ),
    "few": (
        later.interval_of_few,
        (1, 7.4),
        ...,
        [
            ((1, 1.96 * 3**0.5), "for many values"),
            ((1, 1.73), "the standard error"),
            ((1, 12.9), "divided by √3"),
            ((1, 3), "the standard deviation"),
            ((1, 6.08), "one less than"),
            ((1, 14.9), "end to end"),
            ((1, 5), "Not the expected numbers"),
        ],
    ),
    "a point": (
        later.items_for_a_point,
        3842,
        ...,
        [
            (1000, "one standard error"),
            (384, "The variance of an item"),
            (15366, "end to end"),
            (62, "Square it"),
            (9604, "near one half"),
            (2000, "Not the expected number"),
        ],
    ),
    "by random": (
        lambda answer: later.share_by_random(answer, STEERED),
        0.2,
        ...,
        [
            (1 / 3, "without any steering"),
            (0.4, "one of the two only"),
            (0.1, "what random neurons add"),
            (0.5, "That is the gain"),
            (0.8, "not bring about"),
            (0.25, "Not the expected number"),
        ],
    ),
    "lost": (
        lambda answer: later.answers_lost_to_random(answer, KEPT, "LAPE"),
        8.5,
        ...,
        [
            (30, "with nothing off"),
            (10, "keeps more"),
            (-10, "at the last step"),
            (8.5 / 70, "That is a share"),
            (3.5 / 4, "mean over steps"),
            (48.5, "of other methods"),
            (7, "Not the expected number"),
        ],
    ),
    "per hundred": (
        lambda answer: later.cost_per_hundred(answer, LOSSES),
        {"en": 0.4, "zh": 0.2, "vi": 0.3},
        {"en": 0.4, "zh": ..., "vi": ...},
        [
            ({"en": 0.004, "zh": 0.002, "vi": 0.003}, "per neuron"),
            ({"en": 0.2, "zh": 0.4, "vi": 0.3}, "the whole mask"),
            ({"en": 0.2, "zh": 0.15, "vi": 0.1}, "hardest-hit other"),
            ({"en": 0.2, "zh": 0.05, "vi": 0.2}, "own less other"),
            ({"en": 2.5, "zh": 5, "vi": 1 / 0.3}, "Turn it round"),
            ({"en": 1, "zh": 1, "vi": 1}, "Not the expected numbers"),
        ],
    ),
    "ceilings": (
        later.without_their_noise,
        (0.5, 0.6),
        ...,
        [
            ((0.405, 0.15), "Divide by the ceiling"),
            ((0.45, 0.2), "distance to the ceiling"),
            ((0.474, 0.424), "No root"),
            ((0.6, 0.5), "wrong order"),
            ((0.45, 0.3), "with the noise"),
            ((0.7, 0.7), "Not the expected numbers"),
        ],
    ),
    "both": (
        lambda answer: later.first_by_both(answer, MERITS),
        {"d", "e", "f", "g"},
        ...,
        [
            (set("cdefg"), "by the merit alone"),
            (set("adefg"), "by the second figure alone"),
            (set("acdefg"), "by either"),
            ({"c"}, "not so by the other"),
            ({"b", "c", "e"}, "Sort the other way"),
            (set("abcef"), "single languages"),
            ({"a"}, "Not the expected candidates"),
        ],
    ),
    "together": (
        lambda answer: later.only_together(answer, PARTS),
        0.75,
        ...,
        [
            (0.25, "What is left"),
            (4, "times as much"),
            (3, "divided by the single effects"),
            (0.6, "That is in nats"),
            (0.875, "own less other"),
            (0.5, "Not the expected number"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_right_empty_and_each_slip(name: str) -> None:
    require_all_told(*CASES[name])


def test_chance_counts_as_many_or_more_of_the_masks_that_are_printed() -> None:
    """Slips as numbers of the printed tables: computed here by adding up, not by SciPy."""
    own = PRINTED[PRINTED["method"] == "CRANE"]
    n, k = len(own), int((own["relative"] == "yes").sum())

    def exactly(i: int, n: int = n, p: float = 1 / 3) -> float:
        return math.comb(n, i) * p**i * (1 - p) ** (n - i)

    def said(answer: float) -> str:
        return shown(crane.as_many_by_chance(answer, PRINTED))

    assert "Right" in said(sum(exactly(i) for i in range(k, n + 1)))
    for answer, words in (
        (exactly(k), "exactly as many"),
        (sum(exactly(i) for i in range(k + 1, n + 1)), "more than there are"),
        (sum(exactly(i) for i in range(k + 1)), "or fewer"),
        (sum(exactly(i, p=0.5) for i in range(k, n + 1)), "one in three"),
        (k / n, "share of masks"),
        (0.9123, "Not the expected number"),
    ):
        assert words in said(answer), (words, said(answer))


# --- against other ways of computing the same -----------------------------------------------------


def moments_of_mixture(p: float, s: float) -> float:
    """Kurtosis by Gauss-Hermite quadrature of both parts, which is exact for fourth powers."""
    x, w = np.polynomial.hermite_e.hermegauss(8)
    w = w / w.sum()
    second, fourth = (p * (w * (s * x) ** k).sum() + (1 - p) * (w * x**k).sum() for k in (2, 4))
    return float(fourth / second**2)


def test_the_kurtosis_of_a_mixture_is_what_integrals_give() -> None:
    assert crane.kurtosis_of_mixture(moments_of_mixture).state == "right"


def test_unrelated_languages_select_what_a_draw_selects() -> None:
    draw = torch.rand((4, 200_000), generator=torch.Generator().manual_seed(0)) < 0.2
    drawn = (draw[0] & ~draw[1:].any(0)).sum().item()
    assert abs(drawn / (200_000 * 0.2 * 0.8**3) - 1) < 0.02


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=3, unique=True))
def test_an_interval_of_few_is_scipys(gains: list[int]) -> None:
    low, high = stats.t.interval(0.95, 2, np.mean(gains), stats.sem(gains))
    assert later.interval_of_few((np.mean(gains), (high - low) / 2), gains).state == "right"
