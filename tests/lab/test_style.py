"""One theme and one palette for all figures, set in one place; how a figure gets on a page."""

import ast
import itertools
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import crane_lab
from crane_core.selection import NeuronSet
from crane_lab.show import figures, style

LAB = Path(crane_lab.__file__).parent
VIETNAMESE = (
    "aăâeêioôơuưyđ" + "àằầèềìòồờùừỳ" + "ảẳẩẻểỉỏổởủửỷ" + "ãẵẫẽễĩõỗỡũữỹ" + "áắấéếíóốớúứýạặậẹệịọộợụựỵ"
)
CHINESE = "越南的首都是河内，对吗？是的：“没错”。……《书》、（一）"
#: What a reader with two kinds of cones sees of a linear RGB colour (Machado et al. 2009).
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


def linear(colour):
    c = np.array(mpl.colors.to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return linear(colour) @ (0.2126, 0.7152, 0.0722)


def lab(colour, sight):
    """CIE L*a*b* (D65) of a colour as it is seen."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ np.clip(np.array(SIGHT[sight]) @ linear(colour), 0, 1) / (0.9505, 1, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def colours_in(path):
    """Hexadecimal colours in a module's strings, and what it passes as a colour by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and re.fullmatch("#[0-9a-fA-F]{3,8}", str(node.value)):
            yield node.value
        if isinstance(node, ast.keyword) and re.search(
            "colou?rs?$|^[ef]?c$|cmap|palette", node.arg or ""
        ):
            yield from (
                leaf.value
                for leaf in ast.walk(node.value)
                if isinstance(leaf, ast.Constant) and mpl.colors.is_color_like(leaf.value)
            )


def test_style_is_the_one_source_of_colours() -> None:
    for path in sorted((LAB / "show").glob("*.py")):
        found = set(colours_in(path)) - {"none"}
        assert bool(found) == (path.name == "style.py"), f"{path.name} has colours: {found}"
    for path in sorted(LAB.rglob("*.py")):
        if path.parent.name != "show":
            source = path.read_text(encoding="utf-8")
            assert not re.search("^ *(import|from) (seaborn|matplotlib)", source, re.M), path


def test_a_colour_means_one_thing_and_can_be_told_from_others() -> None:
    """In CIE76, where 2 is a just noticeable difference side by side."""
    palette = {x: style.LANGUAGES[x] for x in ("en", "zh", "vi")}
    palette |= {
        x: c for x, c in style.METHODS.items() if x not in ("kurtosis", "random", "unmasked")
    }
    palette |= {str(i): colour for i, colour in enumerate(style.SERIES)}
    for (a, x), (b, y) in itertools.combinations(palette.items(), 2):
        for sight in SIGHT:
            apart = np.linalg.norm(lab(x, sight) - lab(y, sight))
            assert apart > 12, f"{a} and {b} look alike to {sight}: {apart:.1f}"
    for name, colour in palette.items():
        contrast = (luminance(style.PAPER) + 0.05) / (luminance(colour) + 0.05)
        assert contrast > 2, f"{name} is faint on the figures' ground: {contrast:.1f}"


def test_names_get_the_colour_of_what_they_mean() -> None:
    languages = style.LANGUAGES
    names = ["vi", "reading_vi", "mask for vi", "Vietnamese", "asked in Vietnamese"]
    assert set(style.palette(names).values()) == {languages["vi"]}
    methods = style.METHODS
    names = ["LAPE", "LAPE matched", "LAPE, contrast", "random order", "kurtosis (logit), contrast"]
    assert list(style.palette(names).values()) == [
        methods["LAPE"], methods["LAPE matched"], methods["LAPE"], methods["Random"],
        methods["CRANE"],
    ]  # fmt: skip
    # Other names get colours that no language and no method has, in the order they come.
    mixed = style.palette(["CRANE", "single effects", "en", "greedy search"])
    assert (mixed["single effects"], mixed["greedy search"]) == style.SERIES[:2]
    ordered = list(style.palette([f"layer {i}" for i in range(6)]).values())
    assert ordered == sorted(ordered, key=luminance) and len(set(ordered)) == 6
    assert len(set(style.palette("abcdefghij").values())) == 10
    assert len(set(languages.values())) == len(languages) >= 21


def test_a_language_has_its_colour_in_every_figure() -> None:
    neurons = {"zh": NeuronSet.from_pairs([(0, 1)], (2, 9))}
    drawn = [
        figures.layer_counts(neurons).axes[0].patches[0].get_facecolor(),
        figures.margin_histogram({"reading_zh": [1.0, 2.0]}).axes[0].patches[0].get_facecolor(),
        figures.curves({"zh": ([0, 1], [0, 1])}, "x", "y").axes[0].lines[0].get_color(),
        figures.scatter({"zh": ([1, 2], [3, 4])}, "x", "y").axes[0].collections[0].get_facecolor(),
    ]
    for colour in drawn:
        plain: Any = colour if isinstance(colour, str) else np.reshape(colour, -1)[:3]
        assert mpl.colors.to_hex(plain) == style.LANGUAGES["zh"]


def test_all_glyphs_exist():
    with mpl.rc_context(figures.style()):
        figure = Figure()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns about a glyph it lacks
        for text in (VIETNAMESE, VIETNAMESE.upper(), CHINESE, "Δℓ≤→−×·⏎"):
            with mpl.rc_context(figures.style()):
                figure.text(0.1, 0.5, text)
        figures.png(figure)
    with mpl.rc_context(figures.style()):
        figure.text(0.1, 0.1, "\U00013000")  # a hieroglyph: the check above can fail
    with pytest.warns(UserWarning, match="Glyph 77824"):
        figures.png(figure)


def test_style_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(style, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="install the package mplfonts"):
        figures.style.__wrapped__()


def test_show_carries_the_alternative_text():
    page = figures.show(figures.fig1_overview(), 'Nine steps, "corpora" to <LangSpec-F1>').data
    assert 'alt="Nine steps, &quot;corpora&quot; to &lt;LangSpec-F1&gt;"' in page
    assert re.search(r'<img src="data:image/png;base64,iVBORw0KGgo', page)
    assert "http" not in page and "max-width:100%" in page
    # On a phone the figure scrolls in its own box before its text is too small to read.
    assert "min-width:560px" in page and page.startswith('<div style="overflow-x:auto">')
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="alternative text"):
            figures.show(Figure(), alt)


@pytest.mark.parametrize("colours", [style.SIGNED, "viridis"])
def test_text_on_every_ground_has_contrast(colours):
    for value in np.linspace(0, 1, 101):
        ground = mpl.colormaps[colours](value)
        a, b = luminance(ground[:3]), luminance(style.ink_on(ground))
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) > 3.6
