"""What a run's results are, file by file and column by column (`book/results.yaml`): their page."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from crane_lab.runs.executed import record_of
from crane_lab.runs.execution import Run

SOURCE = "results.yaml"
#: What files of the real model begin with, most of which are like the run's own.
REAL = "real_"
_PAGE = """# Results, file by file

What this run left in `{folder}`, by the notebook that makes it: every file, and every column with
its meaning and its unit. A share is between 0 and 1, a code is that of a language, and what is
missing is empty. Columns of languages are there once for each language of the run.
`pandas.read_csv` and `pandas.read_parquet` read the files as they are.
"""


@dataclass(frozen=True)
class Described:
    """What is said of a file, and of its columns by the keys that they were found under."""

    pattern: str
    about: str
    columns: Mapping[str, tuple[str, str]]
    names: Mapping[str, list[str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[Any, ...]:
        """Equal for files that are described in the same words."""
        return (self.about, tuple(self.names), tuple(map(tuple, self.names.values())), self.unknown)


class Dictionary:
    """The descriptions in a `results.yaml`, for runs with these languages."""

    def __init__(self, path: Path, languages: Iterable[str]) -> None:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.shared: dict[str, str] = text["columns"]
        self.files: dict[str, dict[str, Any]] = text["files"]
        self.languages = list(languages)

    def find(self, name: str, columns: Iterable[str]) -> Described | None:
        """The descriptions of a file with these columns; None if it has none.

        A column is looked up among those of its file, then among those that mean the same
        everywhere. Names as they stand go before names with a <part> that varies, of which the
        longest counts. A file of the real model that has no description is like the run's own.
        """
        pattern = next((key for key in self.files if self._is(name, key, file=True)), None)
        if pattern is None:
            if not name.startswith(REAL):
                return None
            same = self.find(name.removeprefix(REAL), columns)
            return same and replace(same, about=f"{same.about} Here of the real model, as shipped.")
        entry = self.files[pattern]
        names: dict[str, list[str]] = {}
        found: dict[str, tuple[str, str]] = {}
        unknown = []
        for column in columns:
            for known in (entry.get("columns", {}), self.shared):
                fitting = [key for key in known if self._is(column, key)]
                if key := column if column in known else max(fitting, key=len, default=""):
                    names.setdefault(key, []).append(column)
                    meaning, _, unit = known[key].rpartition(" | ")
                    found[key] = (meaning, unit)
                    break
            else:
                unknown.append(column)
        return Described(pattern, entry["about"], found, names, tuple(unknown))

    def _is(self, name: str, key: str, *, file: bool = False) -> bool:
        parts = {
            "<language>": "|".join(map(re.escape, self.languages)) or "(?!)",
            "<n>": r"\d+",
            "<column>": ".+",
        }
        if file and "<" not in key:
            return fnmatchcase(name, key)
        pieces = re.split(r"(<\w+>)", key)
        pattern = "".join(f"({parts[p]})" if p in parts else re.escape(p) for p in pieces)
        return re.fullmatch(pattern, name) is not None


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns; none for a file that is no table."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return [str(name) for name in parquet.read_schema(path).names]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])
    return []


def results_of(run: Run) -> dict[str, list[str]]:
    """The files that each executed notebook of a run has left, by its name, in the book's order."""
    found = {
        nb.name: record_of(run.executed(nb)).get("results", {}) for nb in run.project.notebooks
    }
    return {name: sorted(files) for name, files in found.items() if files}


def results_page(run: Run, order: Iterable[str]) -> str:
    """The book's page of all results of a run, as MyST text; notebooks in this order."""
    languages = map(str, run.parameters.get("languages") or [])
    known = Dictionary(run.project.root / "book" / SOURCE, languages)
    made = results_of(run)
    folder = run.directory / "results"
    lines = [_PAGE.format(folder=folder.relative_to(run.project.root).as_posix())]
    if not made:
        lines.append("This run has left none so far.\n")
    titles = {nb.name: nb.title for nb in run.project.notebooks}
    shown: dict[tuple[Any, ...], str] = {}
    for notebook in (name for name in order if name in made):
        number = notebook.split("_")[0]
        lines += [f"## {number}: {titles[notebook]}", ""]
        lines += [f"Made by [notebook {number}](../notebooks/{notebook}).", ""]
        found = {name: known.find(name, columns_of(folder / name)) for name in made[notebook]}
        lines += _entries(found, list(known.files), shown)
    return "\n".join(lines)


def _entries(
    found: Mapping[str, Described | None], order: list[str], shown: dict[tuple[Any, ...], str]
) -> Iterator[str]:
    """Definitions of files, those in the same words together; columns that were shown are not."""
    from crane_lab.show.foreign import as_code

    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, said in found.items():
        groups.setdefault(said.shape if said else (), []).append(name)
    place = {
        key: order.index(said.pattern) if (said := found[names[0]]) else len(order)
        for key, names in groups.items()
    }
    for key in sorted(groups, key=place.__getitem__):
        said = found[groups[key][0]]
        yield ", ".join(as_code(name) for name in groups[key])
        yield f": {said.about if said else 'Not described.'}\n"
        if said is None or not (said.names or said.unknown):
            continue
        if key in shown:
            yield f"  The columns are those of {as_code(shown[key])}.\n"
            continue
        shown[key] = groups[key][0]
        yield "  | column | meaning | unit |\n  | --- | --- | --- |"
        for of, names in said.names.items():
            listed = ", ".join(as_code(name) for name in names)
            yield "  | " + " | ".join([listed, *map(_cell, said.columns[of])]) + " |"
        for name in said.unknown:
            yield f"  | {as_code(name)} | not described | |"
        yield ""


def _cell(text: str) -> str:
    """Text of ours in a table: |relevance| would end a cell, and <column> would be a tag."""
    return re.sub(r"(<\w+>)", r"`\1`", text).replace("|", "\\|")
