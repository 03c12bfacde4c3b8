"""What a value written to a language's neurons does to every language's loss (PPXC).

The LSN paper's Figures 1 and 20 to 24, on the same held-out windows with and without. On a large
model each value takes most of a minute, so the table can be shipped (`ship_value_losses`); rows
that a folder has, of this very model, these sets, texts and values, are read and not computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from crane_core.baselines import random_matched
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.stages.losses import held_out_losses
from crane_lab.stages.relevance import QUANTILE_TOKENS
from crane_lab.stages.standing import held_against
from crane_lab.store import write_table
from crane_lab.store.grown import Part, grow, made_of, read_grown, shipped_file
from crane_lab.study.activations import (
    PLACES,
    STATISTICS,
    Contenders,
    Values,
    Written,
    least_output,
    out_of_reach,
    setting,
    written_name,
)
from crane_lab.study.effects import normal_interval
from crane_lab.study.nulls import FIRST_SEED, Nulls, null_inputs, pieces

FILE = "lsn_losses.csv"
#: What setting each set to zero does to its own language, beside random masks of its kind.
ZERO = "lsn_zero.csv"
#: What random masks at the values of `BESIDE` do to a language's own loss.
MASKS = "lsn_value_masks.csv"
#: How many of the values written are out of reach (`activations.out_of_reach`).
REACH = "lsn_reach.csv"
#: What neurons are set to: zero, and statistics read where they are written, or as the paper's code
#: reads them.
WRITTEN: tuple[Written, ...] = (
    None,
    ("P10", "before"),
    ("P10", "after"),
    ("mean", "after"),
    ("P90", "after"),
    ("P90", "before"),
)
#: Values other than zero at which random masks can stand beside a set.
BESIDE: tuple[Written, ...] = (("P10", "after"), ("mean", "after"))
_KEYS = ["method", "mask_language", "set_to"]
_TEXTS = (*_KEYS, "text_language")


def perplexity_changes(
    pipeline: Pipeline,
    sets: Contenders,
    values: Values,
    written: Iterable[Written],
    nulls: Nulls | None = None,
    shipped: str | Path | None = None,
) -> pd.DataFrame:
    """What happens to each language's loss when a language's neurons are set to a value (PPXC).

    Intervals are over paired differences of windows. `shipped`: a folder with `FILE` and perhaps
    `MASKS`, whose rows are taken as far as they are of this run.

    Returns
    -------
    One row per method, `mask_language`, value `set_to` and `text_language`: `n_neurons`, `loss`
    untouched, `change` of loss with `change_low` and `change_high` (95 %), nats per token, and
    `ratio` of perplexities. With `nulls`, there are the columns of `standing.held_against` too, for
    the set's own language: where the change lies among those of random masks of the set's size in
    every layer, corrected over the rows of the value. Those at zero have `nulls`; at other values,
    which are each neuron's own, there are those of `MASKS`.
    """
    kept, beside = (
        {} if shipped is None else _kept(pipeline, sets, values, Path(shipped) / name)
        for name in (FILE, MASKS)
    )
    todo = [
        ((method, x, written_name(one)), partial(setting, neurons, values, x, one))
        for method, of in sets.items()
        for x, neurons in of.items()
        for one in written
    ]
    missing = [(key, done) for key, done in todo if key not in kept]
    before = pipeline.losses() if missing else {}
    bar = tqdm(missing, desc="evaluating values", unit="value")
    runs = (partial(pipeline.losses, done()) for _, done in bar)
    for (key, _), after in zip(missing, pipeline.store.together(runs), strict=True):
        kept[key] = _rows(key, sets[key[0]][key[1]], before, after)
    found = pd.concat([kept[key] for key, _ in todo], ignore_index=True)
    if nulls is None:
        return found

    def masks(method: str, x: str, set_to: str, text: str) -> NDArray[np.float64]:
        """What random masks do in the set's own language; none in another, or of no neuron."""
        if x != text or not len(sets[method][x]):
            return np.array([])
        if set_to == written_name(None):
            null = nulls.table("losses", sets[method][x])
            return null[x].to_numpy(float) if len(null) else np.array([])
        own = beside.get((method, x, set_to))
        return np.array([]) if own is None else own["change"].to_numpy(float)

    held = [
        held_against(
            at["change"].to_list(),
            [masks(*row) for row in at[list(_TEXTS)].itertuples(index=False, name=None)],
        ).set_index(at.index)
        for _, at in found.groupby("set_to", sort=False)
    ]
    return found.join(pd.concat(held))


def ship_value_masks(
    pipeline: Pipeline, sets: Contenders, values: Values, folder: str | Path, masks: int
) -> None:
    """Bring `MASKS` and the record beside it to so many random masks of every set at a value.

    One row per `method`, `mask_language`, `set_to` and `seed`: `change`, the mean change of loss in
    that language, nats per token, with as many neurons in every layer as the set has, drawn at
    random and set to the value, each neuron to its own.
    """

    def part(method: str, x: str, one: Written, seeds: range) -> pd.DataFrame:
        windows, before = {x: pipeline.perplexity_windows[x]}, pipeline.losses()[x]
        rows = []
        for seed in seeds:
            drawn = setting(random_matched(sets[method][x], seed), values, x, one)
            after = held_out_losses(pipeline.model, windows, drawn, pipeline.store.note)[x]
            about = {"method": method, "mask_language": x, "set_to": written_name(one)}
            change = (after - before).double().mean().item()
            rows.append({**about, "seed": seed, "change": round(change, 6)})
        return pd.DataFrame(rows)

    parts = (
        Part(
            f"{method} {x}, {written_name(one)}, masks {own[0]} to {own[-1]}",
            frozenset((method, x, written_name(one), seed) for seed in own),
            partial(part, method, x, one, own),
        )
        for own in pieces(range(FIRST_SEED, FIRST_SEED + masks))
        for method, of in sets.items()
        for x, neurons in of.items()
        for one in BESIDE
        if len(neurons)
    )
    file = Path(folder) / MASKS
    grow(file, _inputs(pipeline, sets, values), [*_KEYS, "seed"], _KEYS, parts)


