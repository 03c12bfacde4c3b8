"""Languages deactivated one after another, and which of them still answers (paper 3's fallback).

The neurons of one language more are set to zero at every step, cumulatively. English questions are
asked, and the loss on held-out text is taken in every language. Beside it stand random sets with as
many neurons in every layer, added up in the same order, and the step with nothing deactivated,
which the paper leaves out.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from crane_core.interventions import intervened, zero
from crane_core.neurons import NeuronSet
from crane_lab.engines.perplexity import perplexity
from crane_lab.pipeline import Pipeline
from crane_lab.store.grown import Part, grow, made_of, read_grown, shipped_file
from crane_lab.study.many_languages import CRANE, LAPE, RELEVANCE, SIGNED, require_sets
from crane_lab.study.steering import (
    LONGEST,
    PENALTY,
    ForcedQuestion,
    answers_of,
    questions_digest,
    read_steering_questions,
    require_made_with,
)
from crane_lab.study.taught import RANDOM
from crane_lab.texts.told import identified, require_told

FILE = "fallback.csv"
KEYS = ["method", "order", "step", "language", "seed"]
_TEXTS = ("method", "order", "language", "asked", "off", "first")
#: Answers whose language cannot be told, empty ones among them.
UNTOLD = "cannot be told"


@dataclass(frozen=True)
class FallbackPlan:
    """What is run.

    `order`: the paper's, as far as there is text; `shuffles`: further orders, drawn from their
    number; `draws`: random sets beside each method's, in the paper's order; `windows`: of held-out
    text per language; `asked`: the questions' language.
    """

    order: tuple[str, ...] = ("en", "fr", "es", "it", "pt", "ru", "de", "ar", "zh", "ko", "ja")
    methods: tuple[str, ...] = (LAPE, RELEVANCE, SIGNED, CRANE)
    shuffles: int = 1
    draws: int = 2
    windows: int = 6
    asked: str = "en"

    def __post_init__(self) -> None:
        if self.draws < 0 or self.shuffles < 0:
            raise ValueError(
                f"{self.draws} random sets, {self.shuffles} drawn orders: expected no negative "
                "number"
            )

    def require_runnable(self, questions: str | Path) -> None:
        """Raise ValueError, before anything is run, for an order or questions that cannot be."""
        if not self.order:
            raise ValueError("the order is empty: expected a language or more")
        if twice := [x for x in self.order if self.order.count(x) > 1]:
            raise ValueError(f"the order has {twice[0]!r} twice: give it once")
        require_told(self.order)
        read_steering_questions([self.asked], questions)

    def orders(self) -> dict[str, list[str]]:
        """Name -> order of deactivation."""
        found = {"the paper's": list(self.order)}
        for number in range(self.shuffles):
            drawn = list(self.order)
            random.Random(number).shuffle(drawn)
            found[f"drawn {number}"] = drawn
        return found


def cumulative(sets: Mapping[str, NeuronSet], order: Sequence[str]) -> list[NeuronSet]:
    """What is off at every step, from nothing to all of the order's languages."""
    steps = [NeuronSet.empty(next(iter(sets.values())).shape)]
    for x in order:
        steps.append(steps[-1] | sets[x])
    return steps


def nested_random(steps: Sequence[NeuronSet], seed: int) -> list[NeuronSet]:
    """Random sets with as many neurons in every layer as each step, each within the next."""
    layers, width = steps[0].shape["intermediate"]
    generator = torch.Generator().manual_seed(seed)
    place = torch.stack([torch.randperm(width, generator=generator) for _ in range(layers)])
    return [
        NeuronSet({"intermediate": place < step.counts("intermediate")[:, None]}, step.shape)
        for step in steps
    ]


def answering(
    pipeline: Pipeline,
    neurons: NeuronSet,
    questions: Sequence[ForcedQuestion],
    windows: Mapping[str, Tensor],
) -> pd.DataFrame:
    """Which language answers, and every language's loss, with neurons set to zero.

    One row per language of `windows`, and one for `UNTOLD`: `answers`, how many of the questions
    are answered in it; `loss`, nats per token on its windows; `first`, the first answer.
    """
    languages = list(windows)
    off = zero(neurons)
    texts = answers_of(pipeline, [question.question for question in questions], off)
    counts = Counter(x or UNTOLD for x in identified(texts, languages))
    with intervened(pipeline.model, off):
        losses = {x: perplexity(pipeline.model, own).loss for x, own in windows.items()}
    rows = [
        {"language": x, "answers": counts[x], "loss": losses.get(x, float("nan"))}
        for x in (*languages, UNTOLD)
    ]
    return pd.DataFrame(rows).assign(first=texts[0])


