"""Where a mask stands among random masks of its own size in every layer, its null.

A mask's effect is *larger* than what masks of its kind do if few of them reach it: the p-value is
the share of them that do, the mask itself counted in (so that it is never 0), and over the rows of
a table p-values are corrected by Benjamini and Hochberg's procedure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

Array = NDArray[np.float64]

#: False discoveries among the rows of a table that are called larger (or smaller).
FDR = 0.05
#: Random masks that a null needs: beyond all of fewer, not even one row has a p-value of `FDR`.
ENOUGH = round(1 / FDR) - 1
#: Columns that `held_against` adds.
COLUMNS = ("null_masks", "null_mean", "null_high", "percentile", "p", "q", "q_low")


class Standing(NamedTuple):
    """A value among those of random masks."""

    masks: int
    mean: float
    high: float  # the 95 % point
    percentile: float  # share of masks below, those that tie counted half, in %
    p: float  # of so large a value or a larger one
    p_low: float  # of so small a value or a smaller one


def standing(value: float, null: Array) -> Standing:
    """Where a value lies in its null, an array of one value per random mask; NaN without any."""
    n = len(null)
    if not n or np.isnan(value):
        return Standing(n, *([np.nan] * 5))
    below, above = int((null < value).sum()), int((null > value).sum())
    return Standing(
        n,
        float(null.mean()),
        float(np.quantile(null, 0.95)),
        100 * (below + (n - below - above) / 2) / n,
        (1 + n - below) / (n + 1),
        (1 + n - above) / (n + 1),
    )


def held_against(values: Sequence[float], nulls: Sequence[Array]) -> pd.DataFrame:
    """Every row's value in its null; one row per value, with the columns `COLUMNS`.

    `q` and `q_low` are p-values of so large and of so small a value, corrected over the rows that
    have a null (Benjamini and Hochberg).
    """
    found = pd.DataFrame([standing(*row) for row in zip(values, nulls, strict=True)])
    for name, p in (("q", "p"), ("q_low", "p_low")):
        found[name] = corrected(found[p])
    names = {"masks": "null_masks", "mean": "null_mean", "high": "null_high"}
    return found.rename(columns=names)[list(COLUMNS)]


def corrected(p: pd.Series) -> pd.Series:
    """P-values corrected over those that are known (Benjamini and Hochberg); NaN stays."""
    known = p.notna()
    q = pd.Series(np.nan, p.index)
    if known.any():
        q[known] = false_discovery_control(p[known].to_numpy(float))
    return q


def decided(by_items: Sequence[str], found: pd.DataFrame, fdr: float = FDR) -> list[str]:
    """Verdicts that need both: "larger" or "smaller" by the items' intervals and in the null.

    What has no null stays "open": the items alone do not say that masks of its kind do less.
    """
    said = []
    for verdict, q, q_low in zip(by_items, found["q"], found["q_low"], strict=True):
        beyond = {"larger": q <= fdr, "smaller": q_low <= fdr}.get(verdict, False)
        said.append(verdict if beyond else "open")
    return said


def own_less_others(changes: pd.DataFrame, target: str, languages: Sequence[str]) -> Array:
    """What masks do to `target` less what they do to the language that they hit hardest besides.

    `changes`: a column per language, a row per mask, larger for more damage.
    """
    others = [x for x in languages if x != target]
    found = changes[target].to_numpy(float) - changes[others].to_numpy(float).max(axis=1)
    return np.asarray(found, float)
