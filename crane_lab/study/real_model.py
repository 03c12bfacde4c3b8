"""What a real model has to show before any method is run on it, and what is told of its sets.

The gate is decided by the unmasked model and by random masks alone, as the testbed's is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from crane_core import metrics
from crane_core.attribution import neuron_relevance
from crane_core.interventions import UNTOUCHED
from crane_core.selection import NeuronSet
from crane_lab.engines.multiple_choice import accuracies
from crane_lab.pipeline import Pipeline
from crane_lab.stages.losses import held_out_losses
from crane_lab.stages.methods import METHODS
from crane_lab.study import criteria, damage, gate, sampled
from crane_lab.study.sharing import overlap_row

#: Shares of all neurons in the gate's random masks, and the seeds: Table 1's use none of these.
FRACTIONS, SEEDS = (0.01, 0.05), gate.SEEDS[:2]


def tasks_gate(
    pipeline: Pipeline, fractions: Sequence[float] = FRACTIONS, seeds: Sequence[int] = SEEDS
) -> pd.DataFrame:
    """Accuracy of every task without a mask and under random masks.

    Rows of `fraction` (0: no mask), `seed` (-1 then), `task`, `language`, `accuracy`, `n`, and the
    95 % Wilson interval `low`, `high`.
    """
    masks = [(0.0, -1, UNTOUCHED)]
    for fraction in fractions:
        for seed in seeds:
            neurons = gate.random_neurons(pipeline.model, fraction, seed)
            masks.append((fraction, seed, pipeline.masking(neurons, "zero")))
    tables = []
    for fraction, seed, intervention in masks:
        items = pipeline.items(intervention)
        table = accuracies(items).reset_index()
        spoken = items.groupby("task", sort=False)["language"].first()
        table.insert(1, "language", table["task"].map(spoken))
        tables.append(table.assign(fraction=fraction, seed=seed))
    found = pd.concat(tables, ignore_index=True)
    return found[["fraction", "seed", "task", "language", "accuracy", "n", "low", "high"]]


def losses_by_opening(pipeline: Pipeline) -> pd.DataFrame:
    """Held-out loss of windows that open with BOS and of windows cut from a stream.

    Rows of `opening`, `language`, `windows`, mean `loss` in nats per token and its 95 % interval
    over windows `low`, `high`. The texts are the same; a window of a stream has one more token of
    them, and most begin in the middle of a sentence either way.
    """
    rows = []
    for opening in ("bos", "stream"):
        of = pipeline.changed(window_opening=opening)
        rows += [{"opening": opening, **row} for row in _means(of.losses())]
    return pd.DataFrame(rows)


def _means(losses: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    rows = []
    for language, values in losses.items():
        found = metrics.mean_interval(values.double().numpy())
        rows.append(
            {
                "language": language,
                "windows": len(values),
                "loss": found.estimate,
                "low": found.low,
                "high": found.high,
            }
        )
    return rows


def relevance_by_opening(
    pipeline: Pipeline, n_samples: int = 100, statistic: str = "mean_abs"
) -> pd.DataFrame:
    """How far a statistic of relevance orders neurons alike under both openings of windows.

    One row per language: `windows`, how many it was taken on, and `rho`, Spearman's rank
    correlation over all neurons.
    """
    both = [
        pipeline.changed(window_opening=opening, n_samples=n_samples).statistic(
            "intermediate", statistic
        )
        for opening in ("bos", "stream")
    ]
    rows = []
    for x in pipeline.settings.languages:
        a, b = (np.asarray(found[x]).ravel() for found in both)
        known = ~(np.isnan(a) | np.isnan(b))
        rho = float(stats.spearmanr(a[known], b[known])[0])
        rows.append({"language": x, "windows": n_samples, "rho": rho})
    return pd.DataFrame(rows)


def small_case(
    pipeline: Pipeline, sets: Mapping[str, Mapping[str, NeuronSet]], n: int = 4
) -> pd.DataFrame:
    """Some of a run's numbers on its first `n` windows, so that they can be computed anew.

    Rows of `what`, `language` and `value`: the mean held-out loss in nats per token, unmasked and
    with each of `sets` at zero, and the mean over neurons of mean |relevance| in logits.
    """
    few = {x: windows[:n] for x, windows in pipeline.perplexity_windows.items()}
    masks = {"unmasked": UNTOUCHED}
    masks |= {
        f"{m}, {x}": pipeline.masking(own, "zero")
        for m, of in sets.items()
        for x, own in of.items()
    }
    rows = []
    for name, intervention in masks.items():
        found = held_out_losses(pipeline.model, few, intervention, lambda text: None)
        rows += [(f"loss, {name}", x, float(own.double().mean())) for x, own in found.items()]
    for x, windows in pipeline.windows.items():
        relevance = neuron_relevance(pipeline.model, windows[:n], **pipeline.how)
        rows.append(("mean |relevance|", x, float(relevance.double().abs().mean())))
    return pd.DataFrame(rows, columns=["what", "language", "value"])


def method_sets(pipeline: Pipeline) -> dict[str, Mapping[str, NeuronSet]]:
    """The intermediate neurons that each method of Table 1 takes: method -> language -> set."""
    crane = pipeline.neuron_sets("intermediate")
    return {name: method(pipeline, crane) for name, method in METHODS.items()}


def counts_by_layer(sets: Mapping[str, Mapping[str, NeuronSet]]) -> pd.DataFrame:
    """Rows of `method`, `language`, `layer`, `n_neurons`."""
    return pd.DataFrame(
        [
            {"method": method, "language": x, "layer": layer, "n_neurons": n}
            for method, of in sets.items()
            for x, neurons in of.items()
            for layer, n in enumerate(neurons.mask("intermediate").sum(1).tolist())
        ]
    )


def overlaps(sets: Mapping[str, Mapping[str, NeuronSet]]) -> pd.DataFrame:
    """What every two sets share beside what chance would: `overlap_row` with who they are.

    `method`, `language` and `n` name one set, `method_2`, `language_2` and `n_2` the other.
    """
    named = [(method, x, neurons) for method, of in sets.items() for x, neurons in of.items()]
    return pd.DataFrame(
        [
            {
                **{"method": m, "language": x, "n": len(a)},
                **{"method_2": k, "language_2": y, "n_2": len(b)},
                **overlap_row(a, b),
            }
            for (m, x, a), (k, y, b) in combinations(named, 2)
        ]
    )


def agreement_of_all(pipeline: Pipeline, folder: str | Path, n_texts: int) -> pd.DataFrame:
    """How the main criteria rank all neurons of a model whose single effects are shipped.

    `criteria.rank_agreement` of `sampled.main_criteria`, neurons set to zero, with a column
    `set_to`. `folder` and `n_texts` are as notebook 09 has them. Raises as `damage.gold_standard`.
    """
    texts, _ = damage.held_out(pipeline, n_texts, 1)
    necessity = damage.gold_standard(pipeline, texts, folder).necessity
    main = sampled.main_criteria(pipeline.settings.objective)
    every = criteria.criteria(pipeline, (pipeline.settings.objective,))
    scores = {name: every[name] for name in main}
    seed = pipeline.settings.seed
    found = criteria.rank_agreement(scores, necessity, reference=main[0], seed=seed)
    return found.assign(set_to="zero")
