"""What masking a candidate's neurons does, budget by budget, and its figure of merit.

For a language and a budget, a share of all neurons, the *difference* is what masking adds to the
language's own held-out loss, less the most that it adds to another's: nats per token. Its mean over
budgets, on a logarithmic scale, is the figure of merit. A second one asks for little harm: the most
that is added to the own loss by a budget at which no other language loses more than `HARM`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from crane_core.baselines import random_matched
from crane_core.interventions import zero
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.stages.standing import held_against, own_less_others
from crane_lab.study.candidates import Candidate, candidate_scores, ordered, statistics_of
from crane_lab.study.nulls import null_inputs

#: Another language's loss that counts as little, nats per token.
HARM = 0.1
#: Seeds of random masks start here; none of them is another study's.
FIRST_SEED = 20_000
Array = NDArray[np.float64]
#: (candidate, language, share of neurons) -> the set.
Sets = Mapping[tuple[str, str, float], NeuronSet]
#: The same, or a random mask's number besides -> language of the text -> added loss by window.
Changes = Mapping[Any, Mapping[str, Array]]


def candidate_inputs(pipeline: Pipeline, kind: str = "losses") -> dict[str, Any]:
    """What candidates' sets are found on, and what masking them is measured on, for records."""
    s = pipeline.settings
    read = {"read": pipeline.corpus.fingerprint(s.languages), "n_samples": s.n_samples}
    return {**null_inputs(pipeline, kind), **read}


def candidate_sets(
    pipeline: Pipeline,
    candidates: Sequence[Candidate],
    shares: Sequence[float],
    languages: Sequence[str] | None = None,
) -> dict[tuple[str, str, float], NeuronSet]:
    """Every candidate's neurons of every language by budget, chosen among all of the pipeline's.

    Raises ValueError for a share that is not above 0 and at most 1.
    """
    if bad := [share for share in shares if not 0 < share <= 1]:
        raise ValueError(f"budget {bad[0]} of all neurons: expected a share above 0, at most 1")
    size = pipeline.shape["intermediate"]
    statistics = statistics_of(pipeline, [one.statistic for one in candidates])
    found = {}
    for one in candidates:
        for x, score in candidate_scores(one, statistics).items():
            if languages is not None and x not in languages:
                continue
            chosen = ordered(one, score)
            for share in shares:
                n = max(1, round(share * size[0] * size[1]))
                found[one.name, x, share] = NeuronSet.from_flat(chosen[:n], size)
    return found


def changes_of(pipeline: Pipeline, sets: Mapping[Any, NeuronSet]) -> dict[Any, dict[str, Array]]:
    """What zeroing each set adds to the loss of every held-out window, by language of the text.

    Kept in the store set by set, so that an interrupted run goes on where it stopped.
    """
    before = pipeline.losses()
    bar = tqdm(sets.values(), desc="masking sets", unit="set")
    runs = (partial(pipeline.losses, zero(own)) for own in bar)
    return {
        key: {x: (own - before[x]).double().numpy() for x, own in after.items()}
        for key, after in zip(sets, pipeline.store.together(runs), strict=True)
    }


