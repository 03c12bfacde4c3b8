"""From a base model to one that was tuned from it: do its neurons keep their role?

CRANE's Tables 3 and 4 mask neurons found in a base model in its chat model. Of a real model that
has none, a checkpoint tuned on a task takes its place. Every method's sets are found in both models
and set to zero; what follows is the loss in every language, beside random sets of the base's that
are the same ones in both models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from crane_core.baselines import random_matched
from crane_core.interventions import UNTOUCHED, Intervention, intervened, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.store import write_table
from crane_lab.store.grown import Part, grow, made_of, read_grown
from crane_lab.study.contenders import RELEVANCE, contenders
from crane_lab.study.sharing import overlap_row
from crane_lab.study.taught import FIRST_DRAW, RANDOM

FILE, SHARED = "tuned_transfer.csv", "tuned_transfer_shared.csv"
#: The two models, and where a set was found.
BASE, TUNED = "base", "tuned"
KEYS = ["model", "found", "method", "of", "draw", "seed"]
_TEXTS = ("model", "found", "method", "of", "language")


@dataclass(frozen=True)
class TransferPlan:
    """`draws`: random sets beside each of the base's; `windows`: of held-out text per language."""

    methods: tuple[str, ...] = ("LAPE matched", "CRANE", RELEVANCE)
    draws: int = 4
    windows: int = 12


def ship_transfer(
    base: Pipeline, checkpoint: str | Path, plan: TransferPlan, folder: str | Path
) -> None:
    """Bring `FILE` and its record to what the plan asks for (`store.grown`), and write `SHARED`.

    One row per masked set and language: `KEYS`, `language`, `n_neurons`, `loss`, nats per token on
    held-out windows, `added` to the same model's without a mask, with its standard error over
    windows, `error`. `SHARED`: `overlap_row` of the sets found in both models.

    Raises ValueError if neurons of the checkpoint cannot be those of the base.
    """
    models = {BASE: base, TUNED: base.changed(model=str(checkpoint), offline=True)}
    base.require_same_neurons(models[TUNED])
    sets = {
        name: {m: of for m, of in contenders(one).items() if m in plan.methods}
        for name, one in models.items()
    }
    inputs = {
        "models": {name: one.loaded.lasting_key for name, one in models.items()},
        "sets": {
            name: {m: [s.digest() for s in of.values()] for m, of in own.items()}
            for name, own in sets.items()
        },
        "languages": list(base.settings.languages),
        "windows": plan.windows,
    }
    grow(Path(folder) / FILE, inputs, KEYS, _TEXTS, _parts(models, sets, plan))
    rows = [
        {"method": method, "language": x, **overlap_row(neurons, sets[TUNED][method][x])}
        for method, of in sets[BASE].items()
        for x, neurons in of.items()
    ]
    write_table(pd.DataFrame(rows).round(6), Path(folder) / SHARED)


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

    for model, found, draws in ((BASE, BASE, True), (TUNED, BASE, True), (TUNED, TUNED, False)):
        for method, of in sets[found].items():
            for x, neurons in of.items():
                for draw in range(-1, plan.draws if draws else 0):
                    own = neurons if draw < 0 else random_matched(neurons, FIRST_DRAW + draw)
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


def read_transfer(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """`FILE` and `SHARED` of a folder, and the record.

    Raises FileNotFoundError, saying what makes them, without the files.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"no {FILE} in {folder}: expected losses in a base and a tuned model; run python -m "
            "crane_lab.cli.tune --save, then --transfer"
        )
    shared = pd.read_csv(Path(folder) / SHARED)
    return read_grown(file, _TEXTS), shared, made_of(file, {})


def transfer_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per method and language whose neurons are masked, and for each `model` and `found`.

    `own`, nats added in that language, with its standard error over windows, `error`; `others`, the
    most that is added in another; of random sets, for those found in the base, `random`, the mean
    added in the language, `most` and `draws`.
    """
    rows = []
    sets = table[table["draw"] < 0]
    for (model, found, method, of), masked in sets.groupby(
        ["model", "found", "method", "of"], sort=False
    ):
        own = masked[masked["language"] == of].iloc[0]
        row = {"model": model, "found": found, "method": method, "of": of}
        row |= {"own": own["added"], "error": own["error"]}
        row |= {"others": masked[masked["language"] != of]["added"].max()}
        beside = table[
            (table["method"] == f"{RANDOM} as {method}")
            & (table["model"] == model)
            & (table["found"] == found)
            & (table["of"] == of)
            & (table["language"] == of)
        ]["added"]
        row |= {"random": beside.mean(), "most": beside.max(), "draws": len(beside)}
        rows.append(row)
    return pd.DataFrame(rows)