def ship_value_losses(
    pipeline: Pipeline, sets: Contenders, values: Values, folder: str | Path, nulls: Nulls
) -> None:
    """Write `REACH`, and bring `FILE` and the record beside it to all of `WRITTEN`, value by value.

    Rows are those of `perplexity_changes` without nulls; those of `ZERO`, written last, have them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reach = out_of_reach(values, sets, least_output(pipeline.model))
    write_table(reach.round(6), folder / REACH)

    def part(one: Written, method: str) -> pd.DataFrame:
        own = {method: sets[method]}
        return perplexity_changes(pipeline, own, values, [one]).assign(seed=pipeline.settings.seed)

    parts = (
        Part(
            f"{method}, {written_name(one)}",
            frozenset((method, x, written_name(one), pipeline.settings.seed) for x in sets[method]),
            partial(part, one, method),
        )
        for one in WRITTEN
        for method in sets
    )
    file = folder / FILE
    grow(file, _inputs(pipeline, sets, values), [*_KEYS, "seed"], _TEXTS, parts)
    zero = perplexity_changes(pipeline, sets, values, [None], nulls, folder)
    own = zero[zero["mask_language"] == zero["text_language"]]
    write_table(own.round(6).reset_index(drop=True), folder / ZERO)


def read_value_losses(folder: str | Path) -> pd.DataFrame:
    """What `ship_value_losses` wrote, of whatever model: `perplexity_changes` with nulls.

    Raises FileNotFoundError, saying what makes them, without the files.
    """
    file, zero = (
        shipped_file(folder, name, "losses under values", "crane_lab.cli.tune --parts losses")
        for name in (FILE, ZERO)
    )
    found = _read(file)
    beside = pd.read_csv(zero)
    new = [name for name in beside if name not in found]
    return found.merge(beside[[*_TEXTS, *new]], how="left", on=list(_TEXTS))


def read_means(folder: str | Path) -> pd.DataFrame:
    """`activations.means_over_neurons` of what `ship_value_losses` wrote, from its record."""
    file = Path(folder) / FILE
    means = made_of(file, {})["inputs"]["values"]
    named = pd.Series(means).rename_axis("name").reset_index(name="value")
    named[["place", "language", "statistic"]] = named["name"].str.split(" ", expand=True)
    wide = named.pivot_table(index=["place", "language"], columns="statistic", values="value")
    rows = pd.MultiIndex.from_product(
        [PLACES, _read(file)["mask_language"].unique()], names=wide.index.names
    )
    ordered = wide.loc[rows, list(STATISTICS)].reset_index()
    return ordered[["language", "place", *STATISTICS]]


def _read(file: Path) -> pd.DataFrame:
    return read_grown(file, _TEXTS).drop(columns="seed")


def _rows(
    key: tuple[str, str, str],
    neurons: NeuronSet,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
) -> pd.DataFrame:
    method, x, set_to = key
    rows = []
    for text, own in after.items():
        mean, low, high = normal_interval(own - before[text])
        rows.append(
            {
                **{"method": method, "mask_language": x, "n_neurons": len(neurons)},
                **{"set_to": set_to, "text_language": text},
                "loss": before[text].double().mean().item(),
                **{"change": mean, "change_low": low, "change_high": high},
                "ratio": float(np.exp(mean)),
            }
        )
    return pd.DataFrame(rows)


def _kept(
    pipeline: Pipeline, sets: Contenders, values: Values, file: Path
) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Shipped rows by method, language and value, of methods that have just these sets.

    None if they are of anything else. Another machine's values differ in their last digits.
    """
    if not file.is_file():
        return {}
    inputs = _inputs(pipeline, sets, values)
    now, means = inputs.pop("sets"), inputs.pop("values")
    made = made_of(file, inputs)
    if made["differing"] or not _alike(made["inputs"]["values"], means):
        return {}
    table = _read(file)
    return {
        (str(method), str(x), str(set_to)): own
        for (method, x, set_to), own in table.groupby(_KEYS, sort=False)
        if made["inputs"]["sets"].get(method) == now.get(method)
    }


def _alike(made: Mapping[str, float], now: Mapping[str, float]) -> bool:
    return set(made) == set(now) and all(
        math.isclose(made[name], value, rel_tol=1e-3, abs_tol=1e-4) for name, value in now.items()
    )


def _inputs(pipeline: Pipeline, sets: Contenders, values: Values) -> dict[str, Any]:
    """What the table depends on: model, sets and held-out text, and what is written.

    That is the text that values are read from, and their means over neurons.
    """
    s = pipeline.settings
    return {
        **null_inputs(pipeline, "losses"),
        "sets": {m: {x: own.digest() for x, own in of.items()} for m, of in sets.items()},
        "read_from": {
            "corpus": pipeline.corpus.fingerprint(s.languages),
            "n_samples": s.n_samples,
            "tokens": QUANTILE_TOKENS,
        },
        "values": {
            f"{place} {x} {statistic}": round(float(value.double().mean()), 6)
            for place, by_language in values.items()
            for x, own in by_language.items()
            for statistic, value in own.items()
        },
    }
