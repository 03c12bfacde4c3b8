"""Two runs' tables side by side, with intervals of the difference (`crane compare`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from crane_core import metrics
from crane_core.metrics import Interval

#: The paper's tables, and the column of `items_table<n>.parquet` that their scores are means of.
TABLES = {"1": "correct", "2": "score", "3": "correct", "4": "score"}
_MASK = ["method", "mask_language"]


def compare(
    first: Path,
    second: Path,
    tasks: tuple[Mapping[str, str], Mapping[str, str]],
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Every score and LangSpec-F1 of Tables 1 to 4 in two runs, and the difference.

    Parameters
    ----------
    first, second : folders with the runs' results.
    tasks : for each run, language -> the task that stands for it in Tables 1 and 3.
    n_boot, seed : resamples of the bootstrap, and its seed.

    Returns
    -------
    One row per table, mask and value: `table`, `method`, `mask_language`, `value` (a language's
    score, or "langspec_f1"), `first`, `second`, `difference` (second less first), `low` and `high`,
    its 95 % interval, `paired`, and `n_first`, `n_second`, the numbers of masked neurons. Where
    both runs have the same items, the interval is that of a paired bootstrap over clusters of
    items; where not, the two runs' own intervals are taken as independent. Random masks are
    means over seeds, item by item.

    Raises FileNotFoundError if a run has no results, and ValueError if the two have no table, or
    no mask, in common.
    """
    for folder in (first, second):
        if not any((folder / f"items_table{n}.parquet").is_file() for n in TABLES):
            raise FileNotFoundError(
                f"{folder} holds no items of Tables 1 to 4; run notebooks 04 to 06b of that run"
            )
    rows: list[dict[str, object]] = []
    for number, column in TABLES.items():
        paths = [folder / f"items_table{number}.parquet" for folder in (first, second)]
        if not all(path.is_file() for path in paths):
            continue
        a, b = (
            _Outcomes(path, column, chosen if column == "correct" else None)
            for path, chosen in zip(paths, tasks, strict=True)
        )
        rows += [{"table": number, **row} for row in _differences(a, b, n_boot, seed)]
    if not rows:
        raise ValueError(f"{first} and {second} have no table with a mask in common")
    sizes = [_sizes(folder) for folder in (first, second)]
    table = pd.DataFrame(rows)
    for name, size in zip(("n_first", "n_second"), sizes, strict=True):
        keys = table[["table", *_MASK]].itertuples(index=False, name=None)
        table[name] = [size.get(key, np.nan) for key in keys]
    return table


class _Outcomes:
    """Outcomes of one table's items: mask -> language -> Series by item, means over seeds."""

    def __init__(self, path: Path, column: str, tasks: Mapping[str, str] | None) -> None:
        items = pd.read_parquet(path)
        if tasks is not None:
            items = items[items["task"] == items["language"].map(tasks)]
        if items.empty:
            raise ValueError(f"{path} has no items of the tasks {dict(tasks or {})}")
        items = items.dropna(subset=[column])
        self.languages = [str(x) for x in items["language"].unique()]
        self.clusters = items.drop_duplicates("id").set_index("id")["cluster"]
        means = items.groupby([*_MASK, "language", "id"], sort=False)[column].mean()
        self.of: dict[tuple[str, str], dict[str, pd.Series]] = {
            (str(method), str(mask)): {
                str(x): own.droplevel([0, 1, 2])
                for x, own in found.groupby(level="language", sort=False)
            }
            for (method, mask), found in cast(Any, means.groupby(level=_MASK, sort=False))
        }

    def pair(self, mask: tuple[str, str]) -> tuple[dict[str, pd.Series], dict[str, pd.Series]]:
        """Outcomes without a mask and under one, of items that have both."""
        before, after = self.of["Org", ""], self.of[mask]
        kept = {x: before[x].index.intersection(after[x].index) for x in after}
        return (
            {x: before[x].loc[ids].astype(float) for x, ids in kept.items()},
            {x: after[x].loc[ids].astype(float) for x, ids in kept.items()},
        )


