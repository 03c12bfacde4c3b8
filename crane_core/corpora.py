"""Texts per language (Algorithm 1, line 3): what relevance and perplexity are measured on.

The paper does not say which corpus, how many samples or how long. A sum over tokens grows with
length, and the kurtosis of a sample is bounded by its size, so every language gets the same number
of windows of the same number of tokens. The texts are held out from training and are never a
benchmark's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

#: Documents tokenised at a time: enough for the batch path, few enough to stop early.
_CHUNK = 512


def corpus_file(folder: str | Path, language: str) -> Path:
    """The path of one language's corpus, `<folder>/<language>.txt`.

    Raises FileNotFoundError if the folder does not exist, and ValueError, listing the languages
    there are, if it has no file for `language`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"corpus folder {folder} does not exist; expected one <language>.txt per language"
        )
    path = folder / f"{language}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise ValueError(f"no corpus for language {language!r} in {folder} (available: {known})")
    return path


def read_texts(folder: str | Path, language: str) -> list[str]:
    """One language's documents: one per line of `<folder>/<language>.txt`, blank lines left out.

    Raises FileNotFoundError or ValueError as `corpus_file` does, and ValueError if the file is not
    valid UTF-8 or holds no text.
    """
    path = corpus_file(folder, language)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not valid UTF-8 (byte {error.start}, line {line}); save it as UTF-8"
        ) from error
    # Only "\n" ends a document: str.splitlines would also cut at U+2028 and the like.
    texts = [line.strip() for line in text.split("\n")]
    texts = [line for line in texts if line]
    if not texts:
        raise ValueError(f"{path} is empty; expected one document per line")
    return texts


def windows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    n_samples: int,
    window: int,
    seed: int,
) -> Tensor:
    """Cut `texts` into token windows of equal length, int64 `(n_samples, window)`.

    The documents are put in an order drawn from `seed` and joined into one stream of tokens, each
    opened by the beginning-of-sequence token if the tokenizer has one; the windows are consecutive
    and do not overlap. No window is padded, so a window may begin or end inside a document.

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
            stream += opening + ids
        if len(stream) >= needed:
            return torch.tensor(stream[:needed], dtype=torch.long).view(n_samples, window)
    raise ValueError(
        f"too little text: {len(texts)} documents hold {len(stream)} tokens, enough for "
        f"{len(stream) // window} windows of {window} tokens, but n_samples is {n_samples}; "
        "lower n_samples or window, or add text"
    )


def read_windows(
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    languages: Sequence[str],
    n_samples: int,
    window: int,
    seed: int,
) -> dict[str, Tensor]:
    """As many and as long windows for every language: `{language: (n_samples, window)}`.

    Raises what `read_texts` and `windows` raise, naming the language.
    """
    found = {}
    for language in languages:
        texts = read_texts(folder, language)
        try:
            found[language] = windows(tokenizer, texts, n_samples, window, seed)
        except ValueError as error:
            raise ValueError(f"corpus of language {language!r}: {error}") from error
    return found


def fingerprint(folder: str | Path, languages: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each language's corpus file, for the keys of what is computed from it.

    Raises FileNotFoundError or ValueError as `corpus_file` does.
    """
    return {
        language: hashlib.sha256(corpus_file(folder, language).read_bytes()).hexdigest()
        for language in languages
    }
