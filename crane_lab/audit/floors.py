"""LangSpec-F1 measured from the floor, and how LangSpec-F1 behaves on made-up masks.

Guessing among four options scores 0.25, and the lowest grade is 1: no mask can take the rest.
Eq. 4 divides by the whole score all the same, and Eq. 3 does not ask how much a language had to
lose. Scores counted from the floor do. This is offered beside the paper's metric, not for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from crane_core.metrics import (
    EPSILON,
    Interval,
    LangSpecF1,
    _check_languages,
    _equations,
    langspec_f1,
    langspec_f1_interval,
)

if TYPE_CHECKING:
    from crane_lab.audit.tables import Published

Array = NDArray[np.float64]


def _check_floor(floor: Mapping[str, float], languages: Sequence[str]) -> None:
    if missing := [x for x in languages if x not in floor]:
        raise ValueError(f"no floor for {missing}: there are {list(floor)}")
    for x in languages:
        if not (np.isfinite(floor[x]) and floor[x] >= 0):
            raise ValueError(f"floor of {x!r} is {floor[x]}: expected a number, 0 or more")


def floor_corrected(
    original: Mapping[str, float],
    masked: Mapping[str, float],
    target: str,
    floor: Mapping[str, float],
    epsilon: float = EPSILON,
    how: str = "max",
    relative: bool = False,
) -> LangSpecF1:
    """LangSpec-F1 of scores counted from their floor: chance, or the lowest grade.

    A score below the floor counts as the floor: guessing worse than chance is no further loss.

    Parameters
    ----------
    floor : language -> the score that is left when nothing is left.
    others : as for `metrics.langspec_f1`.

    Raises ValueError as `metrics.langspec_f1` does, for a language without a floor, and if the
    target starts at or below its floor, where there is nothing to lose.
    """
    _check_languages(original, masked, target)
    _check_floor(floor, list(original))
    if original[target] <= floor[target]:
        raise ValueError(
            f"{target!r} starts at {original[target]}, its floor is {floor[target]}: there is "
            "nothing to lose"
        )
    above = [
        {x: score if score < 0 else max(score - floor[x], 0.0) for x, score in scores.items()}
        for scores in (original, masked)
    ]
    return langspec_f1(above[0], above[1], target, epsilon, how, relative)


def floor_corrected_interval(
    original: Mapping[str, ArrayLike],
    masked: Mapping[str, ArrayLike],
    target: str,
    floor: Mapping[str, float],
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    epsilon: float = EPSILON,
    how: str = "max",
    relative: bool = False,
    clusters: Mapping[str, Sequence[str]] | None = None,
) -> Interval:
    """Percentile interval of `floor_corrected` from outcomes of single items, paired bootstrap.

    Parameters as for `metrics.langspec_f1_interval`; a resample's means are counted from the floor
    as scores are.
    """
    _check_languages(original, masked, target)
    _check_floor(floor, list(original))
    interval = langspec_f1_interval(
        original, masked, target, n_boot, level, seed, epsilon, how, relative, clusters, floor
    )
    before, after = (
        {x: float(np.asarray(outcomes).mean()) for x, outcomes in given.items()}
        for given in (original, masked)
    )
    floor_corrected(before, after, target, floor)  # refuses a target that has nothing to lose
    return interval


def f1_variants(tables: Mapping[str, Published]) -> pd.DataFrame:
    """Every printed row's LangSpec-F1 as Eq. 3-5 have it, and with one thing changed at a time.

    `paper` is recomputed from the printed scores; `mean` and `sum` are of the other languages'
    drops instead of the largest; `relative` takes drops relative to their scores, as §3.1 words it;
    `floor` counts scores from their floor.
    """
    rows = []
    for table in tables.values():
        for row in table.rows():
            given = (table.original, row["masked"], row["mask_language"])
            paper = langspec_f1(*given)
            floored = floor_corrected(*given, table.floor)
            rows.append(
                {
                    "table": table.name,
                    "method": row["method"],
                    "mask_language": row["mask_language"],
                    "precision": paper.precision,
                    "recall": paper.recall,
                    "paper": paper.f1,
                    "mean": langspec_f1(*given, how="mean").f1,
                    "sum": langspec_f1(*given, how="sum").f1,
                    "relative": langspec_f1(*given, relative=True).f1,
                    "floor": floored.f1,
                    "floor_precision": floored.precision,
                    "floor_recall": floored.recall,
                }
            )
    return pd.DataFrame(rows)


def leaders(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Which method has the largest LangSpec-F1 for each table and masked language, by variant.

    `frame` as `f1_variants` makes it. Where the best is 0 nobody leads ("–").
    """
    rows = []
    for (table, target), own in frame.groupby(["table", "mask_language"], sort=False):
        line = {"table": table, "mask_language": target}
        for column in columns:
            best = own.sort_values(column, kind="stable").iloc[-1]
            line[column] = best["method"] if best[column] > 0 else "–"
        rows.append(line)
    return pd.DataFrame(rows)


