"""The LSN paper's two experiments on a task learned in English, as tables to ship.

*Activations* (its Tables 1, 2, 4 and 5): the whole model is tuned, then a language's neurons are
set to a value while its test items are answered, for every method of `contenders`, beside random
sets with as many neurons in every layer: many at zero, a few at the other values. *Weights*
(Tables 3, 7 and 8): attention is tuned and, of the MLPs, some languages' neurons only, for every
method; beside each method's set of source and first target, random ones of its size in every layer.
A target's neurons are set to a value after they were tuned, too.

A table grows by what it lacks (`store.grown`), all sets under one seed before the next. What is
asked of one tuned model is asked at once, so that nothing is compared with another run's; random
sets at values are asked of the same training made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from crane_core.baselines import random_matched
from crane_core.interventions import UNTOUCHED, Intervention
from crane_core.neurons import NeuronSet
from crane_lab.pipeline import Pipeline
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import Part, grow, made_of, read_grown
from crane_lab.study.activations import (
    Contenders,
    Values,
    Written,
    activation_values,
    setting,
    written_name,
)
from crane_lab.study.contenders import contenders
from crane_lab.study.tuned import (
    TASKS,
    require_items,
    require_number,
    tuned_outcomes,
    with_items,
)
from crane_lab.testbed.unseen import unseen_items
from crane_lab.tuning.lora import require_rank
from crane_lab.tuning.training import TuningRecipe

#: The paper's values other than zero, read where they are written.
AS_READ: tuple[tuple[str, str], ...] = tuple(
    (name, "after") for name in ("mean", "P5", "P10", "P25", "P75", "P90", "P95")
)
#: What a language's neurons are set to: those, and two of them as the paper's code reads them.
VALUES: tuple[Written, ...] = (None, *AS_READ, ("P10", "before"), ("P90", "before"))
#: Recipes that suit the testbed, by task.
RECIPES = {
    "nli": TuningRecipe(items=1500, epochs=2, learning_rate=2e-3),
    "qa": TuningRecipe(items=600, epochs=1, learning_rate=1e-3),
}
#: What a target's neurons are set to after they were tuned.
AFTER_TUNING: tuple[Written, ...] = (None, ("mean", "after"), ("P90", "after"))
PARTS = ("activations", "weights")
#: Whose neurons are tuned: the training language's, a target's, or both.
WHOSE = ("source", "target", "both")
RANDOM = "Random"
#: Seeds of random sets start here, so that none of them is a table's own random row or a null mask.
FIRST_DRAW = 10_000
#: Inputs of a record that say how, and with how much, was trained and asked.
HOW_MUCH = frozenset(("recipe", "items", "n_test", "n_windows", "n_questions"))
#: What identifies a row beside language and seed.
KEYS = ["method", "of", "draw", "set_to"]
_TEXTS = ("method", "of", "set_to", "right")


@dataclass(frozen=True)
class Teaching:
    """How much of both experiments is run.

    `seeds`: of training; `draws`, `tuned_draws`: random sets beside a set, the same under every
    seed, of activations at zero and of weights (which take a training each); `value_draws`: how
    many of the former are set to `random_values`, too; `n_test`: items per language; `source`: the
    language of the training; `recipes`: task -> how; `whose`: which of `WHOSE` are tuned of every
    method's sets.

    Raises ValueError for less than one training, or an unknown `whose` or value.
    """

    seeds: int = 5
    draws: int = 20
    tuned_draws: int = 4
    n_test: int = 200
    source: str = "en"
    recipes: Mapping[str, TuningRecipe] = field(default_factory=lambda: dict(RECIPES))
    whose: tuple[str, ...] = WHOSE
    value_draws: int = 5
    random_values: tuple[Written, ...] = AS_READ

    def __post_init__(self) -> None:
        if unknown := set(self.whose) - set(WHOSE):
            raise ValueError(f"whose neurons are tuned: expected some of {WHOSE}, got {unknown}")
        if unknown_values := set(self.random_values) - set(AS_READ):
            raise ValueError(f"random sets at {unknown_values}: expected some of {AS_READ}")
        if self.seeds < 1 or min(self.draws, self.value_draws, self.tuned_draws) < 0:
            raise ValueError(
                f"{self.seeds} trainings with {self.draws}, {self.value_draws} and "
                f"{self.tuned_draws} random sets: expected a training or more, and no negative "
                "number"
            )


#: What is asked of a tuned model: what a row says of it, and under which intervention.
_Asked = list[tuple[dict[str, Any], Intervention]]


@dataclass(frozen=True)
class _Training:
    """One training, whose neurons are tuned, and what is then asked under which intervention."""

    name: str
    seed: int
    neurons: NeuronSet | None
    asked: _Asked


def trainings(pipeline: Pipeline, part: str, plan: Teaching) -> Iterator[_Training]:
    """Everything that a part consists of, seed by seed.

    Raises ValueError for an unknown part, or languages without the source or a target.
    """
    _require_part(pipeline, part, plan)
    sets = sets_with_neurons(pipeline)
    none, values = NeuronSet.empty(pipeline.shape), activation_values(pipeline)
    # The same under every seed: whose neurons are tuned, and what is then asked.
    every: list[tuple[str, NeuronSet | None, _Asked]]
    if part == "activations":
        every = [("interventions", None, list(_interventions(sets, values, plan, none)))]
        if beside := list(_random_values(sets, values, plan)):
            every.append(("random sets at values", None, beside))
    else:
        every = []
        for about, neurons in _trained_sets(sets, plan, none):
            asked: _Asked = [({**about, "set_to": ""}, UNTOUCHED)]
            target = _target(about, plan.source)
            if about["method"] in sets and target:
                asked += [
                    (
                        {**about, "set_to": written_name(one)},
                        setting(sets[about["method"]][target], values, target, one),
                    )
                    for one in AFTER_TUNING
                ]
            every.append((str(about), neurons, asked))
    for seed in range(plan.seeds):
        for name, neurons, asked in every:
            yield _Training(name, seed, neurons, asked)


def _require_part(pipeline: Pipeline, part: str, plan: Teaching) -> None:
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r}: expected one of {PARTS}")
    languages = list(pipeline.settings.languages)
    if plan.source not in languages or len(languages) < 2:
        raise ValueError(f"languages {languages}: expected {plan.source!r} and a target or more")


def require_teachable(pipeline: Pipeline, task: str, part: str, plan: Teaching) -> None:
    """See, before any pass, that a plan can be run.

    Raises ValueError for an unknown task or part, languages without the source, a target or items,
    more items than there are, and a rank above the model's width.
    """
    require_items((plan.source, *pipeline.settings.languages), task)
    _require_part(pipeline, part, plan)
    require_number("items", plan.recipes[task].items, "train")
    require_number("n_test", plan.n_test, "test")
    require_rank(pipeline.model, plan.recipes[task].rank)


def sets_with_neurons(pipeline: Pipeline) -> dict[str, dict[str, NeuronSet]]:
    """The contenders' sets, but for those without neurons, of which there is nothing to do.

    Raises ValueError for a language of which no method finds any.
    """
    found = {
        method: {x: neurons for x, neurons in of.items() if len(neurons)}
        for method, of in contenders(pipeline).items()
    }
    for x in pipeline.settings.languages:
        if not any(x in of for of in found.values()):
            raise ValueError(
                f"no method finds neurons of {x!r}: expected a set to tune or to set; choose other "
                "thresholds or leave the language out"
            )
    return found


def _about(method: str, of: str, draw: int, neurons: NeuronSet | None) -> dict[str, Any]:
    n = -1 if neurons is None else len(neurons)
    return {"method": method, "of": of, "draw": draw, "n_neurons": n}


def _target(about: Mapping[str, Any], source: str) -> str:
    """The language beside the source whose neurons a row is about; "" if there is none."""
    last = str(about["of"]).rpartition("+")[2]
    return "" if last == source else last


def _interventions(
    sets: Contenders, values: Values, plan: Teaching, none: NeuronSet
) -> Iterator[tuple[dict[str, Any], Intervention]]:
    """What is done to whose neurons: every value to every method's, zero to random ones."""
    yield {**_about("none", "", -1, none), "set_to": ""}, UNTOUCHED
    for method, of in sets.items():
        for x in (x for x in of if x != plan.source):
            for one in VALUES:
                about = {**_about(method, x, -1, of[x]), "set_to": written_name(one)}
                yield about, setting(of[x], values, x, one)
            for draw in range(plan.draws):
                yield _random(method, x, draw, of[x], values, None)


