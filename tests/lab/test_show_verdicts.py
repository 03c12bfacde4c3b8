"""What notebook 10 shows, and what it is made of."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import pandas as pd
import pytest
from page_outputs import caption, cells, rows
from test_audit_testbed import NOTHING, made

from crane_lab import audit
from crane_lab.audit import gather
from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.show import verdict_pages
from crane_lab.stages import comparisons
from crane_lab.study.nulls import Nulls

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
    assert rows(table) == [
        ["holds", "2", "0"],
        ["does not", "0", "1"],
        ["cannot tell", "0", "0"],
        ["–", "0", "1"],
    ]
    short = verdict_pages.at_a_glance(PAGE)
    assert cells(short).columns.to_list() == ["claim", "§", "paper", "testbed"]
    assert rows(short)[0] == ["First.", "3", "holds", "does not"]


def test_each_claim_has_its_criterion_and_both_evidences() -> None:
    first, evidence, second, last = verdict_pages.claim_by_claim(PAGE)
    assert first.data == "**1. First.** (§ 3) Criterion: It must."
    assert evidence.data == (
        '<details class="folded"><summary>Claim 1: verdicts and evidence</summary>\n\n'
        "- The paper's tables: **holds**. 3 of 3.\n- The testbed: **does not**. 0 of 3.\n\n"
        "</details>"
    )
    assert second.data.startswith("**2. Second.**") and "**–**. Not tested here." in last.data


def test_the_verdicts_of_another_run_stand_beside() -> None:
    shipped = PAGE.rename(columns={"testbed": "g", "testbed_evidence": "g_evidence"})
    page = gather.with_shipped(PAGE, shipped)
    assert gather.sources(page) == ["paper", "testbed", "g"]
    assert "- g: **does not**. 0 of 3." in str(verdict_pages.claim_by_claim(page)[1].data)
    shipped.loc[0, "criterion"] = "It must not."
    with pytest.raises(ValueError, match="about other claims"):
        gather.with_shipped(PAGE, shipped)


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
    assert rows(verdict_pages.most_cases_table(found))[0] == [
        "ours, Table 1",
        "CRANE",
        "2",
        "1",
        "0",
    ]


def test_claims_stand_beside_each_other() -> None:
    claims = audit.claims_table()
    page = gather.beside(claims, made(NOTHING | {"CRANE": 0.4}, NOTHING))
    assert page["id"].to_list() == claims["id"].to_list()
    assert page["paper"].to_list() == claims["verdict"].to_list()
    found = page.set_index("id")
    assert found.loc["larger-target-drop", "testbed"] == "holds"
    assert found.loc["bold-is-best", "testbed"] == "–"
    assert "Lacking: masks at other" in str(found.loc["threshold-robust", "testbed_evidence"])


class Made:
    """Outcomes that say where they came from."""

    def __init__(self, of: str) -> None:
        self.of = of

    def scored(self, tasks: dict[str, str] | None = None) -> Made:
        return self

    def table(self, tasks: dict[str, str] | None = None) -> str:
        return f"table of {self.of}"

    def items(self) -> str:
        return f"items of {self.of}"


class Model:
    """A model whose tables are named after it, in the place of a pipeline."""

    settings = Settings(languages=["en", "vi"])
    reading = comparisons.AS_PRINTED
    tables: ClassVar = {"paper": {"en": "mmlu"}, "reading": {"en": "reading_en"}}

    def __init__(self, name: str) -> None:
        self.name = name

    def normalised(self, site: str) -> dict[str, str]:
        return {}

    def rows(self) -> list[str]:
        return [f"masks of {self.name}"]

    def evaluated(self, masks: list[str], losses: bool) -> Made:
        return Made(f"{self.name}, items, {masks[0]}")

    def judged(self, masks: list[str]) -> Made:
        return Made(f"{self.name}, answers, {masks[0]}")


class Nothing:
    """Random masks that say what they are asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def of_rows(self, kind: str, rows: list[str]) -> str:
        return f"{kind} of {self.name}, {rows[0]}"


def test_tables_are_numbered_as_in_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def verdicts(items: str, table: str, tasks: dict[str, str], **how: Any) -> str:
        assert items.removeprefix("items of ") == table.removeprefix("table of ")
        calls.append((tuple(tasks.values()), how["value"], how["nulls"]))
        return table

    monkeypatch.setattr(comparisons, "verdicts", verdicts)
    monkeypatch.setattr(gather, "separation", lambda normalised, threshold: SWEPT)
    base, chat = (cast(Pipeline, Model(name)) for name in ("base", "chat"))
    nulls = [cast(Nulls, Nothing(name)) for name in ("base", "chat")]
    ours = gather.our_outcomes(base, chat, nulls[0], nulls[1])
    expected = {
        "1": "table of base, items, masks of base",
        "2": "table of base, answers, masks of base",
        "3": "table of chat, items, masks of base",
        "4": "table of chat, answers, masks of base",
    }
    assert ours.tables == ours.verdicts == expected
    assert ours.parallel == {"reading": expected["1"]}
    assert ours.names == {"en": "English", "vi": "Vietnamese"}
    assert sorted(calls) == sorted(
        [
            (("mmlu",), "correct", "tasks of base, masks of base"),
            (("reading_en",), "correct", "tasks of base, masks of base"),
            (("mmlu",), "correct", "tasks of chat, masks of base"),
            (("open_en", "open_vi"), "score", "grades of base, masks of base"),
            (("open_en", "open_vi"), "score", "grades of chat, masks of base"),
        ]
    )
    alone = gather.our_outcomes(base, None, nulls[0], None, SWEPT.assign(choice="threshold"))
    assert list(alone.tables) == ["1", "2"] and alone.swept is not None


SWEPT = pd.DataFrame(
    [("1", "en", 10, 0.25, "larger"), ("2", "en", 8, 0.5, "larger")],
    columns=["value", "mask_language", "n_neurons", "langspec_f1", "verdict"],
)
