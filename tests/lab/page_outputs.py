"""What a reader gets from a function of `crane_lab.show`: alternative texts, cells of tables."""

from __future__ import annotations

import re
from html import unescape

import pandas as pd
from IPython.display import HTML
from pandas.io.formats.style import Styler


def alt(figure: HTML) -> str:
    """The alternative text of a figure."""
    found = re.search(r'<img src="data:image/png;base64,[^"]{1000,}" alt="([^"]+)"', figure.data)
    assert found is not None, figure.data[:200]
    return unescape(found[1])


def caption(table: Styler) -> str:
    """The caption of a table."""
    found = re.search(r"<caption>(.*?)</caption>", table.to_html(), re.DOTALL)
    assert found is not None
    return unescape(found[1])


def cells(table: Styler) -> pd.DataFrame:
    """The table as it is read, every cell a text."""
    html = re.sub(r"<caption>.*?</caption>", "", table.to_html(), flags=re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    texts = [
        [
            unescape(text.strip())
            for text in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        ]
        for row in rows
    ]
    return pd.DataFrame(texts[1:], columns=texts[0])


def rows(table: Styler) -> list[list[str]]:
    """The rows of the table as they are read."""
    return [[str(cell) for cell in row] for row in cells(table).to_numpy()]
