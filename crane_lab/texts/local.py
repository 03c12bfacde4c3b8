"""Corpora in local files, one or more per language: found, read and digested.

A corpus may be larger than memory: of its documents only the places are kept, and their text is
read again whenever it is asked for.
"""

from __future__ import annotations

import json
import os
import warnings
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crane_lab.store.files import canonical, digest_of, file_sha256
from crane_lab.texts import plain
from crane_lab.texts.documents import PARTS, document_digest, no_column, part_of, reason, text_of
from crane_lab.texts.parallel import numbers_file, paragraphs_of

FORMATS = (
    *(kind + packing for kind in (".txt", ".jsonl") for packing in ("", *plain.PACKINGS)),
    ".parquet",
)
#: The formats in words.
READ = (
    ".txt (one document per line), .jsonl (one JSON object per line), both also as "
    + ", ".join(plain.PACKINGS)
    + ", or .parquet"
)
#: Endings of data that are not read, and how to make them what is.
_CONVERTED = {
    ".json": "for JSON with one object per line rename it to .jsonl, for an array use "
    "`jq -c '.[]' in.json > out.jsonl`",
    ".csv": "`pandas.read_csv(...).to_parquet(...)`",
    ".tsv": "`pandas.read_csv(..., sep='\\t').to_parquet(...)`",
    ".arrow": "`datasets.load_from_disk(...).to_parquet(...)`",
    ".zip": "unpack it",
    ".tar": "unpack it",
    ".tgz": "unpack it",
}
_MAGIC = b"PAR1"  # a Parquet file begins so
#: Rows of Parquet that are in memory at a time.
_ROWS = 1000


def corpus_files(source: str | Path, language: str) -> list[Path]:
    """The files of one language's corpus, in the order in which they are read.

    `~` is the home folder. Raises FileNotFoundError if the folder does not exist, and ValueError if
    it has nothing for `language` (it lists the languages there are, and what comes close), two
    things for it, or an empty folder.
    """
    folder = Path(os.path.expanduser(source))
    if "{language}" in str(source):
        found = [Path(str(folder).replace("{language}", language))]
        if not found[0].exists() and not found[0].is_symlink():
            raise FileNotFoundError(f"no corpus for language {language!r}: no such file {found[0]}")
    elif not folder.is_dir():
        if folder.exists():
            raise ValueError(
                f"corpus {folder} is a file; expected a folder with one <language>.txt, .jsonl or "
                ".parquet per language, or a path with {language} in it"
            )
        braces = "; a place for the language is written {language}" if "{" in str(source) else ""
        raise FileNotFoundError(
            f"corpus folder {source} does not exist; expected one <language>.txt, .jsonl or "
            f".parquet per language (or hub:<dataset> for one of the Hugging Face hub){braces}"
        )
    else:
        there = [(path, _stem(path)) for path in sorted(folder.iterdir())]
        found = [path for path, stem in there if stem == language]
        if not found:
            known = ", ".join(sorted({stem for _, stem in there if stem}))
            near = [p for p, _ in there if p.name.split(".")[0].casefold() == language.casefold()]
            raise ValueError(
                f"no corpus for language {language!r} in {folder} (available: {known or 'none'})"
                + "".join(f"; {_not_read(path, language)}" for path in near)
            )
        if len(found) > 1:
            raise ValueError(
                f"{folder} has several corpora for language {language!r}, expected one: "
                + ", ".join(path.name for path in found)
            )
    path = found[0]
    if path.is_dir():
        entries = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        found = [file for file in entries if _format(file) and not file.is_dir()]
        other = [file.name for file in entries if file not in found]
        if not found:
            empty = f"has only {', '.join(other[:5])}" if other else "is empty"
            raise ValueError(f"corpus folder {path} {empty}; expected files {READ} in it")
        if skipped := [name for name in other if Path(name).suffix in _CONVERTED]:
            warnings.warn(
                f"corpus folder {path}: {', '.join(skipped)} not read; read are {READ}",
                stacklevel=2,
            )
    elif not _format(path):
        raise ValueError(f"{path} has an unknown format; expected {READ}{_conversion(path)}")
    return found


def checked_files(source: str | Path, language: str) -> list[Path]:
    """`corpus_files`, whose beginnings were looked at; raises what it and `plain.check` raise."""
    found = corpus_files(source, language)
    for file in found:
        plain.check(file, _MAGIC if _format(file) == ".parquet" else b"")
    return found


def _format(path: Path) -> str:
    """The one of `FORMATS` that a file's name ends in, or ""."""
    if path.name.startswith("."):
        return ""
    found = [ending for ending in FORMATS if path.name.endswith(ending)]
    return max(found, key=len, default="")


def _stem(path: Path) -> str:
    """The language that an entry of a corpus folder is for, or ""."""
    if path.is_dir():
        return "" if path.name.startswith(".") else path.name
    return path.name.removesuffix(_format(path)) if _format(path) else ""


def _conversion(path: Path) -> str:
    found = [how for ending, how in _CONVERTED.items() if ending in path.suffixes]
    return f" ({found[0]})" if found else ""


def _not_read(path: Path, language: str) -> str:
    """Why an entry that looks like a language's is not it."""
    if path.is_dir():
        return f"{path.name} is a folder; expected a file, or a folder {language!r} of files"
    if _format(path):
        return f"{path.name} is for {_stem(path)!r}"
    return f"{path.name} is not read; expected {READ}{_conversion(path)}"


