"""What two sets of neurons share, beside what two random sets would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from crane_core.selection import NeuronSet, overlap


def overlap_row(a: NeuronSet, b: NeuronSet, level: float = 0.01) -> dict[str, Any]:
    """How much two sets of one site share, as a row of a table.

    Returns `shared` and `jaccard`; `chance`, what random sets with their counts per layer would
    share, and `ratio`, `shared` over that (NaN if it is 0); `p`, the chance that such sets share so
    many or more; `against`: "more" or "fewer" than those at `level`, or "open".
    """
    found = overlap(a, b)
    site = "intermediate"
    counts = zip(a.counts(site).tolist(), b.counts(site).tolist(), strict=True)
    layers, width = a.shape[site]
    shared = _shared_by_chance(counts, [width] * layers)
    more, fewer = shared[found.shared :].sum(), shared[: found.shared + 1].sum()
    chance = found.expected_within_layers
    return {
        "shared": found.shared,
        "chance": chance,
        "ratio": found.shared / chance if chance else np.nan,
        "jaccard": found.jaccard,
        "p": min(1.0, float(more)),
        "against": "more" if more < level else "fewer" if fewer < level else "open",
    }


def within_pool(a: NeuronSet, b: NeuronSet, pool: NeuronSet) -> dict[str, float]:
    """What two sets share beside random sets drawn from a pool, such as all that a method chose.

    Returns `pool_chance`, the number expected of sets with their counts in every layer; `pool_sd`,
    its standard deviation; and `pool_p`, the chance that such sets share so many or more.

    Raises ValueError for a set that is not within the pool.
    """
    if len(a - pool) or len(b - pool):
        raise ValueError("a set has neurons outside the pool that it is said to be drawn from")
    site = "intermediate"
    counts = list(zip(a.counts(site).tolist(), b.counts(site).tolist(), strict=True))
    widths = pool.counts(site).tolist()
    shared = _shared_by_chance(counts, widths)
    number = np.arange(len(shared))
    mean = float((shared * number).sum())
    variance = max(0.0, float((shared * number**2).sum()) - mean**2)
    more = float(shared[len(a & b) :].sum())
    return {"pool_chance": mean, "pool_sd": variance**0.5, "pool_p": min(1.0, more)}


def _shared_by_chance(
    counts: Iterable[tuple[int, int]], widths: Iterable[int]
) -> NDArray[np.float64]:
    """Probabilities of 0, 1, … shared neurons of random sets with these counts in every layer.

    `widths`: how many neurons each layer's are drawn from.
    """
    found = np.ones(1)
    for (in_a, in_b), width in zip(counts, widths, strict=True):
        if not in_a or not in_b:
            continue  # nothing can be shared there
        here = hypergeom.pmf(np.arange(min(in_a, in_b) + 1), width, in_a, in_b)
        found = np.convolve(found, here)
    return found


def in_several(sets: Mapping[str, NeuronSet]) -> NeuronSet:
    """Neurons that belong to the sets of two languages or more; ValueError without any set."""
    if not sets:
        raise ValueError("no sets to compare")
    several = NeuronSet.empty(next(iter(sets.values())).shape)
    for a, b in combinations(sets.values(), 2):
        several = several | (a & b)
    return several
