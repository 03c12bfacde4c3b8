"""Stage 1 and 2: everything that identifies neurons, collected in one pass over a language's texts.

What is read is the same whatever is asked for later, so CRANE at both sites, every statistic of
relevance, LAPE and the neurons' means come out of one forward and one backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel

from crane_core.accumulators import ActivationMeans, ActiveCounts, Reader, TokenSample, one_pass
from crane_core.attribution import POINTS
from crane_core.concentration import STATISTICS, Collected
from crane_lab.stages.streams import Measure

if TYPE_CHECKING:  # values of settings are in the keys themselves
    from crane_lab.settings import Settings

Shape = Mapping[str, tuple[int, int]]

#: Tokens per language that quantiles of activations come from.
QUANTILE_TOKENS = 1000


def readers(shape: Shape, settings: Settings) -> dict[str, Reader]:
    """What is collected for identification, by name.

    The `POINTS` at which relevance can be scored have a `Collected` each, which keeps samples only
    if the settings' statistic sorts them; "active" counts tokens with act_fn above 0, "means" are
    those of what `down_proj` reads.
    """
    sorts = not STATISTICS[settings.statistic].one_pass
    capacity = settings.n_samples if sorts else 0
    points = POINTS if settings.score == "activation_x_gradient" else POINTS[1:]
    inner = shape["intermediate"]
    found = {
        point: Reader(point, lambda size=shape[point]: Collected(size, capacity, settings.seed))  # type: ignore[misc]
        for point in points
    }
    found["active"] = Reader("act_fn", lambda: ActiveCounts(inner))
    found["means"] = Reader("unit", lambda: ActivationMeans(inner))
    return found


def value_readers(shape: Shape, settings: Settings) -> dict[str, Reader]:
    """What masks can set neurons to: means and quantiles of what `down_proj` reads."""
    inner = shape["intermediate"]
    return {
        "means": Reader("unit", lambda: ActivationMeans(inner)),
        "sample": Reader("unit", lambda: TokenSample(inner, QUANTILE_TOKENS, settings.seed)),
    }


def reading(
    model: PreTrainedModel,
    how: Mapping[str, Any],
    wanted: Mapping[str, Reader],
    rules: str = "attnlrp",
) -> Measure:
    """What `streams.collect` runs on every batch of windows, int64 (samples, tokens).

    `how`: `Identification.how`.
    """

    def run(ids: Tensor) -> Mapping[str, object]:
        return one_pass(model, ids, None, wanted, rules=rules, **how)

    return run
