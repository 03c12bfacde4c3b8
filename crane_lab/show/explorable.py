"""What the views that a reader changes are made of: drawings by Bokeh, which a script gives data.

A drawing is laid out here and empty; `book/_static/explorable.js` puts it on the page, with Bokeh's
own script from beside the pages, and each view's script fills its sources by their names.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from bokeh.embed import json_item
from bokeh.models import BasicTickFormatter, ColumnDataSource, FixedTicker, Range1d
from bokeh.models.annotations import Span, Title
from bokeh.plotting import figure
from bokeh.util.paths import bokehjs_path
from markupsafe import Markup
from torch import Tensor

from crane_lab.show.foreign import as_attribute, markup
from crane_lab.show.style import INK, NOTE, PALE, PAPER

#: Bokeh's script, which is put beside the pages.
SCRIPT = bokehjs_path() / "js" / "bokeh.min.js"
#: A drawing of Bokeh's.
Drawing = figure


def drawing(x: str, y: str, *, high: int, title: str = "", **given: Any) -> Drawing:
    """An empty drawing as wide as its place on the page, with axes of these names.

    `high`: pixels; `given`: what else `bokeh.plotting.figure` takes.
    """
    made = figure(
        width=320, height=high, sizing_mode="stretch_width", toolbar_location=None, tools="",
        x_axis_label=x, y_axis_label=y, background_fill_color=PAPER, border_fill_color=None,
        outline_line_color=None, min_border_right=12, min_border_top=8, **given,
    )  # fmt: skip
    for axis in made.axis:
        axis.minor_tick_line_color = None
        axis.axis_line_color = axis.major_tick_line_color = NOTE
        axis.major_label_text_color = axis.axis_label_text_color = INK
        axis.axis_label_text_font_style = "normal"
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        if isinstance(axis.formatter, BasicTickFormatter):
            axis.formatter.use_scientific = False
    made.grid.grid_line_color = PALE
    if title:
        made.title = Title(text=title, text_color=INK, text_font_size="13px")
    return made


def source(name: str, *columns: str) -> ColumnDataSource:
    """Empty columns, which a script fills by this name."""
    return ColumnDataSource({column: [] for column in columns}, name=name)


def span(name: str, dimension: Literal["height", "width"]) -> Span:
    """A dashed line through all of a drawing, "height" upright or "width" level, at 0 at first."""
    return Span(
        name=name, dimension=dimension, location=0, line_color=INK, line_dash=[4, 3], line_width=1
    )


def moving(name: str) -> Range1d:
    """The range of an axis, which a script sets by this name."""
    return Range1d(start=0, end=1, name=name)


def ticks(axis: Any, labels: Mapping[float, str]) -> None:
    """Let an axis have these ticks alone, and these texts at them."""
    axis.ticker = FixedTicker(ticks=list(labels))
    axis.major_label_overrides = dict(labels)


def as_items(drawings: Iterable[Drawing]) -> list[Any]:
    """Drawings as data, in the order of their places."""
    return [json_item(made) for made in drawings]


def places(alts: Iterable[str]) -> Markup:
    """Where drawings come to be, each with its alternative text; not there without scripts."""
    boxes = (
        markup(
            '<div class="explorable-drawing" role="img" aria-label="{alt}"></div>',
            alt=as_attribute(alt),
        )
        for alt in alts
    )
    return markup(
        '<div class="explorable-drawings" hidden>{boxes}</div>', boxes=Markup("").join(boxes)
    )


def alone(said: str, *parts: Markup) -> Markup:
    """What stands there without scripts, and goes when the drawings are there."""
    return markup(
        '<div class="explorable-alone"><p>{said}</p>{parts}</div>',
        said=said,
        parts=Markup("").join(parts),
    )


def in_single_precision(values: Tensor) -> str:
    """Numbers in single precision and base64, as a script reads them."""
    return base64.b64encode(values.float().numpy().astype("<f4").tobytes()).decode()


def weight(*parts: str) -> str:
    """How much a page takes by a view, whose data and pictures are `parts`."""
    own = sum(len(part.encode()) for part in parts) / 1e6
    script = SCRIPT.stat().st_size / 1e6
    return f"This view has {own:.2f} MB of data; the script that draws it has {script:.1f} MB."
