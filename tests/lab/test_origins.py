"""Every cell that shows something shipped or published says so."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest
from origins import shown

from crane_lab.store import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def test_names_are_followed() -> None:
    cells = [
        "a = read(real_data)\nb = 1",
        "for row in a:\n    c = row + b\nb",
        "display(c)",
        "table_pages.printed_table('1', scores)",
        "read_csv('data/testbed/hand_scored.csv')",
    ]
    assert shown(cells) == [set(), set(), {"shipped"}, {"published"}, {"shipped"}]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_cells_say_where_their_output_comes_from(file: Path) -> None:
    code = [cell for cell in jupytext.read(file).cells if cell.cell_type == "code"]
    for cell, kinds in zip(code, shown([cell.source for cell in code]), strict=True):
        tagged = {"shipped", "published", "nulls"} & set(cell.metadata.get("tags", []))
        assert tagged == kinds, cell.source
