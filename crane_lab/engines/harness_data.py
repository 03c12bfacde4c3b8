"""The data of lm-eval's benchmarks as people have them: copies found and read, items checked.

A copy of a data set is read from the files that its card names, or from files by subject and split
in one of `LAYOUTS`; here and not by `datasets`, which takes "None" and "NA" in a CSV file for
missing values, refuses splits that differ in columns, and does not find files below a folder with
brackets in its name. No loading script is run.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset, DatasetDict

from crane_lab.engines.tasks import OPTIONS
from crane_lab.texts import plain

#: Where the files of a subject's split are, as patterns in the copy's folder. The last four are
#: those of the authors' own archives of MMLU, C-Eval and Belebele.
LAYOUTS = (
    "{subject}/{split}.*",
    "{subject}/{split}-*.*",
    "{subject}/{split}/*.*",
    "data/{split}/{subject}_{split}.*",
    "{split}/{subject}_{split}.*",
    "data/{subject}.*",
    "{subject}.*",
)
_FORMATS = (".parquet", ".jsonl", ".csv")
_LETTERS = "ABCD"


class _Kind(NamedTuple):
    """How a family of benchmarks writes items: columns of options and answer, and its values."""

    options: tuple[str, ...]
    answer: str
    answers: tuple[Any, ...]


#: By the first word of a benchmark's name.
KINDS = {
    "mmlu": _Kind(("choices",), "answer", tuple(range(OPTIONS))),
    "ceval-valid": _Kind(tuple(_LETTERS), "answer", tuple(_LETTERS)),
    "belebele": _Kind(
        tuple(f"mc_answer{n}" for n in range(1, 5)), "correct_answer_num", tuple("1234")
    ),
}


def kind_of(name: str) -> _Kind:
    """The kind of a benchmark or of one of its tasks."""
    return KINDS[name.split("_")[0]]


def options_of(name: str, doc: Mapping[str, Any]) -> list[Any]:
    """The options of a task's document, in their order."""
    columns = kind_of(name).options
    found = doc[columns[0]] if len(columns) == 1 else [doc[column] for column in columns]
    return list(found)


# ------------------------------------------------------------------------------------------ copies


def read_copy(name: str, folder: Path, subject: str, splits: Sequence[str]) -> DatasetDict:
    """Some splits of a subject from a copy of a benchmark's data set.

    Raises FileNotFoundError, which says what is expected and what is there, if one is missing, and
    ValueError for files that cannot be read.
    """
    found = {}
    for split in splits:
        patterns = _of_card(folder, subject, split)
        for layout in LAYOUTS:
            if "{split}" in layout or len(splits) == 1:
                patterns.append(layout.format(subject=subject, split=split))
        files = next(filter(None, (_matching(folder, pattern) for pattern in patterns)), [])
        if not files:
            raise FileNotFoundError(_missing(name, folder, subject, split))
        rows = [row for file in files for row in _rows(name, file)]
        if not rows:
            raise ValueError(f"benchmark {name!r}: no items in {files[0]}; expected at least one")
        found[split] = Dataset.from_list(rows)
    return DatasetDict(found)


def _of_card(folder: Path, subject: str, split: str) -> list[str]:
    """The files that a copy's README.md names for a split of a subject, as patterns."""
    try:
        _, head, _ = (folder / "README.md").read_text("utf-8").split("---\n", 2)
        configs = yaml.safe_load(head)["configs"]
        own = next(config for config in configs if config["config_name"] == subject)
        paths = next(entry["path"] for entry in own["data_files"] if entry["split"] == split)
    except (OSError, ValueError, TypeError, KeyError, StopIteration, yaml.YAMLError):
        return []
    return [paths] if isinstance(paths, str) else list(paths)


def _matching(folder: Path, pattern: str) -> list[Path]:
    return sorted(p for p in folder.glob(pattern) if p.suffix in _FORMATS and p.is_file())


