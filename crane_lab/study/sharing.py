"""What two sets of neurons share, beside what two random sets would."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import hypergeom

from crane_core.selection import NeuronSet, overlap


def overlap_row(a: NeuronSet, b: NeuronSet, level: float = 0.01) -> dict[str, Any]:
    """How much two sets of one site share, as a row of a table.

    Returns `shared` and `jaccard`; `chance`, what random sets with their counts per layer would
    share, and `ratio`, `shared` over that (NaN if it is 0); `p`, the chance that random sets of
    their sizes share so many or more; `against`: "more" or "fewer" than those at `level`, or
    "open".
    """
    found = overlap(a, b)
    layers, width = a.shape["intermediate"]
    fewer = float(hypergeom.cdf(found.shared, layers * width, len(a), len(b)))
    chance = found.expected_within_layers
    return {
        "shared": found.shared,
        "chance": chance,
        "ratio": found.shared / chance if chance else np.nan,
        "jaccard": found.jaccard,
        "p": found.p_value,
        "against": "more" if found.p_value < level else "fewer" if fewer < level else "open",
    }


def in_several(sets: Mapping[str, NeuronSet]) -> NeuronSet:
    """Neurons that belong to the sets of two languages or more; ValueError without any set."""
    if not sets:
        raise ValueError("no sets to compare")
    several = NeuronSet.empty(next(iter(sets.values())).shape)
    for a, b in combinations(sets.values(), 2):
        several = several | (a & b)
    return several
