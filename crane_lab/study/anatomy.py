"""Why a criterion finds what it finds: its sets taken apart with single ablations.

Every neuron of a small model has been ablated alone (`necessity`). So it can be said what the
neurons of a set do one by one and together, to its own language and to others; how far sets made of
measured effects come; how well ways to trace a prediction back to neurons foresee ablations; and
how many windows of text a criterion needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crane_core.attribution import neuron_relevance
from crane_core.neurons import NeuronSet, jaccard
from crane_lab.pipeline import Pipeline
from crane_lab.store.grown import is_made, shipped_file, write_made
from crane_lab.study import damage
from crane_lab.study.candidates import (
    BASELINES,
    FEW,
    Candidate,
    candidate_scores,
    ordered,
    statistics_of,
)
from crane_lab.study.criteria import (
    Score,
    Texts,
    contrasted,
    gradient_x_activation,
    order,
    rank_agreement,
)
from crane_lab.study.integrated import integrated_gradients
from crane_lab.study.merit import candidate_inputs
from crane_lab.study.necessity import Necessity

SETS, ESTIMATES, NEEDED = (f"anatomy_{name}.csv" for name in ("sets", "estimates", "windows"))
#: (candidate, language, seed; -1 for none) -> places in the flattened (layers, neurons).
Orders = dict[tuple[str, str, int], Tensor]
#: Mean |relevance| without a contrast, less every neuron that comes earlier in another language.
PRUNED = "mean_abs, overlaps pruned"
#: The same, pruned greedily: languages take turns, each the first of its order that is still there.
IN_TURNS = "mean_abs, taken in turns"
#: Mean activation × plain gradient of the next token's log-probability: what the loss loses to
#: first order when the neuron is zero. Tried after the plan in `data/criterion` had been set down.
FIRST_ORDER = "first-order loss, difference"
#: A neuron matters elsewhere if its effect on another language is among this share of all.
MUCH = 0.1
#: What relevance is called among the ways to trace a prediction back to neurons.
ATTNLRP = "AttnLRP"
OBJECTIVES = ("next_token", "next_token_logprob")


#: Criteria that are given fewer windows.
FED = (
    *BASELINES[:2],
    *(Candidate(name, "difference") for name in ("mean_abs", "signed_mean")),
    Candidate("mean_abs", "relative"),
)


@dataclass(frozen=True)
class AnatomyPlan:
    """What is taken apart.

    Attributes
    ----------
    shares : budgets as shares of all neurons; `beside`, one of them, is that of the windows' sets.
    n_estimates, steps : windows per language that estimators are compared on, and the steps of
        integrated gradients.
    windows, seeds : how many windows per language the criteria `fed` are given, by which seeds.
    n_necessity, n_damage : held-out windows per language behind the single ablations that are read,
        and further ones that sets are masked on.

    Raises ValueError if `beside` is none of the shares.
    """

    candidates: Sequence[Candidate] = FEW
    shares: Sequence[float] = (0.001, 0.005, 0.02, 0.1)
    beside: float = 0.02
    n_estimates: int = 64
    steps: int = 16
    windows: Sequence[int] = (30, 100, 300, 1000)
    seeds: Sequence[int] = (1, 2, 3)
    fed: Sequence[Candidate] = FED

    n_necessity: int = 128
    n_damage: int = 64

    def __post_init__(self) -> None:
        if self.beside not in self.shares:
            raise ValueError(
                f"budget {self.beside} of the sets by windows: expected one of {list(self.shares)}"
            )


def ship_anatomy(
    pipeline: Pipeline, plan: AnatomyPlan, folder: str | Path, necessity_data: str | Path
) -> None:
    """Write `SETS`, `ESTIMATES` and `NEEDED` to a folder, each with its record.

    Single ablations are read from `necessity_data`. What masks do is kept in the store.
    Raises FileNotFoundError, or ValueError, if there are none or of another model.
    """
    folder = Path(folder)
    texts, others = damage.held_out(pipeline, plan.n_necessity, plan.n_damage)
    gold = damage.gold_standard(pipeline, texts, necessity_data)
    about: dict[str, Any] = {
        **candidate_inputs(pipeline),
        "n_necessity": plan.n_necessity,
        "n_damage": plan.n_damage,
    }
    folder.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {**about, "n_estimates": plan.n_estimates, "steps": plan.steps}
    if not is_made(folder / ESTIMATES, how):
        found = estimates(pipeline, gold.necessity, plan)
        write_made(found.round(6), folder / ESTIMATES, how)
    orders = anatomy_orders(pipeline, plan.candidates, gold)
    how = {**about, "shares": list(plan.shares), "orders": sorted({name for name, *_ in orders})}
    if not is_made(folder / SETS, how):
        found = sets_apart(pipeline, orders, gold.necessity, others, plan.shares)
        write_made(found.round(6), folder / SETS, how)
    how = {"windows": list(plan.windows), "seeds": list(plan.seeds), "share": plan.beside}
    if not is_made(folder / NEEDED, {**about, **how}):
        found = windows_needed(pipeline, plan, others)
        write_made(found.round(6), folder / NEEDED, {**about, **how})


def read_anatomy(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The tables that `ship_anatomy` wrote, by file name; FileNotFoundError without one."""
    made_by = "crane_lab.cli.criterion --why"
    return {
        name: pd.read_csv(shipped_file(folder, name, "criteria taken apart", made_by))
        for name in (SETS, ESTIMATES, NEEDED)
    }


