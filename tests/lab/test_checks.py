"""What all checks of exercises do: numbers, names and functions, and whatever else is put in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crane_lab.settings import Settings
from crane_lab.show import crane_exercises as crane
from crane_lab.show import exercises
from crane_lab.show import later_exercises as later
from crane_lab.show.checks import check_function, check_names, check_numbers

SAID: Any = {"then": "Then.", "else_": "Else."}
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@given(st.lists(NUMBERS, min_size=1, max_size=5), NUMBERS)
def test_numbers_are_right_in_any_shape_and_nothing_else_is(right: list[float], by: float) -> None:
    for answer in (right, tuple(right), np.array(right), torch.tensor(right, dtype=torch.float64)):
        assert check_numbers(answer, right, [], **SAID).words == "Then."
    moved = [right[0] + by, *right[1:]]
    same = abs(by) <= max(1e-4, 1e-6 * max(abs(moved[0]), abs(right[0])))
    assert check_numbers(moved, right, [], **SAID).words == ("Then." if same else "Else.")
    named = {str(i): x for i, x in enumerate(right)}
    assert check_numbers(dict(reversed(named.items())), named, [], **SAID).state == "right"
    assert check_numbers([*right, 0.0], right, [], **SAID).state == "wrong"


def test_what_is_right_is_no_slip_and_the_first_slip_is_said() -> None:
    slips = [(1.0, "One."), (2.0, "Two."), (2.0, "Also two.")]
    assert [check_numbers(x, 1.0, slips, **SAID).words for x in (1, 2, 3)] == [
        "Then.",
        "Two.",
        "Else.",
    ]
    assert check_numbers("none", 1.0, slips, **SAID).state == "wrong"


def test_a_small_slip_is_not_all_numbers_near_it() -> None:
    """Within 150 of the root of the number of items lie 0 and what is below."""

    def said(answer: float) -> str:
        return later.items_for_a_point(answer).words

    assert all("the root" in said(answer) for answer in (61.98, 62, 60, 70))
    assert all(said(answer).startswith("Not the expected") for answer in (-62, -3, 0, 3, 40, 100))
    assert later.items_for_a_point(3700).state == "right"


@pytest.mark.parametrize("right", [math.nan, [1.0, math.inf], {}])
def test_where_nothing_is_known_nothing_is_checked(right: Any) -> None:
    answer = {} if isinstance(right, dict) else [1.0]
    found = check_numbers(answer, right, [], **SAID)
    assert found.state == "nothing" and "nothing to check" in found.words


@given(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")))
def test_names_are_right_in_any_order(answer: set[str], right: set[str]) -> None:
    for given_as in (answer, sorted(answer), tuple(sorted(answer, reverse=True))):
        state = check_names(given_as, right, [], **SAID).state
        assert (state == "right") is (answer == right)


class OwnError(Exception):
    """No error of Python's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("<b>no</b>"), "`ValueError: <b>no</b>`"),
        (AttributeError("x"), "`AttributeError: x`"),
        (KeyError("x"), "`KeyError: 'x'`"),
        (IndexError("x"), "`IndexError: x`"),
        (AssertionError(), "`AssertionError`"),
        (NotImplementedError(), "`NotImplementedError`"),
        (OwnError("x"), "`OwnError: x`"),
    ],
)
def test_an_error_of_the_readers_is_said_and_is_no_markup(error: Exception, said: str) -> None:
    def stops(*given: object, **named: object) -> float:
        raise error

    found = check_function(stops, float, [], [(1.0,)], **SAID)
    assert found.state == "wrong" and f"stops with an error: {said}." in found.words
    assert said in exercises.mean_and_relative(stops).words
    # A parameter's value that only the page's own function stumbles over.
    counted = iter([OwnError])

    def stumbles(settings: Settings) -> float:
        for _ in counted:
            raise error
        return 9.0

    in_a_day = crane.within_a_day({"task_limit": 5}, Settings(), stumbles)
    assert in_a_day.state == "wrong" and f"with that: {said}." in in_a_day.words


class Stubborn:
    """An answer that nothing can be done with."""

    def __array__(self, *_: object) -> None:
        raise OwnError("no array")

    def __len__(self) -> int:
        raise OwnError("no length")


@pytest.mark.parametrize("answer", [Stubborn(), [Stubborn()], 10**400, 1j, object(), [[1], 2]])
def test_no_answer_stops_a_check_of_numbers(answer: object) -> None:
    assert check_numbers(answer, 1.0, [], **SAID).state == "wrong"


@pytest.mark.parametrize("answer", [np.array("zh"), torch.tensor(1.0), Stubborn(), [["zh"]], 3])
def test_no_answer_stops_a_check_of_names(answer: object) -> None:
    assert "A set of names is expected" in check_names(answer, {"zh"}, [], **SAID).words
