"""A real model's results as they are shipped, and what makes and shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from page_outputs import caption, rows
from test_pipeline import folder, settings_in

from crane_core.models import CHECKSUMS, verify_checksums, write_checksums
from crane_core.neurons import NeuronSet
from crane_lab.cli import ship
from crane_lab.pipeline import Pipeline
from crane_lab.show import readouts, shipped_pages
from crane_lab.store import ROOT, Store
from crane_lab.study import real_model, scores, sharing
from crane_lab.study.shipped import Shipped

__all__ = ["folder"]  # a fixture

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
    assert "95 % of the items or more: facts_vi." in words.replace("\\", "")


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


def test_a_causal_check_of_another_model_is_refused(tmp_path: Path) -> None:
    made: dict[str, Any] = {"settings": {"languages": ["en"]}, "model": "a", "texts": {"en": "1"}}
    (tmp_path / "run.json").write_text(json.dumps(made))
    write_checksums(tmp_path)
    assert Shipped.read(tmp_path).causal() == {}
    for change, said in (({}, None), ({"texts": {"en": "2"}}, "another texts")):
        (tmp_path / "made.json").write_text(json.dumps(made | change))
        write_checksums(tmp_path)
        found = Shipped.read(tmp_path)
        if said is None:
            assert found.causal() == made
        else:
            with pytest.raises(ValueError, match=said):
                found.causal()


def test_what_was_shipped_before_goes(tmp_path: Path) -> None:
    made = {"model": "a", "texts": "b"}
    for name in ("old.csv", "sample.csv", "made.json"):
        (tmp_path / name).write_text(json.dumps(made))
    write_checksums(tmp_path)
    (tmp_path / "mine.txt").write_text("not listed")
    ship._clear(tmp_path, made)
    assert {f.name for f in tmp_path.iterdir()} == {"sample.csv", "made.json", "mine.txt"}
    write_checksums(tmp_path)
    ship._clear(tmp_path, {"model": "a", "texts": "other"})
    assert not {"sample.csv", "made.json"} & {f.name for f in tmp_path.iterdir()}


@given(
    counts=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3),
    seed=st.integers(0, 10),
)
def test_shared_neurons_by_chance(counts: list[tuple[int, int]], seed: int) -> None:
    found = sharing._shared_by_chance(counts, [6] * len(counts))
    assert found.sum() == pytest.approx(1)
    assert found @ np.arange(len(found)) == pytest.approx(sum(a * b for a, b in counts) / 6)
    variance = sum(a * b * (6 - a) * (6 - b) / (36 * 5) for a, b in counts)
    mean = sum(a * b for a, b in counts) / 6
    assert found @ np.arange(len(found)) ** 2 - mean**2 == pytest.approx(variance, abs=1e-9)


@pytest.mark.filterwarnings("ignore:kurtosis of")
def test_what_an_opening_is_worth(folder: Path, tmp_path: Path) -> None:
    settings = settings_in(folder, window_opening="bos", window=16, n_perplexity=3, n_samples=8)
    pipeline = Pipeline(settings, Store(tmp_path))
    found = real_model.losses_by_opening(pipeline, ((1, None), (1, 4), (5, None)))
    x = pipeline.settings.languages[0]
    ids = pipeline.perplexity_windows[x]
    with torch.no_grad():
        logits = [pipeline.model(part).logits[:, :-1] for part in (ids, ids[:, 1:])]
    nats = [
        torch.nn.functional.cross_entropy(
            z.flatten(0, 1), part[:, 1:].flatten(), reduction="none"
        ).view(len(ids), -1)
        for z, part in zip(logits, (ids, ids[:, 1:]), strict=True)
    ]
    own = found[found["language"] == x].set_index(["first", "last"])
    for (first, last), columns in {
        (1, 0): slice(0, 14),
        (1, 4): slice(0, 4),
        (5, 0): slice(4, 14),
    }.items():
        with_, without = nats[0][:, 1:][:, columns].mean(), nats[1][:, columns].mean()
        row: Any = own.loc[(first, last)]
        assert row["with"] == pytest.approx(float(with_), abs=1e-4)
        assert row["without"] == pytest.approx(float(without), abs=1e-4)
        assert row["costs"] == pytest.approx(float(without - with_), abs=1e-4)
    orders = real_model.relevance_by_opening(pipeline, 4)
    assert set(orders["statistic"]) == {"mean_abs", "kurtosis"}
    assert orders["rho"].between(-1, 1).all() and orders["rho_windows"].between(-1, 1).all()
    with pytest.raises(ValueError, match="expected one"):
        real_model.losses_by_opening(pipeline.changed(window_opening="stream"))
    table = shipped_pages.openings_table(
        real_model.losses_by_opening(pipeline, ((1, None), (1, 4), (5, None))), orders
    )
    assert len(rows(table)) == len(pipeline.settings.languages)


def test_findings_in_words() -> None:
    here = pd.DataFrame(
        {"method": "CRANE", "mask_language": ["en", "zh"], "verdict": ["larger", "open"]}
    )
    there = here.assign(verdict=["smaller", "open"])
    names = {"en": "English", "zh": "Chinese"}
    same = shipped_pages.findings_in_words({"a": here, "b": here}, names).data
    assert "on the a English clearly most; on b English clearly most. The same." in same
    other = shipped_pages.findings_in_words({"a": here, "b": there}, names).data
    assert "on b English clearly not most. Not the same." in other
    random = [("Random", 0.2, 0.1), ("Random", 0.1, 0.3)]
    table = pd.DataFrame(
        [("CRANE", 0.05, 0.2), *random], columns=["method", "en_change", "zh_change"]
    ).assign(mask_language="en")
    rows = pd.concat([table, table.assign(mask_language="zh")])
    assert "in 2 of 4 cells" in shipped_pages.below_random(rows, names).data


def test_what_was_run() -> None:
    shipped = Shipped.read(DATA)
    told = rows(shipped_pages.settings_table(shipped.settings, {"en": "English"}))
    assert ["languages", "English"] in told and len(told) == 6


def test_what_was_not_measured_is_no_null_result() -> None:
    graded = Shipped.read(DATA).table("table2_verdicts")  # without random masks
    assert set(graded["against_random"]) == {""}
    said = readouts.summary(graded, "CRANE")
    assert "random masks of its kind were not measured" in said and "above its null" not in said
    assert "under 1 in relative terms" in readouts.summary(graded, "LAPE")


def test_findings_side_by_side() -> None:
    verdict = pd.DataFrame(
        {
            "method": ["CRANE", "CRANE", "Random"],
            "mask_language": ["en", "zh", "en"],
            "verdict": ["larger", "open", "open"],
            "against_random": ["above", "within", ""],
        }
    )
    regions = pd.DataFrame(
        {"target": ["en"], "target only (selected)": [1200], "selected if unrelated": [1300.4]}
    )
    found = rows(
        shipped_pages.findings_table(
            {"a": regions}, {"a": verdict}, {"a": verdict}, {"a": "5 of 7"}
        )
    )
    assert [row[-1] for row in found] == [
        "en 1,200 (1,300)", "1 of 2 (en)", "0 of 2", "1 of 2 (en)", "5 of 7",
    ]  # fmt: skip


# --- what is shipped ------------------------------------------------------------------------------


def test_what_is_shipped_is_whole() -> None:
    verify_checksums(DATA)
    shipped = Shipped.read(DATA)
    assert shipped.made["shape"]["intermediate"] == [18, 2048]
    normalised = shipped.normalised()
    assert {x: tuple(v.shape) for x, v in normalised.items()} == dict.fromkeys(
        shipped.languages, (18, 2048)
    )
    for values in normalised.values():  # z-scores within layers
        assert torch.allclose(values.nanmean(1), torch.zeros(18), atol=1e-5)
    counts = scores.region_counts(normalised, shipped.settings["threshold"])
    counted = dict(zip(counts["target"], counts["target only (selected)"], strict=True))
    assert counted == {x: len(own) for x, own in shipped.sets("CRANE").items()}
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
            "en_se": [0.1, 0.1],
            "zh_se": [0.1, 0.1],
        }
    )
    first, second = rows(shipped_pages.cost_table(losses))
    assert first == ["A", "en", "200", "+0.50", "+0.250", "2.0"]
    assert second[:5] == ["B", "zh", "1,000", "+2.00", "+0.200"]
    assert second[5] not in ("-20.0", "inf")  # nothing to be set against
