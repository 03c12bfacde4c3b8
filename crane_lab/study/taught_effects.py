"""What interventions and chosen neurons do to a task that was learned in English (`taught`).

An effect is a change from the same training without it: of activations, from the same tuned model
untouched; of weights, from attention tuned alone under the same seed. Its interval is over
trainings and items alike (`crossed_interval`). Where it lies among random sets of the same size in
every layer, each averaged over the same trainings, stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from crane_lab.stages.standing import corrected, held_against
from crane_lab.study.activations import written_name
from crane_lab.study.taught import RANDOM
from crane_lab.testbed.unseen import LABELS, unseen_items

Array = NDArray[np.float64]
_RANDOM_AS = f"{RANDOM} as "
#: Outcomes of one training's items, by seed.
_Trainings = Mapping[int, Array]


class _Row(NamedTuple):
    """Whose neurons, what is done to them, and in which language is asked."""

    method: str
    of: str
    draw: int
    set_to: str
    language: str


_Outcomes = Mapping[_Row, _Trainings]


class Crossed(NamedTuple):
    """A mean over trainings and items, its 95 % interval, and the p-value of zero."""

    mean: float
    low: float
    high: float
    p: float


def crossed_interval(values: Array) -> Crossed:
    """Mean of (trainings, items) and its interval for other trainings and other items.

    Variances of the trainings' and of the items' means add up (an upper bound, since both hold what
    is left over), and degrees of freedom are Satterthwaite's. NaN for a single training or item.
    """
    parts = []
    for axis in (1, 0):
        means = values.mean(axis)
        parts.append((means.var(ddof=1) / len(means) if len(means) > 1 else np.nan, len(means) - 1))
    mean, variance = float(values.mean()), sum(part for part, _ in parts)
    if not variance > 0:  # nothing changed anywhere, or a single training
        return Crossed(mean, mean + variance, mean + variance, float(mean == 0) + variance)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = float(stats.t.ppf(0.975, freedom) * np.sqrt(variance))
    p = float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))
    return Crossed(mean, mean - error, mean + error, p)


def beside_draws(apart: Array) -> Crossed:
    """How a set differs from random ones, (trainings, draws): mean, interval, p-value.

    The set is held against *one more* draw: were it a random one, too, its distance from the mean
    of D draws would have 1 + 1/D times the draws' variance. To that comes the trainings' variance;
    degrees of freedom are the fewer of both. NaN for a single training or draw.
    """
    trainings, draws = apart.shape
    mean = float(apart.mean())
    if trainings < 2 or draws < 2:
        return Crossed(mean, np.nan, np.nan, np.nan)
    variance = apart.mean(0).var(ddof=1) * (1 + 1 / draws)
    variance += apart.mean(1).var(ddof=1) / trainings
    if not variance:
        return Crossed(mean, mean, mean, float(mean == 0))
    freedom = min(trainings, draws) - 1
    error = float(stats.t.ppf(0.975, freedom) * np.sqrt(variance))
    p = float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))
    return Crossed(mean, mean - error, mean + error, p)


def taught_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Every method's effect by the language asked, and where random sets have theirs.

    Parameters
    ----------
    table : as `taught.read_taught` gives it, of one part and task.

    Returns
    -------
    One row per `method`, `of`, `set_to` and `language`: `n_neurons`, `seeds`, `score` (share right,
    mean), `change` with `low`, `high`, `p_change` and `q_change` (corrected over the rows by
    Benjamini and Hochberg), for qa `f1_change` (mean), `random`, the mean change of `draws` random
    sets to which the same is done, and the columns of `standing.held_against`, corrected over the
    rows that have random sets beside them and are tuned or at zero. At other values there are too
    few of these to count (`taught_beside_random`).
    """
    right = _outcomes(table)
    f1 = _outcomes(table, "f1") if "f1" in table else {}
    n_neurons = dict(zip(_rows(table), table["n_neurons"], strict=True))
    rows, nulls = [], []
    for row, own in right.items():
        if row.method == "none" or row.draw != -1:
            continue
        change = crossed_interval(_difference(own, _before(right, row)))
        found: dict[str, object] = {
            **{"method": row.method, "of": row.of, "set_to": row.set_to},
            **{"language": row.language, "n_neurons": int(n_neurons[row]), "seeds": len(own)},
            "score": np.mean([items.mean() for items in own.values()]),
            "change": change.mean,
            "low": change.low,
            "high": change.high,
            "p_change": change.p,
        }
        if f1:
            found["f1_change"] = _difference(f1[row], _before(f1, row)).mean()
        drawn = np.array(
            [_difference(right[one], _before(right, one)).mean() for one in _draws(right, row)]
        )
        found |= {"draws": len(drawn), "random": drawn.mean() if len(drawn) else np.nan}
        rows.append(found)
        nulls.append(drawn if row.set_to in ("", written_name(None)) else drawn[:0])
    effects = pd.DataFrame(rows)
    if effects.empty:
        return effects
    effects["q_change"] = corrected(effects["p_change"])
    return pd.concat([effects, held_against(effects["change"].to_list(), nulls)], axis=1)


