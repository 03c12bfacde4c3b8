"""How the house is kept: small rooms, one name for one thing, nothing loaded that is not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from crane_lab.store import ROOT
from crane_lab.store.sources import OWN

PACKAGES = ("crane_core", "crane_lab")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
#: Lines of a module at most.
LONGEST = 600
#: Functions that are called by their module's name and do the same for what it is about.
SIBLINGS = {
    "main": "a command line's entry, in each of them",
    "load": "`models.load` and `benchmarks.load` give what the module is about, by name",
    "setup": "what Sphinx calls in an extension, in each of them",
    "collect": "one pass over texts, in memory (`accumulators`) or kept in the store (`streams`)",
}
#: From the bottom up. A module imports from its own layer and from those below.
LAYERS = (
    "crane_core",
    "crane_lab.store",
    "crane_lab.memory",
    "crane_lab.texts",
    "crane_lab.testbed",
    "crane_lab.engines",
    "crane_lab.tuning",
    "crane_lab.settings",
    "crane_lab.stages",
    "crane_lab.pipeline",
    "crane_lab.study",
    "crane_lab.audit",
    "crane_lab.show",
    "crane_lab.runs",
    "crane_lab.cli",
)


def public_names(path: Path) -> set[str]:
    """Classes and functions that a module defines at its top, without the private ones."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in tree.body if isinstance(node, kinds)}
    return {name for name in names if not name.startswith("_")}


def test_one_name_for_one_thing() -> None:
    defined = defaultdict(list)
    for path in MODULES:
        for name in public_names(path):
            defined[name].append(path.relative_to(ROOT).as_posix())
    twice = {name: places for name, places in defined.items() if len(places) > 1}
    assert not {name: twice[name] for name in twice if name not in SIBLINGS}


def test_rooms_are_small() -> None:
    assert not {
        path.relative_to(ROOT).as_posix(): lines
        for path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }


def layer(module: str) -> int:
    """Its place in `LAYERS`; the two packages themselves belong to their lowest layer."""
    places = [i for i, name in enumerate(LAYERS) if f"{module}.".startswith(f"{name}.")]
    return places[0] if places else LAYERS.index("crane_lab.store")


def test_no_import_runs_up() -> None:
    """Imports inside functions count as well, so that none of them hides a circle."""
    up = [
        f"{module} -> {other}"
        for module in OWN.names
        for other in sorted(OWN.imports(module))
        if layer(other) > layer(module)
    ]
    assert not up


def test_imports_form_no_circle() -> None:
    waiting = {module: set(OWN.imports(module)) for module in OWN.names}
    while free := [module for module, others in waiting.items() if not others & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting


def loaded(modules: str, heavy: str) -> str:
    code = f"import sys\nimport {modules}\nprint('{heavy}' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return run.stdout.strip()


@pytest.mark.parametrize(
    "modules",
    [
        "crane_core",
        "crane_lab.texts.corpora",
        "crane_lab.stages.streams",
        "crane_lab.engines.perplexity, crane_lab.engines.generation, crane_lab.engines.llm_judge",
    ],
)
def test_relevance_and_texts_do_not_load_the_harness(modules: str) -> None:
    assert loaded(modules, "lm_eval") == "False"


def test_the_harness_would_be_noticed() -> None:
    assert loaded("crane_lab.engines.tasks", "lm_eval") == "True"
