"""What the choice of questions alone can do to a printed difference.

A score before and a score after masking come from the same items, and how surprising their
difference is depends on how many items changed, which is not printed. But it is bounded: at least
as many as the difference needs, at most as many as the two scores allow. So a printed difference
can be certain to exceed noise, unable to, or either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, norm

from crane_core.metrics import Interval, langspec_f1_interval
from crane_lab.audit.floors import floor_corrected_interval
from crane_lab.audit.grim import grim
from crane_lab.audit.tables import LANGUAGES, Published

Array = NDArray[np.float64]
#: What `noise_bounds` can say of a difference.
CERTAIN, OPEN, CANNOT = "certain", "either", "cannot"


@dataclass(frozen=True)
class NoiseBounds:
    """How surprising a difference of two sums over the same items is, at least and at most.

    Attributes
    ----------
    difference : before - after, per item; the range's middle if sums are not known exactly.
    z_low, z_high : |difference| in standard errors under the hypothesis that each item's change is
        as likely as its opposite (McNemar's z for right and wrong).
    p_low, p_high : two-sided p-values at those ends, exact for right and wrong.
    verdict : "certain" to exceed noise, "cannot", or "either", at the level asked for.
    """

    difference: float
    z_low: float
    z_high: float
    p_low: float
    p_high: float
    verdict: str


def squares(before: int, after: int, n: int, low: int = 0, high: int = 1) -> tuple[int, int]:
    """Least and most that the squared changes of n items can add up to, given both sums.

    For right and wrong that is the number of items that change. The least is reached when changes
    are as even as whole numbers allow. The most follows from (x - y)² ≤ (high - low) · |x - y| and
    |x - y| being at most x - low + y - low and at most high - x + high - y; for right and wrong it
    is reached (up to one item), for grades it encloses.

    Raises ValueError for sums that n items on that scale cannot have.
    """
    for total in (before, after):
        if not low * n <= total <= high * n:
            raise ValueError(f"{n} items from {low} to {high} cannot add up to {total}")
    quotient, rest = divmod(abs(before - after), n)
    least = (n - rest) * quotient**2 + rest * (quotient + 1) ** 2
    above = before + after - 2 * low * n
    below = 2 * high * n - before - after
    return least, (high - low) * min(above, below)


def extreme_pairings(
    before: int, after: int, n: int, low: int = 0, high: int = 1
) -> tuple[Array, Array]:
    """Two lists of n items with the given sums: as similar, and as opposed, as they can be.

    Each is an array (items, 2) of an item before and after, whole numbers from `low` to `high`. In
    the first the changes are as even as possible, in the second the items that are high before are
    low after, as far as they go. Raises ValueError as `squares` does.
    """
    squares(before, after, n, low, high)

    def even(total: int) -> Array:
        quotient, rest = divmod(total, n)
        return quotient + (np.arange(n) < rest).astype(float)

    def uneven(total: int) -> Array:
        full, rest = divmod(total - low * n, high - low)
        items = np.full(n, float(low))
        items[:full] = high
        if full < n:
            items[full] += rest
        return items

    similar = np.stack([even(before), even(after)], axis=1)
    opposed = np.stack([uneven(before), uneven(after)[::-1]], axis=1)
    return similar, opposed


def _p_value(difference: int, squared: int, exact: bool) -> float:
    """Two-sided p-value of changes that add up to `difference`, their squares to `squared`."""
    if difference == 0:
        return 1.0
    if not exact:
        return float(2 * norm.sf(difference / math.sqrt(squared)))
    more = (squared + difference) // 2
    return min(1.0, float(2 * binom.sf(more - 1, squared, 0.5)))


def noise_bounds(
    before: int | Sequence[int],
    after: int | Sequence[int],
    n: int,
    low: int = 0,
    high: int = 1,
    level: float = 0.95,
) -> NoiseBounds:
    """Bounds on how far a difference of two sums over the same n items exceeds noise.

    Parameters
    ----------
    before, after : the sums over items, or all sums that a print allows (`grim`).
    n : items.
    low, high : range of one item.
    level : confidence for the verdict.

    The p-value rises with the number of items that change, so its ends belong to the fewest and the
    most. For right and wrong it is McNemar's exact one, for grades the normal approximation.
    Raises ValueError for impossible sums, none, or a level outside (0, 1).
    """
    firsts = [before] if isinstance(before, int) else list(before)
    seconds = [after] if isinstance(after, int) else list(after)
    if not firsts or not seconds:
        raise ValueError("no sum is possible: there is nothing to compare")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a confidence between 0 and 1")
    exact = high - low == 1
    found = []
    for first, second in itertools.product(firsts, seconds):
        least, most = squares(first, second, n, low, high)
        own = abs(first - second)
        if exact:
            most -= (most - own) % 2  # items that change cancel in pairs
        z = [own / math.sqrt(s) if own else 0.0 for s in (most, least)]
        found.append((z[0], z[1], _p_value(own, least, exact), _p_value(own, most, exact)))
    z_low, z_high = min(x[0] for x in found), max(x[1] for x in found)
    p_low, p_high = min(x[2] for x in found), max(x[3] for x in found)
    alpha = 1 - level
    verdict = CERTAIN if p_high < alpha else CANNOT if p_low >= alpha else OPEN
    difference = (np.mean(firsts) - np.mean(seconds)) / n
    return NoiseBounds(float(difference), z_low, z_high, p_low, p_high, verdict)


def sums(table: Published, method: str, target: str, language: str) -> tuple[int, ...]:
    """All sums over items that a printed score allows; `method` Org for the unmasked one."""
    scores = table.original if method == "Org" else table.row(method, target)["masked"]
    return grim(scores[language], table.items[language], 4, table.low, table.high)


def between(
    table: Published,
    first: tuple[str, str],
    second: tuple[str, str],
    x: str,
    level: float = 0.95,
) -> NoiseBounds:
    """`noise_bounds` of two printed scores of language x; rows as (method, masked language)."""
    return noise_bounds(
        sums(table, *first, x),
        sums(table, *second, x),
        table.items[x],
        table.low,
        table.high,
        level,
    )


def noise_table(tables: Mapping[str, Published], level: float = 0.95) -> pd.DataFrame:
    """Every printed drop with the bounds of `noise_bounds`, one row per mask and language."""
    rows = []
    for number, table in tables.items():
        for row in table.rows():
            method, target = row["method"], row["mask_language"]
            for x in LANGUAGES:
                bounds = between(table, ("Org", ""), (method, target), x, level)
                rows.append(
                    {
                        "table": table.name,
                        "number": number,
                        "method": method,
                        "mask_language": target,
                        "language": x,
                        "role": "target" if x == target else "other",
                        "drop": table.drop(method, target)[x],
                        "z_low": bounds.z_low,
                        "z_high": bounds.z_high,
                        "p_low": bounds.p_low,
                        "p_high": bounds.p_high,
                        "verdict": bounds.verdict,
                    }
                )
    return pd.DataFrame(rows)


def closeness(
    tables: Mapping[str, Published],
    first: str = "en",
    second: str = "vi",
    method: str = "CRANE",
    level: float = 0.95,
) -> pd.DataFrame:
    """How far apart the scores under two of a method's masks are, with noise bounds.

    `difference` is the score under the second mask less that under the first, `items` the same as
    a number of items (right answers or grades).
    """
    rows = []
    for table in tables.values():
        for x in LANGUAGES:
            bounds = between(table, (method, second), (method, first), x, level)
            scores = [table.row(method, target)["masked"][x] for target in (first, second)]
            rows.append(
                {
                    "table": table.name,
                    "language": x,
                    first: scores[0],
                    second: scores[1],
                    "difference": round(scores[1] - scores[0], 4),
                    "items": round(bounds.difference * table.items[x]),
                    "z_low": bounds.z_low,
                    "z_high": bounds.z_high,
                    "verdict": bounds.verdict,
                }
            )
    return pd.DataFrame(rows)


def chance_table(
    tables: Mapping[str, Published], chance: float = 0.25, level: float = 0.95
) -> pd.DataFrame:
    """Every printed accuracy against guessing among four options.

    `low`, `high` is Wilson's interval, `p_value` the exact two-sided one against `chance`, and
    `verdict` "above", "below" or "at": not told apart from guessing at that level. Where a print
    allows several counts the one nearest to chance is taken.
    """
    rows = []
    for table in tables.values():
        if table.judged:
            continue
        for row in table.scores.to_dict("records"):
            for x in LANGUAGES:
                n = table.items[x]
                counts = grim(row[x], n)
                count = min((abs(k - chance * n), k) for k in counts)[1]
                test = binomtest(count, n, chance)
                bounds = test.proportion_ci(confidence_level=level, method="wilson")
                told = test.pvalue < 1 - level
                side = "above" if count > chance * n else "below"
                rows.append(
                    {
                        "table": table.name,
                        "method": row["method"],
                        "mask_language": row["mask_language"],
                        "language": x,
                        "score": row[x],
                        "count": count,
                        "n": n,
                        "low": float(bounds.low),
                        "high": float(bounds.high),
                        "p_value": float(test.pvalue),
                        "verdict": side if told else "at",
                    }
                )
    return pd.DataFrame(rows)


def f1_intervals(
    table: Published,
    method: str,
    target: str,
    floors: bool = False,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Interval, Interval]:
    """Intervals of a printed row's LangSpec-F1 under the two extreme pairings of its items.

    The first is for items that change as little as the scores allow, the second for as much; the
    truth, which needs the unpublished outcomes, is in between. Where a print allows several sums
    the first is taken. `floors` measures scores from the table's floor.
    """
    arms: list[dict[str, Array]] = [{}, {}]
    for x in LANGUAGES:
        pairs = extreme_pairings(
            sums(table, "Org", "", x)[0],
            sums(table, method, target, x)[0],
            table.items[x],
            table.low,
            table.high,
        )
        for arm, own in zip(arms, pairs, strict=True):
            arm[x] = own
    found = []
    for arm in arms:
        before = {x: pairs[:, 0] for x, pairs in arm.items()}
        after = {x: pairs[:, 1] for x, pairs in arm.items()}
        if floors:
            found.append(
                floor_corrected_interval(before, after, target, table.floor, n_boot, level, seed)
            )
        else:
            found.append(langspec_f1_interval(before, after, target, n_boot, level, seed))
    return found[0], found[1]


def interval_table(table: Published, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`f1_intervals` of every row of a table, of scores from zero and from their floor.

    One row per `method` and `mask`: the values `paper` and `floor`, and the ends of their intervals
    under the `similar` and the `opposed` pairing, such as `paper_similar_low`.
    """
    rows = []
    for method, target in itertools.product(table.methods, LANGUAGES):
        row: dict[str, float | str] = {"method": method, "mask": target}
        for label, floors in (("paper", False), ("floor", True)):
            found = f1_intervals(table, method, target, floors, n_boot, seed=seed)
            row |= {label: found[0].estimate}
            for kind, interval in zip(("similar", "opposed"), found, strict=True):
                row |= {f"{label}_{kind}_low": interval.low, f"{label}_{kind}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)
