"""What a criterion's sets are good for beside the loss: tasks, answers, and the chat model.

The sets of some candidates at one budget are masked in a base model and in the chat model tuned
from it, and read out as in Tables 1 to 4: LangSpec-F1 on tasks and on judged answers, and the
language that answers come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from crane_core.interventions import zero
from crane_lab.pipeline import Pipeline
from crane_lab.stages.outcomes import UNMASKED, Row
from crane_lab.stages.standing import held_against
from crane_lab.store.grown import shipped_file, write_made
from crane_lab.study.candidates import CRANE, LAPE, Candidate
from crane_lab.study.merit import Sets, candidate_inputs, candidate_sets, random_sets

USES = "uses.csv"
#: What is read, and of which model.
TASKS, ANSWERS = "tasks", "answers"
BASE, CHAT = "base", "chat"


@dataclass(frozen=True)
class UsesPlan:
    """`share` of all neurons that each candidate's sets have; `draws` of random masks beside each
    for tasks, and `answer_draws` for answers."""

    candidates: Sequence[Candidate] = (
        CRANE,
        Candidate(LAPE, "alone"),
        Candidate("signed_mean", "difference"),
        Candidate("mean_abs", "relative"),
    )
    share: float = 0.02
    draws: int = 19
    answer_draws: int = 9


def ship_uses(pipeline: Pipeline, chat: str, plan: UsesPlan, folder: str | Path) -> None:
    """Write `USES`, with its record; `chat` is the chat model's checkpoint.

    One row per read-out and mask, the model as it is first: `read` and `model`, then as
    `outcomes.Scored.table` (for answers `outcomes.Judged.table`) has them, and the columns of
    `standing.held_against` for LangSpec-F1, corrected over each read-out.
    """
    folder = Path(folder)
    base = pipeline.changed(task_tables=(pipeline.main_table,))
    sets = candidate_sets(pipeline, plan.candidates, [plan.share])
    rows = [Row(name, x, zero(own)) for (name, x, _), own in sets.items()]
    beside = {n: _random_rows(sets, n) for n in (plan.draws, plan.answer_draws)}
    tables = []
    for model, own in ((BASE, base), (CHAT, base.on_chat(chat))):
        tasks = own.evaluated(rows, losses=False).table(own.main_tasks)
        if random := beside[plan.draws]:
            evaluated = own.evaluated(random, losses=False)
            tasks = held_in_null(tasks, evaluated.seeds(own.main_tasks))
        answers = own.judged(rows).table()
        if random := beside[plan.answer_draws]:
            answers = held_in_null(answers, own.judged(random).seeds())
        tables += [tasks.assign(read=TASKS, model=model), answers.assign(read=ANSWERS, model=model)]
    about = {
        **candidate_inputs(base, "tasks"),
        "candidates": [one.as_dict() for one in plan.candidates],
        "share": plan.share,
        "draws": plan.draws,
        "answer_draws": plan.answer_draws,
    }
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.concat(tables, ignore_index=True)
    first = ["read", "model"]
    write_made(table[[*first, *table.columns.drop(first)]].round(6), folder / USES, about)


def read_uses(folder: str | Path) -> pd.DataFrame:
    """The table that `ship_uses` wrote; FileNotFoundError without it."""
    made_by = "crane_lab.cli.criterion --uses"
    file = shipped_file(folder, USES, "what sets do to tasks and answers", made_by)
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def _random_rows(sets: Sets, draws: int) -> list[Row]:
    return [
        Row(name, x, zero(own), draw)
        for (name, x, _, draw), own in random_sets(sets, draws).items()
    ]


def held_in_null(table: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """A read-out's rows with each mask's LangSpec-F1 held against random masks of its size in every
    layer; `seeds` has a row per random mask."""
    masks = table.iloc[1:]
    nulls = []
    for name, x in zip(masks["method"], masks["mask_language"], strict=True):
        own = seeds[(seeds["method"] == name) & (seeds["mask_language"] == x)]
        nulls.append(own["langspec_f1"].to_numpy(float))
    found = held_against(masks["langspec_f1"].to_list(), nulls)
    return table.join(found.set_index(masks.index))


def masked_rows(uses: pd.DataFrame) -> pd.DataFrame:
    """The rows with a mask."""
    return uses[uses["method"] != UNMASKED["method"]]


def fidelity_changes(uses: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Shares of answers in the question's language, as changes by a mask.

    One row per model and mask: `own`, the change where the masked language is asked, and `other`,
    the largest loss (smallest change) of another.
    """
    rows = []
    for model, own in uses[uses["read"] == ANSWERS].groupby("model", sort=False):
        before = own[own["method"] == UNMASKED["method"]].iloc[0]
        for row in masked_rows(own).to_dict("records"):
            x = row["mask_language"]
            change = {y: row[f"{y}_in_language"] - before[f"{y}_in_language"] for y in languages}
            rows.append(
                {
                    **{"model": model, "method": row["method"], "mask_language": x},
                    **{"own": change[x], "other": min(v for y, v in change.items() if y != x)},
                }
            )
    return pd.DataFrame(rows)


def uses_summary(uses: pd.DataFrame) -> pd.DataFrame:
    """Means over masked languages, one row per read-out, model and candidate.

    `langspec_f1`; where there are random masks, their mean (`null_mean`), in how many languages the
    candidate's is `above` all of them, and the least `q`.
    """
    masks = masked_rows(uses)
    masks = masks.assign(above=masks.get("percentile", pd.Series(index=masks.index)) == 100)
    of = masks.groupby(["read", "model", "method"], sort=False)
    columns = {"langspec_f1": "mean", "null_mean": "mean", "above": "sum", "q": "min"}
    return of.agg({c: how for c, how in columns.items() if c in masks}).reset_index()