def taught_contrast(table: pd.DataFrame, value: str, other: str) -> pd.DataFrame:
    """What neurons set to one value do to a task more than set to another, paired.

    One row per `method`, `of` and `language` that has both: `difference` in the share right, first
    less second, with `low`, `high`, `p` and `q` (corrected over the rows).
    """
    right = _outcomes(table)
    rows = []
    for row, own in right.items():
        second = right.get(row._replace(set_to=other))
        if row.set_to == value and second is not None and row.draw == -1:
            mean, low, high, p = crossed_interval(_difference(own, second))
            about = {"method": row.method, "of": row.of, "language": row.language}
            rows.append({**about, "difference": mean, "low": low, "high": high, "p": p})
    names = ["method", "of", "language", "difference", "low", "high", "p"]
    found = pd.DataFrame(rows, columns=names)
    return found.assign(q=corrected(found["p"]))


def taught_beside_random(table: pd.DataFrame) -> pd.DataFrame:
    """How sets compare with random ones that were tuned, or set, likewise, in the same trainings.

    One row per `method`, `of`, `set_to` and `language` that has random sets: `draws`, `difference`
    in the share right from their mean, with `low`, `high`, `p` (`beside_draws`) and `q` (corrected
    over the rows), and `random_low`, `random_high`, the range over draws of one's difference from
    that mean. Items are the same for all; they are not drawn anew.
    """
    right = _outcomes(table)
    rows = []
    for row, own in right.items():
        if row.draw != -1:
            continue
        random = [right[one] for one in _draws(right, row)]
        seeds = sorted(set(own).intersection(*random)) if random else []
        if not seeds:
            continue
        shares = np.array([[found[seed].mean() for found in random] for seed in seeds])
        apart = np.array([own[seed].mean() for seed in seeds])[:, None] - shares
        mean, low, high, p = beside_draws(apart)
        by_draw = shares.mean(0) - shares.mean()
        rows.append(
            {
                **{"method": row.method, "of": row.of, "set_to": row.set_to},
                **{"language": row.language, "draws": len(random)},
                **{"difference": mean, "low": low, "high": high, "p": p},
                **{"random_low": by_draw.min(), "random_high": by_draw.max()},
            }
        )
    found = pd.DataFrame(rows)
    return found.assign(q=corrected(found["p"])) if rows else found


def right_by_people(table: pd.DataFrame, kinds: int = 3) -> pd.DataFrame:
    """How often `qa` is right untouched by how many people the story has, by language.

    One row per language and number of `people`, which are in turn in the items: `right` (share,
    mean over trainings) and `fitting`, what picking any of the words that fit would get.
    """
    rows = []
    for x, own in _untouched(table):
        every = np.stack(list(own.values()))
        for people in range(1, kinds + 1):
            share = every[:, people - 1 :: kinds].mean()
            rows.append({"language": x, "people": people, "right": share, "fitting": 1 / people})
    return pd.DataFrame(rows)


