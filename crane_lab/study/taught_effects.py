"""What interventions and chosen neurons do to a task that was learned in English (`taught`).

An effect is a change from the same training without it: of activations, from the same tuned model
untouched; of weights, from attention tuned alone under the same seed. Its interval is over
trainings and items alike (`crossed_interval`). Where it lies among random sets of the same size in
every layer, each averaged over the same trainings, stands beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from crane_lab.stages.standing import held_against
from crane_lab.study.taught import RANDOM

Array = NDArray[np.float64]
_RANDOM_AS = f"{RANDOM} as "
_KEYS = ["method", "of", "set_to", "language"]
#: Outcomes of one training's items, by seed.
_Trainings = Mapping[int, Array]


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
    Benjamini and Hochberg), for qa `f1_change` (mean), and the columns of `standing.held_against`,
    corrected over the rows that have random sets beside them.
    """
    right = _outcomes(table)
    f1 = _outcomes(table, "f1") if "f1" in table else {}
    chosen, random = _split(table)
    rows, nulls = [], []
    for keys, found in chosen.groupby(_KEYS, sort=False):
        method, of, set_to, language = keys
        own = right[(method, of, -1, set_to, language)]
        before = _before(right, method, of, -1, set_to, language)
        change = crossed_interval(_difference(own, before))
        row: dict[Hashable, object] = {
            **dict(zip(_KEYS, keys, strict=True)),
            "n_neurons": int(found["n_neurons"].iloc[0]),
            "seeds": len(own),
            "score": found["score"].mean(),
            "change": change.mean,
            "low": change.low,
            "high": change.high,
            "p_change": change.p,
        }
        if "f1" in table:
            before = _before(f1, method, of, -1, set_to, language)
            changes = _difference(f1[(method, of, -1, set_to, language)], before)
            row["f1_change"] = changes.mean()
        rows.append(row)
        same = random[
            (random["method"] == f"{_RANDOM_AS}{method}")
            & (random[_KEYS[1:]] == (of, set_to, language)).all(axis=1)
        ]
        drawn = [
            _difference(
                right[(f"{_RANDOM_AS}{method}", of, draw, set_to, language)],
                _before(right, f"{_RANDOM_AS}{method}", of, draw, set_to, language),
            ).mean()
            for draw in dict.fromkeys(same["draw"])
        ]
        nulls.append(np.array(drawn, float))
    effects = pd.DataFrame(rows)
    if effects.empty:
        return effects
    effects["q_change"] = _corrected(effects["p_change"])
    return pd.concat([effects, held_against(effects["change"].to_list(), nulls)], axis=1)


def taught_contrast(table: pd.DataFrame, value: str, other: str) -> pd.DataFrame:
    """What neurons set to one value do to a task more than set to another, paired.

    One row per `method`, `of` and `language` that has both: `difference` in the share right, first
    less second, with `low`, `high`, `p` and `q` (corrected over the rows).
    """
    right = _outcomes(table)
    rows = []
    for (method, of, draw, set_to, language), own in right.items():
        second = right.get((method, of, draw, other, language))
        if set_to == value and second is not None and draw == -1:
            about = {"method": method, "of": of, "language": language}
            rows.append({**about, **_compared(own, second)})
    names = ["method", "of", "language", "difference", "low", "high", "p"]
    found = pd.DataFrame(rows, columns=names)
    return found.assign(q=_corrected(found["p"]))


