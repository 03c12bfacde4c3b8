"""A criterion confirmed on languages that it was not chosen on, by a plan that was set down before.

The plan is a file (`PLAN`) with its own digest; results carry it, and results of another plan are
refused. What counts as confirmed is in the plan's hypotheses, one function each; they are printed
as they come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from crane_lab.pipeline import Pipeline
from crane_lab.stages.standing import ENOUGH, FDR
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import made_of, write_made
from crane_lab.study.candidates import Candidate
from crane_lab.study.merit import candidate_sets, changes_of, differences, in_nulls, merits
from crane_lab.study.nulls import null_inputs

PLAN = "data/criterion/plan.yaml"
BUDGETS, MERITS, NULLS, OUTCOMES = (
    f"confirmed_{name}.csv" for name in ("budgets", "merits", "nulls", "outcomes")
)
HOLDS, FAILS, OPEN = "confirmed", "not confirmed", "cannot tell"


@dataclass(frozen=True)
class Plan:
    """What is confirmed, how, and on what.

    Attributes
    ----------
    main, against : the candidate, and those that it is compared with.
    languages : chosen among each other, and masked one by one; each one's loss counts as another's.
    windows, held_out : windows of text per language, for the criterion and for the losses.
    shares : budgets as shares of all neurons; `beside`: the one held against `draws` random masks.
    seed : of the windows.

    Raises ValueError for fewer than two languages or budgets, too few draws for a null, or a budget
    beside random masks that is not among them.
    """

    main: Candidate
    against: tuple[Candidate, ...]
    languages: tuple[str, ...]
    windows: int
    held_out: int
    shares: tuple[float, ...]
    beside: float
    draws: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.languages) < 2 or len(self.shares) < 2:
            raise ValueError(
                f"languages {list(self.languages)} and budgets {list(self.shares)}: expected two "
                "or more of each"
            )
        if self.beside not in self.shares:
            raise ValueError(
                f"budget {self.beside} is held against random masks, and is none of "
                f"{list(self.shares)}"
            )
        if self.draws < ENOUGH:
            raise ValueError(f"{self.draws} random masks: a null needs {ENOUGH} or more")

    @property
    def digest(self) -> str:
        """Short hex digest of everything that the plan says."""
        return digest_of(canonical(self._as_dict()))

    def _as_dict(self) -> dict[str, Any]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given["main"] = self.main.as_dict()
        given["against"] = [one.as_dict() for one in self.against]
        return given


def read_plan(file: str | Path = PLAN) -> Plan:
    """The plan in a YAML file.

    Raises FileNotFoundError without it, and ValueError for a field that it lacks or should not
    have, or a value that cannot be.
    """
    given = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    names = {field.name for field in fields(Plan)}
    if not isinstance(given, dict) or set(given) != names:
        raise ValueError(f"{file}: expected the fields {', '.join(sorted(names))} and no others")
    given["main"] = Candidate.of(given["main"])
    given["against"] = tuple(Candidate.of(one) for one in given["against"])
    lists = {name: tuple(given[name]) for name in ("languages", "shares")}
    return Plan(**{**given, **lists})


def confirm(pipeline: Pipeline, plan: Plan, folder: str | Path) -> None:
    """Run a plan and write `BUDGETS`, `MERITS`, `NULLS` and `OUTCOMES`, each with its record.

    What masks do is kept in the store mask by mask, so that an interrupted run goes on.

    Raises FileExistsError if the folder has results of another plan or model.
    """
    folder = Path(folder)
    many = pipeline.changed(
        languages=list(plan.languages),
        n_samples=plan.windows,
        n_perplexity=plan.held_out,
        seed=plan.seed,
        parallel=False,
    )
    about = {**null_inputs(many, "losses"), "plan": plan.digest}
    if (folder / OUTCOMES).is_file() and (
        differing := made_of(folder / OUTCOMES, about)["differing"]
    ):
        raise FileExistsError(
            f"{folder} has results of another {' and '.join(differing)}; give another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sets = candidate_sets(many, (plan.main, *plan.against), plan.shares)
    changes = changes_of(many, sets)
    tables = {BUDGETS: differences(changes), MERITS: merits(changes)}
    beside = {key: own for key, own in sets.items() if key[-1] == plan.beside}
    tables[NULLS], _ = in_nulls(many, beside, changes, plan.draws)
    for name, table in tables.items():
        write_made(table.round(6), folder / name, about)
    write_made(outcomes(plan, tables[MERITS], tables[NULLS]), folder / OUTCOMES, about)


def outcomes(plan: Plan, found: pd.DataFrame, nulls: pd.DataFrame) -> pd.DataFrame:
    """What became of each hypothesis: `hypothesis`, `estimate`, `low`, `high`, `p`, `outcome`.

    Merits are compared over languages, as pairs (Student's t, two-sided); `p` is corrected over the
    comparisons (Holm). `found` and `nulls` as `merit.merits` and `merit.in_nulls` give them.
    """
    by_language = found[found["language"] != "all"].pivot_table(
        index="language", columns="candidate", values="merit", sort=False
    )
    main = by_language[plan.main.name]
    rows = []
    for one in plan.against:
        rows.append(_compared(f"better than {one.name}", main - by_language[one.name]))
    for row, p in zip(rows, _holm([row["p"] for row in rows]), strict=True):
        row["p"] = p
        row["outcome"] = OPEN if p > FDR else HOLDS if row["estimate"] > 0 else FAILS
    own = found[(found["candidate"] == plan.main.name) & (found["language"] != "all")]
    above, below = int((own["low"] > 0).sum()), int((own["high"] < 0).sum())
    rows.append(_counted("selective in the language", above, below, len(own)))
    held = nulls[nulls["candidate"] == plan.main.name]
    beyond, short = int((held["q"] <= FDR).sum()), int((held["q_low"] <= FDR).sum())
    rows.append(_counted("beyond random masks in the language", beyond, short, len(held)))
    return pd.DataFrame(rows).round(6)


def _compared(name: str, apart: pd.Series) -> dict[str, Any]:
    values = apart.to_numpy(float)
    test = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    row = {"hypothesis": name, "estimate": values.mean(), "low": low, "high": high}
    return {**row, "p": float(test.pvalue), "languages": len(values)}


def _counted(name: str, yes: int, no: int, of: int) -> dict[str, Any]:
    """Confirmed if it is so in all but one language or in all; not, if the opposite is in one."""
    outcome = FAILS if no else HOLDS if yes >= of - 1 else OPEN
    return {"hypothesis": name, "estimate": yes, "languages": of, "outcome": outcome}


def _holm(p: Sequence[float]) -> list[float]:
    order, least = np.argsort(p), 0.0
    found = [0.0] * len(p)
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        found[place] = least
    return found
