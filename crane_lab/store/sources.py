"""Digests of source code: what a stored result or an executed notebook was computed with.

What code a result depends on is read from the imports, module by module: whoever names the module
that computes something has named everything that it reaches. Comments, docstrings and layout do not
count, and the sources are those that were there when this process began, not what is edited since:
a module that was edited before it is imported is refused, and so is code that is not the runner's.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, cached_property
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from crane_lab.store.files import canonical, digest_of, write_text

#: The folder that the packages are in: a checkout, or what they were installed into.
HERE = Path(__file__).resolve().parent.parent.parent
#: Where paths start: the checkout; without one, as after installing a wheel, the working folder.
ROOT = HERE if (HERE / "data" / "published").is_dir() else Path.cwd()
PACKAGES = ("crane_core", "crane_lab")
#: How results are kept and notebooks are run does not change what is computed.
LEFT_OUT = ("crane_lab.store", "crane_lab.runs", "crane_lab.cli")


#: The environment variable with what `code_digest` is in the runner, for its kernels.
CODE = "CRANE_CODE"


class CodeChangedError(RuntimeError):
    """Code was edited after the process, or the run it belongs to, had begun."""


class Choices(tuple[str, ...]):
    """Names that a table of a module has by its source; what is put into it later is one, too."""

    def __new__(cls, names: Iterable[str], module: str, table: str) -> Choices:
        """The names, and the module and name of their table."""
        new = super().__new__(cls, tuple(names))
        new.table = (module, table)
        return new

    table: tuple[str, str]

    def __contains__(self, name: object) -> bool:
        module, table = self.table
        loaded = getattr(sys.modules.get(module), table, ())
        return super().__contains__(name) or (isinstance(name, str) and name in loaded)


class Sources:
    """The modules of some packages below `root`, as they are when this is made.

    A module is its code and the files beside it that are no code (word lists, templates), by dotted
    name; a package's own name stands for its `__init__`. What was read out of them, which takes
    seconds, is kept in the file `memory` for as long as they stay the same.
    """

    def __init__(
        self, root: Path = HERE, packages: Iterable[str] = PACKAGES, memory: Path | None = None
    ) -> None:
        self._memory = memory
        self._code: dict[str, bytes] = {}
        self._paths: dict[str, Path] = {}
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
                    self._paths[".".join(names)] = path
                else:
                    folder = ".".join(parts[:-1])
                    self._data.setdefault(folder, []).append((path.name, path.read_bytes()))
        self._trees: dict[str, ast.Module] = {}
        self._digests: dict[str, str] = {}
        self._imports: dict[str, frozenset[str]] = {}

    @cached_property
    def names(self) -> list[str]:
        """Every module by its dotted name."""
        return sorted(self._code)

    def require_unchanged(self, name: str) -> None:
        """Raise CodeChangedError if a module's file is no longer what it was when this was made."""
        path = self._paths.get(name)
        if path is not None and (not path.is_file() or path.read_bytes() != self._code[name]):
            raise CodeChangedError(
                f"code changed during the run: {path} was edited after this process had begun and "
                "before it was loaded. Start the same command again; what is stored by now stays"
            )

    @cached_property
    def everything(self) -> str:
        """Hex digest of all modules and the files beside them, words and layout included."""
        sums = hashlib.sha256()
        for name in self.names:
            sums.update(f"{name}\0".encode() + self._code[name] + b"\0")
        for folder, files in sorted(self._data.items()):
            for file, content in files:
                sums.update(f"{folder}/{file}\0".encode() + content + b"\0")
        return sums.hexdigest()[:32]

    # -- what was read out of them -------------------------------------------------------------

    @cached_property
    def _known_facts(self) -> dict[str, Any]:
        of = f"{self.everything} {sys.version}"
        facts: dict[str, Any] = {}
        if self._memory is not None:
            atexit.register(self._keep_facts)
            with suppress(OSError, ValueError, AttributeError):
                found = json.loads(self._memory.read_text(encoding="utf-8"))
                if found.get("of") == of:
                    facts = found
        self._kept = len(facts)
        return facts or {"of": of}

    def _keep_facts(self) -> None:
        assert self._memory is not None
        if len(self._known_facts) > self._kept:
            with suppress(OSError):  # for reading only
                write_text(self._memory, json.dumps(self._known_facts, sort_keys=True))

    def remembered(self, kind: str, text: str, read: Callable[[], Any]) -> Any:
        """What `read()` makes of `text` and of these modules, as JSON; kept in `memory`.

        `kind` names what is read, and has to change with how it is read out of anything else.
        """
        key = f"{kind} {digest_of(text)}"
        if key not in self._known_facts:
            self._known_facts[key] = read()
        return self._known_facts[key]

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
        return set(self.remembered(f"imports {base}", source, lambda: self._read(source, base)))

    def _read(self, source: str, base: str) -> list[str]:
        found: set[str] = set()
        for node in _nodes(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in self._code}
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found |= self._origin(_absolute(node, base), alias.name)
        return sorted(found)

    def _origin(self, module: str, name: str) -> set[str]:
        if f"{module}.{name}" in self._code:
            return {f"{module}.{name}"}
        if module not in self._code:
            return set()
        if self._is_package(module):
            # Also what stands there for types only, as in a package that loads it when asked for.
            for node in ast.walk(self._tree(module)):
                if isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        if (alias.asname or alias.name) == name:
                            return self._origin(_absolute(node, module), alias.name)
        return {module}

    def choices(self, module: str, name: str, *more: str) -> Choices:
        """`more`, and the strings of a tuple, or keys of a dictionary, at the top of a module.

        Read from the source: to know what there is to choose from nothing has to be loaded.

        Raises ValueError if there is no such thing.
        """
        found = self.remembered("choices", f"{module} {name}", lambda: self._chosen(module, name))
        return Choices((*more, *found), module, name)

    def _chosen(self, module: str, name: str) -> list[str]:
        self._known(module)
        for node in self._tree(module).body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if isinstance(target, ast.Name) and target.id == name:
                    value = node.value
                    found = (
                        value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [])
                    )
                    return [str(one.value) for one in found if isinstance(one, ast.Constant)]
        raise ValueError(f"module {module} defines no tuple or dictionary {name!r}")

    def _tree(self, name: str) -> ast.Module:
        if name not in self._trees:
            self._trees[name] = ast.parse(self._code[name])
        return self._trees[name]

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
            code = self._code[name]
            bare = self.remembered(
                "code",
                code.decode("utf-8"),
                lambda: hashlib.sha256(_without_words(code).encode()).hexdigest(),
            )
            sums = hashlib.sha256(bare.encode())
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
OWN = Sources(memory=ROOT / ".crane_cache" / "sources.json")


class _Unchanged(MetaPathFinder):
    """Finds nothing itself, but refuses what was edited since `OWN` was read."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        OWN.require_unchanged(name)


sys.meta_path.insert(0, _Unchanged())


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


@cache
def code_digest() -> str:
    """Return a digest of all that can be imported: our packages as they are read, and others."""
    return f"{OWN.everything}-{packages_digest()}"


def _require_runner() -> None:
    """Refuse to go on in a kernel with other code than its runner's, which names the results."""
    expected = os.environ.get(CODE)
    if expected and expected != code_digest():
        what = "an installed package" if expected.startswith(OWN.everything) else "the code"
        raise CodeChangedError(
            f"code changed during the run: {what} is not what it was when the run began. Start the "
            "same command again; what is stored by now stays"
        )


_require_runner()
