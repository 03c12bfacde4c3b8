"""The claims against our own tables, with outcomes made up so that every verdict is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crane_core.interventions import zero
from crane_core.selection import NeuronSet
from crane_lab import audit
from crane_lab.audit import claims
from crane_lab.audit.claims import NOT_TESTED, UNKNOWN, ClaimVerdict, judge_claims, read_claims
from crane_lab.audit.ours import Ours
from crane_lab.stages import comparisons
from crane_lab.stages.outcomes import Row, Scored, stacked

LANGUAGES = ["en", "zh", "vi"]
NAMES = {"en": "English", "zh": "Chinese", "vi": "Vietnamese"}
N = 200


def outcomes(share: float) -> np.ndarray:
    return (np.arange(N) < round(share * N)).astype(float)


def null(lost: float = 0.0) -> pd.DataFrame:
    """200 random masks that take about `lost` from each language."""
    rng = np.random.default_rng(0)
    return pd.DataFrame({x: 0.8 - lost - rng.normal(0, 0.01, 200) for x in LANGUAGES})


def judged(ours: Ours) -> dict[str, ClaimVerdict]:
    return judge_claims(read_claims(), ours)


def made(
    own: dict[str, float],
    other: dict[str, float],
    lost_at_random: float = 0.0,
    with_nulls: bool = True,
    **more: Any,
) -> Ours:
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
    tasks = {x: x for x in LANGUAGES}
    masks = {
        (method, x): null(lost_at_random)
        for method in ("LAPE", "LAPE matched", "CRANE")
        for x in LANGUAGES
    }
    nulls = masks if with_nulls else {}
    found = comparisons.verdicts(items, scored.table(50), tasks, nulls=nulls)
    return Ours(
        dict.fromkeys("1234", scored),
        dict.fromkeys("1234", scored.table()),
        dict.fromkeys("1234", found),
        {"knowledge": found, "reading": found},
        NAMES,
        dict.fromkeys("1234", nulls),
        dict.fromkeys("1234", tasks),
        **more,
    )


NOTHING = {"LAPE": 0.0, "LAPE matched": 0.0, "CRANE": 0.0, "Random": 0.0}


@pytest.fixture(scope="module")
def perfect() -> dict[str, ClaimVerdict]:
    """CRANE's masks take half of their own language and nothing else; the others do nothing."""
    return judged(made(NOTHING | {"CRANE": 0.4}, NOTHING))


@pytest.fixture(scope="module")
def reversed_() -> dict[str, ClaimVerdict]:
    """LAPE does what CRANE is for, and CRANE hits the other languages."""
    return judged(made(NOTHING | {"LAPE matched": 0.4}, NOTHING | {"CRANE": 0.3}))


GENERAL = [
    *("highest-everywhere", "larger-target-drop", "definition-met", "language-not-task"),
    *("open-ended-base", "chat-nlu-target", "chat-vietnamese", "open-ended-chat"),
    *("transfer-retained", "stronger-than-activation"),
]


@pytest.mark.parametrize("claim", [*GENERAL, "non-target-preserved", "lape-near-zero"])
def test_claims_hold_where_the_method_does_what_it_is_for(
    perfect: dict[str, ClaimVerdict], claim: str
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
    reversed_: dict[str, ClaimVerdict], claim: str
) -> None:
    assert reversed_[claim].verdict == "does not", reversed_[claim].evidence


def test_nothing_clear_is_nothing_told() -> None:
    found = judged(made(NOTHING | {"CRANE": 0.01}, NOTHING | {"CRANE": 0.01}))
    for claim in ("larger-target-drop", "definition-met", "open-ended-base", "transfer-retained"):
        assert found[claim].verdict == "cannot tell", found[claim].evidence


