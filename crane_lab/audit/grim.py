"""Is a printed score a possible mean? GRIM, and what it says about Table 2's random rows.

GRIM (granularity-related inconsistency of means) is the test of Brown and Heathers (2017): the mean
of n whole numbers is a whole number divided by n, and with enough decimals most prints are no such
number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crane_core.metrics import langspec_f1
from crane_lab.audit.tables import HALF_UNIT, LANGUAGES, QUESTIONS, Published, largest_f1

Array = NDArray[np.float64]


def grim(
    value: float, n: int, decimals: int = 4, low: int = 0, high: int | None = None
) -> tuple[int, ...]:
    """All whole sums k for which k/n is printed as `value`; none if the print is impossible.

    Parameters
    ----------
    value : the printed mean.
    n : how many whole numbers it is the mean of.
    decimals : printed decimals. A mean exactly between two prints may be rounded either way.
    low, high : range of one number; None: no upper end.

    Raises ValueError if n is not positive.
    """
    if n < 1:
        raise ValueError(f"n is {n}: expected at least one item")
    printed = Fraction(f"{value:.{decimals}f}")
    half = Fraction(1, 2 * 10**decimals)
    first = max(math.ceil((printed - half) * n), low * n)
    last = math.floor((printed + half) * n)
    if high is not None:
        last = min(last, high * n)
    return tuple(range(first, last + 1))


def possible_share(n: int, decimals: int = 4, low: int = 0, high: int = 1) -> float:
    """The share of all prints from `low` to `high` that the mean of n whole numbers can have."""
    prints = (high - low) * 10**decimals + 1
    return min(1.0, ((high - low) * n + 1) / prints)


def fitting_sizes(values: Iterable[float], n_max: int, decimals: int = 4) -> list[int]:
    """Every n up to `n_max` for which all the printed values are possible means."""
    distinct = sorted(set(values))
    return [n for n in range(1, n_max + 1) if all(grim(v, n, decimals) for v in distinct)]


def grim_table(tables: Mapping[str, Published]) -> pd.DataFrame:
    """GRIM for every printed score, Org included.

    One row per score: `printed`, `n`, `counts` (all whole sums that are printed so, as text),
    `n_counts`, `count` (the sum if there is just one), `possible`, and `share`, the chance that a
    number picked blindly would pass: near 1 means that passing says nothing.
    """
    rows = []
    for table in tables.values():
        for row in table.scores.to_dict("records"):
            for x in LANGUAGES:
                n = table.items[x]
                counts = grim(row[x], n, 4, table.low, table.high)
                rows.append(
                    {
                        "table": table.name,
                        "method": row["method"],
                        "mask_language": row["mask_language"],
                        "language": x,
                        "printed": row[x],
                        "n": n,
                        "counts": ", ".join(map(str, counts)) or "none",
                        "n_counts": len(counts),
                        "count": counts[0] if len(counts) == 1 else None,
                        "possible": bool(counts),
                        "share": possible_share(n, 4, table.low, table.high),
                    }
                )
    return pd.DataFrame(rows).astype({"count": "Int64"})


def grim_summary(cells: pd.DataFrame) -> pd.DataFrame:
    """`grim_table` by kind of table and language: how many pass, and how many would blindly."""
    rows = []
    for (n, language), own in cells.groupby(["n", "language"], sort=False):
        distinct = own.drop_duplicates("printed")
        share = float(own["share"].iloc[0])
        rows.append(
            {
                "scores": language if n != QUESTIONS else f"grades {language}",
                "n": n,
                "distinct prints": len(distinct),
                "possible": int(distinct["possible"].sum()),
                "expected blindly": share * len(distinct),
                "all pass blindly": share ** len(distinct),
                "one count only": int((distinct["n_counts"] == 1).sum()),
            }
        )
    return pd.DataFrame(rows)


def benchmark_sizes(
    cells: pd.DataFrame, languages: Sequence[str] = ("zh", "vi"), largest: int = 3000
) -> dict[str, list[int]]:
    """Language -> every number of questions for which all its printed accuracies are possible.

    `cells` as `grim_table` makes them. English is left out by default: on a benchmark as large as
    MMLU every print is possible.
    """
    found = {}
    for x in languages:
        printed = cells[(cells["language"] == x) & (cells["n"] != QUESTIONS)]["printed"]
        found[x] = fitting_sizes(printed, largest)
    return found


def _all_f1(ends: Mapping[str, list[list[float]]], target: str) -> list[float]:
    """LangSpec-F1 for every choice of one score before and one after in each language."""
    before, after = (
        [
            dict(zip(LANGUAGES, scores, strict=True))
            for scores in itertools.product(*(ends[y][i] for y in LANGUAGES))
        ]
        for i in (0, 1)
    )
    return [langspec_f1(b, a, target).f1 for b in before for a in after]


def recompute_from_counts(tables: Mapping[str, Published]) -> pd.DataFrame:
    """LangSpec-F1 of every printed row from the whole sums that its scores must come from.

    As `tables.recompute`, with far narrower bounds: `low` to `high` is over the sums that GRIM
    allows, `off` is how far the printed value is from the nearest of them, and the verdict is
    "agrees" if some choice of sums is printed as the paper has it. `mixed` is whether it would be
    if some of the scores had been rounded before the calculation and others not.
    """
    rows = []
    for table in tables.values():
        for row in table.rows():
            x = row["mask_language"]
            ends = {
                y: [
                    [k / table.items[y] for k in grim(scores[y], table.items[y])]
                    for scores in (table.original, row["masked"])
                ]
                for y in LANGUAGES
            }
            values = _all_f1(ends, x)
            mixed = {
                y: [pair[0] + [table.original[y]], pair[1] + [row["masked"][y]]]
                for y, pair in ends.items()
            }
            printed = float(row["langspec_f1"])
            off = min((abs(value - printed) for value in values), default=math.nan)
            tolerance = HALF_UNIT * 1.001
            rows.append(
                {
                    "table": table.name,
                    "method": row["method"],
                    "mask_language": x,
                    "printed": printed,
                    "low": min(values, default=math.nan),
                    "high": max(values, default=math.nan),
                    "off": off,
                    "verdict": "agrees" if off <= tolerance else "disagrees",
                    "mixed": any(abs(v - printed) <= tolerance for v in _all_f1(mixed, x)),
                }
            )
    return pd.DataFrame(rows)


# --- Table 2's random rows ----------------------------------------------------------------------

#: How precision and recall could be put together, as functions of both.
COMBINATIONS = ("harmonic", "F0.5", "F2", "arithmetic", "geometric")
#: What becomes of a gain: counts as no drop (the paper), as a negative drop, as a drop of its size.
GAINS = ("clipped", "signed", "absolute")


def _combine(precision: Array, recall: Array, how: str, epsilon: float) -> Array:
    if how == "arithmetic":
        return (precision + recall) / 2
    if how == "geometric":
        return np.sqrt(np.maximum(precision * recall, 0.0))
    beta2 = {"harmonic": 1.0, "F0.5": 0.25, "F2": 4.0}[how]
    return (1 + beta2) * precision * recall / (beta2 * precision + recall + epsilon)


def unreachable(table: Published, method: str = "Random") -> pd.DataFrame:
    """Per row of a method: printed LangSpec-F1 against the largest that its recall allows.

    Recall needs only the target's two scores; `largest` is LangSpec-F1 at precision 1, with the
    rounding of the scores in its favour. `needed_precision` is the precision that would give the
    printed value, above 1 where none does, and `needed_other` the drop of another language that
    goes with it (NaN if there is none).
    """
    rows = []
    for row in table.rows(method):
        x, printed = row["mask_language"], float(row["langspec_f1"])
        before, after = table.original[x], row["masked"][x]
        recall = max(0.0, 1 - after / before)
        spread = 2 * recall - printed
        precision = printed * recall / spread if spread > 0 else math.inf
        own = before - after
        rows.append(
            {
                "mask_language": x,
                "drop": f"{round(own * table.items[x])}/{round(before * table.items[x])}",
                "recall": recall,
                "printed": printed,
                "largest": largest_f1(before, after),
                "needed_precision": precision,
                "needed_other": own * (1 / precision - 1) if precision <= 1 else math.nan,
                "largest_other": max(
                    table.original[y] - row["masked"][y] for y in LANGUAGES if y != x
                ),
            }
        )
    return pd.DataFrame(rows)


def hypotheses(
    tables: Mapping[str, Published],
    number: str = "2",
    method: str = "Random",
    tolerance: float = HALF_UNIT * 1.001,
) -> pd.DataFrame:
    """Rules that could have made a method's printed LangSpec-F1 from the printed scores.

    Every combination is tried of: which row is taken for the unmasked scores (of the same table, or
    Org of the other judged table), which of the method's rows belongs to which print, in which
    order the languages' columns are read (for masked scores only, or for both), `how` other drops
    enter, absolute or relative drops, grades counted from 0 or from 1, what becomes of gains, the
    epsilon, and how precision and recall are put together. Sums are exact (GRIM gives them), so a
    rule reproduces a print if it comes within half a unit of its last digit.

    Returns one row per rule that reproduces at least one print: its parts, the three values, and
    `reproduced`; `.attrs["tried"]` is the number of rules.
    """
    table = tables[number]
    n = table.items[LANGUAGES[0]]
    rows = {row["mask_language"]: row for row in table.rows(method)}
    printed = np.array([rows[x]["langspec_f1"] for x in LANGUAGES])
    masked = np.array([[round(rows[x]["masked"][y] * n) for y in LANGUAGES] for x in LANGUAGES])
    starts = {"Org": [table.original[x] for x in LANGUAGES]}
    for row in table.rows():
        name = f"{row['method']} {row['mask_language']}"
        starts[name] = [row["masked"][x] for x in LANGUAGES]
    for other in tables.values():
        if other is not table and other.judged == table.judged:
            starts[f"Org of {other.name}"] = [other.original[x] for x in LANGUAGES]
    orders = list(itertools.permutations(range(3)))
    labels, before_all, after_all = [], [], []
    for (name, unmasked), rows_as, columns, both in itertools.product(
        starts.items(), orders, orders, (False, True)
    ):
        sums = np.array([round(value * n) for value in unmasked])
        labels.append((name, rows_as, columns, "both" if both else "masked"))
        before_all.append(np.broadcast_to(sums[list(columns)] if both else sums, (3, 3)))
        after_all.append(masked[np.ix_(rows_as, columns)])
    before, after = np.array(before_all) / n, np.array(after_all) / n  # (rules, rows, languages)
    found: list[dict[str, Any]] = []
    tried = 0
    own = np.arange(3)
    rest = np.array([[1, 2], [0, 2], [0, 1]])
    for floor, gains, relative in itertools.product((0.0, 1.0), GAINS, (False, True)):
        start = before - floor
        change = before - after
        if gains == "clipped":
            change = np.maximum(change, 0.0)
        elif gains == "absolute":
            change = np.abs(change)
        entering = change / start if relative else change
        target = entering[:, own, own]
        others = np.stack([entering[:, i, rest[i]] for i in range(3)], axis=1)
        share = change[:, own, own] / start[:, own, own]
        for how, epsilon in itertools.product(("max", "mean", "sum"), (1e-8, 1e-2, 1.0)):
            drop = getattr(np, how)(others, axis=-1)
            with np.errstate(divide="ignore", invalid="ignore"):
                precision = target / (target + drop + epsilon)
                recall = share * start[:, own, own] / (start[:, own, own] + epsilon)
            for combine in COMBINATIONS:
                with np.errstate(divide="ignore", invalid="ignore"):
                    value = _combine(precision, recall, combine, epsilon)
                tried += len(value)
                hits = np.abs(value - printed) <= tolerance
                for i in np.flatnonzero(hits.any(axis=1)):
                    name, rows_as, columns, scope = labels[i]
                    found.append(
                        {
                            "unmasked": name,
                            "rows": " ".join(LANGUAGES[j] for j in rows_as),
                            "columns": " ".join(LANGUAGES[j] for j in columns),
                            "columns_of": scope,
                            "how": how,
                            "relative": relative,
                            "floor": floor,
                            "gains": gains,
                            "epsilon": epsilon,
                            "combined": combine,
                            **{x: float(value[i, j]) for j, x in enumerate(LANGUAGES)},
                            **{f"{x}_reproduced": bool(hits[i, j])
                               for j, x in enumerate(LANGUAGES)},
                            "reproduced": int(hits[i].sum()),
                        }
                    )  # fmt: skip
    result = pd.DataFrame(found).sort_values("reproduced", ascending=False, kind="stable")
    result.attrs["tried"] = tried
    return result.reset_index(drop=True)


def seeds_coincidence(seeds: Sequence[int], cells: int) -> dict[int, float]:
    """Chance that means over s seeds all look like single runs, by s.

    A mean over s runs of n items has sums in steps of 1/s. That all of `cells` of them come out
    whole has chance s^-cells if the runs are unrelated.
    """
    return {s: float(s) ** -cells for s in seeds}
