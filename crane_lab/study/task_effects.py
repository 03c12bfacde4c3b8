"""What steering does to tasks, beside the untouched model and random neurons, and how sure that is.

`scores` is what `steered_tasks.task_scores` returns first. Everything is paired item by item.
Intervals of a change are for other items and, of nli, for other trainings (`crossed_interval`);
whether it is another one than random neurons bring about is asked with the spread of their draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from crane_lab.stages.standing import corrected
from crane_lab.study.steering_effects import UNSTEERED, of_methods
from crane_lab.study.taught import RANDOM
from crane_lab.study.taught_effects import Crossed, crossed_interval

Array = NDArray[np.float64]
#: Whose neurons are added to: those of the tested language, or another's. (A translation is tested
#: in the language that it is made into.)
OWN, OTHER = "the task's own", "another"


def task_cells(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per task, method, tested `language` and `activated` one.

    `untouched` and `score`, means over items (and trainings); `change`, their difference, with
    `low`, `high`, `p` and `q`, corrected over all rows; `random`, the mean change under random
    neurons.
    """
    rows = []
    for (task, method, x, activated), own in _steered(scores):
        before = _values(scores, task, UNSTEERED, x, "")
        after = _stacked(own)
        row = {"task": task, "method": method, "language": x, "activated": activated}
        row |= {"untouched": before.mean(), "score": after.mean()}
        drawn = _random(scores, task, method, x, activated)
        changed = [float((random - before).mean()) for random in drawn.values()]
        random = float(np.mean(changed)) if changed else np.nan
        rows.append({**row, **_change(after - before), "random": random})
    found = pd.DataFrame(rows)
    return found.assign(q=corrected(found["p"].astype(float)))


def task_summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per task, method and `whose` neurons are added to: `OWN`, or `OTHER`.

    Columns as of `task_cells`, means over the pairs of tested and activated languages, with their
    number, `pairs`; `sets`, how many random sets there are, over draws and activated languages, and
    `ahead`, the change less theirs, with `ahead_p` and `ahead_q`: as if the languages' sets were as
    many more of them, so that the spread of what sets do counts, not items alone.
    """
    pairs: dict[tuple[str, str, str], list[_Pair]] = {}
    for (task, method, x, activated), own in _steered(scores):
        name = task, method, OWN if x == activated else OTHER
        before = _values(scores, task, UNSTEERED, x, "")
        drawn = _random(scores, task, method, x, activated)
        pairs.setdefault(name, []).append(_Pair(activated, _stacked(own), before, drawn))
    rows = []
    for name, of in pairs.items():
        after, before = (np.mean([getattr(p, x) for p in of], axis=0) for x in ("after", "before"))
        row: dict[str, object] = dict(zip(("task", "method", "whose"), name, strict=True))
        row |= {"pairs": len(of), "untouched": before.mean(), "score": after.mean()}
        rows.append({**row, **_change(after - before), **_ahead(of)})
    found = pd.DataFrame(rows)
    for p, q in (("p", "q"), ("ahead_p", "ahead_q")):
        found[q] = corrected(found[p].astype(float))
    return found


@dataclass(frozen=True)
class _Pair:
    """Scores (trainings, items) of one tested and activated language; `drawn`: by draw."""

    activated: str
    after: Array
    before: Array
    drawn: Mapping[int, Array]


def _ahead(pairs: Sequence[_Pair]) -> dict[str, float]:
    """How far a method's sets are from random ones, all pairs having the same draws.

    The variance is that of the items' paired differences, and of what sets do: of the mean changes
    of random sets, each over the pairs that it is in, once for the random sets' mean and once for
    the method's own sets. NaN without two random sets.
    """
    draws = set.intersection(*(set(pair.drawn) for pair in pairs))
    if not draws:
        return {"random": np.nan, "sets": 0, "ahead": np.nan, "ahead_p": np.nan}
    by_set: dict[tuple[str, int], list[float]] = {}
    for pair in pairs:
        for draw in draws:
            changed = float((pair.drawn[draw] - pair.before).mean())
            by_set.setdefault((pair.activated, draw), []).append(changed)
    changes = np.array([np.mean(own) for own in by_set.values()])
    random = np.mean([[pair.drawn[draw] for draw in draws] for pair in pairs], axis=(0, 1))
    apart = np.mean([pair.after for pair in pairs], axis=0) - random
    row = {"random": float(changes.mean()), "sets": len(changes), "ahead": float(apart.mean())}
    if len(changes) < 2:
        return {**row, "ahead_p": np.nan}
    own = len({pair.activated for pair in pairs})
    parts = [(float(changes.var(ddof=1)) * (1 / own + 1 / len(changes)), len(changes) - 1)]
    for axis in (0, 1):
        means = apart.mean(1 - axis)
        if len(means) > 1:
            parts.append((float(means.var(ddof=1)) / len(means), len(means) - 1))
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return {**row, "ahead_p": float(row["ahead"] == 0)}
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return {**row, "ahead_p": float(2 * stats.t.sf(abs(row["ahead"]) / variance**0.5, freedom))}


def translation_summary(corpora: pd.DataFrame) -> pd.DataFrame:
    """One row per method, activated and tested language: `chrf`, `bleu` and `told`, over draws.

    `corpora` is what `task_scores` returns second.
    """
    keys = ["method", "activated", "language"]
    return corpora.groupby(keys, sort=False)[["chrf", "bleu", "told"]].mean().reset_index()


def _change(apart: Array) -> dict[str, float]:
    """How far scores (trainings, items) are from those before."""
    found = _interval(apart)
    return {"change": found.mean, "low": found.low, "high": found.high, "p": found.p}


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


def _steered(scores: pd.DataFrame) -> list[tuple[tuple[str, str, str, str], pd.DataFrame]]:
    """Rows of methods' own sets, by task, method, tested and activated language."""
    groups = of_methods(scores).groupby(["task", "method", "language", "activated"], sort=False)
    return [((str(a), str(b), str(c), str(d)), rows) for (a, b, c, d), rows in groups]


def _values(scores: pd.DataFrame, task: str, method: str, language: str, activated: str) -> Array:
    """Scores, (trainings, items).

    Raises ValueError if there are none.
    """
    rows = _where(scores, task, method, language, activated)
    if rows.empty:
        raise ValueError(
            f"no row of {task}, {method}, {language}, {activated}: the table is not complete; run "
            "python -m crane_lab.cli.steer --parts tasks again"
        )
    return _stacked(rows)


def _random(
    scores: pd.DataFrame, task: str, method: str, language: str, activated: str
) -> dict[int, Array]:
    """Scores of each draw of random neurons, (trainings, items)."""
    rows = _where(scores, task, f"{RANDOM} as {method}", language, activated)
    return {int(str(draw)): _stacked(own) for draw, own in rows.groupby("draw")}


def _where(
    scores: pd.DataFrame, task: str, method: str, language: str, activated: str
) -> pd.DataFrame:
    where = {"task": task, "method": method, "language": language, "activated": activated}
    chosen = np.logical_and.reduce([scores[name] == value for name, value in where.items()])
    return scores[chosen]


def _stacked(rows: pd.DataFrame) -> Array:
    return np.array(rows.sort_values("seed")["scores"].tolist(), float)
