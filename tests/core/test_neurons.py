"""Neuron sets: made, combined, kept in files, compared with chance (paper §3.1)."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import hypergeom

from crane_core.neurons import LAPE_LANGUAGES, NeuronSet, jaccard, overlap

LAPE_FILE = Path(__file__).resolve().parents[3] / "shared/reference/lape/LLaMA-2-7B.neuron.pth"
SHAPE = {"intermediate": (3, 6), "gate": (3, 6), "up": (3, 6), "down": (3, 4)}


neuron_pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=18)


@given(neuron_pairs, neuron_pairs)
def test_a_set_behaves_like_a_python_set_of_pairs(a, b):
    x, y = NeuronSet.from_pairs(a, SHAPE), NeuronSet.from_pairs(b, SHAPE)
    assert list(x) == sorted(set(a))
    assert len(x) == len(set(a))
    assert set(x & y) == set(a) & set(b)
    assert set(x | y) == set(a) | set(b)
    assert set(x - y) == set(a) - set(b)
    assert (x == y) == (set(a) == set(b))
    assert all(pair in x for pair in a)
    assert x.counts().tolist() == [sum(layer == i for layer, _ in set(a)) for i in range(3)]
    if x == y:
        assert hash(x) == hash(y) and x.digest() == y.digest()
    else:
        assert x.digest() != y.digest()


def test_projection_sites_iterate_as_triples_and_count_together():
    x = NeuronSet.from_pairs([(2, 3), (0, 1)], SHAPE, site="down")
    y = NeuronSet.from_pairs([(0, 5)], SHAPE, site="gate")
    both = x | y
    assert list(both) == [("gate", 0, 5), ("down", 0, 1), ("down", 2, 3)]
    assert both.sites == ("gate", "down")
    assert both.counts().tolist() == [2, 0, 1]
    assert both.counts("down").tolist() == [1, 0, 1]
    assert both.pairs("up") == []
    assert len(both) == 3 and not NeuronSet.empty(SHAPE)


def test_immutable():
    mask = torch.zeros(3, 6, dtype=torch.bool)
    neurons = NeuronSet({"intermediate": mask}, SHAPE)
    mask[0, 0] = True
    neurons.mask()[1, 1] = True
    neurons.masks["intermediate"][2, 2] = True
    assert len(neurons) == 0
    with pytest.raises(AttributeError, match="immutable"):
        neurons._masks = {}
    with pytest.raises(AttributeError, match="immutable"):
        del neurons._masks
    with pytest.raises(TypeError):
        neurons.shape["gate"] = (1, 1)  # type: ignore[index]
    assert copy.deepcopy(neurons) == neurons


def test_sets_of_different_models_do_not_mix():
    a, b = NeuronSet.from_pairs([(0, 0)], (3, 6)), NeuronSet.from_pairs([(0, 0)], (3, 7))
    assert a != b and a != 3
    for operation in ("__and__", "__or__", "__sub__"):
        with pytest.raises(ValueError, match=r"\(3, 6\).*\(3, 7\)"):
            getattr(a, operation)(b)
    with pytest.raises(ValueError, match="different models"):
        overlap(a, b)
    with pytest.raises(ValueError, match="different models"):
        b.require_shape(SHAPE)
    with pytest.raises(ValueError, match="sites"):
        NeuronSet.empty({"gate": (3, 6)}) | NeuronSet.empty({"up": (3, 6)})
    a.require_shape(SHAPE)


def test_a_set_that_knows_fewer_sites_joins_one_that_knows_more():
    few = NeuronSet.from_pairs([(0, 1)], (3, 6))
    joined = few | NeuronSet.from_pairs([(2, 2)], SHAPE, site="down")
    assert dict(joined.shape) == SHAPE
    assert list(joined) == [("intermediate", 0, 1), ("down", 2, 2)]


def test_wrong_masks_and_pairs():
    with pytest.raises(ValueError, match="unknown site 'attention'"):
        NeuronSet({}, {"attention": (3, 6)})
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(3, 6\)"):
        NeuronSet({"gate": torch.zeros(3, 5, dtype=torch.bool)}, SHAPE)
    with pytest.raises(TypeError, match="int64"):
        NeuronSet({"gate": torch.zeros(3, 6, dtype=torch.long)}, SHAPE)
    with pytest.raises(ValueError, match="the shape knows 'intermediate'"):
        NeuronSet({"gate": torch.zeros(3, 6, dtype=torch.bool)}, (3, 6))
    with pytest.raises(ValueError, match="positive"):
        NeuronSet({}, (3, 0))
    for pair in [(3, 0), (0, 6), (-1, 0)]:
        with pytest.raises(ValueError, match=r"outside .* 3 layers of 6"):
            NeuronSet.from_pairs([(0, 0), pair], SHAPE)
    with pytest.raises(ValueError, match="'gate' is not in"):
        NeuronSet.from_pairs([], {"up": (3, 6)}, site="gate")
    with pytest.raises(ValueError, match="'gate' is not in"):
        NeuronSet.empty((3, 6)).counts("gate")


@settings(max_examples=10, deadline=None)
@given(neuron_pairs)
def test_save_and_load(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("sets") / "set.safetensors"
    neurons = NeuronSet.from_pairs(pairs, SHAPE) | NeuronSet.from_pairs([(1, 3)], SHAPE, "down")
    neurons.save(path)
    neurons.save(path)  # over itself
    assert NeuronSet.load(path) == neurons
    assert os.listdir(path.parent) == [path.name]


def test_damaged_or_foreign_files(tmp_path):
    path = tmp_path / "set.safetensors"
    with pytest.raises(FileNotFoundError, match="no neuron file"):
        NeuronSet.load(path)
    NeuronSet.empty(SHAPE).save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="no readable safetensors"):
        NeuronSet.load(path)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds no neuron set"):
        NeuronSet.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "set.safetensors"
    old = NeuronSet.from_pairs([(0, 0)], SHAPE)
    old.save(path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        NeuronSet.empty(SHAPE).save(path)
    monkeypatch.undo()
    assert NeuronSet.load(path) == old
    assert os.listdir(tmp_path) == [path.name]


def test_whole_numbers_only():
    rows = torch.tensor([[0, 1], [2, 5]])
    assert list(NeuronSet.from_pairs(rows, (3, 6))) == [(0, 1), (2, 5)]
    assert list(NeuronSet.from_pairs(rows.numpy(), (3, 6))) == [(0, 1), (2, 5)]
    wrong: list[Any] = [[(0, 1.0)], [(0, True)], [("0", "1")], rows.float(), [(0, 1, 2)]]
    for pairs in wrong:
        with pytest.raises(ValueError, match="is no neuron: expected two whole numbers"):
            NeuronSet.from_pairs(pairs, (3, 6))
    wrong = [[0.5], [True], torch.tensor([1.0])]
    for indices in wrong:
        with pytest.raises(ValueError, match="expected whole numbers"):
            NeuronSet.from_flat(indices, (3, 6))
    assert len(NeuronSet.from_flat([], (3, 6))) == 0


def test_a_shape_that_is_not_its_masks(tmp_path):
    path = tmp_path / "set.safetensors"
    for shape in ("{", "[3]", '{"intermediate": [3, 7]}', '{"intermediate": 3}'):
        save_file({"intermediate": torch.zeros(3, 6).bool()}, path, {"crane_core.NeuronSet": shape})
        with pytest.raises(ValueError, match="no neuron set that fits its shape"):
            NeuronSet.load(path)
    save_file({"intermediate": torch.zeros(3, 6)}, path, {"crane_core.NeuronSet": "[3, 6]"})
    with pytest.raises(ValueError, match="expected a bool tensor"):
        NeuronSet.load(path)


def test_overlap_beside_chance():
    a = NeuronSet.from_pairs([(0, 0), (0, 1), (1, 0)], SHAPE)
    b = NeuronSet.from_pairs([(0, 0), (0, 2), (2, 0), (2, 1)], SHAPE)
    result = overlap(a, b)
    assert result.shared == 1
    assert result.jaccard == jaccard(a, b) == 1 / 6
    assert result.expected == pytest.approx(3 * 4 / 18)
    assert result.expected_within_layers == pytest.approx(2 * 2 / 6)
    assert result.p_value == pytest.approx(1 - hypergeom.pmf(0, 18, 3, 4))
    empty = NeuronSet.empty(SHAPE)
    assert overlap(a, empty).expected == 0 and jaccard(empty, empty) != jaccard(empty, empty)


def test_expected_overlap_is_the_mean_over_random_sets():
    a = torch.zeros(3, 6, dtype=torch.bool)
    a[0, :4] = a[1, 2] = True
    counts, shared = [3, 2, 1], 0
    generator = torch.Generator().manual_seed(0)
    draws = 3000
    for layer, count in enumerate(counts):
        picks = torch.rand(draws, 6, generator=generator).argsort(dim=1)[:, :count]
        shared += int(a[layer][picks].sum())
    b = NeuronSet.from_pairs([(i, j) for i in range(3) for j in range(counts[i])], SHAPE)
    expected = overlap(NeuronSet({"intermediate": a}, SHAPE), b).expected_within_layers
    assert shared / draws == pytest.approx(expected, rel=0.03)


@given(st.lists(st.integers(0, 17), max_size=30))
def test_flat_indices(indices):
    neurons = NeuronSet.from_flat(torch.tensor(indices, dtype=torch.long), SHAPE)
    assert list(neurons) == sorted({divmod(index, 6) for index in indices})
    assert neurons == NeuronSet.from_flat(indices, SHAPE) and neurons.shape == SHAPE


def test_flat_indices_of_a_projection_and_wrong_ones():
    neurons = NeuronSet.from_flat([11, 0], SHAPE, "down")
    assert list(neurons) == [("down", 0, 0), ("down", 2, 3)]
    assert NeuronSet.from_flat([17], (3, 6)) == NeuronSet.from_pairs([(2, 5)], (3, 6))
    with pytest.raises(ValueError, match="index 12 lies outside site 'down', which has 12"):
        NeuronSet.from_flat([3, 12], SHAPE, "down")
    with pytest.raises(ValueError, match="index -1 lies outside"):
        NeuronSet.from_flat([-1], SHAPE)
    with pytest.raises(ValueError, match="site 'up' is not in the shape"):
        NeuronSet.from_flat([1], {"gate": (3, 6)}, "up")


def test_lape_files_round_trip(tmp_path):
    path = tmp_path / "set.pth"
    neurons = NeuronSet.from_pairs([(0, 1), (2, 5)], SHAPE)
    neurons.to_lape_file(path)
    content = torch.load(path, weights_only=True)
    assert [[row.tolist() for row in layers] for layers in content] == [[[1], [], [5]]]
    assert content[0][0].dtype == torch.long
    assert NeuronSet.from_lape_file(path, 0, shape=SHAPE) == neurons
    assert NeuronSet.from_lape_file(path, ["en"], shape=SHAPE) == {"en": neurons}


def test_lape_files_that_do_not_fit(tmp_path):
    path = tmp_path / "sets.pth"
    with pytest.raises(FileNotFoundError):
        NeuronSet.from_lape_file(path, shape=SHAPE)
    NeuronSet.from_pairs([(0, 5)], SHAPE).to_lape_file(path)
    with pytest.raises(ValueError, match="holds 1 languages, but 7"):
        NeuronSet.from_lape_file(path, shape=SHAPE)
    with pytest.raises(ValueError, match="language index 1"):
        NeuronSet.from_lape_file(path, 1, shape=SHAPE)
    with pytest.raises(ValueError, match="3 layers, but the model has 2"):
        NeuronSet.from_lape_file(path, 0, shape=(2, 6))
    with pytest.raises(ValueError, match="outside"):
        NeuronSet.from_lape_file(path, 0, shape=(3, 5))
    torch.save({"en": 1}, path)
    with pytest.raises(ValueError, match="not in LAPE's format"):
        NeuronSet.from_lape_file(path, 0, shape=SHAPE)
    path.write_bytes(b"no file of torch")
    with pytest.raises(ValueError, match="safely"):
        NeuronSet.from_lape_file(path, 0, shape=SHAPE)
    with pytest.raises(ValueError, match=r"intermediate neurons only.*'down'"):
        NeuronSet.from_pairs([(0, 0)], SHAPE, "down").to_lape_file(path)


@pytest.mark.skipif(not LAPE_FILE.exists(), reason="LAPE's released file is not on this machine")
def test_lapes_released_sets():
    sets = NeuronSet.from_lape_file(LAPE_FILE, shape=(32, 11008))
    assert tuple(sets) == LAPE_LANGUAGES
    assert {x: len(sets[x]) for x in ("en", "zh", "vi")} == {
        "en": 95,
        "zh": 583,
        "vi": 836,
    }
    # The released README gives these three as an example.
    assert [neuron for layer, neuron in sets["zh"] if layer == 4] == [6147, 9114, 9292]
