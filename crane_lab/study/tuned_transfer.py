"""From a base model to one that was tuned from it: do its neurons keep their role?

CRANE's Tables 3 and 4 mask neurons found in a base model in its chat model. Of a real model that
has none, a checkpoint tuned on a task takes its place. Every method's sets are found in both models
and set to zero; what follows is the loss in every language, beside random sets as large in every
layer (those of the base's sets are the same in both models).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from crane_core.interventions import UNTOUCHED, Intervention, intervened, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.store import write_table
from crane_lab.store.grown import Part, grow, made_of, read_grown, shipped_file
from crane_lab.study.contenders import RELEVANCE, contenders
from crane_lab.study.sharing import overlap_row
from crane_lab.study.steering import drawn_as
from crane_lab.study.taught import RANDOM, RECIPES
from crane_lab.study.tuned import require_items, require_number, save_tuned, untuned_answers
from crane_lab.tuning.training import TuningRecipe

FILE, SHARED = "tuned_transfer.csv", "tuned_transfer_shared.csv"
#: What both models can do without a mask.
LEVELS = "tuned_transfer_levels.csv"
#: The two models, and where a set was found.
BASE, TUNED = "base", "tuned"
KEYS = ["model", "found", "method", "of", "draw", "seed"]
_TEXTS = ("model", "found", "method", "of", "language")


@dataclass(frozen=True)
class TransferPlan:
    """`draws`: random sets beside each set; `windows`: of held-out text per language.

    `questions`: of qa per language that both models are asked; `recipe`: how one is tuned on it.
    """

    methods: tuple[str, ...] = ("LAPE matched", "CRANE", RELEVANCE)
    draws: int = 4
    windows: int = 12
    questions: int = 40
    recipe: TuningRecipe = RECIPES["qa"]


def ship_transfer(
    base: Pipeline, checkpoint: str | Path, plan: TransferPlan, folder: str | Path
) -> None:
    """Bring `FILE` and its record to what the plan asks for (`store.grown`); write the others.

    The checkpoint is tuned by the plan's recipe (`tuned.save_tuned`) if there is none.

    `FILE`, one row per masked set and language: `KEYS`, `language`, `n_neurons`, `loss`, nats per
    token on held-out windows, `added` to the same model's without a mask, with its standard error
    over windows, `error`. `SHARED`: `overlap_row` of the sets found in both models. `LEVELS`: by
    model and language the `loss` without a mask, and `exact`, the share of qa answered.

    Raises ValueError for a language without items, more questions than there are, a method that
    `contenders` does not have, or if neurons of the checkpoint cannot be those of the base.
    """
    require_items(base.settings.languages, "qa")
    require_number("questions", plan.questions, "test")
    if not Path(checkpoint).exists():
        save_tuned(base, plan.recipe, checkpoint)
    models = {BASE: base, TUNED: base.changed(model=str(checkpoint), offline=True)}
    base.require_same_neurons(models[TUNED])
    sets: dict[str, dict[str, Mapping[str, NeuronSet]]] = {}
    for name, one in models.items():
        every = contenders(one)
        if unknown := [method for method in plan.methods if method not in every]:
            raise ValueError(f"unknown method {unknown[0]!r}: expected some of {list(every)}")
        sets[name] = {method: every[method] for method in plan.methods}
    inputs = {
        "models": {name: one.loaded.lasting_key for name, one in models.items()},
        "sets": {
            name: {m: [s.digest() for s in of.values()] for m, of in own.items()}
            for name, own in sets.items()
        },
        "languages": list(base.settings.languages),
        "windows": plan.windows,
        "recipe": asdict(plan.recipe),
    }
    rows = [
        {"method": method, "language": x, **overlap_row(neurons, sets[TUNED][method][x])}
        for method, of in sets[BASE].items()
        for x, neurons in of.items()
    ]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(pd.DataFrame(rows).round(6), folder / SHARED)
    if not (folder / LEVELS).is_file():
        levels = [_levels(name, one, plan) for name, one in models.items()]
        write_table(pd.concat(levels).round(6), folder / LEVELS)
    grow(folder / FILE, inputs, KEYS, _TEXTS, _parts(models, sets, plan))


def _levels(name: str, pipeline: Pipeline, plan: TransferPlan) -> pd.DataFrame:
    losses = _losses(pipeline, UNTOUCHED, plan.windows)
    exact = untuned_answers(pipeline, plan.questions)
    rows = [
        {"model": name, "language": x, "loss": float(own.mean()), "exact": exact[x]}
        for x, own in losses.items()
    ]
    return pd.DataFrame(rows)


def _parts(
    models: Mapping[str, Pipeline],
    sets: Mapping[str, Mapping[str, Mapping[str, NeuronSet]]],
    plan: TransferPlan,
) -> Iterator[Part]:
    @cache
    def untouched(model: str) -> dict[str, Tensor]:
        return _losses(models[model], UNTOUCHED, plan.windows)

    def rows(about: Mapping[str, Any], neurons: NeuronSet) -> pd.DataFrame:
        before = untouched(about["model"])
        after = _losses(models[about["model"]], zero(neurons), plan.windows)
        found = []
        for x, own in after.items():
            apart = (own - before[x]).double().numpy()
            row = {**about, "language": x, "n_neurons": len(neurons), "loss": float(own.mean())}
            error = float(apart.std(ddof=1) / np.sqrt(len(apart)))
            found.append({**row, "added": float(apart.mean()), "error": error})
        return pd.DataFrame(found).round(6)

    for model, found in ((BASE, BASE), (TUNED, BASE), (TUNED, TUNED)):
        for method, of in sets[found].items():
            for x, neurons in of.items():
                for draw in range(-1, plan.draws):
                    own = neurons if draw < 0 else drawn_as(neurons, method, x, draw)[0]
                    name = method if draw < 0 else f"{RANDOM} as {method}"
                    about = {"model": model, "found": found, "method": name, "of": x}
                    about |= {"draw": draw, "seed": 0}  # type: ignore[dict-item]
                    key = tuple(about[column] for column in KEYS)
                    compute = partial(rows, about, own)
                    yield Part(" ".join(map(str, key)), frozenset([key]), compute)


def _losses(pipeline: Pipeline, one: Intervention, windows: int) -> dict[str, Tensor]:
    """Every language's loss on each of its held-out windows."""
    with intervened(pipeline.model, one):
        return {
            x: perplexity(pipeline.model, own[:windows]).losses
            for x, own in pipeline.perplexity_windows.items()
        }


