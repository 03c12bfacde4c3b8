"""Effects on a learned task: paired with their own training, and held against random sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crane_lab.study.taught_effects import taught_effects, taught_levels


def made_up(effect: float, draws: int = 25, seeds: int = 3, set_to: str = "zero") -> pd.DataFrame:
    """Trainings that differ by seed; a method that adds `effect`, random sets that add nothing."""
    rng = np.random.default_rng(0)

    def row(method: str, seed: int, draw: int, change: float, of: str = "zh") -> dict[str, object]:
        about = {"method": method, "of": of, "draw": draw, "n_neurons": 5}
        about |= {"set_to": set_to if of else "", "seed": seed, "language": "zh"}
        return {**about, "score": 0.5 + 0.1 * seed + change}

    rows = []
    for seed in range(seeds):
        rows.append(row("none", seed, -1, 0.0, ""))
        rows.append(row("CRANE", seed, -1, effect + 0.001 * seed))
        rows += [row("Random as CRANE", seed, d, rng.normal(0, 0.01)) for d in range(draws)]
    return pd.DataFrame(rows)


def test_a_change_is_from_the_same_training() -> None:
    (row,) = taught_effects(made_up(0.1)).to_dict("records")
    assert row["change"] == pytest.approx(0.101) and row["seeds"] == 3
    assert row["low"] < 0.101 < row["high"] < 0.11  # levels differ by 0.1, changes hardly
    assert row["null_masks"] == 25 and row["percentile"] == 100 and row["q"] < 0.05


@pytest.mark.parametrize(("effect", "beyond"), [(-0.1, "q_low"), (0.0, ""), (0.1, "q")])
def test_random_sets_say_whether_an_effect_is_one(effect: float, beyond: str) -> None:
    (row,) = taught_effects(made_up(effect)).to_dict("records")
    assert {name for name in ("q", "q_low") if row[name] < 0.05} == ({beyond} if beyond else set())
    (few,) = taught_effects(made_up(effect, draws=3)).to_dict("records")
    assert few["q"] > 0.05 and few["q_low"] > 0.05
    (none,) = taught_effects(made_up(effect, draws=0)).to_dict("records")
    assert none["null_masks"] == 0 and np.isnan(none["q"])


def test_one_training_has_no_interval() -> None:
    table = made_up(0.1)
    alone = taught_effects(table[table["seed"] == 0])
    assert alone["low"].isna().all() and alone["seeds"].to_list() == [1]


def test_levels_are_those_without_anything() -> None:
    (row,) = taught_levels(made_up(0.1)).to_dict("records")
    assert row["score"] == pytest.approx(0.6) and row["seeds"] == 3
    assert (row["lowest"], row["highest"]) == (pytest.approx(0.5), pytest.approx(0.7))
