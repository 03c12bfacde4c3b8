"""Texts per language (Algorithm 1, line 3): what relevance and perplexity are measured on.

The paper does not say which corpus, how many samples or how long. A sum over tokens grows with
length, and the kurtosis of a sample is bounded by its size, so every language gets the same number
of windows of the same number of tokens. The texts are held out from training and are never a
benchmark's.

A corpus is named by one text, its source:

- a folder with a file `<language>.txt` (one document per line), `<language>.jsonl` (also
  `.jsonl.gz`) or `<language>.parquet` per language, or with a folder `<language>` of such files;
- a path with `{language}` in it, such as `texts/{language}/train.parquet`;
- a dataset of the Hugging Face hub, `hub:<dataset>[@<revision>][:<configuration>][:<split>]` with
  `{language}` in one of them, such as `WIKIPEDIA`.

Of a hub dataset, documents are drawn once per language and kept in the store: later runs read them
there, without network.
"""

from __future__ import annotations

import dataclasses
import difflib
import gzip
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub import DatasetCard
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever it uses
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crane_lab.store.artefacts import Store
from crane_lab.store.files import canonical, digest_of, file_sha256

#: One configuration of Wikipedia per language, the default of profile `hub`.
WIKIPEDIA = "hub:wikimedia/wikipedia:20231101.{language}"
#: Of documents that are split in two parts, one in so many is kept for perplexity.
HELD_OUT = 5
#: Documents of a stream among which the next one is drawn: streams have no random access.
SHUFFLE_BUFFER = 10_000
#: Which documents the stages read where both corpora have one source.
PARTS = ("attribution", "perplexity")
FORMATS = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
#: What `datasets` raises when a data set cannot be opened; `hub_error` puts it in plain words.
HUB_ERRORS = (DatasetsError, ValueError, RuntimeError, OSError, httpx.HTTPError)
#: Documents tokenised at a time: enough for the batch path, few enough to stop early.
_CHUNK = 512


# ------------------------------------------------------------------------------------ local files


def corpus_files(source: str | Path, language: str) -> list[Path]:
    """The files of one language's corpus, in the order in which they are read.

    Raises FileNotFoundError if the folder does not exist, and ValueError if it has nothing for
    `language` (it lists the languages there are), two things for it, or an empty folder.
    """
    name, folder = str(source), Path(source)
    if "{language}" in name:
        found = [Path(name.replace("{language}", language))]
        if not found[0].exists():
            raise FileNotFoundError(f"no corpus for language {language!r}: no such file {found[0]}")
    elif not folder.is_dir():
        if folder.exists():
            raise ValueError(
                f"corpus {folder} is a file; expected a folder with one <language>.txt, .jsonl or "
                ".parquet per language, or a path with {language} in it"
            )
        raise FileNotFoundError(
            f"corpus folder {folder} does not exist; expected one <language>.txt, .jsonl or "
            ".parquet per language (or hub:<dataset> for one of the Hugging Face hub)"
        )
    else:
        there = [(path, _stem(path)) for path in sorted(folder.iterdir())]
        found = [path for path, stem in there if stem == language]
        if not found:
            known = ", ".join(sorted({stem for _, stem in there if stem})) or "none"
            raise ValueError(
                f"no corpus for language {language!r} in {folder} (available: {known})"
            )
        if len(found) > 1:
            raise ValueError(
                f"{folder} has several corpora for language {language!r}, expected one: "
                + ", ".join(path.name for path in found)
            )
    path = found[0]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _format(file))
        if not found:
            raise ValueError(
                f"corpus folder {path} is empty; expected files {', '.join(FORMATS)} in it"
            )
    elif not _format(path):
        raise ValueError(f"{path} has an unknown format; expected {', '.join(FORMATS)}")
    return found


def _format(path: Path) -> str:
    """The one of `FORMATS` that a file's name ends in, or ""."""
    if path.name.startswith("."):
        return ""
    return next((ending for ending in FORMATS if path.name.endswith(ending)), "")


def _stem(path: Path) -> str:
    """The language that an entry of a corpus folder is for, or ""."""
    if path.is_dir():
        return "" if path.name.startswith(".") else path.name
    return path.name.removesuffix(_format(path)) if _format(path) else ""


