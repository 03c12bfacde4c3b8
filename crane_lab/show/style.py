"""How every figure looks: one theme, one palette by language and one by method, set here only.

A drawing function returns a `Figure` of its own, unknown to pyplot; `show` puts it on a page with
an alternative text. The named colours can be told apart without red and green (by Okabe and Ito, or
chosen to lie as far from theirs); ordered things are viridis, signed ones purple to orange.
"""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from IPython.display import HTML
from markupsafe import Markup
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from crane_lab.show.foreign import as_attribute, as_label, marked_up, markup
from crane_lab.texts.languages import NAMES

PAPER = "#fbfaf7"  # opaque, so that a figure reads the same on a light and on a dark page
PLAIN = "#ffffff"
INK = "#262626"  # what seaborn's themes write in
NOTE = "#5b6168"
QUIET = "#8a8f96"
FAINT = "#c9cacc"
PALE = "#e4e3e0"

_MORE = (
    "ar", "bg", "bn", "cs", "de", "el", "es", "fa", "fr", "hi", "id", "it", "ja", "ko", "nl", "pl",
    "pt", "ru", "sw", "ta", "th", "tr", "uk", "ur",
)  # fmt: skip
#: Colour of a language, by its code.
LANGUAGES = {
    **dict(zip(_MORE, map(to_hex, sns.husl_palette(len(_MORE), l=0.6)), strict=True)),
    "en": "#0072b2",
    "zh": "#d55e00",
    "vi": "#009e73",
}
#: Colour of a method, by how its name begins; kurtosis is what CRANE ranks by.
METHODS = {
    "CRANE": "#882255",
    "kurtosis": "#882255",
    "LAPE": "#e69f00",
    "LAPE matched": "#6b4c00",
    "Act Prob 90p": "#56b4e9",
    "Random": QUIET,
    "random": QUIET,
    "Org": INK,
    "unmasked": INK,
}
#: Colours of what is neither, in order of appearance.
SERIES = ("#3232a6", "#7d9a4a", "#802680", "#e377c2")
#: Grounds of cells: what was found, what speaks against it, what is open.
FOUND, AGAINST, OPEN = "#cfe6f5", "#fbdcb9", "#ececec"
SIGNED = "PuOr_r"  # purple below zero, orange above
ORDERED = "viridis"
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHED: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 0.9}
BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
DPI = 144
LEAST = 560  # pixels; a narrower page scrolls the figure instead of shrinking it beyond reading

P = ParamSpec("P")
#: Bold letters; of one family, since the font for Chinese has none and matplotlib would say so.
BOLD: dict[str, Any] = {"weight": "bold", "family": "DejaVu Sans"}


