"""Kurtosis without single windows, and what of a set is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kurtosis
from test_pipeline import folder, settings_in

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_core.selection import normalise, select
from crane_lab.pipeline import Pipeline
from crane_lab.store import Store
from crane_lab.study import influence

__all__ = ["folder"]  # a fixture

VALUES = hnp.arrays(
    np.int64, st.tuples(st.integers(5, 12), st.just(2), st.just(3)), elements=st.integers(-800, 800)
)


@settings(deadline=None)
@given(eighths=VALUES)
def test_without_each_value_in_turn(eighths: np.ndarray) -> None:
    values = eighths / 8
    moments = StreamingMoments((2, 3))
    moments.update(torch.tensor(values))
    found = influence.kurtosis_without(torch.tensor(values), moments).numpy()
    for number in range(len(values)):
        rest = np.delete(values, number, axis=0)
        spread = rest.std(axis=0)
        varies = spread > 2e-3 * values.std(axis=0)
        expected = kurtosis(rest[:, varies], axis=0, fisher=False)
        # What is left is a difference of sums of fourth powers, and rounded as those are.
        rounding = 1e-14 * (np.abs(values).max(axis=0) / np.maximum(spread, 1e-9))[varies] ** 4
        off = np.abs(found[number][varies] / expected - 1)
        assert (off <= 1e-12 + rounding).all(), (off, rounding)


def test_what_never_changes_has_none() -> None:
    values = torch.zeros(6, 1, 1)
    values[0] = 5.0
    moments = StreamingMoments((1, 1))
    moments.update(values)
    found = influence.kurtosis_without(values, moments).flatten()
    assert found[0].isnan() and found[1:].isfinite().all()


@pytest.mark.filterwarnings("ignore:.*no neuron", "ignore:kurtosis of")
def test_sets_without_single_windows(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(folder, threshold=0.5), Store(tmp_path))
    (x, *_) = pipeline.settings.languages
    found = influence.influence(pipeline, x)
    own = pipeline.neuron_sets("intermediate")[x]
    assert list(zip(found.neurons["layer"], found.neurons["neuron"], strict=True)) == list(own)
    # One window left out, computed the long way.
    windows, number = pipeline.windows[x], 1
    kept = torch.cat([windows[:number], windows[number + 1 :]])
    values = neuron_relevance(pipeline.model, kept, **pipeline.how)
    moments = StreamingMoments(values.shape[1:])
    moments.update(values)
    scores = dict(pipeline.normalised("intermediate"))
    scores[x] = normalise(moments.kurtosis(), pipeline.settings.normalisation)
    without = select(scores, x, "contrast", 0.5, shape=pipeline.shape)
    row = found.windows.set_index("window").loc[number]
    assert (row["selected"], row["shared"]) == (len(without), len(without & own))
    least = found.neurons["without"] < found.neurons["kurtosis"]
    assert least.any()
    (summary,) = influence.influence_summary({x: found}).to_dict("records")
    assert summary["n"] == len(own) and 0 <= summary["lost"] <= len(own)
    assert summary["gone"] == len(own) - found.windows["shared"].min()


def test_other_statistics_are_refused(folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(folder, statistic="mean_abs"), Store(tmp_path))
    with pytest.raises(ValueError, match="known for statistic 'kurtosis'"):
        influence.influence(pipeline, pipeline.settings.languages[0])
