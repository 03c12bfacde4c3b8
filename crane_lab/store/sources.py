"""Digests of source code: what a stored result or an executed notebook was computed with.

What code a result depends on is read from the imports, module by module: whoever names the module
that computes something has named everything that it reaches. Comments, docstrings and layout do not
count, and the sources are those that were there when this process began, not what is edited since.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path

from crane_lab.store.files import canonical, digest_of

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("crane_core", "crane_lab")
#: How results are kept and notebooks are run does not change what is computed.
LEFT_OUT = ("crane_lab.store", "crane_lab.runs", "crane_lab.cli")


class Sources:
    """The modules of some packages below `root`, as they are when this is made.

    A module is its code and the files beside it that are no code (word lists, templates), by dotted
    name; a package's own name stands for its `__init__`.
    """

    def __init__(self, root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> None:
        self._code: dict[str, bytes] = {}
        self._data: dict[str, list[tuple[str, bytes]]] = {}
        for package in packages:
            for path in sorted((root / package).rglob("*")):
                parts = path.relative_to(root).parts
                if "__pycache__" in parts or path.name.startswith((".", "README")):
                    continue
                if not path.is_file():
                    continue
                if path.stem == "README":  # words about the code, which nothing reads
                    continue
                if path.suffix == ".py":
                    names = parts[:-1] if path.stem == "__init__" else (*parts[:-1], path.stem)
                    self._code[".".join(names)] = path.read_bytes()
                else:
                    folder = ".".join(parts[:-1])
                    self._data.setdefault(folder, []).append((path.name, path.read_bytes()))
        self._digests: dict[str, str] = {}
        self._imports: dict[str, frozenset[str]] = {}

    @cached_property
    def names(self) -> list[str]:
        """Every module by its dotted name."""
        return sorted(self._code)

    def _is_package(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") for other in self._code)

    def imports(self, name: str) -> frozenset[str]:
        """The modules that one module imports, wherever in it; what only types need is left out.

        A name that a package passes on counts as an import of the module it comes from.
        """
        if name not in self._imports:
            base = name if self._is_package(name) else name.rpartition(".")[0]
            found = self.imported(self._known(name).decode("utf-8"), base)
            self._imports[name] = frozenset(found - {name})
        return self._imports[name]

    def imported(self, source: str, base: str = "") -> set[str]:
        """The modules that a piece of source imports; `base` is the package it is in."""
        found: set[str] = set()
        for node in _nodes(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in self._code}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found |= self._origin(_absolute(node, base), alias.name)
        return found

    def _origin(self, module: str, name: str) -> set[str]:
        if f"{module}.{name}" in self._code:
            return {f"{module}.{name}"}
        if module not in self._code:
            return set()
        if self._is_package(module):
            for node in _nodes(ast.parse(self._code[module])):
                if isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        if (alias.asname or alias.name) == name:
                            return self._origin(_absolute(node, module), alias.name)
        return {module}

    def reached(self, names: Iterable[str]) -> list[str]:
        """These modules and all that they import, directly or through another."""
        first = set(names)
        reached: set[str] = set()
        waiting = set(first)
        while waiting:
            name = waiting.pop()
            reached.add(name)
            waiting |= self.imports(name) - reached
        outside = tuple(f"{left}." for left in LEFT_OUT)
        return sorted(n for n in reached if n in first or not f"{n}.".startswith(outside))

    def digest(self, *names: str) -> str:
        """Hex digest of the code of some modules and of all that they reach.

        Raises ValueError for a module that there is not.
        """
        for name in names:
            self._known(name)
        reached = self.reached(names)
        return digest_of(canonical([[name, self._digest(name)] for name in reached]))

    def _digest(self, name: str) -> str:
        if name not in self._digests:
            sums = hashlib.sha256(_without_words(self._code[name]).encode())
            folder = name if self._is_package(name) else name.rpartition(".")[0]
            for file, content in self._data.get(folder, []):
                sums.update(f"{file}\0".encode() + content + b"\0")
            self._digests[name] = sums.hexdigest()
        return self._digests[name]

    def _known(self, name: str) -> bytes:
        if name not in self._code:
            raise ValueError(f"there is no module {name!r}; modules: {', '.join(self.names)}")
        return self._code[name]


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _nodes(node)


def _absolute(node: ast.ImportFrom, base: str) -> str:
    """The module that a `from ... import` names; `base` is the package it stands in."""
    for _ in range(node.level - 1):
        base = base.rpartition(".")[0]
    return f"{base if node.level else ''}.{node.module or ''}".strip(".")


def _without_words(source: bytes) -> str:
    """A module's code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)


#: Read when this is imported, so that an edit during a run is not taken for what runs.
OWN = Sources()


def source_digest(*names: str) -> str:
    """Hex digest of the code that the named modules consist of and reach, for keys of `Store`.

    Names are dotted ("crane_core.attribution"); a module usually gives its own, `__name__`.

    Raises ValueError for a module that there is not.
    """
    digest = OWN.digest(*names)
    _NAMES[digest] = names
    return digest


_NAMES: dict[str, tuple[str, ...]] = {}


def modules_digested(digest: str) -> list[str] | None:
    """The names that `source_digest` gave `digest` for in this process, None if it did not."""
    return list(_NAMES[digest]) if digest in _NAMES else None


def modules_behind(source: str) -> list[str]:
    """Every module that a piece of source (a notebook) reaches, directly or through another."""
    return OWN.reached(OWN.imported(source))


@cache
def packages_digest() -> str:
    """Return a digest over the Python version and every installed package's version."""
    packages = {
        f"{distribution.name}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
    }
    return digest_of(canonical([sys.version, *sorted(packages)]))