def _random_values(
    sets: Contenders, values: Values, plan: Teaching
) -> Iterator[tuple[dict[str, Any], Intervention]]:
    """The first random sets of every method's, at other values than zero.

    A training of its own, so that a table can have them later; on one machine it is the same one.
    """
    for method, of in sets.items():
        for x in (x for x in of if x != plan.source):
            for draw in range(min(plan.draws, plan.value_draws)):
                for one in plan.random_values:
                    yield _random(method, x, draw, of[x], values, one)


def _random(
    method: str, language: str, draw: int, like: NeuronSet, values: Values, one: Written
) -> tuple[dict[str, Any], Intervention]:
    """A random set with as many neurons in every layer, each at its own value."""
    drawn = random_matched(like, FIRST_DRAW + draw)
    about = _about(f"{RANDOM} as {method}", language, draw, drawn)
    return {**about, "set_to": written_name(one)}, setting(drawn, values, language, one)


def _trained_sets(
    sets: Contenders, plan: Teaching, none: NeuronSet
) -> Iterator[tuple[dict[str, Any], NeuronSet | None]]:
    """Whose weights are tuned: source, target, both, random ones, none and all."""
    yield _about("none", "", -1, none), none
    yield _about("all", "", -1, None), None
    for method, of in sets.items():
        for x, neurons in of.items():
            if ("source" if x == plan.source else "target") in plan.whose:
                yield _about(method, x, -1, neurons), neurons
            if x != plan.source and plan.source in of and "both" in plan.whose:
                both = neurons | of[plan.source]
                yield _about(method, f"{plan.source}+{x}", -1, both), both
        target = next((x for x in of if x != plan.source), None)
        for draw in range(plan.tuned_draws if target and plan.source in of else 0):
            both = random_matched(of[plan.source] | of[str(target)], FIRST_DRAW + draw)
            yield _about(f"{RANDOM} as {method}", f"{plan.source}+{target}", draw, both), both


