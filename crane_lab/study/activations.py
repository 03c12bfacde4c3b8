"""What neurons put out, where it is read and where it is written (the LSN paper's interventions).

Mondal et al. (2025) take percentiles of what `act_fn` takes in and write them where it puts out. An
activation function with a least value, SiLU or GELU, never puts out what lies below, so what they
call deactivation can be a state that no text brings the neuron into. `activation_values` has both
places, `out_of_reach` says how often that is so, and `value_losses` what each value does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from crane_core.accumulators import ActivationMeans, Reader, TokenSample
from crane_core.families import mlp_sites
from crane_core.interventions import Intervention, SetTo, zero
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.stages.relevance import QUANTILE_TOKENS

#: method -> language -> neurons.
Contenders = Mapping[str, Mapping[str, NeuronSet]]
#: place -> language -> statistic -> (layers, neurons), of `activation_values`.
Values = Mapping[str, Mapping[str, Mapping[str, Tensor]]]

#: Quantiles of the paper's Table 6, by their names there.
QUANTILES = {"P5": 0.05, "P10": 0.1, "P25": 0.25, "P75": 0.75, "P90": 0.9, "P95": 0.95}
STATISTICS = ("mean", *QUANTILES)
#: Where activations are read: before `act_fn` and after it.
PLACES = ("before", "after")
_READ_AT = {"before": "pre_act", "after": "act_fn"}
#: What a neuron can be set to at `act_fn`'s output: zero, or a statistic read at one of `PLACES`.
Written = tuple[str, str] | None


def activation_values(pipeline: Pipeline) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Statistics of every neuron's activation: place -> language -> statistic -> float32 values.

    Places are `PLACES`, statistics `STATISTICS`, values (layers, neurons). Read on the attribution
    windows in one pass; quantiles are those of a uniform sample of the stream's tokens.
    """
    size = pipeline.shape["intermediate"]
    seed = pipeline.settings.seed
    readers = {}
    for place, point in _READ_AT.items():
        readers[f"{place}-mean"] = Reader(point, lambda: ActivationMeans(size))
        readers[f"{place}-sample"] = Reader(point, lambda: TokenSample(size, QUANTILE_TOKENS, seed))
    every = pipeline.by_language(
        lambda x: pipeline.collect(x, readers, "activation-values", tokens=QUANTILE_TOKENS)
    )
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for place in PLACES:
        for x, kept in every.items():
            quantiles = kept[f"{place}-sample"].quantiles(list(QUANTILES.values()))
            values = {
                "mean": kept[f"{place}-mean"].mean(),
                **dict(zip(QUANTILES, quantiles, strict=True)),
            }
            found.setdefault(place, {})[x] = {n: v.float() for n, v in values.items()}
    return found


def means_over_neurons(values: Values) -> pd.DataFrame:
    """Every statistic's mean over all neurons, by place and language (the LSN paper's Table 6)."""
    return pd.DataFrame(
        {"language": x, "place": place}
        | {name: float(own[name].double().mean()) for name in STATISTICS}
        for place in PLACES
        for x, own in values[place].items()
    )


def setting(
    neurons: NeuronSet,
    values: Values,
    language: str,
    written: Written,
) -> Intervention:
    """`neurons` put out a statistic of their activation in `language`, or zero (`written` None).

    Written at `act_fn`'s output, at all positions, as the paper does. Zero there is zero at
    `down_proj`, the masking of CRANE.

    Raises ValueError for a place, language or statistic that `values` does not have.
    """
    if written is None:
        return zero(neurons)
    statistic, place = written
    _require_known("place", place, values)
    _require_known("language", language, values[place])
    _require_known("statistic", statistic, values[place][language])
    if not len(neurons):
        return zero(neurons)
    value = {"intermediate": values[place][language][statistic]}
    return Intervention(SetTo(neurons, value, at="act_fn"))


def _require_known(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: expected one of {', '.join(known)}")


def least_output(model: PreTrainedModel) -> float:
    """The least value that the model's activation function puts out (SiLU: -0.278)."""
    act_fn = mlp_sites(model)[0].act_fn
    with torch.no_grad():
        grid = torch.linspace(-20, 20, 400_001, device=model.device)
        return float(act_fn(grid).min())


def out_of_reach(values: Values, sets: Contenders, least: float) -> pd.DataFrame:
    """How many of the values written are below anything that `act_fn` puts out.

    One row per method, language, place and statistic: `share` of the set's neurons whose value is
    less than `least`, and `value`, their mean.
    """
    rows = []
    for method, of in sets.items():
        for x, neurons in of.items():
            chosen = neurons.mask("intermediate")
            for place in PLACES:
                for statistic in STATISTICS:
                    own = values[place][x][statistic][chosen].double()
                    rows.append(
                        {
                            "method": method,
                            "language": x,
                            "place": place,
                            "statistic": statistic,
                            "share": float((own < least).double().mean()) if len(own) else np.nan,
                            "value": float(own.mean()) if len(own) else np.nan,
                        }
                    )
    return pd.DataFrame(rows)


def written_name(written: Written) -> str:
    """How a value is called in tables: "zero", "mean after", "P10 before"."""
    return "zero" if written is None else " ".join(written)
