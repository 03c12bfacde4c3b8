"""Do related languages share neurons? Overlaps beside chance, and distances between languages.

The language-arithmetics paper counts what languages share. Sets in the same layers share neurons by
chance alone, and large sets more than small ones; so a pair's overlap is held against random sets
with as many neurons in every layer, and what is left against distances between languages. Pairs are
not independent of each other, as every language is in many of them: Mantel's test permutes whole
languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import permutation_test, rankdata

from crane_core.neurons import NeuronSet
from crane_lab.stages.standing import corrected
from crane_lab.study.sharing import overlap_row
from crane_lab.texts.typology import KINDS, language_distances

Array = NDArray[np.float64]

#: Added to both counts, so that a pair that shares nothing has an excess, too.
_HALF = 0.5


def language_overlaps(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Every pair of languages: `a`, `b`, the columns of `sharing.overlap_row`, `q` and `excess`.

    `q` is p of so many shared neurons or more, corrected over the pairs (Benjamini and Hochberg);
    `excess` the binary logarithm of shared over chance, half a neuron added to both.

    Raises ValueError for fewer than two languages with neurons.
    """
    with_neurons = {x: neurons for x, neurons in sets.items() if len(neurons)}
    if len(with_neurons) < 2:
        raise ValueError(f"neurons of two languages or more are needed; got {list(with_neurons)}")
    rows = [
        {"a": a, "b": b, **overlap_row(with_neurons[a], with_neurons[b])}
        for a, b in combinations(with_neurons, 2)
    ]
    found = pd.DataFrame(rows)
    found["q"] = corrected(found["p"])
    found["excess"] = np.log2((found["shared"] + _HALF) / (found["chance"] + _HALF))
    return found


def excess_matrix(overlaps: pd.DataFrame, languages: Sequence[str]) -> NDArray[np.float64]:
    """`excess` of every pair, (languages, languages), symmetric; NaN on the diagonal.

    Raises KeyError for a language that has no pair.
    """
    found = np.full((len(languages), len(languages)), np.nan)
    of = {frozenset((row["a"], row["b"])): row["excess"] for row in overlaps.to_dict("records")}
    for (i, a), (j, b) in combinations(enumerate(languages), 2):
        found[i, j] = found[j, i] = of[frozenset((a, b))]
    return found


def _ranked(overlaps: pd.DataFrame, languages: Sequence[str]) -> tuple[Array, Any]:
    """Ranks of `excess`, (languages, languages), symmetric, and the places of the pairs.

    Raises ValueError for fewer than four languages.
    """
    if len(languages) < 4:
        raise ValueError(f"{len(languages)} languages are too few to permute: expected 4 or more")
    upper = np.triu_indices(len(languages), 1)
    shared = np.zeros((len(languages), len(languages)))
    shared[upper] = rankdata(excess_matrix(overlaps, languages)[upper])
    return shared + shared.T, upper


def mantel_tests(
    overlaps: pd.DataFrame,
    languages: Sequence[str],
    kinds: Sequence[str] = KINDS,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether languages share the more the nearer they are (Mantel, 1967), by kind of distance.

    One row per kind: `rho`, Spearman's correlation of distance with `excess` (negative if near
    languages share more), `p` of a correlation so negative, and `q`, corrected over the kinds.

    Raises ValueError for fewer than four languages, too few to permute, or an unknown distance.
    """
    shared, upper = _ranked(overlaps, languages)
    rows = []
    for kind in kinds:
        distance = rankdata(language_distances(languages, kind)[upper])

        def correlation(order: NDArray[np.int64], distance: Array = distance) -> float:
            return float(np.corrcoef(distance, shared[np.ix_(order, order)][upper])[0, 1])

        row: dict[str, object] = {"distance": kind, "rho": np.nan, "p": np.nan}
        if distance.std() and shared[upper].std():
            result = permutation_test(
                (np.arange(len(languages)),),
                correlation,
                permutation_type="pairings",
                alternative="less",
                n_resamples=permutations,
                rng=seed,
            )
            row |= {"rho": float(result.statistic), "p": float(result.pvalue)}
        rows.append(row)
    found = pd.DataFrame(rows)
    return found.assign(q=corrected(found["p"]))


def distances_together(
    overlaps: pd.DataFrame,
    languages: Sequence[str],
    kinds: Sequence[str] = KINDS,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Which kinds of distance go with sharing when all are in one regression, by kind.

    Ranks of `excess` on ranks of every distance, all standardised. One row per kind: `slope`
    (negative if near languages share more with the other distances equal), `p` that its t-value is
    so negative when languages are permuted (the quadratic assignment procedure), `q` over the
    kinds, and `inflation`, by how much the other kinds widen its variance (large: hardly to be told
    from them). A kind that is the same for all pairs is left out.

    Raises ValueError as `mantel_tests` does.
    """
    shared, upper = _ranked(overlaps, languages)
    ranks = {kind: rankdata(language_distances(languages, kind)[upper]) for kind in kinds}
    told = [kind for kind, values in ranks.items() if values.std()]
    x = np.column_stack([stats.zscore(ranks[kind]) for kind in told])
    inverse = np.linalg.inv(x.T @ x)
    freedom = len(x) - x.shape[1] - 1

    def fitted(values: Array) -> tuple[Array, Array]:
        """Slopes and their t-values."""
        y = stats.zscore(values)
        slopes = inverse @ (x.T @ y)
        error = ((y - x @ slopes) ** 2).sum() / freedom
        return slopes, slopes / np.sqrt(error * np.diag(inverse))

    slopes, t = fitted(shared[upper])
    rng, below = np.random.default_rng(seed), np.ones(len(told))
    for _ in range(permutations):
        order = rng.permutation(len(languages))
        below += fitted(shared[np.ix_(order, order)][upper])[1] <= t
    found = pd.DataFrame({"distance": told, "slope": slopes, "p": below / (permutations + 1)})
    found["q"] = corrected(found["p"])
    return found.assign(inflation=np.diag(inverse) * len(x))
