"""Neuron sets, normalisation within layers and the selection rules (paper §3.3)."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom, zscore

from crane_core.selection import (
    LAPE_LANGUAGES,
    NORMALISATIONS,
    NeuronSet,
    SelectionWarning,
    jaccard,
    margins,
    normalise,
    overlap,
    save_lape_file,
    select,
)

SHAPE = {"intermediate": (3, 6), "gate": (3, 6), "up": (3, 6), "down": (3, 4)}
LAPE_FILE = Path(__file__).resolve().parents[3] / "shared/reference/lape/LLaMA-2-7B.neuron.pth"

neuron_pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=18)


def ranked(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# --- NeuronSet ------------------------------------------------------------------------------


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


# --- files ----------------------------------------------------------------------------------


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


@settings(max_examples=10, deadline=None)
@given(neuron_pairs)
def test_json_round_trip(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("sets") / "set.json"
    neurons = NeuronSet.from_pairs(pairs, SHAPE) | NeuronSet.from_pairs([(1, 3)], SHAPE, "down")
    neurons.to_json(path)
    assert NeuronSet.from_json(path) == neurons
    assert json.loads(path.read_text())["neurons"]["down"] == [[1, 3]]


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"shape": {"intermediate": [3, 6]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [[3, 0]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"gate": [[0, 0]]}}',
        '{"shape": {"intermediate": [3, 6]}, "neurons": {"intermediate": [0, 1]}}',
    ],
)
def test_json_that_is_no_neuron_set(tmp_path, text):
    path = tmp_path / "set.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no neuron set; expected"):
        NeuronSet.from_json(path)


def test_lape_files_round_trip(tmp_path):
    path = tmp_path / "sets.pth"
    sets = {
        "en": NeuronSet.from_pairs([(0, 1), (2, 5)], SHAPE),
        "zh": NeuronSet.empty(SHAPE),
        "vi": NeuronSet.from_pairs([(1, 0)], SHAPE),
    }
    save_lape_file(sets, path)
    content = torch.load(path, weights_only=True)
    assert [[row.tolist() for row in layers] for layers in content] == [
        [[1], [], [5]],
        [[], [], []],
        [[], [0], []],
    ]
    assert content[0][0].dtype == torch.long
    assert NeuronSet.from_lape_file(path, ["en", "zh", "vi"], shape=SHAPE) == sets
    assert NeuronSet.from_lape_file(path, 2, shape=SHAPE) == sets["vi"]
    sets["en"].to_lape_file(path)
    assert NeuronSet.from_lape_file(path, ["en"], shape=SHAPE) == {"en": sets["en"]}


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
    with pytest.raises(ValueError, match="read safely"):
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


# --- normalise ------------------------------------------------------------------------------


def test_zscore_is_scipys_within_each_layer():
    k = torch.rand(4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    k[1, 7] = k[3, 0] = torch.nan
    expected = torch.from_numpy(zscore(k.numpy(), axis=1, nan_policy="omit"))
    torch.testing.assert_close(normalise(k), expected, rtol=1e-10, atol=1e-10, equal_nan=True)
    flat = torch.from_numpy(zscore(k.numpy(), axis=None, nan_policy="omit"))
    torch.testing.assert_close(normalise(k, "global"), flat, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_ratio_and_robust_by_hand():
    k = ranked([1, 2, 3, 4, 90, torch.nan], [5, 5, 5, 5, 5, torch.nan], [2, 2, 2, 2, 7, torch.nan])
    ratio = normalise(k, "ratio")
    assert ratio[0, :5].tolist() == pytest.approx([0.05, 0.1, 0.15, 0.2, 4.5])
    assert ratio[1, :5].tolist() == [1.0] * 5
    robust = normalise(k, "robust")
    # Median 3, median absolute deviation 1.
    assert robust[0, :5].tolist() == pytest.approx([x / 1.4826 for x in (-2, -1, 0, 1, 87)])
    assert robust[1, :5].tolist() == [0.0] * 5
    # Median absolute deviation 0: the mean absolute deviation is 1.
    assert robust[2, :5].tolist() == pytest.approx([0, 0, 0, 0, 5 / 1.2533])
    assert ratio[:, 5].isnan().all() and robust[:, 5].isnan().all()


@pytest.mark.parametrize("how", NORMALISATIONS)
def test_degenerate_layers(how):
    k = torch.full((3, 4), 3.1, dtype=torch.float64)
    k[1] = torch.nan
    scores = normalise(k, how)
    assert scores[1].isnan().all()
    assert scores[0].tolist() == [1.0 if how == "ratio" else 0.0] * 4


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NORMALISATIONS), st.integers(0, 100))
def test_normalisation_keeps_the_order_within_a_layer(how, seed):
    k = torch.rand(3, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1
    assert torch.equal(k.argsort(dim=1), normalise(k, how).argsort(dim=1))
    if how not in ("global", "ratio"):  # a layer's own scale and level drop out
        scaled = k * torch.tensor([[1.0], [10.0], [200.0]]) + 5
        torch.testing.assert_close(normalise(scaled, how), normalise(k, how))


def test_each_projection_site_is_normalised_on_its_own():
    k = {"gate": torch.rand(3, 6), "down": torch.rand(3, 4) * 50}
    scores = normalise(k)
    for site in k:
        assert torch.equal(scores[site], normalise(k[site]))


def test_wrong_kurtosis():
    with pytest.raises(ValueError, match="'zscore', 'ratio', 'robust', 'global'"):
        normalise(torch.rand(2, 3), "minmax")
    with pytest.raises(ValueError, match=r"\(3,\)"):
        normalise(torch.rand(3))
    k = torch.rand(2, 3)
    k[1, 2] = torch.inf
    with pytest.raises(ValueError, match="layer 1, neuron 2"):
        normalise({"up": k})


# --- select ---------------------------------------------------------------------------------

SCORES = {
    "en": ranked([2.0, 3.0, 0.5, 2.5], [1.0, 1.5, 9.0, -1.0]),
    "zh": ranked([0.0, 2.0, 0.0, 1.0], [0.0, 1.0, torch.nan, 5.0]),
    "vi": ranked([1.0, 0.0, 0.0, -3.0], [0.0, 0.9, 0.0, 6.0]),
}


def test_contrast_is_figure_3s_lower_right():
    assert list(select(SCORES, "en")) == [(0, 0), (0, 3), (1, 1)]
    assert list(select(SCORES, "en", threshold=2.2)) == [(0, 1), (0, 3)]


def test_threshold_looks_at_the_target_alone():
    assert list(select(SCORES, "en", "threshold")) == [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2)]


def test_top_takes_the_budget_whatever_the_threshold():
    assert list(select(SCORES, "en", "top", budget=2)) == [(0, 1), (1, 2)]
    assert list(select(SCORES, "zh", "top", threshold=100, budget=2)) == [(0, 1), (1, 3)]


def test_a_budget_keeps_the_best_that_qualify():
    # Margins of the three that qualify: 1.0, 1.5 and 0.5.
    assert list(select(SCORES, "en", budget=1)) == [(0, 3)]
    assert list(select(SCORES, "en", budget=2)) == [(0, 0), (0, 3)]
    assert list(select(SCORES, "en", "threshold", budget=2)) == [(0, 1), (1, 2)]
    with pytest.warns(SelectionWarning, match="only 3 neurons"):
        assert len(select(SCORES, "en", budget=5)) == 3


def test_ties_go_to_the_lower_neuron():
    scores = {"en": torch.full((2, 5), 2.0), "zh": torch.zeros(2, 5)}
    for rule in ("top", "contrast", "threshold"):
        assert list(select(scores, "en", rule, budget=3)) == [(0, 0), (0, 1), (0, 2)]


def random_scores(seed, sites=("intermediate",)):
    generator = torch.Generator().manual_seed(seed)
    scores = {
        language: {
            site: torch.randn(3, 8, generator=generator, dtype=torch.float64) * 2 for site in sites
        }
        for language in ("en", "zh", "vi")
    }
    for language in scores:
        scores[language][sites[0]][1, 2] = torch.nan
    return scores


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.5))
@pytest.mark.filterwarnings("ignore::crane_core.selection.SelectionWarning")
def test_the_rules_against_their_definitions(seed, threshold):
    scores = {language: s["intermediate"] for language, s in random_scores(seed).items()}
    sets = {target: select(scores, target, threshold=threshold) for target in scores}
    for target, neurons in sets.items():
        for layer in range(3):
            for i in range(8):
                own = scores[target][layer, i]
                rest = [scores[x][layer, i] for x in scores if x != target]
                assert ((layer, i) in neurons) == (own > threshold and max(rest) <= threshold)
        assert neurons & select(scores, target, "threshold", threshold) == neurons
    assert not (sets["en"] & sets["zh"]) and not (sets["zh"] & sets["vi"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 47))
@pytest.mark.filterwarnings("ignore::crane_core.selection.SelectionWarning")
def test_top_shares_its_budget_over_projection_sites(seed, budget):
    scores = random_scores(seed, ("gate", "down"))
    neurons = select(scores, "zh", "top", budget=budget)
    assert len(neurons) == budget
    values = {
        (site, layer, i): scores["zh"][site][layer, i].item()
        for site in ("gate", "down")
        for layer in range(3)
        for i in range(8)
    }
    masks = neurons.masks
    chosen = {key for key in values if masks[key[0]][key[1:]]}
    rest = [v for key, v in values.items() if key not in chosen and v == v]
    assert min(values[key] for key in chosen) >= max(rest, default=-100)
    bigger = select(scores, "zh", "top", budget=min(budget + 1, 47))
    assert neurons & bigger == neurons


def test_the_set_carries_the_models_shape_if_given():
    scores = {language: torch.randn(3, 6) * 3 for language in ("en", "zh")}
    neurons = select(scores, "en", "top", budget=4, shape=SHAPE)
    assert dict(neurons.shape) == SHAPE and neurons.sites == ("intermediate",)
    assert dict(select(scores, "en", "top", budget=4).shape) == {"intermediate": (3, 6)}
    with pytest.raises(ValueError, match="different models"):
        select(scores, "en", "top", budget=4, shape={"intermediate": (3, 7)})
    with pytest.raises(ValueError, match="'down', which the shape lacks"):
        select(
            {"en": {"gate": torch.randn(3, 6), "down": torch.randn(3, 6)}},
            "en",
            "top",
            budget=1,
            shape={"gate": (3, 6)},
        )


def test_margins_are_figure_3s_axes():
    own, others = margins(SCORES, "en")
    assert own is SCORES["en"]
    expected = ranked([1.0, 2.0, 0.0, 1.0], [0.0, 1.0, torch.nan, 6.0])
    torch.testing.assert_close(others, expected, equal_nan=True)


def test_empty_and_whole_layers_warn():
    with pytest.warns(SelectionWarning, match="no neuron selected for 'en'"):
        assert len(select(SCORES, "en", threshold=50)) == 0
    with pytest.warns(SelectionWarning, match="no neuron selected"):
        assert len(select(SCORES, "en", "top", budget=0)) == 0
    with pytest.warns(SelectionWarning, match=r"all neurons of site 'intermediate', layer \[0\]"):
        select({"en": ranked([2, 2], [2, 0]), "zh": ranked([0, 0], [0, 0])}, "en")


def test_wrong_selections():
    with pytest.raises(ValueError, match="'contrast', 'threshold', 'top'"):
        select(SCORES, "en", "best")
    with pytest.raises(ValueError, match="'fr': there are 'en', 'zh', 'vi'"):
        select(SCORES, "fr")
    with pytest.raises(ValueError, match="needs a budget"):
        select(SCORES, "en", "top")
    for rule in ("top", "contrast"):
        with pytest.raises(ValueError, match="budget 9 is larger than the 8"):
            select(SCORES, "en", rule, budget=9)
        with pytest.raises(ValueError, match="budget is -1"):
            select(SCORES, "en", rule, budget=-1)
        for budget in (2.0, True, "3"):
            with pytest.raises(TypeError, match="whole number"):
                select(SCORES, "en", rule, budget=budget)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7 neurons that have a score"):
        select(SCORES, "zh", "top", budget=8)
    with pytest.raises(ValueError, match="at least two languages"):
        select({"en": SCORES["en"]}, "en")
    with pytest.raises(ValueError, match="threshold is NaN"):
        select(SCORES, "en", threshold=float("nan"))
    with pytest.raises(ValueError, match="'zh' have sizes"):
        select({"en": torch.zeros(2, 3), "zh": torch.zeros(2, 4)}, "en")


# --- overlap --------------------------------------------------------------------------------


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
