"""``python -m crane_lab.cli.real_model``: the causal check of a model with very many neurons.

Writes the tables of `data/gemma` (or another folder), single ablations first, then damage curves of
the main criteria, then of all. What is measured is kept in the store piece by piece: interrupted,
the same command goes on; started several times, the processes share.

On Gemma 3 270M an ablation of one neuron to one value on one window takes .2 s of one core in the
first layer, .11 in the middle and .06 in the last; the loss's gradient .9 s a window, and a window
under one set of neurons .45 s. So all of it takes three hours of one core, an hour and a half with
`--only-main`; ablations to the mean as well (`--values zero mean`) double their part. `--cards`
writes, of neurons ablated before, what a page shows when one is looked up, in some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from crane_core.models import write_checksums
from crane_core.selection import normalise
from crane_lab.cli.in_run import pipeline_of
from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.pipeline import Pipeline
from crane_lab.runs.execution import Run
from crane_lab.show.neuron_view import texts_of
from crane_lab.store import source_digest, write_table
from crane_lab.store.files import write_text
from crane_lab.store.machine import versions
from crane_lab.study import criteria, damage, known_neurons, nearby, necessity, sampled
from crane_lab.study.neuron_cards import neuron_cards, neurons_to_read, sets_of_methods
from crane_lab.study.real_model import inputs
from crane_lab.study.shipped import Shipped, other_inputs

#: The tables that are written here.
CAUSAL = (
    *("sample", "single_effects", "effects_ceiling"),
    *("criteria_correlations", "criteria_precision", "criteria_damage"),
)
#: What orders of no criterion are called in damage curves.
RANDOM = "random order"
#: Shares of all neurons that are masked.
SHARES = (0.001, 0.005, 0.02, 0.1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.real_model", description=__doc__)
    add_run(parser)
    parser.set_defaults(profile="gemma")
    add = parser.add_argument
    add("--out", default="data/gemma", help="folder for the tables")
    add("--top", type=int, default=60, help="neurons of each main criterion and language")
    add("--random", type=int, default=10, help="neurons drawn from each layer")
    add("--texts", type=int, default=64, help="windows per language for single effects")
    add("--exact", type=int, default=8, help="of them, those on which neurons are ablated")
    add("--damage-texts", type=int, default=16, help="further windows, for whole sets")
    add("--values", nargs="+", choices=("zero", "mean"), default=["zero"])
    add("--shares", nargs="+", type=float, default=SHARES, help="of all neurons, to be masked")
    add("--seeds", type=int, default=3, help="random orders")
    add("--only-main", action="store_true", help="damage curves of the main criteria only")
    add("--cards", action="store_true", help="what is known of single neurons, instead")
    add("--cards-texts", type=int, default=64, help="windows per language that they are read on")
    options = parser.parse_args(arguments)
    run = ship_cards if options.cards else check_model
    return exit_status(lambda: run(the_run(options), options))


def ship_cards(run: Run, options: argparse.Namespace, store: Path | None = None) -> None:
    """Write `known_neurons.FILES` of the neurons that are first on lists, among those ablated.

    Raises FileNotFoundError without single ablations in the folder, and ValueError if they are of
    another model or other texts.
    """
    out = Path(options.out).absolute()
    there = Shipped.read(out)
    effects, causal = there.table("single_effects"), there.causal()
    with pipeline_of(run, store) as pipeline:
        now = inputs(pipeline)
        if differing := other_inputs(causal, now):
            raise ValueError(f"{out} is about another {' and other '.join(differing)}")
        s, (layers, width) = pipeline.settings, pipeline.shape["intermediate"]
        kurtosis, size = (
            {x: v for x, v in of.items() if isinstance(v, torch.Tensor)}
            for of in (
                pipeline.kurtosis("intermediate"),
                pipeline.statistic("intermediate", "mean_abs"),
            )
        )
        relative = criteria.relative_contrasts(size)
        scores = {
            "CRANE's score": criteria.contrasted(normalise(kurtosis, s.normalisation)),
            "LAPE's order": criteria.lape_places(pipeline),
            "the relative contrast": relative,
        }
        orders = {
            name: {x: criteria.order(score) for x, score in of.items()}
            for name, of in scores.items()
        }
        lists = known_neurons.sampled_lists(effects, orders, width)
        cards = neuron_cards(pipeline, neurons_to_read(lists, (layers, width)), options.cards_texts)
        places = (effects["layer"] * width + effects["neuron"]).to_numpy()
        own = effects.set_index(places).loc[cards.neurons.tolist()]
        known_neurons.KnownNeurons(
            cards,
            texts_of(cards, pipeline.tokenizer),
            {x: k.flatten()[cards.neurons] for x, k in kurtosis.items()},
            {x: torch.tensor(own[f"zero_{x}"].to_numpy()) for x in s.languages},
            {x: torch.tensor(own[f"zero_{x}_se"].to_numpy()) * 1.96 for x in s.languages},
            known_neurons.inside_of(
                cards, sets_of_methods(pipeline, {criteria.RELATIVE: relative})
            ),
            lists,
        ).save(out, {**now, "texts per language": options.cards_texts, "versions": versions()})
    write_checksums(out)
    print(f"written: {', '.join(known_neurons.FILES)} in {os.path.relpath(out)}", flush=True)


def check_model(run: Run, options: argparse.Namespace, store: Path | None = None) -> None:
    """Measure everything and write it; `options` are those of `main`.

    Raises what `Pipeline`, `sampled.choose` and `sampled.measure_sample` raise, and ValueError for
    a share that is not above 0 and at most 1.
    """
    if wrong := [share for share in options.shares if not 0 < share <= 1]:
        raise ValueError(f"--shares has {wrong[0]}: expected shares above 0 and at most 1")
    out = Path(options.out).absolute()
    with pipeline_of(run, store) as pipeline:
        for tables, made in tables_of(pipeline, options):
            out.mkdir(parents=True, exist_ok=True)
            for name, table in tables.items():
                write_table(_rounded(table), out / f"{name}.csv")
            write_text(out / "made.json", json.dumps(made, indent=1, sort_keys=True) + "\n")
            write_checksums(out)
            print(f"written: {', '.join(tables)} in {os.path.relpath(out)}", flush=True)


def tables_of(
    pipeline: Pipeline, options: argparse.Namespace
) -> Iterator[tuple[dict[str, pd.DataFrame], dict[str, Any]]]:
    """New tables by name as they come, and what all up to then depend on, as JSON."""
    s = pipeline.settings
    languages, (layers, width) = list(s.languages), pipeline.shape["intermediate"]
    texts, others = damage.held_out(pipeline, options.texts, options.damage_texts)
    scores = criteria.criteria(pipeline, (s.objective,))
    main_ones = sampled.main_criteria(s.objective)
    sample = sampled.choose(scores, main_ones, options.top, options.random, s.seed)
    neurons = sampled.neurons_of(sample)
    print(f"{len(neurons):,} of {layers * width:,} neurons are ablated", flush=True)
    known = {"zero": torch.zeros(layers, width)}
    if "mean" in options.values:
        known["mean"] = pipeline.neuron_values["mean"]
    set_to = {name: known[name] for name in dict.fromkeys(options.values)}
    store = pipeline.store
    found = sampled.measure_sample(pipeline.model, texts, neurons, set_to, options.exact, {}, store)
    about = (sample, neurons, found)
    singles = {
        "sample": sample,
        "single_effects": sampled.single_effects_table(*about),
        "criteria_correlations": sampled.sampled_correlations(
            scores, *about, main_ones[0], seed=s.seed
        ),
        "criteria_precision": sampled.precision_of_tops(*about, seed=s.seed),
        "effects_ceiling": sampled.ceiling(*about),
    }
    code = (
        sampled.__name__,
        nearby.__name__,
        necessity.__name__,
        criteria.__name__,
        damage.__name__,
    )
    made = {
        **inputs(pipeline),
        "shape": [layers, width],
        "settings": dataclasses.asdict(s),
        "sample": {
            "neurons": len(neurons), "top": options.top, "random_per_layer": options.random,
            "main_criteria": main_ones,
        },
        "effects": {
            "texts": options.texts, "exact": options.exact, "values": list(set_to),
            "likely": nearby.LIKELY, "drawn": nearby.DRAWN, "far": nearby.FAR,
        },
        "versions": versions(),
        "code": source_digest(*code),
    }  # fmt: skip
    yield singles, made
    budgets = sorted({max(1, round(share * layers * width)) for share in options.shares})
    random = damage.random_orders(pipeline.model, range(options.seeds))
    for wanted in (main_ones,) if options.only_main else (main_ones, list(scores)):
        orders = {
            (name, x, -1): criteria.order(scores[name][x]) for name in wanted for x in languages
        } | {(RANDOM, x, seed): drawn for seed, drawn in random.items() for x in languages}
        damaged = damage.damage(orders, budgets, pipeline.model, others, store=store)
        damaged["share"] = damaged["budget"] / (layers * width)
        made["damage"] = {
            "texts": options.damage_texts, "budgets": budgets, "seeds": options.seeds,
            "criteria": wanted,
        }  # fmt: skip
        yield {"criteria_damage": damaged.drop(columns=["digest", "key"])}, made


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Six significant digits: more is noise, and files stay small."""
    numbers = table.select_dtypes("float").columns
    return table.assign(**{c: [float(f"{v:.6g}") for v in table[c]] for c in numbers})


if __name__ == "__main__":
    sys.exit(main())
