"""Kurtosis from all sides: summaries, picked neurons, a second pass, regions, shared neurons."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crane_core.attribution import neuron_relevance
from crane_core.selection import NeuronSet, select
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store
from crane_lab.study import scores, sharing

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of", "ignore:.*neuron")

FOLDER = ROOT / "data" / "testbed"
SMALL = Settings(
    model=str(FOLDER / "base"),
    corpus=str(FOLDER / "corpus" / "attribution"),
    languages=("en", "vi"),
    n_samples=10,
    window=12,
    batch_size=8,
)
SCORES = {
    "en": torch.tensor([[2.0, 3.0, 0.0, 0.0, torch.nan]]),
    "zh": torch.tensor([[0.0, 3.0, 2.0, 0.0, 2.0]]),
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(SMALL, Store(tmp_path_factory.mktemp("store")))


def test_a_summary_leaves_constant_neurons_out() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, torch.nan]])
    (row,) = scores.kurtosis_summary({"en": values}).to_dict("records")
    assert row == {
        "language": "en", "neurons": 6, "constant": 1, "lower quartile": 2.0, "median": 3.0,
        "upper quartile": 4.0, "largest": 5.0, "below 3": 0.4,
    }  # fmt: skip


def test_candidates_under_each_normalisation() -> None:
    generator = torch.Generator().manual_seed(0)
    kurtosis = {x: 3 + torch.rand(2, 50, generator=generator) ** 4 for x in ("en", "zh")}
    table = scores.by_normalisation(kurtosis, 1.0).set_index("normalisation")
    assert table.index.tolist() == ["zscore", "ratio", "robust", "global"]
    assert table["en: above"].between(0.01, 0.6).all()
    assert (table["en: contrast"] <= 100 * table["en: above"] + 1e-9).all()


def test_picked_neurons_are_selected_ones() -> None:
    picked = scores.pick(SCORES, 1.0)
    assert picked == {
        ("en", "largest contrast"): (0, 0), ("en", "median contrast"): (0, 0),
        ("zh", "largest contrast"): (0, 2), ("zh", "median contrast"): (0, 2),
    }  # fmt: skip
    assert scores.pick(SCORES, 99.0) == {}
    many = {"en": torch.tensor([[5.0, 2.0, 4.0]]), "zh": torch.zeros(1, 3)}
    assert list(scores.pick(many, 1.0).values()) == [(0, 0), (0, 2)]


def test_a_second_look(pipeline: Pipeline) -> None:
    picked = {("en", "largest contrast"): (1, 7), ("vi", "median contrast"): (3, 0)}
    look = scores.second_look(pipeline, picked, n_blocks=3)
    assert look.block == 4 and [len(look.blocks[x]) for x in ("en", "vi")] == [3, 3]
    relevance = neuron_relevance(pipeline.model, pipeline.windows["vi"]).double()
    torch.testing.assert_close(look.magnitude["vi"], relevance.abs().mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        look.values["vi"]["en", "largest contrast"],
        relevance[:, 1, 7].numpy(),
        rtol=1e-3,
        atol=1e-6,
    )
    torch.testing.assert_close(
        look.blocks["vi"][0].mean(), relevance[:4].mean(0), rtol=1e-3, atol=1e-6
    )
    nothing = scores.second_look(pipeline, {}, n_blocks=3)
    assert nothing.values == {"en": {}, "vi": {}}


def test_a_second_look_is_had_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    picked = {("en", "largest contrast"): (1, 5)}
    first = scores.second_look(pipeline, picked, n_blocks=4)
    monkeypatch.setattr(scores, "neuron_relevance", lambda *_, **__: pytest.fail("run again"))
    for again in (
        scores.second_look(pipeline, picked, n_blocks=4),
        scores.second_look(pipeline, {}, n_blocks=4),
    ):
        for x in ("en", "vi"):
            assert torch.equal(again.magnitude[x], first.magnitude[x])
            for own, other in zip(again.blocks[x], first.blocks[x], strict=True):
                assert own.count == other.count and torch.equal(own.mean(), other.mean())
    with pytest.raises(pytest.fail.Exception, match="run again"):
        scores.second_look(pipeline, {("en", "x"): (0, 0)}, n_blocks=4)


def test_magnitude_and_kurtosis_may_agree_or_not() -> None:
    kurtosis = {
        "en": torch.arange(200.0).reshape(2, 100),
        "zh": torch.arange(200.0).reshape(2, 100),
    }
    magnitude = {"en": 2 * kurtosis["en"], "zh": -kurtosis["zh"]}
    table = scores.magnitude_and_kurtosis(magnitude, kurtosis).set_index("language")
    assert table.loc["en"].to_dict() == {
        "rho": pytest.approx(1), "tenth": 20, "shared": 20, "chance": 2.0, "against": "more",
    }  # fmt: skip
    assert table.loc["zh", "rho"] == pytest.approx(-1) and table.loc["zh", "shared"] == 0
    assert table.loc["zh", "against"] == "open"  # 2 expected and none found is no surprise


def test_regions_of_figure_3() -> None:
    masks, unrelated = scores.regions(SCORES, "en", 1.0)
    names = [name for i in range(5) for name, mask in masks.items() if mask[0, i]]
    assert names == [
        "target only (selected)", "target and another", "another only", "none", "no score",
    ]  # fmt: skip
    assert unrelated == pytest.approx(2 / 5 * 2 / 5 * 5)
    table = scores.region_counts(SCORES, 1.0)
    assert table["target"].tolist() == ["en", "zh"]
    selected = select(SCORES, "zh", "contrast", 1.0)
    assert table["target only (selected)"][1] == len(selected)


def test_every_neuron_has_a_row() -> None:
    table = scores.every_neuron(SCORES, SCORES, {x: 2 * v for x, v in SCORES.items()})
    assert len(table) == 10
    row = table[(table["language"] == "zh") & (table["neuron"] == 2)].iloc[0]
    assert (row["layer"], row["kurtosis"], row["mean_abs_relevance"]) == (0, 2.0, 4.0)


def test_overlap_is_told_from_chance() -> None:
    def of(start: int, stop: int, layer: int = 0) -> NeuronSet:
        return NeuronSet.from_pairs([(layer, i) for i in range(start, stop)], (2, 50))

    row = sharing.overlap_row(of(0, 20), of(0, 20))
    assert (row["shared"], row["chance"], row["ratio"], row["jaccard"]) == (20, 8.0, 2.5, 1.0)
    assert row["p"] < 1e-6 and row["against"] == "more"
    apart = sharing.overlap_row(of(0, 20), of(20, 40))
    assert apart["against"] == "fewer" and apart["ratio"] == 0
    # Sets in other layers cannot share any, which says nothing of their neurons.
    elsewhere = sharing.overlap_row(of(0, 20), of(0, 20, layer=1))
    assert elsewhere["against"] == "open" and np.isnan(elsewhere["ratio"])
    assert sharing.overlap_row(of(0, 5), of(3, 8))["against"] == "open"
    assert sharing.in_several({"en": of(0, 5), "zh": of(4, 8), "vi": of(7, 9)}) == of(4, 5) | of(
        7, 8
    )
    with pytest.raises(ValueError, match="no sets"):
        sharing.in_several({})
