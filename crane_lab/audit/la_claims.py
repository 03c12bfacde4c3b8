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

import numpy as np
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
from crane_lab.study.fallback import FILE as FALLBACK
from crane_lab.study.fallback import read_fallback
from crane_lab.study.fallback_effects import kept_language
from crane_lab.study.known import FILE as KNOWN
from crane_lab.study.language_profiles import late_shares, sizes_by_script
from crane_lab.study.many_languages import LAPE, read_sets
from crane_lab.study.relatedness import language_overlaps, mantel_tests
from crane_lab.study.steered_tasks import FILE as TASKS
from crane_lab.study.steered_tasks import TRANSLATION, TaskPlan, shipped_scores
from crane_lab.study.steering import SteeringPlan, shipped_outcomes
from crane_lab.study.steering_effects import (
    SETUP,
    setup_contrasts,
    steering_summary,
    success_by_language,
)
from crane_lab.study.task_effects import OTHER, OWN, task_summary


@dataclass(frozen=True)
class LaEvidence(Evidence):
    """Tables with a column `method`; None for what a column has not.

    late : `language_profiles.late_shares`. script : `language_profiles.sizes_by_script`. related :
    the genetic distance's rows of `relatedness.mantel_tests`. added : `setup_contrasts`' rows of
    adding and setting. forced : `steering_summary`'s rows of adding once. resources :
    `success_by_language`. tasks : `task_effects.task_summary`. fallback :
    `fallback_effects.kept_language`.
    """

    late: pd.DataFrame | None = None
    script: pd.DataFrame | None = None
    related: pd.DataFrame | None = None
    added: pd.DataFrame | None = None
    forced: pd.DataFrame | None = None
    resources: pd.DataFrame | None = None
    tasks: pd.DataFrame | None = None
    fallback: pd.DataFrame | None = None


def shipped_evidence(
    folder: str | Path, questions: str | Path, permutations: int = 4999, seed: int = 0
) -> LaEvidence:
    """What the tables of notebooks 15 to 17 in a folder have to say; what it lacks is named.

    `questions` is the file of `steering.read_steering_questions`. Raises FileNotFoundError without
    the sets and answers, and ValueError if answers are to other questions.
    """
    sets, _ = read_sets(folder)
    with_neurons = [x for x, own in sets[LAPE].items() if len(own)]
    overlaps = language_overlaps(sets[LAPE])
    related = mantel_tests(overlaps, with_neurons, ["genetic"], permutations, seed)
    answers = shipped_outcomes(folder, questions)
    summary, once = steering_summary(answers), SteeringPlan().central
    setup = (once.kind, once.statistic, once.strength)
    chosen = [(summary[name] == value) for name, value in zip(SETUP, setup, strict=True)]
    lacking: dict[str, str] = {}

    def known(name: str, file: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
        if (Path(folder) / file).is_file():
            return read()
        lacking[name] = f"{file} in {folder}, which python -m crane_lab.cli.steer makes"
        return None

    return LaEvidence(
        late=late_shares(sets),
        script=sizes_by_script(sets),
        related=related.assign(method=LAPE),
        added=setup_contrasts(answers, {"add less set": (setup, ("set", "mean", 1.0))}),
        forced=summary[np.logical_and.reduce(chosen)],
        resources=known(
            "resources",
            KNOWN,
            lambda: success_by_language(
                answers, setup, pd.read_csv(Path(folder) / KNOWN), permutations, seed
            ),
        ),
        tasks=known("tasks", TASKS, lambda: task_summary(shipped_scores(folder)[0])),
        fallback=known(
            "fallback", FALLBACK, lambda: kept_language(read_fallback(folder, questions))
        ),
        lacking=lacking,
    )


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


def _high_resource(row: _Row) -> ClaimVerdict:
    if row["known_q"] != row["known_q"] or row["kin_q"] != row["kin_q"]:
        return ClaimVerdict(UNKNOWN, "Every language is reached alike.")
    said = (
        f"Rank correlation of the gain with a paragraph's nats {row['known_rho']:+.2f} over "
        f"{row['targets']} targets (q {row['known_q']:.2g}), with distance in the family tree "
        f"{row['kin_rho']:+.2f} over their pairs (q {row['kin_q']:.2g})."
    )
    sure = max(row["known_q"], row["kin_q"]) <= FDR
    if sure and max(row["known_rho"], row["kin_rho"]) < 0:
        return ClaimVerdict(HOLDS, said)
    fails = row["known_rho"] > 0 and row["known_q"] <= FDR
    return ClaimVerdict(FAILS if fails else UNKNOWN, said)


def _tasks(table: pd.DataFrame) -> ClaimVerdict:
    # Another language's neurons make a translation one into that language.
    whose = [OWN if task == TRANSLATION else OTHER for task in table["task"]]
    own = table[(table["method"] == LAPE) & (table["whose"] == whose)]
    if missing := [task for task in TaskPlan().tasks if task not in set(own["task"])]:
        return ClaimVerdict(UNKNOWN, f"Lacking: {', '.join(missing)} under {LAPE}'s neurons.")
    if own["ahead_q"].isna().any():
        return ClaimVerdict(UNKNOWN, f"Lacking: random sets beside {LAPE}'s.")
    sure = (own["q"] <= FDR) & (own["ahead_q"] <= FDR)
    up, down = (
        int((sure & (sign * own["change"] > 0) & (sign * own["ahead"] > 0)).sum())
        for sign in (1, -1)
    )
    each = ", ".join(
        f"{row['task']} {100 * row['change']:+.1f} (random {100 * row['random']:+.1f})"
        for row in own.to_dict("records")
    )
    said = (
        f"Beyond random neurons {up} certain gains and {down} certain losses in {len(own)} tasks; "
        f"in points: {each}."
    )
    if 2 * up > len(own):
        return ClaimVerdict(HOLDS, said)
    return ClaimVerdict(FAILS if 2 * down > len(own) else UNKNOWN, said)


def _fallback(table: pd.DataFrame) -> ClaimVerdict:
    own = table[(table["method"] == LAPE) & (table["step"] > 0)]
    if own.empty:
        return ClaimVerdict(UNKNOWN, f"Lacking: {LAPE} beside random sets.")
    rows = own.sort_values("step").to_dict("records")
    best, last = min(rows, key=lambda row: float(row["q"])), rows[-1]
    said = (
        f"With {last['step']} languages off {last['kept']} of {last['asked']} answers are in the "
        f"questions' language [{last['low']:.0%}, {last['high']:.0%}], with random sets "
        f"{last['random_kept']:.0f}."
    )
    if best["q"] <= FDR:
        return ClaimVerdict(
            HOLDS, f"{said} With {best['step']} off {best['to']} of them are in {best['other']!r}."
        )
    return ClaimVerdict(UNKNOWN, said)


#: How each claim is checked, by the name in `claims.yaml`: on which table, and by which function.
LA_CHECKS: dict[str, Check] = {
    "late_layers": ("late", partial(_of_lape, _late_layers)),
    "script_specialised": ("script", partial(_of_lape, _script_specialised)),
    "related_overlap": ("related", partial(_of_lape, _related_overlap)),
    "add_beats_set": ("added", partial(_of_lape, _add_beats_set)),
    "forcing_works": ("forced", partial(_of_lape, _forcing_works)),
    "high_resource": ("resources", partial(_of_lape, _high_resource)),
    "tasks": ("tasks", _tasks),
    "fallback": ("fallback", _fallback),
}
