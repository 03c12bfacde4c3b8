"""The LSN paper's claims, each with one criterion that is applied to every column alike.

They are listed in `data/published/lsn/claims.yaml`, in our words. A check takes `LsnEvidence`, of
the paper's printed tables or of a model's results (`lsn_evidence`), and gives a verdict with the
numbers behind it. Changes are in points, of accuracy or of exact match; verdicts rest on the
paper's own methods, and what CRANE's and other sets do is said beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crane_lab.audit.claims import (
    FAILS,
    HOLDS,
    UNKNOWN,
    ClaimVerdict,
    read_claims,
    verdict_of,
)
from crane_lab.audit.evidence import Check, Evidence, evidence_verdicts

#: A change of this many points is what the paper calls less than an improvement.
A_POINT = 1.0
_AT_FLOOR = "Lacking: a language that certainly has something to lose."
#: The paper's methods; LAPE matched is LAPE's order at CRANE's number of neurons.
OF_THE_PAPER = ("LAPE", "LAPE matched", "Act Prob 90p")


@dataclass(frozen=True)
class LsnEvidence(Evidence):
    """What one column has to say; None for what it has not, with the reason in `lacking`.

    Tables of changes have the columns `model`, `task`, `method`, `language`, `change` (points),
    `low`, `high`, `outcome` ("more" for a certain gain, "less" for a certain loss, or "open") and
    `above`, whether the language is above its floor without an intervention.

    values : interventions, with `set_to`. after : those on tuned models.
    low_percentile : zero less the tenth percentile, written where it was read.
    tuned : tuned sets, from attention alone. random : tuned sets, from random ones.
    losses : own loss at zero, with `outcome` beyond windows and random sets.
    shared : sets of both methods, with `share` of the smaller set and `chance`.
    text : sets tuned on text, change of loss beyond random sets.
    """

    values: pd.DataFrame | None = None
    after: pd.DataFrame | None = None
    low_percentile: pd.DataFrame | None = None
    tuned: pd.DataFrame | None = None
    random: pd.DataFrame | None = None
    losses: pd.DataFrame | None = None
    shared: pd.DataFrame | None = None
    text: pd.DataFrame | None = None


def lsn_verdicts(
    columns: Mapping[str, LsnEvidence], folder: str | Path = "data/published/lsn"
) -> pd.DataFrame:
    """Every claim with its verdict by column: id, section, claim, criterion, <name>, …_evidence."""
    return evidence_verdicts(columns, read_claims(folder, LSN_CHECKS, "12345678"), LSN_CHECKS)


# --- what is said ---------------------------------------------------------------------------------


def _paper(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["method"].isin(OF_THE_PAPER)]


def _no_gain(table: pd.DataFrame) -> str:
    """No change reaches a point; does not hold if one certainly does."""
    own = _paper(table)
    if own.empty:
        return UNKNOWN
    certain = own["low"] >= A_POINT
    if (certain & (own["outcome"] == "more")).any():
        return FAILS
    return HOLDS if (own["high"] < A_POINT).all() else UNKNOWN


def _counted(table: pd.DataFrame, what: str = "changes") -> str:
    """How many changes gain and lose, which, and the largest gain: the paper's methods, others."""
    parts = []
    for name, own in (
        ("", _paper(table)),
        ("other methods: ", table[~table["method"].isin(OF_THE_PAPER)]),
    ):
        if own.empty:
            continue
        best = own.iloc[int(own["change"].to_numpy().argmax())]
        lost = own[own["outcome"] == "less"]
        some = ""
        if len(lost):
            worst = lost.iloc[int(lost["change"].to_numpy().argmin())]
            some = f", the largest {_said(worst)} ({_about(worst)})"
        parts.append(
            f"{name}of {len(own)} {what}, certain gains: "
            f"{int((own['outcome'] == 'more').sum())}, certain losses: {len(lost)}{some}; the "
            f"largest gain, with an interval of its own, is {_said(best)} "
            f"({_about(best)})"
        )
    return _sentence("; ".join(parts)) if parts else "There is no such row."


def _about(row: pd.Series) -> str:
    tuned = str(row["of"]) if "of" in row and "+" in str(row["of"]) else str(row["language"])
    value = f", {row['set_to']}" if row.get("set_to") else ""
    return f"{row['task']}, {row['method']} {tuned}{value}"


def _said(row: pd.Series) -> str:
    interval = f" [{row['low']:+.1f}, {row['high']:+.1f}]" if row["low"] < row["high"] else ""
    return f"{row['change']:+.1f}{interval} points"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# --- checks ---------------------------------------------------------------------------------------


def _gains(table: pd.DataFrame) -> ClaimVerdict:
    return ClaimVerdict(_no_gain(table), _counted(table))


