"""Every candidate tried on one model, as tables to ship; nothing is concluded from them alone.

What was looked at to choose a criterion cannot also confirm it: see `data/criterion` for what is
confirmed on other languages, and when that was set down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from crane_core.concentration import STATISTICS
from crane_lab.pipeline import Pipeline
from crane_lab.store.grown import shipped_file, write_made
from crane_lab.study.candidates import EXPLORED, GRADIENT, HELD, LAPE, Candidate
from crane_lab.study.criteria import OBJECTIVES, RELATIVE
from crane_lab.study.merit import (
    HARM,
    candidate_inputs,
    candidate_sets,
    changes_of,
    differences,
    in_nulls,
    merits,
    merits_in_nulls,
    over_budgets,
)

BUDGETS, MERITS, NULLS, MERIT_NULLS = (
    f"explored_{name}.csv" for name in ("budgets", "merits", "nulls", "merit_nulls")
)


@dataclass(frozen=True)
class Exploration:
    """What is tried: candidates, budgets as shares of all neurons, and random masks.

    `beside`: the budget at which sets of `held` are held against `draws` random masks each; so are
    their figures of merit, over all budgets.

    Raises ValueError if `beside` is none of the shares.
    """

    candidates: Sequence[Candidate] = EXPLORED
    shares: Sequence[float] = (0.001, 0.005, 0.02, 0.1)
    beside: float = 0.02
    held: Sequence[Candidate] = HELD
    draws: int = 20

    def __post_init__(self) -> None:
        if self.beside not in self.shares:
            raise ValueError(
                f"budget {self.beside} to be held against random masks: expected one of "
                f"{list(self.shares)}"
            )


def ship_exploration(pipeline: Pipeline, plan: Exploration, folder: str | Path) -> None:
    """Write `BUDGETS`, `MERITS`, `NULLS` and `MERIT_NULLS` of a pipeline's model to a folder.

    The tables of `merit.differences`, `merit.merits`, `merit.in_nulls` and
    `merit.merits_in_nulls`. What masks do is kept in the store mask by mask.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sets = candidate_sets(pipeline, plan.candidates, plan.shares)
    changes = changes_of(pipeline, sets)
    about = _inputs(pipeline, plan)
    write_made(differences(changes).round(6), folder / BUDGETS, about)
    write_made(merits(changes).round(6), folder / MERITS, about)
    if plan.draws:
        wanted = {one.name for one in plan.held}
        held = {k: own for k, own in sets.items() if k[0] in wanted}
        about["draws"] = plan.draws
        beside = {k: own for k, own in held.items() if k[-1] == plan.beside}
        found, _ = in_nulls(pipeline, beside, changes, plan.draws)
        write_made(found.round(6), folder / NULLS, about)
        found = merits_in_nulls(pipeline, held, changes, plan.draws)
        write_made(found.round(6), folder / MERIT_NULLS, about)


def read_exploration(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The tables that `ship_exploration` wrote, by file name; those of nulls if they are there.

    Raises FileNotFoundError, saying what makes them, without the others.
    """
    files = {
        name: shipped_file(folder, name, "what candidates do", "crane_lab.cli.criterion")
        for name in (BUDGETS, MERITS)
    }
    nulls = {name: Path(folder) / name for name in (NULLS, MERIT_NULLS)}
    files |= {name: file for name, file in nulls.items() if file.is_file()}
    return {name: pd.read_csv(file) for name, file in files.items()}


def curve_merits(damaged: pd.DataFrame) -> pd.DataFrame:
    """`merit` and `little_harm` of `damage.damage`'s rows, which have no windows: no intervals.

    One row per candidate (there `criterion`) and language, and "all", the mean over languages.
    """
    rows = []
    for (name, x), own in damaged.groupby(["criterion", "language"], sort=False):
        at = own.sort_values("share")
        curve = at["difference"].to_numpy(float)[:, None]
        row = {
            "candidate": name,
            "language": x,
            "merit": over_budgets(list(at["share"]), curve).item(),
        }
        little = at[at["other"] <= HARM]["own"].max() if (at["other"] <= HARM).any() else 0.0
        rows.append({**row, "little_harm": max(0.0, float(little))})
    found = pd.DataFrame(rows)
    mean = found.groupby("candidate", sort=False)[["merit", "little_harm"]].mean().reset_index()
    return pd.concat([found, mean.assign(language="all")], ignore_index=True)


def as_candidates(found: pd.DataFrame, candidates: Sequence[Candidate]) -> pd.DataFrame:
    """`curve_merits`' rows of those criteria that are candidates, under the candidates' names."""
    names = {criterion_of(one): one.name for one in candidates}
    own = found[found["candidate"].isin(names)]
    return own.assign(candidate=own["candidate"].map(names))


def criterion_of(candidate: Candidate) -> str:
    """What `criteria.criteria` calls a candidate under its defaults; "" for what it lacks."""
    labels = {name: one.label for name, one in STATISTICS.items()}
    labels |= {
        "kurtosis": f"kurtosis ({OBJECTIVES['next_token']})",
        GRADIENT: "gradient × activation",
    }
    if candidate.statistic == LAPE:
        return "LAPE"
    label = labels[candidate.statistic]
    if candidate.form == "relative":
        return RELATIVE if candidate == Candidate("mean_abs") else ""
    return {"difference": f"{label}, contrast", "alone": label}.get(candidate.form, "")


def _inputs(pipeline: Pipeline, plan: Exploration) -> dict[str, Any]:
    return {
        **candidate_inputs(pipeline),
        "candidates": [one.as_dict() for one in plan.candidates],
        "shares": list(plan.shares),
        "beside": plan.beside,
    }
