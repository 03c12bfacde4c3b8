"""A real model's results as they are shipped, and what makes and shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from page_outputs import caption, rows

from crane_core.models import CHECKSUMS, verify_checksums, write_checksums
from crane_core.neurons import NeuronSet
from crane_lab.show import shipped_pages
from crane_lab.store import ROOT
from crane_lab.study import real_model
from crane_lab.study.shipped import Shipped

SHAPE = {"intermediate": (2, 10)}
SETS = {
    "CRANE": {
        "en": NeuronSet.from_pairs([(0, 1), (0, 2), (1, 3)], SHAPE),
        "zh": NeuronSet.empty(SHAPE),
    },
    "LAPE": {
        "en": NeuronSet.from_pairs([(0, 1), (1, 9)], SHAPE),
        "zh": NeuronSet.from_pairs([(0, 1)], SHAPE),
    },
}
DATA = ROOT / "data" / "gemma"


def test_sets_are_counted_by_layer() -> None:
    found = real_model.counts_by_layer(SETS)
    assert found.to_dict("list") == {
        "method": ["CRANE"] * 4 + ["LAPE"] * 4,
        "language": ["en", "en", "zh", "zh"] * 2,
        "layer": [0, 1] * 4,
        "n_neurons": [2, 1, 0, 0, 1, 1, 1, 0],
    }


def test_sets_are_compared_in_pairs() -> None:
    found = real_model.overlaps(SETS)
    assert len(found) == 6
    english = found.query("method != method_2 and language == language_2 == 'en'")
    (own,) = english.to_dict("records")
    assert (own["n"], own["n_2"], own["shared"]) == (3, 2, 1)
    # Two of ten and one of ten in layer 0, one and one in layer 1.
    assert own["chance"] == pytest.approx(0.2 + 0.1)
    table = shipped_pages.between_methods_table({"small": found})
    assert [row[:3] for row in rows(table)] == [
        ["small", "en", "CRANE, LAPE"],
        ["small", "zh", "CRANE, LAPE"],
    ]
    assert len(rows(shipped_pages.overlaps_table({"small": found}, "LAPE"))) == 1


GATE = pd.DataFrame(
    [
        (0.0, -1, "facts_en", "en", 0.50, 50, 0.37, 0.63),
        (0.0, -1, "facts_zh", "zh", 0.30, 50, 0.19, 0.44),
        (0.0, -1, "facts_vi", "vi", 0.98, 50, 0.90, 0.99),
        (0.01, 9000, "facts_en", "en", 0.40, 50, 0.28, 0.54),
        (0.01, 9001, "facts_en", "en", 0.50, 50, 0.37, 0.63),
        (0.01, 9000, "facts_zh", "zh", 0.30, 50, 0.19, 0.44),
        (0.01, 9000, "facts_vi", "vi", 0.90, 50, 0.80, 0.96),
    ],
    columns=["fraction", "seed", "task", "language", "accuracy", "n", "low", "high"],
)


def test_the_gate_says_where_there_is_no_room() -> None:
    table = shipped_pages.tasks_gate_table(GATE)
    assert "mean and range of 2" in caption(table)
    assert rows(table)[0] == ["facts_en", "50", "0.500 [0.370, 0.630]", "0.450 (0.400 to 0.500)"]
    words = str(shipped_pages.room_in_words(GATE).data)
    assert "Not told from chance: facts_zh." in words.replace("\\", "")
    assert "Next to perfect: facts_vi." in words.replace("\\", "")


def test_shipped_results_are_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no {CHECKSUMS}"):
        Shipped.read(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"languages": ["en", "zh"]}}))
    pd.DataFrame({"method": ["Org", None], "n": [1, 2]}).to_csv(tmp_path / "a.csv", index=False)
    SETS["LAPE"]["en"].save(tmp_path / "neurons_lape_matched_en.safetensors")
    SETS["LAPE"]["zh"].save(tmp_path / "neurons_lape_matched_zh.safetensors")
    write_checksums(tmp_path)
    found = Shipped.read(tmp_path)
    assert found.languages == ["en", "zh"]
    assert found.table("a")["method"].to_list() == ["Org", ""]
    assert found.sets("LAPE matched") == SETS["LAPE"]
    (tmp_path / "a.csv").write_text("method\n")
    with pytest.raises(ValueError, match="altered"):
        Shipped.read(tmp_path)


# --- what is shipped ------------------------------------------------------------------------------


def test_what_is_shipped_is_whole() -> None:
    verify_checksums(DATA)
    shipped = Shipped.read(DATA)
    assert shipped.made["shape"]["intermediate"] == [18, 2048]
    normalised = shipped.normalised()
    assert {x: tuple(v.shape) for x, v in normalised.items()} == dict.fromkeys(
        shipped.languages, (18, 2048)
    )
    # z-scores within layers, as far as half precision goes.
    for values in normalised.values():
        assert torch.allclose(values.nanmean(1), torch.zeros(18), atol=0.01)
    table = shipped.table("table1").set_index(["method", "mask_language"])["n_neurons"]
    for method in ("CRANE", "LAPE", "LAPE matched"):
        for x, neurons in shipped.sets(method).items():
            assert table[method, x] == len(neurons)
    said = (DATA / "provenance.json").read_text() + (DATA / "run.json").read_text()
    assert str(Path.home()) not in said and "/work" not in said


def test_losses_are_set_against_size_and_others() -> None:
    losses = pd.DataFrame(
        {
            "method": ["A", "B"],
            "mask_language": ["en", "zh"],
            "n_neurons": [200, 1000],
            "en": [0.5, -0.1],
            "zh": [0.25, 2.0],
            "other": ["zh", "en"],
            "difference": [0.25, 2.1],
        }
    )
    first, second = rows(shipped_pages.cost_table(losses))
    assert first == ["A", "en", "200", "+0.50", "+0.250", "2.0"]
    assert second[:5] == ["B", "zh", "1,000", "+2.00", "+0.200"]
    assert second[5] not in ("-20.0", "inf")  # nothing to be set against