# ---------------------------------------------------------------------------- sets, taken apart


def anatomy_orders(
    pipeline: Pipeline, candidates: Sequence[Candidate], gold: damage.GoldStandard
) -> Orders:
    """Candidates' orders, and beside them those of `damage.orders_of` (measured effects), `PRUNED`,
    `IN_TURNS` and `FIRST_ORDER`."""
    found = _orders(pipeline, candidates)
    loss = gradient_x_activation(pipeline.changed(objective=OBJECTIVES[1]), "signed_mean")
    found |= {(FIRST_ORDER, x, -1): order(score) for x, score in contrasted(loss).items()}
    amounts = statistics_of(pipeline, ["mean_abs"])["mean_abs"]
    found |= {(PRUNED, x, -1): order(score) for x, score in pruned(amounts).items()}
    found |= {(IN_TURNS, x, -1): own for x, own in taken_in_turns(amounts).items()}
    return found | damage.orders_of(pipeline, {}, gold, ())


def _orders(pipeline: Pipeline, candidates: Sequence[Candidate], seed: int = -1) -> Orders:
    statistics = statistics_of(pipeline, [one.statistic for one in candidates])
    return {
        (one.name, x, seed): ordered(one, score)
        for one in candidates
        for x, score in candidate_scores(one, statistics).items()
    }


def pruned(scores: Score) -> dict[str, Tensor]:
    """Minus a neuron's place in its language's order, and the lowest of all where another
    language has it earlier: overlaps are pruned at once, whatever the budget."""
    places = {x: -order(v).argsort().double().view(v.shape) for x, v in scores.items()}
    return {
        x: torch.where(contrast >= 0, places[x], -float(places[x].numel()))
        for x, contrast in contrasted(places).items()
    }


def taken_in_turns(scores: Score) -> dict[str, Tensor]:
    """Orders in which overlaps are pruned greedily: in every round each language takes the first
    neuron of its order that none has taken, in the order of the languages.

    What other languages took comes last.
    """
    orders = {x: order(v).tolist() for x, v in scores.items()}
    rest = {x: iter(own) for x, own in orders.items()}
    mine: dict[str, dict[int, None]] = {x: {} for x in orders}
    taken: set[int] = set()
    for _ in range(max(map(len, orders.values()))):
        for x, left in rest.items():
            if (first := next((i for i in left if i not in taken), None)) is not None:
                mine[x][first] = None
                taken.add(first)
    return {
        x: torch.tensor([*mine[x], *(i for i in own if i not in mine[x])])
        for x, own in orders.items()
    }