def ship_taught(
    pipeline: Pipeline, task: str, part: str, plan: Teaching, folder: str | Path
) -> None:
    """Bring a task's `lsn_<part>_<task>.csv` and `.json` to what the plan asks for.

    One row per training and intervention and language asked: `KEYS`, `n_neurons`, `seed`,
    `language`, `score` and, for qa, `f1`, means over items, and `right`, a 0 or 1 per item. Written
    after every training. Under an intervention only the language whose neurons they are is asked.

    Raises ValueError as `require_teachable` does, before anything is computed.
    """
    require_teachable(pipeline, task, part, plan)
    inputs = taught_inputs(pipeline, task, plan)
    file = Path(folder) / f"lsn_{part}_{task}.csv"
    parts = (
        Part(
            f"seed {training.seed}, {training.name}",
            frozenset(
                (*(about[key] for key in KEYS), training.seed) for about, _ in training.asked
            ),
            partial(_asked, pipeline, task, plan, training),
        )
        for training in trainings(pipeline, part, plan)
    )
    grow(file, inputs, [*KEYS, "seed"], _TEXTS, parts)


def _asked(
    pipeline: Pipeline,
    task: str,
    plan: Teaching,
    training: _Training,
) -> pd.DataFrame:
    asked = training.asked
    recipe = replace(plan.recipes[task], seed=training.seed)
    outcomes = tuned_outcomes(
        pipeline,
        task,
        recipe,
        training.neurons,
        {str(number): one for number, (_, one) in enumerate(asked)},
        plan.source,
        plan.n_test,
        {str(n): _target(about, plan.source) for n, (about, one) in enumerate(asked) if one.steps},
    )
    rows = []
    for (number, x), own in outcomes.groupby(["under", "language"], sort=False):
        about = asked[int(str(number))][0]
        row = {**about, "seed": training.seed, "language": x, "score": own["score"].mean()}
        if "f1" in own:
            row["f1"] = own["f1"].mean()
        rows.append({**row, "right": "".join(str(int(score)) for score in own["score"])})
    return pd.DataFrame(rows).round(6)


