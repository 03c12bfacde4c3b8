"""The published tables, and what follows from them by arithmetic alone (Eq. 3-5, §3.1).

A printed score stands for every number that rounds to it. LangSpec-F1 is monotone in each of the
scores it is made of, so its smallest and its largest value over all of them are reached at two
corners, and the bounds here are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from crane_core.metrics import EPSILON, langspec_f1

LANGUAGES = ("en", "zh", "vi")
#: Half a unit of the last of the four printed decimals.
HALF_UNIT = 5e-5
#: Items behind each accuracy: MMLU's test questions, C-Eval's validation questions, Belebele.
ITEMS = {"en": 14042, "zh": 1346, "vi": 900}
#: Open questions per language.
QUESTIONS = 70
# Comparisons of decimals that are exact on paper and binary fractions in memory.
_SLACK = 1e-12


@dataclass(frozen=True)
class Published:
    """One of the paper's tables.

    Attributes
    ----------
    number : "1" to "4".
    model : "base" or "chat", whose scores LangSpec-F1 is made of.
    scores : method, mask_language ("" for Org), one column per language, langspec_f1 as printed.
    items : language -> how many items its score is the mean of.
    low, high : the scale of one item: 0 and 1 for right and wrong, 1 and 10 for grades.
    floor : language -> the score that is left when nothing is left: chance, or the lowest grade.
    """

    number: str
    model: str
    scores: pd.DataFrame
    items: Mapping[str, int]
    low: int
    high: int
    floor: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the book calls it, such as `Table 1`."""
        return f"Table {self.number}"

    @property
    def judged(self) -> bool:
        """Whether the scores are grades; otherwise they are accuracies."""
        return self.high > 1

    @property
    def original(self) -> dict[str, float]:
        """The unmasked scores."""
        return {x: float(self.scores.iloc[0][x]) for x in LANGUAGES}

    def rows(self, method: str | None = None) -> Iterator[dict[str, Any]]:
        """The masked rows, of one method if given, each with its scores under `masked`."""
        for row in self.scores.iloc[1:].to_dict("records"):
            if method in (None, row["method"]):
                known = {str(key): value for key, value in row.items()}
                yield {**known, "masked": {x: float(row[x]) for x in LANGUAGES}}

    def row(self, method: str, target: str) -> dict[str, Any]:
        """The row of one mask. Raises KeyError if there is none."""
        for found in self.rows(method):
            if found["mask_language"] == target:
                return found
        raise KeyError(f"{self.name} has no row {method}, {target}")

    def drop(self, method: str, target: str) -> dict[str, float]:
        """Language -> unmasked less masked score under one mask, exact to the printed digits."""
        masked = self.row(method, target)["masked"]
        return {x: round(score - masked[x], 4) for x, score in self.original.items()}

    @property
    def methods(self) -> list[str]:
        """The methods with masks in this table, in its order."""
        return list(dict.fromkeys(self.scores["method"].iloc[1:]))


def read_scores(number: str, folder: str | Path = "data/published") -> pd.DataFrame:
    """One of the paper's tables, "1" to "4": row Org first, its `mask_language` empty.

    Methods as they are printed, their rows in the order of all tables of this book (the paper has
    vi before zh). Columns as in `Scored.table`, or for Table 3 as in `outcomes.side_by_side`.
    """
    found = pd.read_csv(Path(folder) / f"table{number}.csv").fillna({"mask_language": ""})
    places = ["", *LANGUAGES]
    order = {"method": list(dict.fromkeys(found["method"])), "mask_language": places}
    ranks = found[list(order)].apply(lambda column: column.map(order[str(column.name)].index))
    return found.loc[ranks.sort_values(list(order)).index].reset_index(drop=True)


def published(folder: str | Path = "data/published") -> dict[str, Published]:
    """The paper's four tables by number; of Table 3 the chat model's half, which is new there."""
    found = {}
    for number in "1234":
        scores = read_scores(number, folder)
        if number == "3":
            scores = scores.drop(columns=[f"base_{x}" for x in LANGUAGES])
            scores = scores.rename(columns=lambda name: name.removeprefix("chat_"))
        judged = number in "24"
        found[number] = Published(
            number,
            "base" if number in "12" else "chat",
            scores,
            dict.fromkeys(LANGUAGES, QUESTIONS) if judged else ITEMS,
            1 if judged else 0,
            10 if judged else 1,
            dict.fromkeys(LANGUAGES, 1.0 if judged else 0.25),
        )
    return found


def f1_bounds(
    original: Mapping[str, float],
    masked: Mapping[str, float],
    target: str,
    half_unit: float = HALF_UNIT,
    epsilon: float = EPSILON,
    how: str = "max",
    relative: bool = False,
) -> tuple[float, float]:
    """Smallest and largest LangSpec-F1 of all scores that round to the printed ones.

    F1 rises with precision and with recall. Recall is 1 - masked/original of the target, precision
    rises with the target's drop and falls with the others', so F1 rises with the target's original
    and the others' masked scores and falls with the target's masked and the others' original ones;
    clipping a drop at zero and dividing it by its original keep the directions. The extremes are
    therefore reached where every score is at the end of its range.

    Parameters
    ----------
    half_unit : how far a score can lie from its print, half a unit of the last digit.
    others : as for `metrics.langspec_f1`.
    """
    ends = []
    for sign in (-1, 1):
        before, after = {}, {}
        for x in original:
            own = sign if x == target else -sign
            before[x] = max(0.0, original[x] + own * half_unit)
            after[x] = max(0.0, masked[x] - own * half_unit)
        ends.append(langspec_f1(before, after, target, epsilon, how, relative).f1)
    return ends[0], ends[1]


