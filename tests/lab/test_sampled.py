"""Single ablations of a sample: against ablating everything, and the statistics made of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny_llama
from test_pipeline import folder, settings_in
from torch import Tensor
from transformers import LlamaForCausalLM

from crane_core import models
from crane_lab.cli import real_model
from crane_lab.pipeline import Pipeline
from crane_lab.store import ROOT, Store
from crane_lab.study import criteria, nearby, sampled
from crane_lab.study.necessity import Necessity, measure, single_effects

__all__ = ["folder"]  # a fixture: the model, corpora and tasks made up in test_pipeline

LANGUAGES = ("en", "zh", "vi")
SHIPPED = ROOT / "data" / "gemma"


def texts(n: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {x: torch.randint(3, 64, (n, 9), generator=generator) for x in LANGUAGES}


def scores(seed: int = 0) -> dict[str, criteria.Score]:
    rng = np.random.default_rng(seed)
    return {
        name: {x: torch.from_numpy(rng.normal(size=(3, 48))) for x in LANGUAGES}
        for name in ("a", "b", "c")
    }


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    return make_tiny_llama()


SET_TO = {"zero": torch.zeros(3, 48), "mean": torch.linspace(-1, 1, 144).view(3, 48)}


def sample() -> pd.DataFrame:
    return sampled.choose(scores(), ["a", "b"], n_top=3, n_random=4)


# ------------------------------------------------------------------------------------- the sample


def test_the_sample_says_why_each_neuron_is_there() -> None:
    found = sample()
    drawn = found[found["criterion"] == "random"]
    assert drawn.groupby("layer").size().to_list() == [4, 4, 4]
    assert not drawn.duplicated(["layer", "neuron"]).any()
    top = found[(found["criterion"] == "b") & (found["language"] == "zh")]
    flat = (top["layer"] * 48 + top["neuron"]).to_list()
    assert flat == scores()["b"]["zh"].flatten().argsort(descending=True)[:3].tolist()
    assert top["place"].to_list() == [1, 2, 3]
    assert set(found["criterion"]) == {"random", "a", "b"}
    pd.testing.assert_frame_equal(found, sample())
    other = sampled.choose(scores(), ["a", "b"], n_top=3, n_random=4, seed=1)
    assert not other[other["criterion"] == "random"].equals(drawn)
    once = sampled.neurons_of(found)
    assert not once.duplicated().any() and len(once) <= len(found)
    assert sampled.is_in(once, drawn).sum() == 12


def test_wrong_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown criterion 'z'"):
        sampled.choose(scores(), ["z"])
    with pytest.raises(ValueError, match="n_random 49: expected"):
        sampled.choose(scores(), ["a"], 3, 49)


# ------------------------------------------------------------------------------------ the effects


@pytest.mark.parametrize("tokens", [16, 1024])
def test_the_normaliser_is_that_of_the_whole_vocabulary(
    llama: LlamaForCausalLM, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearby, "LIKELY", tokens)  # of 64: with 16, the rest is drawn from
    monkeypatch.setattr(nearby, "DRAWN", 16)
    windows, value = texts()["en"], SET_TO["mean"][1]
    near = nearby.near_texts(llama, windows)
    found = nearby.increases(llama, windows, 1, [0, 5, 47], value, near, batch_size=5)
    untouched, after = single_effects(llama, windows, 1, [0, 5, 47], [value])
    expected = after[0] - untouched
    size = float(expected.abs().mean())
    tolerance = 1e-6 if tokens > 64 else 0.1 * size
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    monkeypatch.setattr(nearby, "FAR", 0.0)  # all through the whole head
    found = nearby.increases(llama, windows, 1, [0, 5, 47], value, near, batch_size=5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_first_order_is_the_slope_of_the_loss(llama: LlamaForCausalLM) -> None:
    model, windows = make_tiny_llama().double(), texts()["vi"][:3]
    found = nearby.first_order(model, windows, {"zero": torch.zeros(3, 48).double()}, batch_size=2)
    assert found.shape == (1, 3, 3, 48)
    # A neuron moved a little towards zero: its activations are those that its weights give.
    for layer, neuron in ((0, 3), (2, 40)):
        weight = models.mlp_sites(model)[layer].down_proj.get_parameter("weight")
        losses = []
        for scale in (1.01, 0.99):
            with torch.no_grad():
                weight[:, neuron] *= scale
                losses.append(single_effects(model, windows, layer, [])[0])
                weight[:, neuron] /= scale
        slope = (losses[1] - losses[0]) / 0.02
        torch.testing.assert_close(found[0, :, layer, neuron], slope, rtol=1e-3, atol=1e-5)


def run(llama: LlamaForCausalLM, store: Store, n_exact: int = 16) -> Necessity:
    neurons = sampled.neurons_of(sample())
    return sampled.measure_sample(llama, texts(), neurons, SET_TO, n_exact, {}, store)


def test_sampled_effects_are_those_of_ablating_everything(
    llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    found = run(llama, Store(tmp_path / "a"))
    every = measure(llama, texts(), SET_TO, {}, Store(tmp_path / "b"))
    neurons = sampled.neurons_of(sample())
    layers, numbers = neurons["layer"].to_list(), neurons["neuron"].to_list()
    assert found.n_texts == 16 and found.values == ["zero", "mean"]
    for value in found.values:
        assert torch.equal(found.set_to[value][0], SET_TO[value][layers, numbers])
        for x in LANGUAGES:
            mine, theirs = found.necessity(x, value), every.necessity(x, value)
            assert mine.value.shape == (1, len(neurons))
            for a, b in ((mine.value, theirs.value), (mine.error, theirs.error)):
                torch.testing.assert_close(a[0], b[layers, numbers], rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(
                found.folds[value][x][:, 0], every.folds[value][x][:, layers, numbers],
                rtol=0, atol=1e-6,
            )  # fmt: skip


def test_two_phases_are_unbiased_and_say_how_sure_they_are() -> None:
    rng = np.random.default_rng(0)
    n, m, repeated = 64, 8, 4000
    exact = torch.from_numpy(rng.normal(0.3, 1, (n, repeated)))
    first = 0.7 * exact + 5 + torch.from_numpy(rng.normal(0, 0.3, (n, repeated)))
    chosen = sampled.chosen_texts(n, m)
    assert len(chosen) == m and chosen[1] == 8
    found, folds = sampled.two_phase(exact[chosen], first, chosen)
    assert found.freedom is not None
    spread = float(found.value.std())
    assert float(found.value.mean()) == pytest.approx(0.3, abs=4 * spread / repeated**0.5)
    assert float(found.error.square().mean()) ** 0.5 == pytest.approx(spread, rel=0.05)
    assert spread < 0.7 * 1 / m**0.5  # the second phase alone
    assert m - 1 <= found.freedom.min() and found.freedom.max() <= n + m
    torch.testing.assert_close(folds.mean(0), found.value)
    for wrong in ((63, 8), (64, 4), (8, 16)):
        with pytest.raises(ValueError, match="multiples of 8"):
            sampled.chosen_texts(*wrong)


def test_it_goes_on_where_it_stopped(
    llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, calls, real = run(llama, Store(tmp_path / "a"), 8), 0, nearby.increases

    def counted(*args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(nearby, "increases", counted)
    with pytest.raises(KeyboardInterrupt):
        run(llama, Store(tmp_path / "b"), 8)
    resumed = run(llama, Store(tmp_path / "b"), 8)
    assert calls == 8 + 2 * 3 * 3 - 7  # values x languages x layers, seven of them were kept
    for value in first.values:
        for x in LANGUAGES:
            a, b = first.necessity(x, value), resumed.necessity(x, value)
            assert torch.equal(a.value, b.value) and torch.equal(a.error, b.error)


# ------------------------------------------------------------------------------------- the tables


@pytest.fixture(scope="module")
def effects(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Necessity:
    return run(llama, Store(tmp_path_factory.mktemp("store")), 8)


def test_correlations_over_the_random_part_and_all(effects: Necessity) -> None:
    own, neurons = sample(), sampled.neurons_of(sample())
    perfect = {}
    for x in LANGUAGES:
        perfect[x] = torch.zeros(3, 48).double()
        at = effects.selectivity(x).value[0]
        perfect[x][neurons["layer"].to_list(), neurons["neuron"].to_list()] = at
    given = scores() | {"perfect": perfect}
    table = sampled.sampled_correlations(given, own, neurons, effects, "a", n_boot=40)
    assert set(table.loc[table["part"] == "random", "n"]) == {12}
    assert set(table.loc[table["part"] == "sample", "n"]) == {len(neurons)}
    best = table[(table["criterion"] == "perfect") & (table["truth"] == "selectivity")]
    assert best.loc[best["set_to"] == "zero", "rho"].min() == pytest.approx(1)
    assert (table["low"] <= table["rho"]).all() and (table["rho"] <= table["high"]).all()
    again = sampled.sampled_correlations(given, own, neurons, effects, "a", n_boot=40)
    pd.testing.assert_frame_equal(table, again)


def test_precision_is_that_of_each_top_beside_the_random_part(effects: Necessity) -> None:
    own, neurons = sample(), sampled.neurons_of(sample())
    table: Any = sampled.precision_of_tops(own, neurons, effects, n_boot=50).set_index(
        ["set_to", "criterion", "language"]
    )
    assert len(table) == 2 * 3 * 3
    row = table.loc[("mean", "b", "vi")]
    top = own[(own["criterion"] == "b") & (own["language"] == "vi")]
    at = effects.selectivity("vi", "mean").value[0][torch.from_numpy(sampled.is_in(neurons, top))]
    assert row["n"] == 3 and row["selectivity"] == pytest.approx(float(at.mean()))
    level = table.loc[("mean", "random", "vi"), "selectivity"]
    assert row["ahead"] == pytest.approx(row["selectivity"] - level)
    for name in ("selectivity", "significant"):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()


def test_the_effects_are_a_table(effects: Necessity) -> None:
    own, neurons = sample(), sampled.neurons_of(sample())
    table = sampled.single_effects_table(own, neurons, effects)
    assert len(table) == len(neurons) and table["random"].sum() == 12
    top = own[own["criterion"] == "a"]
    for row in top.to_dict("records"):
        here = table[(table["layer"] == row["layer"]) & (table["neuron"] == row["neuron"])]
        assert row["language"] in here["a"].iloc[0].split()
    assert table["a"].str.split().map(len).sum() == len(top)
    np.testing.assert_array_equal(table["mean_zh"], effects.necessity("zh", "mean").value[0])


# ------------------------------------------------------------------------------- from end to end


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        out=str(tmp_path), top=3, random=2, texts=8, exact=8, damage_texts=2, values=["zero"],
        shares=[0.02, 0.1], seeds=2, only_main=True,
    )  # fmt: skip


def all_tables(
    pipeline: Pipeline, options: argparse.Namespace
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    found = list(real_model.tables_of(pipeline, options))
    return {name: table for tables, _ in found for name, table in tables.items()}, found[-1][1]


def test_everything_from_settings(
    folder: Path, options: argparse.Namespace, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings_in(folder), n_perplexity=4)
    pipeline = Pipeline(settings, Store(tmp_path / "store"))
    tables, made = all_tables(pipeline, options)
    damaged, main_ones = tables["criteria_damage"], sampled.main_criteria()
    assert set(damaged["criterion"]) == {*main_ones, "random order"}
    assert sorted(set(damaged["budget"])) == [2, 10]
    assert set(tables["sample"]["criterion"]) == {*main_ones, "random"}
    assert json.loads(json.dumps(made))["sample"]["neurons"] == len(tables["single_effects"])
    again, made_again = all_tables(pipeline, options)
    assert made_again == made
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])
    options.only_main = False
    *_, (new, made) = real_model.tables_of(pipeline, options)
    every = new["criteria_damage"]
    assert set(every["criterion"]) == {*made["damage"]["criteria"], "random order"}
    assert len(made["damage"]["criteria"]) > len(main_ones)


def test_what_is_shipped_is_whole() -> None:
    models.verify_checksums(SHIPPED)
    made = json.loads((SHIPPED / "made.json").read_text(encoding="utf-8"))
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 3_000_000
    effects, chosen = (
        pd.read_csv(SHIPPED / f"{name}.csv", keep_default_na=False)
        for name in ("single_effects", "sample")
    )
    assert len(effects) == made["sample"]["neurons"] >= 600
    layers = made["shape"][0]
    drawn = chosen[chosen["criterion"] == "random"]
    assert len(drawn) == layers * made["sample"]["random_per_layer"]
    names = made["sample"]["main_criteria"]
    assert set(chosen["criterion"]) == {"random", *names} and set(names) <= set(effects)
    languages = made["settings"]["languages"]
    for value in made["effects"]["values"]:
        for x in languages:
            assert np.isfinite(effects[f"{value}_{x}"]).all()
            assert (effects[f"{value}_{x}_se"] > 0).all()
    damaged = pd.read_csv(SHIPPED / "criteria_damage.csv")
    assert sorted(set(damaged["budget"])) == made["damage"]["budgets"]
    assert set(names) <= set(damaged["criterion"])