@functools.cache
def style() -> dict[Any, Any]:
    """The settings (matplotlib rcParams) that all figures share: a seaborn theme with our own.

    Latin and Vietnamese are set in DejaVu Sans and Chinese in Noto Sans CJK SC, which the package
    mplfonts carries; its file is registered with this process only. For a figure of your own:
    `with matplotlib.rc_context(figures.style()): ...`

    Raises FileNotFoundError if mplfonts or its font is not installed.
    """
    package = find_spec("mplfonts")
    folder = Path(package.origin).parent if package and package.origin else Path("mplfonts")
    font = folder / "fonts" / "NotoSansCJKsc-Regular.otf"
    if not font.is_file():
        raise FileNotFoundError(f"no font for Chinese at {font}: install the package mplfonts")
    font_manager.fontManager.addfont(str(font))
    own = {
        "axes.facecolor": PAPER, "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
        "axes.edgecolor": QUIET, "grid.color": PALE, "grid.linewidth": 0.6, "axes.linewidth": 0.8,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
        "axes.prop_cycle": cycler(color=SERIES), "figure.constrained_layout.use": True,
        "text.parse_math": False,  # labels may hold anything, also what reads as mathematics
        "font.family": ["DejaVu Sans", font_manager.FontProperties(fname=str(font)).get_name()],
        "font.size": 9, "figure.titlesize": 10, "figure.labelsize": 9, "lines.linewidth": 1.6,
        "xtick.major.size": 3.5, "ytick.major.size": 3.5, "figure.dpi": 100,
    }  # fmt: skip
    return sns.axes_style("ticks") | sns.plotting_context("paper", font_scale=0.95) | own


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the common style; ticks take theirs when first laid out, so that is done here.

    Whatever text the function is given is one that a figure can show (`_drawable`).
    """

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(style()):
            given: Any = [_drawable(value) for value in args]
            named: Any = {name: _drawable(value) for name, value in kwargs.items()}
            figure = draw(*given, **named)
            figure.draw_without_rendering()
        return figure

    return wrapper


def _drawable(value: Any) -> Any:
    """A text as `as_label` has it, with a box for what no font of ours draws; so within others."""
    if isinstance(value, str):
        drawn = _drawn_characters()
        return "".join(c if c in drawn else "□" for c in as_label(value))
    if isinstance(value, Mapping):
        return {_drawable(key): _drawable(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_drawable(entry) for entry in value)
    if isinstance(value, pd.DataFrame):
        value = value.copy()
        for name in value.select_dtypes(["object", "string"]):
            value[name] = value[name].map(_drawable)
        return value.rename(index=_drawable, columns=_drawable)
    return value


@functools.cache
def _drawn_characters() -> frozenset[str]:
    """What the fonts of `style` have a shape for, and the break between lines."""
    files = [font_manager.findfont(family) for family in style()["font.family"]]
    codes = {code for file in files for code in font_manager.get_font(file).get_charmap()}
    return frozenset(map(chr, codes)) | {"\n"}


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(style()):
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> HTML:
    """Display a figure with an alternative text, as the last expression of a notebook's cell.

    Parameters
    ----------
    figure : a figure of this package.
    alt : what the figure shows, for readers who cannot see it; it reaches the book's HTML.

    Raises ValueError if `alt` is empty.
    """
    return marked_up(picture(figure, alt))


def picture(figure: Figure, alt: str) -> Markup:
    """What `show` displays, to stand within other HTML."""
    if not alt.strip():
        raise ValueError("a figure needs an alternative text: say what it shows")
    data = base64.b64encode(png(figure)).decode()
    width = round(figure.get_figwidth() * 100)
    return markup(
        '<div style="overflow-x:auto"><img src="data:image/png;base64,{data}" '
        'alt="{alt}" style="width:{width}px;max-width:100%;'
        'min-width:{least}px;height:auto"></div>',
        data=as_attribute(data),
        alt=as_attribute(alt),
        width=width,
        least=min(width, LEAST),
    )


def palette(names: Iterable[Any]) -> dict[Any, str]:
    """A colour for each name, the same in every figure for a language and for a method.

    "reading_vi" and "mask vi" are coloured as the language they end in (a code, or one of `NAMES`),
    "LAPE, contrast" as the method it begins with. Other names take `SERIES` in their order, and
    evenly spaced hues if they are many; names that all have a number at one end ("layer 3") are
    ordered, and so are their colours.
    """
    names = list(dict.fromkeys(names))
    known = {name: colour for name in names if (colour := _own_colour(str(name)))}
    others = [name for name in names if name not in known]
    if len(others) > 1 and all(_is_numbered(str(name)) for name in others):
        colours: Sequence[Any] = sns.color_palette(ORDERED, len(others))
    elif len(others) > len(SERIES):
        colours = sns.husl_palette(len(others), l=0.6)
    else:
        colours = SERIES
    rest = dict(zip(others, map(to_hex, colours), strict=False))
    return {name: known.get(name) or rest[name] for name in names}


def _is_numbered(name: str) -> bool:
    return name[:1].isdigit() or name[-1:].isdigit()


def _own_colour(name: str) -> str | None:
    begins = [method for method in METHODS if name.startswith(method)]
    if begins:
        return METHODS[max(begins, key=len)]
    last = name.replace(" ", "_").rpartition("_")[2]
    return LANGUAGES.get(next((code for code, full in NAMES.items() if full == last), last))


def ink_on(ground: Sequence[float]) -> str:
    """Dark or white text, whichever has the higher contrast (WCAG) on a colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground[:3]]
    return PLAIN if np.dot(linear, (0.2126, 0.7152, 0.0722)) < 0.22 else INK


def panels(
    count: int,
    size: tuple[float, float],
    margin: tuple[float, float] = (0.3, 0.5),
    columns: int | None = None,
    **layout: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes on one scale, in rows of at most `columns` (default: one row).

    `size` is that of each in inches, with its share of labels, and `margin` is added once. `layout`
    goes to `Figure.subplots`.
    """
    columns = min(columns or count, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(size[0] * columns + margin[0], size[1] * rows + margin[1]))
    grid = figure.subplots(
        rows, columns, squeeze=False, **{"sharex": True, "sharey": True} | layout
    ).ravel()
    for axes in grid[count:]:
        axes.axis("off")
    return figure, list(grid[:count])


def shared_legend(figure: Figure, grid: Sequence[Axes], loc: str, reverse: bool = False) -> None:
    """One legend for the figure, outside its axes, instead of one in each of them."""
    legend = grid[-1].get_legend()
    entries = list(legend.legend_handles) if legend else []
    names = [text.get_text() for text in legend.get_texts()] if legend else []
    for axes in grid:
        if own := axes.get_legend():
            own.remove()
    step = -1 if reverse else 1
    figure.legend(entries[::step], names[::step], loc=loc, ncols=len(names))  # type: ignore[call-overload]


def plain_log(axis: Axis) -> None:
    """Write numbers, not powers of ten, on a logarithmic axis: at 1, 2 and 5 if it spans little."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def minus(text: str) -> str:
    """A number as text, with a minus sign that is as wide as a plus."""
    return text.replace("-", "−")
