"""How much of a language's set hangs on single windows.

Kurtosis is a fourth moment: one window in which a neuron's relevance is far from all others can
make nearly all of it. Moments without one sample follow from the moments of all of them, so a
second pass over the windows gives every neuron's kurtosis without each of them in turn, and the set
that would be selected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_core.neurons import NeuronSet
from crane_core.selection import Scores, margins, normalise
from crane_lab.pipeline import Pipeline
from crane_lab.store import source_digest


def kurtosis_without(values: Tensor, moments: StreamingMoments) -> Tensor:
    """Kurtosis (Eq. 2) of a sample without each of some of its values in turn.

    Parameters
    ----------
    values : some samples' values, (samples, layers, neurons).
    moments : of all samples, `values` among them; at least 3.

    Returns (samples, layers, neurons), float64; NaN where nothing is left that varies
    (less than a millionth of the sum of squares).
    """
    n, state = moments.count, moments.state()
    m2, m3, m4 = state["m2"], state["m3"], state["m4"]
    away = values.double() - moments.mean()
    rest = {k: total - away**k for k, total in ((2, m2), (3, m3), (4, m4))}
    shift = -away / (n - 1)  # of the mean, when the value is gone
    one = -away  # the rest's sum of deviations from the old mean
    second = rest[2] - (n - 1) * shift**2
    fourth = (
        rest[4] - 4 * shift * rest[3] + 6 * shift**2 * rest[2] - 4 * shift**3 * one
        + (n - 1) * shift**4
    )  # fmt: skip
    scale = m2.clamp(min=torch.finfo(torch.float64).tiny)
    # Below this, rounding in the sums of all samples is as large as the fourth power that is left.
    varies = second > 1e-6 * scale
    found = (n - 1) * fourth.clamp(min=0) / second.clamp(min=torch.finfo(torch.float64).tiny) ** 2
    return found.where(varies, torch.nan)


@dataclass(frozen=True)
class Influence:
    """What one language's windows do to its set, each left out in turn.

    `neurons`: one row per neuron of the set, with `layer`, `neuron`, `kurtosis`, `without` (the
    least kurtosis without one window), `window` (which that is), and `kept`: whether the neuron is
    still selected without it. `windows`: one row per window, with `selected` without it, and
    `shared` with the set of all windows.
    """

    neurons: pd.DataFrame
    windows: pd.DataFrame


def influence(pipeline: Pipeline, language: str) -> Influence:
    """Every window of a language left out in turn; the other languages stay as they are.

    For statistic `kurtosis` and rule `contrast`, as the paper has them. Raises ValueError for
    others.
    """
    s = pipeline.settings
    if (s.statistic, s.rule) != ("kurtosis", "contrast"):
        raise ValueError(
            f"influence is known for statistic 'kurtosis' and rule 'contrast', not for "
            f"{s.statistic!r} and {s.rule!r}"
        )
    key = {
        **pipeline.relevance_key(language),
        "languages": list(s.languages),
        "others": {x: pipeline.corpus.fingerprint([x]) for x in s.languages},
        "normalisation": s.normalisation,
        "threshold": s.threshold,
        "code": source_digest(__name__),
    }
    tables: dict[str, pd.DataFrame] = {}

    def of(name: str) -> pd.DataFrame:
        if not tables:
            found = _left_out(pipeline, language)
            tables.update(neurons=found.neurons, windows=found.windows)
        return tables[name]

    kept = {
        name: pipeline.store.table("influence", {**key, "table": name}, partial(of, name))
        for name in ("neurons", "windows")
    }
    return Influence(kept["neurons"], kept["windows"])


def _tensors(found: Mapping[str, Scores]) -> dict[str, Tensor]:
    return {x: values for x, values in found.items() if isinstance(values, Tensor)}


def _left_out(pipeline: Pipeline, language: str) -> Influence:
    s = pipeline.settings
    moments = pipeline.collected(language)["intermediate"].moments
    scores = _tensors(pipeline.normalised("intermediate"))
    kurtosis = _tensors(pipeline.kurtosis("intermediate"))[language]
    own = pipeline.neuron_sets("intermediate")[language].mask("intermediate")
    _, other = margins(scores, language)
    free = ~(other > s.threshold) & ~other.isnan()
    least, window = kurtosis.clone(), torch.full(kurtosis.shape, -1)
    kept, rows = own.clone(), []
    windows = pipeline.windows[language]
    for start in range(0, len(windows), s.batch_size):
        batch = windows[start : start + s.batch_size]
        values = neuron_relevance(pipeline.model, batch, **pipeline.how)
        for number, without in enumerate(kurtosis_without(values, moments), start):
            selected = (normalise(without, s.normalisation) > s.threshold) & free
            lower = without < least
            least = torch.where(lower, without, least)
            window = torch.where(lower, number, window)
            kept = torch.where(lower, selected, kept)
            rows.append((number, int(selected.sum()), int((selected & own).sum())))
    where = NeuronSet({"intermediate": own}, pipeline.shape)
    neurons = pd.DataFrame(
        [
            {
                "layer": layer,
                "neuron": neuron,
                "kurtosis": float(kurtosis[layer, neuron]),
                "without": float(least[layer, neuron]),
                "window": int(window[layer, neuron]),
                "kept": bool(kept[layer, neuron]),
            }
            for layer, neuron in where
        ]
    )
    return Influence(neurons, pd.DataFrame(rows, columns=["window", "selected", "shared"]))


def influence_summary(found: dict[str, Influence]) -> pd.DataFrame:
    """What hangs on single windows, one row per language.

    `n`, neurons in the set; `kurtosis` and `without`, medians with all windows and without each
    neuron's most influential one; `lost`, neurons that are not selected without it; `window`, the
    window whose absence changes the set most, and `gone`, how many of the set are then not
    selected; `shared`, the mean share of the set that is left without one window.
    """
    rows = []
    for x, of in found.items():
        n = len(of.neurons)
        worst = of.windows.iloc[int(of.windows["shared"].to_numpy().argmin())]
        rows.append(
            {
                "language": x,
                "n": n,
                "kurtosis": of.neurons["kurtosis"].median() if n else float("nan"),
                "without": of.neurons["without"].median() if n else float("nan"),
                "lost": int((~of.neurons["kept"].astype(bool)).sum()) if n else 0,
                "window": int(worst["window"]),
                "gone": n - int(worst["shared"]),
                "shared": of.windows["shared"].mean() / n if n else float("nan"),
            }
        )
    return pd.DataFrame(rows)
