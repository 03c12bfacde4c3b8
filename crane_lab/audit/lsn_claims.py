"""The LSN paper's claims, each with one criterion that is applied to every column alike.

They are listed in `data/published/lsn/claims.yaml`, in our words. A check takes `LsnEvidence`, of
the paper's printed tables or of a model's results (`lsn_evidence`), and gives a verdict with the
numbers behind it. Changes are in points, of accuracy or of exact match; verdicts rest on the
paper's own methods, and what CRANE's and other sets do is said beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from crane_lab.audit.claims import (
    FAILS,
    HOLDS,
    NOT_TESTED,
    UNKNOWN,
    Claim,
    ClaimVerdict,
    verdict_of,
)

#: A change of this many points is what the paper calls less than an improvement.
A_POINT = 1.0
_AT_CHANCE = "Lacking: a language that certainly has something to lose."
#: The paper's methods; LAPE matched is LAPE's order at CRANE's number of neurons.
OF_THE_PAPER = ("LAPE", "LAPE matched", "Act Prob 90p")


@dataclass(frozen=True)
class LsnEvidence:
    """What one column has to say; None for what it has not, with the reason in `lacking`.

    Tables of changes have the columns `model`, `task`, `method`, `language`, `change` (points),
    `low`, `high` (printed numbers are taken as they are), `outcome` ("more" for a
    certain gain, "less" for a certain loss, or "open") and `above`, whether the language is above
    its floor without an intervention.

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
    lacking: Mapping[str, str] | None = None

    def without(self, name: str) -> ClaimVerdict:
        """The verdict where a table is missing."""
        reasons = self.lacking or {}
        return ClaimVerdict(UNKNOWN, f"Lacking: {reasons.get(name, 'such results')}.")


def read_lsn_claims(folder: str | Path = "data/published/lsn") -> list[Claim]:
    """The claims in `claims.yaml`, checked.

    Raises ValueError for a claim without a check, or an id that is there twice.
    """
    found = []
    for entry in yaml.safe_load((Path(folder) / "claims.yaml").read_text(encoding="utf-8")):
        if entry["check"] not in LSN_CHECKS:
            known = list(LSN_CHECKS)
            raise ValueError(f"claim {entry['id']}: no check {entry['check']!r}: {known}")
        text = {key: " ".join(str(entry[key]).split()) for key in ("claim", "criterion")}
        section = str(entry["section"])
        claim = Claim(entry["id"], section, text["claim"], (), text["criterion"], entry["check"])
        found.append(claim)
    if len({claim.id for claim in found}) != len(found):
        raise ValueError("claims.yaml has an id twice")
    return found


def lsn_verdicts(
    columns: Mapping[str, LsnEvidence], folder: str | Path = "data/published/lsn"
) -> pd.DataFrame:
    """Every claim with its verdict by column: id, section, claim, criterion, <name>, …_evidence."""
    rows = []
    for claim in read_lsn_claims(folder):
        row = {name: getattr(claim, name) for name in ("id", "section", "claim", "criterion")}
        for name, evidence in columns.items():
            found = LSN_CHECKS[claim.check](evidence)
            row |= {name: found.verdict, f"{name}_evidence": found.evidence}
        rows.append(row)
    return pd.DataFrame(rows)


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
            f"{name}of {len(own)} {what} {int((own['outcome'] == 'more').sum())} are certain gains "
            f"and {len(lost)} certain losses{some}; the largest gain is {_said(best)} "
            f"({_about(best)})"
        )
    return _sentence("; ".join(parts)) if parts else "There is no such row."


def _about(row: pd.Series) -> str:
    tuned = str(row["of"]) if "of" in row and "+" in str(row["of"]) else str(row["language"])
    value = f", {row['set_to']}" if row.get("set_to") else ""
    return f"{row['task']}, {row['method']} {tuned}{value}"


def _said(row: pd.Series, name: str = "change") -> str:
    interval = f" [{row['low']:+.1f}, {row['high']:+.1f}]" if row["low"] < row["high"] else ""
    return f"{row[name]:+.1f}{interval} points"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


# --- checks ---------------------------------------------------------------------------------------


