"""LAPE, Act Prob 90p and random sets (paper §4.2)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_core.baselines import (
    act_prob_90p,
    lape,
    lape_matched,
    random_matched,
)
from crane_core.families import shape
from crane_core.neurons import NeuronSet
from crane_core.selection import SelectionWarning

quiet = pytest.mark.filterwarnings("ignore::crane_core.selection.SelectionWarning")


def random_counts(seed, layers=4, width=40, languages=("en", "zh", "vi"), tokens=1_000_003):
    rng = np.random.default_rng(seed)
    n = {language: tokens + 7 * i for i, language in enumerate(languages)}
    shares = rng.beta(0.3, 2, size=(len(languages), layers, width))
    shares[:, 0, :3] = 0  # never active
    counts = {x: torch.from_numpy((s * n[x]).astype(int)) for x, s in zip(n, shares, strict=True)}
    return counts, n


def naive_lape(over_zero, n, top_rate, filter_rate, bar_ratio):
    """The published procedure, one neuron at a time."""
    languages = list(over_zero)
    layers, width = over_zero[languages[0]].shape
    p = {
        (i, j): [over_zero[x][i, j].item() / n[x] for x in languages]
        for i in range(layers)
        for j in range(width)
    }
    values = sorted(v for row in p.values() for v in row)
    floor = values[round(len(values) * filter_rate) - 1]
    bar = values[round(len(values) * bar_ratio) - 1]

    def entropy(row):
        if max(row) <= floor:
            return math.inf
        return round(-sum(v / sum(row) * math.log(v / sum(row)) for v in row if v > 0), 12)

    ranked = sorted(p, key=lambda key: (entropy(p[key]), key))[: round(len(p) * top_rate)]
    return {x: {key for key in ranked if p[key][k] > bar} for k, x in enumerate(languages)}


@quiet
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(0.01, 0.95, 0.95), (0.05, 0.95, 0.9), (0.2, 0.8, 0.95), (1.0, 0.5, 0.5)]),
)
def test_lape_is_the_published_procedure(seed, rates):
    counts, n = random_counts(seed)
    sets = lape(counts, n, rates[0], rates[1], rates[2])
    assert {x: set(s) for x, s in sets.items()} == naive_lape(
        counts, n, rates[0], rates[1], rates[2]
    )


def test_lape_by_hand():
    # Four neurons of one layer, 10 tokens each; both quantiles lie at a probability of 0.1.
    counts = {
        "en": torch.tensor([[1, 6, 9, 8]]),
        "zh": torch.tensor([[0, 6, 0, 8]]),
    }
    sets = lape(
        counts, {"en": 10, "zh": 10}, top_rate=0.5, filter_rate=3 / 8, activation_bar_ratio=3 / 8
    )
    # Neuron 0 is as one-sided as neuron 2 but fails the filter; neurons 1 and 3 tie.
    assert list(sets["en"]) == [(0, 1), (0, 2)]
    assert list(sets["zh"]) == [(0, 1)]


@quiet
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.3))
def test_matched_to_lapes_own_counts_is_lape(seed, top_rate):
    counts, n = random_counts(seed)
    sets = lape(counts, n, top_rate)
    assert lape_matched(counts, n, {x: len(s) for x, s in sets.items()}) == sets


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 160), min_size=2, max_size=6))
def test_matched_counts_are_met_exactly_and_nested(seed, wanted):
    counts, n = random_counts(seed)
    previous = NeuronSet.empty((4, 40))
    for count in sorted(wanted):
        sets = lape_matched(counts, n, {"vi": count})
        assert list(sets) == ["vi"]
        assert len(sets["vi"]) == count
        assert previous & sets["vi"] == previous
        previous = sets["vi"]


def test_matched_relaxes_bar_then_filter_and_leaves_the_dead_for_last():
    counts, n = random_counts(3)
    p = torch.stack([counts[x] / n[x] for x in counts], dim=-1).double()
    level = p.flatten().sort().values[round(p.numel() * 0.95) - 1]
    passes = (p > level).any(dim=-1)
    mine = p.argmax(dim=-1) == 1
    dead = p.sum(dim=-1) == 0
    tiers = [passes & (p[..., 1] > level), passes & mine, mine & ~dead, ~dead, dead | ~dead]
    taken = torch.zeros_like(mine)
    for tier in tiers:
        taken |= tier
        assert torch.equal(lape_matched(counts, n, {"zh": int(taken.sum())})["zh"].mask(), taken)


def test_lape_warns_about_a_language_without_neurons():
    counts = {"en": torch.tensor([[9, 8, 1, 8]]), "zh": torch.zeros(1, 4, dtype=torch.long)}
    with pytest.warns(SelectionWarning, match="no neuron for 'zh'"):
        sets = lape(
            counts, {"en": 10, "zh": 10}, top_rate=0.5, filter_rate=0.5, activation_bar_ratio=0.5
        )
    assert len(sets["zh"]) == 0 < len(sets["en"])


def test_sets_carry_the_models_shape(tiny_llama):
    size = shape(tiny_llama)
    counts, n = random_counts(0, *size["intermediate"])
    for sets in (
        lape(counts, n, 0.2, shape=size),
        lape_matched(counts, n, {"en": 3}, shape=size),
        act_prob_90p(counts, n, shape=size),
    ):
        assert dict(sets["en"].shape) == size
    with pytest.raises(ValueError, match="size"):
        lape(counts, n, 0.2, shape=(2, 2))  # type: ignore[arg-type]


def test_wrong_counts():
    counts, n = random_counts(0)
    with pytest.raises(ValueError, match="same languages"):
        lape(counts, {"en": 10})
    with pytest.raises(ValueError, match="at least 2"):
        lape({"en": counts["en"]}, {"en": n["en"]})
    with pytest.raises(ValueError, match="'zh' have shape"):
        lape({**counts, "zh": torch.zeros(4, 41)}, n)
    with pytest.raises(ValueError, match="does not fit its 5 tokens"):
        lape(counts, {**n, "vi": 5})
    for name in ("top_rate", "filter_rate", "activation_bar_ratio"):
        for rate in (0, 1.5, float("nan")):
            with pytest.raises(ValueError, match=name):
                lape(counts, n, **{name: rate})  # type: ignore[arg-type]
    for function in (lape_matched, act_prob_90p):
        with pytest.raises(ValueError, match="'fr'"):
            function(counts, n, counts={"fr": 1})
        with pytest.raises(ValueError, match="161 neurons wanted for 'en'"):
            function(counts, n, counts={"en": 161})


def test_act_prob_90p_takes_the_most_often_exceeded():
    counts = {"en": torch.tensor([[5, 9], [7, 7]]), "vi": torch.tensor([[80, 10], [20, 90]])}
    n = {"en": 10, "vi": 100}
    sets = act_prob_90p(counts, n, top_rate=0.5)
    assert list(sets["en"]) == [(0, 1), (1, 0)]  # the tie goes to the lower neuron
    assert list(sets["vi"]) == [(0, 0), (1, 1)]
    assert list(act_prob_90p(counts, n, counts={"vi": 1})["vi"]) == [(1, 1)]


# --- random ---------------------------------------------------------------------------------

sizes = {"intermediate": (3, 6), "gate": (3, 6), "up": (3, 6), "down": (3, 4)}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5))),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3))),
    st.integers(0, 2**40),
)
def test_random_sets_match_counts_in_every_layer_and_site(gate, down, seed):
    neurons = NeuronSet.from_pairs(gate, sizes, "gate") | NeuronSet.from_pairs(down, sizes, "down")
    drawn = random_matched(neurons, seed)
    for site in sizes:
        assert torch.equal(drawn.counts(site), neurons.counts(site))
    assert drawn == random_matched(neurons, seed)


def test_random_sets_are_uniform_and_differ_between_seeds():
    neurons = NeuronSet.from_pairs([(0, 0), (0, 1), (2, 4)], (3, 6))
    drawn = torch.stack([random_matched(neurons, seed).mask() for seed in range(2000)])
    frequency = drawn.double().mean(dim=0)
    assert torch.allclose(frequency[0], torch.full((6,), 2 / 6, dtype=torch.float64), atol=0.04)
    assert torch.allclose(frequency[2], torch.full((6,), 1 / 6, dtype=torch.float64), atol=0.04)
    assert frequency[1].sum() == 0


# --- activations ----------------------------------------------------------------------------
