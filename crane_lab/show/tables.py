"""Tables on a page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from pandas.io.formats.style import Styler

from crane_lab.show.foreign import as_html
from crane_lab.show.style import AGAINST, FOUND, OPEN

#: Grounds of cells that say what came of a comparison; the words say it, too.
GROUNDS = {
    "holds": FOUND,
    "does not": AGAINST,
    "cannot tell": OPEN,
    "clearly most": FOUND,
    "clearly less than another": AGAINST,
    "not clearly most": OPEN,
    "above": FOUND,
    "within": AGAINST,
    "too few masks": OPEN,
}


class _Scoped(Styler):
    """A table whose heads say that they are those of columns, which pandas leaves out."""

    def to_html(self, *given: Any, **named: Any) -> Any:
        html = super().to_html(*given, **named)
        # Texts in cells are escaped, so "<th " begins a head and nothing else.
        return html.replace("<th ", '<th scope="col" ') if isinstance(html, str) else html


def table(frame: pd.DataFrame, caption: str, formats: dict[Any, Any] | str | None = None) -> Styler:
    """A table for a page: captioned, without its index, numbers written as `formats` says.

    Cells that are one of `GROUNDS` are coloured.

    `formats` is what pandas' `Styler.format` takes; NaN becomes a dash. Texts in cells, heads and
    the caption are shown as they stand, long ones in cells cut. The same frame gives the same HTML,
    which pandas by itself does not promise.
    """
    frame = frame.reset_index(drop=True)  # which is not shown, and would have to be unique
    content = (caption + frame.to_csv()).encode(errors="surrogatepass")
    shown = {
        column: form if is_numeric_dtype(frame[column]) else _as_text(form)
        for column in frame
        for form in [formats.get(column) if isinstance(formats, dict) else formats]
    }
    styled: Styler = _Scoped(frame).format(shown, na_rep="–").format_index(as_html, axis="columns")
    if frame.columns.is_unique:  # pandas colours no other
        styled = styled.map(_ground)
    styled = styled.hide(axis="index").set_caption(as_html(caption, None))
    return styled.set_uuid(hashlib.sha256(content).hexdigest()[:8])


def p_value(value: float) -> str:
    """A probability as a table has it."""
    return "–" if value != value else "<0.001" if value < 0.001 else f"{value:.3f}"


def _ground(value: Any) -> str:
    """The ground of a cell that says what came of a comparison."""
    colour = GROUNDS.get(value) if isinstance(value, str) else None
    return f"background-color: {colour}" if colour else ""


def _as_text(form: Any) -> Callable[[Any], str]:
    """How a cell is written that may hold anything: as `form` says, then as HTML."""

    def written(value: Any) -> str:
        if callable(form):
            return as_html(form(value))
        return as_html((form or ("{:.6f}" if isinstance(value, float) else "{}")).format(value))

    return written


def written_intervals(
    frame: pd.DataFrame, value: str, low: str = "low", high: str = "high", form: str = "{:+.3f}"
) -> list[str]:
    """A column's values, each with its interval; alone where there is none, "" for NaN."""
    return [
        ("" if v != v else form.format(v))
        if a != a
        else f"{form.format(v)} [{form.format(a)}, {form.format(b)}]"
        for v, a, b in zip(frame[value], frame[low], frame[high], strict=True)
    ]
