"""What notebooks 06 and 06b show beside the tables, on small data."""

from __future__ import annotations

import pandas as pd
import pytest
from page_outputs import alt, cells

from crane_lab.show import transfer_page

NAMES = {"en": "English", "zh": "Chinese"}


def test_figure_5_has_its_text() -> None:
    assert alt(transfer_page.figure5()) == transfer_page.FIGURE_5


def test_weights_in_a_table() -> None:
    changes = pd.DataFrame([{"layer": 0, "gate_proj": 0.031, "up_proj": 0.02, "down_proj": 0.1}])
    read = cells(transfer_page.weights_table(changes))
    assert list(read.loc[0]) == ["0", "3.1%", "2.0%", "10.0%"]


def test_shared_neurons_in_a_table_and_in_words() -> None:
    shared = pd.DataFrame(
        [
            ("CRANE", "en", 20, 20, 10, 4.0, 1e-5, 0.33),
            ("CRANE", "zh", 0, 20, 0, 0.0, 1.0, 0.0),
            ("LAPE matched", "en", 10, 20, 1, 2.0, 0.5, 0.03),
            ("LAPE matched", "zh", 10, 20, 10, 2.0, 1e-9, 0.5),
        ],
        columns=["method", "language", "n_base", "n_chat", "shared", "expected", "p", "jaccard"],
    )
    assert cells(transfer_page.found_again(shared)).loc[0, "p"] == "<0.001"
    assert transfer_page.shared_in_words(shared, NAMES).data == (
        "2 of 4 pairs share more than chance (p < 0.01). CRANE's searches share 50% of the set "
        "(English), 0% of the set (Chinese); LAPE's 10% (English), 100% (Chinese)."
    )


def test_counterparts_in_a_table() -> None:
    rows = [("open-ended", "base"), ("benchmarks", "chat"), ("benchmarks", "base")]
    counterpart = pd.DataFrame(rows, columns=["read_out", "found_on"]).assign(
        method="CRANE", mask_language="en", n_neurons=1234, en=0.5, zh=0.25,
        langspec_f1=0.3, langspec_f1_low=0.2, langspec_f1_high=0.4,
    )  # fmt: skip
    read = cells(transfer_page.counterpart_table(counterpart, NAMES))
    assert list(read) == ["read-out", "method", "mask", "found on", "n", "en", "zh", "LangSpec-F1"]
    assert read["read-out"].to_list() == ["benchmarks", "benchmarks", "open-ended"]
    assert read["en"].to_list() == ["0.500", "0.500", "0.50"]
    assert read.loc[0, "LangSpec-F1"] == "0.300 [0.200, 0.400]"


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("above", "base model's set in 1 (CRANE, English, benchmarks), and below it in none."),
        ("below", "base model's set in none, and below it in 1 (CRANE, English, benchmarks)."),
    ],
)
def test_counterparts_in_words(verdict: str, expected: str) -> None:
    told = pd.DataFrame(
        [("benchmarks", "CRANE", "en", verdict), ("open-ended", "CRANE", "en", "open")],
        columns=["read_out", "method", "mask_language", "verdict"],
    )
    text = transfer_page.counterpart_in_words(told, NAMES).data
    assert text.startswith("Of 2 comparisons, the set found on the chat model") and expected in text


def test_kept_drops_in_a_table() -> None:
    kept = pd.DataFrame(
        [("CRANE", "en", 0.4, 0.1, 0.25), ("LAPE", "en", -0.1, 0.1, None)],
        columns=["method", "mask", "drop, base", "drop, chat", "kept"],
    )
    read = cells(transfer_page.kept_table({"ours": kept, "published": kept}))
    assert read["source"].to_list() == ["ours", "ours", "published", "published"]
    assert list(read.loc[0]) == ["ours", "CRANE", "en", "+0.400", "+0.100", "25%"]
    assert read.loc[1, "kept"] == "–"
