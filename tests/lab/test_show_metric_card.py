"""The metric card: what LangSpec-F1 does, on the published tables and on made-up masks."""

from __future__ import annotations

import pandas as pd
import pytest
from page_outputs import alt, cells

from crane_lab import audit
from crane_lab.show import metric_card as card


@pytest.fixture(scope="module")
def tables() -> dict[str, audit.Published]:
    return audit.published()


@pytest.fixture(scope="module")
def variants(tables: dict[str, audit.Published]) -> pd.DataFrame:
    return audit.f1_variants(tables)


def test_rows_by_recall_and_precision(variants: pd.DataFrame) -> None:
    text = alt(card.iso_figure(variants))
    assert "Largest by LangSpec-F1: Table 2 CRANE en: recall 0.49, precision 0.58; " in text
    assert "; Table 1 CRANE vi: recall 0.40, precision 0.58; " in text
    assert card.ranked_by(variants).data == (
        "Over the 24 published rows above zero, LangSpec-F1 has a rank correlation of 0.99 with "
        "recall and of 0.11 with precision."
    )


def test_masks_that_do_nothing(tables: dict[str, audit.Published], variants: pd.DataFrame) -> None:
    nulls = pd.DataFrame(
        [(0.1, 70, 0.06, 0.25), (0.1, 1346, 0.016, 0.05)],
        columns=["changed", "items", "mean", "p95"],
    )
    text = alt(card.null_figure(nulls, tables["1"]))
    assert "10% of answers flipped, 1,346 items: mean 0.016, 95th percentile 0.050." in text
    text = card.null_in_words(nulls, variants).data
    assert text.startswith("With 1,346 questions and 10% of the answers flipped by chance")
    assert "4 are below that: Table 1 LAPE en (0.0013), Table 1 LAPE zh (0.0340)" in text


def test_even_damage(tables: dict[str, audit.Published], variants: pd.DataFrame) -> None:
    shares = [0.0, 0.5, 1.0]
    paper = audit.even_damage_by_language(tables["1"], shares)
    floored = audit.even_damage_by_language(tables["1"], shares, True)
    text = alt(card.damage_figure(shares, paper, floored, variants))
    assert "as in the paper: en ends at 0.53" in text and "CRANE's rows: en 0.33" in text
    checked = audit.recompute(tables)
    text = card.even_damage_in_words(paper, floored, checked).data
    assert "0.528 as a mask for English: more than any row of Table 1 (the" in text
    high = checked.assign(printed=0.9)
    assert "less than the highest row of Table 1 (0.9000)" in (
        card.even_damage_in_words(paper, floored, high).data
    )
    text = card.yardstick(shares, paper, variants).data
    assert "Vietnamese 0.475: no such mask reaches it" in text
    assert "English 0.333: a mask that takes" in text


def test_readings(variants: pd.DataFrame) -> None:
    assert list(cells(card.variants_table(variants)))[3:] == list(card.READINGS)
    leading = audit.leaders(variants, card.READINGS)
    text = card.leaders_in_words(leading).data
    assert text.startswith("CRANE leads in 10 of 12 settings as in the paper, and in 10 (mean)")
    assert text.endswith("the ranking of methods is robust to it.")
    leading.loc[0, "floor"] = "Random"
    text = card.leaders_in_words(leading).data
    assert "The order of methods depends on the reading in Table 1 " in text
    assert text.endswith("is not robust to it.")


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("certain", "certainly takes less"),
        ("either", "may or may not be noise"),
        ("cannot", "cannot be told apart"),
    ],
)
def test_intervals(tables: dict[str, audit.Published], verdict: str, said: str) -> None:
    ends = {
        f"{label}_{kind}_{end}": 0.1
        for label in ("paper", "floor")
        for kind in ("similar", "opposed")
        for end in ("low", "high")
    }
    intervals = pd.DataFrame(
        [("CRANE", "zh", 0.08, 0.2), ("Random", "zh", 0.15, 0.4)],
        columns=["method", "mask", "paper", "floor"],
    ).assign(**ends)
    read = cells(card.intervals_table(intervals))
    assert list(read.loc[0, ["paper", "paper, similar"]]) == ["0.080", "0.10 to 0.10"]
    apart = audit.NoiseBounds(0.015, 0.7, 4.5, 0.0, 0.5, verdict)
    text = card.chinese_in_words(intervals, apart, 1346).data
    assert "(0.150 against 0.080)" in text and "20 questions lie between" in text and said in text