def _check_no_gain(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.values is None:
        return evidence.without("values")
    return ClaimVerdict(_no_gain(evidence.values), _counted(evidence.values))


def _check_zero_harmless(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.values is None:
        return evidence.without("values")
    zero = evidence.values[evidence.values["set_to"] == "zero"]
    able = zero[zero["above"]]
    said = _counted(able) if len(able) else _AT_CHANCE
    if left := len(zero) - len(able):
        said += f" {left} rows are of languages at the floor, which have nothing to lose."
    own = _paper(able)
    if (own["outcome"] == "less").any():
        return ClaimVerdict(FAILS, said)
    safe = len(own) and (own["low"] > -A_POINT).all()
    return ClaimVerdict(HOLDS if safe else UNKNOWN, said)


def _check_zero_is_not_deactivation(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.low_percentile is None:
        return evidence.without("low_percentile")
    own = _paper(evidence.low_percentile[evidence.low_percentile["above"]])
    if own.empty:
        return ClaimVerdict(UNKNOWN, _AT_CHANCE)
    counts = own["outcome"].value_counts()
    said = (
        f"Zero is certainly better than the tenth percentile as it is read after act_fn in "
        f"{int(counts.get('more', 0))} of {len(own)} rows and certainly worse in "
        f"{int(counts.get('less', 0))}; differences are {own['change'].min():+.1f} to "
        f"{own['change'].max():+.1f} points."
    )
    return ClaimVerdict(verdict_of(own["outcome"].to_list()), said)


def _check_perplexity_rises(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.losses is None:
        return evidence.without("losses")
    own = _paper(evidence.losses)
    if own.empty:
        return ClaimVerdict(UNKNOWN, "Lacking: sets of the paper's methods.")
    said = "; ".join(
        f"{row['method']} {row['language']} {row['change']:+.3f} nats"
        + (" (beyond random sets)" if row["outcome"] == "more" else "")
        for row in own.to_dict("records")
    )
    return ClaimVerdict(verdict_of(own["outcome"].to_list()), _sentence(said))


def _check_disjoint(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.shared is None:
        return evidence.without("shared")
    found = evidence.shared
    if found.empty:
        return ClaimVerdict(UNKNOWN, "Lacking: sets of both methods.")
    said = "; ".join(
        f"{row['language']}: {row['share']:.0%} of the smaller set, {row['chance']:.0%} by chance"
        for row in found.to_dict("records")
    )
    holds = (found["share"] < 0.5).all()
    return ClaimVerdict(HOLDS if holds else FAILS, f"Shared {said}.")


def _check_tuning_no_gain(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.tuned is None:
        return evidence.without("tuned")
    return ClaimVerdict(_no_gain(evidence.tuned), _counted(evidence.tuned))


def _check_tuning_as_random(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.random is None:
        return evidence.without("random")
    own = _paper(evidence.random)
    said = _counted(evidence.random, "differences from random sets")
    certain = (own["outcome"] != "open") & (own["change"].abs() >= A_POINT)
    if certain.any():
        return ClaimVerdict(FAILS, said)
    if own.empty:
        return ClaimVerdict(UNKNOWN, said)
    within = ((own["low"] > -A_POINT) & (own["high"] < A_POINT)).all()
    return ClaimVerdict(HOLDS if within else UNKNOWN, said)


def _check_after_tuning(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.after is None:
        return evidence.without("after")
    return ClaimVerdict(_no_gain(evidence.after), _counted(evidence.after))


def _check_both_models(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.values is None:
        return evidence.without("values")
    verdicts, parts = [], []
    for model, own in _paper(evidence.values).groupby("model", sort=False):
        verdicts.append(_no_gain(own))
        gains = int((own["outcome"] == "more").sum())
        parts.append(f"{model} {verdicts[-1]} ({gains} certain gains)")
    said = f"That no intervention gains a point: {', '.join(parts)}."
    if FAILS in verdicts:
        return ClaimVerdict(FAILS, said)
    if len(verdicts) < 2:
        return ClaimVerdict(UNKNOWN, f"Lacking: a second model. {said}")
    return ClaimVerdict(HOLDS if set(verdicts) == {HOLDS} else UNKNOWN, said)


def _check_text_helps(evidence: LsnEvidence) -> ClaimVerdict:
    if evidence.text is None:
        reasons = evidence.lacking or {}
        if reasons.get("text") == NOT_TESTED:
            return ClaimVerdict(NOT_TESTED, "Nothing is tuned on text there.")
        return evidence.without("text")
    said = "; ".join(
        f"{row['method']} {row['language']} {row['change']:+.3f}"
        + (f" [{row['low']:+.3f}, {row['high']:+.3f}]" if row["low"] < row["high"] else "")
        + f" (questions right {row['exact']:.2f}, random {row['random_exact']:.2f})"
        for row in evidence.text.to_dict("records")
    )
    own = evidence.text[evidence.text["method"].isin(("LAPE", "LAPE matched"))]
    return ClaimVerdict(
        verdict_of(own["outcome"].to_list()), f"Loss lower than random sets', in nats: {said}."
    )


#: How each claim is checked, by the name in `claims.yaml`.
LSN_CHECKS: dict[str, Callable[[LsnEvidence], ClaimVerdict]] = {
    check.__name__.removeprefix("_check_"): check
    for check in (
        _check_no_gain,
        _check_zero_harmless,
        _check_zero_is_not_deactivation,
        _check_perplexity_rises,
        _check_disjoint,
        _check_tuning_no_gain,
        _check_tuning_as_random,
        _check_after_tuning,
        _check_both_models,
        _check_text_helps,
    )
}
