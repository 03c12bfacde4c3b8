"""What steering does to tasks, beside the untouched model and random neurons, and how sure that is.

`scores` is what `steered_tasks.task_scores` returns first. Everything is paired item by item.
Intervals are for other items and, of nli, for other trainings (`crossed_interval`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from crane_lab.stages.standing import corrected
from crane_lab.study.steering_effects import UNSTEERED
from crane_lab.study.taught import RANDOM
from crane_lab.study.taught_effects import Crossed, crossed_interval

Array = NDArray[np.float64]
#: Whose neurons are added to: those of the tested language, or another's.
OWN, OTHER = "the task's own", "another"


def task_cells(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per task, method, tested `language` and `activated` one.

    `untouched` and `score`, means over items (and trainings); `change`, their difference, with
    `low`, `high`, `p` and `q`, corrected over all rows; `random`, the mean change under random
    neurons, and `ahead`, the change less theirs, with `ahead_p` and `ahead_q`.
    """
    rows = []
    for (task, method, x, activated), own in _steered(scores):
        before = _values(scores, task, UNSTEERED, x, "")
        after = _stacked(own)
        row = {"task": task, "method": method, "language": x, "activated": activated}
        row |= {"untouched": before.mean(), "score": after.mean()}
        rows.append({**row, **_apart(after, before, _random(scores, task, method, x, activated))})
    return _with_q(pd.DataFrame(rows))


def task_summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per task, method and `whose` neurons are added to: `OWN`, or `OTHER`.

    Columns as of `task_cells`, means over the pairs of tested and activated languages, with their
    number, `pairs`.
    """
    cells: dict[tuple[str, str, str], list[tuple[Array, Array]]] = {}
    drawn: dict[tuple[str, str, str], list[Array]] = {}
    for (task, method, x, activated), own in _steered(scores):
        name = task, method, OWN if x == activated else OTHER
        pair = _stacked(own), _values(scores, task, UNSTEERED, x, "")
        cells.setdefault(name, []).append(pair)
        random = _random(scores, task, method, x, activated)
        if random is not None:
            drawn.setdefault(name, []).append(random)
    rows = []
    for name, pairs in cells.items():
        after, before = (np.mean([pair[i] for pair in pairs], axis=0) for i in (0, 1))
        of = drawn.get(name, [])
        random = np.mean(of, axis=0) if len(of) == len(pairs) else None
        row: dict[str, object] = dict(zip(("task", "method", "whose"), name, strict=True))
        row |= {"pairs": len(pairs), "untouched": before.mean(), "score": after.mean()}
        rows.append({**row, **_apart(after, before, random)})
    return _with_q(pd.DataFrame(rows))


def translation_summary(corpora: pd.DataFrame) -> pd.DataFrame:
    """One row per method and tested language: `chrf` and `bleu` untouched, and by activated one.

    `corpora` is what `task_scores` returns second; random neurons' rows are means over draws.
    """
    keys = ["method", "activated", "language"]
    return corpora.groupby(keys, sort=False)[["chrf", "bleu", "empty"]].mean().reset_index()


def _apart(after: Array, before: Array, random: Array | None) -> dict[str, float]:
    """How far scores (trainings, items) are from those before, and from those of random neurons."""
    change = _interval(after - before)
    row = {"change": change.mean, "low": change.low, "high": change.high, "p": change.p}
    ahead = None if random is None else _interval(after - random)
    row["random"] = np.nan if random is None else float((random - before).mean())
    row["ahead"] = np.nan if ahead is None else ahead.mean
    row["ahead_p"] = np.nan if ahead is None else ahead.p
    return row


def _interval(apart: Array) -> Crossed:
    """`crossed_interval` of (trainings, items), or of items alone if there is one training."""
    if len(apart) > 1:
        return crossed_interval(apart)
    mean, error = float(apart.mean()), float(stats.sem(apart[0]))
    if not error > 0:
        return Crossed(mean, mean, mean, float(mean == 0))
    test = stats.ttest_1samp(apart[0], 0.0)
    interval = test.confidence_interval(0.95)
    return Crossed(mean, float(interval.low), float(interval.high), float(test.pvalue))


def _with_q(found: pd.DataFrame) -> pd.DataFrame:
    for p, q in (("p", "q"), ("ahead_p", "ahead_q")):
        found[q] = corrected(found[p].astype(float))
    return found


def _steered(scores: pd.DataFrame) -> list[tuple[tuple[str, str, str, str], pd.DataFrame]]:
    """Rows of methods' own sets, by task, method, tested and activated language."""
    own = scores[(scores["method"] != UNSTEERED) & ~scores["method"].str.startswith(RANDOM)]
    groups = own.groupby(["task", "method", "language", "activated"], sort=False)
    return [((str(a), str(b), str(c), str(d)), rows) for (a, b, c, d), rows in groups]


def _values(scores: pd.DataFrame, task: str, method: str, language: str, activated: str) -> Array:
    """Scores, (trainings, items), mean over draws.

    Raises ValueError if there are none.
    """
    where: Mapping[str, str] = {
        "task": task,
        "method": method,
        "language": language,
        "activated": activated,
    }
    chosen = np.logical_and.reduce([scores[name] == value for name, value in where.items()])
    rows = scores[chosen]
    if rows.empty:
        raise ValueError(f"no row of {', '.join(map(str, where.values()))}")
    return _stacked(rows)


def _stacked(rows: pd.DataFrame) -> Array:
    by_draw: Sequence[Array] = [
        np.array(own.sort_values("seed")["scores"].tolist(), float)
        for _, own in rows.groupby("draw")
    ]
    return np.asarray(np.mean(by_draw, axis=0))


def _random(
    scores: pd.DataFrame, task: str, method: str, language: str, activated: str
) -> Array | None:
    name = f"{RANDOM} as {method}"
    if not ((scores["method"] == name) & (scores["task"] == task)).any():
        return None
    return _values(scores, task, name, language, activated)
