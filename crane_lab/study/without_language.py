"""What the methods find where there is no language: parts of one language, called languages.

A criterion that picks neurons "of a language" should find few where the groups of text differ in
chance alone, or in content. So one language's documents are divided into parts, at random or by
what they are about, each part gets as many windows as a language has, and CRANE and LAPE are run on
the parts as if they were languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from torch import Tensor

from crane_core import baselines
from crane_core.concentration import compute
from crane_core.selection import normalise, select
from crane_core.windows import token_windows
from crane_lab.pipeline import Pipeline
from crane_lab.stages import relevance, streams
from crane_lab.store import source_digest
from crane_lab.store.files import canonical, digest_of
from crane_lab.study.scores import regions
from crane_lab.testbed import parallel, people
from crane_lab.texts.parallel import parallel_windows

#: Which part each of a language's documents belongs to, counted from 0; None: to none of them.
Divide = Callable[[Sequence[str]], Sequence[int | None]]


def at_random(parts: int, seed: int) -> Divide:
    """Documents divided by chance into parts of equal size."""

    def divide(texts: Sequence[str]) -> Sequence[int]:
        found: list[int] = (np.random.default_rng(seed).permutation(len(texts)) % parts).tolist()
        return found

    return divide


def part_windows(
    pipeline: Pipeline, language: str, divide: Divide, parts: int = 3
) -> dict[str, Tensor]:
    """Windows of every part of a language's corpus, as many as the settings give a language.

    Raises ValueError for a part with too little text.
    """
    s, texts = pipeline.settings, list(pipeline.corpus.texts(language))
    by_part: list[list[str]] = [[] for _ in range(parts)]
    for text, part in zip(texts, divide(texts), strict=True):
        if part is not None:
            by_part[part].append(text)
    found = {}
    for number, own in enumerate(by_part, 1):
        name = f"{language} {number}"
        try:
            found[name] = token_windows(
                pipeline.tokenizer,
                own,
                s.n_samples,
                s.window,
                s.seed,
                s.max_document_tokens,
                s.window_opening,
            )
        except ValueError as error:
            raise ValueError(f"part {name} of the corpus: {error}") from error
    return found


def compared_groups(
    pipeline: Pipeline, parts: int = 3, seeds: Sequence[int] = (0, 1, 2)
) -> pd.DataFrame:
    """The run's languages against parts of one, divided by chance, once for each of `seeds`.

    Returns `found_in`'s rows with `compared`, what distinguishes the groups.
    """
    own = " in parallel text" if pipeline.settings.parallel else ", as they come"
    tables = [found_in(pipeline, pipeline.windows).assign(compared=f"languages{own}")]
    for x in pipeline.settings.languages:
        for seed in seeds:
            windows = part_windows(pipeline, x, at_random(parts, seed), parts)
            name = f"parts of {x}, by chance"
            tables.append(found_in(pipeline, windows).assign(compared=name))
    return pd.concat(tables, ignore_index=True)


def compared_in_the_world(pipeline: Pipeline, parts: int = 3) -> pd.DataFrame:
    """The same for what the testbed's world allows: one content in all languages, one language
    about other people in each part."""
    s = pipeline.settings
    texts = parallel.parallel_documents(40 * s.n_samples, s.seed)
    numbers = range(len(texts[s.languages[0]]))
    same = parallel_windows(
        pipeline.tokenizer,
        {x: (numbers, texts[x]) for x in s.languages},
        s.n_samples,
        s.window,
        s.seed,
        s.window_opening,
    )
    tables = [found_in(pipeline, same).assign(compared="languages, the same content in all")]
    for x in s.languages:
        by_people = partial(people.by_people, x, parts=parts)
        windows = part_windows(pipeline, x, by_people, parts)
        name = f"parts of {x}, about other people"
        tables.append(found_in(pipeline, windows).assign(compared=name))
    return pd.concat(tables, ignore_index=True)


def found_in(pipeline: Pipeline, windows: Mapping[str, Tensor]) -> pd.DataFrame:
    """CRANE's and LAPE's sets of groups of windows, whatever distinguishes them.

    Returns
    -------
    One row per `group`: `CRANE` and `LAPE`, neurons selected; `unrelated`, how many CRANE would
    select if a neuron's scores in the groups had nothing to do with each other.
    """
    s = pipeline.settings
    readers = relevance.readers(pipeline.shape, s)
    collected = {}
    for group, own in windows.items():
        key = {
            "model": pipeline.loaded.key,
            "windows": digest_of(canonical(own.tolist())),
            "batch_size": s.batch_size,
            **pipeline.how,
            "code": source_digest(relevance.__name__, __name__),
        }
        collected[group] = streams.collect(
            pipeline.store,
            key,
            lambda own=own: own,  # type: ignore[misc]
            (len(own), s.batch_size),
            readers,
            relevance.reading(pipeline.model, pipeline.how, readers),
            stage="groups",
            desc=f"groups, {group}",
        )
    scores = {
        group: normalise(compute(s.statistic, of["intermediate"]), s.normalisation)
        for group, of in collected.items()
    }
    counts = {group: of["active"] for group, of in collected.items()}
    lape = baselines.lape(
        {group: of.over for group, of in counts.items()},
        {group: of.tokens for group, of in counts.items()},
        shape=pipeline.shape,
    )
    rows = []
    for group in windows:
        crane = select(scores, group, s.rule, s.threshold, s.budget, shape=pipeline.shape)
        unrelated = regions(scores, group, s.threshold)[1]
        rows.append(
            {"group": group, "CRANE": len(crane), "unrelated": unrelated, "LAPE": len(lape[group])}
        )
    return pd.DataFrame(rows)
