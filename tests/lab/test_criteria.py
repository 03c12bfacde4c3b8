"""Criteria against single ablations: on made-up effects with known answers, and on a tiny Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny_llama
from scipy.stats import spearmanr
from test_pipeline import folder, settings_in
from torch import Tensor
from transformers import LlamaForCausalLM

from crane_core import baselines, models
from crane_core.accumulators import ActiveCounts, LayerValues, Reader, collect
from crane_core.attribution import neuron_relevance
from crane_core.masking import masked
from crane_core.selection import NeuronSet
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.stages import losses
from crane_lab.store import Store
from crane_lab.study import criteria, damage
from crane_lab.study.batch_quantiles import BatchQuantiles
from crane_lab.study.necessity import Estimate, Necessity

__all__ = ["folder"]  # a fixture: the model, corpora and tasks made up in test_pipeline

SIZE = (3, 48)
LANGUAGES = ("en", "zh", "vi")


def made(noise: float = 0.0) -> Necessity:
    """Effects in which a tenth of the neurons matter to one language only, a fifth to all."""
    rng = np.random.default_rng(0)
    effects = {x: np.abs(rng.normal(0, 0.01, SIZE)) for x in LANGUAGES}
    shared = rng.random(SIZE) < 0.2
    for i, x in enumerate(LANGUAGES):
        effects[x][shared] += 5
        effects[x].reshape(-1)[i::30] += 10
    folds = {
        x: torch.from_numpy(e + noise * rng.normal(size=(8, *SIZE))) for x, e in effects.items()
    }
    estimates = {x: Estimate(f.mean(0), torch.full(SIZE, 0.02).double()) for x, f in folds.items()}
    return Necessity({"zero": estimates}, {"zero": folds}, {}, 8, {})


def scored(found: Necessity) -> dict[str, criteria.Score]:
    rng = np.random.default_rng(1)
    return {
        "perfect": {x: found.selectivity(x).value for x in LANGUAGES},
        "opposite": {x: -found.selectivity(x).value for x in LANGUAGES},
        "noise": {x: torch.from_numpy(rng.normal(size=SIZE)) for x in LANGUAGES},
        "constant": {x: torch.zeros(SIZE) for x in LANGUAGES},
    }


def test_contrast_is_against_the_largest_other() -> None:
    score = {"en": torch.tensor([[3.0]]), "zh": torch.tensor([[1.0]]), "vi": torch.tensor([[2.0]])}
    assert {x: v.item() for x, v in criteria.contrasted(score).items()} == {
        "en": 1, "zh": -2, "vi": -1
    }  # fmt: skip
    assert list(criteria.with_contrasts({"a": score})) == ["a", "a, contrast"]


def test_agreement_is_spearmans_with_intervals() -> None:
    found = made(0.05)
    table = criteria.rank_agreement(scored(found), found, reference="noise", n_boot=60)
    row: Any = table.set_index(["criterion", "language", "truth"])
    noise, truth = scored(found)["noise"]["zh"], found.selectivity("zh").value
    expected = spearmanr(noise.flatten(), truth.flatten()).statistic
    assert row.loc[("noise", "zh", "selectivity"), "rho"] == pytest.approx(expected)
    assert row.loc[("perfect", "all", "selectivity"), "rho"] == pytest.approx(1)
    assert row.loc[("opposite", "all", "selectivity"), "rho"] == pytest.approx(-1)
    assert (table.query("criterion == 'constant'")["rho"] == 0).all()
    noise_row = row.loc[("noise", "all", "selectivity")]
    assert noise_row["low"] < 0 < noise_row["high"]
    assert noise_row["ahead"] == noise_row["ahead_low"] == 0
    assert row.loc[("perfect", "en", "selectivity"), "ahead_low"] > 0.3
    mean = table.query("criterion == 'noise' and truth == 'necessity'").set_index("language")["rho"]
    assert mean["all"] == pytest.approx(mean[list(LANGUAGES)].mean())
    again = criteria.rank_agreement(scored(found), found, reference="noise", n_boot=60)
    pd.testing.assert_frame_equal(table, again)


def test_undefined_scores_are_lowest() -> None:
    score = torch.tensor([[1.0, torch.nan, 3.0], [2.0, torch.nan, 2.0]])
    assert criteria.order(score).tolist() == [2, 3, 5, 0, 1, 4]


def test_wrong_criteria_are_refused() -> None:
    found = made()
    with pytest.raises(ValueError, match=r"'x' has scores none for 'zh'"):
        criteria.rank_agreement({"x": {"en": torch.zeros(SIZE)}}, found, n_boot=1)
    with pytest.raises(ValueError, match=r"\(1, 2\) for 'en'"):
        criteria.precision({"x": {x: torch.zeros(1, 2) for x in LANGUAGES}}, found, [4])
    with pytest.raises(ValueError, match="unknown reference"):
        criteria.rank_agreement(scored(found), found, reference="best", n_boot=1)
    with pytest.raises(ValueError, match="expected 1 to 144"):
        criteria.precision(scored(found), found, [145])


def test_effects_are_as_reliable_as_their_noise_allows() -> None:
    assert criteria.split_half(made())["halves"].min() == pytest.approx(1)
    noisy = criteria.split_half(made(30.0))
    assert noisy["halves"].max() < 0.4
    above = noisy["halves"].clip(lower=0)
    np.testing.assert_allclose(noisy["all"], 2 * above / (1 + above))


def test_precision_of_a_perfect_and_of_a_useless_criterion() -> None:
    found = made()
    table: Any = criteria.precision(scored(found), found, [2, 4])
    table = table.set_index(["criterion", "language", "budget"])
    for x in LANGUAGES:
        assert table.loc[("perfect", x, 4), "significant"] == 1
        assert table.loc[("perfect", x, 4), "among_top"] == 1
        assert table.loc[("opposite", x, 4), "significant"] == 0
    row = table.loc[("noise", "en", 4)]
    share = float(found.significant("en", "selectivity").double().mean())
    assert row["significant_chance"] == share and row["among_top_chance"] == 4 / 144


# ---------------------------------------------------------------------------- whole sets of neurons


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return make_tiny_llama()


def texts(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {x: torch.randint(3, 64, (8, 9), generator=generator) for x in LANGUAGES}


def increase(model: LlamaForCausalLM, chosen: list[int]) -> dict[str, float]:
    found = {}
    neurons = NeuronSet.from_flat(chosen, models.shape(model))
    for x, windows in texts().items():
        before = perplexity(model, windows).loss
        with masked(model, neurons):
            found[x] = perplexity(model, windows).loss - before
    return found


def test_the_first_round_of_the_greedy_search_takes_the_best_single_neurons(
    llama: LlamaForCausalLM,
) -> None:
    shortlist = torch.tensor([5, 60, 100, 101, 140])
    alone = {i: increase(llama, [i]) for i in shortlist.tolist()}
    worth = {i: e["zh"] - max(e["en"], e["vi"]) for i, e in alone.items()}
    first = damage.greedy_order(llama, texts(), "zh", shortlist, [2])
    assert first.tolist() == sorted(worth, key=lambda i: -worth[i])[:2]
    taken = damage.greedy_order(llama, texts(), "zh", shortlist, [1, 2])
    assert taken[0] == first[0]
    after = {i: increase(llama, [int(taken[0]), i]) for i in alone if i != taken[0]}
    worth = {i: e["zh"] - max(e["en"], e["vi"]) for i, e in after.items()}
    assert taken[1] == max(worth, key=lambda i: worth[i])


@pytest.mark.parametrize("steps", [[], [2, 1], [1, 1], [6]])
def test_greedy_steps_must_fit(llama: LlamaForCausalLM, steps: list[int]) -> None:
    with pytest.raises(ValueError, match="increasing sizes up to the 5"):
        damage.greedy_order(llama, texts(), "zh", torch.arange(5), steps)


def test_damage_is_that_of_masking(llama: LlamaForCausalLM, tmp_path_factory: object) -> None:
    orders = {("a", "en", -1): torch.tensor([5, 60, 100, 2]), ("random", "vi", 3): torch.arange(9)}
    store = Store(tmp_path_factory.mktemp("store"))  # type: ignore[attr-defined]
    table = damage.damage(orders, [2, 4, 8], llama, texts(), store=store)
    assert table[["criterion", "language", "seed", "budget"]].to_numpy().tolist() == [
        ["a", "en", -1, 2],
        ["a", "en", -1, 4],
        ["random", "vi", 3, 2],
        ["random", "vi", 3, 4],
        ["random", "vi", 3, 8],
    ]
    expected = increase(llama, [5, 60, 100, 2])
    row = table.iloc[1]
    assert row["n_neurons"] == 4
    for x in LANGUAGES:
        assert row[x] == pytest.approx(expected[x], abs=1e-6)
    assert row["own"] == row["en"] and row["other"] == max(row["zh"], row["vi"])
    assert row["difference"] == row["own"] - row["other"]
    assert row["difference_se"] >= row["own_se"]


def test_known_sets_are_not_measured_again(
    llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: object
) -> None:
    folder = tmp_path_factory.mktemp("store")  # type: ignore[attr-defined]
    sets = [NeuronSet.from_flat([i], models.shape(llama)) for i in (1, 2)]
    known = damage.set_effects(llama, sets, texts(), store=Store(folder / "a"))

    def refused(*args: object) -> None:
        raise TypeError("measured again")

    refused.__module__ = losses.__name__  # whose digest is in the key
    monkeypatch.setattr(damage, "held_out_losses", refused)
    again = damage.set_effects(llama, sets[::-1], texts(), known, Store(folder / "b"))
    pd.testing.assert_frame_equal(again.iloc[::-1].reset_index(drop=True), known)
    with pytest.raises(TypeError, match="measured again"):  # other texts: nothing is known
        damage.set_effects(llama, sets, texts(1), known, Store(folder / "c"))


def test_random_orders_are_whole_and_repeatable(llama: LlamaForCausalLM) -> None:
    orders = damage.random_orders(llama, [0, 1])
    assert all(sorted(o.tolist()) == list(range(144)) for o in orders.values())
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[1], damage.random_orders(llama, [1])[1])


def test_the_sum_of_single_effects_is_compared_with_the_sets(llama: LlamaForCausalLM) -> None:
    found = made()
    orders = {("a", "en", -1): torch.tensor([5, 60])}
    table = pd.DataFrame(
        [{"criterion": "a", "language": "en", "seed": -1, "budget": 2, "own": 4.0}]
    )
    row = damage.predicted(table, orders, found).iloc[0]
    total = float(found.necessity("en").value.flatten()[[5, 60]].sum())
    assert row["predicted"] == pytest.approx(total)
    assert row["ratio"] == pytest.approx(4 / total)


# ---------------------------------------------------------------------------- on a whole pipeline


@pytest.fixture(scope="module")
def made_up(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline(settings_in(folder), Store(tmp_path_factory.mktemp("store")))


def test_the_criteria_are_those_of_the_methods(made_up: Pipeline) -> None:
    scores = criteria.criteria(made_up)
    assert len(scores) == 2 * (3 + 7 + 2) + 2
    for score in scores.values():
        assert {x: tuple(v.shape) for x, v in score.items()} == dict.fromkeys(LANGUAGES, (2, 48))
    kurtosis: Any = made_up.normalised()
    assert torch.equal(scores["kurtosis (logit)"]["zh"], kurtosis["zh"])
    halves: Any = made_up.kurtosis("projections")  # of the neuron's relevance, as notebook 09 says
    for site in ("gate", "up"):
        torch.testing.assert_close(
            halves["zh"][site], made_up.kurtosis()["zh"], rtol=1e-3, atol=1e-3, equal_nan=True
        )
    counts, n = made_up.activation_counts()
    matched = baselines.lape_matched(counts, n, {"vi": 7})["vi"]
    assert matched.mask().flatten()[criteria.order(scores["LAPE"]["vi"])[:7]].all()
    batches, size = made_up.windows["en"].split(16), made_up.shape["intermediate"]
    first = {"bars": Reader("act_fn", lambda: BatchQuantiles(size))}
    bars = collect(made_up.model, batches, first)["bars"].values()
    second = {"over": Reader("act_fn", lambda: ActiveCounts(size, bars))}
    found = collect(made_up.model, batches, second)["over"]
    over, tokens = found.over, found.tokens
    chosen = baselines.act_prob_90p({"en": over}, {"en": tokens}, counts={"en": 9})["en"]
    assert chosen.mask().flatten()[criteria.order(scores["Act Prob 90p"]["en"])[:9]].all()
    for name, rules in (("mean |relevance|", "attnlrp"), ("gradient × activation", "gradient")):
        relevance = neuron_relevance(made_up.model, made_up.windows["zh"], rules=rules)
        torch.testing.assert_close(
            scores[name]["zh"].float(), relevance.abs().mean(0), rtol=1e-4, atol=1e-6
        )


def test_the_gold_standard_is_measured_saved_and_read(made_up: Pipeline, tmp_path: Path) -> None:
    texts, others = damage.held_out(made_up, 8, 4)
    assert {x: tuple(w.shape) for x, w in texts.items()} == dict.fromkeys(LANGUAGES, (8, 6))
    assert {x: len(w) for x, w in others.items()} == dict.fromkeys(LANGUAGES, 4)
    with pytest.raises(FileNotFoundError):
        damage.gold_standard(made_up, texts, tmp_path)
    found = damage.gold_standard(
        made_up, texts, tmp_path, recompute=True, n_greedy=4, shortlist=6, steps=(2, 4)
    )
    assert found.necessity.values == ["zero", "mean"]
    assert {x: len(o) for x, o in found.greedy.items()} == dict.fromkeys(LANGUAGES, 4)
    read = damage.gold_standard(made_up, texts, tmp_path, n_greedy=4)
    assert read.sets is None
    for x in LANGUAGES:
        assert torch.equal(read.greedy[x], found.greedy[x])
        again, first = read.necessity.selectivity(x), found.necessity.selectivity(x)
        assert torch.equal(again.value, first.value)
    fewer = {x: w[:7] for x, w in texts.items()}
    with pytest.raises(ValueError, match="n_texts: 8 there, 7 here"):
        damage.gold_standard(made_up, fewer, tmp_path, n_greedy=4)
    with pytest.raises(ValueError, match="other texts"):
        damage.gold_standard(made_up, texts, tmp_path, n_greedy=3)


def test_quantiles_are_those_of_batches_weighted_by_tokens() -> None:
    """Within a batch a tenth lies above the 90th percentile, as the definition implies."""
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    found, rest = BatchQuantiles((1, 4)), BatchQuantiles((1, 4))
    found.update(LayerValues(0, values[:20]))
    rest.update(LayerValues(0, values[20:]))
    found.merge(BatchQuantiles.from_state(rest.state()))
    first, second = values[:20].sort(0).values[17], values[20:].sort(0).values[26]
    expected = (20 * first.double() + 30 * second.double()) / 50
    torch.testing.assert_close(found.values()[0], expected)
    assert (values[20:] > second).sum(0).tolist() == [3] * 4
    with pytest.raises(ValueError, match="quantile is 0"):
        BatchQuantiles((1, 4), 0)
