"""Table 1 at other budgets: what masking the first neurons of a method does, few and many.

A row of Table 1 has as many neurons as CRANE's threshold leaves. Here methods are given the same
number of neurons each, from few to many, and read out on the tasks of Table 1 and on held-out loss;
beside them are random masks of that many neurons out of all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crane_core.interventions import zero
from crane_core.metrics import langspec_f1
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.stages.keys import weights_of
from crane_lab.stages.outcomes import UNMASKED, Evaluated, Reading, Row
from crane_lab.store.grown import made_of, shipped_file, write_made
from crane_lab.study.candidates import CRANE, LAPE, Candidate
from crane_lab.study.damage import random_orders
from crane_lab.study.merit import candidate_inputs, candidate_sets

TASK_BUDGETS = "task_budgets.csv"
RANDOM = "Random"
#: Rows of the table and the candidates that give their order.
COMPARED = {
    "CRANE": CRANE,
    "LAPE matched": Candidate(LAPE, "alone"),
    "relative contrast of mean |relevance|": Candidate("mean_abs"),
}
#: Seeds of random masks start here; none of them is another study's.
FIRST_SEED = 30_000


@dataclass(frozen=True)
class TaskBudgets:
    """`shares` of all neurons that are masked; `draws` of random masks at each."""

    shares: Sequence[float] = (0.005, 0.02, 0.05, 0.1, 0.2)
    draws: int = 20


def ship_task_budgets(pipeline: Pipeline, plan: TaskBudgets, folder: str | Path) -> None:
    """Write `TASK_BUDGETS`, with its record.

    The model as it is comes first. Then one row per share, method and masked language, with the
    columns of `outcomes.Scored.table` and, of `outcomes.Evaluated.perplexities`,
    `<language>_change` and `<language>_se`; and one per share and random mask, with its `seed`, of
    which no language is the masked one.
    """
    of = pipeline.changed(task_tables=(pipeline.main_table,))
    sets = candidate_sets(of, list(COMPARED.values()), plan.shares)
    named = {candidate.name: method for method, candidate in COMPARED.items()}
    tables: list[pd.DataFrame] = []
    for share in plan.shares:
        rows = [Row(named[c], x, zero(own)) for (c, x, at), own in sets.items() if at == share]
        n = rows[0].n_neurons
        masks = of.evaluated(rows)
        table = masks.table(of.main_tasks)
        drawn = _drawn(of, n, plan.draws)
        found = pd.concat([_with_losses(masks, table), _random(of, drawn)], ignore_index=True)
        found.insert(0, "share", share)
        tables.append(found if not tables else found[found["method"] != UNMASKED["method"]])
    table = pd.concat(tables, ignore_index=True)
    table.loc[table["method"] == UNMASKED["method"], "share"] = 0.0
    table["seed"] = table["seed"].astype(int)
    about = {
        **candidate_inputs(of, "tasks"),
        "losses": candidate_inputs(of),
        "candidates": {name: one.as_dict() for name, one in COMPARED.items()},
        "shares": list(plan.shares),
        "draws": plan.draws,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    first = ["share", "method", "mask_language", "seed"]
    table = table[[*first, *table.columns.drop(first)]].round(6)
    write_made(table, Path(folder) / TASK_BUDGETS, about)


def _with_losses(masks: Evaluated, table: pd.DataFrame) -> pd.DataFrame:
    """A table of tasks with the changes of loss beside them, row by row."""
    losses = masks.perplexities()
    ends = [f"{x}_{end}" for x in masks.languages for end in ("change", "se")]
    assert list(losses["method"]) == list(table["method"])
    return table.join(losses[ends]).assign(seed=-1)


def _drawn(of: Pipeline, n: int, draws: int) -> list[Row]:
    """Random masks of `n` neurons out of all layers; of no language."""
    orders = random_orders(of.model, range(FIRST_SEED, FIRST_SEED + draws))
    size = of.shape["intermediate"]
    return [
        Row(RANDOM, "", zero(NeuronSet.from_flat(order[:n], size)), seed)
        for seed, order in orders.items()
    ]


def _random(of: Pipeline, drawn: Sequence[Row]) -> pd.DataFrame:
    """Accuracies and changes of loss under random masks, a row each."""
    if not drawn:
        return pd.DataFrame()
    masks = of.evaluated(drawn)
    scored = masks.scored(of.main_tasks)
    accuracy = pd.DataFrame(
        [{x: float(after[x].mean()) for x in masks.languages} for after in scored.after]
    )
    changed = masks.perplexities().iloc[1:].reset_index(drop=True)
    ends = [f"{x}_{end}" for x in masks.languages for end in ("change", "se")]
    return changed[["method", "mask_language", "seed", "n_neurons", *ends]].join(accuracy)


def read_task_budgets(pipeline: Pipeline, folder: str | Path) -> pd.DataFrame | None:
    """The table that `ship_task_budgets` wrote; None if it is of another model or languages.

    Raises FileNotFoundError, saying what makes it, without the table.
    """
    made_by = "crane_lab.cli.criterion --budgets"
    file = shipped_file(folder, TASK_BUDGETS, "Table 1 by budget", made_by)
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    table["mask_language"] = table["mask_language"].fillna("")
    table["seed"] = table["seed"].astype(int)
    made = made_of(file, {})["inputs"]
    known = set(pipeline.settings.languages) == set(made["read"])
    return table if known and made["model"]["weights"] == weights_of(pipeline.model) else None


def by_share(table: pd.DataFrame, languages: Sequence[str], reading: Reading) -> pd.DataFrame:
    """What becomes of each mask, and of random ones of its size: one row per share, method, mask.

    `own_drop`: drop of the masked language's accuracy, relative to the model as it is; `other_drop`
    the largest of another language, which is `other_language`. `langspec_f1` with interval.
    `own_loss`, `other_loss`: the same as added loss, nats per token, and `difference` of the two.
    For each of `MEASURED`, `…_null_mean` is the mean over random masks, read as if they were for
    that language, `…_null_least` and `…_null_most` are the smallest and the largest of them, and
    `…_null_below` says how many of `null_masks` lie below the mask.
    """
    start = table[table["method"] == UNMASKED["method"]].iloc[0]
    before = {x: float(start[x]) for x in languages}
    rows = []
    for share, own in table[table["share"] > 0].groupby("share", sort=True):
        random = own[own["method"] == RANDOM].to_dict("records")
        nulls = {
            x: pd.DataFrame([_read(before, one, x, languages, reading) for one in random])
            for x in languages
        }
        for row in own[own["method"] != RANDOM].to_dict("records"):
            x = row["mask_language"]
            found = _read(before, row, x, languages, reading)
            null = nulls[x]
            rows.append(
                {
                    **{"share": share, "method": row["method"], "mask_language": x},
                    **{"n_neurons": int(row["n_neurons"]), **found},
                    **{f"langspec_f1_{end}": row[f"langspec_f1_{end}"] for end in ("low", "high")},
                    "null_masks": len(null),
                    **_beside(found, null),
                }
            )
    return pd.DataFrame(rows)


#: What is read of every mask, and held against random ones.
MEASURED = ("langspec_f1", "own_drop", "other_drop", "own_loss", "other_loss", "difference")


def _read(
    before: Mapping[str, float],
    row: Mapping[Any, Any],
    x: str,
    languages: Sequence[str],
    reading: Reading,
) -> dict[str, Any]:
    after = {y: float(row[y]) for y in languages}
    f1 = langspec_f1(before, after, x, how=reading.how, relative=reading.relative).f1
    drops = {y: (before[y] - after[y]) / before[y] if before[y] else 0.0 for y in languages}
    losses = {y: float(row[f"{y}_change"]) for y in languages}
    hit = max((y for y in languages if y != x), key=drops.__getitem__)
    other_loss = max(value for y, value in losses.items() if y != x)
    return {
        **{"langspec_f1": f1, "own_drop": drops[x], "other_drop": drops[hit]},
        **{"other_language": hit, "own_loss": losses[x], "other_loss": other_loss},
        "difference": losses[x] - other_loss,
    }


def _beside(found: Mapping[str, Any], null: pd.DataFrame) -> dict[str, float]:
    beside: dict[str, float] = {}
    for name in MEASURED:
        values = null[name].to_numpy(float) if len(null) else np.array([np.nan])
        beside |= {f"{name}_null_mean": float(values.mean())}
        beside |= {f"{name}_null_least": float(values.min())}
        beside |= {f"{name}_null_most": float(values.max())}
        beside |= {f"{name}_null_below": int((values < found[name]).sum())}
    return beside