def fallback_parts(
    pipeline: Pipeline,
    sets: Mapping[str, Mapping[str, NeuronSet]],
    plan: FallbackPlan,
    file: str | Path,
) -> Iterator[Part]:
    """Every step of every order, the paper's order with its random sets first."""
    questions = read_steering_questions([plan.asked], file)[plan.asked]
    windows = {x: pipeline.perplexity_windows[x][: plan.windows] for x in plan.order}
    orders = plan.orders()
    untouched = cache(
        partial(answering, pipeline, NeuronSet.empty(pipeline.shape), questions, windows)
    )
    runs = [
        ("the paper's", method, draw) for draw in range(-1, plan.draws) for method in plan.methods
    ]
    runs += [(name, method, -1) for name in list(orders)[1:] for method in plan.methods]
    for name, method, draw in runs:
        steps = cumulative(sets[method], orders[name])
        if draw >= 0:
            steps = nested_random(steps, zlib.crc32(f"{method} {name} {draw}".encode()))
        about = {"method": method if draw < 0 else f"{RANDOM} as {method}", "order": name}
        for step, neurons in enumerate(steps):
            more = {**about, "step": step, "seed": draw}
            keys = frozenset(
                tuple({**more, "language": x}[key] for key in KEYS) for x in (*windows, UNTOLD)
            )
            off = orders[name][step - 1] if step else ""
            row = {**more, "asked": plan.asked, "off": off, "n_neurons": len(neurons)}
            found = (
                untouched
                if not len(neurons)
                else partial(answering, pipeline, neurons, questions, windows)
            )
            compute = partial(_step, found, row)
            yield Part(f"{' '.join(map(str, more.values()))} {off}", keys, compute)


def _step(found: Callable[[], pd.DataFrame], row: Mapping[str, Any]) -> pd.DataFrame:
    return found().assign(**row).round(6)


def ship_fallback(
    pipeline: Pipeline,
    sets: Mapping[str, Mapping[str, NeuronSet]],
    plan: FallbackPlan,
    folder: str | Path,
    questions: str | Path,
) -> None:
    """Bring `FILE` and the record beside it to what the plan asks for (`store.grown`).

    Raises ValueError for a language that the identifier does not know, that comes twice, or that
    has no neurons under a method, and for an unknown method, before anything is generated.
    """
    plan.require_runnable(questions)
    require_sets(sets, plan.methods, plan.order, "--order")
    for method, of in sets.items():  # of all methods, which are in the record
        if missing := [x for x in plan.order if x not in of]:
            raise ValueError(f"{method} has no set of {missing[0]!r}: leave it out of --order")
    inputs = {
        "model": pipeline.loaded.lasting_key,
        # Of all methods, so that a table can grow by one.
        "sets": {m: {x: of[x].digest() for x in plan.order} for m, of in sets.items()},
        "order": list(plan.order),
        "windows": plan.windows,
        "asked": plan.asked,
        "questions": questions_digest(questions),
        "decoding": [LONGEST, PENALTY],
    }
    parts = fallback_parts(pipeline, sets, plan, questions)
    grow(Path(folder) / FILE, inputs, KEYS, _TEXTS, parts)


def windows_read(folder: str | Path) -> int:
    """Windows per language that a table of `ship_fallback` has losses on."""
    windows: int = made_of(Path(folder) / FILE, {})["inputs"]["windows"]
    return windows


def read_fallback(folder: str | Path, questions: str | Path | None = None) -> pd.DataFrame:
    """A table as `ship_fallback` wrote it, each method's random sets after its own.

    Raises FileNotFoundError, saying what makes it, without one; with `questions`, ValueError if it
    was made with other questions than that file's.
    """
    file = shipped_file(folder, FILE, "what is left without languages", "crane_lab.cli.steer")
    if questions is not None:
        require_made_with(file, questions)
    table = read_grown(file, _TEXTS)
    own = [x for x in table["method"].unique() if not x.startswith(RANDOM)]
    order = [name for x in own for name in (x, f"{RANDOM} as {x}")]
    places = table["method"].map(order.index)
    return table.iloc[places.argsort(kind="stable")].reset_index(drop=True)
