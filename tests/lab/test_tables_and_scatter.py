"""Tables repeat to the byte and escape nothing away; scatter panels show the points they get."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from crane_lab.show import figures, style


def test_a_table_has_caption_formats_dashes_and_no_index() -> None:
    frame = pd.DataFrame({"language": ["en", "vi"], "Δ": [0.12345, np.nan]}, index=[71, 72])
    html = figures.table(frame, "Thay đổi 变化", {"Δ": "{:+.2f}"}).to_html()
    assert "<caption>Thay đổi 变化</caption>" in html
    assert "+0.12" in html
    assert "–" in html
    assert ">71<" not in html


def test_the_same_table_gives_the_same_html_and_another_one_other_ids() -> None:
    frame = pd.DataFrame({"n": [1, 2]})
    first = figures.table(frame, "counts").to_html()
    assert first == figures.table(frame.copy(), "counts").to_html()
    ids = [
        set(re.findall(r'id="(T_\w+)"', figures.table(f, "counts").to_html()))
        for f in (frame, frame + 1)
    ]
    assert ids[0] and ids[1] and not ids[0] & ids[1]  # ids on one page must differ


@pytest.mark.parametrize("log", [True, False])
def test_scatter_puts_each_cloud_in_its_panel(log: bool) -> None:
    x = np.array([0.1, 1.0, 10.0])
    panels = {"vi": (x, 2 * x), "zh": (x, np.array([3.0, np.nan, 5.0]))}
    figure = figures.scatter(panels, "mean", "kurtosis", {"vi": "vi: +1.00"}, log)
    first, second = figure.axes[:2]
    assert (first.get_title(), second.get_title()) == ("vi: +1.00", "zh")
    assert {axes.get_xscale() for axes in (first, second)} == {"log" if log else "linear"}
    clouds: list[Any] = [axes.collections[0] for axes in (first, second)]
    np.testing.assert_allclose(clouds[0].get_offsets(), np.stack([x, 2 * x], axis=1))
    np.testing.assert_allclose(clouds[1].get_offsets(), [[0.1, 3.0], [10.0, 5.0]])  # without NaN
    for name, cloud in zip(panels, clouds, strict=True):
        assert to_hex(cloud.get_facecolor()[0]) == style.LANGUAGES[name]
    assert len(figures.png(figure)) > 1000
