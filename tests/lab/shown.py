"""What a table on a page holds, which pandas' stubs do not know how to ask."""

from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler


def frame_of(table: Styler) -> pd.DataFrame:
    """The data frame behind a table of `figures.table`."""
    known: Any = table
    data: pd.DataFrame = known.data
    return data
