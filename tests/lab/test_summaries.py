"""Tables that sum up the studies, from small tables whose outcome is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from crane_core.concentration import STATISTICS
from crane_lab.settings import Settings
from crane_lab.store import ROOT
from crane_lab.study import choices, summaries
from crane_lab.study.necessity import Necessity, summarise

# --- choices, statistics ---


def sweep(rows: list[tuple[str, str, bool, float]]) -> pd.DataFrame:
    """Two languages for each (choice, value, reference, LangSpec-F1), the second 0.1 higher."""
    return pd.DataFrame(
        [
            {
                "choice": choice,
                "value": value,
                "reference": reference,
                "mask_language": x,
                "langspec_f1": f1 + more,
                "langspec_f1_above": 2 * f1,
                "selectivity": -f1,
                "jaccard": 1.0 if reference else f1,
            }
            for choice, value, reference, f1 in rows
            for x, more in (("en", 0.0), ("zh", 0.1))
        ]
    )


SWEEP = sweep(
    [
        ("seed", "0", True, 0.2),
        ("seed", "1", False, 0.25),
        ("rule", "contrast", True, 0.2),
        ("rule", "threshold", False, 0.5),
        ("rule", "top", False, 0.3),
        ("reduction", "sum", True, 0.2),
        ("reduction", "mean", False, 0.2),
    ]
)


def test_choices_are_summed_up_by_their_departures() -> None:
    found = summaries.of_choices(SWEEP)
    assert found["choice"].to_list() == [choices.LABELS[c] for c in ("rule", "seed", "reduction")]
    assert found["values"].to_list() == [3, 2, 2]
    np.testing.assert_allclose(found["LangSpec-F1, largest"], [0.3, 0.05, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["mean"], [0.2, 0.05, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["above random, largest"], [0.6, 0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["selectivity, largest"], [0.3, 0.05, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["lowest Jaccard"], [0.3, 0.25, 0.2])


def test_quiet_choices_move_less_than_a_new_draw() -> None:
    assert summaries.quiet(choices.departures(SWEEP, "langspec_f1")) == ["reduction"]
    loud = sweep([("seed", "0", True, 0.2), ("seed", "1", False, 0.9)])
    both = pd.concat([SWEEP[SWEEP["choice"] != "seed"], loud])
    assert summaries.quiet(choices.departures(both, "langspec_f1")) == ["rule", "reduction"]


def test_the_default_is_the_reference_of_the_seed() -> None:
    found = summaries.default_reading(SWEEP)
    assert found.index.to_list() == ["en", "zh"]
    assert found["langspec_f1"].to_list() == [0.2, pytest.approx(0.3)]


def test_statistics_are_counted_language_by_language() -> None:
    first, second, *_ = STATISTICS
    selected = pd.DataFrame(
        [
            (first, "alone", "en", 0.3, 0.2, -0.1, "open", 0.5),
            (first, "alone", "zh", 0.5, 0.4, 0.1, "larger", 0.7),
            (second, "contrast", "en", 0.9, 0.8, 1.0, "larger", 0.1),
            (second, "contrast", "zh", 0.9, 0.8, 3.0, "larger", 0.3),
        ],
        columns=[
            *("statistic", "how", "mask_language", "langspec_f1", "langspec_f1_low"),
            *("selectivity", "verdict", "repeat"),
        ],
    )
    random = pd.DataFrame(
        {
            "kind": ["default", "default", "default", "share"],
            "mask_language": ["en", "en", "zh", "zh"],
            "langspec_f1": [0.1, 0.25, 0.3, 0.99],
        }
    )
    found = summaries.of_statistics(selected, random)
    assert found["statistic"].to_list() == [STATISTICS[second].label, STATISTICS[first].label]
    assert found["how"].to_list() == ["contrast", "alone"]
    assert found["selectivity"].to_list() == [2.0, 0.0]
    assert found["langspec_f1"].to_list() == [0.9, 0.4]
    assert found["above_random"].to_list() == [2, 1]  # 0.2 is below English's 0.25
    assert found["own_most"].to_list() == [2, 1]
    np.testing.assert_allclose(found["repeat"], [0.2, 0.6])


def test_a_small_case_of_the_shipped_sweep_is_found_again() -> None:
    folder = ROOT / "data" / "testbed"
    tables, made_with = choices.read(folder)
    settings = dataclasses.replace(
        Settings(),
        model=str(folder / "base"),
        corpus=str(folder / "corpus" / "attribution"),
        perplexity_corpus=str(folder / "corpus" / "perplexity"),
        tasks=str(folder / "tasks"),
        n_samples=7,  # what this run varies does not change what is held against the shipped sets
    )
    found = summaries.sets_again(settings, made_with, tables["choices"])
    assert found["language"].to_list() == list(settings.languages)
    assert found["equal"].all() and (found["n_neurons"] > 0).all()
    other = tables["choices"].assign(digest="0")
    assert not summaries.sets_again(settings, made_with, other)["equal"].any()


# --- single ablations ---


def effects(texts: int = 40, neurons: int = 100, values: tuple[str, ...] = ("zero",)) -> Necessity:
    """One layer of neurons that do next to nothing, except neuron 0, which English alone needs."""
    generator = torch.Generator().manual_seed(0)
    size = (len(values), 1, neurons, texts)
    increases = {
        x: 1e-4 * torch.randn(size, dtype=torch.float64, generator=generator) for x in ("en", "zh")
    }
    increases["en"][:, :, 0] += 1.0
    return summarise(increases, {v: torch.zeros(1, neurons) for v in values}, {})


def test_the_spread_of_effects() -> None:
    necessity = effects()
    found = summaries.spread(necessity).set_index("language")
    assert found["set to"].to_list() == ["zero", "zero"]
    value = necessity.necessity("en").value.flatten()
    assert found.loc["en", "100%"] == value.max() == value[0]
    assert found.loc["en", "50%"] == pytest.approx(float(value.quantile(0.5)))
    assert found.loc["en", "top 1 % of neurons"] == pytest.approx(
        float(value[0] / value.clamp(min=0).sum())
    )
    assert found["top 1 % of neurons"].to_list()[1] < 0.1  # Chinese: no neuron stands out
    assert found.loc["en", "standard error"] == pytest.approx(
        float(necessity.necessity("en").error.median())
    )


def test_significant_neurons_are_counted_by_layer() -> None:
    found = summaries.significant_counts(effects(), 0.05)
    assert found.columns.to_list() == ["set_to", "language", "kind", "n", "share", "layer_0"]
    counts = found.set_index(["language", "kind"])["n"]
    assert counts["en", "selectivity"] == counts["en", "necessity"] == 1
    assert counts["zh", "selectivity"] == 0
    assert (found["layer_0"] == found["n"]).all()
    assert (found["share"] == found["n"] / 100).all()


def test_zero_is_compared_with_the_mean_where_both_were_measured() -> None:
    assert summaries.zero_against_mean(effects()) == {}
    found = summaries.zero_against_mean(effects(values=("zero", "mean")))
    assert set(found) == {"en", "zh"} and all(abs(rho) < 0.5 for rho in found.values())


# --- criteria and sets ---


def damaged(rows: list[tuple[str, str, int, int, float, float]]) -> pd.DataFrame:
    columns = ["criterion", "language", "seed", "budget", "difference", "difference_se"]
    return pd.DataFrame(rows, columns=columns)


DAMAGED = damaged(
    [
        ("good", "en", -1, 8, 0.5, 0.1),
        ("good", "zh", -1, 8, 0.5, 0.2),
        ("poor", "en", -1, 8, 0.5, 0.3),  # not clearly above 0
        ("poor", "zh", -1, 8, 0.09, 0.01),  # clearly above 0, but a random set does more
        ("greedy search", "en", -1, 8, 0.4, 0.1),
        ("greedy search", "zh", -1, 8, 0.9, 0.1),
        ("random order", "en", 0, 8, -0.2, 0.1),
        ("random order", "en", 1, 8, -0.4, 0.1),
        ("random order", "zh", 0, 8, 0.08, 0.1),
        ("random order", "zh", 1, 8, 0.0, 0.1),
        ("good", "en", -1, 16, 9.0, 0.1),
    ]
)


def test_damage_is_averaged_over_seeds_and_languages() -> None:
    found = summaries.mean_damage(DAMAGED, 8)
    assert found.index.to_list() == ["greedy search", "good", "poor", "random order"]
    assert found["good"] == 0.5 and found["random order"] == pytest.approx((-0.3 + 0.04) / 2)


def test_a_clear_hit_is_beyond_noise_and_beyond_random_sets() -> None:
    found = summaries.clear_hits(DAMAGED, ["good", "poor"], 8)
    assert found == {"good": ["en", "zh"], "poor": []}
    without = DAMAGED[DAMAGED["criterion"] != "random order"]
    assert summaries.clear_hits(without, ["poor"], 8) == {"poor": ["zh"]}


def test_sets_ahead_of_the_greedy_search_are_named() -> None:
    assert summaries.ahead_of_greedy(DAMAGED, 8) == {"en": ["good", "poor"]}
    assert summaries.ahead_of_greedy(DAMAGED[DAMAGED["criterion"] != "greedy search"], 8) == {}


def test_additivity_by_kind_leaves_out_what_is_noise() -> None:
    added = pd.DataFrame(
        {
            "criterion": ["a", "b", "a", "single effects", "random order"],
            "budget": [8, 8, 16, 8, 8],
            "predicted": [1.0, 1.0, 1.0, 2.0, 0.001],
            "ratio": [1.0, 3.0, 5.0, 0.5, 999.0],
        }
    )
    found = summaries.additivity(added, ["a", "b"])
    assert found.to_numpy().tolist() == [
        ["criteria", 8, 1.5, 2.0, 2.5],
        ["criteria", 16, 5.0, 5.0, 5.0],
        ["single effects", 8, 0.5, 0.5, 0.5],
    ]
    assert summaries.additivity(added[:0], ["a"]).empty


def test_overall_correlations_are_with_selectivity_highest_first() -> None:
    agreed = pd.DataFrame(
        [
            ("a", "all", "selectivity", "zero", 0.1),
            ("b", "all", "selectivity", "zero", 0.4),
            ("b", "en", "selectivity", "zero", 0.9),
            ("b", "all", "necessity", "zero", 0.9),
            ("b", "all", "selectivity", "mean", math.pi / 4),
        ],
        columns=["criterion", "language", "truth", "set_to", "rho"],
    )
    found = summaries.overall(agreed)
    assert found["criterion"].to_list() == ["b", "a"] and found["rho"].to_list() == [0.4, 0.1]
    assert summaries.overall(agreed, "mean")["rho"].to_list() == [math.pi / 4]
