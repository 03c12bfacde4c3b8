"""Tasks of a model that is steered by a language's neurons (paper 3).

The mean of what a language's neurons put out is added to them, once, in all layers and at all
positions, while tasks are done in that language and in others: *facts* and *continuation* (four
options, the likeliest is taken), *translation* from the source language (a few translations are
shown first, then one is written), and *nli* as the second paper has it, learned in the source
language by the whole model. Beside every set stand random neurons to which the same is added, and
the model that nothing is done to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from crane_core.interventions import UNTOUCHED, Intervention, intervened
from crane_lab.engines.multiple_choice import Prepared, evaluate, prepare
from crane_lab.engines.tasks import Tasks, load_tasks, tasks_digests
from crane_lab.pipeline import Pipeline
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import Part, grow, made_of, read_grown, shipped_file
from crane_lab.study.many_languages import CRANE, LAPE, RELEVANCE, require_sets
from crane_lab.study.steering import (
    PENALTY,
    Setup,
    Steered,
    drawn_as,
    intervention_of,
    lines_after,
    values_digest,
)
from crane_lab.study.taught import RANDOM
from crane_lab.study.tuned import tuned_outcomes
from crane_lab.testbed.unseen import unseen_items
from crane_lab.testbed.world import LANGUAGES as NLI_LANGUAGES
from crane_lab.texts.held_out import held_out_paragraphs, translations
from crane_lab.texts.names import full_names
from crane_lab.texts.told import identified
from crane_lab.tuning.training import TuningRecipe

FILE = "steered_tasks.csv"
KEYS = ["task", "method", "activated", "language", "draw", "seed"]
_TEXTS = ("task", "method", "activated", "language", "right", "texts")
CHOICE = ("facts", "continuation")
TRANSLATION, NLI = "translation", "nli"
TASK_NAMES = ("facts", TRANSLATION, NLI, "continuation")
#: What is right by chance, where an answer is chosen.
FLOORS = {"facts": 1 / 4, "continuation": 1 / 4, NLI: 1 / 3}
#: How BLEU cuts a language that writes no spaces; sacrebleu's own default cuts the others.
_CUT = {"zh": "zh", "ja": "char"}


@dataclass(frozen=True)
class TaskPlan:
    """What is run.

    `languages`: tested and activated; `items`: of each task per language, `shots`: translations
    that are shown; `longest`: tokens of a translation; `draws`: random sets beside each set;
    `seeds`, `recipe`: trainings of nli.
    """

    languages: tuple[str, ...] = ("en", "zh", "vi")
    methods: tuple[str, ...] = (LAPE, RELEVANCE, CRANE)
    tasks: tuple[str, ...] = TASK_NAMES
    items: Mapping[str, int] = field(
        default_factory=lambda: {"facts": 80, TRANSLATION: 20, NLI: 60, "continuation": 24}
    )
    shots: int = 2
    longest: int = 64
    draws: int = 1
    seeds: int = 3
    source: str = "en"
    tasks_folder: str = "data/tasks"
    texts: str = "data/texts"
    recipe: TuningRecipe = field(
        default_factory=lambda: TuningRecipe(items=600, epochs=1, learning_rate=1e-3)
    )

    def require_runnable(self) -> None:
        """Raise ValueError, before anything is run, for what cannot be."""
        if unknown := [task for task in self.tasks if task not in TASK_NAMES]:
            raise ValueError(f"unknown task {unknown[0]!r}: expected some of {TASK_NAMES}")
        if missing := [task for task in TASK_NAMES if not self.items.get(task, 0) > 0]:
            raise ValueError(f"items has none of {missing[0]}: expected a number above 0")
        for name, least in (("shots", 0), ("draws", 0), ("seeds", 1), ("longest", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: expected {least} or more")
        if self.source not in self.languages or len(self.languages) < 2:
            raise ValueError(
                f"languages with tasks are {' '.join(self.languages)}: expected {self.source!r}, "
                "which is translated from, and one more"
            )
        if NLI in self.tasks and len(self.taught) < 2:
            raise ValueError(
                f"{NLI} has items in {', '.join(NLI_LANGUAGES)}: expected two of them, got "
                f"{' '.join(self.languages)}"
            )
        shown_and_asked(self)
        tasks_digests([f"{task}_{x}" for task in CHOICE for x in self.languages], self.tasks_folder)

    @property
    def taught(self) -> tuple[str, ...]:
        """Those of the languages that have items of nli."""
        return tuple(x for x in self.languages if x in NLI_LANGUAGES)


def interventions_of(
    steered: Steered, plan: TaskPlan
) -> Iterator[tuple[dict[str, Any], Intervention]]:
    """What is done to the model: nothing, then every language's neurons, and random ones."""
    yield {"method": "none", "activated": "", "draw": -1}, UNTOUCHED
    for draw in range(-1, plan.draws):
        for method in plan.methods:
            for x in plan.languages:
                neurons = steered.sets[method][x]
                drawn = drawn_as(neurons, method, x, draw) if draw >= 0 else None
                name = method if draw < 0 else f"{RANDOM} as {method}"
                one = intervention_of(steered, neurons, x, Setup("add"), as_drawn=drawn)
                yield {"method": name, "activated": x, "draw": draw}, one


