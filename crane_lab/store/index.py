"""What a store holds, in short, without reading thousands of manifests each time."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from crane_lab.store.files import write_text

#: Beside the stages: what manifests said, by path, size and time. Only ever a copy.
NAME = ".index.json"


class Stored(NamedTuple):
    """An artefact: its stage, its size, the time it took (0 where unknown), and whose it is."""

    stage: str
    bytes: int
    seconds: float
    run: str | None


def kept(root: Path) -> list[Stored]:
    """Every artefact of the store at `root`, by stage; damaged manifests are left out."""
    before = _read(root / NAME)
    after: dict[str, list[Any]] = {}
    found = []
    for folder in sorted(_folders(root)):
        files = {entry.name: entry for entry in os.scandir(folder)}
        for name, entry in sorted(files.items()):
            if not re.fullmatch(r"[0-9a-f]{20}\.json", name):
                continue
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                facts = entry.stat()
                stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
                path = f"{os.path.basename(folder)}/{name}"
                known = before.get(path, [])
                if known[:3] != stamp:
                    known = [*stamp, *_said(Path(entry.path))]
                file, seconds, run = known[3:]
                size = files[file].stat().st_size
                after[path] = known
                found.append(Stored(os.path.basename(folder), size, seconds, run))
    if after != before:
        with suppress(OSError):  # for reading only
            write_text(root / NAME, json.dumps(after))
    return found


def _folders(root: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return [entry.path for entry in os.scandir(root) if entry.is_dir()]
    return []


def _read(path: Path) -> dict[str, list[Any]]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(known, list) for known in found.values()):
            return found
    return {}


def _said(sidecar: Path) -> list[Any]:
    """File, seconds and run, as a manifest says."""
    manifest = json.loads(sidecar.read_text(encoding="utf-8"))
    made = manifest.get("made", {})
    return [manifest["file"], float(made.get("seconds") or 0.0), made.get("run")]