def read_texts(
    source: str | Path, language: str, text_column: str = "text", deduplicate: bool = True
) -> list[str]:
    """One language's documents in a local corpus, stripped, blank and repeated ones left out.

    `text_column` is where they are in JSON lines and Parquet. Of documents that differ at most in
    white space or in how letters are composed (Unicode NFC), the first is kept.

    Raises FileNotFoundError or ValueError as `corpus_files` does, and ValueError if a file is
    damaged, is not valid UTF-8, has no such column or if there is no text at all.
    """
    files = corpus_files(source, language)
    found = (text for file in files for text in _documents(file, text_column))
    texts = list(distinct(found) if deduplicate else filter(None, map(str.strip, found)))
    if not texts:
        names = ", ".join(str(file) for file in files)
        raise ValueError(f"{names} is empty; expected documents, in .txt one per line")
    return texts


def _documents(path: Path, text_column: str) -> Iterator[str]:
    kind = _format(path)
    if kind == ".parquet":
        yield from _parquet(path, text_column)
        return
    try:
        content = gzip.decompress(path.read_bytes()) if kind.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError) as error:
        if not kind.endswith(".gz"):
            raise
        raise ValueError(f"{path} is damaged: {error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not valid UTF-8 (byte {error.start}, line {at}); save it as UTF-8"
        ) from error
    # Only "\n" ends a document: str.splitlines would also cut at U+2028 and the like.
    lines = text.split("\n")
    if kind == ".txt":
        yield from lines
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _text_of(json.loads(line), text_column)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            except (TypeError, KeyError, UnicodeEncodeError) as error:
                raise ValueError(f"{path}, line {number}: {_reason(error)}") from error


def _parquet(path: Path, text_column: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_column not in names:
                raise KeyError(_no_column(text_column, names))
            for batch in file.iter_batches(columns=[text_column]):
                for value in batch.column(0).to_pylist():
                    yield _text_of({text_column: value}, text_column)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file, or it is damaged: {error}") from error
    except UnicodeError as error:
        raise ValueError(f"{path} is not valid UTF-8: {error}") from error
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: {_reason(error)}") from error


def _text_of(row: Any, text_column: str) -> str:
    """The text of a row, "" for a null. Raises TypeError, KeyError or UnicodeEncodeError."""
    if not isinstance(row, dict):
        raise TypeError(f"expected an object with {text_column!r}, got {type(row).__name__}")
    if text_column not in row:
        raise KeyError(_no_column(text_column, row))
    text = row[text_column]
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{text_column!r} must be a text, got {type(text).__name__}")
    (text or "").encode()  # JSON can spell half characters that no tokenizer takes
    return text or ""


def _no_column(text_column: str, columns: Iterable[str]) -> str:
    return (
        f"no column {text_column!r}; there are: {', '.join(columns) or 'none'} "
        "(the parameter text_column says which holds the text)"
    )


def _reason(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)


# ------------------------------------------------------------------------------- single documents


def _digest(text: str) -> bytes:
    """A digest that is the same for texts that differ only in white space and composition."""
    return hashlib.sha256(" ".join(unicodedata.normalize("NFC", text).split()).encode()).digest()


def distinct(texts: Iterable[str]) -> Iterator[str]:
    """Each text once, stripped; blank ones and repetitions (as `read_texts` has them) left out."""
    seen = set()
    for text in texts:
        digest = _digest(text)
        if text.strip() and digest not in seen:
            seen.add(digest)
            yield text.strip()


def part_of(text: str) -> str:
    """Which of `PARTS` a document belongs to where one source serves both.

    It depends on the document alone, so the parts have no text in common whatever the seed, the
    order and the number of documents are. One document in `HELD_OUT` is kept for perplexity.
    """
    return PARTS[_digest(text)[0] % HELD_OUT == 0]


# ------------------------------------------------------------------------------------ hub datasets


@dataclass(frozen=True)
class HubSource:
    """A dataset of the hub by language: `hub:<dataset>[@<revision>][:<config>][:<split>]`."""

    dataset: str
    revision: str | None
    config: str | None
    split: str

    @classmethod
    def parse(cls, source: str) -> HubSource:
        """Read a source that begins with "hub:"; raises ValueError if it is malformed."""
        name, *rest = source.removeprefix("hub:").split(":")
        dataset, _, revision = name.partition("@")
        if not dataset or len(rest) > 2 or "{language}" not in source:
            raise ValueError(
                f"corpus {source!r}: expected hub:<dataset>[@<revision>][:<configuration>]"
                "[:<split>] with {language} in it, such as " + WIKIPEDIA
            )
        config, split = [*rest, "", ""][:2]
        return cls(dataset, revision or None, config or None, split or "train")

    def of(self, language: str) -> HubSource:
        """The source with `language` filled in."""
        filled = {
            field: value and value.replace("{language}", language)
            for field, value in dataclasses.asdict(self).items()
        }
        return HubSource(**filled)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.dataset}{revision}:{self.config or ''}:{self.split}"


