"""Two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crane_lab.cli.compare import compare, comparison_text

TASKS = {"en": "knowledge_en", "zh": "knowledge_zh"}
BOTH = (TASKS, TASKS)


def results(
    folder: Path, kept: float, seed: int = 0, prefix: str = "", tables: tuple[str, ...] = ("1", "2")
) -> Path:
    """Results of a run in which English masks keep the share `kept` of right English answers."""
    rng = np.random.default_rng(7)
    rows = []
    for x in TASKS:
        before = (rng.random(120) < 0.8).astype(float)
        for method, mask, number in [("Org", "", -1), ("CRANE", "en", -1), ("Random", "en", seed)]:
            share = kept if (method, x) == ("CRANE", "en") else 1.0
            after = before * (np.random.default_rng(3).random(120) < share)
            rows += [
                (TASKS[x], x, f"{prefix}{x}-{i}", f"c{i // 2}", bool(a), method, mask, number)
                for i, a in enumerate(after)
            ]
            rows += [(f"reading_{x}", x, f"r{i}", f"r{i}", True, method, mask, number)
                     for i in range(3)]  # fmt: skip
    columns = ["task", "language", "id", "cluster", "correct", "method", "mask_language", "seed"]
    items = pd.DataFrame(rows, columns=columns)
    folder.mkdir(parents=True)
    if "1" in tables:
        items.to_parquet(folder / "items_table1.parquet")
        sizes = [("Org", "", 0), ("CRANE", "en", round(100 * kept)), ("Random", "en", 9)]
        pd.DataFrame(sizes, columns=["method", "mask_language", "n_neurons"]).to_csv(
            folder / "table1.csv", index=False
        )
    if "2" in tables:
        graded = items[items["task"].isin(TASKS.values())].assign(score=items["correct"] * 9 + 1.0)
        graded.loc[graded.index[:1], "score"] = np.nan
        graded.drop(columns="correct").to_parquet(folder / "items_table2.parquet")
    return folder


def indexed(table: pd.DataFrame) -> dict[tuple[str, ...], dict[str, Any]]:
    keys = ["table", "method", "mask_language", "value"]
    rows = table.to_dict("records")
    return {tuple(str(row[key]) for key in keys): {**row} for row in rows}  # type: ignore[dict-item]


def test_a_run_against_itself(tmp_path: Path) -> None:
    folder = results(tmp_path / "a", 0.5)
    table = compare(folder, folder, BOTH, n_boot=100)
    assert table["paired"].all() and set(table["table"]) == {"1", "2"}
    assert (table[["difference", "low", "high"]].abs() < 1e-12).all(axis=None)


def test_what_differs_is_found(tmp_path: Path) -> None:
    a, b = results(tmp_path / "a", 0.5), results(tmp_path / "b", 0.9)
    table = indexed(compare(a, b, BOTH, n_boot=300))
    f1 = table["1", "CRANE", "en", "langspec_f1"]
    assert f1["paired"] and f1["high"] < 0 and f1["first"] > f1["second"]
    assert (f1["n_first"], f1["n_second"]) == (50, 90)
    own = table["1", "CRANE", "en", "en"]
    assert own["low"] > 0 and own["difference"] == pytest.approx(own["second"] - own["first"])
    assert table["1", "Org", "", "en"]["difference"] == 0
    assert table["1", "CRANE", "en", "zh"]["difference"] == 0
    said = comparison_text(compare(a, b, BOTH, n_boot=300))
    assert "Table 1 (the same items, paired)" in said and "neurons 50 -> 90  *" in said


def test_other_items_are_not_paired(tmp_path: Path) -> None:
    a, b = results(tmp_path / "a", 0.5), results(tmp_path / "b", 0.6, prefix="other-")
    other = indexed(compare(a, b, BOTH, n_boot=200))
    same = indexed(compare(a, results(tmp_path / "c", 0.6), BOTH, n_boot=200))
    assert not any(row["paired"] for row in other.values())
    row = ("1", "CRANE", "en", "en")
    assert other[row]["difference"] == pytest.approx(same[row]["difference"])
    assert other[row]["high"] - other[row]["low"] > same[row]["high"] - same[row]["low"]


def test_tables_that_one_run_lacks_are_left_out(tmp_path: Path) -> None:
    a, b = results(tmp_path / "a", 0.5), results(tmp_path / "b", 0.5, tables=("2",))
    assert set(compare(a, b, BOTH, n_boot=20)["table"]) == {"2"}
    c = results(tmp_path / "c", 0.5, tables=("1",))
    with pytest.raises(ValueError, match="no table with a mask in common"):
        compare(b, c, BOTH)
    with pytest.raises(FileNotFoundError, match="no items of Tables 1 to 4"):
        compare(a, tmp_path, BOTH)
    with pytest.raises(ValueError, match="no items of the tasks"):
        compare(a, c, (TASKS, {"en": "mmlu"}))
