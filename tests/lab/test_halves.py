"""Random parts of the windows: how they are dealt, and what is said of their agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from crane_core.moments import StreamingMoments
from crane_core.selection import NeuronSet, overlap
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store
from crane_lab.study import halves

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of", "ignore:.*neuron")

FOLDER = ROOT / "data" / "testbed"
SMALL = Settings(
    model=str(FOLDER / "base"),
    corpus=str(FOLDER / "corpus" / "attribution"),
    n_samples=24,
    window=12,
    batch_size=8,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(SMALL, Store(tmp_path_factory.mktemp("store")))


def moments(samples: Tensor) -> StreamingMoments:
    stream = StreamingMoments(samples.shape[1:])
    stream.update(samples)
    return stream


def blocks(n: int = 6, seed: int = 0) -> dict[str, list[StreamingMoments]]:
    """Blocks of ten samples of a 2 x 40 model, in two languages with heavy tails of their own."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for number, x in enumerate(("en", "zh")):
        scale = torch.ones(2, 40)
        scale[:, 20 * number : 20 * number + 20] = 3.0
        found[x] = [
            moments(torch.randn(10, 2, 40, generator=generator) ** 3 * scale) for _ in range(n)
        ]
    return found


def test_merged_blocks_are_the_whole(pipeline: Pipeline) -> None:
    found = halves.block_moments(pipeline, 24, 6)
    merged = StreamingMoments(pipeline.shape["intermediate"])
    for block in found["zh"]:
        merged.merge(block)
    assert len(found["zh"]) == 4
    torch.testing.assert_close(merged.kurtosis(), pipeline.kurtosis()["zh"], rtol=1e-4, atol=1e-4)
    table = halves.split_half_reliability(pipeline, counts=(6, 12), block=6, n_splits=3)
    assert (table["low"] <= table["mean"] + 1e-12).all()
    assert set(table["n"]) == {6, 12}
    by = table.set_index(["measure", "n", "language"])["mean"]
    assert by["spearman"].between(-1, 1).all() and by["jaccard"].dropna().between(0, 1).all()
    with pytest.raises(ValueError, match="multiples"):
        halves.split_half_reliability(pipeline, counts=(7,), block=6)


def test_parts_share_no_block_and_grow() -> None:
    own = blocks()
    small, large = halves.dealt(own, 2, [1, 3], split=4)
    whole = StreamingMoments((2, 40))
    for block in own["en"]:
        whole.merge(block)
    order = np.random.default_rng(4).permutation(6)
    torch.testing.assert_close(small["en"][1], own["en"][order[1]].kurtosis())
    for number in (0, 1):
        part = StreamingMoments((2, 40))
        for i in order[number::2]:
            part.merge(own["en"][i])
        torch.testing.assert_close(large["en"][number], part.kurtosis())
    with pytest.raises(ValueError, match=r"3 parts of .* cannot be dealt from 6 blocks"):
        list(halves.dealt(own, 3, [1, 3], split=0))


def test_parts_hold_as_many_whole_blocks_as_fit() -> None:
    own = blocks(n=7)
    assert halves.blocks_per_part(own, 3) == 2
    splits = halves.parts(own, 3, n_splits=2)
    assert [len(split["zh"]) for split in splits] == [3, 3]
    first = splits[0]["zh"][0]
    torch.testing.assert_close(first.mean(1), torch.zeros(2, dtype=first.dtype), atol=1e-6, rtol=0)
    assert not torch.equal(first, splits[1]["zh"][0])


def made_up() -> list[halves.Parts]:
    """Two parts of each language that agree within it and are each other's reverse between them."""
    up = torch.arange(8.0).repeat(2, 1) / 4
    return [{"en": [up, up], "zh": [-up, -up]}, {"en": [up, -up], "zh": [-up, up]}]


def test_agreement_goes_from_first_to_second_parts() -> None:
    table = halves.halves_agreement(made_up())
    by = table.set_index(["split", "a", "b"])["rho"]
    assert by.round(6).to_dict() == {
        (0, "en", "en"): 1, (0, "en", "zh"): -1, (0, "zh", "en"): -1, (0, "zh", "zh"): 1,
        (1, "en", "en"): -1, (1, "en", "zh"): 1, (1, "zh", "en"): 1, (1, "zh", "zh"): -1,
    }  # fmt: skip
    matrix = halves.between_languages({"en": made_up()[0]["en"][0], "zh": made_up()[0]["zh"][0]})
    assert matrix.round(6).to_dict() == {"en": {"en": 1, "zh": -1}, "zh": {"en": -1, "zh": 1}}


def test_what_two_parts_select() -> None:
    table = halves.selected_again(made_up(), threshold=1.0).set_index("language")
    # en: 3 of 8 neurons a layer in part A; the same in B of the first split, none in the second.
    assert table.loc["en"].to_dict() == {
        "first": 6, "second": 3, "both": 3, "jaccard": 0.5, "chance": 2 * 9 / 8 / 2,
    }  # fmt: skip
    assert table.loc["zh", "first"] == 0


def test_parts_of_one_language_can_pose_as_languages() -> None:
    table = halves.without_languages(made_up(), threshold=1.0).set_index("language")
    assert table.index.tolist() == ["", "en", "zh"]
    assert table.loc[""].to_dict() == {"selected": 3, "low": 3, "high": 3}
    # Equal parts keep each other out; opposite ones do not.
    assert table.loc["en"].to_dict() == {"selected": 1.5, "low": 0, "high": 3}


def test_chance_is_what_random_sets_have() -> None:
    a = NeuronSet.from_pairs([(0, i) for i in range(30)] + [(1, 0)], (2, 100))
    b = NeuronSet.from_pairs([(0, i) for i in range(50, 70)], (2, 100))
    jaccard, chance = halves.compared(a, b)
    assert jaccard == 0
    assert chance == pytest.approx(6 / 45)
    drawn = []
    rng = np.random.default_rng(0)
    for _ in range(400):
        pairs = [(0, int(i)) for i in rng.choice(100, 20, replace=False)]
        drawn.append(overlap(a, NeuronSet.from_pairs(pairs, (2, 100))).jaccard)
    assert np.mean(drawn) == pytest.approx(chance, abs=0.01)
    empty = NeuronSet.empty((2, 100))
    assert all(math.isnan(v) for v in halves.compared(empty, empty))
