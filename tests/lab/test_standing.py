"""Where a mask stands among random masks of its size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, percentileofscore

from crane_lab.stages.standing import COLUMNS, decided, held_against, own_less_others, standing

NUMBERS = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


@given(value=st.integers(-6, 6).map(float), null=NUMBERS)
def test_percentile_and_p_value(value: float, null: list[float]) -> None:
    found = standing(value, np.array(null))
    assert found.masks == len(null)
    assert found.percentile == pytest.approx(percentileofscore(null, value, kind="mean"))
    assert found.p == pytest.approx((1 + sum(x >= value for x in null)) / (len(null) + 1))
    assert found.p_low == pytest.approx((1 + sum(x <= value for x in null)) / (len(null) + 1))
    assert 0 < found.p <= 1 and 0 < found.p_low <= 1


def test_a_mask_of_the_kind_is_called_larger_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 200))
    found = [standing(row[0], row[1:]).p <= 0.05 for row in draws]
    assert np.mean(found) == pytest.approx(0.05, abs=0.015)


def test_p_values_are_corrected_over_the_rows_that_have_a_null() -> None:
    null = np.arange(99.0)
    found = held_against([200.0, 95.0, 50.0, 7.0], [null, null, null, np.array([])])
    assert list(found) == list(COLUMNS)
    p = [1 / 100, 5 / 100, 50 / 100]
    assert found["p"].to_list()[:3] == pytest.approx(p)
    assert found["q"].to_list()[:3] == pytest.approx(false_discovery_control(p))
    last = found.iloc[3]
    assert last["null_masks"] == 0 and last.drop("null_masks").isna().all()


def test_larger_needs_items_and_masks() -> None:
    found = pd.DataFrame({"q": [0.01, 0.01, 0.2, 0.9, np.nan], "q_low": [1, 1, 1, 0.01, np.nan]})
    by_items = ["larger", "open", "larger", "smaller", "larger"]
    assert decided(by_items, found) == ["larger", "open", "open", "smaller", "open"]


def test_the_hardest_hit_other_language_counts() -> None:
    changes = pd.DataFrame({"en": [3.0, 1.0], "zh": [1.0, 2.0], "vi": [2.0, 0.0]})
    assert own_less_others(changes, "en", ["en", "zh", "vi"]).tolist() == [1.0, -1.0]
    assert own_less_others(changes.iloc[:0], "en", ["en", "zh", "vi"]).shape == (0,)
