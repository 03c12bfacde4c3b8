"""The sets CRANE is compared with (paper §4.2).

LAPE (Tang et al., 2024) ranks neurons by how unevenly languages activate them, Act Prob 90p
(Mondal et al., 2025) by how often they exceed their own upper activations, and random sets are what
a mask of the same size does by itself. The first two read activations of `act_fn`, as both papers'
public code does; `accumulators` counts them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from crane_core.neurons import NeuronSet, Shape
from crane_core.selection import SelectionWarning


def lape(
    over_zero: Mapping[str, Tensor],
    n: Mapping[str, int],
    top_rate: float = 0.01,
    filter_rate: float = 0.95,
    activation_bar_ratio: float = 0.95,
    *,
    shape: Shape | None = None,
) -> dict[str, NeuronSet]:
    """Language activation probability entropy, with the constants LAPE was published with.

    A neuron's probabilities of being active, normalised over languages, have an entropy; the
    `top_rate` of all neurons with the lowest are language-specific. Before that, a neuron whose
    probability is in no language above the `filter_rate` quantile of all probabilities is put
    last. A chosen neuron belongs to every language in which its probability is above the
    `activation_bar_ratio` quantile, so sets differ in size and may share neurons.

    Parameters
    ----------
    over_zero : language -> number of tokens with activation > 0, (layers, neurons).
    n : language -> number of tokens.
    top_rate, filter_rate, activation_bar_ratio : fractions, above 0 and at most 1.
    shape : the model's shape (`crane_core.models.shape`), to be carried by the sets.

    Returns
    -------
    language -> `NeuronSet`. Equal entropies go to the lower layer and neuron. Warns
    (`SelectionWarning`) about a language without neurons.

    Raises ValueError for fewer than two languages, counts that do not fit each other or `n`, and
    fractions out of range.
    """
    _check_rates(top_rate=top_rate)
    _check_rates(filter_rate=filter_rate, activation_bar_ratio=activation_bar_ratio)
    probabilities = _probabilities(over_zero, n, least=2)
    entropy = _entropy(probabilities)
    entropy[~_above(probabilities, filter_rate).any(dim=-1)] = torch.inf
    best = entropy.flatten().argsort(stable=True)[: round(entropy.numel() * top_rate)]
    chosen = torch.zeros(entropy.numel(), dtype=torch.bool)
    chosen[best] = True
    belongs = _above(probabilities, activation_bar_ratio) & chosen.reshape(entropy.shape)[..., None]
    sets = {
        language: NeuronSet({"intermediate": mask}, shape)
        for language, mask in zip(over_zero, belongs.unbind(dim=-1), strict=True)
    }
    for language, neurons in sets.items():
        if not len(neurons):
            warnings.warn(f"LAPE finds no neuron for {language!r}", SelectionWarning, stacklevel=2)
    return sets


def lape_matched(
    over_zero: Mapping[str, Tensor],
    n: Mapping[str, int],
    counts: Mapping[str, int],
    filter_rate: float = 0.95,
    activation_bar_ratio: float = 0.95,
    *,
    shape: Shape | None = None,
) -> dict[str, NeuronSet]:
    """LAPE taken to a given number of neurons per language, by its own entropy order.

    For each language neurons are taken in order of entropy, first among those that pass LAPE's
    filter and whose probability in this language is above its bar. With the counts of `lape`'s
    sets this gives `lape`'s sets. When these run out, it goes on among the neurons that pass the
    filter and are most probable in this language, then among those most probable in it that do
    not pass, then among all that are left; neurons never active come last.

    Parameters
    ----------
    counts : language -> number of neurons wanted; languages left out get no set.
    over_zero, n, filter_rate, activation_bar_ratio, shape : as for `lape`.

    Returns
    -------
    language -> `NeuronSet` of exactly the number wanted, in the order of `counts`.

    Raises ValueError as `lape` does, and for a count of an unknown language, below 0 or above the
    number of neurons.
    """
    orders = lape_order(over_zero, n, filter_rate, activation_bar_ratio)
    size = next(iter(over_zero.values())).shape
    return {
        language: NeuronSet.from_flat(orders[language][:count], shape or size)
        for language, count in _checked_counts(counts, over_zero).items()
    }


def lape_order(
    over_zero: Mapping[str, Tensor],
    n: Mapping[str, int],
    filter_rate: float = 0.95,
    activation_bar_ratio: float = 0.95,
) -> dict[str, Tensor]:
    """All neurons of each language in the order in which `lape_matched` takes them.

    Returns language -> int64 indices into the flattened (layers, neurons), first neuron first.
    Parameters and errors are those of `lape_matched`.
    """
    _check_rates(filter_rate=filter_rate, activation_bar_ratio=activation_bar_ratio)
    probabilities = _probabilities(over_zero, n, least=2)
    passes = _above(probabilities, filter_rate).any(dim=-1)
    over_bar = _above(probabilities, activation_bar_ratio)
    most_probable = probabilities == probabilities.amax(dim=-1, keepdim=True)
    active = probabilities.sum(dim=-1) > 0
    entropy = _entropy(probabilities)
    by_entropy = entropy.flatten().argsort(stable=True)
    orders = {}
    for i, language in enumerate(over_zero):
        tier = torch.full(entropy.shape, 4)
        tier[active] = 3
        tier[active & most_probable[..., i]] = 2
        tier[passes & most_probable[..., i]] = 1
        tier[passes & over_bar[..., i]] = 0
        orders[language] = by_entropy[tier.flatten()[by_entropy].argsort(stable=True)]
    return orders


def act_prob_90p(
    over_p90: Mapping[str, Tensor],
    n: Mapping[str, int],
    top_rate: float = 0.01,
    counts: Mapping[str, int] | None = None,
    *,
    shape: Shape | None = None,
) -> dict[str, NeuronSet]:
    """Activation Probability 90p: the neurons most often above their own 90th percentile.

    The percentile is taken in a first pass, and the tokens above it are counted in a second
    (`ActiveCounts` with it as threshold). Languages do not enter each other's ranking. An exact
    percentile would be exceeded by a tenth of the tokens in every neuron.

    Parameters
    ----------
    over_p90 : language -> number of tokens above the neuron's percentile, (layers, neurons).
    n : language -> number of tokens.
    top_rate : fraction of all neurons that each language gets, unless `counts` says how many.
    counts : language -> number of neurons wanted, for comparison at equal budgets.
    shape : the model's shape, to be carried by the sets.

    Returns
    -------
    language -> `NeuronSet`. Equal probabilities go to the lower layer and neuron.

    Raises ValueError for counts that do not fit each other, `n` or the model.
    """
    _check_rates(top_rate=top_rate)
    probabilities = _probabilities(over_p90, n, least=1)
    size = probabilities.shape[:2]
    if counts is None:
        counts = dict.fromkeys(over_p90, round(size.numel() * top_rate))
    sets = {}
    for language, count in _checked_counts(counts, over_p90).items():
        score = probabilities[..., list(over_p90).index(language)]
        order = score.flatten().argsort(descending=True, stable=True)
        sets[language] = NeuronSet.from_flat(order[:count], shape or size)
    return sets


def random_matched(neurons: NeuronSet, seed: int) -> NeuronSet:
    """A random set with as many neurons as `neurons` in every layer of every site (§4.2).

    The same seed gives the same set; the given set's own neurons may be drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for site in neurons.sites:
        layers, width = neurons.shape[site]
        draw = torch.rand(layers, width, generator=generator, dtype=torch.float64)
        position = draw.argsort(dim=1).argsort(dim=1)
        masks[site] = position < neurons.counts(site)[:, None]
    return NeuronSet(masks, neurons.shape)