def read_taught(file: str | Path) -> pd.DataFrame:
    """A table as `ship_taught` wrote it."""
    return read_grown(file, _TEXTS)


def taught_tables(
    pipeline: Pipeline, part: str, folder: str | Path, seeds: int | None = None
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]:
    """A part's tables by task, as a folder has them, and by task what they were made with.

    With `seeds` they are brought up to so many trainings first. Records have `differing`, the
    inputs that are not this run's. A task whose table is not there is left out.

    Raises FileNotFoundError if the folder has none of them.
    """
    plan = Teaching() if seeds is None else Teaching(seeds=seeds)
    tables: dict[str, pd.DataFrame] = {}
    made: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        if seeds is not None:
            ship_taught(pipeline, task, part, plan, folder)
        file = Path(folder) / f"lsn_{part}_{task}.csv"
        if file.is_file():
            tables[task] = read_taught(file)
            made[task] = made_of(file, taught_inputs(pipeline, task, plan))
    if not tables:
        raise FileNotFoundError(
            f"no lsn_{part}_<task>.csv in {folder}: expected the results of trainings; set "
            "recompute_taught, or run python -m crane_lab.cli.tune"
        )
    return tables, made


def shipped_tables(
    part: str, folder: str | Path
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]:
    """A part's tables by task as a folder has them, whatever model they are of, and their records.

    Raises FileNotFoundError for a folder without any.
    """
    tables: dict[str, pd.DataFrame] = {}
    made: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        file = Path(folder) / f"lsn_{part}_{task}.csv"
        if file.is_file():
            tables[task], made[task] = read_taught(file), made_of(file, {})
    if not tables:
        raise FileNotFoundError(
            f"no lsn_{part}_<task>.csv in {folder}: expected the results of trainings; see "
            "python -m crane_lab.cli.tune --help"
        )
    return tables, made


def of_this_run(
    tables: Mapping[str, pd.DataFrame], made: Mapping[str, Mapping[str, Any]]
) -> dict[str, pd.DataFrame]:
    """Those tables that were made with a run's model and sets, by whatever recipe and items."""
    return {name: table for name, table in tables.items() if not others_of(made[name])}


def others_of(made: Mapping[str, Any]) -> set[str]:
    """Inputs of a record that are not this run's, beside how, and with how much, was trained."""
    return set(made["differing"]) - HOW_MUCH


def taught_inputs(pipeline: Pipeline, task: str, plan: Teaching) -> dict[str, Any]:
    """What a table depends on beside seeds and draws: model, sets, recipe, items.

    A run's language without items has none here; that `languages` differ, a record says.
    """
    test = unseen_items(task, "test")
    items = {
        "train": unseen_items(task, "train")[plan.source][: plan.recipes[task].items],
        **{x: test[x][: plan.n_test] for x in with_items(pipeline.settings.languages)},
    }
    return {
        **inputs_of_sets(pipeline),
        "recipe": asdict(plan.recipes[task]),
        "n_test": plan.n_test,
        "source": plan.source,
        "items": digest_of(canonical(items)),
    }


def inputs_of_sets(pipeline: Pipeline) -> dict[str, Any]:
    """The model, the languages and every method's sets, as records name them."""
    return {
        "model": pipeline.loaded.lasting_key,
        "sets": {m: [s.digest() for s in of.values()] for m, of in contenders(pipeline).items()},
        "languages": list(pipeline.settings.languages),
    }