def recompute(
    tables: Mapping[str, Published], how: str = "max", relative: bool = False
) -> pd.DataFrame:
    """LangSpec-F1 of every printed row from its own printed scores, with the rounding bound.

    One row per masked row of the tables: `printed`, `recomputed`, `difference`, the interval `low`
    to `high` of all values that the printed scores allow, and `verdict`: "agrees" if the printed
    value rounds a number from that interval, else "disagrees".
    """
    rows = []
    for table in tables.values():
        for row in table.rows():
            target = row["mask_language"]
            given = (table.original, row["masked"], target)
            low, high = f1_bounds(*given, how=how, relative=relative)
            value = langspec_f1(*given, how=how, relative=relative).f1
            printed = float(row["langspec_f1"])
            inside = low - HALF_UNIT - _SLACK <= printed <= high + HALF_UNIT + _SLACK
            rows.append(
                {
                    "table": table.name,
                    "method": row["method"],
                    "mask_language": target,
                    "printed": printed,
                    "recomputed": value,
                    "difference": printed - value,
                    "low": low,
                    "high": high,
                    "verdict": "agrees" if inside else "disagrees",
                }
            )
    return pd.DataFrame(rows)


def largest_f1(original: float, masked: float, half_unit: float = HALF_UNIT) -> float:
    """The largest LangSpec-F1 that a target's two printed scores allow, whatever the others do.

    Recall is fixed by the target alone, and precision is at most 1.
    """
    recall = max(0.0, 1 - (masked - half_unit) / (original + half_unit))
    return 2 * recall / (1 + recall)


def _drop_range(
    original: float, masked: float, relative: bool, half_unit: float
) -> tuple[float, float]:
    """The drops that two printed scores allow."""
    if relative:
        return (
            1 - (masked + half_unit) / (original - half_unit),
            1 - (masked - half_unit) / (original + half_unit),
        )
    return original - masked - 2 * half_unit, original - masked + 2 * half_unit


def definition(tables: Mapping[str, Published], half_unit: float = HALF_UNIT) -> pd.DataFrame:
    """Does each printed mask cost its language more than every other (§3.1)?

    §3.1 asks it of drops relative to the unmasked score; the columns `absolute` say the same of
    the drops that Eq. 3 takes. "yes" and "no" hold whatever the scores were before rounding;
    "open" means that rounding decides. `hardest` is the language with the largest relative drop.
    """
    rows = []
    for table in tables.values():
        for row in table.rows():
            target, start = row["mask_language"], table.original
            line: dict[str, Any] = {
                "table": table.name,
                "method": row["method"],
                "mask_language": target,
            }
            for relative in (True, False):
                key = "relative" if relative else "absolute"
                drops = {x: start[x] - row["masked"][x] for x in LANGUAGES}
                if relative:
                    drops = {x: drop / start[x] for x, drop in drops.items()}
                ranges = {
                    x: _drop_range(start[x], row["masked"][x], relative, half_unit)
                    for x in LANGUAGES
                }
                others = [x for x in LANGUAGES if x != target]
                line |= {f"{key}_{x}": drops[x] for x in LANGUAGES}
                if all(ranges[target][0] > ranges[x][1] for x in others):
                    line[key] = "yes"
                elif any(ranges[target][1] <= ranges[x][0] for x in others):
                    line[key] = "no"
                else:
                    line[key] = "open"
                if relative:
                    line["hardest"] = max(drops, key=drops.__getitem__)
            rows.append(line)
    return pd.DataFrame(rows)


def bold_cells(folder: str | Path = "data/published") -> pd.DataFrame:
    """The cells that the paper prints in bold: table, method, mask_language, column."""
    return pd.read_csv(Path(folder) / "bold.csv", dtype={"table": str})


def bold(tables: Mapping[str, Published], cells: pd.DataFrame) -> pd.DataFrame:
    """What is printed in bold, cell by cell, in every table that has bold cells at all.

    One row per cell of a masked row that is bold or would be if "best of its mask" were the rule:
    `best` is whether no other method has a lower score (or a higher LangSpec-F1) under the mask for
    that language, `role` whether the column is the masked language's, another's, or LangSpec-F1.
    """
    keys = ["table", "method", "mask_language", "column"]
    marked = {tuple(cell) for cell in cells[keys].to_numpy().tolist()}
    rows = []
    for number in sorted(set(cells["table"])):
        table = tables[number]
        for row in table.rows():
            target = row["mask_language"]
            rivals = [table.row(method, target) for method in table.methods]
            for column in (*LANGUAGES, "langspec_f1"):
                values = [rival[column] for rival in rivals]
                f1 = column == "langspec_f1"
                best = row[column] == (max(values) if f1 else min(values))
                bold_here = (number, row["method"], target, column) in marked
                role = "LangSpec-F1" if f1 else "target" if column == target else "other"
                if not (bold_here or (best and role != "other")):
                    continue
                rows.append(
                    {
                        "table": table.name,
                        "method": row["method"],
                        "mask_language": target,
                        "column": column,
                        "role": role,
                        "printed": float(row[column]),
                        "bold": bold_here,
                        "best": bool(best),
                    }
                )
    return pd.DataFrame(rows)
