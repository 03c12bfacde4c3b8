"""The hand-sized network: drawn with the numbers it is given, and only if they fit."""

import pytest

from crane_lab.show import figures

LAYERS = [{"x1": (1, 3), "x2": (2, 2)}, {"h": (3, 5)}, {"y": (6, -5)}]


def test_numbers_are_shown() -> None:
    figure = figures.network(LAYERS, [[[1, 0.5]], [[-2]]])
    shown = [text.get_text() for text in figure.axes[0].texts]
    for expected in ("1", "0.5", "−2", "x1, R = 3", "h, R = 5", "y, R = −5"):
        assert expected in shown


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        figures.network(LAYERS, [[[1, 1], [1, 1]], [[2]]])
    with pytest.raises(ValueError, match="do not fit"):
        figures.network(LAYERS, [[[1, 1]]])