@dataclass(frozen=True)
class Transferred:
    """What `ship_transfer` wrote: `FILE`, `SHARED` and `LEVELS` as tables, and the record."""

    table: pd.DataFrame
    shared: pd.DataFrame
    levels: pd.DataFrame
    made: dict[str, Any]


def read_transfer(folder: str | Path) -> Transferred:
    """What a folder has.

    Raises FileNotFoundError, saying what makes them, without one of the files.
    """
    what, by = "losses in a base and a tuned model", "crane_lab.cli.tune --transfer"
    files = [shipped_file(folder, name, what, by) for name in (FILE, SHARED, LEVELS)]
    shared, levels = (pd.read_csv(file) for file in files[1:])
    return Transferred(read_grown(files[0], _TEXTS), shared, levels, made_of(files[0], {}))


def transfer_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and language whose neurons are masked, and for each `model` and `found`.

    `own`, nats added in that language, with its standard error over windows, `error`; `others`, the
    most that is added in another; of random sets `random`, the mean added in the language, `most`,
    and how many there are, `draws`; `n_neurons`.
    """
    rows = []
    for about, masked in table[table["draw"] < 0].groupby(
        ["model", "found", "method", "of"], sort=False
    ):
        model, found, method, of = map(str, about)
        own = masked[masked["language"] == of].iloc[0]
        drawn = table[
            (table["method"] == f"{RANDOM} as {method}")
            & (table["model"] == model)
            & (table["found"] == found)
            & (table["of"] == of)
            & (table["language"] == of)
        ]["added"]
        rows.append(
            {
                **{"model": model, "found": found, "method": method, "of": of},
                **{"n_neurons": own["n_neurons"], "own": own["added"], "error": own["error"]},
                "others": masked[masked["language"] != of]["added"].max(),
                **{"random": drawn.mean(), "most": drawn.max(), "draws": len(drawn)},
            }
        )
    return pd.DataFrame(rows)
