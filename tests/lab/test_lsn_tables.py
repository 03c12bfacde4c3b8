"""The LSN paper's tables as printed, and what can be said of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from crane_lab.audit import lsn
from crane_lab.show import lsn_tables_page as page
from crane_lab.store import ROOT

FOLDER = ROOT / lsn.FOLDER


def test_tables_are_whole() -> None:
    sizes = {number: len(lsn.lsn_table(number, FOLDER)) for number in "12345678"}
    assert sizes == {"1": 60, "2": 60, "3": 45, "4": 108, "5": 108, "6": 70, "7": 90, "8": 6}
    row = lsn.lsn_table("5", FOLDER).query(
        "model == 'Mistral Nemo' and method == 'Act Prob 90p' and language == 'zh'"
    )
    printed = row.set_index("set_to")[["exact_match", "f1"]]
    assert tuple(printed.loc["P10"]) == (0, 17.0) and tuple(printed.loc["none"]) == (47, 74.9)


def made_up(before: float, after: float, metric: str = "exact_match") -> pd.DataFrame:
    about = {"model": "m", "method": "LAPE", "language": "vi"}
    rows = [{**about, "set_to": "none", metric: before}, {**about, "set_to": "zero", metric: after}]
    return pd.DataFrame(rows)


def test_changes_know_what_noise_can_do() -> None:
    verdicts = {after: lsn.lsn_changes(made_up(56, after))["verdict"][0] for after in (57, 61, 10)}
    # A point of some 200 items is always within noise, five may be, forty-six cannot be.
    assert verdicts == {57: "cannot", 61: "either", 10: "certain"}
    (row,) = lsn.lsn_changes(made_up(80.5, 77.7, "accuracy")).to_dict("records")
    assert row["change"] == -2.8 and row["p_low"] < row["p_high"]
    fewer = lsn.lsn_changes(made_up(56, 61), {"exact_match": (100,)})
    assert fewer["p_low"][0] > lsn.lsn_changes(made_up(56, 61))["p_low"][0]
    # Certain on 238 items, and not on 173: not known to be certain.
    sizes = [{"exact_match": n} for n in ((238,), (173,), (173, 238))]
    found = [lsn.lsn_changes(made_up(38, 26), n)["verdict"][0] for n in sizes]
    assert found == ["certain", "either", "either"]


def test_counts_and_sentences_follow_the_numbers() -> None:
    changes = lsn.lsn_changes(lsn.lsn_table("5", FOLDER))
    counts = lsn.lsn_counts(changes).set_index("set to")
    assert len(changes) == 96 and counts["rows"].eq(12).all()
    for value, own in changes.groupby("set_to"):
        assert counts["worse"].to_dict()[value] == (own["change"] < 0).sum()
    zero = changes[(changes["set_to"] == "zero") & (changes["verdict"] == "certain")]
    said = str(page.lsn_zero_in_words(changes, "points").data)
    for method in ("LAPE", "Act Prob 90p"):
        assert f"{method} in {(zero['method'] == method).sum()} of 6" in said
    better = changes["change"].gt(0).sum()
    said = page.lsn_improves_in_words([changes]).data
    assert f"{better} for the better" in said and "Of 96 printed" in said
    assert "zero" in page.lsn_counts_table(counts.reset_index(), "x").to_html()


def test_slips_are_found(tmp_path: Path) -> None:
    for number in "12345678":
        lsn.lsn_table(number, FOLDER).to_csv(tmp_path / f"table{number}.csv", index=False)
    before = lsn.lsn_slips(tmp_path)
    assert any("73.5 and 73.6" in slip for slip in before)
    assert any("Mistral Nemo, vi, 2 times" in slip for slip in before)
    assert any("73.5 and 73.6" in slip and "Table 2" in slip for slip in before)
    assert any("33 (63.2) for Llama 3.1, LAPE, zh under both zero and P10" in s for s in before)
    assert any("LAPE, vi, P75: exact match goes by -5 points and F1 by +3.2" in s for s in before)
    assert any("no hi for Mistral Nemo" in slip for slip in before)
    assert any("Mistral Nemo, which is not in Table 7" in slip for slip in before)
    table = lsn.lsn_table("1", FOLDER)
    table["accuracy"] += (table.index == 3).astype(float)
    table.to_csv(tmp_path / "table1.csv", index=False)
    after = lsn.lsn_slips(tmp_path)
    assert set(after) - set(before) == {"1 cells of Table 1 differ from Table 4."}
    assert "Table 8" in page.lsn_slips_list(before).data and page.lsn_slips_list([]).data


def test_percentiles_were_read_before_the_activation_function() -> None:
    found = lsn.lsn_before_act_fn(FOLDER).set_index("statistic")["out_of_reach"]
    assert found["P10"].all() and not found["P90"].any()


def test_tuning_is_compared_with_random_neurons() -> None:
    xnli = lsn.lsn_changes(lsn.lsn_table("4", FOLDER))
    said = page.lsn_tuning_in_words(xnli, lsn.lsn_table("7", FOLDER), lsn.lsn_table("8", FOLDER))
    plain = lsn.lsn_table("7", FOLDER).query("set_to == 'none'")
    by_language = plain.groupby("language")["accuracy"]
    spread = (by_language.max() - by_language.min()).max()
    assert f"at most {float(spread):.1f} points" in str(said.data)


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lsn.lsn_table("1", tmp_path)
