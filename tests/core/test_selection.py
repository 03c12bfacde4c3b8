"""Normalisation within layers and the selection rules (paper §3.3)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import zscore

from crane_core.selection import (
    NORMALISATIONS,
    SelectionWarning,
    margins,
    normalise,
    relative_contrast,
    select,
)

SHAPE = {"intermediate": (3, 6), "gate": (3, 6), "up": (3, 6), "down": (3, 4)}


def ranked(*rows):
    return torch.tensor(rows, dtype=torch.float64)


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


AMOUNTS = {
    "en": torch.tensor([[4.0, 0.0, 1.0, 0.01], [2.0, 2.0, 2.0, 2.0]]),
    "zh": torch.tensor([[1.0, 0.0, 3.0, 0.0], [1.0, 2.0, 0.0, 3.0]]),
}


def test_a_relative_contrast_is_a_share_of_all_languages():
    found = relative_contrast(AMOUNTS, "en", floor=0)
    assert torch.allclose(found[0], torch.tensor([0.6, 0.0, -0.5, 1.0]))
    # Next to nothing is held against the lower middle of the layer's sums, 0, 0.01, 4 and 5.
    assert relative_contrast(AMOUNTS, "en", floor=0.75)[0, 3] == pytest.approx(0.01 / 4)
    for x in AMOUNTS:
        assert relative_contrast(AMOUNTS, x).abs().max() <= 1


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**16))
def test_a_relative_contrast_knows_no_unit_and_no_layer(scale, seed):
    generator = torch.Generator().manual_seed(seed)
    amounts = {x: torch.rand((2, 9), generator=generator, dtype=torch.float64) for x in "abc"}
    wanted = relative_contrast(amounts, "b")
    scaled = {x: own * torch.tensor([[scale], [1.0]]) for x, own in amounts.items()}
    assert torch.allclose(relative_contrast(scaled, "b"), wanted)


def test_relative_takes_the_largest_shares_above_zero():
    assert list(select(AMOUNTS, "en", "relative", budget=2)) == [(0, 3), (1, 2)]
    assert (0, 0) in select(AMOUNTS, "en", "relative", budget=3)
    with pytest.warns(SelectionWarning, match="finds only"):
        assert set(select(AMOUNTS, "zh", "relative", budget=8)) == {(0, 2), (1, 3)}
    undefined = {**AMOUNTS, "zh": AMOUNTS["zh"].clone().fill_(torch.nan)}
    with pytest.warns(SelectionWarning, match="no neuron"):
        assert not len(select(undefined, "en", "relative", budget=0))


def test_relative_needs_amounts_and_a_budget():
    with pytest.raises(ValueError, match=r"least amount -1: .* amounts of 0 or more"):
        select({x: v - 1 for x, v in AMOUNTS.items()}, "en", "relative", budget=1)
    with pytest.raises(ValueError, match="'relative' needs a budget"):
        select(AMOUNTS, "en", "relative")
    with pytest.raises(ValueError, match="floor is 2"):
        relative_contrast(AMOUNTS, "en", floor=2)
    with pytest.raises(ValueError, match="another language"):
        relative_contrast({"en": AMOUNTS["en"]}, "en")
