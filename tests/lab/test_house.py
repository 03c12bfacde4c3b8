"""How the house is kept: small rooms, one name for one thing, nothing loaded that is not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from crane_lab.store import ROOT

PACKAGES = ("crane_core", "crane_lab")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
#: Lines of a module at most.
LONGEST = 600
#: Functions that are called by their module's name and do the same for what it is about.
SIBLINGS = {
    "main": "a command line's entry, in each of them",
    "load": "`models.load` and `benchmarks.load` give what the module is about, by name",
}
#: Two things under one name, and modules that are too long, until they are taken apart.
HOMONYMS = {
    "act_prob_90p",
    "agreement",
    "collect",
    "compute",
    "lape",
    "plan",
    "reliability",
    "variants",
}
TOO_LONG = {
    "crane_lab/pipeline.py",
    "crane_lab/show/figures.py",
    "crane_lab/study/choices.py",
    "crane_lab/study/criteria.py",
}


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
    assert not {name: twice[name] for name in twice if name not in {*SIBLINGS, *HOMONYMS}}


def test_rooms_are_small() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert not {name: lines for name, lines in long.items() if name not in TOO_LONG}


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
