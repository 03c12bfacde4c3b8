"""What notebook 09 shows of single ablations, from effects that are known."""

from __future__ import annotations

import torch
from page_outputs import alt, caption, cells, rows

from crane_lab.show import necessity_pages
from crane_lab.study import criteria, summaries
from crane_lab.study.necessity import Necessity, summarise

NAMES = {"en": "English", "zh": "Chinese"}


def effects(values: tuple[str, ...] = ("zero", "mean")) -> Necessity:
    """Two layers of 50: neuron (1, 3) is needed by English alone, all others hardly matter.

    At the mean English needs no neuron in particular.
    """
    generator = torch.Generator().manual_seed(0)
    size = (len(values), 2, 50, 64)
    increases = {
        x: 1e-4 * torch.randn(size, dtype=torch.float64, generator=generator) for x in NAMES
    }
    increases["en"][0, 1, 3] += 0.25
    return summarise(increases, {v: torch.zeros(2, 50) for v in values}, {})


def test_what_was_measured() -> None:
    text = necessity_pages.measured(effects(), NAMES, 16, recomputed=False).data
    assert text == (
        "100 neurons, each set to zero and to its mean, in 2 languages with 64 texts of 16 tokens "
        "(960 predictions) each. Read from the shipped file."
    )
    text = necessity_pages.measured(effects(("zero",)), NAMES, 16, recomputed=True).data
    assert "each set to zero, in 2" in text and text.endswith("Measured in this run.")


def test_the_spread_is_in_thousandths_of_a_nat() -> None:
    found = cells(necessity_pages.spread_table(summaries.spread(effects())))
    english = found[(found["set to"] == "zero") & (found["language"] == "en")].iloc[0]
    assert abs(float(english["100%"]) - 250) < 0.1 and english["50%"][0] in "+-"
    assert english["standard error"] == "0.01"
    assert english["top 1 % of neurons"] == "100%"


def test_neurons_beyond_the_axes_are_counted_and_correlated() -> None:
    figure = necessity_pages.clouds(effects(), NAMES)
    text = alt(figure)
    assert "English: rank correlation -0." in text or "English: rank correlation 0." in text
    assert text.index("English") < text.index("Chinese")
    aligned = summarise(
        {"en": torch.arange(64.0).view(1, 1, 32, 2), "zh": torch.arange(64.0).view(1, 1, 32, 2)},
        {"zero": torch.zeros(1, 32)},
        {},
    )
    assert "English: rank correlation 1.00." in alt(necessity_pages.clouds(aligned, NAMES))


def test_significant_neurons_in_a_table_and_by_layer() -> None:
    counts = summaries.significant_counts(effects(), 0.05)
    table = necessity_pages.significant(counts, 0.05, (2, 50))
    assert "false-discovery rate 5%, of 100 (50 per layer)" in caption(table)
    assert ["zero", "en", "selectivity", "1", "1.0%", "0", "1"] in rows(table)
    text = alt(necessity_pages.selective_by_layer(effects(), NAMES, 0.05))
    assert text == "Number of selective neurons per layer. English: 0, 1. Chinese: 0, 0."


def test_reliability_has_two_decimals() -> None:
    found = cells(necessity_pages.effects_reliability(criteria.split_half(effects())))
    assert found["effect"].to_list() == ["necessity", "selectivity"] * 2
    assert all(len(text.lstrip("-")) == 4 for text in found["halves"])


def test_zero_is_compared_with_the_mean_or_it_is_said_why_not() -> None:
    text = necessity_pages.zero_against_mean_in_words(effects(), NAMES).data
    assert text.startswith("Zero against mean: ") and "English " in text and ", Chinese " in text
    text = necessity_pages.zero_against_mean_in_words(effects(("zero",)), NAMES).data
    assert text == "Neurons were set to zero only, so there is nothing to compare."
