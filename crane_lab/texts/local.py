"""Corpora in local files, one or more per language: found, read and digested."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crane_lab.store.files import canonical, digest_of, file_sha256
from crane_lab.texts.documents import distinct, no_column, reason, text_of

FORMATS = (".txt", ".jsonl", ".jsonl.gz", ".parquet")


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
                yield text_of(json.loads(line), text_column)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            except (TypeError, KeyError, UnicodeEncodeError) as error:
                raise ValueError(f"{path}, line {number}: {reason(error)}") from error


def _parquet(path: Path, text_column: str) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_column not in names:
                raise KeyError(no_column(text_column, names))
            for batch in file.iter_batches(columns=[text_column]):
                for value in batch.column(0).to_pylist():
                    yield text_of({text_column: value}, text_column)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file, or it is damaged: {error}") from error
    except UnicodeError as error:
        raise ValueError(f"{path} is not valid UTF-8: {error}") from error
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: {reason(error)}") from error


def corpus_digests(source: str | Path, languages: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each language's local files, for the keys of what is computed from them.

    Raises FileNotFoundError or ValueError as `corpus_files` does.
    """
    digests = {}
    for language in languages:
        files = corpus_files(source, language)
        # The same bytes are other documents in another format; plain text goes without saying.
        sums = [
            file_sha256(file) if _format(file) == ".txt" else f"{_format(file)} {file_sha256(file)}"
            for file in files
        ]
        plain = len(sums) == 1 and " " not in sums[0]
        digests[language] = sums[0] if plain else digest_of(canonical(sums), 64)
    return digests