def sets_apart(
    pipeline: Pipeline,
    orders: Orders,
    necessity: Necessity,
    texts: Texts,
    shares: Sequence[float],
) -> pd.DataFrame:
    """What sets do together (`damage.predicted`) and one by one, one row per order and budget.

    `share` of all neurons; `alone_own` and `alone_other`, mean necessity of one neuron for its
    language and the most for another (nats per token); `elsewhere`, the part of the neurons that is
    among the `MUCH` most needed ones of another language; `late`, the part in the last third of
    the layers.
    """
    layers, width = pipeline.shape["intermediate"]
    budgets = {max(1, round(share * layers * width)): share for share in shares}
    damaged = damage.damage(orders, list(budgets), pipeline.model, texts, store=pipeline.store)
    table = damage.predicted(damaged, orders, necessity)
    effects = {x: necessity.necessity(x).value.flatten() for x in necessity.languages}
    most = {x: v >= v.quantile(1 - MUCH) for x, v in effects.items()}
    rows = []
    for row in table.to_dict("records"):
        x = row["language"]
        chosen = orders[row["criterion"], x, row["seed"]][: row["budget"]]
        others = [y for y in effects if y != x]
        rows.append(
            {
                "share": budgets[row["budget"]],
                "alone_own": float(effects[x][chosen].mean()),
                "alone_other": float(
                    torch.stack([effects[y][chosen] for y in others]).amax(0).mean()
                ),
                "elsewhere": float(
                    torch.stack([most[y][chosen] for y in others]).any(0).double().mean()
                ),
                "late": float((chosen // width >= layers - layers // 3).double().mean()),
            }
        )
    return pd.concat([table.drop(columns=["digest", "key", "seed"]), pd.DataFrame(rows)], axis=1)


# ------------------------------------------------------------------------------------- estimators


def estimates(pipeline: Pipeline, necessity: Necessity, plan: AnatomyPlan) -> pd.DataFrame:
    """How well ways to trace predictions to neurons foresee ablations, on the same windows of text.

    One row per estimator, objective, `taken` ("size", mean |…|, or "sign", the mean), language (and
    "all") and truth: Spearman's `rho` with its 95 % interval (`criteria.rank_agreement`). Necessity
    is foreseen by the score itself, selectivity by its contrast.
    """
    found = {}
    for objective in OBJECTIVES:
        of = _estimated(pipeline, objective, plan)
        for name, values in of.items():
            found[f"{name}|{objective}|size"] = {x: v.abs().mean(0) for x, v in values.items()}
            found[f"{name}|{objective}|sign"] = {x: v.mean(0) for x, v in values.items()}
    alone = rank_agreement(found, necessity)
    against = rank_agreement({name: contrasted(v) for name, v in found.items()}, necessity)
    table = pd.concat(
        [
            alone[alone["truth"] == "necessity"],
            against[against["truth"] == "selectivity"],
        ],
        ignore_index=True,
    )
    parts = table.pop("criterion").str.split("|", expand=True)
    return pd.concat([parts.set_axis(["estimator", "objective", "taken"], axis=1), table], axis=1)


def _estimated(
    pipeline: Pipeline, objective: str, plan: AnatomyPlan
) -> dict[str, dict[str, Tensor]]:
    model = pipeline.model
    ways = {
        ATTNLRP: partial(neuron_relevance, model, objective=objective),
        "gradient x activation": partial(
            neuron_relevance, model, objective=objective, rules="gradient"
        ),
        "integrated gradients": partial(
            integrated_gradients, model, objective=objective, steps=plan.steps
        ),
    }
    windows = {x: w[: plan.n_estimates] for x, w in pipeline.windows.items()}
    return {
        name: {
            x: torch.cat([way(input_ids=part) for part in w.split(16)]).double()
            for x, w in windows.items()
        }
        for name, way in ways.items()
    }


# ---------------------------------------------------------------------------------------- windows


def windows_needed(pipeline: Pipeline, plan: AnatomyPlan, texts: Texts) -> pd.DataFrame:
    """What criteria find that were given fewer windows, one row per set.

    `windows`, `seed`; `own`, `other` and `difference` as `damage.damage` has them, and `jaccard`
    with the set found from the most windows by the same seed.
    """
    shape = pipeline.shape
    budget = max(1, round(plan.beside * int(np.prod(shape["intermediate"]))))
    tables = []
    for seed in plan.seeds:
        orders: dict[int, Orders] = {}
        for n in sorted(plan.windows, reverse=True):
            orders[n] = _orders(pipeline.changed(n_samples=n, seed=seed), plan.fed, seed)
        first = orders[max(plan.windows)]
        for n, own in orders.items():
            damaged = damage.damage(own, [budget], pipeline.model, texts, store=pipeline.store)
            shared = [
                jaccard(*(NeuronSet.from_flat(o[key][:budget], shape) for o in (own, first)))
                for key in own
            ]
            columns = ["criterion", "language", "seed", "own", "other", "difference"]
            tables.append(damaged[columns].assign(windows=n, jaccard=shared))
    return pd.concat(tables, ignore_index=True)


def by_windows(needed: pd.DataFrame) -> pd.DataFrame:
    """`windows_needed` as means over languages: one row per criterion and number of windows.

    `difference`, `own`, `jaccard`, and `low` and `high`, the least and the most difference of a
    seed.
    """
    of: Any = needed.groupby(["criterion", "windows", "seed"], sort=False)
    seeds = of[["own", "other", "difference", "jaccard"]].mean().reset_index()
    means = seeds.groupby(["criterion", "windows"], sort=False)
    table = means[["own", "other", "difference", "jaccard"]].mean()
    ends = means["difference"].agg(low="min", high="max")
    return table.join(ends).reset_index()


def parts_of(sets: pd.DataFrame, share: float) -> pd.DataFrame:
    """`sets_apart` at one budget, means over languages, the most difference first.

    `ratio` is the sum of what sets do together over the sum of what their neurons do alone,
    `difference_se` the standard error of the mean difference.
    """
    own = sets[np.isclose(sets["share"], share)]
    columns = ["own", "other", "difference", "predicted", "alone_own", "alone_other"]
    table = own.groupby("criterion", sort=False)[[*columns, "elsewhere", "late"]].mean()
    groups = own.groupby("criterion", sort=False)["difference_se"]
    table["difference_se"] = groups.agg(lambda se: float((se**2).sum() ** 0.5 / len(se)))
    table["ratio"] = table["own"] / table["predicted"].where(table["predicted"] > 0)
    return table.sort_values("difference", ascending=False, kind="stable").reset_index()
