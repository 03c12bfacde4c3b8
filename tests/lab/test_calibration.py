"""Masks by every read-out: loss, accuracy, grades and LangSpec-F1 of the same sets."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_pipeline import folder, settings_in

from crane_core import metrics
from crane_core.neurons import NeuronSet
from crane_lab.engines.multiple_choice import accuracies
from crane_lab.pipeline import Pipeline
from crane_lab.show import calibration_page
from crane_lab.store import Store
from crane_lab.study import calibration

__all__ = ["folder"]  # a fixture
NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}


@pytest.fixture
def pipeline(folder: Path, tmp_path: Path) -> Pipeline:
    settings = settings_in(folder, task_limit=3, n_perplexity=2)
    return Pipeline(settings, Store(tmp_path / "store"))


def test_first_neurons_of_the_orders_that_are_wanted(pipeline: Pipeline) -> None:
    order = torch.arange(40)
    orders = {("a", "en", -1): order, ("b", "en", -1): order, ("random", "en", 3): order.flip(0)}
    orders["random", "en", 4] = order
    found = calibration.masks_of(orders, ("a", "random"), [2, 8, 64], pipeline.shape)
    assert list(found) == [("a", "en", -1, 2), ("a", "en", -1, 8)] + [
        ("random", "en", 3, n) for n in (2, 8)
    ]
    assert list(found["random", "en", 3, 2]) == list(NeuronSet.from_flat([38, 39], pipeline.shape))


def test_every_mask_by_every_read_out(pipeline: Pipeline) -> None:
    orders = {("a", "zh", -1): torch.arange(30)}
    masks = calibration.masks_of(orders, ("a",), [30], pipeline.shape)
    found = calibration.readouts(pipeline, masks).set_index("language")
    assert list(found.index) == list(pipeline.settings.languages)
    mask = pipeline.masking(masks["a", "zh", -1, 30], "zero")
    before = accuracies(pipeline.items())["accuracy"]
    after = accuracies(pipeline.items(mask))["accuracy"]
    assert calibration.kinds_of(found) == ["knowledge", "reading"]
    assert found.loc["zh", "reading"] == after["reading_zh"]
    assert found.loc["zh", "reading_before"] == before["reading_zh"]
    start, masked = pipeline.losses(), pipeline.losses(mask)
    for x in found.index:
        added = float((masked[x] - start[x]).double().mean())
        assert found.loc[x, "added_loss"] == pytest.approx(added)
    of = {x: float(before[task]) for x, task in pipeline.main_tasks.items()}
    now = {x: float(after[task]) for x, task in pipeline.main_tasks.items()}
    assert found.loc["en", "langspec_f1"] == metrics.langspec_f1(of, now, "zh").f1
    assert found["grade"].isna().all()


def test_pages(pipeline: Pipeline) -> None:
    orders = {("a", x, -1): torch.arange(30) for x in pipeline.settings.languages}
    masks = calibration.masks_of(orders, ("a",), [4, 30], pipeline.shape)
    found = calibration.readouts(pipeline, masks)
    assert "knowledge English up to" in calibration_page.loss_and_accuracy(found, NAMES).data
    html = calibration_page.by_class(found).to_html()
    assert "reading, points lost" in html and "LangSpec-F1 of its mask" in html
    said = calibration_page.in_words(found, "a", 30, NAMES).data
    assert said.count("\n- a, 30 neurons, ") == 3 and "rank correlation" in said


def test_kept_readouts_are_read_if_they_are_of_these_masks_and_measured_otherwise(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = {("a", "en", -1): torch.arange(40)}
    masks, others = (calibration.masks_of(orders, ("a",), [n], pipeline.shape) for n in (4, 30))
    made = calibration.kept_readouts(pipeline, masks, (), tmp_path, recompute=True)
    measured: list[object] = []
    measure = calibration.readouts

    def noted(pipeline: Pipeline, masks: calibration.Masks, graded: Collection[int]) -> object:
        measured.append(masks)
        return measure(pipeline, masks, graded)

    monkeypatch.setattr(calibration, "readouts", noted)
    again = calibration.kept_readouts(pipeline, masks, (), tmp_path)
    assert not measured
    pd.testing.assert_frame_equal(again, made)
    other = calibration.kept_readouts(pipeline, others, (), tmp_path)
    assert measured == [others]
    assert set(other["n_neurons"]) == {30}
    # What was kept is of the first masks still.
    pd.testing.assert_frame_equal(calibration.kept_readouts(pipeline, masks, (), tmp_path), made)
