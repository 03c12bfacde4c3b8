"""Numbers in prose: results come from the code that makes them, so none is typed in."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "notebooks").glob("*.py")), *sorted((ROOT / "book").glob("*.md"))]
# A decimal number, or a whole one of a unit that results have; not a section, a link, or a version.
NUMBER = re.compile(
    r"(?<![\w.§{(/-])(\d+\.\d+|\.\d+|\d+(?= ?(?:%|percent\b|nats\b|points\b|times (?:as|more)\b)))"
)
# Not prose: formulas, code, blocks that are shown as they stand.
ASIDE = re.compile(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|```bash.*?```", re.DOTALL)
#: Levels of confidence, chance of four options, what is significant.
CONVENTIONS = {"95", "5", "0.25", "1.96"}
#: Numbers that no result of ours stands behind, page by page (notebooks by number).
EXPLAINED = {
    # A rule of the gate, an exercise's question.
    "00b": {"3", "100", "0.60", "0.57"},
    # Made-up neurons.
    "02": {"98"},
    # The name of a column.
    "02b": {"1"},
    # "say, 0.1".
    "04": {"0.1"},
    # What a factor of perplexity means.
    "04c": {"1.10"},
    # Settings of the paper, the published grades of the unmasked model (rounded).
    "05": {"1.1", "1.9", "3.2"},
    "05b": {"1.1", "1.0"},
    # Published scores rounded, what rounding allows, the exercise's counts.
    "07": {
        "0.37215",
        "0.37225",
        "9",
        "0.46",
        "0.35",
        "0.37",
        "0.2817",
        "0.2233",
        "0.2811",
        "0.2822",
    },
    # A simulation's start, recall rounded.
    "07b": {"0.4"},
    # A setting of the sweep.
    "08b": {"50"},
    # An example.
    "09": {"0.3"},
    # A version.
    "11": {"3.11"},
    # What the paper prints, in an exercise.
    "12b": {"0.68", "0.17"},
    "13": {"61"},
    # An exercise's question.
    "14b": {"2"},
    # The size of the testbed, the ratio of two vocabularies.
    "18": {"2.4"},
    "18c": {"85"},
    # An exercise's made-up sets.
    "19": {"2.4", "0.6", "0.48"},
    # Differences of published scores, which the page computes beside them.
    "method": {"0.1489", "0.1062", "0.0654", "0.0337"},
    # Constants of a definition, LangSpec-F1 printed and recomputed, the paper's settings.
    "choices": {"1.4826", "0.4514", "0.0486", "0.1328", "0.458", "1.1"},
    "intro": {"2.4"},
    "rerun": {"3.11"},
    # Budgets and levels that were set down.
    "set_down": {"1", "10", ".05"},
}


def published() -> str:
    return "\n".join(p.read_text("utf-8") for p in (ROOT / "data" / "published").glob("*.csv"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_result_is_typed_in(page: Path) -> None:
    known = CONVENTIONS | EXPLAINED.get(page.stem, EXPLAINED.get(page.stem.split("_")[0], set()))
    printed = published()
    cells = [c.source for c in jupytext.read(page).cells if c.cell_type == "markdown"]
    found = [n for cell in cells for n in NUMBER.findall(ASIDE.sub("", cell))]
    odd = [n for n in found if n not in known and not ("." in n and n in printed)]
    assert not odd, f"{page.name} has {odd} in its prose: let the code write results"


def test_a_typed_in_result_is_found() -> None:
    said = "CRANE's sets add 0.079 nats, .43 more, 12 % of all and $0.5$; `p = 0.3` is code (§3.4)."
    assert NUMBER.findall(ASIDE.sub("", said)) == ["0.079", ".43", "12"]