def _zero_harmless(values: pd.DataFrame) -> ClaimVerdict:
    zero = values[values["set_to"] == "zero"]
    able = zero[zero["above"]]
    said = _counted(able) if len(able) else _AT_FLOOR
    if left := len(zero) - len(able):
        said += f" {left} rows are of languages at the floor, which have nothing to lose."
    own = _paper(able)
    if (own["outcome"] == "less").any():
        return ClaimVerdict(FAILS, said)
    safe = len(own) and (own["low"] > -A_POINT).all()
    return ClaimVerdict(HOLDS if safe else UNKNOWN, said)


def _zero_is_not_deactivation(low_percentile: pd.DataFrame) -> ClaimVerdict:
    own = _paper(low_percentile[low_percentile["above"]])
    if own.empty:
        return ClaimVerdict(UNKNOWN, _AT_FLOOR)
    counts = own["outcome"].value_counts()
    said = (
        f"Zero is certainly better than the tenth percentile as it is read after act_fn in "
        f"{int(counts.get('more', 0))} of {len(own)} rows and certainly worse in "
        f"{int(counts.get('less', 0))}; differences are {own['change'].min():+.1f} to "
        f"{own['change'].max():+.1f} points."
    )
    return ClaimVerdict(verdict_of(own["outcome"].to_list()), said)


def _perplexity_rises(losses: pd.DataFrame) -> ClaimVerdict:
    own = _paper(losses)
    if own.empty:
        return ClaimVerdict(UNKNOWN, "Lacking: sets of the paper's methods.")
    said = "; ".join(
        f"{row['method']} {row['language']} {row['change']:+.3f} nats"
        + (" (beyond random sets)" if row["outcome"] == "more" else "")
        for row in own.to_dict("records")
    )
    return ClaimVerdict(verdict_of(own["outcome"].to_list()), _sentence(said))


def _disjoint(shared: pd.DataFrame) -> ClaimVerdict:
    if shared.empty:
        return ClaimVerdict(UNKNOWN, "Lacking: sets of both methods.")
    said = "; ".join(
        f"{row['language']}: {row['share']:.0%} of the smaller set, {row['chance']:.0%} by chance"
        for row in shared.to_dict("records")
    )
    holds = (shared["share"] < 0.5).all()
    return ClaimVerdict(HOLDS if holds else FAILS, f"Shared {said}.")


def _as_random(random: pd.DataFrame) -> ClaimVerdict:
    own = _paper(random)
    said = _counted(random, "differences from random sets")
    certain = (own["outcome"] != "open") & (own["change"].abs() >= A_POINT)
    if certain.any():
        return ClaimVerdict(FAILS, said)
    within = len(own) and ((own["low"] > -A_POINT) & (own["high"] < A_POINT)).all()
    return ClaimVerdict(HOLDS if within else UNKNOWN, said)


def _both_models(values: pd.DataFrame) -> ClaimVerdict:
    verdicts, parts = [], []
    for model, own in _paper(values).groupby("model", sort=False):
        verdicts.append(_no_gain(own))
        gains = int((own["outcome"] == "more").sum())
        parts.append(f"{model} {verdicts[-1]} ({gains} certain gains)")
    said = f"That no intervention gains a point: {', '.join(parts)}."
    if FAILS in verdicts:
        return ClaimVerdict(FAILS, said)
    if len(verdicts) < 2:
        return ClaimVerdict(UNKNOWN, f"Lacking: a second model. {said}")
    return ClaimVerdict(HOLDS if set(verdicts) == {HOLDS} else UNKNOWN, said)


def _text_helps(text: pd.DataFrame) -> ClaimVerdict:
    said = "; ".join(
        f"{row['method']} {row['language']} {row['change']:+.3f}"
        + (f" [{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] < row["high"] else "")
        + f" (questions right {row['exact']:.2f}, random {row['random_exact']:.2f})"
        for row in text.to_dict("records")
    )
    own = text[text["method"].isin(("LAPE", "LAPE matched"))]
    return ClaimVerdict(
        verdict_of(own["outcome"].to_list()), f"Loss lower than random sets', in nats: {said}."
    )


#: How each claim is checked, by the name in `claims.yaml`: on which table, and by which function.
LSN_CHECKS: dict[str, Check] = {
    "no_gain": ("values", _gains),
    "zero_harmless": ("values", _zero_harmless),
    "zero_is_not_deactivation": ("low_percentile", _zero_is_not_deactivation),
    "perplexity_rises": ("losses", _perplexity_rises),
    "disjoint": ("shared", _disjoint),
    "tuning_no_gain": ("tuned", _gains),
    "tuning_as_random": ("random", _as_random),
    "after_tuning": ("after", _gains),
    "both_models": ("values", _both_models),
    "text_helps": ("text", _text_helps),
}
