"""Neurons tuned on text in their language: does it help more than tuning others? (2510.13580)

The LSN paper tunes a language's neurons on a task in English. Newer work tunes them on text in the
language itself and says that it helps. Here a method's neurons of a language are tuned and nothing
else is, on stories that the model never saw; what follows is the loss on other such stories in
every language, and questions on them. Beside each set stand random ones with as many neurons in
every layer, all neurons, and none.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from crane_core.baselines import random_matched
from crane_core.neurons import NeuronSet
from crane_core.windows import token_windows
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.store import source_digest
from crane_lab.store.files import canonical, digest_of
from crane_lab.store.grown import Part, grow, made_of, read_grown, shipped_file
from crane_lab.study.taught import FIRST_DRAW, RANDOM, inputs_of_sets, sets_with_neurons
from crane_lab.study.taught_effects import beside_draws
from crane_lab.study.tuned import ask_questions, require_items, require_number, with_items
from crane_lab.testbed.unseen import unseen_items
from crane_lab.testbed.world import LANGUAGES
from crane_lab.tuning.lora import require_rank
from crane_lab.tuning.training import TuningRecipe, tune_text

FILE = "lsn_text.csv"
#: What identifies a row, beside language and seed.
_KEYS = ["method", "of", "draw"]
_TEXTS = ("method", "of", "language")


@dataclass(frozen=True)
class TextTeaching:
    """How much is run.

    `seeds`: of training; `draws`: random sets beside a set; `n_windows`, `n_questions`: held out,
    per language; `recipe`: how, `items` windows of text; every language but `source` is tuned.
    """

    seeds: int = 5
    draws: int = 4
    n_windows: int = 150
    n_questions: int = 200
    source: str = "en"
    recipe: TuningRecipe = field(
        default_factory=lambda: TuningRecipe(items=600, epochs=1, learning_rate=2e-3)
    )


def require_text_teachable(pipeline: Pipeline, plan: TextTeaching) -> None:
    """See, before any pass, that a plan can be run.

    Raises ValueError for languages without items, without a target, texts too short for the
    windows, more questions than there are, or a rank above the model's width.
    """
    languages = list(pipeline.settings.languages)
    require_items((plan.source, *languages), "qa")
    if not (targets := [x for x in languages if x != plan.source]):
        raise ValueError(f"languages {languages}: expected one beside {plan.source!r}")
    require_number("n_questions", plan.n_questions, "test")
    require_rank(pipeline.model, plan.recipe.rank)
    for x in targets:
        _windows(pipeline, x, "train", plan.recipe.items)
    for x in languages:
        _windows(pipeline, x, "test", plan.n_windows)


def ship_text_taught(pipeline: Pipeline, plan: TextTeaching, folder: str | Path) -> None:
    """Bring `lsn_text.csv` and `.json` in a folder to what the plan asks for.

    One row per training and language of the text: `method`, `of` (the language tuned), `draw`,
    `n_neurons`, `seed`, `language`, `loss` (nats per token), `change` from the untuned model's with
    its standard error over windows (`error`), and, in the language that was tuned, `exact`, the
    share of questions answered.

    Raises ValueError as `require_text_teachable` does, before anything is computed.
    """
    require_text_teachable(pipeline, plan)
    file = Path(folder) / FILE
    languages = list(pipeline.settings.languages)
    sets = sets_with_neurons(pipeline)
    jobs: list[tuple[dict[str, Any], NeuronSet | None]] = []
    for x in (x for x in languages if x != plan.source):
        jobs += [(_about("none", x, -1), NeuronSet.empty(pipeline.shape))]
        jobs += [(_about("all", x, -1), None)]
        for method, of in sets.items():
            if x not in of:
                continue
            jobs.append((_about(method, x, -1), of[x]))
            for draw in range(plan.draws):
                drawn = random_matched(of[x], FIRST_DRAW + draw)
                jobs.append((_about(f"{RANDOM} as {method}", x, draw), drawn))
    parts = (
        Part(
            f"seed {seed}, {about}",
            frozenset((*(about[key] for key in _KEYS), seed, x) for x in languages),
            partial(_rows, pipeline, plan, about, seed, neurons),
        )
        for seed in range(plan.seeds)
        for about, neurons in jobs
    )
    grow(file, text_inputs(pipeline, plan), [*_KEYS, "seed", "language"], _TEXTS, parts)


def read_text_taught(
    pipeline: Pipeline, folder: str | Path, seeds: int | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and what it was made with, as `taught.taught_tables` returns a part's.

    Raises FileNotFoundError if the folder has none.
    """
    plan = TextTeaching() if seeds is None else TextTeaching(seeds=seeds)
    if seeds is not None:
        ship_text_taught(pipeline, plan, folder)
    file = _there(folder)
    return read_grown(file, _TEXTS), made_of(file, text_inputs(pipeline, plan))


