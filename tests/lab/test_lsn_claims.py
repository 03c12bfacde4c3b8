"""The LSN paper's claims: each verdict follows from its evidence, and turns with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crane_lab.audit import lsn_claims, lsn_evidence
from crane_lab.audit.claims import FAILS, HOLDS, NOT_TESTED, UNKNOWN, ClaimVerdict, read_claims
from crane_lab.audit.lsn_claims import LSN_CHECKS, LsnEvidence
from crane_lab.store import ROOT
from crane_lab.study.contenders import shared_by_methods
from crane_lab.study.taught_effects import taught_effects

FOLDER = ROOT / "data" / "published" / "lsn"


def changes(*rows: tuple[float, float, float, str], **more: object) -> pd.DataFrame:
    """Changes of LAPE at zero in points: value, interval, outcome."""
    found = pd.DataFrame(rows, columns=["change", "low", "high", "outcome"])
    about: dict[str, object] = {
        "model": "m",
        "task": "qa",
        "method": "LAPE",
        "language": "zh",
        "set_to": "zero",
    }
    about |= {"exact": 0.5, "random_exact": 0.5}
    return found.assign(**{**about, "above": True, **more})  # type: ignore[arg-type]


SMALL = (0.1, -0.4, 0.6, "open")
WIDE = (0.5, -3.0, 4.0, "open")
GAIN = (3.0, 1.5, 4.5, "more")
LOSS = (-3.0, -4.5, -1.5, "less")


def judged(check: str, evidence: LsnEvidence) -> ClaimVerdict:
    return evidence.judged(*LSN_CHECKS[check])


def verdict(check: str, **evidence: pd.DataFrame) -> str:
    return judged(check, LsnEvidence(**evidence)).verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "table", "found"),
    [
        ("no_gain", "values", {SMALL: HOLDS, WIDE: UNKNOWN, GAIN: FAILS, LOSS: HOLDS}),
        ("zero_harmless", "values", {SMALL: HOLDS, WIDE: UNKNOWN, GAIN: HOLDS, LOSS: FAILS}),
        (
            "zero_is_not_deactivation",
            "low_percentile",
            {SMALL: UNKNOWN, WIDE: UNKNOWN, GAIN: HOLDS, LOSS: FAILS},
        ),
        ("perplexity_rises", "losses", {SMALL: UNKNOWN, GAIN: HOLDS, LOSS: FAILS}),
        ("tuning_no_gain", "tuned", {SMALL: HOLDS, WIDE: UNKNOWN, GAIN: FAILS, LOSS: HOLDS}),
        ("tuning_as_random", "random", {SMALL: HOLDS, WIDE: UNKNOWN, GAIN: FAILS, LOSS: FAILS}),
        ("after_tuning", "after", {SMALL: HOLDS, WIDE: UNKNOWN, GAIN: FAILS, LOSS: HOLDS}),
        ("both_models", "values", {SMALL: UNKNOWN, WIDE: UNKNOWN, GAIN: FAILS, LOSS: UNKNOWN}),
        ("text_helps", "text", {SMALL: UNKNOWN, GAIN: HOLDS, LOSS: FAILS}),
    ],
)
def test_a_verdict_turns_with_its_evidence(
    check: str, table: str, found: dict[tuple[float, float, float, str], str]
) -> None:
    for row, wanted in found.items():
        assert verdict(check, **{table: changes(row)}) == wanted
    assert judged(check, LsnEvidence()).verdict == UNKNOWN  # nothing is known


def test_a_single_training_bears_nothing_out() -> None:
    alone = changes((0.1, np.nan, np.nan, "open"))
    for check, table in (
        ("no_gain", "values"),
        ("zero_harmless", "values"),
        ("tuning_as_random", "random"),
        ("tuning_no_gain", "tuned"),
        ("after_tuning", "after"),
        ("both_models", "values"),
    ):
        assert verdict(check, **{table: alone}) == UNKNOWN
    both = pd.concat([alone, alone.assign(model="n")])
    assert verdict("both_models", values=both) == UNKNOWN


@pytest.mark.parametrize("check", LSN_CHECKS)
def test_without_a_row_of_the_papers_methods_nothing_holds(check: str) -> None:
    tables = ("values", "after", "low_percentile", "tuned", "random", "losses", "text")
    others = dict.fromkeys(tables, changes(SMALL, method="CRANE", exact=0.5, random_exact=0.5))
    none = dict.fromkeys(tables, changes())
    for evidence in (others, none):
        shared = pd.DataFrame(columns=["language", "share", "chance"])
        assert verdict(check, **evidence, shared=shared) == UNKNOWN


def test_languages_at_chance_say_nothing_of_harm() -> None:
    at_chance = changes(SMALL, above=False)
    assert verdict("zero_harmless", values=at_chance) == UNKNOWN
    assert verdict("zero_is_not_deactivation", low_percentile=at_chance) == UNKNOWN


def test_verdicts_rest_on_the_papers_methods() -> None:
    others = changes(GAIN, method="CRANE")
    both = pd.concat([changes(SMALL), others])
    assert verdict("no_gain", values=both) == HOLDS
    assert (
        "other methods: of 1 changes, certain gains: 1"
        in judged("no_gain", LsnEvidence(both)).evidence
    )


def test_two_models_are_needed_to_speak_of_both() -> None:
    both = pd.concat([changes(SMALL), changes(SMALL, model="n")])
    assert verdict("both_models", values=both) == HOLDS
    wide = pd.concat([changes(WIDE), changes(WIDE, model="n")])
    assert verdict("both_models", values=wide) == UNKNOWN


def test_shared_neurons_are_counted_in_the_smaller_set() -> None:
    row = {"language": "zh", "a": "LAPE matched", "b": "Act Prob 90p", "smaller": 10}
    for shared, wanted in ((1, HOLDS), (8, FAILS)):
        table = pd.DataFrame([{**row, "shared": shared, "chance": 0.5}])
        evidence = lsn_evidence.model_evidence("m", {}, {}, shared=table)
        assert judged("disjoint", evidence).verdict == wanted
        assert judged("no_gain", evidence).evidence == "Lacking: interventions on a tuned model."
    nothing = shared_by_methods({"LAPE matched": {}, "Act Prob 90p": {}})
    evidence = lsn_evidence.model_evidence("m", {}, {}, shared=nothing)
    assert judged("disjoint", evidence).verdict == UNKNOWN
    assert list(evidence.shared) == ["language", "share", "chance"]  # type: ignore[arg-type]


def test_the_printed_tables_are_judged_by_what_they_print() -> None:
    evidence = lsn_evidence.paper_evidence(FOLDER)
    verdicts = lsn_claims.lsn_verdicts({"paper": evidence}, FOLDER).set_index("id")["paper"]
    assert verdicts["zero-harmless"] == FAILS and verdicts["text-helps"] == NOT_TESTED
    assert verdicts["disjoint"] == UNKNOWN  # it is drawn, not printed
    # Points without an interval do not show that there is no difference of a point.
    assert verdicts["tuning-no-gain"] == verdicts["tuning-as-random"] == UNKNOWN
    assert verdicts["no-gain"] == UNKNOWN
    assert evidence.values is not None and len(evidence.values) == 192
    worse = dataclasses.replace(evidence, values=evidence.values.assign(outcome="open"))
    assert judged("zero_harmless", worse).verdict == UNKNOWN


def test_english_is_no_transfer_and_neurons_of_english_count_for_targets() -> None:
    rows = []
    for of, language, right in (
        ("", "zh", "10" * 100),
        ("", "en", "10" * 100),
        ("en", "zh", "11" * 100),
        ("en", "en", "11" * 100),
        ("en+zh", "zh", "11" * 100),
        ("vi", "zh", "11" * 100),
    ):
        for seed in range(2):
            row = {"method": "LAPE matched" if of else "none", "of": of, "draw": -1, "set_to": ""}
            more = {"n_neurons": 5, "seed": seed, "language": language, "score": 0.5}
            rows.append({**row, **more, "right": right})
    evidence = lsn_evidence.model_evidence("m", {}, {"qa": pd.DataFrame(rows)})
    assert evidence.tuned is not None
    assert evidence.tuned[["of", "language"]].to_numpy().tolist() == [["en", "zh"], ["en+zh", "zh"]]


def test_our_outcomes_are_in_points_of_the_language_whose_neurons_they_are() -> None:
    table = trainings(0.2)
    evidence = lsn_evidence.model_evidence("m", {"qa": table}, {})
    assert evidence.values is not None and evidence.tuned is None
    (row,) = evidence.values.to_dict("records")
    effect = taught_effects(table)["change"].iloc[0]
    assert effect == pytest.approx(0.2, abs=0.02)
    assert row["change"] == pytest.approx(100 * effect)
    assert row["outcome"] == "more" and row["above"]
    nothing = lsn_evidence.model_evidence("m", {"qa": trainings(0.0)}, {}).values
    assert nothing is not None and nothing["outcome"].to_list() == ["open"]


def trainings(effect: float) -> pd.DataFrame:
    rng, n, rows = np.random.default_rng(0), 400, []
    for seed in range(4):
        before = rng.random(n) < 0.5
        after = before | (rng.random(n) < 2 * effect)
        for about, right in (
            (("none", "", ""), before),
            (("LAPE", "zh", "zero"), after),
        ):
            row = dict(zip(("method", "of", "set_to"), about, strict=True))
            bits = "".join(str(int(one)) for one in right)
            more = {"draw": -1, "n_neurons": 5, "seed": seed, "language": "zh"}
            rows.append({**row, **more, "score": right.mean(), "right": bits})
    return pd.DataFrame(rows)


def test_the_list_of_claims_is_checked(tmp_path: Path) -> None:
    text = (FOLDER / "claims.yaml").read_text(encoding="utf-8")
    file = tmp_path / "claims.yaml"
    file.write_text(text.replace("check: no_gain", "check: made_up"), "utf-8")
    with pytest.raises(ValueError, match="made_up"):
        lsn_claims.lsn_verdicts({}, tmp_path)
    file.write_text(text.replace("id: zero-harmless", "id: no-gain"), "utf-8")
    with pytest.raises(ValueError, match="twice"):
        lsn_claims.lsn_verdicts({}, tmp_path)
    assert {claim.check for claim in read_claims(FOLDER, LSN_CHECKS, "12345678")} == set(LSN_CHECKS)
