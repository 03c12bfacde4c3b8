"""What notebook 10 shows, and what it is made of."""

from __future__ import annotations

import pandas as pd
import pytest
from page_outputs import caption, cells

from crane_lab import audit
from crane_lab.audit import gather
from crane_lab.audit.ours import Ours
from crane_lab.show import verdict_pages

PAGE = pd.DataFrame(
    [
        ("a", "3", "First.", "It must.", "holds", "3 of 3.", "does not", "0 of 3."),
        ("b", "4", "Second.", "It may.", "holds", "All.", "–", "Not tested here."),
    ],
    columns=[
        *("id", "section", "claim", "criterion", "paper", "paper_evidence"),
        *("testbed", "testbed_evidence"),
    ],
)


def test_verdicts_are_counted_there_and_here() -> None:
    table = verdict_pages.counts(PAGE)
    assert caption(table) == "2 claims at a glance (–: not to be tested there)"
    assert cells(table).to_numpy().tolist() == [
        ["holds", "2", "0"],
        ["does not", "0", "1"],
        ["cannot tell", "0", "0"],
        ["–", "0", "1"],
    ]
    short = cells(verdict_pages.at_a_glance(PAGE))
    assert short.columns.to_list() == ["claim", "§", "paper", "testbed"]
    assert short.loc[0].to_list() == ["First.", "3", "holds", "does not"]


def test_each_claim_has_its_criterion_and_both_evidences() -> None:
    first, second = verdict_pages.claim_by_claim(PAGE)
    assert first.data == (
        "**1. First.** (§ 3)\n\n- Criterion: It must.\n- The paper's tables: **holds**. 3 of 3.\n"
        "- The testbed: **does not**. 0 of 3."
    )
    assert second.data.startswith("**2. Second.**") and "**–**. Not tested here." in second.data


def test_masks_are_counted_by_whom_they_hit_most() -> None:
    ours = pd.DataFrame(
        [("CRANE", "larger"), ("CRANE", "larger"), ("CRANE", "open"), ("Act", "smaller")],
        columns=["method", "relative"],
    )
    published = pd.DataFrame(
        [("Table 2", "CRANE", "yes"), ("Table 2", "CRANE", "no"), ("Table 2", "CRANE", "open")],
        columns=["table", "method", "relative"],
    )
    found = gather.most_cases({"1": ours, "4": ours[:1]}, published)
    assert found.to_numpy().tolist() == [
        ["ours, Table 1", "CRANE", 2, 1, 0],
        ["ours, Table 1", "Act", 0, 0, 1],
        ["ours, Table 4", "CRANE", 1, 0, 0],
        ["published, Table 2", "CRANE", 1, 1, 1],
    ]
    assert found.columns.to_list() == ["source", "method", "most", "open", "another more"]
    shown = cells(verdict_pages.most_cases(found))
    assert shown.loc[0].to_list() == ["ours, Table 1", "CRANE", "2", "1", "0"]


def test_claims_stand_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = audit.claims_table()
    told = audit.claims_table()["id"].iloc[0]
    verdict = gather.threshold_robust(SWEPT, {"en": "English"})
    asked = []

    def on_testbed(ours: Ours, more: dict[str, object]) -> dict[str, object]:
        asked.append(set(more))
        return {told: verdict}

    monkeypatch.setattr(gather, "on_testbed", on_testbed)
    ours = Ours({}, {}, {}, {}, {"en": "English"})
    page = gather.beside(claims, ours)
    gather.beside(claims, ours, SWEPT.assign(choice="threshold"))
    assert asked == [set(), {"threshold-robust"}]
    assert page["id"].to_list() == claims["id"].to_list()
    assert page["paper"].to_list() == claims["verdict"].to_list()
    assert page.loc[0, ["testbed", "testbed_evidence"]].to_list() == [
        *(verdict.verdict, verdict.evidence),
    ]
    assert set(page.loc[1:, "testbed"]) == {"–"}
    assert set(page.loc[1:, "testbed_evidence"]) == {"Not tested here."}


SWEPT = pd.DataFrame(
    [("1", "en", 10, 0.25, "larger"), ("2", "en", 8, 0.5, "larger")],
    columns=["value", "mask_language", "n_neurons", "langspec_f1", "verdict"],
)
