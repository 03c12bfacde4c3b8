"""``python -m crane_lab.cli.tune``: a task learned in English and asked in every language.

The LSN paper's experiments for a profile's model: interventions on the tuned
model's activations, and tuning of some neurons' weights alone, on the task or on text in their
language. Tables are written after every training; the same command goes on from what a folder has.
With ``--save FOLDER`` the model is tuned on the English questions once and kept as a checkpoint,
which notebook 06 takes for its chat model: sets found before tuning are masked after it there. With
``--transfer FOLDER`` the checkpoint is made if it is not there, and the loss under sets found in
both models is taken in both, beside random ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from crane_lab.cli.in_run import pipeline_of
from crane_lab.cli.options import add_run, exit_status, the_run
from crane_lab.runs.execution import Run
from crane_lab.store import write_table
from crane_lab.study.activations import activation_values
from crane_lab.study.contenders import (
    contenders,
    layer_sizes,
    rates_above_own_90th,
    shared_by_methods,
)
from crane_lab.study.criteria import act_prob_90p_scores
from crane_lab.study.nulls import Nulls
from crane_lab.study.taught import (
    AS_READ,
    PARTS,
    RECIPES,
    WHOSE,
    Teaching,
    require_teachable,
    ship_taught,
)
from crane_lab.study.text_taught import TextTeaching, require_text_teachable, ship_text_taught
from crane_lab.study.tuned import TASKS, save_tuned
from crane_lab.study.tuned_transfer import TransferPlan, ship_transfer
from crane_lab.study.value_losses import ship_value_losses, ship_value_masks
from crane_lab.tuning.lora import PARTS as LORA_PARTS

_TEXT, _SETS, _LOSSES = "text", "sets", "losses"
#: The values' names, as options have them.
_VALUES = [statistic for statistic, _ in AS_READ]
#: What methods share, how many neurons they choose in which layer, and how far Act Prob 90p tells
#: neurons apart, from `--parts sets`.
SHARED, SIZES, RATES = "lsn_shared.csv", "lsn_sizes.csv", "lsn_rates.csv"
#: Options that set a field of every recipe.
_OF_RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"type": int}) for name in ("items", "epochs", "batch", "rank", "alpha")},
    **{"rate": ("learning_rate", {"type": float}), "clip": ("clip", {"type": float})},
    **{"weight-decay": ("weight_decay", {"type": float}), "warmup": ("warmup", {"type": float})},
    "betas": ("betas", {"type": float, "nargs": 2, "metavar": ("FIRST", "SECOND")}),
    "tuned-parts": ("parts", {"choices": LORA_PARTS}),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status (1 after an error, which is printed)."""
    parser = argparse.ArgumentParser(prog="python -m crane_lab.cli.tune", description=__doc__)
    add_run(parser)
    add = parser.add_argument
    plan, every = Teaching(), [*PARTS, _TEXT, _SETS, _LOSSES]
    add("--out", default="data/testbed", help="folder for the tables")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="tasks to learn")
    add("--parts", nargs="+", choices=every, default=every, help="experiments to run")
    add("--seeds", type=int, default=plan.seeds, help="trainings of each set")
    add("--draws", type=int, default=plan.draws, help="random sets beside each set, activations")
    add("--value-draws", type=int, default=plan.value_draws, help="of them, set to values, too")
    add("--random-values", nargs="*", choices=_VALUES, default=_VALUES, help="those values")
    add("--value-masks", type=int, default=60, help="random masks at values, of losses")
    add("--tuned", type=int, default=plan.tuned_draws, help="random sets that are tuned")
    add("--whose", nargs="+", choices=WHOSE, default=list(WHOSE), help="neurons that are tuned")
    add("--test", type=int, default=plan.n_test, help="test items per language")
    add("--windows", type=int, default=TextTeaching().n_windows, help="held-out windows, text")
    instead = parser.add_mutually_exclusive_group().add_argument
    instead("--save", metavar="FOLDER", help="keep a tuned checkpoint there instead")
    instead("--transfer", metavar="FOLDER", help="mask neurons in that checkpoint, too, instead")
    for name, (field, how) in _OF_RECIPES.items():
        said = f"{field.replace('_', ' ')} of all recipes"
        add(f"--{name}", dest=f"recipe_{field}", help=said, **how)
    options = parser.parse_args(arguments)
    return exit_status(lambda: _tune(the_run(options), options))


def _tune(run: Run, options: argparse.Namespace) -> None:
    out = Path(options.out).absolute()
    with pipeline_of(run) as pipeline:
        given = {field: getattr(options, f"recipe_{field}") for field, _ in _OF_RECIPES.values()}
        given = {
            field: tuple(value) if isinstance(value, list) else value
            for field, value in given.items()
            if value is not None
        }
        recipes = {task: replace(recipe, **given) for task, recipe in RECIPES.items()}
        if options.save:
            save_tuned(pipeline, recipes["qa"], options.save)
            print(f"saved: {os.path.relpath(options.save)}")
            return
        if options.transfer:
            transfer = TransferPlan(
                draws=options.draws, questions=options.test, recipe=recipes["qa"]
            )
            ship_transfer(pipeline, options.transfer, transfer, out)
            return
        plan = Teaching(
            options.seeds,
            options.draws,
            options.tuned,
            options.test,
            recipes=recipes,
            whose=tuple(options.whose),
            value_draws=options.value_draws,
            random_values=tuple((name, "after") for name in options.random_values),
        )
        text = TextTeaching(options.seeds, options.tuned, options.windows, options.test)
        text = replace(text, recipe=replace(text.recipe, **given))
        taught = [part for part in options.parts if part in PARTS]
        if _TEXT in options.parts:
            require_text_teachable(pipeline, text)
        for part, task in product(taught, options.tasks):  # before the first of them is run
            require_teachable(pipeline, task, part, plan)
        if _TEXT in options.parts:
            ship_text_taught(pipeline, text, out)
        if _SETS in options.parts:
            out.mkdir(parents=True, exist_ok=True)
            sets = contenders(pipeline)
            write_table(shared_by_methods(sets).round(6), out / SHARED)
            write_table(layer_sizes(sets), out / SIZES)
            rates = rates_above_own_90th(act_prob_90p_scores(pipeline))
            write_table(rates.round(6), out / RATES)
        if _LOSSES in options.parts:
            nulls = Nulls.of(pipeline, str(run.parameters["null_data"]), 0)
            values = activation_values(pipeline)
            sets = contenders(pipeline)
            ship_value_losses(pipeline, sets, values, out, nulls)
            ship_value_masks(pipeline, sets, values, out, options.value_masks)
        for part, task in product(taught, options.tasks):
            ship_taught(pipeline, task, part, plan, out)


if __name__ == "__main__":
    sys.exit(main())
