"""Figures and sentences of a real model's causal check, on made-up tables with known answers."""

from __future__ import annotations

import pandas as pd
import pytest

from crane_lab.show import real_model_pages as pages

NAMES = {"en": "English", "zh": "Chinese"}
CRANE = "kurtosis (logit), contrast"


def agreed(rhos: dict[str, float], part: str | None = "random") -> pd.DataFrame:
    rows = [
        {
            "criterion": c, "language": x, "truth": truth, "set_to": "zero", "rho": rho,
            "low": rho - 0.1, "high": rho + 0.1,
        }
        for c, rho in rhos.items()
        for x in (*NAMES, "all")
        for truth in ("necessity", "selectivity")
    ]  # fmt: skip
    found = pd.DataFrame(rows)
    if part is None:
        return found
    return pd.concat([found.assign(part=part), found.assign(part="sample", rho=0.99)])


GEMMA = agreed({CRANE: 0.02, "LAPE": 0.3, "mean |relevance|": -0.4})
TESTBED = agreed({CRANE: 0.2, "LAPE": 0.1, "mean |relevance|": 0.3, "more": 0.9}, None)


TRUST = pd.DataFrame(
    [
        {"language": x, "truth": truth, "set_to": "zero", "halves": 0.4, "all": 0.6}
        for x in NAMES
        for truth in ("necessity", "selectivity")
    ]
)
RANKED = {"testbed": (TESTBED, TRUST), "Gemma 3": (GEMMA, TRUST.assign(all=0.5))}


def test_correlations_beside_the_testbed() -> None:
    shown = pages.correlations_beside(RANKED, NAMES).data
    assert "testbed, LAPE +0.10" in shown and "Gemma 3, LAPE +0.30" in shown
    assert "0.99" not in shown
    assert "more +" not in shown  # which only the testbed has


def test_words_on_correlations() -> None:
    said = pages.correlations_beside_in_words(RANKED, CRANE).data
    assert "Gemma 3: 1 of 3 criteria are clearly above a random order, 1 clearly below" in said
    assert "number 2, +0.02 \\[-0.08, +0.12\\]" in said or "number 2, +0.02 [-0.08, +0.12]" in said
    assert "The order of these 3 criteria" in said and "at -1.00" in said
    assert "at 0.50 to 0.50, so that a criterion without any error could reach 0.71" in said
    places = pages.overall_places(RANKED, CRANE)
    assert places == {"testbed": "2 of 3, not told apart", "Gemma 3": "2 of 3"}


def test_what_so_few_criteria_reach_by_chance() -> None:
    # Tables of Spearman's coefficient have .786 for seven, two-sided, at 5 %.
    assert pages._beyond_chance(7) == pytest.approx(0.786, abs=0.03)


def tops() -> pd.DataFrame:
    rows = []
    for c, at in ((CRANE, 0.0), ("LAPE", 0.004), ("random", 0.001)):
        for x in NAMES:
            low, high = at - 0.001, at + 0.001
            row = {"set_to": "zero", "criterion": c, "language": x, "n": 60, "selectivity": at}
            row |= {"selectivity_low": low, "selectivity_high": high}
            if c != "random":
                row |= {"ahead": at - 0.001, "ahead_low": at - 0.002, "ahead_high": at}
            share = 0.25 if c == "LAPE" else 0.05
            row |= {"significant": share, "significant_low": 0.0, "significant_high": 0.5}
            rows.append(row)
    return pd.DataFrame(rows)


def test_the_first_of_each() -> None:
    assert "LAPE +4.00 millinats, 25%" in pages.tops_figure(tops(), NAMES).data
    said = pages.tops_in_words(tops(), NAMES, CRANE).data
    assert "LAPE (English, Chinese)" in said and "kurtosis" not in said.split("Mean over")[0]
    assert "random neurons +1.00 millinats and 5%" in said
    none = tops().assign(ahead_low=-1.0)
    assert "none. A null result" in pages.tops_in_words(none, NAMES, CRANE).data


def damaged() -> pd.DataFrame:
    rows = []
    for c, seeds, own in ((CRANE, [-1], 0.1), ("LAPE", [-1], 0.5), ("random order", [0, 1], 0.1)):
        for x in NAMES:
            for seed in seeds:
                for budget, share in ((37, 0.001), (369, 0.01)):
                    at = own * budget / 369
                    rows.append(
                        {
                            "criterion": c, "language": x, "seed": seed, "budget": budget,
                            "share": share, "own": at, "own_se": 0.01, "other": 0.1,
                            "difference": at - 0.1, "difference_se": 0.02,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("column", ["own", "other"])
def test_damage_by_share(column: str) -> None:
    shown = pages.damage_by_share(damaged(), NAMES, column, [CRANE, "random order"]).data
    assert f"LAPE {'+0.50' if column == 'own' else '+0.10'}" in shown and "At 1%" in shown


def test_words_on_damage() -> None:
    said = pages.damage_by_share_in_words(damaged(), NAMES, 0.011, CRANE).data
    assert "At 369 neurons (1.0%)" in said and "- English, Chinese: LAPE\n" in said
    assert "CRANE's default score: for no language" in said and "LAPE +0.400" in said


def test_the_sample() -> None:
    made = {
        "sample": {
            "neurons": 900, "random_per_layer": 10, "top": 60, "main_criteria": [CRANE, "LAPE"],
        },
        "effects": {"values": ["zero", "mean"], "exact": 8, "texts": 64},
        "shape": [18, 2048], "settings": {"window": 64},
    }  # fmt: skip
    said = pages.sampled_in_words(made, NAMES).data
    assert "900 of 36,864 neurons (2.4%)" in said and "Set to zero and to their mean" in said
    effects = pd.DataFrame({"random": [True, True, False], "layer": 0, "neuron": [1, 2, 3]})
    for x in NAMES:
        effects[f"zero_{x}"] = [0.001, 0.003, 0.1]
        effects[f"zero_{x}_se"] = 0.0005
        effects[f"zero_{x}_selective"] = [False, True, True]
    shown = pages.effects_summary(effects, NAMES).to_html()
    assert "+2.00" in shown and "50%" in shown and "100%" in shown
