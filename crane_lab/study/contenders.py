"""The sets of neurons that the neighbouring papers' questions are put to, and how they compare.

LAPE and Act Prob 90p are those of the LSN paper (Mondal et al., 2025); CRANE's sets and the best
contrast of mean relevance stand beside them, which it could not have.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from torch import Tensor

from crane_core import baselines
from crane_core.neurons import NeuronSet
from crane_core.selection import SelectionWarning
from crane_lab.pipeline import Pipeline
from crane_lab.study import criteria
from crane_lab.study.sharing import overlap_row

Sets = Mapping[str, NeuronSet]

#: (layers, neurons) of Llama-2-7B, which LAPE's released file is of.
LLAMA_2_7B = (32, 11008)
ACT_PROB = "Act Prob 90p"
RELEVANCE = "mean |relevance|"
#: Columns of `shared_by_methods`.
SHARED_COLUMNS = (
    *("language", "a", "b", "smaller"),
    *("shared", "chance", "ratio", "jaccard", "p", "against"),
)


def contenders(pipeline: Pipeline) -> dict[str, dict[str, NeuronSet]]:
    """Every method's set of each language: method -> language -> intermediate neurons.

    LAPE as it is released; the others with as many neurons as CRANE's own set has: LAPE matched,
    Act Prob 90p (by its score) and the relative contrast of mean |relevance|.
    """
    found: dict[str, dict[str, NeuronSet]] = {}
    for row in pipeline.rows("intermediate"):
        if row.seed is None:
            found.setdefault(row.method, {})[row.language] = row.neurons
    counts = {x: len(neurons) for x, neurons in found["CRANE"].items()}
    found[ACT_PROB] = _first(pipeline, criteria.act_prob_90p_scores(pipeline), counts)
    size = pipeline.statistic("intermediate", "mean_abs")
    relevance = {x: value for x, value in size.items() if isinstance(value, Tensor)}
    found[RELEVANCE] = _first(pipeline, criteria.relative_contrasts(relevance), counts)
    return found


def layer_sizes(sets: Mapping[str, Sets]) -> pd.DataFrame:
    """How many neurons each method gives to each language: a row per `layer`, with `neurons`."""
    return pd.DataFrame(
        {"method": method, "language": x, "layer": layer, "neurons": n}
        for method, of in sets.items()
        for x, neurons in of.items()
        for layer, n in enumerate(neurons.counts("intermediate").tolist())
    )


def _first(
    pipeline: Pipeline, scores: Mapping[str, Tensor], counts: Mapping[str, int]
) -> dict[str, NeuronSet]:
    shape = pipeline.shape["intermediate"]
    return {x: NeuronSet.from_flat(criteria.order(scores[x])[:n], shape) for x, n in counts.items()}


def rates_above_own_90th(scores: Mapping[str, Tensor], within: float = 0.001) -> pd.DataFrame:
    """How far Act Prob 90p's score tells neurons apart, a row per language.

    `low`, `median`, `high`: 1st, 50th and 99th percentile of the score over neurons; `same`: the
    share of neurons within `within` of a tenth, which an exact 90th percentile would give to all.
    """
    rows = []
    for x, score in scores.items():
        flat = score.flatten().double()
        low, median, high = flat.quantile(flat.new_tensor([0.01, 0.5, 0.99])).tolist()
        same = float(((flat - 0.1).abs() <= within).double().mean())
        rows.append({"language": x, "low": low, "median": median, "high": high, "same": same})
    return pd.DataFrame(rows)


def lape_among(
    over: Mapping[str, Tensor], n: Mapping[str, int], among: Sequence[str], rate: float = 0.01
) -> Sets:
    """LAPE's sets of some of the languages, compared with each other; one can be empty.

    `over`, `n`, `rate` as `baselines.lape` takes them, of these languages or more.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelectionWarning)  # no neuron is a result here
        return baselines.lape({x: over[x] for x in among}, {x: n[x] for x in among}, rate)


def lape_by_languages(pipeline: Pipeline) -> pd.DataFrame:
    """LAPE's sets from all of the run's languages, and with each other language left out.

    One row per language and choice that holds it: `without` (None for all), `neurons`, and of the
    set from all languages the `shared` neurons and `jaccard`. Of two languages neither is left out.
    """
    over, n = pipeline.activation_counts()
    every = pipeline.settings.languages
    rows = []

    whole = lape_among(over, n, every)
    for without in (None, *(every if len(every) > 2 else ())):
        for x, neurons in lape_among(over, n, [x for x in every if x != without]).items():
            shared, either = len(neurons & whole[x]), len(neurons | whole[x])
            rows.append(
                {
                    "language": x,
                    "without": without,
                    "neurons": len(neurons),
                    "shared": shared,
                    "jaccard": shared / either if either else np.nan,
                }
            )
    found = pd.DataFrame(rows)
    return pd.concat([found[found["language"] == x] for x in every], ignore_index=True)


def shared_by_methods(sets: Mapping[str, Sets]) -> pd.DataFrame:
    """What two methods' sets of one language share, beside chance: `overlap_row`, every pair.

    `smaller` is the number of neurons of the smaller set.

    LAPE and LAPE matched, one order cut twice, are no pair; nor is a set without neurons. Without
    any pair there are columns and no row.
    """
    rows = []
    for a, b in combinations(sets, 2):
        if {a, b} == {"LAPE", "LAPE matched"}:
            continue
        for x, neurons in sets[a].items():
            if len(neurons) and len(sets[b][x]):
                smaller = min(len(neurons), len(sets[b][x]))
                about = {"language": x, "a": a, "b": b, "smaller": smaller}
                rows.append({**about, **overlap_row(neurons, sets[b][x])})
    return pd.DataFrame(rows, columns=SHARED_COLUMNS if not rows else None)
