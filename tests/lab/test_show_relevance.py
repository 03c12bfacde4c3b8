"""Notebook 01's tables, figures and sentences, on made-up relevance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from shown import frame_of
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from crane_lab.show import relevance_pages as pages
from crane_lab.store import ROOT
from crane_lab.study.relevance import Explained


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(ROOT / "data" / "testbed" / "base")


def test_the_small_network_by_hand() -> None:
    x, h, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0, 1.0]), torch.tensor([5.0])
    alt = pages.network_figure(
        {"x": (x, torch.tensor([3.0, 2.0])), "h": (h, torch.tensor([6.0, 0.0, -1.0])), "y": (y, y)},
        [torch.ones(3, 2), torch.ones(1, 3)],
    ).data
    assert "Activations: x 1 and 2; h 3, 0 and 1; y 5." in alt
    assert "Relevance: x 3 and 2; h 6, 0 and -1; y 5." in alt
    table = pages.conserved_table({"output": y, "input": torch.tensor([3.0, 2.0])})
    assert frame_of(table).values.tolist() == [
        ["output", "[5.0]", 5.0],
        ["input", "[3.0, 2.0]", 5.0],
    ]


def test_small_print_and_gate() -> None:
    epsilon = pages.epsilon_table(
        {0.0: torch.tensor([3.0, 2.0]), 1.0: torch.tensor([2.0, 1.0])}, 5.0
    )
    assert frame_of(epsilon)[["sum", "output"]].values.tolist() == [[5.0, 5.0], [3.0, 5.0]]
    gated = pages.gated_table({"plain gradient": torch.tensor([-1.0, 4.0])}, 2.193)
    assert frame_of(gated).iloc[0].tolist() == ["plain gradient", -1.0, 4.0, 3.0, 2.193]


def steps(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (step, 8, 1.0, "1.000 (0.900 to 1.100)", 1e-7, conserves, 2.0)
            for step, conserves in rows
        ],
        columns=["step", "n", "share due", "share passed on", "largest error", "conserves",
                 "plain gradient"],
    )  # fmt: skip


def test_steps_that_conserve_and_steps_that_do_not() -> None:
    html = pages.steps_table(steps(("RMS norm", "yes")), 48).to_html()
    assert "48 windows times" in html and "stays below 0.00001. Last column" in html
    text = pages.steps_words(steps(("RMS norm", "yes"), ("whole model", "no"))).data
    assert text == (
        "Conserving to rounding: RMS norm. Not conserving: whole model. Everything on the second "
        "list has a softmax inside."
    )
    text = pages.steps_words(steps(("RMS norm", "no"))).data
    assert text == "Conserving to rounding: none. Not conserving: RMS norm."
    assert "No step of this model" in pages.steps_words(steps(("RMS norm", "yes"))).data


def test_the_stream_from_its_beginning_to_its_end() -> None:
    shares = torch.tensor([[0.5, 0.8, 1.0], [0.7, 0.8, 1.0]], dtype=torch.float64)
    alt = pages.stream_figure({"en": shares}).data
    assert "At the embeddings en 0.60; after the last layer en 1.00." in alt


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.5, 1.2, "lie on both sides of 1"), (0.5, 0.9, "Softmax takes its toll")],
)
def test_the_input_over_the_output(low: float, high: float, words: str) -> None:
    ratio = pd.DataFrame(
        [("en", "attnlrp", 12, low, 0.6, 0.75, 0.8, high), ("en", "gradient", 12, 1, 1, 1, 1, 1)],
        columns=["language", "rules", "n", "5 %", "25 %", "median", "75 %", "95 %"],
    )
    text = pages.ratio_words(ratio).data
    assert words in text and "0.75 (en) of the output" in text
    assert "(last_max), quantiles" in pages.ratio_table(ratio, "last_max").to_html()


def test_heatmaps_name_the_strongest_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer(" the of in", add_special_tokens=False)["input_ids"]
    values = np.linspace(0.5, -2.0, len(ids))
    one = Explained(list(ids), values, "Hanoi", "Hanoi", 0.25, 3)
    figure, words = pages.heatmap(tokenizer, {"en": one}, "Questions")
    last = tokenizer.decode([ids[-1]]).strip()
    assert words.data.startswith(f"Strongest tokens, in logits: en: {last!r} (-2.00)")
    assert "Questions with tokens coloured by relevance. Strongest: en: " in figure.data
    alt = pages.objectives_heatmap(tokenizer, torch.tensor(ids), {"last_max": values}).data
    assert "last_max" in alt and last in alt


RELEVANCE = torch.tensor([[3.0, -1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])


def test_layers_of_one_window() -> None:
    table = pages.layers_table(RELEVANCE, 8.0, "zh")
    assert frame_of(table)["sum"].tolist() == [2.0, 4.0]
    assert "4 neurons of each layer for one window (zh, output 8.0)" in table.to_html()
    alt = pages.coverage_figure(RELEVANCE).data
    assert "1 neurons in layer 0, 2 neurons in layer 1." in alt


def test_two_readings_of_a_neuron() -> None:
    kurtosis = {
        "intermediate": torch.tensor([[4.0, 8.0]]),
        "gate": torch.tensor([[4.0, 10.0]]),
        "down": torch.tensor([[3.0]]),
    }
    frame = frame_of(pages.sites_table(kurtosis, 12, "en")).set_index("site")
    assert frame.loc["gate", "largest difference to intermediate"] == 0.25
    assert frame["largest difference to intermediate"].isna().tolist() == [False, False, True]
    assert frame.loc["down", "units"] == 1
    assert "the prediction holds, to rounding" in pages.sites_words(1e-6).data
    assert "**the prediction does not hold**" in pages.sites_words(1e-3).data


@pytest.mark.parametrize(
    ("rank", "words"), [(0.5, "do not just rescale"), (0.95, "change the order of neurons little")]
)
def test_rules_against_the_plain_gradient(rank: float, words: str) -> None:
    rules = pd.DataFrame(
        {"layer": [0, 1], "relevance, en": ["a", "b"], "kurtosis, en": [rank, 0.99]}
    )
    agreement = {"en": torch.tensor([[0.25, 0.5], [0.25, 0.75], [0.25, 1.0]])}
    text = pages.rules_words(rules, agreement).data
    assert "relevance go from 0.25 to 0.75" in text
    assert f"kurtosis from {rank:.2f} to 0.99" in text and words in text
    assert "over 12 windows" in pages.rules_table(rules, 12).to_html()


@pytest.mark.parametrize(
    ("lowest", "words"), [(0.4, "the objective is no detail"), (0.8, "largely agree")]
)
def test_three_objectives(lowest: float, words: str) -> None:
    found = pd.DataFrame(
        [
            ("next_token", 9.0, 4.0, 1.0, 20),
            ("next_token_logprob", -3.0, 2.0, 0.9, 12),
            ("last_max", 7.0, 1.0, lowest, 5),
        ],
        columns=["objective", "explained", "sum", "correlation", "shared"],
    )
    text = pages.objectives_words(found).data
    assert f"0.90 (`next_token_logprob`) and {lowest:.2f} (`last_max`)" in text and words in text
    table = pages.objectives_table(found, 2048, "en")
    assert frame_of(table)["shared among the 20 largest"].tolist() == [20, 12, 5]
    assert "2,048 neurons" in table.to_html()


def test_relevance_is_not_removal() -> None:
    removal = pd.DataFrame(
        [(0, 1, 1.0, 2.0), (0, 2, -1.0, -2.0), (1, 0, 0.5, -1.0)],
        columns=["layer", "neuron", "relevance", "lost when masked"],
    )
    text = pages.removal_words(removal).data
    together = np.corrcoef(removal["relevance"], removal["lost when masked"])[0, 1]
    assert text.startswith(
        f"Correlation over these neurons {together:.2f}; the sign agrees for 2 of 3"
    )
    assert "+0.50" in pages.removal_table(removal, "en").to_html()
