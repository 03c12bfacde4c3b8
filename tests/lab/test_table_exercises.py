"""Checks of exercises about printed tables, choices and sets: right, empty, each slip."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from checked_cases import require_all_told
from scipy import stats

from crane_core.metrics import langspec_f1
from crane_lab import audit
from crane_lab.show import table_exercises as exercises
from crane_lab.show.checks import Checked
from crane_lab.study import choices

GRADES, BOTH_MODELS = audit.read_scores("2"), audit.read_scores("3")
LANGUAGES = ("en", "zh", "vi")


def graded(off_before: float, off_after: float, what: str = "f1") -> dict[str, float]:
    """CRANE's printed rows, read by hand."""
    rows = {(r["method"], r["mask_language"]): r for r in GRADES.to_dict("records")[1:]}
    org = {x: float(GRADES.to_dict("records")[0][x]) - off_before for x in LANGUAGES}
    found = {}
    for x in LANGUAGES:
        row = {y: float(rows["CRANE", x][y]) - off_after for y in LANGUAGES}
        found[x] = getattr(langspec_f1(org, row, x), what)
    return found


# Printed in Table 3: Org, then CRANE's row for each language, base and chat.
BASE = {"en": (0.4579, 0.3483), "zh": (0.3470, 0.3314), "vi": (0.3722, 0.2233)}
CHAT = {"en": (0.4720, 0.4415), "zh": (0.3492, 0.3462), "vi": (0.4067, 0.2867)}
# What is lost on the base and on the chat model.
OFF = {x: (BASE[x][0] - BASE[x][1], CHAT[x][0] - CHAT[x][1]) for x in LANGUAGES}


def each(what: Callable[[float, float], float]) -> dict[str, float]:
    return {x: what(*OFF[x]) for x in LANGUAGES}


# The first four choices by each measure: by the largest departure, the typical one, and that of the
# language which is moved most.
FIRST = {
    "langspec_f1": ("abcd", "abde", "abef"),
    "langspec_f1_above": ("acde", "adef", "aefg"),
    "selectivity": ("acdf", "adfg", "afgh"),
}


def away(choice: str, firsts: tuple[str, str, str]) -> list[list[float]]:
    """Departures of two values in two languages, so that a choice is among the first or not."""
    largest, typical, moved = (
        high if choice in first else low
        for first, high, low in zip(firsts, (10, 8, 15), (8, 5, 11), strict=True)
    )
    return [[most, most * (2 * typical / largest - 1)] for most in (moved, 2 * largest - moved)]


def made_up_sweep() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for choice, (i, language), value in product("abcdefgh", enumerate(("en", "zh")), range(3)):
        numbers = {m: ([0.0, *away(choice, FIRST[m])[i]])[value] for m in FIRST}
        row = {"choice": choice, "value": value, "reference": value == 0}
        rows.append(row | {"mask_language": language} | numbers)
    return pd.DataFrame(rows)


SWEEP = made_up_sweep()
RATIOS = pd.DataFrame(
    [
        ("random order", 8, 1.0),
        ("random order", 64, 1.5),
        ("criteria", 64, 3.0),
        ("criteria", 8, 1.2),
        ("single effects", 64, 5.25),
        ("greedy search", 64, 6.0),
    ],
    columns=["kind", "budget", "median"],
)
MIXED = 3 * (16**2 + 112**2) / 2 / 64**2
SQUARED = 3 * (16**4 + 112**4) / 2 / ((16**2 + 112**2) / 2) ** 2