def _differences(a: _Outcomes, b: _Outcomes, n_boot: int, seed: int) -> list[dict[str, object]]:
    rows = []
    languages = [x for x in a.languages if x in b.languages]
    for mask in (mask for mask in a.of if mask in b.of):
        pairs = [outcomes.pair(mask) for outcomes in (a, b)]
        same = a.languages == b.languages and all(
            pairs[0][1][x].index.equals(pairs[1][1][x].index) for x in languages
        )
        clusters = [
            {x: list(o.clusters.loc[own.index]) for x, own in pair[1].items()}
            for o, pair in zip((a, b), pairs, strict=True)
        ]
        found: dict[str, tuple[Interval, Interval, Interval]] = {}
        for x in languages:
            own = [
                metrics.mean_interval(pair[1][x], n_boot, seed=seed, clusters=c[x])
                for pair, c in zip(pairs, clusters, strict=True)
            ]
            difference = (
                metrics.drop_interval(
                    pairs[1][1][x], pairs[0][1][x], n_boot, seed=seed, clusters=clusters[0][x]
                )
                if same
                else _independent(*own)
            )
            found[x] = (own[0], own[1], difference)
        if mask[1] in languages:
            own = [
                metrics.langspec_f1_interval(*pair, mask[1], n_boot, seed=seed, clusters=c)
                for pair, c in zip(pairs, clusters, strict=True)
            ]
            difference = (
                metrics.langspec_f1_difference(
                    pairs[0], pairs[1], mask[1], n_boot, seed=seed, clusters=clusters[0]
                )
                if same
                else _independent(*own)
            )
            found["langspec_f1"] = (own[0], own[1], difference)
        rows += [
            {
                **dict(zip(_MASK, mask, strict=True)),
                "value": name,
                "first": one.estimate,
                "second": two.estimate,
                "difference": difference.estimate,
                "low": difference.low,
                "high": difference.high,
                "paired": same,
            }
            for name, (one, two, difference) in found.items()
        ]
    return rows


def _independent(first: Interval, second: Interval) -> Interval:
    """The difference of independent estimates: half-widths add in squares."""
    estimate = second.estimate - first.estimate
    below = np.hypot(second.estimate - second.low, first.high - first.estimate)
    above = np.hypot(second.high - second.estimate, first.estimate - first.low)
    return Interval(estimate, estimate - float(below), estimate + float(above), first.level)


def _sizes(folder: Path) -> dict[tuple[str, str, str], int]:
    """(table, method, masked language) -> number of masked neurons."""
    found = {}
    for number in TABLES:
        path = folder / f"table{number}.csv"
        if path.is_file():
            for row in pd.read_csv(path, keep_default_na=False).to_dict("records"):
                found[number, row["method"], row["mask_language"]] = int(row["n_neurons"])
    return found


def comparison_text(table: pd.DataFrame) -> str:
    """The comparison as text for a terminal: LangSpec-F1, then the scores that differ clearly."""
    lines = []
    for number, own in table.groupby("table", sort=False):
        paired = "the same items, paired" if own["paired"].all() else "other items, independent"
        lines.append(f"Table {number} ({paired}): LangSpec-F1, second less first, 95 % interval")
        f1 = own["value"] == "langspec_f1"
        for row in own[f1].to_dict("records"):
            apart = "" if row["low"] <= 0 <= row["high"] else "  *"
            sizes = f"neurons {row['n_first']:.0f} -> {row['n_second']:.0f}"
            lines.append(f"  {_line(row, row['mask_language'])}  {sizes}{apart}")
        scores = own[~f1]
        clear = scores[(scores["low"] > 0) | (scores["high"] < 0)]
        lines.append(
            f"  {len(clear)} of {len(scores)} scores differ by more than their interval"
            + (":" if len(clear) else "")
        )
        lines += [
            "    " + _line(row, f"{row['mask_language']:4} {row['value']}")
            for row in clear.to_dict("records")
        ]
    return "\n".join(lines)


def _line(row: Mapping[Hashable, Any], name: str) -> str:
    return (
        f"{row['method']:13} {name:8} {row['first']:.4f} -> {row['second']:.4f}  "
        f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
    )