def taught_levels(table: pd.DataFrame, floor: float = 0.0) -> pd.DataFrame:
    """How well the task is done without any intervention or neuron, by language.

    One row per language: `score` (share right, mean) with `low` and `high`, `seeds`, `floor`, what
    a model that does nothing sensible gets, and `above`: whether the interval lies above it, so
    that there is something to lose; `f1`, the mean, of answers that can be right in part, else NaN.
    """
    f1 = dict(_untouched(table, "f1")) if "f1" in table else {}
    rows = []
    for x, own in _untouched(table):
        mean, low, high, _ = crossed_interval(np.stack(list(own.values())))
        level = {"language": x, "score": mean, "low": low, "high": high, "seeds": len(own)}
        level["f1"] = float(np.mean(list(f1[x].values()))) if f1 else np.nan
        rows.append({**level, "floor": floor, "above": low > floor})
    return pd.DataFrame(rows)


def floor_of(task: str, table: pd.DataFrame) -> float:
    """What a model gets that does nothing sensible with the items that were asked.

    Of `nli` that is the share of their most common label (a third only of a whole part), of `qa` 0.
    """
    if task != "nli":
        return 0.0
    asked = _labels(len(str(table["right"].iloc[0])))
    return float(np.bincount(asked).max() / len(asked))


def right_by_label(table: pd.DataFrame) -> pd.DataFrame:
    """How often items of each label of `nli` are right untouched, by language and training.

    One row per language, `seed` and `label`: `items` and `right` (share).
    """
    rows = []
    for x, own in _untouched(table):
        for seed, right in own.items():
            labels = _labels(len(right))
            rows += [
                {"language": x, "seed": seed, "label": name, "items": int((labels == number).sum())}
                | {"right": float(right[labels == number].mean())}
                for number, name in enumerate(LABELS)
                if (labels == number).any()
            ]
    return pd.DataFrame(rows)


def _labels(n: int) -> NDArray[np.int64]:
    """Of the first test items of `nli`, the same in every language."""
    items = next(iter(unseen_items("nli", "test").values()))
    return np.array([int(item["label"]) for item in items[:n]])


def _rows(table: pd.DataFrame) -> list[_Row]:
    return [_Row(*row) for row in table[list(_Row._fields)].itertuples(index=False, name=None)]


def _outcomes(table: pd.DataFrame, column: str = "right") -> dict[_Row, dict[int, Array]]:
    """Zeros and ones of the items, or mean F1: row -> seed -> values."""
    found: dict[_Row, dict[int, Array]] = {}
    for row, seed, value in zip(_rows(table), table["seed"], table[column], strict=True):
        items = list(map(float, value)) if isinstance(value, str) else [float(value)]
        found.setdefault(row, {})[int(seed)] = np.array(items)
    return found


def _untouched(table: pd.DataFrame, column: str = "right") -> list[tuple[str, _Trainings]]:
    """Without any intervention or neuron, by language."""
    every = _outcomes(table, column).items()
    return [(row.language, own) for row, own in every if row.method == "none"]


def _draws(right: _Outcomes, row: _Row) -> list[_Row]:
    """The random sets beside a row."""
    method = f"{_RANDOM_AS}{row.method}"
    return [one for one in right if one._replace(draw=-1) == row._replace(method=method)]


def _before(right: _Outcomes, row: _Row) -> _Trainings:
    """The same training untouched; where nothing is set, attention's alone."""
    untouched = right.get(row._replace(set_to="")) if row.set_to else None
    return right[_Row("none", "", -1, "", row.language)] if untouched is None else untouched


def _difference(own: _Trainings, before: _Trainings) -> Array:
    """(trainings, items), of the seeds that both have."""
    return np.stack([own[seed] - before[seed] for seed in sorted(set(own) & set(before))])
