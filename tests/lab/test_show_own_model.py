"""What notebook 11 shows of a run on another model."""

from __future__ import annotations

import pandas as pd
from page_outputs import caption, rows

from crane_core.selection import NeuronSet
from crane_lab.show import own_model_pages

SHAPE = {"intermediate": (2, 8)}


def test_families_are_in_order() -> None:
    assert own_model_pages.families({"qwen3": 1, "llama": 2}).data == "Families: `llama`, `qwen3`."


def test_hours_by_device() -> None:
    frame = pd.DataFrame(
        {
            "device": ["A100"],
            "memory (GiB)": [80],
            "fits": ["yes"],
            "relevance": [0.25],
            "benchmarks": [10.0],
            "open questions": [1.0],
            "in all": [11.25],
            "speed": ["measured"],
        }
    )
    table = own_model_pages.hours(frame, "Llama", {"weights": 12.5, "activations": 7.7})
    assert "Tables 1 to 4 of Llama (needs 20 GiB besides vLLM)" in caption(table)
    assert rows(table)[0] == [
        *("A100", "80", "yes", "0.2", "10.0", "1.0", "11.2", "measured"),
    ]


def test_an_exported_set_comes_back_or_not() -> None:
    neurons = NeuronSet.from_pairs([(0, 1), (1, 7), (1, 2)], SHAPE)
    text = own_model_pages.exported(neurons, [neurons, neurons], (2e-6, 1.25), first=2).data
    assert text == (
        "3 neurons, the first [[0, 1], [1, 2]] (layer, neuron). Through JSON and LAPE's format and "
        "back: equal. The checkpoint, loaded by transformers alone, differs from the masked model "
        "by 2.0e-06 in any logit and from the untouched one by 1.25."
    )
    other = NeuronSet.from_pairs([(0, 1)], SHAPE)
    text = own_model_pages.exported(neurons, [neurons, other], (0.0, 0.0)).data
    assert "back: not equal." in text


def test_savings() -> None:
    table = own_model_pages.savings({"as it is": 100.0, "less": 9.96}, "A10")
    assert caption(table) == "Hours on the A10"
    assert rows(table) == [["as it is", "100.0"], ["less", "10.0"]]
