"""Effects on a learned task: paired with their own training, and held against random sets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_lab.study.taught_effects import (
    beside_draws,
    crossed_interval,
    floor_of,
    right_by_label,
    right_by_people,
    taught_beside_random,
    taught_contrast,
    taught_effects,
    taught_levels,
)
from crane_lab.testbed.unseen import unseen_items

ITEMS = 200


def made_up(effect: float, draws: int = 25, seeds: int = 3, set_to: str = "zero") -> pd.DataFrame:
    """Trainings that differ by seed; a method that adds `effect`, random sets that add nothing.

    How many of `ITEMS` are right is exact; the first ones are.
    """
    rng = np.random.default_rng(0)

    def row(method: str, seed: int, draw: int, change: float, of: str = "zh") -> dict[str, object]:
        about = {"method": method, "of": of, "draw": draw, "n_neurons": 5}
        about |= {"set_to": set_to if of else "", "seed": seed, "language": "zh"}
        n = round(ITEMS * (0.5 + 0.1 * seed + change))
        return {**about, "score": n / ITEMS, "right": "1" * n + "0" * (ITEMS - n)}

    rows = []
    for seed in range(seeds):
        rows.append(row("none", seed, -1, 0.0, ""))
        rows.append(row("CRANE", seed, -1, effect + 0.005 * seed))
        rows += [row("Random as CRANE", seed, d, rng.normal(0, 0.01)) for d in range(draws)]
    return pd.DataFrame(rows)


def test_a_change_is_from_the_same_training() -> None:
    (row,) = taught_effects(made_up(0.1)).to_dict("records")
    assert row["change"] == pytest.approx(0.105) and row["seeds"] == 3
    # Levels differ by 0.1 between trainings, changes hardly; what is left is the items' noise.
    assert 0.05 < row["low"] < 0.105 < row["high"] < 0.16
    assert row["null_masks"] == 25 and row["percentile"] == 100 and row["q"] < 0.05


@pytest.mark.parametrize(("effect", "beyond"), [(-0.1, "q_low"), (0.0, ""), (0.1, "q")])
def test_random_sets_say_whether_an_effect_is_one(effect: float, beyond: str) -> None:
    (row,) = taught_effects(made_up(effect)).to_dict("records")
    assert {name for name in ("q", "q_low") if row[name] < 0.05} == ({beyond} if beyond else set())
    (few,) = taught_effects(made_up(effect, draws=3)).to_dict("records")
    assert few["q"] > 0.05 and few["q_low"] > 0.05
    (none,) = taught_effects(made_up(effect, draws=0)).to_dict("records")
    assert none["null_masks"] == 0 and np.isnan(none["q"]) and np.isnan(none["random"])
    # At a value the few that there are have a mean, and are not counted.
    (at,) = taught_effects(made_up(effect, set_to="mean after")).to_dict("records")
    assert at["draws"] == 25 and abs(at["random"]) < 0.01 and np.isnan(at["q"])


def test_one_training_has_no_interval() -> None:
    table = made_up(0.1)
    alone = taught_effects(table[table["seed"] == 0])
    assert alone["low"].isna().all() and alone["seeds"].to_list() == [1]


def test_what_is_set_after_tuning_is_held_against_the_same_tuned_model() -> None:
    table = made_up(0.1, set_to="")  # tuned sets
    after = table[table["method"] == "CRANE"].copy()
    after["set_to"] = "zero"
    after["right"] = after["right"].str[1:] + "0"  # one item fewer is right
    both = taught_effects(pd.concat([table, after])).set_index("set_to")["change"]
    assert both[""] == pytest.approx(0.105) and both["zero"] == pytest.approx(-1 / ITEMS)


def test_levels_are_those_without_anything() -> None:
    (row,) = taught_levels(made_up(0.1)).to_dict("records")
    assert row["score"] == pytest.approx(0.6) and row["seeds"] == 3 and row["above"]
    (row,) = taught_levels(made_up(0.1), 0.5).to_dict("records")
    assert not row["above"]  # three trainings from 0.5 to 0.7 are no evidence of more


def test_the_floor_is_that_of_the_items_asked() -> None:
    table = made_up(0.1)
    labels = [int(item["label"]) for item in unseen_items("nli", "test")["en"]]
    for n in (60, 200, 600):
        table["right"] = "0" * n
        most = max(Counter(labels[:n]).values())
        assert floor_of("nli", table) == pytest.approx(most / n)
    assert floor_of("nli", table) == pytest.approx(1 / 3) and floor_of("qa", table) == 0


def test_what_is_right_is_told_by_label() -> None:
    labels = [int(item["label"]) for item in unseen_items("nli", "test")["en"]][:ITEMS]
    table = made_up(0.1)
    table["right"] = "".join(str(int(label == 1)) for label in labels)
    found = right_by_label(table)
    assert found["seed"].nunique() == 3 and set(found["language"]) == {"zh"}
    assert found.groupby("label")["right"].mean().to_dict() == {
        "entailment": 0.0,
        "neutral": 1.0,
        "contradiction": 0.0,
    }
    assert found[found["seed"] == 0]["items"].sum() == ITEMS


def test_two_values_are_compared_in_the_same_trainings() -> None:
    zero, low = made_up(0.1), made_up(0.05)
    low["set_to"] = low["set_to"].replace("zero", "P10 after")
    (row,) = taught_contrast(pd.concat([zero, low]), "zero", "P10 after").to_dict("records")
    assert row["difference"] == pytest.approx(0.05) and row["low"] < 0.05 < row["high"]
    assert taught_contrast(zero, "zero", "mean after").empty


@pytest.mark.parametrize("set_to", ["", "zero", "mean after"])
def test_sets_are_compared_with_random_ones_treated_likewise(set_to: str) -> None:
    (row,) = taught_beside_random(made_up(0.1, set_to=set_to)).to_dict("records")
    assert row["set_to"] == set_to
    assert row["draws"] == 25 and row["difference"] == pytest.approx(0.105, abs=0.01)
    assert row["low"] > 0 and row["q"] < 0.05
    assert row["random_low"] < 0 < row["random_high"] < 0.03
    assert taught_beside_random(made_up(0.1, draws=0, set_to="")).empty


@given(st.integers(2, 6), st.integers(2, 40), st.integers(0, 10_000))
def test_an_interval_holds_the_mean_and_does_not_depend_on_order(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (n, m)).astype(float)
    mean, low, high, p = crossed_interval(values)
    assert low <= mean <= high and mean == pytest.approx(values.mean())
    assert (p < 0.05) == (low > 0 or high < 0)
    again = crossed_interval(rng.permutation(rng.permutation(values, axis=0), axis=1))
    assert again == pytest.approx((mean, low, high, p))


def test_intervals_cover_what_other_trainings_and_items_would_give() -> None:
    rng = np.random.default_rng(0)
    hit = 0
    for _ in range(400):
        trainings, items = rng.normal(0, 0.2, (5, 1)), rng.normal(0, 1, (1, 60))
        _, low, high, _ = crossed_interval(trainings + items + rng.normal(0, 0.5, (5, 60)))
        hit += low < 0 < high
    assert 0.93 <= hit / 400 <= 0.995


def test_a_random_set_is_no_more_often_beyond_random_ones_than_it_may_be() -> None:
    rng = np.random.default_rng(1)
    hit = 0
    for _ in range(600):
        sets, noise = rng.normal(0, 1, 5), rng.normal(0, 0.3, (5, 5))
        outcomes = sets[None] + noise  # (trainings, the set and four draws)
        _, low, high, _ = beside_draws(outcomes[:, :1] - outcomes[:, 1:])
        hit += not low < 0 < high
    assert hit / 600 <= 0.07
    assert np.isnan(beside_draws(np.ones((1, 4))).low)  # a single training
    assert np.isnan(beside_draws(np.ones((4, 1))).low)  # a single draw
    assert beside_draws(np.zeros((3, 4))).p == 1


def test_questions_are_told_apart_by_how_many_people_a_story_has() -> None:
    table = made_up(0.0)
    table.loc[table["method"] == "none", "right"] = "110" * 66 + "11"
    found = right_by_people(table).set_index("people")
    assert found["right"].to_list() == [1.0, 1.0, 0.0]
    assert found["fitting"].to_list() == [1, 1 / 2, 1 / 3]
