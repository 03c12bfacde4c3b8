"""Files that are either complete or absent, and digests of what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crane_core.files import HOST, replacing

if TYPE_CHECKING:
    import pandas

#: A text that a spreadsheet computes instead of showing it; a number with its sign is none.
_FORMULA = re.compile(r"[=+\-@\t\r](?!$|[\d.,]+(e[+-]?\d+)?\s?%?$)")


class DiskFullError(OSError):
    """No room for a file; what was there before is untouched."""


@contextmanager
def full_disk_explained(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left" while writing `path` (`needed` bytes) into a DiskFullError.

    Libraries that write by themselves may report it under another type, with the system's words.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        words = ("No space left on device", "Disk quota exceeded")
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and not any(
            text in str(error) for text in words
        ):
            raise
        folder = next(folder for folder in path.parents if folder.is_dir())
        free = f"{shutil.disk_usage(folder).free / 2**20:.2f} MiB free"
        size = "" if needed is None else f" needs {needed / 2**20:.2f} MiB and"
        raise DiskFullError(
            errno.ENOSPC,
            f"no room on the disk: {path.name}{size} could not be written to {folder} ({free}, or "
            "your quota there is used up). Nothing stored before is lost and nothing is left half "
            "written: make room and start the same command again, it goes on from here",
        ) from error


@contextmanager
def atomic_path(path: Path | str, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it there when the block ends without error.

    A file, or a folder that is not there yet: `crane_core.files.replacing`, whose temporary names
    let `remove_leftovers` tell the files of a killed process from those of a living one. Folders
    above `path` are made.

    Raises DiskFullError if there is no room; `needed` is the size in bytes for its message.
    """
    path = Path(path)
    with full_disk_explained(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, completely or not at all."""
    with atomic_path(path, len(data)) as temporary:
        temporary.write_bytes(data)


def remove_leftovers(directory: Path) -> None:
    """Delete what `atomic_path` left below `directory` in processes that no longer run here."""
    for path in directory.rglob(".*.tmp"):
        *name, process, _ = path.name.split(".")
        host = name[-1].partition("@")[2] or HOST
        if host == HOST and not (process.isdigit() and _alive(int(process))):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(table: pandas.DataFrame, path: Path | str) -> None:
    """Write a table as CSV or Parquet, as the name says, without its index; whole or not at all.

    In a CSV, a text that a spreadsheet would take for a formula (it begins with = + - @ or a tab,
    and is no number) gets an apostrophe before it, and line breaks are LF: answers of models may be
    anything. Parquet has texts as they are.
    """
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            _for_spreadsheets(table).to_csv(temporary, index=False)


def _for_spreadsheets(table: pandas.DataFrame) -> pandas.DataFrame:
    table = table.copy()
    for column in table.select_dtypes(["object", "string"]):
        given = list(table[column])
        cells = [_as_cell(cell) for cell in given]
        if any(cell is not before for cell, before in zip(cells, given, strict=True)):
            table[column] = cells
    return table


def _as_cell(cell: Any) -> Any:
    if not isinstance(cell, str) or not ("\r" in cell or _FORMULA.match(cell)):
        return cell
    # A CR alone, which pandas does not quote, would end the row.
    text = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if _FORMULA.match(cell) else text


def canonical(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces; ValueError for NaN."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


def digest_of(text: str, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