def taught_beside_random(table: pd.DataFrame) -> pd.DataFrame:
    """How tuned sets compare with random ones that were tuned likewise, in the same trainings.

    One row per `method`, `of` and `language` that has random sets: `draws`, `difference` in the
    share right from their mean, with `low`, `high`, `p` (`beside_draws`) and `q` (corrected over
    the rows), and `random_low`, `random_high`, the range over draws of one's difference from that
    mean. Items are the same for all; they are not drawn anew.
    """
    right = _outcomes(table)
    rows = []
    for (method, of, draw, set_to, language), own in right.items():
        if draw != -1 or set_to:
            continue
        random = [
            found
            for (other, of_, _, value, x), found in right.items()
            if (other, of_, value, x) == (f"{_RANDOM_AS}{method}", of, "", language)
        ]
        seeds = sorted(set(own).intersection(*random)) if random else []
        if not seeds:
            continue
        shares = np.array([[found[seed].mean() for found in random] for seed in seeds])
        apart = np.array([own[seed].mean() for seed in seeds])[:, None] - shares
        mean, low, high, p = beside_draws(apart)
        by_draw = shares.mean(0) - shares.mean()
        rows.append(
            {
                **{"method": method, "of": of, "language": language, "draws": len(random)},
                **{"difference": mean, "low": low, "high": high, "p": p},
                **{"random_low": by_draw.min(), "random_high": by_draw.max()},
            }
        )
    found = pd.DataFrame(rows)
    return found.assign(q=_corrected(found["p"])) if rows else found


def right_by_people(table: pd.DataFrame, kinds: int = 3) -> pd.DataFrame:
    """How often `qa` is right untouched by how many people the story has, by language.

    One row per language and number of `people`, which are in turn in the items: `right` (share,
    mean over trainings) and `fitting`, what picking any of the words that fit would get.
    """
    rows = []
    for (method, _, _, set_to, language), own in _outcomes(table).items():
        if method != "none" or set_to:
            continue
        every = np.stack(list(own.values()))
        for people in range(1, kinds + 1):
            share = every[:, people - 1 :: kinds].mean()
            rows.append(
                {"language": language, "people": people, "right": share, "fitting": 1 / people}
            )
    return pd.DataFrame(rows)


def taught_levels(table: pd.DataFrame, floor: float = 0.0) -> pd.DataFrame:
    """How well the task is done without any intervention or neuron, by language.

    One row per language: `score` (share right, mean) with `low` and `high`, `seeds`, `floor`, what
    a model that does nothing sensible gets, and `above`: whether the interval lies above it, so
    that there is something to lose.
    """
    rows = []
    for (method, _, _, set_to, language), own in _outcomes(table).items():
        if method == "none" and not set_to:
            every = np.stack(list(own.values()))
            mean, low, high, _ = crossed_interval(every)
            rows.append(
                {
                    **{"language": language, "score": mean, "low": low, "high": high},
                    **{"seeds": len(own), "floor": floor, "above": low > floor},
                }
            )
    return pd.DataFrame(rows)


def _outcomes(
    table: pd.DataFrame, column: str = "right"
) -> dict[tuple[Hashable, ...], dict[int, Array]]:
    """(method, of, draw, set_to, language) -> seed -> zeros and ones of the items, or mean F1."""
    found: dict[tuple[Hashable, ...], dict[int, Array]] = {}
    for row in table.to_dict("records"):
        key = tuple(row[name] for name in ("method", "of", "draw", "set_to", "language"))
        value = row[column]
        items = list(map(float, value)) if isinstance(value, str) else [float(value)]
        found.setdefault(key, {})[int(row["seed"])] = np.array(items)
    return found


def _before(
    right: Mapping[tuple[Hashable, ...], _Trainings],
    method: Hashable,
    of: Hashable,
    draw: Hashable,
    set_to: Hashable,
    language: Hashable,
) -> _Trainings:
    """The same training untouched; where nothing is set, attention's alone."""
    untouched = right.get((method, of, draw, "", language)) if set_to else None
    return right[("none", "", -1, "", language)] if untouched is None else untouched


def _difference(own: _Trainings, before: _Trainings) -> Array:
    """(trainings, items), of the seeds that both have."""
    return np.stack([own[seed] - before[seed] for seed in sorted(set(own) & set(before))])


def _compared(own: _Trainings, other: _Trainings) -> dict[str, float]:
    found = crossed_interval(_difference(own, other))
    return {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}


def _corrected(p: pd.Series) -> pd.Series:
    """P-values corrected by Benjamini and Hochberg; NaN stays."""
    known = p.notna()
    q = pd.Series(np.nan, p.index)
    if known.any():
        q[known] = stats.false_discovery_control(p[known].to_numpy(float))
    return q


def _split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of methods, and of random sets."""
    random = table["method"].str.startswith(_RANDOM_AS)
    return table[~random & (table["method"] != "none")], table[random]
