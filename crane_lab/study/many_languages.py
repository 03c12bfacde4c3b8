"""Neurons of many languages at once (the language-arithmetics paper), and what makes a set.

Each language's windows are read in parts of equal size, so that one pass gives the sets, the sets
of every part alone (how stable they are), and the sets when one language's text is replaced by what
keeps its words and loses its script or its order (`texts.controls`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from crane_core import baselines, concentration
from crane_core.accumulators import ActivationMeans, ActiveCounts, Reader
from crane_core.concentration import Collected
from crane_core.neurons import NeuronSet
from crane_core.selection import normalise, select
from crane_core.windows import token_windows
from crane_lab.pipeline import Pipeline
from crane_lab.stages import relevance, streams
from crane_lab.store import source_digest, write_table
from crane_lab.store.files import write_text
from crane_lab.store.grown import shipped_file
from crane_lab.store.machine import made_with
from crane_lab.study import criteria
from crane_lab.study.contenders import lape_among
from crane_lab.study.language_profiles import late_layers
from crane_lab.study.sharing import overlap_row
from crane_lab.texts import controls

#: Methods by the names that the book gives them. CRANE's rule and the contrast of relevance give a
#: neuron to one language at most; without, languages can share it.
LAPE, CRANE, RELEVANCE = "LAPE", "CRANE", "mean |relevance|"
#: Notebook 19's other candidate.
SIGNED = "signed mean"
CRANE_SHARED, RELEVANCE_SHARED = "CRANE, threshold alone", "mean |relevance|, own share"
METHODS = (LAPE, CRANE, CRANE_SHARED, RELEVANCE, RELEVANCE_SHARED, SIGNED)
#: Those that compare languages.
CONTRASTS = (LAPE, CRANE, RELEVANCE)
#: Those whose sets can overlap.
SHARING = (LAPE, CRANE_SHARED, RELEVANCE_SHARED)
#: Files of sets, of what halves share, and of what controls share.
SETS = "languages_sets.json"
STABILITY, CONTROLS = "languages_stability.csv", "languages_controls.csv"
#: LAPE's sets by how many neurons it takes, and among which languages.
LAPE_CHOICES = "languages_lape.csv"
#: The third paper's rates, and the second paper's first choice of languages, at LAPE's own rate.
RATES = (0.01, 0.02, 0.03, 0.04, 0.05)
SET1 = ("en", "fr", "es", "vi", "id", "ja", "zh")
#: Languages that are also read in Latin letters, and with their words shuffled.
ROMANISED = ("ru", "uk", "el", "ar", "ko", "ja", "zh")
SHUFFLED = ("en", "de", "fr", "vi", *ROMANISED)

#: What a part of a language's windows leaves: "relevance", "active", "means".
Kept = dict[str, Any]
Sets = dict[str, dict[str, NeuronSet]]


@dataclass(frozen=True)
class Choice:
    """How sets are chosen: `rate` of all neurons for LAPE, and for each language by relevance.

    CRANE's rule is the pipeline's settings' own. Raises ValueError for what is no share.
    """

    rate: float = 0.02
    share: float = 0.01
    parts: int = 4

    def __post_init__(self) -> None:
        for name, value in (("rate", self.rate), ("share", self.share)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} is {value}: expected more than 0 and at most 1")


def read_parts(pipeline: Pipeline, language: str, parts: int, control: str = "") -> list[Kept]:
    """What each part of a language's windows leaves, or of its text under one of `CONTROLS`.

    Windows are dealt out in turn. Raises ValueError for windows that do not divide by `parts`, and
    for an unknown control.
    """
    s = pipeline.settings
    if parts < 2 or s.n_samples % parts:
        raise ValueError(f"{s.n_samples} windows in {parts} parts: expected two or more equal ones")
    if control and control not in controls.CONTROLS:
        raise ValueError(f"unknown control {control!r}: expected one of {list(controls.CONTROLS)}")
    size = pipeline.shape["intermediate"]
    readers = {
        "relevance": Reader("intermediate", lambda: Collected(size, 0)),
        "active": Reader("act_fn", lambda: ActiveCounts(size)),
        "means": Reader("act_fn", lambda: ActivationMeans(size)),
    }
    windows = cache(partial(_windows, pipeline, language, control))  # only if they are needed
    found = []
    for part in range(parts):
        key = {
            **pipeline.relevance_key(language),
            "control": control,
            "part": [part, parts],
            "code": source_digest(relevance.__name__, controls.__name__, concentration.__name__),
        }
        found.append(
            streams.collect(
                pipeline.store,
                key,
                lambda part=part: windows()[part::parts],  # type: ignore[misc]
                (s.n_samples // parts, s.batch_size),
                readers,
                relevance.reading(pipeline.model, pipeline.how, readers),
                stage="languages",
                desc=f"{language} {control} {part + 1} of {parts}",
            )
        )
    return found


def _windows(pipeline: Pipeline, language: str, control: str) -> Tensor:
    s = pipeline.settings
    if not control:
        return pipeline.windows[language]
    texts = [controls.CONTROLS[control](text) for text in pipeline.corpus.texts(language)]
    return token_windows(
        pipeline.tokenizer, texts, s.n_samples, s.window, s.seed, opening=s.window_opening
    )


def merged(parts: Sequence[Kept]) -> Kept:
    """The parts as one; they stay as they are."""
    whole = copy.deepcopy(dict(parts[0]))
    for part in parts[1:]:
        for name, accumulator in whole.items():
            accumulator.merge(part[name])
    return whole


def sets_of(pipeline: Pipeline, kept: Mapping[str, Kept], choice: Choice) -> Sets:
    """Every method's set of every language: method -> language -> intermediate neurons.

    `LAPE` with a top rate (the paper's 2 %); `CRANE` by the settings' rule, and `CRANE_SHARED` by
    their threshold alone; `RELEVANCE`: the same share of all neurons for each language, by the
    relative contrast of mean |relevance|, fewer if it is above zero in fewer,
    `RELEVANCE_SHARED` by its share of the neuron's relevance in all languages, and `SIGNED` by the
    difference of signed mean relevance.
    """
    s, size = pipeline.settings, pipeline.shape["intermediate"]
    shape = {"intermediate": size}
    over = {x: own["active"].over for x, own in kept.items()}
    tokens = {x: own["active"].tokens for x, own in kept.items()}
    kurtosis, relevance_of, signed = (
        {x: concentration.compute(name, own["relevance"]) for x, own in kept.items()}
        for name in ("kurtosis", "mean_abs", "signed_mean")
    )
    normalised = {x: normalise(values, s.normalisation) for x, values in kurtosis.items()}
    n = round(choice.share * size[0] * size[1])

    def crane(rule: str) -> dict[str, NeuronSet]:
        return {x: select(normalised, x, rule, s.threshold, s.budget, shape=shape) for x in kept}

    def best(scores: Mapping[str, Tensor]) -> dict[str, NeuronSet]:
        chosen = {x: criteria.order(v)[: min(n, int((v > 0).sum()))] for x, v in scores.items()}
        return {x: NeuronSet.from_flat(own, size) for x, own in chosen.items()}

    return {
        LAPE: baselines.lape(over, tokens, choice.rate, shape=shape),
        CRANE: crane(s.rule),
        CRANE_SHARED: crane("threshold"),
        RELEVANCE: best(criteria.relative_contrasts(relevance_of)),
        RELEVANCE_SHARED: best(criteria.relative_shares(relevance_of)),
        SIGNED: best(criteria.contrasted(signed)),
    }


def stability(
    pipeline: Pipeline, parts: Mapping[str, Sequence[Kept]], choice: Choice
) -> pd.DataFrame:
    """How much of a language's set is the same from other windows, by how many are read.

    One row per method, language and number of `windows`: what two sets from so many windows each,
    none of them the same, share (`overlap_row`).
    """
    rows = []
    total = len(next(iter(parts.values())))
    for n in sorted({1, total // 2}):
        halves = [
            sets_of(
                pipeline, {x: merged(own[start : start + n]) for x, own in parts.items()}, choice
            )
            for start in (0, n)
        ]
        for method in METHODS:
            for x in parts:
                a, b = (half[method][x] for half in halves)
                if len(a) and len(b):
                    about = {"method": method, "language": x}
                    windows = n * pipeline.settings.n_samples // total
                    rows.append({**about, "windows": windows, **overlap_row(a, b)})
    return pd.DataFrame(rows)


def controlled(
    pipeline: Pipeline,
    parts: Mapping[str, Sequence[Kept]],
    others: Mapping[tuple[str, str], Sequence[Kept]],
    choice: Choice,
) -> pd.DataFrame:
    """What a language's set shares with that of its own text under a control, by half the windows.

    Of each the sets are chosen among all languages, its own text replaced. One row per method,
    language and `control`: `overlap_row` of the first half's set and the control's second half's;
    "none" is the language's own second half, what could be shared at best. `others`: (language,
    control) -> parts.
    """
    half = len(next(iter(parts.values()))) // 2
    first = {x: merged(own[:half]) for x, own in parts.items()}
    second = {x: merged(own[half:]) for x, own in parts.items()}
    known = sets_of(pipeline, first, choice)
    rows = []
    for (x, control), own in {
        **{(x, "none"): parts[x] for x in dict.fromkeys(x for x, _ in others)},
        **others,
    }.items():
        there = sets_of(pipeline, {**second, x: merged(own[half:])}, choice)
        for method in METHODS:
            a, b = known[method][x], there[method][x]
            about = {"method": method, "language": x, "control": control}
            rows.append({**about, "neurons": len(b), **overlap_row(a, b)})
    return pd.DataFrame(rows)


def lape_choices(
    kept: Mapping[str, Kept], rate: float, rates: Sequence[float] = RATES
) -> pd.DataFrame:
    """LAPE's sets by the share of neurons it takes and by the languages it compares.

    One row per choice and language: `among`, how many languages are compared (all, or `SET1` if all
    of it is there), `rate`, `language`, `neurons`, `late`, the share of them in the last third of
    the layers, and `jaccard` with the set among all languages at `rate`.
    """
    over = {x: own["active"].over for x, own in kept.items()}
    tokens = {x: own["active"].tokens for x, own in kept.items()}
    choices = [(tuple(kept), one) for one in rates]
    choices += [(SET1, min(rates))] if set(SET1) <= set(kept) else []
    chosen, rows = lape_among(over, tokens, tuple(kept), rate), []
    for among, one in choices:
        for x, own in lape_among(over, tokens, among, one).items():
            counts = own.counts("intermediate")
            late = int(counts[-late_layers(len(counts)) :].sum()) / len(own) if len(own) else np.nan
            either = len(own | chosen[x])
            row = {"among": len(among), "rate": one, "language": x, "neurons": len(own)}
            jaccard = len(own & chosen[x]) / either if either else np.nan
            rows.append({**row, "late": late, "jaccard": jaccard})
    return pd.DataFrame(rows)


def ship_languages(
    pipeline: Pipeline,
    choice: Choice,
    folder: str | Path,
    romanised: Sequence[str] = ROMANISED,
    shuffled: Sequence[str] = SHUFFLED,
) -> None:
    """Write `SETS` of a pipeline's languages to a folder, and the tables that belong to them.

    Raises ValueError as `read_parts` does.
    """
    languages = list(pipeline.settings.languages)
    parts = pipeline.by_language(lambda x: read_parts(pipeline, x, choice.parts))
    others = {
        (x, control): read_parts(pipeline, x, choice.parts, control)
        for control, of in (("romanised", romanised), ("shuffled", shuffled))
        for x in of
        if x in languages
    }
    kept = {x: merged(own) for x, own in parts.items()}
    sets = sets_of(pipeline, kept, choice)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    s = pipeline.settings
    about = {
        "model": pipeline.loaded.lasting_key,
        "shape": list(pipeline.shape["intermediate"]),
        "languages": languages,
        "windows": s.n_samples,
        "tokens": s.window,
        "rule": [s.rule, s.threshold, s.normalisation],
        "choice": asdict(choice),
        "made": made_with(),
        "sets": {
            method: {x: torch.nonzero(own.mask().flatten())[:, 0].tolist() for x, own in of.items()}
            for method, of in sets.items()
        },
    }
    write_table(stability(pipeline, parts, choice).round(6), folder / STABILITY)
    write_table(
        lape_choices(kept, choice.rate, sorted({*RATES, choice.rate})).round(6),
        folder / LAPE_CHOICES,
    )
    write_table(controlled(pipeline, parts, others, choice).round(6), folder / CONTROLS)
    write_text(folder / SETS, json.dumps(about, sort_keys=True) + "\n")


def read_sets(folder: str | Path) -> tuple[Sets, dict[str, Any]]:
    """The sets that `ship_languages` wrote, and what they were made with.

    Raises FileNotFoundError, saying what makes them, without the file.
    """
    file = shipped_file(folder, SETS, "sets of many languages", "crane_lab.cli.languages")
    about = json.loads(file.read_text(encoding="utf-8"))
    shape = tuple(about["shape"])
    kept = about.pop("sets")
    sets = {m: {x: _placed(own, shape) for x, own in kept[m].items()} for m in METHODS if m in kept}
    return sets, about


def require_sets(
    sets: Mapping[str, Mapping[str, NeuronSet]],
    methods: Sequence[str],
    languages: Sequence[str],
    option: str,
) -> None:
    """See that every method has neurons of every language.

    `option` names what languages are chosen by. Raises ValueError for a method that is unknown, and
    for a language of which one has no set, or an empty one.
    """
    for method in methods:
        if method not in sets:
            raise ValueError(f"unknown method {method!r}: expected some of {list(sets)}")
        if missing := [x for x in languages if x not in sets[method]]:
            raise ValueError(f"{method} has no set of {missing[0]!r}: leave it out of {option}")
        if empty := [x for x in languages if not len(sets[method][x])]:
            raise ValueError(f"{method} gives {empty[0]!r} no neurons: leave it out of {option}")


def _placed(places: Sequence[int], shape: Sequence[int]) -> NeuronSet:
    return NeuronSet.from_flat(torch.tensor(places, dtype=torch.long), shape)
