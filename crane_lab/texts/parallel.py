"""The same paragraphs in every language, so that language and content come apart.

A corpus folder is parallel if it holds `paragraphs.json`: for every language the number of each
line's paragraph, the same in all languages that have a translation of it, and the paragraphs that
are held out for perplexity and tasks, in every language alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_core.windows import document_tokens, opening_tokens, with_opening

FILE = "paragraphs.json"


def numbers_file(source: str | Path) -> Path:
    """Where a corpus says which of its paragraphs are translations of each other, if it does."""
    return Path(os.path.expanduser(source)) / FILE


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs of one language's lines, and which of all are held out."""

    ids: Sequence[int]
    held_out: frozenset[int]


def paragraphs_of(source: str | Path, language: str) -> Paragraphs | None:
    """What `paragraphs.json` says of a language; None if the corpus has no such file.

    Raises ValueError if it is damaged, names no such language, or names a paragraph twice.
    """
    path = numbers_file(source)
    if not path.is_file():
        return None
    wanted = '{"held_out": [numbers], "languages": {"en": [a number for each line of en.txt], …}}'
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        ids, held_out = said["languages"][language], frozenset(said["held_out"])
        if not all(type(number) is int for number in (*ids, *held_out)):
            raise TypeError("paragraphs are not numbered by whole numbers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error!r}; expected {wanted}") from error
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: {language!r} has a paragraph twice; expected {wanted}")
    return Paragraphs(ids, held_out)


def parallel_windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, tuple[Sequence[int], Sequence[str]]],
    n_samples: int,
    window: int,
    seed: int,
    opening: str = "bos",
    max_document_tokens: int | None = None,
) -> dict[str, Tensor]:
    """As many windows of the same paragraphs for every language: `{language: (n_samples, window)}`.

    Of the paragraphs that all languages have, in an order drawn from `seed`, as many are taken as
    the language with the fewest tokens needs. The others have more windows than wanted in them; of
    those, `n_samples` are taken, spread evenly. `texts`: language -> numbers and texts of its
    paragraphs; the rest is as for `token_windows`.

    Raises ValueError if the paragraphs in common are too short, saying how many windows they allow.
    """
    common = sorted(set.intersection(*(set(ids) for ids, _ in texts.values())))
    order = [common[i] for i in np.random.default_rng(seed).permutation(len(common))]
    size = window - len(opening_tokens(tokenizer, opening))
    tokens: dict[str, list[list[int]]] = {}
    for language, (ids, own) in texts.items():
        places = {number: place for place, number in enumerate(ids)}
        lines = [own[places[number]] for number in order]
        tokens[language] = document_tokens(tokenizer, lines, opening, max_document_tokens)
    ends = {x: np.cumsum([len(one) for one in found]) for x, found in tokens.items()}
    possible = {x: int(end[-1]) // size if len(end) else 0 for x, end in ends.items()}
    fewest = min(possible, key=lambda x: possible[x])
    if possible[fewest] < n_samples:
        raise ValueError(
            f"too little text: {', '.join(texts)} have {len(order)} paragraphs in common, enough "
            f"for {possible[fewest]} windows of {window} tokens in {fewest!r}, but n_samples is "
            f"{n_samples}; lower n_samples or window, or add text"
        )
    taken = max(int(np.searchsorted(end, n_samples * size)) + 1 for end in ends.values())
    windows = {}
    for language, found in tokens.items():
        stream = torch.tensor([token for one in found[:taken] for token in one])
        rows = stream[: len(stream) // size * size].view(-1, size)
        spread = torch.arange(n_samples) * len(rows) // n_samples
        windows[language] = with_opening(tokenizer, rows[spread], opening)
    return windows
