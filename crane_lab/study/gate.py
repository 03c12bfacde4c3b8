"""The gate: what the testbed must show before any method is run on it.

Decided by the unmasked model and by random masks alone, so that no method can influence which
model is shipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm import tqdm

from crane_core.families import shape
from crane_core.masking import masked
from crane_core.neurons import NeuronSet
from crane_lab.engines.multiple_choice import Prepared, accuracies, evaluate

CHANCE = 0.25
ACCURACY = (0.42, 0.88)
FRACTIONS = (0.03, 0.10, 0.30, 0.60)
# Reserved for the gate: Table 1's random baselines never use them.
SEEDS = tuple(range(9000, 9010))
LEVEL = 0.95
# The chat model: how much accuracy tuning may cost, and where unmasked rubric means must lie.
CHAT_LOSS = 0.10
GRADES = {"base": (2.0, 8.0), "chat": (5.0, 9.5)}


def random_neurons(model: Any, fraction: float, seed: int) -> NeuronSet:
    """The same share of intermediate neurons in every layer, at random."""
    shapes = shape(model)
    layers, width = shapes["intermediate"]
    order = torch.rand(layers, width, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return NeuronSet({"intermediate": order < round(fraction * width)}, shapes)


def measure_gate(
    model: Any,
    prepared: Prepared,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = SEEDS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies under no mask and under random masks.

    Returns ``(curve, items)``: ``curve`` has ``fraction, seed, task, accuracy`` (fraction 0, seed
    -1 for the unmasked model); ``items`` the unmasked model's items.
    """
    items = evaluate(model, prepared)
    rows = [(0.0, -1, task, value) for task, value in accuracies(items)["accuracy"].items()]
    with tqdm(total=len(fractions) * len(seeds), desc="random masks", unit="mask") as bar:
        for fraction in fractions:
            for seed in seeds:
                with masked(model, random_neurons(model, fraction, seed)):
                    found = accuracies(evaluate(model, prepared))["accuracy"]
                rows += [(fraction, seed, task, value) for task, value in found.items()]
                bar.update()
    return pd.DataFrame(rows, columns=["fraction", "seed", "task", "accuracy"]), items


@dataclass(frozen=True)
class GateLine:
    """One requirement of the gate: what was required, what was measured, and whether it holds."""

    requirement: str
    measured: str
    holds: bool


def decline(curve: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy per task and fraction, with the half-width of its interval over seeds.

    The interval (Student's t, 95 %) is over random masks; fraction 0 has none.
    """
    grouped = curve.groupby(["task", "fraction"], sort=False)["accuracy"]
    table = grouped.agg(["mean", "std", "count"]).reset_index()
    quantile = stats.t.ppf((1 + LEVEL) / 2, np.maximum(table["count"] - 1, 1))
    table["half_width"] = (quantile * table["std"] / np.sqrt(table["count"])).fillna(0.0)
    return table.drop(columns="std")


def difficulty(items: pd.DataFrame) -> pd.DataFrame:
    """Per task, the share of items by the probability that the model gives the right option.

    The probability is over the item's four options; items below 0.05 count as impossible and those
    above 0.95 as trivial.
    """
    logprobs = items[[f"logprob_{i}" for i in range(4)]].to_numpy()
    probability = np.exp(logprobs - np.logaddexp.reduce(logprobs, axis=1, keepdims=True))
    right = probability[np.arange(len(items)), items["answer"].to_numpy()]
    table = pd.DataFrame(
        {
            "task": items["task"],
            "impossible": right < 0.05,
            "between": (right >= 0.05) & (right <= 0.95),
            "trivial": right > 0.95,
        }
    )
    return table.groupby("task", sort=False).mean().reset_index()


def judge(curve: pd.DataFrame, items: pd.DataFrame) -> list[GateLine]:
    """The gate's requirements against what ``measure_gate`` found."""
    table = decline(curve)
    means = table.pivot(index="task", columns="fraction", values="mean")
    widths = table.pivot(index="task", columns="fraction", values="half_width")
    start = means[0.0]
    low, high = ACCURACY
    verdicts = [
        GateLine(
            f"every accuracy between {low} and {high}",
            ", ".join(f"{task} {value:.3f}" for task, value in start.items()),
            bool(start.between(low, high).all()),
        )
    ]
    rises, margins = means.diff(axis=1), widths + widths.shift(axis=1, fill_value=0.0)
    excess = (rises - margins).iloc[:, 1:]
    verdicts.append(
        GateLine(
            "random masks of growing size never raise a task's mean accuracy beyond its interval",
            f"largest rise {rises.iloc[:, 1:].max().max():+.3f}",
            bool((excess <= 0).all().all()),
        )
    )
    last = means.columns[-1]
    verdicts.append(
        GateLine(
            f"{last:.0%} masked is nearer to chance than unmasked, for every task",
            ", ".join(f"{task} {value:.3f}" for task, value in means[last].items()),
            bool(((means[last] - CHANCE).abs() < (start - CHANCE).abs()).all()),
        )
    )
    drops = means.rsub(start, axis=0)
    verdicts.append(
        GateLine(
            "3 % masked costs at most 3 points, for every task",
            f"largest cost {100 * drops[0.03].max():.1f} points",
            bool((drops[0.03] <= 0.03).all()),
        )
    )
    verdicts.append(
        GateLine(
            "30 % masked costs at least 3 points on average",
            f"mean cost {100 * drops[0.30].mean():.1f} points",
            bool(drops[0.30].mean() >= 0.03),
        )
    )
    between = difficulty(items).set_index("task")["between"]
    verdicts.append(
        GateLine(
            "at least a third of every task's items are neither trivial nor impossible",
            ", ".join(f"{task} {value:.2f}" for task, value in between.items()),
            bool((between >= 1 / 3).all()),
        )
    )
    return verdicts


def judge_chat(unmasked: pd.DataFrame) -> list[GateLine]:
    """The chat model's requirements, and the base model's in open-ended answers.

    ``unmasked`` has ``measure`` (a task or ``open_<language>``), ``base`` and ``chat``: accuracies
    of the tasks, mean rubric scores of the open questions.
    """
    table = unmasked.set_index("measure")
    is_open = table.index.str.startswith("open_")
    change = (table["chat"] - table["base"])[~is_open]
    verdicts = [
        GateLine(
            f"the chat model's accuracies: at most {CHAT_LOSS:.2f} below the base model's",
            ", ".join(f"{task} {value:+.3f}" for task, value in change.items()),
            bool((change >= -CHAT_LOSS).all()),
        )
    ]
    for name, (low, high) in GRADES.items():
        means = table.loc[is_open, name]
        verdicts.append(
            GateLine(
                f"the {name} model's mean rubric scores are between {low:g} and {high:g}",
                ", ".join(f"{task} {value:.2f}" for task, value in means.items()),
                bool(means.between(low, high).all()),
            )
        )
    return verdicts
