"""The figures of what masks do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crane_lab.show import figures


def test_f1_strip_shows_every_mask_once() -> None:
    figure = figures.f1_strip(
        {"en": [0.1, 0.2, 0.0], "zh": []}, {"CRANE": {"en": 0.4}, "LAPE": {"en": 0.1, "zh": 0.3}}
    )
    (axes,) = figure.axes
    assert [np.shape(dots.get_offsets())[0] for dots in axes.collections] == [3, 0, 1, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["en", "zh"]
    legend = axes.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["random mask", "CRANE", "LAPE"]


def test_stacked_bars_fill_each_row() -> None:
    shares = pd.DataFrame({"gold": [0.7, 0.2], "other": [0.3, 0.8]}, index=["Org", "CRANE · zh"])
    figure = figures.stacked_bars({"问": shares, "hỏi": shares})
    for axes in figure.axes:
        boxes = [bar.get_extents().transformed(axes.transData.inverted()) for bar in axes.patches]
        assert [box.x0 for box in boxes] == pytest.approx([0, 0, 0.7, 0.2])
        assert [box.x1 for box in boxes] == pytest.approx([0.7, 0.2, 1, 1])
    with pytest.raises(ValueError, match="panel 'b' has other rows"):
        figures.stacked_bars({"a": shares, "b": shares.iloc[:1]})


def test_two_heatmaps_can_share_their_colours() -> None:
    table = pd.DataFrame(
        {"method": ["Org", "CRANE"], "mask_language": ["", "en"], "en": [0.8, 0.79], "zh": 0.4}
        | {"langspec_f1": [np.nan, 0.1]}
    )
    own, shared = (figures.fig4_heatmap(table, ["en", "zh"], reach=x) for x in (None, 0.2))
    assert own.axes[0].images[0].norm.vmax == pytest.approx(0.01)
    assert shared.axes[0].images[0].norm.vmax == 0.2
