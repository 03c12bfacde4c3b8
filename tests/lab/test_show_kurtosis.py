"""Notebook 02's tables, figures and sentences, on numbers small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from shown import frame_of
from transformers import AutoTokenizer

from crane_core.moments import StreamingMoments
from crane_lab.show import kurtosis_pages as pages
from crane_lab.store import ROOT
from crane_lab.study.scores import SecondLook

KURTOSIS = {
    "en": torch.tensor([[3.0, 9.0, 5.0], [2.0, 4.0, 8.0]]),
    "zh": torch.tensor([[4.0, 2.0, 6.0], [7.0, 3.0, torch.nan]]),
}
PICKED = {("en", "largest contrast"): (0, 1), ("en", "median contrast"): (1, 2)}


def look() -> SecondLook:
    rare = np.array([0.0] * 99 + [1.0])
    coin = np.resize([-1.0, 1.0], 100)
    values = {
        "en": {("en", "largest contrast"): rare, ("en", "median contrast"): coin},
        "zh": {("en", "largest contrast"): coin, ("en", "median contrast"): 0 * coin},
    }
    magnitude = {x: torch.full((2, 3), size) for x, size in (("en", 0.25), ("zh", 4.0))}
    blocks = {x: [StreamingMoments((2, 3))] for x in KURTOSIS}
    return SecondLook(blocks, 5, magnitude, values)


def test_made_up_neurons() -> None:
    table = pages.made_up_table({"a coin": (0.0, 1.0, 1.0)}, 1000)
    assert "1,000 texts" in table.to_html()
    assert frame_of(table).to_dict("records") == [
        {"relevance": "a coin", "mean": 0.0, "std": 1.0, "kurtosis": 1.0}
    ]
    changed = pages.invariance_table({"the same": (0.5, 7.0)})
    assert frame_of(changed).iloc[0].tolist() == ["the same", 0.5, 7.0]


def test_figures_say_what_they_show() -> None:
    assert "beyond those of the bell curve" in pages.intuition().data
    found = {10: np.array([1.0, 2.0, 3.0]), 1000: np.array([140.0, 150.0, 160.0])}
    page = pages.sampling_error(found, truth=150.0).data
    assert (
        "The true value is 150. The median of the samples is 2 with 10 texts and 150 with 1,000"
        in page
    )
    medians = pages.layer_medians(KURTOSIS).data
    assert "en: from 4.0 (layer 1) to 5.0 (layer 0)." in medians
    assert "zh: from 3.0 (layer 1) to 4.0 (layer 0)." in medians


def test_tables_of_every_neuron() -> None:
    tokens = pd.DataFrame(
        [("en", 2, 1200, 1300, 400, 200.0, 1 / 3, 4 / 13)],
        columns=["language", "documents", "characters", "bytes", "tokens", "tokens_per_document",
                 "tokens_per_character", "tokens_per_byte"],
    )  # fmt: skip
    html = pages.corpora_table(tokens).to_html()
    assert "tokens per character" in html and "0.33" in html and "1,200" in html
    summary = pd.DataFrame(
        [("en", 6, 1, 3.0, 4.5, 8.0, 9.0, 0.25)],
        columns=["language", "neurons", "constant", "lower quartile", "median", "upper quartile",
                 "largest", "below 3"],
    )  # fmt: skip
    table = pages.summary_table(summary, n=100, window=64)
    assert "ceiling 98.0" in table.to_html() and "25.0%" in table.to_html()
    assert frame_of(table)["windows"].tolist() == [100] and "windows" not in summary
    found = pd.DataFrame(
        [("zscore", 0.125, 3)], columns=["normalisation", "en: above", "en: contrast"]
    )
    html = pages.normalisation_table(found, 2048, 1.5).to_html()
    assert "all 2,048 neurons above 1.5" in html and "12.5%" in html


def test_real_neurons_are_shown_where_there_are_some() -> None:
    shown = [part.data for part in pages.real_neurons(look(), PICKED)]
    assert shown[0] == "**Selected for `en`: layer 0, neuron 1**"
    # One text in a hundred: the ceiling n - 2 + 1 / (n - 1). A coin has 1.
    assert "over 100 windows per language" in shown[1]
    assert "Kurtosis is 98.0 in en, 1.0 in zh." in shown[1]
    assert shown[2] == "*No neuron is selected for `zh`, so there is none to show.*"


def test_picked_neurons_in_numbers() -> None:
    frame = frame_of(pages.neurons_table(look(), PICKED, KURTOSIS))
    first = frame.iloc[0]
    assert (first["selected for"], first["layer, neuron"]) == ("en, largest", "0, 1")
    assert (first["kurtosis en"], first["kurtosis zh"]) == (9.0, 2.0)
    assert (first["mean |R| en"], first["mean |R| zh"]) == (0.25, 4.0)
    assert first["top 1 %"] == pytest.approx(0.99**4 / (0.99**4 + 99 * 0.01**4))
    assert frame.iloc[1]["top 1 %"] == pytest.approx(0.01)


def test_the_windows_furthest_out_are_those_of_the_tail() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "testbed" / "base")
    plain = torch.tensor([tokenizer("one", add_special_tokens=False)["input_ids"][:1]] * 99)
    odd = torch.tensor([tokenizer("two", add_special_tokens=False)["input_ids"][:1]])
    windows = {"en": torch.cat([plain, odd])}
    frame = frame_of(pages.outliers_table(look(), PICKED, windows, tokenizer, most=1))
    assert frame["selected for"].tolist() == ["en"]
    assert frame["z"].iloc[0] == pytest.approx(0.99 / np.sqrt(0.01 * 0.99))
    assert frame["window"].iloc[0] == tokenizer.decode(odd[0])


def together(against: str = "open") -> pd.DataFrame:
    return pd.DataFrame(
        [("en", -0.25, 20, 2, 2.04, against)],
        columns=["language", "rho", "tenth", "shared", "chance", "against"],
    )


@pytest.mark.parametrize(
    ("against", "words"),
    [("more", "more than the 2"), ("fewer", "fewer than the 2"), ("open", "not far from the 2")],
)
def test_magnitude_and_kurtosis(against: str, words: str) -> None:
    table = together(against)
    assert f"`en` 2 of 20, {words} of chance" in pages.magnitude_words(table).data
    html = pages.magnitude_table(table).to_html()
    assert "-0.25" in html and "2.0<" in html and against not in html
    one = {"en": torch.ones(2, 3)}
    assert (
        "Rank correlation within layers: en -0.25." in pages.magnitude_figure(one, one, table).data
    )


def agreement(same: float, different: float, moved: float = 0.0) -> pd.DataFrame:
    rows = [
        (split, a, b, (same + split * moved if a == b else different))
        for split in (0, 1)
        for a in ("zh", "en")
        for b in ("zh", "en")
    ]
    return pd.DataFrame(rows, columns=["split", "a", "b", "rho"])


@pytest.mark.parametrize(
    ("same", "different", "words"),
    [
        (0.1, 0.0, "hardly repeats itself"),
        (0.8, 0.2, "reproducible and it depends on the language"),
        (0.4, 0.2, "only loosely"),
        (0.4, 0.35, "says little about language"),
    ],
)
def test_agreement_in_words(same: float, different: float, words: str) -> None:
    text = pages.agreement_words(agreement(same, different)).data
    assert words in text
    assert f"agree to {same:+.2f}" in text and f"languages to {different:+.2f}" in text


def test_agreement_as_a_matrix() -> None:
    table = agreement(0.5, 0.25, moved=0.125)
    assert pages.same_and_different(table) == pytest.approx((0.5625, 0.25, 0.125))
    shown = pages.agreement_table(table, windows=500)
    assert frame_of(shown).columns.tolist() == ["half A of", "zh", "en"]  # the order of the run
    assert frame_of(shown)["zh"].tolist() == [0.5625, 0.25]
    assert "500 windows each, mean of 2 splits" in shown.to_html()
    between = pd.DataFrame({"en": [1.0, 0.25], "zh": [0.25, 1.0]}, index=["en", "zh"])
    assert "1,000 windows each" in pages.between_table(between, 1000).to_html()


AGAIN = pd.DataFrame(
    [("en", 10.0, 12.0, 5.0, 0.3, 2.5), ("zh", 4.0, 4.0, 1.0, 0.1, 1.0)],
    columns=["language", "first", "second", "both", "jaccard", "chance"],
)


def test_repeated_selection() -> None:
    shown = pages.repeat_table(AGAIN, 5)
    assert frame_of(shown).columns.tolist() == [
        "language", "half A", "half B", "in both", "Jaccard", "by chance",
    ]  # fmt: skip
    assert "means of 5 splits" in shown.to_html()


def test_figure_3_counts_what_it_shades() -> None:
    scores = {"en": torch.tensor([[2.0, 2.0, 0.0]]), "zh": torch.tensor([[0.0, 3.0, 2.0]])}
    shown = [part.data for part in pages.target_against_rest(scores, 1.0)]
    assert shown[0] == "**Target language `en`**"
    assert (
        "lower right holds 1 neurons (33.3%), by layer [1]; 1 are above the threshold" in shown[1]
    )
    assert shown[2] == "**Target language `zh`**"
    counts = pd.DataFrame({"target": ["en"], "none": [1], "selected if unrelated": [0.66]})
    html = pages.regions_table(counts, 1.0).to_html()
    assert "threshold 1)" in html and "0.7" in html


def null(real: float, pretended: float) -> pd.DataFrame:
    return pd.DataFrame(
        [("", real, real - 1, real + 1), ("en", pretended, 0, 9), ("zh", pretended, 0, 9)],
        columns=["language", "selected", "low", "high"],
    )


@pytest.mark.parametrize(
    ("real", "pretended", "words"),
    [
        (30, 10, "3.0 times as many: most of it is no matter of sampling"),
        (15, 10, "1.5 times as many: sampling alone explains most of it"),
        (11, 10, "hardly more"),
        (11, 0, "too few to compare"),
    ],
)
def test_figure_3_without_languages(real: float, pretended: float, words: str) -> None:
    table = null(real, pretended)
    assert words in pages.null_words(table).data
    shown = pages.null_table(table, 300, 5)
    assert frame_of(shown)["compared"].tolist() == [
        "the real languages", "2 random parts of en", "2 random parts of zh",
    ]  # fmt: skip
    assert frame_of(shown)["over 5 splits"][0] == f"{real - 1:.0f}\u00a0to\u00a0{real + 1:.0f}"
    assert "300 windows" in shown.to_html()


def test_what_the_page_says_at_its_end() -> None:
    summary = pd.DataFrame({"median": [4.0, 6.25]})
    text = pages.what_kurtosis_shows(
        summary, together(), agreement(0.5, 0.1), AGAIN, null(20, 15)
    ).data
    for part in (
        "the medians are 4.0 to 6.2",
        "|relevance| is -0.25 (en)",
        "rank neurons alike to +0.50",
        "25% to 45% of a selection come back from the other half, 1.5 times what chance gives",
        "15 neurons per target there with parts of one language, 20 with real ones",
    ):
        assert part in text
    table = pages.by_magnitude_table({"en": (5, 6, 2, 0.5)})
    assert frame_of(table).iloc[0].tolist() == ["en", 5, 6, 2, 0.5]


def test_what_stays_of_sets_without_languages_is_said() -> None:
    found = pd.DataFrame(
        [
            ("languages, as they come", 100, 10),
            ("languages, as they come", 200, 20),
            ("parts of en, by chance", 40, 30),
        ],
        columns=["compared", "CRANE", "LAPE"],
    )
    said = pages.groups_in_words(found).data
    assert "languages, as they come, 150 and 15; parts of en, by chance, 40 and 30" in said