def shipped_text(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of a folder, whatever model it is of, and its record.

    Raises FileNotFoundError if the folder has none.
    """
    file = _there(folder)
    return read_grown(file, _TEXTS), made_of(file, {})


def _there(folder: str | Path) -> Path:
    wanted = "the results of trainings; set recompute_taught, or use the command"
    return shipped_file(folder, FILE, wanted, "crane_lab.cli.tune --parts text")


def text_inputs(pipeline: Pipeline, plan: TextTeaching) -> dict[str, Any]:
    """What the table depends on beside seeds and draws.

    A run's language without items has none here; that `languages` differ, a record says.
    """
    languages = with_items(pipeline.settings.languages)
    targets = [x for x in languages if x != plan.source]
    learned = {x: _windows(pipeline, x, "train", plan.recipe.items).tolist() for x in targets}
    read = {x: _windows(pipeline, x, "test", plan.n_windows).tolist() for x in languages}
    asked = {x: unseen_items("qa", "test")[x][: plan.n_questions] for x in targets}
    return {
        **inputs_of_sets(pipeline),
        "recipe": asdict(plan.recipe),
        "n_windows": plan.n_windows,
        "n_questions": plan.n_questions,
        "source": plan.source,
        "items": digest_of(canonical([learned, read, asked])),
    }


def _about(method: str, of: str, draw: int) -> dict[str, Any]:
    return {"method": method, "of": of, "draw": draw}


def _rows(
    pipeline: Pipeline,
    plan: TextTeaching,
    about: Mapping[str, Any],
    seed: int,
    neurons: NeuronSet | None,
) -> pd.DataFrame:
    recipe = replace(plan.recipe, seed=seed)
    empty = NeuronSet.empty(pipeline.shape)
    plain = tuned_on_text(pipeline, recipe, empty, about["of"], plan.n_windows, plan.n_questions)
    own = tuned_on_text(pipeline, recipe, neurons, about["of"], plan.n_windows, plan.n_questions)
    rows = []
    for x in pipeline.settings.languages:
        now, before = (found[found["text"] == x]["value"].to_numpy() for found in (own, plain))
        asked = own[own["text"] == f"questions {x}"]["value"]
        rows.append(
            {
                **about,
                "n_neurons": -1 if neurons is None else len(neurons),
                "seed": seed,
                "language": x,
                "loss": now.mean(),
                "change": (now - before).mean(),
                "error": stats.sem(now - before),
                "exact": asked.mean() if len(asked) else np.nan,
            }
        )
    return pd.DataFrame(rows).round(6)


def tuned_on_text(
    pipeline: Pipeline,
    recipe: TuningRecipe,
    neurons: NeuronSet | None,
    language: str,
    n_windows: int = 150,
    n_questions: int = 200,
) -> pd.DataFrame:
    """Tune neurons' weights on text in a language and read every language's loss.

    Parameters
    ----------
    pipeline : whose model is tuned; it stays as it is.
    recipe : how; `items` is the number of windows that are learned.
    neurons : whose weights are tuned; None for all, an empty set for none: nothing is trained.
    language : of the text, and of the questions asked afterwards.
    n_windows, n_questions : held-out windows of each language, and questions.

    Returns
    -------
    `text` (a language, or "questions <language>") and `value`: a window's loss in nats per token,
    or 1.0 for a question that is answered to the word.

    Raises ValueError for a language without stories, more questions than there are, or too few
    texts.
    """
    if language not in LANGUAGES:
        raise ValueError(f"{language!r} has no stories: expected {', '.join(LANGUAGES)}")
    require_number("n_questions", n_questions, "test")
    languages = list(pipeline.settings.languages)
    require_items(languages, "qa")
    learned = _windows(pipeline, language, "train", recipe.items)
    held_out = {x: _windows(pipeline, x, "test", n_windows) for x in languages}
    questions = unseen_items("qa", "test")[language][:n_questions]
    untouched = neurons is not None and not len(neurons)
    key = {
        "model": pipeline.loaded.key,
        "recipe": None if untouched else asdict(recipe),
        "texts": digest_of(
            canonical([learned.tolist(), {x: own.tolist() for x, own in held_out.items()}])
        ),
        "questions": digest_of(canonical(list(questions))),
        "neurons": "all" if neurons is None else neurons.digest(),
        "code": source_digest(__name__),
    }

    def compute() -> pd.DataFrame:
        model = copy.deepcopy(pipeline.model)
        if not untouched:
            tune_text(model, learned, neurons, recipe)
        found = [
            pd.DataFrame({"text": x, "value": perplexity(model, own).losses.double().numpy()})
            for x, own in held_out.items()
        ]
        asked = ask_questions(model, pipeline.tokenizer, language, questions)
        score = [row["score"] for row in asked]
        found.append(pd.DataFrame({"text": f"questions {language}", "value": score}))
        return pd.concat(found, ignore_index=True)

    return pipeline.store.table("tuned_on_text", key, compute)


def _windows(pipeline: Pipeline, language: str, part: str, n: int) -> Tensor:
    stories = [str(item["passage"]) for item in unseen_items("qa", part)[language]]
    settings = pipeline.settings
    return token_windows(pipeline.tokenizer, stories, n, settings.window, settings.seed)


def text_effects(table: pd.DataFrame) -> pd.DataFrame:
    """What tuning on text does, over trainings: by method, language tuned (`of`) and of the text.

    Columns: `n_neurons`, `seeds`, `change` of loss with `low` and `high` (95 %, for other trainings
    and other windows), `exact`, and, beside random sets tuned likewise in the same trainings,
    `draws`, `random` (their mean change) with `random_low`, `random_high` (range over draws),
    `random_exact`, and `beyond`: how much lower the loss is than theirs, with `beyond_low` and
    `beyond_high` (`taught_effects.beside_draws`).
    """
    prefix = f"{RANDOM} as "
    random = table[table["method"].str.startswith(prefix)]
    rows = []
    chosen = table[~table.index.isin(random.index)]
    for (method, of, language), own in chosen.groupby(["method", "of", "language"], sort=False):
        changes, n = own["change"].to_numpy(float), len(own)
        variance = np.square(own["error"].to_numpy(float)).mean()
        variance += changes.var(ddof=1) / n if n > 1 else np.nan
        half = stats.t.ppf(0.975, n - 1) * np.sqrt(variance) if n > 1 else np.nan
        if method == "none":
            half = 0.0  # nothing was trained, and nothing changes
        row = {"method": method, "of": of, "language": language, "seeds": n}
        row |= {"n_neurons": int(own["n_neurons"].iloc[0]), "exact": own["exact"].mean()}
        mean = changes.mean()
        row |= {"change": mean, "low": mean - half, "high": mean + half}
        same = random[
            (random["method"] == f"{prefix}{method}")
            & (random["of"] == of)
            & (random["language"] == language)
        ]
        wide = same.pivot_table(index="seed", columns="draw", values="change").dropna()
        by_seed = own.set_index("seed")["change"]
        seeds = [seed for seed in wide.index if seed in by_seed.index]
        if seeds:
            apart = by_seed[seeds].to_numpy(float)[:, None] - wide.loc[seeds].to_numpy(float)
            beyond, low, high, _ = beside_draws(-apart)
            by_draw = wide.loc[seeds].mean()
            row |= {"draws": len(by_draw), "random": by_draw.mean()}
            row |= {"random_low": by_draw.min(), "random_high": by_draw.max()}
            row |= {"random_exact": same[same["seed"].isin(seeds)]["exact"].mean()}
            row |= {"beyond": beyond, "beyond_low": low, "beyond_high": high}
        rows.append(row)
    return pd.DataFrame(rows)
