"""What a column has to say to a neighbouring paper's claims: tables, each asked by one function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from crane_lab.audit.claims import NOT_TESTED, UNKNOWN, Claim, ClaimVerdict


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a column has to say to a neighbouring paper's claims: tables as fields, or None.

    lacking : why a table is not there, by its name; `NOT_TESTED` for one that cannot be.
    """

    lacking: Mapping[str, str] | None = None

    def judged(self, name: str, check: Callable[[pd.DataFrame], ClaimVerdict]) -> ClaimVerdict:
        """What a check says of the table `name`; without the table, what is lacking."""
        table = getattr(self, name)
        if table is not None:
            return check(table)
        reason = (self.lacking or {}).get(name, "such results")
        if reason == NOT_TESTED:
            return ClaimVerdict(NOT_TESTED, "Nothing of the kind is done there.")
        return ClaimVerdict(UNKNOWN, f"Lacking: {reason}.")


#: How a claim is checked: the name of the table that it is about, and a function of that.
Check = tuple[str, Callable[[pd.DataFrame], ClaimVerdict]]


def evidence_verdicts(
    columns: Mapping[str, Evidence], claims: Iterable[Claim], checks: Mapping[str, Check]
) -> pd.DataFrame:
    """Every claim with its verdict by column: id, section, claim, criterion, <name>, …_evidence."""
    rows = []
    for claim in claims:
        row = {name: getattr(claim, name) for name in ("id", "section", "claim", "criterion")}
        for name, evidence in columns.items():
            found = evidence.judged(*checks[claim.check])
            row |= {name: found.verdict, f"{name}_evidence": found.evidence}
        rows.append(row)
    return pd.DataFrame(rows)
