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
    shared = _shared_by_chance(counts, a.shape[site][1])
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


def _shared_by_chance(counts: Iterable[tuple[int, int]], width: int) -> NDArray[np.float64]:
    """Probabilities of 0, 1, … shared neurons of random sets with these counts in every layer."""
    found = np.ones(1)
    for in_a, in_b in counts:
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