CASES: dict[str, tuple[Callable[[Any], Checked], Any, Any, list[tuple[Any, str]]]] = {
    # name: the check, the right answer, an empty stub, and slips with words of what is said.
    "from one": (
        lambda answer: exercises.counted_from_one(answer, GRADES),
        graded(1, 1),
        {"en": 0.6, "zh": ..., "vi": ...},
        [
            (graded(0, 0), "counted from 0"),
            (graded(0, 1), "from the grades after only"),
            (graded(1, 0), "from the grades before only"),
            (graded(-1, -1), "Take it away"),
            (graded(1, 1, "recall"), "That is recall"),
            (graded(1, 1, "precision"), "That is precision"),
            (dict.fromkeys(LANGUAGES, 0.123), "Not the expected numbers"),
            (0.5, "A dictionary is expected"),
        ],
    ),
    "kept": (
        lambda answer: exercises.kept_on_chat(answer, BOTH_MODELS),
        each(lambda base, chat: chat / base),
        dict.fromkeys(LANGUAGES, ...),
        [
            (each(lambda base, chat: base / chat), "The other way round"),
            (each(lambda base, chat: chat), "drops on the chat model"),
            (each(lambda base, chat: base - chat), "These are differences"),
            (each(lambda base, chat: 1 - chat / base), "what is lost"),
            (each(lambda base, chat: 100 * chat / base), "percent"),
            (
                {x: OFF[x][1] / CHAT[x][0] / (OFF[x][0] / BASE[x][0]) for x in LANGUAGES},
                "each model's own score",
            ),
            ({x: CHAT[x][1] / BASE[x][1] for x in LANGUAGES}, "scores under the masks"),
            (dict.fromkeys(LANGUAGES, 0.123), "Not the expected shares"),
        ],
    ),
    "counts": (
        exercises.possible_counts,
        (0, 1, 2),
        (..., ..., ...),
        [
            ((1, 1, 1), "always is a nearest whole number"),
            ((1, 1, 2), "253 and 254"),
            ((1, 0, 2), "other way round"),
            ((0, 0, 2), "0.2233 is possible"),
            ((0, 1, 1), "more than one count"),
            ((0, 1, 0), "can be missed"),
            ((253.53, 200.97, 3955.6314), "accuracies times the questions"),
            ((5, 5, 5), "Not the expected numbers"),
            (1, "3 numbers are expected"),
        ],
    ),
    "changed": (
        exercises.most_changed,
        103,
        ...,
        [
            (21, "the fewest"),
            (147, "take both sides"),
            (105, "no longer significant"),
            (62, "So many were lost"),
            (41, "So many were gained"),
            (61, "at 99 %"),
            (114, "allows too many"),
            (104, "with correction"),
            (90, "Not the expected number"),
        ],
    ),
    "lengths": (
        exercises.kurtosis_of_lengths,
        (3, MIXED, MIXED),
        (3, ..., ...),
        [
            ((0, MIXED - 3, MIXED - 3), "excess"),
            ((3, 3, 3), "a mixture of two normals"),
            ((3, MIXED, 3), "means are a mixture"),
            ((3, 3, MIXED), "sums are a mixture"),
            ((1, MIXED / 3, MIXED / 3), "three times the square"),
            ((3, SQUARED, SQUARED), "not its standard deviation"),
            ((3, 4, 4), "Not the expected numbers"),
        ],
    ),
    "choices": (
        lambda answer: exercises.first_under_all(answer, SWEEP, 4),
        {"a"},
        ...,
        [
            (set("abcd"), "by the other measures and rules"),
            (set("bcd"), "some rule leaves out"),
            (set("abcdefgh"), "under some rule"),
            (set("acd"), "by the other rules as well"),
            (set("ab"), "Take the other measures"),
            (set("ad"), "the language that is moved most"),
            ({"d"}, "Not the expected choices"),
            ({1}, "A set of names is expected"),
        ],
    ),
    "random sets": (
        lambda answer: exercises.beside_random_sets(answer, RATIOS),
        2,
        ...,
        [
            (3, "the criteria's own"),
            (0.5, "other way round"),
            (1.5, "That is the difference"),
            (4, "the greedy search's"),
            (3.5, "by single effects"),
            (1.2, "at a small budget"),
            (7, "Not the expected number"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_right_empty_and_each_slip(name: str) -> None:
    require_all_told(*CASES[name])


# --- against other ways of computing the same -----------------------------------------------------


def test_a_made_up_sweep_ranks_choices_as_it_says() -> None:
    for measure, (largest, typical, _) in FIRST.items():
        found = choices.departures(SWEEP, measure).set_index("choice")
        assert set(found["largest"].nlargest(4).index) == set(largest)
        assert set(found["typical"].nlargest(4).index) == set(typical)


def test_the_most_changes_by_adding_up_coins() -> None:
    def both_sides(d: int) -> float:
        return 2 * sum(math.comb(d, k) for k in range((d + 21) // 2, d + 1)) / 2**d

    assert both_sides(103) < 0.05 < both_sides(105)


def test_the_kurtoses_of_two_lengths_are_what_a_draw_has() -> None:
    tokens = np.repeat([16, 112], 400_000)
    sums = np.random.default_rng(0).standard_normal(len(tokens)) * np.sqrt(tokens)
    drawn = [float(stats.kurtosis(v, fisher=False)) for v in (sums, sums / tokens)]
    assert exercises.kurtosis_of_lengths((3, *drawn)).state == "right"


def test_what_a_run_does_not_have_is_not_checked() -> None:
    few = RATIOS[RATIOS["kind"] != "random order"]
    assert exercises.beside_random_sets(2, few).state == "nothing"
