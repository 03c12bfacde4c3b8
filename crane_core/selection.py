"""From kurtosis to neuron sets (paper §3.3, Algorithm 1 lines 10-20).

`normalise` puts the kurtosis of one language on a common scale within each layer, `select` turns
the scores of all languages into a `NeuronSet` for a target.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import overload

import torch
from torch import Tensor

from crane_core.neurons import NeuronSet as NeuronSet
from crane_core.neurons import Shape, as_shape, check_compatible, listed
from crane_core.neurons import overlap as overlap

NORMALISATIONS = ("zscore", "ratio", "robust", "global")
RULES = ("contrast", "threshold", "top", "relative")

Scores = Tensor | Mapping[str, Tensor]


class SelectionWarning(UserWarning):
    """A selection that is legal but rarely wanted: empty, short of its budget or a whole layer."""


@overload
def normalise(kurtosis: Tensor, how: str = "zscore") -> Tensor: ...
@overload
def normalise(kurtosis: Mapping[str, Tensor], how: str = "zscore") -> dict[str, Tensor]: ...
def normalise(kurtosis: Scores, how: str = "zscore") -> Scores:
    """Put one language's kurtosis on a common scale within each layer (§3.3, Alg. 1 line 15).

    Parameters
    ----------
    kurtosis : (layers, neurons), or for projections a dict site -> (layers, width); each site is
        normalised on its own. NaN marks a constant neuron: it is left out and stays NaN.
    how : "zscore" (k - mean) / standard deviation of the layer; "ratio" k / mean of the layer;
        "robust" (k - median) / (1.4826 median absolute deviation) of the layer; "global"
        z-score over all layers at once. A layer in which all values are equal scores 0
        ("ratio": 1).

    Returns
    -------
    float64 scores of the same layout as `kurtosis`.

    Raises
    ------
    ValueError : unknown `how`, infinite kurtosis, or a tensor that is not (layers, neurons).
    """
    if how not in NORMALISATIONS:
        raise ValueError(f"unknown normalisation {how!r}: expected one of {listed(NORMALISATIONS)}")
    if not isinstance(kurtosis, Tensor):
        return {site: _normalise_site(values, how, site) for site, values in kurtosis.items()}
    return _normalise_site(kurtosis, how, "intermediate")


def _normalise_site(kurtosis: Tensor, how: str, site: str) -> Tensor:
    if kurtosis.ndim != 2:
        raise ValueError(
            f"kurtosis of site {site!r} has size {tuple(kurtosis.shape)}: not (layers, neurons)"
        )
    if kurtosis.isinf().any():
        layer, neuron = kurtosis.isinf().nonzero()[0].tolist()
        raise ValueError(f"kurtosis of site {site!r} is infinite at layer {layer}, neuron {neuron}")
    values = kurtosis.to(torch.float64)
    rows = values.reshape(1, -1) if how == "global" else values
    if how == "ratio":
        scores = rows / rows.nanmean(dim=1, keepdim=True)
    elif how == "robust":
        centred = rows - _nanmedian(rows)
        deviation = 1.4826 * _nanmedian(centred.abs())
        # More than half of the layer may share one value; the mean absolute deviation, scaled to a
        # normal's standard deviation as the median is, then takes the median's place.
        mean_deviation = 1.2533 * centred.abs().nanmean(dim=1, keepdim=True)
        scores = _scaled(centred, torch.where(deviation > 0, deviation, mean_deviation))
    else:
        centred = rows - rows.nanmean(dim=1, keepdim=True)
        deviation = centred.square().nanmean(dim=1, keepdim=True).sqrt()
        # Subtracting a rounded mean leaves a spread of a few ulp where all values are equal.
        level = rows.abs().nan_to_num().amax(dim=1, keepdim=True)
        scores = _scaled(centred, torch.where(deviation > 1e-14 * level, deviation, 0.0))
    return scores.reshape(values.shape)


def _nanmedian(rows: Tensor) -> Tensor:
    """Median of each row as usually defined (torch's own takes the lower of two middle values)."""
    return rows.nanquantile(0.5, dim=1, keepdim=True)


def _scaled(centred: Tensor, spread: Tensor) -> Tensor:
    """Divide by the spread; without any spread every defined score is 0."""
    return torch.where(spread > 0, centred / spread, centred * 0.0)


@overload
def margins(normalised: Mapping[str, Tensor], target: str) -> tuple[Tensor, Tensor]: ...
@overload
def margins(
    normalised: Mapping[str, Scores], target: str
) -> tuple[Tensor, Tensor] | tuple[dict[str, Tensor], dict[str, Tensor]]: ...
def margins(
    normalised: Mapping[str, Scores], target: str
) -> tuple[Tensor, Tensor] | tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two axes of Figure 3: the target's scores and the largest score of any other language.

    Both have the layout of one language's scores; NaN wherever a language's score is undefined.
    """
    per_site = _by_site(normalised, target)
    if len(normalised) < 2:
        raise ValueError(f"a contrast needs at least two languages, got only {listed(normalised)}")
    own = {site: scores[target] for site, scores in per_site.items()}
    others = {
        site: torch.stack([s for language, s in scores.items() if language != target]).amax(dim=0)
        for site, scores in per_site.items()
    }
    if isinstance(normalised[target], Tensor):
        return own["intermediate"], others["intermediate"]
    return own, others


def contrast_of(scores: Mapping[str, Tensor], target: str) -> Tensor:
    """The target's scores less the largest of the other languages', entry by entry.

    `scores` : language -> tensor, all of one size. NaN where one is undefined. Raises ValueError
    for an unknown target and for one language alone.
    """
    if target not in scores or len(scores) < 2:
        raise ValueError(
            f"a contrast for {target!r} needs its scores and those of another language; there are "
            f"{listed(scores)}"
        )
    return scores[target] - torch.stack([s for x, s in scores.items() if x != target]).amax(dim=0)


def relative_contrast(amounts: Mapping[str, Tensor], target: str, floor: float = 0.5) -> Tensor:
    """`contrast_of` as a share of the neuron's sum over languages, -1 to 1; not from the paper.

    `amounts`: language -> (layers, neurons), 0 or more and not normalised, such as mean
    |relevance|; NaN stays NaN. Shares of next to nothing would be large, so the sum is taken to be
    no less than its quantile `floor` in the layer (0: as it is); where it is 0, so is the share.
    Raises ValueError for a negative amount, a floor outside 0 to 1, and as `contrast_of` does.
    """
    contrast, total = contrast_of(amounts, target), torch.stack(list(amounts.values())).sum(0)
    least = min(float(own.nan_to_num().min()) for own in amounts.values())
    if least < 0 or not 0 <= floor <= 1:
        raise ValueError(
            f"floor is {floor} and the least amount {least:.3g}: expected a quantile, 0 to 1, of "
            "amounts of 0 or more, such as mean_abs without normalisation"
        )
    bottom = total.nanquantile(floor, dim=-1, keepdim=True, interpolation="lower")
    size = torch.maximum(total, bottom) if floor else total
    return torch.where(size == 0, 0.0, contrast / size)


def _by_site(normalised: Mapping[str, Scores], target: str) -> dict[str, dict[str, Tensor]]:
    """Scores as site -> language -> (layers, width), checked to agree in sites and sizes."""
    if target not in normalised:
        raise ValueError(f"no scores for language {target!r}: there are {listed(normalised)}")
    dicts = {
        language: {"intermediate": scores} if isinstance(scores, Tensor) else dict(scores)
        for language, scores in normalised.items()
    }
    sizes = {
        language: {site: tuple(scores.shape) for site, scores in sites.items()}
        for language, sites in dicts.items()
    }
    for language, size in sizes.items():
        if size != sizes[target]:
            raise ValueError(
                f"scores of {language!r} have sizes {size}, those of {target!r} {sizes[target]}"
            )
    sites = as_shape(sizes[target])
    return {site: {language: dicts[language][site] for language in dicts} for site in sites}


def select(
    normalised: Mapping[str, Scores],
    target: str,
    rule: str = "contrast",
    threshold: float = 1.0,
    budget: int | None = None,
    *,
    shape: Shape | None = None,
) -> NeuronSet:
    """Choose the candidate neurons of one language (§3.3, Figure 3, Alg. 1 line 19).

    Parameters
    ----------
    normalised : language -> scores from `normalise`, (layers, neurons) or for projections a
        dict site -> (layers, width). Undefined (NaN) scores are never selected.
    target : the language whose neurons are wanted.
    rule : "contrast": target > threshold and every other language <= threshold (Figure 3's
        lower right); "threshold": target > threshold, whatever the others; "top": the `budget`
        highest scores of the target, whatever the threshold; "relative", which is not the paper's:
        the `budget` highest shares (`relative_contrast`) above 0, of amounts as they are.
    threshold : in units of the normalised score.
    budget : number of neurons, counted over all scored sites. Under "contrast" and "threshold"
        it keeps the best of the neurons that qualify: by the margin target - max(others) and
        by the target's score. Ties go to the lower site, layer and neuron.
    shape : the model's shape (`crane_core.models.shape`); by default the set knows only the
        sites that were scored.

    Returns a `NeuronSet`; with a `SelectionWarning` if it is empty, smaller than the budget or
    takes a whole layer of a site.

    Raises
    ------
    ValueError : unknown language or rule, "top" or "relative" without budget, a budget larger
        than the model (or, under "top", than its neurons with a score), one language alone under
        "contrast" or "relative", negative amounts under "relative", a threshold that is NaN,
        scores that do not fit each other or `shape`.
    TypeError : a budget that is no whole number.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}: expected one of {listed(RULES)}")
    if threshold != threshold:
        raise ValueError("threshold is NaN: expected a number")
    per_site = _by_site(normalised, target)
    known = as_shape({site: tuple(s[target].shape) for site, s in per_site.items()})
    if shape is not None:
        check_compatible(known, as_shape(shape), "select from these scores for this model")
        if missing := [site for site in known if site not in shape]:
            raise ValueError(f"scores given for site {listed(missing)}, which the shape lacks")
    _check_budget(budget, rule, sum(layers * width for layers, width in known.values()))

    def flat(scores: Scores) -> Tensor:
        """One vector over all scored sites in canonical order, so that a budget is shared."""
        parts = [scores] if isinstance(scores, Tensor) else [scores[site] for site in known]
        return torch.cat([part.reshape(-1) for part in parts])

    own = flat(normalised[target])
    if rule == "contrast":
        others = flat(margins(normalised, target)[1])
        qualifies, rank = (own > threshold) & (others <= threshold), own - others
    elif rule == "threshold":
        qualifies, rank = own > threshold, own
    elif rule == "relative":
        rank = flat({site: relative_contrast(of, target) for site, of in per_site.items()})
        qualifies = rank > 0
    else:
        qualifies, rank = ~own.isnan(), own
    if budget is not None:
        available = int(qualifies.sum())
        if available < budget and rule == "top":
            raise ValueError(
                f"budget {budget} is larger than the {available} neurons that have a score for "
                f"{target!r}: the others' relevance was constant"
            )
        if available < budget:
            _warn(f"{rule} finds only {available} neurons for {target!r}, budget {budget}")
        best = rank.masked_fill(~qualifies, -torch.inf).sort(descending=True, stable=True).indices
        kept = torch.zeros_like(qualifies)
        kept[best[:budget]] = True
        qualifies &= kept

    parts = torch.split(qualifies, [layers * width for layers, width in known.values()])
    masks = {site: part.reshape(known[site]) for site, part in zip(known, parts, strict=True)}
    if not qualifies.any():
        _warn(f"no neuron selected for {target!r} under rule {rule!r}, threshold {threshold}")
    for site, mask in masks.items():
        if full := mask.all(dim=1).nonzero().reshape(-1).tolist():
            _warn(f"the selection for {target!r} takes all neurons of site {site!r}, layer {full}")
    return NeuronSet(masks, shape)


def _check_budget(budget: int | None, rule: str, size: int) -> None:
    if budget is None:
        if rule in ("top", "relative"):
            raise ValueError(f"rule {rule!r} needs a budget: the number of neurons to take")
        return
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TypeError(f"budget is {budget!r}: expected a whole number of neurons")
    if budget < 0:
        raise ValueError(f"budget is {budget}: expected a number of neurons, 0 or more")
    if budget > size:
        raise ValueError(f"budget {budget} is larger than the {size} neurons to choose from")


def _warn(message: str) -> None:
    warnings.warn(message, SelectionWarning, stacklevel=3)
