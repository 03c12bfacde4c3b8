"""What a real model can do before any method is run on it, and what is told of its sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from crane_core import metrics
from crane_core.accumulators import Reader, collect
from crane_core.attribution import neuron_relevance
from crane_core.concentration import Collected, compute
from crane_core.interventions import UNTOUCHED
from crane_core.selection import NeuronSet
from crane_lab.engines.multiple_choice import accuracies
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.stages import comparisons
from crane_lab.stages.keys import weights_of
from crane_lab.stages.losses import held_out_losses
from crane_lab.stages.methods import METHODS
from crane_lab.study import criteria, damage, gate, sampled
from crane_lab.study.nulls import Nulls
from crane_lab.study.sharing import overlap_row

#: Shares of all neurons in the gate's random masks, and the seeds: Table 1's use none of these.
FRACTIONS, SEEDS = (0.01, 0.05), gate.SEEDS[:2]


def inputs(pipeline: Pipeline) -> dict[str, Any]:
    """What results rest on (`shipped.INPUTS`): the model and its weights, and digests of texts."""
    languages = pipeline.settings.languages
    return {
        "model": {"name": pipeline.settings.model, "weights": weights_of(pipeline.model)},
        "texts": {
            "corpus": pipeline.corpus.fingerprint(languages),
            "perplexity_corpus": pipeline.perplexity_corpus.fingerprint(languages),
        },
    }


def parallel_verdicts(pipeline: Pipeline, random: Nulls) -> dict[str, pd.DataFrame]:
    """`comparisons.verdicts` of every table but Table 1, as `table1_parallel_<kind>_verdicts`."""
    rows = pipeline.rows("intermediate")
    evaluated, nulls = pipeline.evaluated(rows), random.of_rows("tasks", rows)
    items = evaluated.items()
    return {
        f"table1_parallel_{kind}_verdicts": comparisons.verdicts(
            items, evaluated.table(tasks), tasks, nulls=nulls, reading=pipeline.reading
        )
        for kind, tasks in pipeline.tables.items()
        if kind != pipeline.main_table
    }


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


#: Predicted tokens of a window in parts, by their numbers from 1; None: to the window's end.
PLACES: tuple[tuple[int, int | None], ...] = ((1, None), (1, 8), (9, 32), (33, None))


def losses_by_opening(
    pipeline: Pipeline, places: Sequence[tuple[int, int | None]] = PLACES
) -> pd.DataFrame:
    """What the token that opens a window is worth: the same windows with it and without.

    Only tokens that are predicted in both are counted: without an opening nothing predicts the
    first. Rows of `language`, `windows`, `first` and `last` (of `places`; 0: the end), and the mean
    loss in nats per token `with` and `without`, and `costs`, the difference, with its 95 % interval
    over windows (`low`, `high`).

    Raises ValueError for windows that nothing opens.
    """
    opening = pipeline.how["opening"]
    if opening != 1:
        raise ValueError(f"windows open with {opening} tokens: expected one to be left out")
    rows = []
    for x, windows in pipeline.perplexity_windows.items():
        with_, without = (
            cache(partial(_summed_losses, pipeline.model, ids)) for ids in (windows, windows[:, 1:])
        )
        for first, last in places:
            end = last or windows.shape[1] - 2
            n = end - first + 1
            of = {  # the opening predicts one token more, the first
                "with": (with_(end + 1) - with_(first)) / n,
                "without": (without(end) - without(first - 1)) / n,
            }
            found = metrics.drop_interval(of["without"], of["with"])
            rows.append(
                {
                    "language": x,
                    "windows": len(windows),
                    "first": first,
                    "last": last or 0,
                    **{name: float(values.mean()) for name, values in of.items()},
                    "costs": found.estimate,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return pd.DataFrame(rows)


def _summed_losses(model: PreTrainedModel, windows: Tensor, n: int) -> NDArray[np.float64]:
    """Losses of the first `n` predicted tokens of each window, summed."""
    if not n:
        return np.zeros(len(windows))
    found: NDArray[np.float64] = perplexity(model, windows[:, : n + 1]).losses.double().numpy() * n
    return found


def relevance_by_opening(pipeline: Pipeline, n: int = 100) -> pd.DataFrame:
    """How far relevance orders neurons alike with and without the token that opens windows.

    Rows of `language`, `windows` (`n`), `statistic` ("mean_abs" or "kurtosis"), `rho`, Spearman's
    rank correlation over all neurons between the same windows with and without the token, and
    `rho_windows`, the same between these and as many other windows, both with it: what to expect if
    the token made no difference.

    Raises ValueError for windows that nothing opens, and for fewer than 2 `n` windows.
    """
    opening = pipeline.how["opening"]
    if opening != 1 or pipeline.settings.n_samples < 2 * n:
        raise ValueError(
            f"windows open with {opening} tokens and there are {pipeline.settings.n_samples}: "
            f"expected one token, and at least {2 * n} windows"
        )
    size = pipeline.shape["intermediate"]
    reader = Reader("intermediate", lambda: Collected(size, capacity=0))
    rows = []
    for x, windows in pipeline.windows.items():
        parts = {"with": windows[:n], "without": windows[:n, 1:], "others": windows[n : 2 * n]}
        found = {}
        for name, ids in parts.items():
            how = {**pipeline.how, "opening": 0 if name == "without" else 1}
            batches = ids.split(pipeline.settings.batch_size)
            found[name] = collect(pipeline.model, batches, {"of": reader}, **how)["of"]
        for statistic in ("mean_abs", "kurtosis"):
            value = {name: compute(statistic, of).flatten() for name, of in found.items()}
            rho = [_rank_correlation(value["with"], value[k]) for k in ("without", "others")]
            row = {"language": x, "windows": n, "statistic": statistic}
            rows.append({**row, "rho": rho[0], "rho_windows": rho[1]})
    return pd.DataFrame(rows)


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    known = ~(a.isnan() | b.isnan())
    return float(stats.spearmanr(a[known].numpy(), b[known].numpy())[0])


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


def agreement_of_all(
    pipeline: Pipeline, folder: str | Path, n_texts: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How the main criteria rank all neurons of a model whose single effects are shipped.

    `criteria.rank_agreement` of `sampled.main_criteria` and `criteria.split_half`, neurons set to
    zero, both with a column `set_to`. `folder` and `n_texts` are as notebook 09 has them. Raises as
    `damage.gold_standard`.
    """
    texts, _ = damage.held_out(pipeline, n_texts, 1)
    necessity = damage.gold_standard(pipeline, texts, folder).necessity
    main = sampled.main_criteria(pipeline.settings.objective)
    every = criteria.criteria(pipeline, (pipeline.settings.objective,))
    scores = {name: every[name] for name in main}
    seed = pipeline.settings.seed
    found = criteria.rank_agreement(scores, necessity, reference=main[0], seed=seed)
    trust = criteria.split_half(necessity)
    return found.assign(set_to="zero"), trust.assign(set_to="zero")