def fetch(
    source: HubSource, n_documents: int, seed: int, text_column: str, deduplicate: bool
) -> dict[str, Any]:
    """Draw documents of one language from the hub: `{"documents": [...], "source": {...}}`.

    The dataset is streamed: its shards are put in an order drawn from `seed`, every document is
    drawn from a buffer of `SHUFFLE_BUFFER`, and reading stops at `n_documents` (fewer if the
    dataset holds fewer). Repeated ones do not count. `source` says where they come from: dataset,
    revision, configuration, split, licence, and how many were read.

    Raises FileNotFoundError for a dataset that does not exist, PermissionError for one that is
    gated, ConnectionError without network, ValueError for an unknown configuration, split or
    column and for a dataset without text.
    """
    name = f"corpus {source}"
    try:
        builder = datasets.load_dataset_builder(
            source.dataset, source.config, revision=source.revision
        )
        stream = builder.as_streaming_dataset(split=source.split)
    except HUB_ERRORS as error:
        if str(error).startswith("BuilderConfig"):
            raise ValueError(f"{name}: {_no_configuration(source)}") from error
        advice = "run once with network, or give a local folder as the corpus"
        raise hub_error(name, error, advice) from error

    n_read = 0

    def read() -> Iterator[str]:
        nonlocal n_read
        for row in stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER):
            n_read += 1
            yield _text_of(row, text_column)

    texts: list[str] = []
    try:
        for text in distinct(read()) if deduplicate else filter(None, map(str.strip, read())):
            texts.append(text)
            if len(texts) == n_documents:
                break
    except (TypeError, KeyError, UnicodeEncodeError) as error:
        raise ValueError(f"{name}: {_reason(error)}") from error
    except (OSError, httpx.HTTPError) as error:
        raise ConnectionError(
            f"{name}: the connection broke after {n_read} documents; run again ({error})"
        ) from error
    if not texts:
        raise ValueError(f"{name} is empty: {n_read} documents, none of them with text")
    about = {
        "dataset": source.dataset,
        "revision": builder.hash,
        "config": source.config,
        "split": source.split,
        "licence": _licence(source.dataset),
        "seed": seed,
        "read": n_read,
    }
    return {"documents": texts, "source": about}


def hub_error(name: str, error: Exception, advice: str) -> Exception:
    """What to raise when `datasets` failed to open `name`, in words that say what to do.

    PermissionError for a gated dataset, FileNotFoundError for one that does not exist,
    ConnectionError, with `advice`, if the hub did not answer, and ValueError for the rest.
    """
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, DatasetNotFoundError) and "gated" in str(error):
        return PermissionError(
            f"{name}: the dataset is gated; accept its terms on its page, then {login} ({error})"
        )
    if isinstance(error, DatasetNotFoundError):
        return FileNotFoundError(
            f"{name}: there is no such dataset or revision, or it is private; check the name, or "
            f"{login} ({error})"
        )
    if isinstance(error, DatasetsError | EmptyDatasetError | ValueError | RuntimeError):
        return ValueError(f"{name}: {error}")
    return ConnectionError(
        f"{name}: the hub did not answer, and it is not kept here; {advice} ({error})"
    )


def _no_configuration(source: HubSource) -> str:
    names = datasets.get_dataset_config_names(source.dataset, revision=source.revision)
    close = difflib.get_close_matches(source.config or "", names, n=8, cutoff=0.0)
    return (
        f"no configuration {source.config!r} among the dataset's {len(names)}; closest: "
        + ", ".join(close)
    )


