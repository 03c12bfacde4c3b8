"""The sweep over choices: its parts, a small case through the same functions, the shipped files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny_llama

from crane_core.accumulators import NEURON_VALUES, collect
from crane_core.concentration import STATISTICS
from crane_core.interventions import zero
from crane_core.moments import StreamingMoments
from crane_core.selection import NeuronSet, overlap, select
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.stages import losses, relevance, scoring
from crane_lab.store import ROOT, Store
from crane_lab.study import choices, halves
from crane_lab.study.choices import Variant

pytestmark = pytest.mark.filterwarnings("ignore:kurtosis of", "ignore:.*neuron")

FOLDER = ROOT / "data" / "testbed"
TESTBED = Settings(
    model=str(FOLDER / "base"),
    corpus=str(FOLDER / "corpus" / "attribution"),
    perplexity_corpus=str(FOLDER / "corpus" / "perplexity"),
    tasks=str(FOLDER / "tasks"),
)
SMALL = dataclasses.replace(
    TESTBED, n_samples=24, window=12, batch_size=8, n_perplexity=4, task_limit=12, random_seeds=(0,)
)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return choices.probe(SMALL, Store(tmp_path_factory.mktemp("store")))


# --------------------------------------------------------------------------------------- variants


def test_every_choice_varies_one_thing_around_one_reference() -> None:
    found = choices.variants(TESTBED, 2048)
    assert len({v.name for v in found}) == len(found)
    assert {v.choice for v in found} == set(choices.LABELS)
    for choice in choices.LABELS:
        own = [v for v in found if v.choice == choice]
        assert len(own) > 1 and sum(v.reference for v in own) == 1, choice
        changed = {name for v in own for name in v.changes}
        assert changed <= {choice, "rule"} or choice == "budget", choice
    for v in found:
        if v.reference and v.choice not in ("score", "budget"):
            assert dataclasses.replace(TESTBED, **v.changes) == TESTBED
            assert (v.site, v.mask_value, v.matched) == ("intermediate", "zero", False)
    shares = [v.changes["budget"] for v in found if "budget" in v.changes]
    assert (shares[0], shares[-1]) == (10, 614)  # 0.5 % and 30 % of 2,048
    with pytest.raises(ValueError, match="goes around"):
        choices.variants(dataclasses.replace(TESTBED, rule="top", budget=3), 2048)


# -------------------------------------------------------------------------------------- the parts


def test_neuron_values_are_those_of_what_a_mask_replaces() -> None:
    model = make_tiny_llama()
    ids = torch.randint(3, 64, (6, 10), generator=torch.Generator().manual_seed(0))
    seen = []
    handle = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].flatten(0, 1))
    )
    wanted = relevance.value_readers({"intermediate": (3, 48)}, SMALL)

    def values(batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        kept = collect(model, batches, wanted)
        return {name: of(kept["means"], kept["sample"]) for name, of in NEURON_VALUES.items()}

    found = values([ids])
    assert set(found) == {"mean", "p10", "p90"}
    assert all(v.shape == (3, 48) for v in found.values())
    torch.testing.assert_close(found["mean"][1].float(), seen[0].mean(dim=0))
    # All 60 tokens are kept, and a quantile lies between the two that it falls between.
    ranked = seen[0].double().sort(dim=0).values
    torch.testing.assert_close(found["p10"][1], 0.1 * ranked[5] + 0.9 * ranked[6])
    torch.testing.assert_close(found["p90"][1], 0.9 * ranked[53] + 0.1 * ranked[54])
    halves = values([ids[:2], ids[2:]])
    torch.testing.assert_close(halves["mean"], found["mean"])
    handle.remove()
    assert not any(m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="there is no batch"):
        values([])


def test_neuron_values_are_of_all_languages_together(probe: Pipeline) -> None:
    found = probe.neuron_values
    assert all(v.shape == (4, 512) and v.dtype == torch.float32 for v in found.values())
    seen = []
    handle = probe.model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        for windows in probe.windows.values():
            probe.model(input_ids=windows)
    handle.remove()
    tokens = torch.cat(seen)
    torch.testing.assert_close(found["mean"][1], tokens.mean(dim=0), rtol=1e-4, atol=1e-5)
    for name, q in (("p10", 0.1), ("p90", 0.9)):  # 864 tokens: all are in the sample
        torch.testing.assert_close(found[name][1], tokens.quantile(q, dim=0), rtol=1e-4, atol=1e-5)


def test_other_mask_values_are_put_out(probe: Pipeline) -> None:
    neurons = NeuronSet.from_pairs([(0, 3), (2, 5), (3, 100)], probe.shape)
    to_zero, mean = (probe.losses(probe.masking(neurons, v))["en"] for v in ("zero", "mean"))
    assert not torch.equal(to_zero, mean)
    down = probe.model.model.layers[2].mlp.down_proj
    means = probe.neuron_values["mean"]
    value = means[2, 5]
    handles = [
        probe.model.model.layers[layer].mlp.down_proj.register_forward_pre_hook(
            lambda module, args, layer=layer: (
                torch.where(neurons.mask()[layer], means[layer].expand_as(args[0]), args[0]),
            )
        )
        for layer in range(4)
    ]
    expected = perplexity(probe.model, probe.perplexity_windows["en"]).losses
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(mean, expected)
    assert value != 0 and not down._forward_pre_hooks
    with pytest.raises(ValueError, match="unknown mask value 'p50'"):
        probe.masking(neurons, "p50")
    with pytest.raises(ValueError, match="intermediate neurons only"):
        probe.masking(NeuronSet.from_pairs([(0, 1)], probe.shape, "gate"), "mean")


def test_projections_are_compared_as_what_they_switch_off() -> None:
    shape = {"intermediate": (1, 4), "gate": (1, 4), "up": (1, 4), "down": (1, 2)}
    masks = {
        "gate": torch.tensor([[True, False, False, False]]),
        "up": torch.tensor([[True, True, False, False]]),
        "down": torch.tensor([[True, True]]),
    }
    neurons = NeuronSet(masks, shape)
    assert choices.as_intermediate(neurons).pairs() == [(0, 0), (0, 1)]
    one = NeuronSet.from_pairs([(0, 1), (0, 2)], shape)
    assert choices.as_intermediate(one) == one


def test_the_floor_of_a_row_is_that_of_its_size() -> None:
    random = pd.DataFrame(
        [
            (kind, "en", share, round(1000 * share), f1 + jitter, -f1)
            for kind, share, f1 in (
                ("share", 0.1, 0.2),
                ("share", 0.2, 0.4),
                ("projections", 0.3, 0.9),
            )
            for jitter in (-0.1, 0.1)
        ],
        columns=["kind", "mask_language", "share", "n_neurons", "langspec_f1", "selectivity"],
    )
    rows = [
        ("threshold", "1", 50, 0.5),
        ("threshold", "0", 150, 0.5),
        ("threshold", "-9", 300, 0.5),
        ("mask value", "zero", 100, 0.5),
        ("mask value", "mean", 100, 0.5),
        ("site", "projections", 150, 0.5),
        ("score", "weight-gradient sums", 150, 0.5),
        ("threshold", "9", 0, 0.0),
    ]
    table = pd.DataFrame(rows, columns=["choice", "value", "n_neurons", "langspec_f1"])
    found = choices.with_floor(table.assign(mask_language="en", selectivity=0.0), random)
    expected = [0.1, 0.3, np.nan, 0.2, np.nan, 0.9, np.nan, 0.0]
    assert found["langspec_f1_random"].tolist() == pytest.approx(expected, nan_ok=True)
    assert found["selectivity_random"][1] == pytest.approx(-0.3)
    assert found["langspec_f1_above"][0] == pytest.approx(0.4)


def test_departures_from_the_reference() -> None:
    table = pd.DataFrame(
        {
            "choice": ["a"] * 6 + ["b"] * 4,
            "value": ["0", "1", "2"] * 2 + ["0", "1"] * 2,
            "reference": [True, False, False] * 2 + [True, False] * 2,
            "mask_language": ["en"] * 3 + ["vi"] * 3 + ["en"] * 2 + ["vi"] * 2,
            "m": [0.5, 0.7, 0.4, 0.0, 0.0, 0.1, 0.5, 0.0, 0.2, 0.2],
        }
    )
    found: Any = choices.departures(table, "m").set_index("choice")
    assert found.index.tolist() == ["b", "a"]
    assert found.loc["a", "largest"] == pytest.approx((0.2 + 0.1) / 2)
    assert found.loc["a", "typical"] == pytest.approx((0.15 + 0.05) / 2)
    assert found["largest"].to_dict() == pytest.approx({"b": 0.25, "a": 0.15})
    assert found["typical"].to_dict() == pytest.approx({"b": 0.25, "a": 0.1})
    assert (found.loc["a", "low"], found.loc["a", "high"]) == (0.0, 0.7)
    assert found["values"].tolist() == [2, 3]


# ----------------------------------------------------------------------------------- a small case


def test_a_small_sweep(probe: Pipeline) -> None:
    chosen = [
        Variant("threshold", "1", reference=True),
        Variant("threshold", "0", {"threshold": 0.0}),
        Variant("threshold", "99", {"threshold": 99.0}),
        Variant("rule", "top", {"rule": "top"}, matched=True),
        Variant("reduction", "mean", {"reduction": "mean"}),
        Variant("mask value", "mean", mask_value="mean"),
        Variant("site", "projections", site="projections"),
    ]
    table = choices.sweep(probe, chosen, n_boot=50)
    assert len(table) == 3 * len(chosen)
    keys = ["choice", "value", "mask_language"]
    by = dict(
        zip(table[keys].itertuples(index=False, name=None), table.to_dict("records"), strict=True)
    )
    own = probe.neuron_sets()
    normalised = probe.normalised()
    for x in ("en", "zh", "vi"):
        reference = by["threshold", "1", x]
        assert reference["n_neurons"] == len(own[x])
        assert reference["digest"] == own[x].digest()
        assert (reference["jaccard"], reference["share"]) == (1, len(own[x]) / 2048)
        looser = select(normalised, x, "contrast", 0.0, shape=probe.shape)
        assert by["threshold", "0", x]["n_neurons"] == len(looser)
        assert by["threshold", "0", x]["jaccard"] == overlap(looser, own[x]).jaccard
        empty = by["threshold", "99", x]
        assert (empty["n_neurons"], empty["langspec_f1"], empty["selectivity"]) == (0, 0, 0)
        assert by["rule", "top", x]["n_neurons"] == len(own[x])
        # Windows are equally long, so a mean over tokens is a constant times the sum.
        assert by["reduction", "mean", x]["jaccard"] == 1
        assert by["mask value", "mean", x]["digest"] == own[x].digest()
        assert by["mask value", "mean", x]["en_loss"] != reference["en_loss"]
        rise = probe.losses(zero(own[x]))[x] - probe.losses()[x]
        assert reference[f"{x}_loss"] == pytest.approx(float(rise.double().mean()))
    # Under the uniform rule gate and up each carry half of the intermediate neuron's relevance.
    assert (table[table["choice"] == "site"]["jaccard"] == 1).all()


def test_a_sweep_is_kept(probe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [Variant("n_samples", "12", {"n_samples": 12}, reference=True)]
    first = choices.sweep(probe, chosen, n_boot=20)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(scoring, "evaluate", forbidden)
    monkeypatch.setattr(losses, "perplexity", forbidden)
    monkeypatch.setattr(relevance, "one_pass", forbidden)
    again = choices.sweep(choices.probe(SMALL, probe.store), chosen, n_boot=20)
    pd.testing.assert_frame_equal(first, again)


def test_small_tables_of_statistics(probe: Pipeline) -> None:
    values = choices.statistic_values(probe)
    kurtosis = probe.kurtosis()
    for x in ("en", "zh", "vi"):
        torch.testing.assert_close(values["all"][x]["kurtosis"], kurtosis[x])
    counts = {x: len(n) for x, n in probe.neuron_sets().items()}
    sets = choices.statistic_sets(values["all"], "gini", True, counts, probe.shape)
    assert {x: len(n) for x, n in sets.items()} == counts
    table = choices.compare_statistics(probe, n_boot=20)
    assert len(table) == 2 * 3 * len(STATISTICS)
    assert (table["n_neurons"] == table["mask_language"].map(counts)).all()
    rho = choices.agreement(probe)
    between = rho[rho["kind"] == "between"].pivot_table(index="a", columns="b", values="rho")
    assert np.allclose(np.diag(between), 1) and np.allclose(between, between.T)
    assert set(rho["kind"]) == {"between", "halves", "languages"}


def test_merged_blocks_are_the_whole(probe: Pipeline) -> None:
    blocks = halves.block_moments(probe, 24, 6)
    merged = StreamingMoments(probe.shape["intermediate"])
    for block in blocks["zh"]:
        merged.merge(block)
    assert len(blocks["zh"]) == 4
    torch.testing.assert_close(
        merged.kurtosis(),
        probe.collected("zh")["intermediate"].moments.kurtosis(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_random_floor(probe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "SHARES", (0.05,))
    table = choices.random_floor(probe, n_boot=20)
    assert table["kind"].value_counts().to_dict() == {"default": 3, "projections": 3, "share": 3}
    own = probe.neuron_sets()
    matched = table[table["kind"] == "default"].set_index("mask_language")["n_neurons"]
    assert matched.to_dict() == {x: len(n) for x, n in own.items()}
    assert (table.loc[table["kind"] == "share", "n_neurons"] == 102).all()


# ---------------------------------------------------------------------------------- shipped files


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    tables = {name: pd.DataFrame({"value": ["1"], "x": [0.5]}) for name in choices.TABLE_NAMES}
    made = {"default_sets": {"en": [[0, 1]]}}
    choices.write(tables, made, tmp_path)
    found, origin = choices.read(tmp_path)
    assert found["choices"]["value"].tolist() == ["1"] and origin == made
    assert choices.default_sets(origin, (1, 4))["en"].pairs() == [(0, 1)]
    with pytest.raises(FileNotFoundError):
        choices.read(tmp_path / "none")


def test_shipped_rows_are_what_this_code_selects(tmp_path: Path) -> None:
    tables, made = choices.read(FOLDER)
    default = choices.probe(TESTBED, Store(tmp_path))
    assert choices.differing_inputs(default, made) == []
    assert choices.differing_inputs(default, {**made, "model": "another"}) == ["model"]
    own = choices.default_sets(made, default.shape)
    keys, table = ["choice", "value", "mask_language"], tables["choices"]
    shipped = dict(
        zip(table[keys].itertuples(index=False, name=None), table.to_dict("records"), strict=True)
    )
    for variant in (
        Variant("n_samples", "30", {"n_samples": 30}),
        Variant("n_samples", "100", {"n_samples": 100}),
        Variant("window", "16", {"window": 16}),
    ):
        for x, neurons in choices.sets_under(default, variant).items():
            row = shipped[variant.choice, variant.value, x]
            assert row["n_neurons"] == len(neurons)
            assert row["digest"] == neurons.digest()
            assert row["jaccard"] == pytest.approx(halves.compared(neurons, own[x])[0], abs=1e-6)


def test_shipped_losses_are_what_this_code_measures(tmp_path: Path) -> None:
    tables, made = choices.read(FOLDER)
    probe = choices.probe(TESTBED, Store(tmp_path))
    neurons = choices.default_sets(made, probe.shape)["vi"]
    rows = tables["choices"].query("choice == 'site' and value == 'intermediate'")
    row = rows.set_index("mask_language").loc["vi"]
    assert row["digest"] == neurons.digest()
    after, before = probe.losses(zero(neurons)), probe.losses()
    for x in TESTBED.languages:
        found = float((after[x] - before[x]).double().mean())
        assert row[f"{x}_loss"] == pytest.approx(found, abs=1e-4)
