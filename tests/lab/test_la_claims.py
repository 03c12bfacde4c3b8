"""The language-arithmetics paper's claims: each verdict turns with its evidence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from crane_lab.audit.claims import FAILS, HOLDS, UNKNOWN, read_claims
from crane_lab.audit.la_claims import LA_CHECKS, LaEvidence, la_verdicts, shipped_evidence
from crane_lab.store import ROOT
from crane_lab.study.steered_tasks import TRANSLATION, TaskPlan
from crane_lab.study.steering import QUESTIONS
from crane_lab.study.task_effects import OTHER, OWN

FOLDER = ROOT / "data" / "published" / "la"
ROWS: dict[str, dict[str, object]] = {
    "late": {"share": 0.8, "chance": 1 / 3, "languages": 9, "low": 0.1, "high": 1, "more": 9},
    "script": {"other_median": 50, "latin_median": 40, "other": 4, "latin": 5},
    "related": {"rho": -0.4},
    "added": {"difference": 0.2, "low": 0.1, "high": 0.3},
    "forced": {"share": 0.9, "gain": 0.8, "random": 0.1, "ahead": 0.8, "ahead_q": 0.01},
    "resources": {"targets": 8, "known_rho": -0.8, "known_q": 0.01, "kin_rho": -0.5, "kin_q": 0.01},
    "tasks": {"change": 0.1, "ahead": 0.1, "ahead_q": 0.01, "random": 0.0},
    "fallback": {"step": 3, "kept": 1, "asked": 10, "low": 0.0, "high": 0.4, "random_kept": 9},
}
ROWS["fallback"] |= {"other": "fr", "to": 8}
#: What makes a row uncertain.
UNSURE: dict[str, dict[str, object]] = {"resources": {"kin_q": 0.5}}
OPPOSITE: dict[str, dict[str, object]] = {
    "late": {"share": 0.2},
    "script": {"other_median": 30},
    "added": {"difference": -0.2},
    "forced": {"ahead": -0.1},
    "resources": {"known_rho": 0.8},
    "tasks": {"change": -0.1, "ahead": -0.1},
}
OF = {"late": "late_layers", "script": "script_specialised", "related": "related_overlap"}
OF |= {"added": "add_beats_set", "forced": "forcing_works", "resources": "high_resource"}
OF |= {"tasks": "tasks", "fallback": "fallback"}


def judged(table: str, **row: object) -> str:
    rows = [{"method": "LAPE", "q": 0.01, **ROWS[table], **row}]
    if table == "tasks":
        rows = [
            {**rows[0], "task": task, "whose": OWN if task == TRANSLATION else OTHER}
            for task in TaskPlan().tasks
        ]
    evidence = LaEvidence(**{table: pd.DataFrame(rows)})  # type: ignore[arg-type]
    return evidence.judged(*LA_CHECKS[OF[table]]).verdict


@pytest.mark.parametrize("table", ROWS)
def test_a_verdict_turns_with_its_evidence(table: str) -> None:
    assert judged(table) == HOLDS
    assert judged(table, **UNSURE.get(table, {"q": 0.5})) == UNKNOWN
    assert judged(table, method="CRANE") == UNKNOWN
    if table in OPPOSITE:
        assert judged(table, **OPPOSITE[table]) == FAILS
    assert LaEvidence().judged(*LA_CHECKS[OF[table]]).verdict == UNKNOWN


def test_forcing_needs_random_sets_beside_it() -> None:
    assert judged("forced", random=float("nan")) == UNKNOWN
    assert judged("forced", ahead_q=0.2) == UNKNOWN


def test_tasks_are_judged_by_all_of_them_and_beyond_random_neurons() -> None:
    assert judged("tasks", change=-0.1, ahead=-0.1, ahead_q=0.5) == UNKNOWN
    assert judged("tasks", change=-0.1, ahead=0.1) == UNKNOWN
    assert judged("tasks", ahead_q=float("nan")) == UNKNOWN
    row = {"method": "LAPE", "task": "nli", "whose": OTHER, "q": 0.01, **ROWS["tasks"]}
    found = LaEvidence(tasks=pd.DataFrame([row])).judged(*LA_CHECKS["tasks"])
    assert found.verdict == UNKNOWN and "Lacking: facts" in found.evidence


def test_success_without_kinship_is_not_success() -> None:
    assert judged("resources", kin_q=float("nan")) == UNKNOWN
    assert judged("resources", kin_rho=0.2) == UNKNOWN


def test_every_claim_has_its_check_and_says_what_is_lacking(tmp_path: Path) -> None:
    assert {claim.check for claim in read_claims(FOLDER, LA_CHECKS, "")} == set(LA_CHECKS)
    for file in (ROOT / "data" / "languages").iterdir():
        if not file.name.startswith(("fallback", "steered_tasks", "known")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    evidence = shipped_evidence(tmp_path, ROOT / QUESTIONS, permutations=99)
    found = la_verdicts({"a model": evidence}, FOLDER).set_index("id")
    for claim in ("fallback", "steering-helps-tasks", "high-resource-steer-better"):
        assert found["a model"][claim] == UNKNOWN
        assert "crane_lab.cli.steer" in found["a model_evidence"][claim]
    assert found["a model"]["late-layers"] == HOLDS


def test_answers_to_other_questions_are_no_evidence(tmp_path: Path) -> None:
    text = (ROOT / QUESTIONS).read_text(encoding="utf-8")
    file = tmp_path / "questions.yaml"
    file.write_text(text.replace('answers: ["Paris"]', 'answers: ["Rome"]', 1), encoding="utf-8")
    with pytest.raises(ValueError, match="made with other questions than"):
        shipped_evidence(ROOT / "data" / "languages", file, permutations=9)