def _check_rates(**rates: float) -> None:
    if wrong := [f"{name} is {rate}" for name, rate in rates.items() if not 0 < rate <= 1]:
        raise ValueError(f"{wrong[0]}: expected a fraction above 0 and at most 1")


def _probabilities(counts: Mapping[str, Tensor], n: Mapping[str, int], least: int) -> Tensor:
    """Counts / tokens as float64 (layers, neurons, languages), checked."""
    if set(counts) != set(n) or len(counts) < least:
        raise ValueError(
            f"expected counts and token numbers of the same languages, at least {least}: "
            f"got counts for {list(counts)}, token numbers for {list(n)}"
        )
    size = next(iter(counts.values())).shape
    for language, count in counts.items():
        if count.shape != size or count.ndim != 2:
            raise ValueError(
                f"counts of {language!r} have shape {tuple(count.shape)}: expected (layers, "
                f"neurons), {tuple(size)} as the first language"
            )
        if n[language] < 1 or (count < 0).any() or (count > n[language]).any():
            raise ValueError(
                f"counts of {language!r} range from {count.min()} to {count.max()}, which does "
                f"not fit its {n[language]} tokens"
            )
    return torch.stack([counts[x].to(torch.float64) / int(n[x]) for x in counts], dim=-1)


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy over languages in nats, (layers, neurons); 0 for a neuron that is never active."""
    shares = probabilities / probabilities.sum(dim=-1, keepdim=True)
    # Rounded, so that ties are ties on every machine, whatever its order of summation.
    return torch.special.entr(shares.nan_to_num(0.0)).sum(dim=-1).round(decimals=12)


def _above(probabilities: Tensor, rate: float) -> Tensor:
    """Where a probability exceeds the `rate` quantile of all of them, all languages together."""
    flat = probabilities.flatten()
    return probabilities > flat.kthvalue(max(1, round(len(flat) * rate))).values


def _checked_counts(counts: Mapping[str, int], known: Mapping[str, Tensor]) -> Mapping[str, int]:
    for language, count in counts.items():
        if language not in known:
            raise ValueError(f"no activations for language {language!r}: there are {list(known)}")
        if not 0 <= count <= known[language].numel():
            raise ValueError(
                f"{count} neurons wanted for {language!r}: expected 0 to "
                f"{known[language].numel()}, the neurons of the model"
            )
    return counts
