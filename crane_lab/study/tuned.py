"""A task learned in one language and asked in all (the LSN paper's Tables 1 to 5, 7 and 8).

Trained are attention and the chosen neurons (`tuning.lora`), on items in one language; asked are
the same test items in every language, unmodified or under interventions. Each training is kept in
the store as the outcome of every item, so that seeds and sets can be compared item by item.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crane_core.families import mlp_sites
from crane_core.interventions import UNTOUCHED, Intervention, intervened
from crane_core.masking import bake
from crane_core.neurons import NeuronSet
from crane_lab.engines.decoding import Greedy, end_tokens
from crane_lab.pipeline import Pipeline
from crane_lab.store import source_digest
from crane_lab.store.files import canonical, digest_of
from crane_lab.testbed.unseen import PARTS, unseen_items
from crane_lab.testbed.world import LANGUAGES, build
from crane_lab.tuning.items import (
    STOP,
    nli_ids,
    qa_answers,
    qa_prompts,
    span_scores,
    validate_items,
)
from crane_lab.tuning.lora import require_rank
from crane_lab.tuning.training import (
    TuningRecipe,
    last_states,
    tune_classifier,
    tune_generator,
)

TASKS = ("nli", "qa")
#: Tokens of an answer at most.
_LONGEST = 20
_AT_ONCE = 64

Items = Mapping[str, Sequence[Mapping[str, Any]]]


def require_items(languages: Sequence[str], task: str) -> None:
    """Raise ValueError for an unknown task, or a language that has no items of it."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: expected one of {TASKS}")
    if missing := [x for x in languages if x not in LANGUAGES]:
        raise ValueError(f"{missing[0]!r} has no items of {task}: expected {', '.join(LANGUAGES)}")


def with_items(languages: Sequence[str]) -> list[str]:
    """Those of the languages that have items, for tables that are read whatever a run's are."""
    return [x for x in languages if x in LANGUAGES]


def require_number(name: str, asked: int, part: str) -> None:
    """Raise ValueError for more items of a part than there are, or none."""
    if not 1 <= asked <= PARTS[part]:
        raise ValueError(f"{name} is {asked}: expected 1 to {PARTS[part]}")