def differences(changes: Changes, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row per candidate, language and share: `own`, `other` (which: `other_language`).

    `difference` of the two with `low` and `high`, 95 % over windows, resampled within each
    language; which language is hit most besides is decided in each resample anew.
    """
    rows, weights = [], _resampled(changes, n_boot, seed)
    for (name, x, share), of in changes.items():
        drawn = _difference(of, x, weights)
        others = {y: float(own.mean()) for y, own in of.items() if y != x}
        worst = max(others, key=lambda y: others[y])
        low, high = np.quantile(drawn, [0.025, 0.975])
        own = float(of[x].mean())
        rows.append(
            {
                **{"candidate": name, "language": x, "share": share, "own": own},
                **{"other": others[worst], "other_language": worst},
                **{"difference": own - others[worst], "low": low, "high": high},
            }
        )
    return pd.DataFrame(rows)


def merits(changes: Changes, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The figure of merit of each candidate, by language and as the mean over languages ("all").

    `merit` with `low` and `high` (95 % over windows), and `little_harm`, the second figure: the
    most that is added to the own loss where no other loses more than `HARM`, 0 if there is no such
    budget. Raises ValueError for one budget alone, over which there is no mean.
    """
    shares = sorted({share for *_, share in changes})
    if len(shares) < 2:
        raise ValueError(f"budgets {shares}: expected two or more, to take a mean over them")
    rows, weights = [], _resampled(changes, n_boot, seed)
    for name in dict.fromkeys(key[0] for key in changes):
        drawn: dict[str, Array] = {}
        found: dict[str, tuple[float, float]] = {}
        for x in dict.fromkeys(key[1] for key in changes if key[0] == name):
            curve, resampled, little = [], [], 0.0
            for share in shares:
                of = changes[name, x, share]
                own = float(of[x].mean())
                other = max(float(v.mean()) for y, v in of.items() if y != x)
                curve.append(own - other)
                little = max(little, own) if other <= HARM else little
                resampled.append(_difference(of, x, weights))
            found[x] = over_budgets(shares, np.array(curve)[:, None]).item(), little
            drawn[x] = over_budgets(shares, np.stack(resampled))
        for x, (merit, little) in {
            **found,
            "all": (
                float(np.mean([merit for merit, _ in found.values()])),
                float(np.mean([little for _, little in found.values()])),
            ),
        }.items():
            own_drawn = drawn[x] if x in drawn else np.mean(list(drawn.values()), axis=0)
            low, high = np.quantile(own_drawn, [0.025, 0.975])
            row = {"candidate": name, "language": x, "merit": merit, "low": low, "high": high}
            rows.append({**row, "little_harm": little})
    return pd.DataFrame(rows)


def over_budgets(shares: Sequence[float], curve: Array) -> Array:
    """The mean of (budgets, …) over the logarithm of the budget, straight lines between them."""
    at = np.log(np.asarray(shares, float))
    found: Array = np.trapezoid(curve, at, axis=0) / (at[-1] - at[0])
    return found


def random_sets(sets: Sets, draws: int) -> dict[tuple[str, str, float, int], NeuronSet]:
    """Random masks of each set, as many neurons in every layer, by its key and their number."""
    return {
        (*key, draw): random_matched(own, FIRST_SEED + draw)
        for key, own in sets.items()
        for draw in range(draws)
    }


def in_nulls(
    pipeline: Pipeline, sets: Sets, changes: Changes, draws: int
) -> tuple[pd.DataFrame, dict[Any, dict[str, Array]]]:
    """Where sets' differences lie among random masks, as many neurons in every layer.

    One row per set, with `standing.held_against`'s columns of the difference, corrected over them;
    and what the random masks add, by the set's key and the mask's number.
    """
    added = changes_of(pipeline, random_sets(sets, draws))
    rows, nulls, values = [], [], []
    for name, x, share in sets:
        masks = pd.DataFrame(
            [
                {y: own.mean() for y, own in added[name, x, share, draw].items()}
                for draw in range(draws)
            ]
        )
        rows.append({"candidate": name, "language": x, "share": share})
        values.append(_lead(changes[name, x, share], x))
        nulls.append(own_less_others(masks, x, [str(y) for y in masks]))
    found = held_against(values, nulls)
    return pd.concat([pd.DataFrame(rows).assign(difference=values), found], axis=1), added


def merits_in_nulls(pipeline: Pipeline, sets: Sets, changes: Changes, draws: int) -> pd.DataFrame:
    """Where the figure of merit of each candidate lies among random masks, language by language.

    The `draw`th random masks of all of a candidate's budgets give one random figure. One row per
    candidate and language: `merit`, and `standing.held_against`'s columns, corrected over them.
    """
    added = changes_of(pipeline, random_sets(sets, draws))
    shares = sorted({share for *_, share in sets})
    rows, nulls = [], []
    for name, x in dict.fromkeys((name, x) for name, x, _ in sets):
        own = [_lead(changes[name, x, share], x) for share in shares]
        random = [[_lead(added[name, x, share, i], x) for i in range(draws)] for share in shares]
        value = over_budgets(shares, np.array(own)[:, None]).item()
        rows.append({"candidate": name, "language": x, "merit": value})
        nulls.append(over_budgets(shares, np.array(random)))
    found = pd.DataFrame(rows)
    return pd.concat([found, held_against(found["merit"].to_list(), nulls)], axis=1)


def _lead(of: Mapping[str, Array], target: str) -> float:
    """A mask's difference in the mean over windows."""
    alone = pd.DataFrame([{y: own.mean() for y, own in of.items()}])
    return float(own_less_others(alone, target, list(of))[0])


def _resampled(changes: Changes, n_boot: int, seed: int) -> dict[str, Array]:
    """How often each window is drawn in each resample, as weights: language -> (windows, boots).

    The same for all of `changes`, which are of the same windows.
    """
    rng, of = np.random.default_rng(seed), next(iter(changes.values()))
    return {
        x: rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n_boot).T / len(own)
        for x, own in of.items()
    }


def _difference(of: Mapping[str, Array], target: str, weights: Mapping[str, Array]) -> Array:
    means = {x: own @ weights[x] for x, own in of.items()}
    others = np.max([mean for x, mean in means.items() if x != target], axis=0)
    found: Array = means[target] - others
    return found