def even_damage(
    original: Mapping[str, float],
    floor: Mapping[str, float],
    target: str,
    shares: ArrayLike,
    corrected: bool = False,
) -> Array:
    """LangSpec-F1 of masks that take the same share of what each language has above its floor.

    Such a mask prefers no language. Parameters: `shares` (masks,), 0 for nothing and 1 for
    everything; `corrected` counts scores from the floor. Returns (masks,).
    """
    found = []
    for share in np.atleast_1d(np.asarray(shares, dtype=np.float64)):
        masked = {x: s - float(share) * (s - floor[x]) for x, s in original.items()}
        if corrected:
            found.append(floor_corrected(original, masked, target, floor).f1)
        else:
            found.append(langspec_f1(original, masked, target).f1)
    return np.array(found)


def null_f1(
    n: int,
    changed: float,
    score: float = 0.4,
    languages: int = 3,
    n_masks: int = 5000,
    seed: int = 0,
    floor: float = 0.0,
) -> Array:
    """LangSpec-F1 of simulated masks that do nothing on average.

    Every item's outcome flips with probability `changed`, in each direction as often, so that all
    that is left is noise.

    Parameters
    ----------
    n : items per language.
    changed : share of the items whose outcome a mask flips.
    score : unmasked score of every language.
    n_masks : masks to simulate.
    floor : counted from here if above 0.

    Returns (n_masks,).
    """
    rng = np.random.default_rng(seed)
    flips = rng.binomial(n, changed, size=(n_masks, languages))
    lost = rng.binomial(flips, 0.5)
    drops = (2 * lost - flips) / n
    before = np.full((n_masks, languages), score - floor)
    after = np.maximum(before - drops, 0.0)
    return _equations(before, after, 0, EPSILON, "max", False)[2]


def null_by_size(
    sizes: Sequence[int],
    changed: Sequence[float] = (0.02, 0.1, 0.2),
    n_masks: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """`null_f1` by the number of items: one row per share `changed` and number of `items`.

    `mean` and `p95`, the 95th percentile, are over the masks; each number of items has a seed of
    its own, counted from `seed`.
    """
    rows = []
    for share in changed:
        for i, n in enumerate(sizes):
            found = null_f1(n, share, n_masks=n_masks, seed=seed + i)
            mean, high = float(found.mean()), float(np.quantile(found, 0.95))
            rows.append({"changed": share, "items": n, "mean": mean, "p95": high})
    return pd.DataFrame(rows)


def even_damage_by_language(
    table: Published, shares: ArrayLike, corrected: bool = False
) -> dict[str, list[float]]:
    """`even_damage` to the unmasked scores of a table: language the mask is for -> LangSpec-F1."""
    return {
        x: even_damage(table.original, table.floor, x, shares, corrected).tolist()
        for x in table.original
    }
