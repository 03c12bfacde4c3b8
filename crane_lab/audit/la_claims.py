"""The language-arithmetics paper's claims, each with one criterion that is applied to every column.

They are listed in `data/published/la/claims.yaml`, in our words. Verdicts rest on LAPE, the paper's
method; what CRANE's neurons and those of mean relevance do stands in the tables of the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from crane_lab.audit.claims import (
    FAILS,
    HOLDS,
    UNKNOWN,
    ClaimVerdict,
    read_claims,
)
from crane_lab.audit.evidence import Check, Evidence, evidence_verdicts
from crane_lab.stages.standing import FDR
from crane_lab.study.many_languages import LAPE

#: What is lacking here, by the table that would say it.
NOT_RUN = {
    "resources": "steering for languages with more and with less text; it is not run here",
    "tasks": "tasks under steering; they are not run here",
    "fallback": "enough questions; ten of them are asked at each step of notebook 17",
}


@dataclass(frozen=True)
class LaEvidence(Evidence):
    """Tables with a column `method`; None for what a column has not.

    late : `language_profiles.late_shares`. script : `language_profiles.sizes_by_script`. related :
    the genetic distance's rows of `relatedness.mantel_tests`. added : `setup_contrasts`' rows of
    adding and setting. forced : `steering_summary`'s rows of adding once.
    """

    late: pd.DataFrame | None = None
    script: pd.DataFrame | None = None
    related: pd.DataFrame | None = None
    added: pd.DataFrame | None = None
    forced: pd.DataFrame | None = None
    resources: pd.DataFrame | None = None
    tasks: pd.DataFrame | None = None
    fallback: pd.DataFrame | None = None


def la_verdicts(
    columns: Mapping[str, LaEvidence], folder: str | Path = "data/published/la"
) -> pd.DataFrame:
    """The claims and their verdicts, as `evidence_verdicts` gives them."""
    return evidence_verdicts(columns, read_claims(folder, LA_CHECKS, ""), LA_CHECKS)


def _decided(more: bool, q: float, said: str) -> ClaimVerdict:
    """Holds or fails if it is certain, by the direction."""
    return ClaimVerdict((HOLDS if more else FAILS) if q <= FDR else UNKNOWN, said)


#: A row of a table by column.
_Row = Mapping[str, Any]


def _of_lape(check: Callable[[_Row], ClaimVerdict], table: pd.DataFrame) -> ClaimVerdict:
    """What a check says of LAPE's row, if there is one."""
    for row in table[table["method"] == LAPE].to_dict("records"):
        return check({str(name): value for name, value in row.items()})
    return ClaimVerdict(UNKNOWN, f"Lacking: rows of {LAPE}.")


def _late_layers(row: _Row) -> ClaimVerdict:
    said = (
        f"{row['share']:.0%} of the neurons lie in the last third of the layers, mean over "
        f"{row['languages']} languages ({row['low']:.0%} to {row['high']:.0%}); above the layers' "
        f"share in {row['more']} of them (over families q {row['q']:.1g})."
    )
    return _decided(row["share"] > row["chance"], row["q"], said)


def _script_specialised(row: _Row) -> ClaimVerdict:
    said = (
        f"Median {row['other_median']:.0f} neurons for {row['other']} languages in other scripts, "
        f"{row['latin_median']:.0f} for {row['latin']} in Latin script (q {row['q']:.2g})."
    )
    return _decided(row["other_median"] > row["latin_median"], row["q"], said)


def _related_overlap(row: _Row) -> ClaimVerdict:
    said = (
        f"Rank correlation of sharing with distance in the family tree {row['rho']:+.2f} "
        f"(q {row['q']:.2g})."
    )
    # The test asks for near languages that share more; it cannot show the opposite.
    return ClaimVerdict(HOLDS if row["q"] <= FDR else UNKNOWN, said)


def _add_beats_set(row: _Row) -> ClaimVerdict:
    said = (
        f"{100 * row['difference']:+.0f} points [{100 * row['low']:+.0f}, {100 * row['high']:+.0f}]"
        f" of answers in the language wanted (q {row['q']:.1g})."
    )
    return _decided(row["difference"] > 0, row["q"], said)


def _forcing_works(row: _Row) -> ClaimVerdict:
    if row["random"] != row["random"]:
        return ClaimVerdict(UNKNOWN, f"Lacking: {LAPE} beside random sets.")
    said = (
        f"{row['share']:.0%} of answers are in the language wanted, {100 * row['gain']:+.0f} "
        f"points from the untouched model (q {row['q']:.1g}), {100 * row['ahead']:+.0f} from "
        f"random sets (q {row['ahead_q']:.1g})."
    )
    if min(row["gain"], row["ahead"]) > 0:
        return _decided(True, max(row["q"], row["ahead_q"]), said)
    fails = any(row[x] <= 0 and row[q] <= FDR for x, q in (("gain", "q"), ("ahead", "ahead_q")))
    return ClaimVerdict(FAILS if fails else UNKNOWN, said)


def _unknown(table: pd.DataFrame) -> ClaimVerdict:
    return ClaimVerdict(UNKNOWN, "Lacking: a check of this.")


#: How each claim is checked, by the name in `claims.yaml`: on which table, and by which function.
LA_CHECKS: dict[str, Check] = {
    "late_layers": ("late", partial(_of_lape, _late_layers)),
    "script_specialised": ("script", partial(_of_lape, _script_specialised)),
    "related_overlap": ("related", partial(_of_lape, _related_overlap)),
    "add_beats_set": ("added", partial(_of_lape, _add_beats_set)),
    "forcing_works": ("forced", partial(_of_lape, _forcing_works)),
    "high_resource": ("resources", _unknown),
    "tasks": ("tasks", _unknown),
    "fallback": ("fallback", _unknown),
}
