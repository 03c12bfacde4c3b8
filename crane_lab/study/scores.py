"""Kurtosis looked at from all sides before it selects anything (§3.3, Figures 2 and 3)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm
from torch import Tensor

from crane_core.attribution import neuron_relevance
from crane_core.moments import StreamingMoments
from crane_core.selection import (
    NORMALISATIONS,
    SelectionWarning,
    margins,
    normalise,
    overlap,
    select,
)
from crane_lab.pipeline import Pipeline
from crane_lab.store import source_digest
from crane_lab.study.halves import rank_correlation
from crane_lab.study.sharing import overlap_row

#: What a picked neuron was picked for -> (layer, neuron).
Picked = dict[tuple[str, str], tuple[int, int]]


def kurtosis_summary(kurtosis: Mapping[str, Tensor]) -> pd.DataFrame:
    """Per language: neurons, those without a score, quartiles, the largest, and share below 3."""
    rows = []
    for language, values in kurtosis.items():
        known = values[~values.isnan()].numpy()
        q25, q50, q75 = np.quantile(known, [0.25, 0.5, 0.75])
        rows.append(
            {
                "language": language,
                "neurons": values.numel(),
                "constant": int(values.isnan().sum()),
                "lower quartile": q25,
                "median": q50,
                "upper quartile": q75,
                "largest": known.max(),
                "below 3": (known < 3).mean(),
            }
        )
    return pd.DataFrame(rows)


def by_normalisation(kurtosis: Mapping[str, Tensor], threshold: float) -> pd.DataFrame:
    """How many candidates each normalisation leaves at one threshold.

    Returns `normalisation` and, per language, "<x>: above", the share of all neurons above the
    threshold, and "<x>: contrast", how many of them are above it in no other language.
    """
    rows = []
    for how in NORMALISATIONS:
        scores = {x: normalise(values, how) for x, values in kurtosis.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SelectionWarning)  # an empty set is a result here
            counts = {x: len(select(scores, x, threshold=threshold)) for x in scores}
        above = {x: (s > threshold).double().mean().item() for x, s in scores.items()}
        rows.append(
            {
                "normalisation": how,
                **{f"{x}: above": above[x] for x in scores},
                **{f"{x}: contrast": counts[x] for x in scores},
            }
        )
    return pd.DataFrame(rows)


# --- a second pass over the windows ---------------------------------------------------------------


def pick(normalised: Mapping[str, Tensor], threshold: float) -> Picked:
    """Neurons to look at: for each language those of largest and of median contrast.

    Of the neurons that the rule `contrast` selects; none for a language without any. Keys are
    (language, "largest contrast") and (language, "median contrast").
    """
    picked = {}
    for language in normalised:
        own, other = margins(normalised, language)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SelectionWarning)
            chosen = select(normalised, language, "contrast", threshold)
        ranked = sorted(chosen, key=lambda pair: float((other - own)[pair]))
        if ranked:
            picked[language, "largest contrast"] = ranked[0]
            picked[language, "median contrast"] = ranked[len(ranked) // 2]
    return picked


@dataclass(frozen=True)
class SecondLook:
    """What `second_look` keeps of relevance, by language."""

    blocks: dict[str, list[StreamingMoments]]  # moments of each block of windows
    block: int  # windows in a block
    magnitude: dict[str, Tensor]  # mean |relevance|, (layers, neurons)
    values: dict[str, dict[tuple[str, str], NDArray[np.float64]]]  # picked neurons, (samples,)


def second_look(pipeline: Pipeline, picked: Picked, n_blocks: int = 20) -> SecondLook:
    """Run the windows once more, for what kurtosis alone does not say; kept in the store.

    `picked` names the neurons whose single values are kept; windows are run in `n_blocks` blocks
    (fewer if there are fewer windows). Blocks serve every look with as many, whatever is picked.
    """
    s = pipeline.settings
    block = -(-s.n_samples // n_blocks)
    look = SecondLook({}, block, {}, {})
    for language in s.languages:
        key = {
            **pipeline.relevance_key(language),
            "block": block,
            "code": source_digest(__name__),
        }
        seen: dict[str, dict[str, Tensor]] = {}
        columns = torch.tensor(list(picked.values()), dtype=torch.long).reshape(-1, 2)
        pass_ = partial(_in_blocks, pipeline, language, block, columns, seen)
        found = pipeline.store.tensors("blocks", key, partial(pass_, "blocks"))
        n = len([name for name in found if name.startswith("count")])
        look.blocks[language] = [
            StreamingMoments.from_state(
                {
                    name.partition(" ")[0]: value
                    for name, value in found.items()
                    if name.endswith(f" {number}")
                }
            )
            for number in range(n)
        ]
        look.magnitude[language] = found["magnitude"]
        look.values[language] = {}
        if picked:
            key |= {"picked": columns.tolist()}
            kept = pipeline.store.tensors("picked", key, partial(pass_, "picked"))["values"]
            look.values[language] = dict(zip(picked, kept.T.double().numpy(), strict=True))
    return look


def _in_blocks(
    pipeline: Pipeline,
    language: str,
    block: int,
    columns: Tensor,
    seen: dict[str, dict[str, Tensor]],
    part: str,
) -> dict[str, Tensor]:
    """One pass for both `part`s, "blocks" and "picked", as tensors; `seen` is filled by it."""
    if not seen:
        shape = pipeline.shape["intermediate"]
        size, kept = StreamingMoments(shape), []
        seen["blocks"] = {}
        for number, ids in enumerate(pipeline.windows[language].split(block)):
            relevance = neuron_relevance(pipeline.model, ids, None, **pipeline.how).cpu()
            moments = StreamingMoments(shape)
            moments.update(relevance)
            state = moments.state().items()
            seen["blocks"] |= {f"{name} {number}": value for name, value in state}
            size.update(relevance.abs())
            kept.append(relevance[:, columns[:, 0], columns[:, 1]])
        seen["blocks"]["magnitude"] = size.mean()
        seen["picked"] = {"values": torch.cat(kept)}
    return seen[part]


def magnitude_and_kurtosis(
    magnitude: Mapping[str, Tensor], kurtosis: Mapping[str, Tensor]
) -> pd.DataFrame:
    """Whether mean |relevance| and kurtosis point at the same neurons, one row per language.

    Returns `rho`, their rank correlation within layers, averaged over layers; `tenth`, a tenth of
    all neurons; `shared` by the top tenths of both (z-scores within layers), `chance`, what two
    random sets share, and `against` as in `overlap_row`.
    """
    rows = []
    for x, values in kurtosis.items():
        tenth = values.numel() // 10
        of_size, of_kurtosis = (
            select({x: normalise(scores.masked_fill(values.isnan(), torch.nan))}, x, "top",
                   budget=tenth)
            for scores in (magnitude[x], values)
        )  # fmt: skip
        rows.append(
            {
                "language": x,
                "rho": float(rank_correlation(magnitude[x], values).nanmean()),
                "tenth": tenth,
                "shared": overlap(of_size, of_kurtosis).shared,
                "chance": overlap(of_size, of_kurtosis).expected,
                "against": overlap_row(of_size, of_kurtosis)["against"],
            }
        )
    return pd.DataFrame(rows)


# --- Figure 3 -------------------------------------------------------------------------------------


def regions(
    normalised: Mapping[str, Tensor], target: str, threshold: float
) -> tuple[dict[str, Tensor], float]:
    """The regions of Figure 3 as masks (layers, neurons), by name; the first one is selected.

    The second value is how many neurons the first region would hold if a neuron's scores in the
    target and in the other languages were unrelated.
    """
    own, other = margins(normalised, target)
    scored = ~(own.isnan() | other.isnan())
    high, elsewhere = own > threshold, other > threshold
    found = {
        "target only (selected)": high & ~elsewhere & scored,
        "target and another": high & elsewhere & scored,
        "another only": ~high & elsewhere & scored,
        "none": ~high & ~elsewhere & scored,
        "no score": ~scored,
    }
    unrelated = high.double().mean(1) * (~elsewhere).double().mean(1) * own.shape[1]
    return found, unrelated.sum().item()


def region_counts(normalised: Mapping[str, Tensor], threshold: float) -> pd.DataFrame:
    """How many neurons lie in each region of Figure 3, one row per target language."""
    rows = []
    for x in normalised:
        masks, unrelated = regions(normalised, x, threshold)
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        rows.append({"target": x, **counts, "selected if unrelated": unrelated})
    return pd.DataFrame(rows)


def separation(
    normalised: Mapping[str, Tensor], threshold: float, fdr: float = 0.05
) -> pd.DataFrame:
    """Whether more neurons are selected in Figure 3 than if the languages were unrelated.

    Returns
    -------
    One row per `target`: `selected`; `unrelated`, how many there would be if a neuron's score in
    the target had nothing to do with its scores elsewhere, layer by layer; the two-sided p-value
    `p` of the difference (hypergeometric in every layer, normal approximation to the sum), and `q`,
    corrected over the languages (Benjamini and Hochberg); `outcome` is "more" or "less" at `fdr`,
    else "open".
    """
    rows = []
    for x in normalised:
        masks, unrelated = regions(normalised, x, threshold)
        selected, elsewhere = masks["target only (selected)"], masks["another only"]
        high = (selected | masks["target and another"]).double().sum(1)
        other = (elsewhere | masks["target and another"]).double().sum(1)
        n = (~masks["no score"]).double().sum(1)
        spread = high * (n - high) * other * (n - other) / (n**2 * (n - 1)).clamp(min=1)
        z = (selected.sum().item() - unrelated) / max(spread.sum().item(), 1e-12) ** 0.5
        rows.append({"target": x, "selected": int(selected.sum()), "unrelated": unrelated, "z": z})
    found = pd.DataFrame(rows)
    found["p"] = 2 * norm.sf(found["z"].abs())
    found["q"] = false_discovery_control(found["p"])
    side = np.where(found["z"] > 0, "more", "less")
    return found.drop(columns="z").assign(outcome=np.where(found["q"] <= fdr, side, "open"))


def every_neuron(
    kurtosis: Mapping[str, Tensor],
    normalised: Mapping[str, Tensor],
    magnitude: Mapping[str, Tensor],
) -> pd.DataFrame:
    """One row per language and neuron with its kurtosis, normalised kurtosis and mean |R|."""
    tables = []
    for x, values in kurtosis.items():
        layer, neuron = np.indices(values.shape)
        tables.append(
            pd.DataFrame(
                {
                    "language": x,
                    "layer": layer.ravel(),
                    "neuron": neuron.ravel(),
                    "kurtosis": values.flatten().numpy(),
                    "normalised": normalised[x].flatten().numpy(),
                    "mean_abs_relevance": magnitude[x].flatten().numpy(),
                }
            )
        )
    return pd.concat(tables)
