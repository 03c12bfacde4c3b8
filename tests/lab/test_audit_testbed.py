"""The claims against our own tables, with outcomes made up so that every verdict is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crane_core.interventions import zero
from crane_core.selection import NeuronSet
from crane_lab import audit
from crane_lab.audit.claims import UNKNOWN
from crane_lab.audit.ours import NOT_TESTED, Ours, in_our_tables, threshold_robust
from crane_lab.stages import comparisons
from crane_lab.stages.outcomes import Row, Scored, stacked

LANGUAGES = ["en", "zh", "vi"]
NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
N = 200


def outcomes(share: float) -> np.ndarray:
    return (np.arange(N) < round(share * N)).astype(float)


def made(own: dict[str, float], other: dict[str, float]) -> Ours:
    """Every language at 0.8; a mask takes `own` from its language and `other` from the rest."""
    neurons = NeuronSet.from_pairs([(0, 1)], {"intermediate": (1, 4)})
    before = {x: outcomes(0.8) for x in LANGUAGES}
    rows, after = [], []
    for method in ("LAPE", "LAPE matched", "CRANE", "Random"):
        for target in LANGUAGES:
            for seed in (0, 1) if method == "Random" else (None,):
                rows.append(Row(method, target, zero(neurons), seed))
                lost = {x: own[method] if x == target else other[method] for x in LANGUAGES}
                after.append({x: outcomes(0.8 - lost[x]) for x in LANGUAGES})
    names = {x: [f"{x}{i}" for i in range(N)] for x in LANGUAGES}
    scored = Scored(LANGUAGES, rows, before, after, names)

    def frame(values: dict[str, np.ndarray]) -> pd.DataFrame:
        return pd.concat(pd.DataFrame({"task": x, "correct": values[x]}) for x in LANGUAGES)

    items = stacked(rows, frame(before), [frame(values) for values in after])
    found = comparisons.verdicts(items, scored.table(50), {x: x for x in LANGUAGES})
    return Ours(
        dict.fromkeys("1234", scored),
        dict.fromkeys("1234", scored.table()),
        dict.fromkeys("1234", found),
        {"knowledge": found, "reading": found},
        NAMES,
    )


NOTHING = {"LAPE": 0.0, "LAPE matched": 0.0, "CRANE": 0.0, "Random": 0.0}


@pytest.fixture(scope="module")
def perfect() -> dict[str, audit.ClaimVerdict]:
    """CRANE's masks take half of their own language and nothing else; the others do nothing."""
    return in_our_tables(made(NOTHING | {"CRANE": 0.4}, NOTHING))


@pytest.fixture(scope="module")
def reversed_() -> dict[str, audit.ClaimVerdict]:
    """LAPE does what CRANE is for, and CRANE hits the other languages."""
    return in_our_tables(made(NOTHING | {"LAPE matched": 0.4}, NOTHING | {"CRANE": 0.3}))


GENERAL = [
    *("highest-everywhere", "larger-target-drop", "definition-met", "language-not-task"),
    *("open-ended-base", "chat-nlu-target", "chat-vietnamese", "open-ended-chat"),
    *("transfer-retained", "stronger-than-activation"),
]


@pytest.mark.parametrize("claim", [*GENERAL, "non-target-preserved", "lape-near-zero"])
def test_claims_hold_where_the_method_does_what_it_is_for(
    perfect: dict[str, audit.ClaimVerdict], claim: str
) -> None:
    assert perfect[claim].verdict == "holds", perfect[claim].evidence


@pytest.mark.parametrize(
    "claim",
    [
        *("highest-everywhere", "larger-target-drop", "definition-met", "non-target-preserved"),
        *("open-ended-base", "chat-nlu-target", "open-ended-chat", "stronger-than-activation"),
        *("smaller-side-effects", "chat-vietnamese"),
    ],
)
def test_claims_fail_where_it_does_the_opposite(
    reversed_: dict[str, audit.ClaimVerdict], claim: str
) -> None:
    assert reversed_[claim].verdict == "does not", reversed_[claim].evidence


def test_nothing_clear_is_nothing_told() -> None:
    found = in_our_tables(made(NOTHING | {"CRANE": 0.01}, NOTHING | {"CRANE": 0.01}))
    for claim in ("larger-target-drop", "definition-met", "open-ended-base", "transfer-retained"):
        assert found[claim].verdict == "cannot tell", found[claim].evidence


def test_every_claim_has_a_check_here_or_says_that_it_has_none(
    perfect: dict[str, audit.ClaimVerdict],
) -> None:
    claims = set(audit.claims_table()["id"])
    assert set(perfect) <= claims
    assert claims - set(perfect) == {"threshold-robust"}  # needs masks at several thresholds
    assert perfect["bold-is-best"].verdict == NOT_TESTED


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({"en": ["larger", "larger"], "vi": ["open", "open"]}, "holds"),
        ({"en": ["larger", "larger"], "vi": ["open", "larger"]}, "cannot tell"),
        ({"en": ["larger", "smaller"], "vi": ["open", "open"]}, "does not"),
    ],
)
def test_robust_means_the_same_outcome_at_every_threshold(
    verdicts: dict[str, list[str]], expected: str
) -> None:
    swept = pd.DataFrame(
        [
            (value, x, 10, 0.25, verdict)
            for x, found in verdicts.items()
            for value, verdict in zip(["1", "2.5"], found, strict=True)
        ],
        columns=["value", "mask_language", "n_neurons", "langspec_f1", "verdict"],
    )
    found = threshold_robust(swept, NAMES)
    assert found.verdict == expected
    assert "2 thresholds from 1 to 2.5" in found.evidence


def test_evidence_carries_its_intervals(perfect: dict[str, audit.ClaimVerdict]) -> None:
    text = perfect["larger-target-drop"].evidence
    assert "English 0.400 [" in text and "(Random)" in text
    assert "0 of 12" not in perfect["highest-everywhere"].evidence.split("clearly below")[0]


def test_without_a_chat_model_its_claims_cannot_be_told() -> None:
    every = made(NOTHING | {"CRANE": 0.4}, NOTHING)
    for_base = {n: of for n, of in every.scored.items() if n in "12"}
    tables = {n: every.tables[n] for n in for_base}
    verdicts = {n: every.verdicts[n] for n in for_base}
    found = in_our_tables(Ours(for_base, tables, verdicts, every.parallel, every.names))
    told = {name for name, one in found.items() if "no chat model" in one.evidence}
    assert told == {"chat-nlu-target", "chat-vietnamese", "open-ended-chat", "transfer-retained"}
    assert {found[name].verdict for name in told} == {UNKNOWN}
    assert found["highest-everywhere"].verdict != UNKNOWN