def _licence(dataset: str) -> list[str]:
    """The licences that the dataset's card names, if it has a card and names any."""
    readme = Path(dataset) / "README.md"
    try:
        card = DatasetCard.load(readme if readme.is_file() else dataset)
    except (OSError, ValueError, httpx.HTTPError):
        return []
    named = card.data.to_dict().get("license") or []
    return [named] if isinstance(named, str) else [str(name) for name in named]


# ---------------------------------------------------------------------------------------- a corpus


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
    n_documents, seed : how many documents of a hub dataset are drawn per language, and from which
        seed; both parts together.
    store : where documents of a hub dataset are kept; None: the default store.
    """

    source: str
    part: str | None = None
    text_column: str = "text"
    max_document_tokens: int | None = None
    deduplicate: bool = True
    n_documents: int = 5000
    seed: int = 0
    store: Store | None = None
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        """Raise what is wrong with the source, as far as that can be seen without reading it."""
        if self.hub is None:
            for language in languages:
                corpus_files(self.source, language)

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

    def texts(self, language: str) -> list[str]:
        """One language's documents. Raises as `read_texts` and `fetch` do."""
        hub = self.hub
        if hub is None:
            texts = read_texts(self.source, language, self.text_column, self.deduplicate)
        else:
            texts = self._snapshot(hub, language)["documents"]
        return texts if self.part is None else [x for x in texts if part_of(x) == self.part]

    def windows(
        self,
        tokenizer: PreTrainedTokenizerBase,
        languages: Sequence[str],
        n_samples: int,
        window: int,
        seed: int,
    ) -> dict[str, Tensor]:
        """As many and as long windows for every language: `{language: (n_samples, window)}`.

        Raises what `texts` and `windows` raise, naming the language.
        """
        found = {}
        for language in languages:
            texts = self.texts(language)
            try:
                found[language] = windows(
                    tokenizer, texts, n_samples, window, seed, self.max_document_tokens
                )
            except ValueError as error:
                more = "" if self.hub is None else f" (n_documents is {self.n_documents})"
                raise ValueError(f"corpus of language {language!r}: {error}{more}") from error
        return found

    def fingerprint(self, languages: Sequence[str]) -> dict[str, str]:
        """A digest of each language's documents and of how they are read, for keys.

        Read plainly, local files have the digest of `fingerprint`. Every language is digested once.
        Raises as `texts` does.
        """
        return {language: self._digest_of(language) for language in languages}

    def _digest_of(self, language: str) -> str:
        if language in self._digests:
            return self._digests[language]
        hub = self.hub
        if hub is None:
            digest = fingerprint(self.source, [language])[language]
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


# ----------------------------------------------------------------------------------- token windows


def windows(
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


def fingerprint(source: str | Path, languages: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each language's local files, for the keys of what is computed from them.

    Raises FileNotFoundError or ValueError as `corpus_files` does.
    """
    digests = {}
    for language in languages:
        files = corpus_files(source, language)
        sums = [file_sha256(file) for file in files]
        digests[language] = sums[0] if len(sums) == 1 else digest_of(canonical(sums), 64)
    return digests


def token_counts(
    tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """How much text each language has, and into how many tokens the tokenizer cuts it.

    One row per language, in the order of `texts`: `language`, `documents`, `characters`, `bytes`
    (UTF-8), `tokens` (without special ones), `tokens_per_document`, `tokens_per_character` and
    `tokens_per_byte`. Tokenizers split languages unevenly: windows of equal length hold less text
    of a language with more tokens per character.

    Raises ValueError for a language without text.
    """
    rows = []
    for language, documents in texts.items():
        characters = sum(map(len, documents))
        if not characters:
            raise ValueError(f"no text in language {language!r}, so no tokens per character")
        size, tokens = sum(len(text.encode()) for text in documents), 0
        for start in range(0, len(documents), _CHUNK):
            part = list(documents[start : start + _CHUNK])
            encoded = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
            tokens += sum(map(len, encoded))
        rows.append(
            {
                "language": language,
                "documents": len(documents),
                "characters": characters,
                "bytes": size,
                "tokens": tokens,
                "tokens_per_document": tokens / len(documents),
                "tokens_per_character": tokens / characters,
                "tokens_per_byte": tokens / size,
            }
        )
    return pd.DataFrame(rows)
