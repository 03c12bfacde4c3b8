"""What the LSN paper's printed tables can tell (Mondal et al., 2025; `data/published/lsn`).

It prints no interval. How many items were right follows from a score and the number of items; how
many of them changed under an intervention does not, but has a least and a most, and so does the
p-value of McNemar's test (`audit.noise`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from crane_lab.audit.grim import grim
from crane_lab.audit.noise import CANNOT, CERTAIN, OPEN, noise_bounds

FOLDER = "data/published/lsn"
#: How many items a language can have, as the paper's code has it: XNLI's test set; a fifth of
#: XQuAD, of which items that are too long are left out (173 are left in Hindi).
ITEMS = {"accuracy": (5010,), "exact_match": (173, 238)}
#: Decimals of a score as a share: printed in per cent with one decimal, and with none.
_DECIMALS = {"accuracy": 3, "exact_match": 2}
#: Points by which exact match and F1 part ways, at least, to be named.
_APART = 2
#: The least value that SiLU puts out.
LEAST_OF_SILU = -0.27846


def lsn_table(number: str, folder: str | Path = FOLDER) -> pd.DataFrame:
    """One of the paper's tables, as printed, in long form; scores are per cent."""
    return pd.read_csv(Path(folder) / f"table{number}.csv", keep_default_na=False)


def lsn_changes(
    table: pd.DataFrame, items: Mapping[str, Sequence[int]] | None = None
) -> pd.DataFrame:
    """Every printed change under an intervention, and whether the choice of items can explain it.

    Parameters
    ----------
    table : with the columns `set_to` ("none" for no intervention) and `accuracy` or `exact_match`.
    items : how many items a score can be of, by column; `ITEMS` by default.

    Returns
    -------
    The rows with an intervention, with `before`, `after` and `change` in points, `p_low`, `p_high`
    (McNemar's, least and most over the numbers of items and over how many of them can have
    changed) and `verdict`: "certain", "either" or "cannot" (`noise.noise_bounds`), the first and
    the last where they are for every number of items.
    """
    metric = "accuracy" if "accuracy" in table else "exact_match"
    keys = [name for name in ("model", "method", "tuned", "language") if name in table]
    before = table[table["set_to"] == "none"].set_index(keys)[metric]
    rows = []
    for row in table[table["set_to"] != "none"].to_dict("records"):
        first, second = float(before.loc[tuple(row[key] for key in keys)]), float(row[metric])
        about = {key: row[key] for key in (*keys, "set_to")}
        rows.append({**about, **lsn_change(first, second, metric, items)})
    return pd.DataFrame(rows)


def lsn_change(
    first: float, second: float, metric: str, items: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """Two printed scores of the same items, and what can be said of the change (`lsn_changes`)."""
    places = _DECIMALS[metric]
    bounds = [
        noise_bounds(grim(first / 100, n, places), grim(second / 100, n, places), n)
        for n in (items or ITEMS)[metric]
    ]
    verdicts = {one.verdict for one in bounds}
    return {
        "before": first,
        "after": second,
        "change": round(second - first, 1),
        "p_low": min(one.p_low for one in bounds),
        "p_high": max(one.p_high for one in bounds),
        "verdict": verdicts.pop() if len(verdicts) == 1 else OPEN,
    }


def lsn_counts(changes: pd.DataFrame) -> pd.DataFrame:
    """How many changes are better and worse, by value and verdict; a row per value."""
    found = []
    for value, own in changes.groupby("set_to", sort=False):
        row: dict[str, object] = {"set to": value, "rows": len(own)}
        for name, sign in (("worse", -1), ("better", 1)):
            signed = own[own["change"] * sign > 0]
            row[name] = len(signed)
            row[f"{name}, certain"] = int((signed["verdict"] == CERTAIN).sum())
        row["open"] = int((own["verdict"] == OPEN).sum())
        row["noise can explain"] = int((own["verdict"] == CANNOT).sum())
        row["mean change"] = own["change"].mean()
        found.append(row)
    return pd.DataFrame(found)


def lsn_slips(folder: str | Path = FOLDER) -> list[str]:
    """Where the printed tables disagree with each other or within themselves, a sentence each.

    Numbers that are one and differ, or that should differ and are one; exact match and F1 that move
    `_APART` points or more in opposite directions; rows that have no counterpart.
    """
    slips = []
    for short, full in (("1", "4"), ("2", "5"), ("3", "7")):
        a, b = lsn_table(short, folder), lsn_table(full, folder)
        keys = [name for name in a if name not in ("accuracy", "exact_match", "f1")]
        both = a.merge(b, on=keys, suffixes=("", "_full"))
        values = [name for name in a if name not in keys]
        differ = both[(both[values] != both[[f"{v}_full" for v in values]].to_numpy()).any(axis=1)]
        if len(both) != len(a) or len(differ):
            slips.append(f"{len(differ)} cells of Table {short} differ from Table {full}.")
    answers = [(number, name) for number in ("2", "5") for name in ("exact_match", "f1")]
    for number, column in (("4", "accuracy"), *answers):
        own = lsn_table(number, folder)
        for about, same in own[own["set_to"] == "none"].groupby(["model", "language"], sort=False):
            values = list(dict.fromkeys(same[column]))
            if len(values) > 1:
                slips.append(
                    f"Table {number} has {' and '.join(map(str, values))} for {_named(about)}, "
                    f"without an intervention ({column}): one model, one number."
                )
    slips += _slips_of_answers(lsn_table("5", folder))
    table8, tuned = lsn_table("8", folder), set(lsn_table("7", folder)["model"])
    for about, same in table8.groupby(["model", "language"], sort=False):
        if len(same) > 1:
            slips.append(f"Table 8 lists {_named(about)}, {len(same)} times.")
    languages = dict.fromkeys(table8["language"])
    for model, own in table8.groupby("model", sort=False):
        if missing := [x for x in languages if x not in set(own["language"])]:
            slips.append(f"Table 8 has no {_named(missing)} for {model}, and has it for another.")
        if model not in tuned:
            slips.append(
                f"Table 8 has random neurons of {model}, which is not in Table 7: there is nothing "
                "to hold them against."
            )
    return slips


def _slips_of_answers(table5: pd.DataFrame) -> list[str]:
    """Where Table 5's pairs of numbers are twice the same, or part ways."""
    slips = []
    for about, own in table5.groupby(["model", "method", "language"], sort=False):
        untouched = own[own["set_to"] == "none"].iloc[0]
        done = own[own["set_to"] != "none"]
        for (exact, f1), same in done.groupby(["exact_match", "f1"], sort=False):
            if len(same) > 1:
                slips.append(
                    f"Table 5 has {exact} ({f1}) for {_named(about)} under both "
                    f"{' and '.join(same['set_to'])}."
                )
        for row in done.to_dict("records"):
            moved = [row[name] - untouched[name] for name in ("exact_match", "f1")]
            if moved[0] * moved[1] < 0 and min(map(abs, moved)) >= _APART:
                slips.append(
                    f"Table 5, {_named(about)}, {row['set_to']}: exact match goes by "
                    f"{moved[0]:+.0f} points and F1 by {moved[1]:+.1f}."
                )
    return slips


def _named(about: Iterable[object]) -> str:
    return ", ".join(map(str, about))


def lsn_before_act_fn(folder: str | Path = FOLDER) -> pd.DataFrame:
    """Which of Table 6's means and percentiles are below anything that SiLU puts out."""
    found = lsn_table("6", folder)
    return found.assign(out_of_reach=found["value"] < LEAST_OF_SILU)