class LocalTexts(Sequence[str]):
    """One language's documents in a local corpus, read when they are asked for.

    Only their places are in memory: 8 bytes for each document, four times that while this is made.
    `take` reads several in one go through the files, which stops at the last of them. `ids` are the
    numbers of the documents in a parallel corpus (`parallel`), which says itself what is held out.
    """

    def __init__(
        self,
        source: str | Path,
        language: str,
        text_column: str = "text",
        deduplicate: bool = True,
        part: str | None = None,
    ) -> None:
        self.files = checked_files(source, language)
        self._text_column, self._state = text_column, self._stat()
        # The first eight bytes of digests: that two of 10 million documents are taken for one by
        # accident is less likely than 1 in 100,000.
        places, digests, empty = array("q"), array("Q"), True
        parallel, lines = paragraphs_of(source, language), 0
        ids = () if parallel is None else parallel.ids
        for place, row in enumerate(self._rows()):
            lines += 1
            text = _document(*row, text_column)
            if text and not text.isspace():
                empty = False
                digest = document_digest(text) if deduplicate or part else b""
                if parallel is None:
                    own = part_of(digest) if part else None
                else:  # of a line without a number, below
                    own = PARTS[place < len(ids) and ids[place] in parallel.held_out]
                if part in (None, own):
                    places.append(place)
                    digests.append(int.from_bytes(digest[:8]))
        if empty:
            names = ", ".join(str(file) for file in self.files)
            raise ValueError(f"{names} is empty; expected documents, in .txt one per line")
        if parallel is not None and len(ids) != lines:
            raise ValueError(
                f"{numbers_file(source)} numbers {len(ids)} paragraphs of {language!r}, but "
                f"{self.files[0].name} has {lines} lines; expected a number for each"
            )
        self._places = np.frombuffer(places, np.int64) if places else np.empty(0, np.int64)
        if deduplicate and places:
            _, first = np.unique(np.frombuffer(digests, np.uint64), return_index=True)
            self._places = self._places[np.sort(first)]
        self.ids = [ids[place] for place in self._places] if parallel else None

    def _stat(self) -> list[tuple[int, int]]:
        return [(facts.st_size, facts.st_mtime_ns) for facts in map(Path.stat, self.files)]

    def _rows(self) -> Iterator[tuple[Path, str, int, Any]]:
        """Every row of the files, blank and repeated ones too: file, format, number there, row."""
        for file in self.files:
            kind = _format(file).removesuffix(plain.packing(file))
            rows = _parquet(file, self._text_column) if kind == ".parquet" else plain.lines(file)
            for number, row in enumerate(rows, start=1):
                yield file, kind, number, row

    def _at(self, places: Sequence[int] | np.ndarray) -> Iterator[tuple[int, str]]:
        """The documents at some of `_rows`, in ascending order, each with its place."""
        if self._stat() != self._state:
            names = ", ".join(str(file) for file in self.files)
            raise ValueError(f"{names} changed while the documents were read; run again")
        wanted = iter(places)
        ahead = next(wanted, None)
        for place, row in enumerate(self._rows()):
            if ahead is None:
                return
            if place == ahead:
                yield place, _document(*row, self._text_column).strip()
                ahead = next(wanted, None)

    def take(self, places: Sequence[int] | np.ndarray) -> list[str]:
        """The documents at several places, in that order."""
        rows = self._places[np.asarray(places, dtype=np.int64)].tolist()
        found = dict(self._at(sorted(set(rows))))
        return [found[row] for row in rows]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return (text for _, text in self._at(self._places))

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self.take(range(*place.indices(len(self))))
        return self.take([place])[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def read_texts(
    source: str | Path, language: str, text_column: str = "text", deduplicate: bool = True
) -> LocalTexts:
    """One language's documents in a local corpus, stripped, blank and repeated ones left out.

    `text_column` is where they are in JSON lines and Parquet. Of documents that differ at most in
    white space or in how letters are composed (Unicode NFC), the first is kept.

    Raises FileNotFoundError or ValueError as `corpus_files` does, and ValueError if a file is
    damaged or something else than its name says, is not valid UTF-8, has no such column or if there
    is no text at all.
    """
    return LocalTexts(source, language, text_column, deduplicate)


def _document(path: Path, kind: str, number: int, row: Any, text_column: str) -> str:
    """The text of a row: a line of .txt or .jsonl, or an entry of a column of Parquet."""
    if kind == ".txt":
        return str(row)
    try:
        if kind == ".parquet":
            return text_of({text_column: row}, text_column)
        if not (row := row.strip()):
            return ""
        if row.startswith("["):
            raise TypeError(
                "a JSON array; expected one object per line, as `jq -c '.[]' in.json > out.jsonl` "
                "writes"
            )
        return text_of(json.loads(row), text_column)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: not JSON ({error}); expected one object per line"
        ) from error
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        unit = "row" if kind == ".parquet" else "line"
        raise ValueError(f"{path}, {unit} {number}: {reason(error)}") from error


def _parquet(path: Path, text_column: str) -> Iterator[Any]:
    plain.check(path, _MAGIC)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_column not in names:
                raise ValueError(f"{path}: {no_column(text_column, names)}")
            for batch in file.iter_batches(_ROWS, columns=[text_column]):
                yield from batch.column(0).to_pylist()
    except UnicodeError as error:
        raise ValueError(f"{path} is not valid UTF-8: {error}") from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no Parquet file, or it is damaged: {error}") from error


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
        if (numbers := numbers_file(source)).is_file():  # they also say what is in which part
            sums.append(f"{numbers.name} {file_sha256(numbers)}")
        plain = len(sums) == 1 and " " not in sums[0]
        digests[language] = sums[0] if plain else digest_of(canonical(sums), 64)
    return digests
