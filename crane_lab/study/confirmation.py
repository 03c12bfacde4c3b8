"""A criterion confirmed on languages that it was not chosen on, by a plan that was set down before.

The plan is a file (`PLAN`) with its own digest; results carry it, and results of another plan are
refused. What counts as confirmed is in the plan's hypotheses, one function each; they are printed
as they come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from crane_lab.pipeline import Pipeline
from crane_lab.stages.standing import ENOUGH, FDR
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import made_of, shipped_file, write_made
from crane_lab.study.candidates import Candidate
from crane_lab.study.merit import candidate_sets, changes_of, differences, in_nulls, merits
from crane_lab.study.nulls import null_inputs

PLAN = "data/criterion/plan.yaml"
BUDGETS, MERITS, NULLS, OUTCOMES = (
    f"confirmed_{name}.csv" for name in ("budgets", "merits", "nulls", "outcomes")
)
#: Columns of `merit.merits` that candidates are compared by.
FIGURES = ("merit", "little_harm")
HOLDS, FAILS, OPEN = "confirmed", "not confirmed", "cannot tell"


@dataclass(frozen=True)
class PlannedComparison:
    """Whether candidate `main` has more of a `figure` (of `FIGURES`) than each of `against`.

    Raises ValueError for another figure.
    """

    figure: str
    main: Candidate
    against: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        if self.figure not in FIGURES:
            raise ValueError(f"unknown figure {self.figure!r}: expected one of {FIGURES}")


@dataclass(frozen=True)
class ConfirmationPlan:
    """What is confirmed, how, and on what.

    Attributes
    ----------
    questions : what is asked, and of which candidates.
    languages : chosen among each other, and masked one by one; each one's loss counts as another's.
    windows, held_out : windows of text per language, for the criterion and for the losses.
    shares : budgets as shares of all neurons; `beside`: the one at which the questions' main
        candidates are held against `draws` random masks of each set.
    seed : of the windows.

    Raises ValueError for fewer than two languages or budgets, too few draws for a null, or a budget
    beside random masks that is not among them.
    """

    questions: tuple[PlannedComparison, ...]
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
    def mains(self) -> list[Candidate]:
        """The candidates that questions are about, each once."""
        return list(dict.fromkeys(one.main for one in self.questions))

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates that are run, each once."""
        others = [rival for one in self.questions for rival in one.against]
        return list(dict.fromkeys([*self.mains, *others]))

    @property
    def digest(self) -> str:
        """Short hex digest of everything that the plan says."""
        return digest_of(canonical(asdict(self)))


def read_plan(file: str | Path = PLAN) -> ConfirmationPlan:
    """The plan in a YAML file.

    Raises FileNotFoundError without it, and ValueError for a field that it lacks or should not
    have, or a value that cannot be.
    """
    given = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    _require_fields(given, ConfirmationPlan, str(file))
    questions = []
    for one in given["questions"]:
        _require_fields(one, PlannedComparison, f"a question in {file}")
        against = tuple(Candidate.of(rival) for rival in one["against"])
        questions.append(PlannedComparison(one["figure"], Candidate.of(one["main"]), against))
    lists = {name: tuple(given[name]) for name in ("languages", "shares")}
    return ConfirmationPlan(**{**given, **lists, "questions": tuple(questions)})


def _require_fields(given: object, of: type, where: str) -> None:
    names = {field.name for field in fields(of)}
    if not isinstance(given, dict) or set(given) != names:
        raise ValueError(f"{where}: expected the fields {', '.join(sorted(names))} and no others")


def confirm(pipeline: Pipeline, plan: ConfirmationPlan, folder: str | Path) -> None:
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
    sets = candidate_sets(many, plan.candidates, plan.shares)
    changes = changes_of(many, sets)
    tables = {BUDGETS: differences(changes), MERITS: merits(changes)}
    mains = {one.name for one in plan.mains}
    beside = {k: own for k, own in sets.items() if k[0] in mains and k[-1] == plan.beside}
    tables[NULLS], _ = in_nulls(many, beside, changes, plan.draws)
    for name, table in tables.items():
        write_made(table.round(6), folder / name, about)
    write_made(hypothesis_outcomes(plan, tables[MERITS], tables[NULLS]), folder / OUTCOMES, about)


def read_confirmed(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The tables that `confirm` wrote, by file name; FileNotFoundError without one."""
    made_by = f"crane_lab.cli.criterion --confirm {PLAN}"
    return {
        name: pd.read_csv(shipped_file(folder, name, "a confirmation", made_by))
        for name in (BUDGETS, MERITS, NULLS, OUTCOMES)
    }


def hypothesis_outcomes(
    plan: ConfirmationPlan, found: pd.DataFrame, nulls: pd.DataFrame
) -> pd.DataFrame:
    """What became of each hypothesis: `hypothesis`, `estimate`, `low`, `high`, `p`, `outcome`.

    Figures are compared over languages, as pairs (Student's t, two-sided); `p` is corrected over
    all comparisons (Holm). Of each main candidate it is counted in how many languages it is
    selective and beyond random masks. `found` and `nulls` as `merit.merits` and `merit.in_nulls`
    give them.
    """
    by_language = found[found["language"] != "all"]
    compared, counted = [], []
    for one in plan.questions:
        wide = by_language.pivot_table(
            index="language", columns="candidate", values=one.figure, sort=False
        )
        for rival in one.against:
            name = f"{one.figure}: {one.main.name} more than {rival.name}"
            compared.append(_compared(name, wide[one.main.name] - wide[rival.name]))
    for row, p in zip(compared, _holm([row["p"] for row in compared]), strict=True):
        row["p"] = p
        row["outcome"] = OPEN if not p <= FDR else HOLDS if row["estimate"] > 0 else FAILS
    for main in plan.mains:
        own = by_language[by_language["candidate"] == main.name]
        above, below = int((own["low"] > 0).sum()), int((own["high"] < 0).sum())
        counted.append(_counted(f"{main.name} is selective", above, below, len(own)))
        held = nulls[nulls["candidate"] == main.name]
        beyond, short = int((held["q"] <= FDR).sum()), int((held["q_low"] <= FDR).sum())
        counted.append(_counted(f"{main.name} is beyond random masks", beyond, short, len(held)))
    return pd.DataFrame([*compared, *counted]).round(6)


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