def ship_steered_tasks(
    pipeline: Pipeline, steered: Steered, plan: TaskPlan, folder: str | Path
) -> None:
    """Bring `FILE` and the record beside it to what the plan asks for (`store.grown`).

    One row per task, intervention, tested language and training: `KEYS`; `right`, a 0 or 1 per
    item, and for translation `texts`, a JSON list of what was written.

    Raises ValueError for a language without neurons, task or text, before anything is run.
    """
    plan.require_runnable()
    require_sets(steered.sets, plan.methods, plan.languages, "--tested")
    names = [f"{task}_{x}" for task in CHOICE for x in plan.languages]
    inputs = {
        "model": pipeline.loaded.lasting_key,
        "sets": {m: {x: steered.sets[m][x].digest() for x in plan.languages} for m in plan.methods},
        "values": values_digest(
            {x: value for x, value in steered.values["mean"].items() if x in plan.languages}
        ),
        "languages": list(plan.languages),
        "source": plan.source,
        "items": dict(plan.items),
        "tasks": tasks_digests(names, plan.tasks_folder),
        "translations": digest_of(canonical(shown_and_asked(plan))),
        "decoding": [plan.shots, plan.longest, PENALTY],
        "recipe": asdict(plan.recipe),
        NLI: digest_of(
            canonical(
                [
                    unseen_items(NLI, "train")[plan.source][: plan.recipe.items],
                    *(unseen_items(NLI, "test")[x][: plan.items[NLI]] for x in plan.taught),
                ]
            )
        ),
    }
    grow(Path(folder) / FILE, inputs, KEYS, _TEXTS, _parts(pipeline, steered, plan))


def _parts(pipeline: Pipeline, steered: Steered, plan: TaskPlan) -> Iterator[Part]:
    under = list(interventions_of(steered, plan))
    for task in plan.tasks:
        if task == NLI:
            for seed in range(plan.seeds):
                keys = frozenset(
                    _key(task, about, x, seed) for about, _ in under for x in plan.taught
                )
                compute = partial(_taught, pipeline, plan, under, seed)
                yield Part(f"{task}, training {seed}", keys, compute)
            continue
        prepared = None
        if task in CHOICE:
            prepared = prepare(pipeline.model, pipeline.tokenizer, _same_items(task, plan))
        tested = [x for x in plan.languages if task != TRANSLATION or x != plan.source]
        for about, one in under:
            keys = frozenset(_key(task, about, x, 0) for x in tested)
            if prepared is None:
                compute = partial(_translated, pipeline, plan, about, one)
            else:
                compute = partial(_chosen, pipeline, prepared, task, about, one)
            yield Part(f"{task} {' '.join(map(str, about.values()))}", keys, compute)


