"""Digests of source code: what a stored result or an executed notebook was computed with."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import sys
from functools import cache
from pathlib import Path

from crane_core.runs.files import canonical, digest_of

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.parent


def _module_files(name: str) -> list[Path]:
    """Return the files of a module, or of a whole sub-package (data files included), in order."""
    file, folder = PACKAGE / f"{name}.py", PACKAGE / name
    if file.is_file():
        return [file]
    if folder.is_dir():
        return sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        )
    raise ValueError(f"crane_core has no module {name!r}; modules: {', '.join(_module_names())}")


def _module_names() -> list[str]:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    return sorted(files | {path.parent.name for path in PACKAGE.glob("*/__init__.py")})


def source_digest(*module_names: str) -> str:
    """Return a short hex digest of the source of the named crane_core modules.

    It goes into the keys of `Store`, so that a change of code invalidates what it computed. Names
    are `"attribution"` or `"crane_core.attribution"`; an unknown name is a ValueError.
    """
    sums = hashlib.sha256()
    for name in sorted({name.removeprefix("crane_core.") for name in module_names}):
        for path in _module_files(name):
            sums.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0")
            sums.update(path.read_bytes() + b"\0")
    return sums.hexdigest()[:16]


def _imported(source: str) -> set[str]:
    """Return the crane_core modules that a piece of source imports anywhere in it."""
    found: set[str] = set()
    known = set(_module_names())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {p[1] for p in parts if p[0] == PACKAGE.name and len(p) > 1}
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".") if node.module else []
            if node.level == 0 and path[:1] != [PACKAGE.name]:
                continue
            path = path[1:] if node.level == 0 else path
            found |= {path[0]} if path else {alias.name for alias in node.names}
    return found & known


def modules_behind(source: str) -> list[str]:
    """Return every crane_core module that `source` reaches, directly or through another.

    This module is left out: how a notebook is run does not change what it computes.
    """
    reached: set[str] = set()
    waiting = _imported(source)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        for path in _module_files(name):
            if path.suffix == ".py":
                waiting |= _imported(path.read_text(encoding="utf-8")) - reached
    return sorted(reached - {"runs"})


@cache
def packages_digest() -> str:
    """Return a digest over the Python version and every installed package's version."""
    packages = {
        f"{distribution.name}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
    }
    return digest_of(canonical([sys.version, *sorted(packages)]))
