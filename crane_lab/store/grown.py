"""Tables that are shipped and grow: what a folder has is kept, and what it lacks is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from crane_lab.store.files import write_table, write_text
from crane_lab.store.machine import made_with

#: What identifies a row, by `Part.keys`' columns.
Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Part:
    """Rows that are computed at once: what they are called, the keys they have, and how."""

    name: str
    keys: frozenset[Key]
    compute: Callable[[], pd.DataFrame]


def read_grown(file: str | Path, texts: Sequence[str]) -> pd.DataFrame:
    """A table as `grow` wrote it; `texts` are the columns that hold text, "" if empty."""
    numbers = [str(name) for name in pd.read_csv(file, nrows=0) if name not in texts]
    return pd.read_csv(
        file,
        dtype=dict.fromkeys(texts, str),
        keep_default_na=False,
        na_values=dict.fromkeys(numbers, ""),
    )


def shipped_file(folder: str | Path, name: str, what: str, made_by: str) -> Path:
    """A file with shipped results: `what` it holds, and the module and options that make it.

    Raises FileNotFoundError, saying both, if the folder has none.
    """
    file = Path(folder) / name
    if not file.is_file():
        raise FileNotFoundError(f"no {name} in {folder}: expected {what}; run python -m {made_by}")
    return file


def made_of(file: str | Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The record beside a table, with `differing`: names of inputs that are not these.

    Raises FileNotFoundError if a table has no record.
    """
    record = Path(file).with_suffix(".json")
    if not record.is_file():
        raise FileNotFoundError(f"{file} has no {record.name} that says what it was made with")
    made: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(inputs))  # as they would be read again
    differing = [
        name for name, value in now.items() if not _goes_on(name, made["inputs"].get(name), value)
    ]
    return {**made, "differing": differing}


def _goes_on(name: str, made: Any, now: Any) -> bool:
    """Whether an input is as it was; sets can be added to, method by method."""
    if name == "sets" and isinstance(made, dict) and isinstance(now, dict):
        return made == {method: own for method, own in now.items() if method in made}
    return bool(made == now)


def is_made(file: str | Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a table of just these inputs is there already."""
    return Path(file).is_file() and not made_of(file, inputs)["differing"]


def write_made(
    table: pd.DataFrame, file: str | Path, inputs: Mapping[str, Any], **more: Any
) -> None:
    """Write a table, and beside it the `.json` that says what it was made of and with."""
    made = {"inputs": inputs, **more, **made_with()}
    # The record first: a table without one could be of anything.
    record = json.dumps(made, indent=1, sort_keys=True) + "\n"
    write_text(Path(file).with_suffix(".json"), record)
    write_table(table, file)


def grow(
    file: str | Path,
    inputs: Mapping[str, Any],
    columns: Sequence[str],
    texts: Sequence[str],
    parts: Iterable[Part],
) -> None:
    """Bring a table and the `.json` beside it to what all parts give, and write after each.

    A part of which all rows are there is not computed, and one of which some are there is computed
    anew, so that what belongs together is of one run. `seeds` in the record is how many of them
    every row of a part has.

    Raises FileExistsError if there is a table of other inputs, which is left as it is.
    """
    file = Path(file)
    table = pd.DataFrame()
    if file.is_file():
        differing = made_of(file, inputs)["differing"]
        if differing:
            raise FileExistsError(
                f"{file} was made with another {', '.join(differing)}; give another folder, or "
                f"remove it and {file.with_suffix('.json').name}"
            )
        table = read_grown(file, texts)
    for part in parts:
        found = (
            [tuple(row) for row in table[list(columns)].to_numpy().tolist()] if len(table) else []
        )
        if part.keys <= set(found):
            continue
        table = table[[key not in part.keys for key in found]] if found else table
        table = pd.concat([table, part.compute()], ignore_index=True)
        rest = [name for name in columns if name != "seed"]
        seeds = int(table.groupby(rest)["seed"].nunique().min())
        write_made(table, file, inputs, seeds=seeds)
        print(f"{file.name}: {part.name}", flush=True)
