"""Alternative texts: short enough to be heard at once, and what they say when not all fits."""

from __future__ import annotations

import math

import pytest
from bs4 import BeautifulSoup
from test_accessible import PAGES

from crane_lab.show.alternative import LONGEST, in_short

MANY = [(f"mask {n}: drop {n / 100:.2f}", n / 100) for n in range(40)]


def test_what_fits_is_said_in_full_and_in_its_order() -> None:
    few = [("b: 1", 1.0), ("a: 3", 3.0), ("c: none", math.nan)]
    assert in_short("Drops by mask.", few, "t.csv") == "Drops by mask. b: 1; a: 3; c: none."
    assert in_short("Drops by mask.", [], "t.csv") == "Drops by mask."


def test_of_what_does_not_fit_the_ends_are_said_and_where_all_is() -> None:
    text = in_short("Drops.", [*MANY, ("mask x", math.nan)], "t.csv", by="drop")
    assert text == (
        "Drops. Largest by drop: mask 39: drop 0.39; mask 38: drop 0.38; mask 37: drop 0.37. "
        "Smallest by drop: mask 2: drop 0.02; mask 1: drop 0.01; mask 0: drop 0.00. All 41: t.csv."
    )


def test_a_sentence_goes_on_after_a_colon() -> None:
    assert in_short("Means:", MANY, "t.csv").startswith("Means: largest: mask 39: drop 0.39; ")


@pytest.mark.parametrize("length", [10, 100, 300, 1000])
def test_long_names_leave_out_more_until_it_fits(length: int) -> None:
    text = in_short("Drops.", [(f"{n}" * length, n) for n in range(9)], "t.csv")
    assert len(text) < LONGEST
    assert ("8" * length in text) == (length < 500)
    assert text.endswith("All 9: t.csv.") or length == 10


def test_a_lead_that_is_too_long_is_cut() -> None:
    text = in_short("word " * 300, MANY, "t.csv")
    assert len(text) < LONGEST and text.endswith("…")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_picture_of_a_page_takes_long_to_describe(page: object) -> None:
    assert too_long(page.read_text("utf-8")) == []  # type: ignore[attr-defined]


def too_long(html: str) -> list[str]:
    """Alternative texts and labels of drawings that are not short."""
    found = BeautifulSoup(html, "lxml").select("img[alt], [role=img][aria-label]")
    texts = [str(tag.get("alt") or tag.get("aria-label")) for tag in found]
    return [text[:100] for text in texts if len(text) >= LONGEST]


def test_a_long_description_would_be_found() -> None:
    html = (
        f"<img alt='{'a' * LONGEST}'><img alt=short><svg role=img aria-label='{'b' * 700}'></svg>"
    )
    assert too_long(html) == ["a" * 100, "b" * 100]
