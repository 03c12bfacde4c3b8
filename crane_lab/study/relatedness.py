"""Do related languages share neurons? Overlaps beside chance, and distances between languages.

The language-arithmetics paper counts what languages share. Sets in the same layers share neurons by
chance alone, and large sets more than small ones. And a method draws all languages' sets from the
few neurons that it finds specific at all. So a pair's overlap is held against random sets with as
many neurons in every layer, drawn from those that the method gives to any language, and what is
left against distances between languages. Pairs are
not independent of each other, as every language is in many of them: Mantel's test permutes whole
languages.
"""

from __future__ import annotations

import functools
import operator
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
from crane_lab.study.sharing import overlap_row, within_pool
from crane_lab.texts.typology import KINDS, language_distances

Array = NDArray[np.float64]


def language_overlaps(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """Every pair of languages: `a`, `b`, columns of `overlap_row` and `within_pool`, `q`, `excess`.

    The pool is all neurons of any of the languages. `q` is `pool_p` corrected over the pairs
    (Benjamini and Hochberg); `excess` how many standard deviations more are shared than by chance
    in the pool (0 where chance leaves no choice).

    Raises ValueError for fewer than two languages with neurons.
    """
    with_neurons = {x: neurons for x, neurons in sets.items() if len(neurons)}
    if len(with_neurons) < 2:
        raise ValueError(f"neurons of two languages or more are needed; got {list(with_neurons)}")
    pool = functools.reduce(operator.or_, with_neurons.values())
    rows = []
    for a, b in combinations(with_neurons, 2):
        pair = with_neurons[a], with_neurons[b]
        rows.append({"a": a, "b": b, **overlap_row(*pair), **within_pool(*pair, pool)})
    found = pd.DataFrame(rows)
    found["q"] = corrected(found["pool_p"])
    apart = found["shared"] - found["pool_chance"]
    found["excess"] = (apart / found["pool_sd"].replace(0, np.nan)).fillna(0.0)
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
    (negative if near languages share more with the other distances equal); `p` that its t-value is
    so negative when what the others do not say of the kind is permuted over languages (double
    semi-partialing, Dekker et al., 2007); `q` over the kinds; and `inflation`, by how much the
    other kinds widen its variance (large: hardly to be told from them). A kind that is the same for
    all pairs is left out.

    Raises ValueError as `mantel_tests` does, and if one kind follows from the others.
    """
    shared, upper = _ranked(overlaps, languages)
    y = stats.zscore(shared[upper])
    ranks = {kind: rankdata(language_distances(languages, kind)[upper]) for kind in kinds}
    told = [kind for kind, values in ranks.items() if values.std()]
    x = np.column_stack([stats.zscore(ranks[kind]) for kind in told])
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(f"of {told} one distance follows from the others: leave one out")
    freedom = len(x) - x.shape[1] - 1

    def t_value(own: Array, others: Array) -> float:
        """Of `own` beside `others`, by what is left of both sides without the others."""
        left = own - others @ (others_inverse @ own)
        slope = float(left @ y / (left @ left))
        rest = y - others @ (others_inverse @ y) - slope * left
        return slope / float(np.sqrt(rest @ rest / freedom / (left @ left)))

    rng, rows = np.random.default_rng(seed), []
    for number, kind in enumerate(told):
        others = np.delete(x, number, axis=1)
        others_inverse = np.linalg.pinv(others)
        left = x[:, number] - others @ (others_inverse @ x[:, number])
        square = np.zeros(shared.shape)
        square[upper] = left
        square += square.T
        t, below = t_value(x[:, number], others), 1
        for _ in range(permutations):
            order = rng.permutation(len(languages))
            below += t_value(square[np.ix_(order, order)][upper], others) <= t
        row = {"distance": kind, "slope": float(left @ y / (left @ left))}
        row |= {"p": below / (permutations + 1), "inflation": len(x) / float(left @ left)}
        rows.append(row)
    found = pd.DataFrame(rows)
    found["q"] = corrected(found["p"])
    return found
