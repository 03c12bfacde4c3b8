"""What interventions and chosen neurons do to a task that was learned in English (`taught`).

An effect is a change from the same training without it: of activations, from the same tuned model
untouched; of weights, from attention tuned alone under the same seed. Its interval is over
trainings. Where it lies among random sets of the same size in every layer, each averaged over the
same trainings, stands beside it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from crane_lab.stages.standing import held_against
from crane_lab.study.taught import RANDOM

_RANDOM_AS = f"{RANDOM} as "


def taught_effects(table: pd.DataFrame, score: str = "score") -> pd.DataFrame:
    """Every method's effect by the language asked, over seeds, and where random sets have theirs.

    Parameters
    ----------
    table : as `taught.read_taught` gives it, of one part and task.
    score : "score", or "f1" for qa.

    Returns
    -------
    One row per `method`, `of`, `set_to` and `language`: `n_neurons`, `seeds`, `score` (mean),
    `change` with `low` and `high` (Student's t over seeds, 95 %; NaN for one), and the columns of
    `standing.held_against`, corrected over the rows that have random sets beside them.
    """
    plain = table[table["method"] == "none"].set_index(["seed", "language"])[score]
    own = table.copy()
    own["change"] = own[score].to_numpy() - plain.loc[
        pd.MultiIndex.from_frame(own[["seed", "language"]])
    ].to_numpy(float)
    random = own[own["method"].str.startswith(_RANDOM_AS)]
    rows, nulls = [], []
    chosen = own[~own["method"].str.startswith(_RANDOM_AS) & (own["method"] != "none")]
    keys = ["method", "of", "set_to", "language"]
    for (method, of, set_to, language), found in chosen.groupby(keys, sort=False):
        changes = found["change"].to_numpy(float)
        low = high = np.nan
        if len(changes) > 1:
            error = stats.sem(changes) * stats.t.ppf(0.975, len(changes) - 1)
            low, high = changes.mean() - error, changes.mean() + error
        rows.append(
            {
                **{"method": method, "of": of, "set_to": set_to, "language": language},
                "n_neurons": int(found["n_neurons"].iloc[0]),
                "seeds": len(changes),
                "score": found[score].mean(),
                "change": changes.mean(),
                "low": low,
                "high": high,
            }
        )
        same = random[
            (random["method"] == f"{_RANDOM_AS}{method}")
            & (random["of"] == of)
            & (random["set_to"] == set_to)
            & (random["language"] == language)
        ]
        nulls.append(same.groupby("draw")["change"].mean().to_numpy(float))
    effects = pd.DataFrame(rows)
    if effects.empty:
        return effects
    return pd.concat([effects, held_against(effects["change"].to_list(), nulls)], axis=1)


def taught_levels(table: pd.DataFrame, score: str = "score") -> pd.DataFrame:
    """How well the task is done without any intervention or neuron: by language, over seeds.

    One row per language: `score` (mean), `lowest` and `highest` over seeds, `seeds`.
    """
    plain = table[table["method"] == "none"].groupby("language", sort=False)[score]
    return plain.agg(score="mean", lowest="min", highest="max", seeds="size").reset_index()
