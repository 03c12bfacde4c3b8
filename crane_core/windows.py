"""From texts to the token windows that relevance is computed on (Algorithm 1, line 3).

A sum over tokens grows with length, and the kurtosis of a sample is bounded by its size, so every
language gets the same number of windows of the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

#: Documents tokenised at a time: enough for the batch path, few enough to stop early.
_CHUNK = 512


def token_windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    n_samples: int,
    window: int,
    seed: int,
    max_document_tokens: int | None = None,
) -> Tensor:
    """Cut `texts` into token windows of equal length, int64 `(n_samples, window)`.

    The documents are put in an order drawn from `seed` and joined into one stream of tokens, each
    opened by the beginning-of-sequence token if the tokenizer has one and cut off after
    `max_document_tokens`; the windows are consecutive and do not overlap. No window is padded, so a
    window may begin or end inside a document.

    Raises ValueError if there are no texts, if `n_samples` < 1 or `window` < 2, or if the texts are
    too short, saying how many windows they allow.
    """
    if not texts:
        raise ValueError("no texts: the corpus is empty; expected a list of documents")
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    if window < 2:
        raise ValueError(f"window must be at least 2 tokens (one to predict), got {window}")
    opening = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    order = np.random.default_rng(seed).permutation(len(texts))
    needed = n_samples * window
    stream: list[int] = []
    for start in range(0, len(order), _CHUNK):
        documents = [texts[index] for index in order[start : start + _CHUNK]]
        encoded = tokenizer(documents, add_special_tokens=False, verbose=False)["input_ids"]
        for ids in encoded:
            stream += opening + ids[:max_document_tokens]
        if len(stream) >= needed:
            return torch.tensor(stream[:needed], dtype=torch.long).view(n_samples, window)
    raise ValueError(
        f"too little text: {len(texts)} documents hold {len(stream)} tokens, enough for "
        f"{len(stream) // window} windows of {window} tokens, but n_samples is {n_samples}; "
        "lower n_samples or window, or add text"
    )