def tuned_outcomes(
    pipeline: Pipeline,
    task: str,
    recipe: TuningRecipe,
    neurons: NeuronSet | None = None,
    under: Mapping[str, Intervention] | None = None,
    source: str = "en",
    n_test: int = 300,
    only: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Train on `source` and ask in every language of the run, under each intervention.

    Parameters
    ----------
    pipeline : whose model is tuned; it stays as it is.
    task : one of `TASKS`.
    recipe : how; its seed is that of the training, the items are always the same.
    neurons : whose weights are trained beside attention's; None for all, an empty set for none.
    under : name -> intervention on the tuned model; by default none, called "none".
    n_test : test items per language.
    only : intervention's name -> the one language that is asked under it.

    Returns
    -------
    One row per intervention, language and item: `under`, `language`, `id`, `score` (nli: right or
    not; qa: exact match) and, for qa, `f1`.

    Raises ValueError for an unknown task, a language without items, or more than there are.
    """
    languages = list(pipeline.settings.languages)
    require_items((source, *languages), task)
    require_number("items", recipe.items, "train")
    require_number("n_test", n_test, "test")
    under, only = {"none": UNTOUCHED} if under is None else under, only or {}
    train = {source: unseen_items(task, "train")[source][: recipe.items]}
    test = {x: unseen_items(task, "test")[x][:n_test] for x in languages}
    for own in test.values():  # before a training, not after it
        validate_items(task, own)
    key = {
        "model": pipeline.loaded.key,
        "task": task,
        "recipe": asdict(recipe),
        "items": digest_of(canonical([train, test])),
        "source": source,
        "neurons": "all" if neurons is None else neurons.digest(),
        "under": {name: one.digest() for name, one in under.items()},
        "only": dict(only),
        "code": source_digest(__name__),
    }

    def compute() -> pd.DataFrame:
        model = copy.deepcopy(pipeline.model)
        tune = _CLASSES[task](model, pipeline.tokenizer)
        tune.learn(train, recipe, neurons)
        rows = []
        for name, one in under.items():
            with intervened(model, one):
                for x in [only[name]] if name in only else languages:
                    rows += [{"under": name, "language": x, **row} for row in tune.ask(x, test[x])]
        return pd.DataFrame(rows)

    return pipeline.store.table("tuned", key, compute)


def untuned_answers(pipeline: Pipeline, n_test: int = 200) -> dict[str, float]:
    """Share of `qa`'s test items that the model answers to the word as it is, by language.

    A language without items is left out.

    Raises ValueError for no items, or more than there are.
    """
    require_number("n_test", n_test, "test")
    languages = with_items(pipeline.settings.languages)
    if not languages:
        return {}
    test = {x: unseen_items("qa", "test")[x][:n_test] for x in languages}
    key = {
        "model": pipeline.loaded.key,
        "items": digest_of(canonical(test)),
        "code": source_digest(__name__),
    }

    def compute() -> pd.DataFrame:
        rows = []
        for x, items in test.items():
            asked = ask_questions(pipeline.model, pipeline.tokenizer, x, items)
            rows += [{"language": x, "score": row["score"]} for row in asked]
        return pd.DataFrame(rows)

    found = pipeline.store.table("untuned", key, compute)
    return {str(x): float(own) for x, own in found.groupby("language")["score"].mean().items()}


def save_tuned(
    pipeline: Pipeline, recipe: TuningRecipe, folder: str | Path, source: str = "en"
) -> None:
    """Tune attention and all neurons on `qa` in `source`, and keep model and tokenizer.

    The folder is there as a whole or not at all, with checksums (`bake` of no neuron).

    Raises FileExistsError if there is something already, and ValueError for a language without
    items, more items than there are, or a rank above the model's width.
    """
    if Path(folder).exists():  # before the training, not after it
        raise FileExistsError(f"{folder} exists: expected a new folder for the tuned model")
    require_items([source], "qa")
    require_number("items", recipe.items, "train")
    require_rank(pipeline.model, recipe.rank)
    model = copy.deepcopy(pipeline.model)
    train = {source: unseen_items("qa", "train")[source][: recipe.items]}
    _QA(model, pipeline.tokenizer).learn(train, recipe, None)
    bake(model, NeuronSet.empty(pipeline.shape), folder, pipeline.tokenizer)


def changed_weights(
    pipeline: Pipeline, neurons: NeuronSet, recipe: TuningRecipe, source: str = "en"
) -> pd.DataFrame:
    """Which of the MLP's weights a short training on `nli` changes, with `neurons` chosen.

    One row per projection: weights of `chosen` neurons and how many `changed`, weights of the
    `others` and how many of those changed (`others_changed`), bit by bit.
    """
    model = copy.deepcopy(pipeline.model)
    train = {source: unseen_items("nli", "train")[source][: recipe.items]}
    _NLI(model, pipeline.tokenizer).learn(train, recipe, neurons)
    before, after = mlp_sites(pipeline.model), mlp_sites(model)
    rows = []
    for name in ("gate_proj", "up_proj", "down_proj"):
        row: dict[str, Any] = {"projection": name}
        row |= dict.fromkeys(("chosen", "changed", "others", "others_changed"), 0)
        for layer, (old, new) in enumerate(zip(before, after, strict=True)):
            weights = (getattr(mlp, name).weight for mlp in (old, new))
            first, second = (w.T if name == "down_proj" else w for w in weights)
            different = (first != second).cpu()
            own = neurons.mask("intermediate")[layer]
            for kind, rows_of in (("chosen", own), ("others", ~own)):
                row[kind] += different[rows_of].numel()
                changed = "changed" if kind == "chosen" else "others_changed"
                row[changed] += int(different[rows_of].sum())
        rows.append(row)
    return pd.DataFrame(rows)


class _NLI:
    """Premise and hypothesis, read at their last token by a linear head."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer

    def learn(self, items: Items, recipe: TuningRecipe, neurons: NeuronSet | None) -> None:
        every = [item for own in items.values() for item in own]
        validate_items("nli", every)
        labels = [int(item["label"]) for item in every]
        texts = nli_ids(self.tokenizer, every)
        self.head = tune_classifier(self.model, texts, labels, neurons, recipe)

    @torch.no_grad()
    def ask(self, language: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        texts = nli_ids(self.tokenizer, items)
        found: list[dict[str, Any]] = []
        for start in range(0, len(items), _AT_ONCE):
            said = self.head(last_states(self.model, texts[start : start + _AT_ONCE])).argmax(1)
            for item, label in zip(items[start:], said.tolist(), strict=False):
                found.append({"id": item["id"], "score": float(label == item["label"])})
        return found


class _QA:
    """A question on a passage, answered by going on with it."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer

    def learn(self, items: Items, recipe: TuningRecipe, neurons: NeuronSet | None) -> None:
        prompts, answers = [], []
        for x, own in items.items():
            validate_items("qa", own)
            frame, before = question_frame(x)
            prompts += qa_prompts(self.tokenizer, own, frame)
            answers += qa_answers(self.tokenizer, own, before)
        tune_generator(self.model, prompts, answers, neurons, recipe)

    def ask(self, language: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return ask_questions(self.model, self.tokenizer, language, items)


_CLASSES: dict[str, Any] = {"nli": _NLI, "qa": _QA}


def question_frame(language: str) -> tuple[str, str]:
    """How a question is put in a language, and what stands before the answer."""
    phrases = build(language).phrases
    labels = phrases["labels"]
    frame = f"{{passage}}\n{labels['question']}{{question}}\n{labels['answer']}"
    return frame, phrases["space"]


def ask_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    language: str,
    items: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What a model answers to items of `qa`: `id`, `score` (exact match) and `f1` of each."""
    prompts = qa_prompts(tokenizer, items, question_frame(language)[0])
    ends = end_tokens(model.generation_config, tokenizer)
    decoder = Greedy(model, tokenizer, ends, (STOP,), batch_size=_AT_ONCE)
    said = decoder.tokens(prompts, [_LONGEST] * len(prompts))
    found = []
    for item, ids in zip(items, said, strict=True):
        text = str(tokenizer.decode(ids, skip_special_tokens=True)).partition(STOP)[0]
        exact, f1 = span_scores(text, str(item["answer"]), language)
        found.append({"id": item["id"], "score": exact, "f1": f1})
    return found
