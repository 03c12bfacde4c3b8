"""Tables on a page."""

from __future__ import annotations

import hashlib
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler


def table(frame: pd.DataFrame, caption: str, formats: dict[Any, Any] | str | None = None) -> Styler:
    """A table for a page: captioned, without its index, numbers written as `formats` says.

    `formats` is what pandas' `Styler.format` takes; NaN becomes a dash. The same frame gives the
    same HTML, which pandas by itself does not promise.
    """
    name = hashlib.sha256((caption + frame.to_csv()).encode()).hexdigest()[:8]
    styled = frame.style.format(formats, na_rep="–").hide(axis="index").set_caption(caption)
    return styled.set_uuid(name)
