"""What a chat model keeps, on made-up weights, sets and tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from crane_core.interventions import zero
from crane_core.selection import NeuronSet
from crane_lab.stages.outcomes import Row
from crane_lab.study import transfer

SHAPE = {"intermediate": (1, 100)}


def test_weight_changes_are_relative_to_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(factor: float) -> Any:
        weights = {n: torch.full((2, 3), 2.0) for n in ("gate_proj", "up_proj")}
        weights["down_proj"] = torch.full((2, 3), 2.0 * factor)
        return [SimpleNamespace(**{n: SimpleNamespace(weight=w) for n, w in weights.items()})]

    monkeypatch.setattr("crane_lab.study.transfer.models.mlp_sites", lambda sites: sites)
    (row,) = transfer.weight_changes(model(1.0), model(1.1)).to_dict("records")
    expected = {"layer": 0, "gate_proj": 0.0, "up_proj": 0.0, "down_proj": 0.1}
    assert row == pytest.approx(expected)


def neurons(first: int, count: int) -> NeuronSet:
    return NeuronSet.from_pairs([(0, i) for i in range(first, first + count)], SHAPE)


def test_shared_neurons_against_chance() -> None:
    def masks(first: int) -> list[Row]:
        return [
            Row("LAPE", "en", zero(neurons(50, 5))),
            Row("LAPE matched", "en", zero(neurons(first, 20))),
            Row("CRANE", "en", zero(neurons(0, 20))),
        ]

    found = transfer.shared_neurons(masks(0), masks(20)).set_index("method")
    assert list(found.index) == ["CRANE", "LAPE matched"]
    assert found["shared"].to_dict() == {"CRANE": 20, "LAPE matched": 0}
    assert found["expected"].tolist() == pytest.approx([4.0, 4.0])
    assert found["p"].tolist() == pytest.approx([0.0, 1.0], abs=1e-10)
    assert found["jaccard"].tolist() == [1, 0] and found["n_chat"].tolist() == [20, 20]


def scored(low: float, high: float) -> pd.DataFrame:
    rows = [("Org", "", 0, 0.8, np.nan), ("CRANE", "en", 9, 0.5, 0.4), ("LAPE", "en", 3, 0.8, 0.0)]
    columns = ["method", "mask_language", "n_neurons", "en", "langspec_f1"]
    return pd.DataFrame(rows, columns=columns).assign(langspec_f1_low=low, langspec_f1_high=high)


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.6, 0.7, "above"), (0.1, 0.2, "below"), (0.4, 0.6, "open")]
)
def test_counterparts_are_told_apart_by_their_intervals(
    low: float, high: float, verdict: str
) -> None:
    tables = {("benchmarks", "base"): scored(0.3, 0.5), ("benchmarks", "chat"): scored(low, high)}
    found = transfer.counterparts(tables, ["en"])
    assert list(found) == [
        *("method", "mask_language", "read_out", "found_on", "n_neurons", "en"),
        *("langspec_f1", "langspec_f1_low", "langspec_f1_high"),
    ]
    assert found["found_on"].tolist() == ["base", "chat"]
    assert found["method"].tolist() == ["CRANE", "CRANE"]
    assert transfer.told_apart(found).to_dict("records") == [
        {"read_out": "benchmarks", "method": "CRANE", "mask_language": "en", "verdict": verdict}
    ]


def test_what_the_chat_model_keeps_of_a_drop() -> None:
    table = pd.DataFrame(
        [("Org", "", 0.8, 0.7), ("CRANE", "en", 0.4, 0.6), ("LAPE", "en", 0.9, 0.6)],
        columns=["method", "mask_language", "base_en", "chat_en"],
    )
    found = transfer.kept_drops(table)
    assert found["drop, base"].tolist() == pytest.approx([0.4, -0.1])
    assert found["kept"].tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
