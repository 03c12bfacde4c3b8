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
    assert row["null_masks"] == 75 and row["verdict"] == "better"


@pytest.mark.parametrize(
    ("effect", "draws", "verdict"),
    [(-0.1, 25, "worse"), (0.0, 25, "open"), (0.1, 3, "open")],
)
def test_a_verdict_needs_seeds_and_random_sets(effect: float, draws: int, verdict: str) -> None:
    table = made_up(effect, draws)
    assert taught_effects(table)["verdict"].to_list() == [verdict]
    alone = taught_effects(table[table["seed"] == 0])
    assert alone["low"].isna().all() and alone["verdict"].to_list() == ["open"]


def test_tuned_random_sets_count_once_each() -> None:
    effects = taught_effects(made_up(0.1, draws=20, set_to=""))
    assert effects["null_masks"].to_list() == [20]


def test_levels_are_those_without_anything() -> None:
    (row,) = taught_levels(made_up(0.1)).to_dict("records")
    assert row["score"] == pytest.approx(0.6) and row["seeds"] == 3
    assert (row["lowest"], row["highest"]) == (pytest.approx(0.5), pytest.approx(0.7))
