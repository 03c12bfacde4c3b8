"""Executed notebooks as files: what the runner notes in them, and what readers make of them.

A notebook that the runner wrote says so under `crane` in its metadata: the notebook's name, a
digest of what it was executed with, one of what it shows, and checksums of the results it wrote.
Only what still is what the runner wrote is ever deleted or replaced; what somebody changed since is
set aside beside it, and what somebody put there is left alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crane_lab.store.files import digest_of, file_sha256, write_text


def record_of(path: Path) -> dict[str, Any]:
    """What the runner noted in an executed notebook; empty if it is missing or broken."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))["metadata"]["crane"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return record if isinstance(record, dict) else {}


def shown_digest(notebook: Any) -> str:
    """Digest of what an executed notebook shows: sources and outputs, not how it is laid out.

    Jupyter adds metadata when it saves, and counts executions; neither is an edit.
    """
    cells = []
    for cell in notebook["cells"]:
        outputs = [
            {k: _joined(v) for k, v in output.items() if k not in ("metadata", "execution_count")}
            for output in cell.get("outputs", [])
        ]
        cells.append([cell["cell_type"], _joined(cell["source"]), outputs])
    return digest_of(json.dumps(cells, sort_keys=True), 32)


def _joined(value: Any) -> Any:
    """A text that a file has as a list of lines, as one; the data of an output alike."""
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    lines = isinstance(value, list) and all(isinstance(line, str) for line in value)
    return "".join(value) if lines else value


def is_as_written(path: Path) -> bool:
    """Whether an executed notebook is there as the runner wrote it, under the name it had."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        noted = notebook["metadata"]["crane"]
        name = path.name.removesuffix(".ipynb").removesuffix(".failed")
        return bool(noted["notebook"] == name and noted["shown"] == shown_digest(notebook))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_edited(path: Path) -> bool:
    """Whether somebody changed an executed notebook since the runner wrote it."""
    # Before `shown` was noted, or killed while papermill was writing it: nobody can tell.
    unknown = "shown" not in (noted := record_of(path)) and bool(noted)
    return path.exists() and not unknown and not is_as_written(path) and not _is_cut_off(path)


def _is_cut_off(path: Path) -> bool:
    """Whether a file is the beginning of a notebook, as who is killed while writing leaves it."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].rstrip()
        # In the middle of a word, of a number, or of a text.
        in_word = any(word.startswith(rest) for word in ("true", "false", "null"))
        return in_word or set(rest) <= set("+-.eE") or "Unterminated string" in error.msg
    return False


def remove_own(path: Path) -> None:
    """Delete an executed notebook, or set it aside if it is not as the runner wrote it."""
    if is_edited(path):
        set_aside(path)
    else:
        path.unlink(missing_ok=True)


def remove_results(folder: Path, results: dict[str, str]) -> None:
    """Delete results (name -> SHA-256), and set those aside that were changed since."""
    for name, checksum in results.items():
        path = folder / name
        if path.is_file():
            path.unlink() if file_sha256(path) == checksum else set_aside(path)


def set_aside(path: Path) -> Path:
    """Rename a file that somebody changed, so that nothing is written over it; say so."""
    numbers = (f".edited-{n}" if n > 1 else ".edited" for n in range(1, 10**6))
    free = next(p for end in numbers if not (p := path.with_stem(path.stem + end)).exists())
    os.replace(path, free)
    said = f"{path.name} was changed since it was written: kept as {free.name}, and made again"
    print(said, file=sys.stderr, flush=True)
    return free


def prune(folder: Path, names: Iterable[str]) -> None:
    """Delete executed notebooks without a source among `names`, and those that failed.

    What the runner did not write, or what was changed since, stays.
    """
    kept = set(names)
    for path in folder.glob("*.ipynb"):
        if path.stem not in kept and is_as_written(path):
            path.unlink()


def mark(notebook: Any, name: str, **noted: Any) -> None:
    """Note in a notebook that the runner wrote it as it is now; `noted` is kept with that."""
    notebook["metadata"]["crane"] = {**noted, "notebook": name, "shown": shown_digest(notebook)}


def mark_failed(path: Path, name: str) -> int:
    """Mark a notebook that failed, and return the index of the last cell that began."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    mark(notebook, name)
    write_text(path, json.dumps(notebook, ensure_ascii=False, indent=1) + "\n")
    started = [
        index
        for index, cell in enumerate(notebook["cells"])
        if cell["metadata"].get("papermill", {}).get("start_time")
    ]
    return started[-1] if started else 0