def test_a_drop_that_cannot_be_excluded_is_not_preserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items of 200, which is within what items can do, and so may be up to some 2.5 points."""
    ours = made(NOTHING | {"CRANE": 0.4}, NOTHING | {"CRANE": 0.01})
    assert judged(ours)["non-target-preserved"].verdict == "holds"
    monkeypatch.setattr(claims, "PRESERVED", 0.02)
    found = judged(ours)["non-target-preserved"]
    assert found.verdict == "cannot tell" and "cannot be excluded is 2." in found.evidence


def test_what_random_masks_do_as_well_is_no_finding() -> None:
    """The same outcomes as in `perfect`, but masks of the kind take as much."""
    found = judged(made(NOTHING | {"CRANE": 0.4}, NOTHING, lost_at_random=0.4))
    for claim in ("larger-target-drop", "transfer-retained"):
        assert found[claim].verdict != "holds", found[claim].evidence


def test_without_random_masks_nothing_is_borne_out() -> None:
    found = judged(made(NOTHING | {"CRANE": 0.4}, NOTHING, with_nulls=False))
    for claim in ("highest-everywhere", "larger-target-drop", "transfer-retained"):
        assert found[claim].verdict == "cannot tell"
        assert "Lacking: enough random masks" in found[claim].evidence
    # What contradicts a claim does so without them.
    found = judged(
        made(NOTHING | {"LAPE matched": 0.4}, NOTHING | {"CRANE": 0.3}, with_nulls=False)
    )
    assert found["larger-target-drop"].verdict == "does not"


def test_every_claim_is_judged_or_about_what_is_printed(perfect: dict[str, ClaimVerdict]) -> None:
    claims = audit.read_claims()
    assert set(perfect) == {claim.id for claim in claims}
    printed = {name for name, one in perfect.items() if one.verdict == NOT_TESTED}
    assert printed == {"vietnamese-example", "metric-is-relative", "bold-is-best"}


def test_both_halves_of_the_metrics_criterion_are_run() -> None:
    """A mask that takes every language to chance scores more than any row: the claim fails."""
    small = judged(made(NOTHING | {"CRANE": 0.1, "LAPE": 0.0}, NOTHING | {"LAPE": 0.1}))
    text = small["metric-is-selective"].evidence
    assert small["metric-is-selective"].verdict == "does not", text
    assert "takes every language to its floor would score" in text


SEPARATED = pd.DataFrame(
    {
        "target": LANGUAGES,
        "selected": [150, 160, 170],
        "unrelated": [100.0, 100.0, 100.0],
        "outcome": ["more", "more", "more"],
    }
)


@pytest.mark.parametrize(
    ("outcomes_", "expected"),
    [
        (["more", "more", "more"], "holds"),
        (["more", "open", "more"], "cannot tell"),
        (["more", "less", "more"], "does not"),
    ],
)
def test_separation_is_held_against_independence(outcomes_: list[str], expected: str) -> None:
    separated = SEPARATED.assign(outcome=outcomes_)
    found = judged(made(NOTHING, NOTHING, separated=separated))["clear-separation"]
    assert found.verdict == expected and "150 neurons, 100 if unrelated" in found.evidence


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
    found = judged(made(NOTHING, NOTHING, swept=swept))["threshold-robust"]
    assert found.verdict == expected
    assert "2 thresholds from 1 to 2.5" in found.evidence


def test_evidence_carries_its_intervals(perfect: dict[str, ClaimVerdict]) -> None:
    text = perfect["larger-target-drop"].evidence
    assert "English 40.0 points [" in text and "200 random masks" in text
    assert "clearly higher than both in 3 of 3" in perfect["highest-everywhere"].evidence


def test_without_a_chat_model_its_claims_cannot_be_told() -> None:
    every = made(NOTHING | {"CRANE": 0.4}, NOTHING)
    for_base = {n: of for n, of in every.scored.items() if n in "12"}
    tables = {n: every.tables[n] for n in for_base}
    verdicts = {n: every.verdicts[n] for n in for_base}
    few = dataclasses.replace(every, scored=for_base, tables=tables, verdicts=verdicts)
    found = judged(few)
    told = {name for name, one in found.items() if one.evidence.startswith("Lacking: a chat model")}
    assert told == {"chat-nlu-target", "chat-vietnamese", "open-ended-chat", "transfer-retained"}
    assert {found[name].verdict for name in told} == {UNKNOWN}
    assert found["highest-everywhere"].verdict == "holds"
    assert found["stronger-than-activation"].verdict == UNKNOWN  # it is about all four tables
