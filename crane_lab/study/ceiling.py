"""A ceiling for damage curves on a model too large for all single ablations.

Of a sample of neurons single ablations are shipped (`sampled`). Those of it that are most selective
alone are the shortlist on which a greedy search builds sets by their own effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from crane_lab.pipeline import Pipeline
from crane_lab.stages.keys import model_key
from crane_lab.store import source_digest
from crane_lab.store.grown import shipped_file, write_made
from crane_lab.study import damage
from crane_lab.study.necessity import tensor_digest
from crane_lab.study.real_model import inputs
from crane_lab.study.shipped import Shipped, other_inputs

FILE = "ceiling_real.csv"


@dataclass(frozen=True)
class CeilingPlan:
    """What is searched.

    `shortlist`: neurons of each language that the search chooses from; `steps`: sizes of the set
    after each round; `n_search`: windows per language that it looks at, of `n_ranking`, behind
    which `n_damage` others begin that sets are masked on (`damage.held_out`).
    """

    shortlist: int = 64
    steps: Sequence[int] = (12, 24, 37)
    n_search: int = 6
    n_ranking: int = 64
    n_damage: int = 16


def selective_first(effects: pd.DataFrame, language: str, languages: Sequence[str]) -> pd.DataFrame:
    """A sample's neurons, the most selective alone first: own effect less another's largest.

    `effects`: as `sampled.single_effects_table`.
    """
    others = [f"zero_{x}" for x in languages if x != language]
    lead = effects[f"zero_{language}"] - effects[others].max(axis=1)
    return effects.iloc[lead.argsort(kind="stable")[::-1]]


def ship_ceiling(
    pipeline: Pipeline, plan: CeilingPlan, folder: str | Path, real_data: str | Path
) -> None:
    """Write `FILE`: `damage.damage`'s rows of the order by single effects and of the greedy search.

    Single ablations are read from `real_data`; each language's search is kept in the store.
    Raises FileNotFoundError without them, and ValueError if they are of another model or texts.
    """
    shipped = Shipped.read(real_data)
    effects, made = shipped.table("single_effects"), shipped.causal()
    if differing := other_inputs(made, inputs(pipeline)):
        raise ValueError(
            f"{shipped.folder} is about another {' and other '.join(differing)} than this run's"
        )
    languages, width = pipeline.settings.languages, pipeline.shape["intermediate"][1]
    texts, others = damage.held_out(pipeline, plan.n_ranking, plan.n_damage)
    few = {x: own[: plan.n_search] for x, own in texts.items()}
    orders: dict[tuple[str, str, int], Tensor] = {}
    for x in languages:
        first = selective_first(effects, x, languages).head(plan.shortlist)
        listed = torch.tensor((first["layer"] * width + first["neuron"]).to_list())
        about: dict[str, Any] = {
            "model": model_key(pipeline.model),
            "texts": {y: tensor_digest(own) for y, own in few.items()},
            "target": x,
            "listed": listed.tolist(),
            "steps": list(plan.steps),
            "code": source_digest(damage.__name__),
        }
        found = pipeline.store.tensors(
            "greedy",
            about,
            lambda x=x, listed=listed: {  # type: ignore[misc]
                "order": damage.greedy_order(pipeline.model, few, x, listed, plan.steps)
            },
        )
        orders |= {(damage.SINGLE, x, -1): listed, (damage.GREEDY, x, -1): found["order"]}
    table = damage.damage(orders, plan.steps, pipeline.model, others, store=pipeline.store)
    rests_on: dict[str, Any] = {
        "model": pipeline.loaded.lasting_key,
        "texts": pipeline.perplexity_corpus.fingerprint(languages),
        "languages": list(languages),
        "steps": list(plan.steps),
        "shortlist": plan.shortlist,
        "n_search": plan.n_search,
        "n_ranking": plan.n_ranking,
        "n_damage": plan.n_damage,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    table = table.drop(columns=["digest", "key", "seed"])
    write_made(table.round(6), Path(folder) / FILE, rests_on)


def read_ceiling(folder: str | Path) -> pd.DataFrame:
    """The table that `ship_ceiling` wrote; FileNotFoundError without it."""
    made_by = "crane_lab.cli.criterion --ceiling"
    return pd.read_csv(shipped_file(folder, FILE, "a greedy search on a real model", made_by))


def at_the_largest(found: pd.DataFrame, damaged: pd.DataFrame) -> pd.DataFrame:
    """Means over languages at the search's largest budget, the largest difference first.

    `found`: the table of `ship_ceiling`; `damaged`: criteria's rows of `damage.damage` on the same
    model and windows (no random ones). One row per `criterion`: `budget`, `own`, `other`,
    `difference` and its standard error over windows, `difference_se`.
    """
    budget = int(found["budget"].max())
    every = pd.concat([found, damaged[damaged["seed"] < 0]], ignore_index=True)
    of = every[every["budget"] == budget].groupby("criterion", sort=False)
    at = of[["own", "other", "difference"]].mean()
    errors = of["difference_se"].agg(lambda se: float((se**2).sum() ** 0.5 / len(se)))
    at = at.assign(difference_se=errors, budget=budget).reset_index()
    return at.sort_values("difference", ascending=False, kind="stable", ignore_index=True)