def _same_items(task: str, plan: TaskPlan) -> Tasks:
    """A task in every language, with as many items as are asked for, the same ones in each.

    What is the same carries one `cluster`: a paragraph, or a fact. Of several items of a cluster
    the first is taken.

    Raises ValueError if the languages have fewer in common.
    """
    tasks = load_tasks([f"{task}_{x}" for x in plan.languages], plan.tasks_folder)
    places: list[dict[str, int]] = []
    for one in tasks.values():
        clusters = list(one.dataset["test"]["cluster"])
        places.append({name: clusters.index(name) for name in dict.fromkeys(clusters)})
    common = [name for name in places[0] if all(name in own for own in places)]
    n = plan.items[task]
    if len(common) < n:
        raise ValueError(
            f"{task} has {len(common)} items in all of {' '.join(plan.languages)}: expected {n}"
        )
    chosen = [common[place * len(common) // n] for place in range(n)]
    for one, own in zip(tasks.values(), places, strict=True):
        one.dataset["test"] = one.dataset["test"].select([own[name] for name in chosen])
    return tasks


def _key(task: str, about: Mapping[str, Any], language: str, seed: int) -> tuple[Any, ...]:
    row = {"task": task, **about, "language": language, "seed": seed}
    return tuple(row[name] for name in KEYS)


def _chosen(
    pipeline: Pipeline, prepared: Prepared, task: str, about: Mapping[str, Any], one: Intervention
) -> pd.DataFrame:
    with intervened(pipeline.model, one):
        items = evaluate(pipeline.model, prepared)
    rows = [
        {"task": task, **about, "language": x, "seed": 0, "right": _digits(own["correct"])}
        for x, own in items.groupby("language", sort=False)
    ]
    return pd.DataFrame(rows).assign(texts="")


def _taught(
    pipeline: Pipeline,
    plan: TaskPlan,
    under: Sequence[tuple[dict[str, Any], Intervention]],
    seed: int,
) -> pd.DataFrame:
    found = tuned_outcomes(
        pipeline.changed(languages=list(plan.taught)),
        NLI,
        replace(plan.recipe, seed=seed),
        under={str(number): one for number, (_, one) in enumerate(under)},
        source=plan.source,
        n_test=plan.items[NLI],
    )
    rows = []
    for (number, x), own in found.groupby(["under", "language"], sort=False):
        about = under[int(str(number))][0]
        row = {"task": NLI, **about, "language": x, "seed": seed}
        rows.append({**row, "right": _digits(own["score"]), "texts": ""})
    return pd.DataFrame(rows)


def _digits(values: pd.Series) -> str:
    return "".join(str(int(value)) for value in values)


def shown_and_asked(plan: TaskPlan) -> dict[str, list[str]]:
    """Translations of each other by language: `shots` that are shown first, then those asked for.

    Raises ValueError if the texts have too few of them.
    """
    paragraphs = held_out_paragraphs(plan.texts, plan.languages)
    return translations(paragraphs, plan.shots + plan.items[TRANSLATION], plan.source)


def _translated(
    pipeline: Pipeline, plan: TaskPlan, about: Mapping[str, Any], one: Intervention
) -> pd.DataFrame:
    texts, names, rows = shown_and_asked(plan), full_names(plan.languages), []
    for x in (x for x in plan.languages if x != plan.source):
        pairs = [
            f"{names[plan.source]}: {a}\n{names[x]}:{b}"
            for a, b in zip(
                texts[plan.source],
                [*(f" {own}" for own in texts[x][: plan.shots]), *[""] * plan.items[TRANSLATION]],
                strict=True,
            )
        ]
        shown = "\n\n".join(pairs[: plan.shots])
        prompts = [f"{shown}\n\n{asked}" for asked in pairs[plan.shots :]]
        said = lines_after(pipeline, prompts, one, plan.longest)
        row = {"task": TRANSLATION, **about, "language": x, "seed": 0, "right": ""}
        rows.append({**row, "texts": json.dumps(said, ensure_ascii=False)})
    return pd.DataFrame(rows)


def read_steered_tasks(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table as `ship_steered_tasks` wrote it, ordered by task, and its record.

    Raises FileNotFoundError, saying what makes it, without the file.
    """
    file = shipped_file(folder, FILE, "tasks under steering", "crane_lab.cli.steer --parts tasks")
    table = read_grown(file, _TEXTS)
    places = table["task"].map(TASK_NAMES.index)
    return table.iloc[places.argsort(kind="stable")].reset_index(drop=True), made_of(file, {})


def shipped_scores(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`task_scores` of a folder's table.

    Raises FileNotFoundError without it, and ValueError if its translations were of other texts than
    are at hand.
    """
    table, made = read_steered_tasks(folder)
    inputs = made["inputs"]
    plan = TaskPlan(tuple(inputs["languages"]), items=inputs["items"], shots=inputs["decoding"][0])
    texts = shown_and_asked(plan)
    if digest_of(canonical(texts)) != inputs["translations"]:
        raise ValueError(
            f"{FILE} in {folder} was made with other texts than those in {plan.texts}: run python "
            "-m crane_lab.cli.steer --parts tasks anew"
        )
    return task_scores(table, {x: own[plan.shots :] for x, own in texts.items()})


def task_scores(
    table: pd.DataFrame, references: Mapping[str, Sequence[str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of a table's rows, and what translations are worth as corpora.

    Returns the table with `scores`, a list of one number per item from 0 to 1 (right or not; chrF
    of the sentence), in place of `right` and `texts`; and of the translations, one row per
    `KEYS` without task and seed: `chrf` and `bleu`, 0 to 100, and the share that is `told` to be in
    the language translated into. `references`: language -> what each translation is held against.
    """
    chrf, corpora = CHRF(), []
    scores: list[Any] = []
    for row in table.to_dict("records"):
        if row["task"] != TRANSLATION:
            scores.append([int(digit) for digit in row["right"]])
            continue
        said, wanted = json.loads(row["texts"]), list(references[row["language"]])
        scores.append(
            [
                chrf.sentence_score(text, [reference]).score / 100
                for text, reference in zip(said, wanted, strict=True)
            ]
        )
        bleu = BLEU(tokenize=_CUT.get(row["language"]))
        corpora.append(
            {
                **{name: row[name] for name in ("method", "activated", "language", "draw")},
                "chrf": chrf.corpus_score(said, [wanted]).score,
                "bleu": bleu.corpus_score(said, [wanted]).score,
                "told": identified(said, sorted({*table["language"]})).count(row["language"])
                / len(said),
            }
        )
    kept = table[KEYS].assign(scores=scores)
    return kept, pd.DataFrame(corpora)