def _missing(name: str, folder: Path, subject: str, split: str) -> str:
    there = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir()) if folder.is_dir() else []
    shown = ", ".join(there[:6]) + (f" and {len(there) - 6} more" if len(there) > 6 else "")
    script = " (loading scripts are code and are not run)" if f"{folder.name}.py" in there else ""
    repository = f"{folder.parent.name}/{folder.name}"
    return (
        f"benchmark {name!r}: no {split!r} of {subject!r} in {folder}, which "
        f"{f'holds {shown}{script}' if there else 'does not exist or is empty'}; expected a copy "
        f"of the data set {repository!r} of the hub there, with a README.md that names its files, "
        f"or with a folder {subject!r} of files by split, as {split}.parquet, .jsonl or .csv. One "
        f"comes with `hf download {repository} --repo-type dataset --revision "
        f"refs/convert/parquet --local-dir ...`"
    )


def _rows(name: str, file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix == ".parquet":
            plain.check(file, b"PAR1")
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        elif file.suffix == ".jsonl":
            rows = [json.loads(line) for line in plain.lines(file) if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError(f"{file}: expected one JSON object per line")
        else:
            rows = _table(name, list(csv.reader(io.StringIO(plain.whole_text(file)), strict=True)))
    except (json.JSONDecodeError, csv.Error, pa.ArrowException) as error:
        raise ValueError(f"benchmark {name!r}: {file} cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"benchmark {name!r}: {error}") from error
    return rows


def _table(name: str, lines: list[list[str]]) -> list[dict[str, Any]]:
    """The rows of a CSV file; those of MMLU's authors have no header and letters for answers."""
    lines = [line for line in lines if line]
    if lines and len(lines[0]) == 6 and lines[0][-1] in _LETTERS:
        lines.insert(0, ["question", *_LETTERS, "answer"])
    if wrong := [n for n, line in enumerate(lines, 1) if len(line) != len(lines[0])]:
        raise ValueError(f"row {wrong[0]} of a CSV file has not as many columns as the first")
    rows: list[dict[str, Any]] = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    if kind_of(name).options == ("choices",):
        for row in rows:
            if set(_LETTERS) <= set(row) and row.get("answer") in tuple(_LETTERS):
                row["choices"] = [row.pop(letter) for letter in _LETTERS]
                row["answer"] = _LETTERS.index(row["answer"])
    return rows


# ------------------------------------------------------------------------------------------- items


def check_items(name: str, split: str, docs: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError for the first document of a task that is no item with one right option.

    Options that are empty or stand twice, which the benchmarks themselves have, are warned of.
    """
    kind, odd = kind_of(name), 0
    if not docs:
        raise ValueError(f"task {name!r} has no items: split {split!r} is empty")
    passage = ("flores_passage",) if kind is KINDS["belebele"] else ()
    wanted = ("question", *passage, *kind.options, kind.answer)
    if lacking := [column for column in wanted if column not in docs[0]]:
        raise ValueError(
            f"task {name!r}, split {split!r}: no column {', '.join(map(repr, lacking))}; there "
            f"are: {', '.join(docs[0])}"
        )
    for row, doc in enumerate(docs):
        if problem := _problem(kind, passage, doc):
            raise ValueError(f"task {name!r}, row {row} of split {split!r}: {problem}")
        texts = {option.strip() for option in options_of(name, doc)}
        odd += "" in texts or len(texts) < OPTIONS
    if odd:
        warnings.warn(
            f"task {name!r}: {odd} of {len(docs)} items have options that are empty or the same",
            stacklevel=2,
        )


def _problem(kind: _Kind, passage: Sequence[str], doc: Mapping[str, Any]) -> str:
    for column in ("question", *passage):
        text = doc[column]
        if not isinstance(text, str) or not text.strip() or text.strip() in plain.NOTHING:
            return f"expected a text as {column}, got {text!r}"
    options = [doc[column] for column in kind.options]
    if len(options) == 1:
        options = options[0]
        if not isinstance(options, list) or len(options) != OPTIONS:
            got = len(options) if isinstance(options, list) else repr(options)
            return f"expected {OPTIONS} options, got {got}"
    if not all(isinstance(option, str) for option in options):
        return f"expected {OPTIONS} texts as options, got {options!r}"
    answer = doc[kind.answer]
    if type(answer) is not type(kind.answers[0]) or answer not in kind.answers:
        return (
            f"the answer is {answer!r}; expected one of {', '.join(map(repr, kind.answers))} for "
            f"the {OPTIONS} options"
        )
    return ""
