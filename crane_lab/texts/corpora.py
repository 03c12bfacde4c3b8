"""Texts per language (Algorithm 1, line 3): what relevance and perplexity are measured on.

The paper does not say which corpus, how many samples or how long. A sum over tokens grows with
length, and the kurtosis of a sample is bounded by its size, so every language gets the same number
of windows of the same number of tokens. The texts are held out from training and are never a
benchmark's.

A corpus is named by one text, its source:

- a folder with a file `<language>.txt` (one document per line), `<language>.jsonl` (both also as
  `.gz`, `.bz2`, `.xz` or `.zst`) or `<language>.parquet` per language, or with a folder
  `<language>` of such files;
- a path with `{language}` in it, such as `texts/{language}/train.parquet`;
- a dataset of the Hugging Face hub, `hub:<dataset>[@<revision>][:<configuration>][:<split>]` with
  `{language}` in one of them, such as `hub.WIKIPEDIA`.

Of a hub dataset, documents are drawn once per language and kept in the store: later runs read them
there, without network.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_core.windows import plain_tokens, token_windows
from crane_lab.store.artefacts import Store
from crane_lab.store.files import canonical, digest_of, file_sha256
from crane_lab.texts.documents import PARTS, document_digest, part_of
from crane_lab.texts.hub import SHUFFLE_BUFFER, HubSource, fetch
from crane_lab.texts.local import LocalTexts, checked_files, corpus_digests, corpus_files
from crane_lab.texts.parallel import FILE, parallel_windows

#: Documents tokenised at a time by `token_counts`, and how many of a language it counts at most.
_PORTION, COUNTED = 512, 20_000


@dataclass(frozen=True)
class Corpus:
    """Texts by language, wherever they come from, and how they are read.

    Parameters
    ----------
    source : see the module.
    part : one of `PARTS` to have only those documents (`part_of`), None for all.
    text_column : where the text is in JSON lines, Parquet and hub datasets.
    max_document_tokens : documents are cut off after so many tokens; None: they are not.
    deduplicate : whether repeated documents are left out.
    opening : how windows open, one of `crane_core.windows.OPENINGS`.
    parallel : whether windows are cut from the same paragraphs in every language (`parallel`).
    n_documents, seed : how many documents of a hub dataset are drawn per language, and from which
        seed; both parts together.
    store : where documents of a hub dataset are kept; None: the default store.
    """

    source: str
    part: str | None = None
    text_column: str = "text"
    max_document_tokens: int | None = None
    deduplicate: bool = True
    opening: str = "stream"
    parallel: bool = False
    n_documents: int = 5000
    seed: int = 0
    store: Store | None = None
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _texts: dict[str, Sequence[str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.part not in (None, *PARTS):
            raise ValueError(f"unknown part {self.part!r} of a corpus: expected one of {PARTS}")
        for name in ("max_document_tokens", "n_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def hub(self) -> HubSource | None:
        """The source, if it is a dataset of the hub."""
        return HubSource.parse(self.source) if self.source.startswith("hub:") else None

    def check(self, languages: Sequence[str]) -> None:
        """Raise what is wrong with the source, as far as its files' names and beginnings tell."""
        if self.hub is None:
            for language in languages:
                checked_files(self.source, language)

    def _snapshot(self, hub: HubSource, language: str) -> dict[str, Any]:
        source, buffer = hub.of(language), SHUFFLE_BUFFER
        key = {
            "source": str(source),
            "n_documents": self.n_documents,
            "seed": self.seed,
            "buffer": buffer,
            "text_column": self.text_column,
            "deduplicate": self.deduplicate,
        }
        found: dict[str, Any] = (self.store or Store()).value(
            "corpus",
            key,
            lambda: fetch(source, self.n_documents, self.seed, self.text_column, self.deduplicate),
        )
        return found

    def texts(self, language: str) -> Sequence[str]:
        """One language's documents; local ones are read when asked for. Raises as `read_texts`."""
        if language not in self._texts:
            hub = self.hub
            self._texts[language] = (
                LocalTexts(self.source, language, self.text_column, self.deduplicate, self.part)
                if hub is None
                else [
                    text
                    for text in self._snapshot(hub, language)["documents"]
                    if self.part in (None, part_of(document_digest(text)))
                ]
            )
        return self._texts[language]

    def windows(
        self,
        tokenizer: PreTrainedTokenizerBase,
        languages: Sequence[str],
        n_samples: int,
        window: int,
        seed: int,
    ) -> dict[str, Tensor]:
        """As many and as long windows for every language: `{language: (n_samples, window)}`.

        Raises what `texts` and `token_windows` raise, naming the language, and for `parallel` what
        `parallel_windows` raises, or ValueError for a corpus that does not number its paragraphs.
        """
        found: dict[str, Tensor] = {}
        if self.parallel:
            own = {language: self._numbered(language) for language in languages}
            return parallel_windows(
                tokenizer, own, n_samples, window, seed, self.opening, self.max_document_tokens
            )
        for language in languages:
            texts = self.texts(language)
            try:
                found[language] = token_windows(
                    tokenizer,
                    texts,
                    n_samples,
                    window,
                    seed,
                    self.max_document_tokens,
                    self.opening,
                )
            except ValueError as error:
                more = "" if self.hub is None else f" (n_documents is {self.n_documents})"
                raise ValueError(f"corpus of language {language!r}: {error}{more}") from error
        for a, b in combinations(found, 2):
            if torch.equal(found[a], found[b]):
                warnings.warn(
                    f"corpus {self.source}: {a} and {b} have the same text, so nothing tells them "
                    "apart; is one a copy of the other?",
                    stacklevel=2,
                )
        return found

    def _numbered(self, language: str) -> tuple[Sequence[int], Sequence[str]]:
        texts = self.texts(language)
        ids = getattr(texts, "ids", None)
        if ids is None:
            raise ValueError(
                f"parallel is True, but corpus {self.source} does not say which paragraphs are "
                f"translations of each other; expected {FILE} in it, or set parallel to False"
            )
        return ids, list(texts)

    def fingerprint(self, languages: Sequence[str]) -> dict[str, str]:
        """A digest of each language's documents and of how they are read, for keys.

        Read plainly, local files have the digest of `corpus_digests`. Every language is digested
        once. Raises as `texts` does.
        """
        return {language: self._digest_of(language) for language in languages}

    def _digest_of(self, language: str) -> str:
        if language in self._digests:
            return self._digests[language]
        hub = self.hub
        if hub is None:
            digest = corpus_digests(self.source, [language])[language]
        else:
            digest = digest_of(canonical(self._snapshot(hub, language)["documents"]), 64)
        options = {
            name: getattr(self, name)
            for name in ("part", "text_column", "max_document_tokens", "deduplicate")
        }
        if options != {name: getattr(Corpus, name) for name in options}:
            digest = digest_of(canonical([digest, options]), 64)
        self._digests[language] = digest
        return digest

    def provenance(self, languages: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Where each language's documents come from, with licence and checksums, as plain JSON.

        `documents` and `characters` count what is read; the rest is `source` of `fetch`, or the
        files with their SHA-256. Raises as `texts` does.
        """
        hub, digests = self.hub, self.fingerprint(languages)
        found = {}
        for language in languages:
            texts = self.texts(language)
            about: dict[str, Any]
            if hub is None:
                files = corpus_files(self.source, language)
                about = {"files": {str(file): file_sha256(file) for file in files}, "licence": []}
            else:
                about = dict(self._snapshot(hub, language)["source"])
            found[language] = {
                **about,
                "part": self.part,
                "documents": len(texts),
                "characters": sum(map(len, texts)),
                "fingerprint": digests[language],
            }
        return found


def one_source(corpus: str, other: str, languages: Sequence[str]) -> bool:
    """Whether two corpora have a dataset or a file in common, under whatever names.

    Raises as `corpus_files`.
    """
    if corpus == other or corpus.startswith("hub:") or other.startswith("hub:"):
        return corpus == other
    files = (
        {file.resolve() for language in languages for file in corpus_files(source, language)}
        for source in (corpus, other)
    )
    return bool(set.intersection(*files))


def read_windows(
    tokenizer: PreTrainedTokenizerBase,
    source: str | Path,
    languages: Sequence[str],
    n_samples: int,
    window: int,
    seed: int,
) -> dict[str, Tensor]:
    """`Corpus.windows` of a source, read plainly."""
    return Corpus(str(source)).windows(tokenizer, languages, n_samples, window, seed)


def token_counts(
    tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """How much text each language has, and into how many tokens the tokenizer cuts it.

    One row per language, in the order of `texts`: `language`, `documents`, `characters`, `bytes`
    (UTF-8), `tokens` (without special ones), `tokens_per_document`, `tokens_per_character` and
    `tokens_per_byte`. Tokenizers split languages unevenly: windows of equal length hold less text
    of a language with more tokens per character. Of more than `COUNTED` documents, so many spread
    evenly are counted.

    Raises ValueError for a language without text.
    """
    rows = []
    for language, own in texts.items():
        counted = _spread(own, COUNTED)
        documents = characters = size = tokens = 0
        while part := list(islice(counted, _PORTION)):
            documents += len(part)
            characters += sum(map(len, part))
            size += sum(len(text.encode()) for text in part)
            tokens += sum(map(len, plain_tokens(tokenizer, part)))
        if not characters:
            raise ValueError(f"no text in language {language!r}, so no tokens per character")
        rows.append(
            {
                "language": language,
                "documents": documents,
                "characters": characters,
                "bytes": size,
                "tokens": tokens,
                "tokens_per_document": tokens / documents,
                "tokens_per_character": tokens / characters,
                "tokens_per_byte": tokens / size,
            }
        )
    return pd.DataFrame(rows)


def _spread(texts: Sequence[str], most: int) -> Iterator[str]:
    """At most so many texts, spread evenly, read one after another."""
    return (text for place, text in enumerate(texts) if place * most % len(texts) < most)
