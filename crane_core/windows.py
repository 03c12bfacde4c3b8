"""From texts to the token windows that relevance is computed on (Algorithm 1, line 3).

A sum over tokens grows with length, and the kurtosis of a sample is bounded by its size, so every
language gets the same number of windows of the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

#: What the beginning-of-sequence token opens: each document of a stream, or each window.
OPENINGS = ("stream", "bos")
#: Documents tokenised at a time: enough for the batch path, few enough to stop early.
_CHUNK = 512
#: Documents that are drawn first, to see how many tokens one has.
_FIRST = 64


@lru_cache(2)  # some tokenizers have thousands
def _special(tokenizer: PreTrainedTokenizerBase, size: int) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(id_ for id_, token in added if token.special)


def plain_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, nothing added: what reads like a special token (`<s>`) is text, too.

    Raises ValueError, with the text's number from 0, for what cannot be told from a special token,
    and for half a surrogate pair, which is no character.
    """
    options = {"add_special_tokens": False, "verbose": False}
    if not texts:  # which some tokenizers cannot take
        return []
    try:
        encoded: list[list[int]] = tokenizer(list(texts), **options)["input_ids"]
    except (TypeError, UnicodeEncodeError) as error:  # slow and fast tokenizers differ
        broken = [n for n, text in enumerate(texts) if any("\ud800" <= x <= "\udfff" for x in text)]
        if not broken:
            raise
        raise ValueError(f"text {broken[0]} holds half a surrogate pair; take it out") from error
    special = _special(tokenizer, len(tokenizer)).union(tokenizer.all_special_ids)
    for n, ids in enumerate(encoded):
        if special.isdisjoint(ids):
            continue
        encoded[n] = tokenizer(texts[n], split_special_tokens=True, **options)["input_ids"]
        # What stands for signs that the vocabulary lacks may be there.
        if wrong := special.intersection(encoded[n]) - {tokenizer.unk_token_id}:
            name = tokenizer.convert_ids_to_tokens(min(wrong))
            raise ValueError(f"text {n} holds the special token {name}; take it out: {texts[n]!r}")
    return encoded


def opening_tokens(tokenizer: PreTrainedTokenizerBase, opening: str) -> list[int]:
    """What stands before every window: nothing, or the token that `OPENINGS` tell of.

    Raises ValueError for none of `OPENINGS`. A tokenizer without such a token (Qwen's) opens none.
    """
    if opening not in OPENINGS:
        raise ValueError(f"unknown window opening {opening!r}: expected one of {OPENINGS}")
    bos = tokenizer.bos_token_id
    return [] if opening == "stream" or bos is None else [bos]


def with_opening(tokenizer: PreTrainedTokenizerBase, rows: Tensor, opening: str) -> Tensor:
    """Token rows, int64 (n, tokens), each with its opening before it."""
    head = torch.tensor(opening_tokens(tokenizer, opening), dtype=torch.long)
    return torch.cat([head.expand(len(rows), -1), rows], 1)


def document_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], opening: str, most: int | None = None
) -> list[list[int]]:
    """Token ids of texts, at most so many, as they follow each other under one of `OPENINGS`.

    In a "stream" the beginning-of-sequence token opens each; else a line ends between them.
    """
    before = opening_tokens(tokenizer, "bos") if opening == "stream" else []
    lines = texts if opening == "stream" else [text + "\n" for text in texts]
    return [before + ids[:most] for ids in plain_tokens(tokenizer, lines)]


def token_windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    n_samples: int,
    window: int,
    seed: int,
    max_document_tokens: int | None = None,
    opening: str = "stream",
) -> Tensor:
    """Cut `texts` into token windows of equal length, int64 `(n_samples, window)`.

    The documents are put in an order drawn from `seed` and joined into one stream of tokens, each
    cut off after `max_document_tokens`; the windows are consecutive and do not overlap. No window
    is padded, so a window may begin or end inside a document. `opening` is one of `OPENINGS`. Only
    documents drawn are read: `texts` may keep them elsewhere and have a method `take`, from several
    places to the documents there.

    Raises as `plain_tokens` and `opening_tokens`, and ValueError if there are no texts, `n_samples`
    < 1, `window` < 2, or the texts are too short, saying how many windows they allow.
    """
    if not texts:
        raise ValueError("no texts: the corpus is empty; expected a list of documents")
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    if window < 2:
        raise ValueError(f"window must be at least 2 tokens (one to predict), got {window}")
    size = window - len(opening_tokens(tokenizer, opening))
    order = np.random.default_rng(seed).permutation(len(texts))
    needed = n_samples * size
    take = getattr(texts, "take", lambda places: [texts[place] for place in places])
    stream: list[int] = []
    taken, more = 0, _FIRST
    while taken < len(order):
        drawn = take(order[taken : taken + more])
        for start in range(0, len(drawn), _CHUNK):
            chunk = drawn[start : start + _CHUNK]
            for ids in document_tokens(tokenizer, chunk, opening, max_document_tokens):
                stream += ids
            if len(stream) >= needed:
                rows = torch.tensor(stream[:needed], dtype=torch.long).view(n_samples, size)
                return with_opening(tokenizer, rows, opening)
        taken += len(drawn)
        # As many as those before suggest, and some to spare: a file is read few times, and little.
        more = max(_FIRST, 5 * taken * (needed - len(stream)) // max(4 * len(stream), 1))
    raise ValueError(
        f"too little text: {len(texts)} documents hold {len(stream)} tokens, enough for "
        f"{len(stream) // size} windows of {window} tokens, but n_samples is {n_samples}; "
        "lower n_samples or window, or add text"
    )


def scored_tokens(mask: Tensor, opening: int) -> Tensor:
    """Of each sample's real tokens all but the first `opening`; ValueError if that leaves none."""
    scored = mask * (mask.cumsum(1) > opening)
    if opening and (opening < 0 or not scored.any(1).all()):
        raise ValueError(f"opening is {opening}: expected 0 or more, and a token left to score")
    return scored


def first_column(scored: Tensor) -> int | None:
    """The column that all samples are scored from, if they are up to their ends; None otherwise."""
    first = int(scored[0].long().argmax())
    return first if scored[:, first:].all() and not scored[:, :first].any() else None
