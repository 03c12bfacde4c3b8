"""Digests of the code that results depend on, from the imports of modules."""

from pathlib import Path

import pytest

from crane_lab.store import source_digest
from crane_lab.store.sources import OWN, Sources, modules_behind

MODULES = {
    "core/__init__.py": "from core.deep import x\nfrom core.b import *\n",
    "core/deep.py": 'x = 1  # a number\n"""Not the first thing, so no docstring."""\n',
    "core/b.py": "def f():\n    from core.deep import x\n\n    return x\n",
    "core/c.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import core.deep\n",
    "lab/__init__.py": "",
    "lab/words/__init__.py": "",
    "lab/words/list.txt": "one two",
    "lab/words/reader.py": "WORDS = 'list.txt'\n",
    "lab/runs.py": "from . import stage\n",
    "lab/stage.py": '"""What it does."""\nfrom core import x\nfrom .words import reader\n',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def sources(root: Path) -> Sources:
    return Sources(root, ("core", "lab"))


def test_imports_are_followed_wherever_they_stand(root: Path) -> None:
    found = sources(root)
    assert found.imports("core.b") == {"core.deep"}
    assert found.imports("core.c") == frozenset()
    # A name that a package passes on is followed to where it comes from.
    assert found.imports("lab.stage") == {"core.deep", "lab.words.reader"}
    assert found.reached(["lab.runs"]) == ["core.deep", "lab.runs", "lab.stage", "lab.words.reader"]
    assert found.imported("import torch\nfrom lab import stage\nimport core.b") == {
        "lab.stage",
        "core.b",
    }


def test_what_a_stage_reaches_moves_its_digest_and_nothing_else_does(root: Path) -> None:
    def digest() -> str:
        return sources(root).digest("lab.stage")

    def edited(name: str, text: str) -> str:
        path = root / name
        kept = path.read_text()
        path.write_text(text)
        try:
            return digest()
        finally:
            path.write_text(kept)

    before = digest()
    assert edited("core/deep.py", "x = 2\n") != before
    assert edited("lab/words/list.txt", "one two three") != before
    assert edited("lab/stage.py", MODULES["lab/stage.py"] + "y = 1\n") != before
    # Not reached, or no code.
    assert edited("core/b.py", "def f():\n    return 3\n") == before
    assert edited("lab/stage.py", MODULES["lab/stage.py"].replace("does", "did")) == before
    assert edited("core/deep.py", MODULES["core/deep.py"].replace("a number", "one")) == before
    (root / "lab" / "README.md").write_text("beside it")
    assert digest() == before


def test_the_sources_are_those_from_when_the_process_began(root: Path) -> None:
    found = sources(root)
    before = sources(root).digest("lab.stage")
    (root / "core" / "deep.py").write_text("x = 2\n")
    assert found.digest("lab.stage") == before != sources(root).digest("lab.stage")


def test_a_module_that_there_is_not(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no module 'moments'; modules: .*crane_core\.moments"):
        source_digest("moments")
    with pytest.raises(ValueError, match=r"no module 'core\.nothing'"):
        sources(root).digest("core.nothing")


def test_modules_behind_a_notebook() -> None:
    assert modules_behind("import numpy") == []
    found = modules_behind("from crane_core.moments import StreamingMoments")
    assert found == ["crane_core.moments"]
    reached = modules_behind("from crane_lab.pipeline import Pipeline")
    assert {"crane_core.attribution", "crane_core.kernels", "crane_core.models"} <= set(reached)
    assert not [name for name in reached if name.startswith("crane_lab.store")]


def test_digests_differ_between_modules() -> None:
    digests = {OWN.digest(name) for name in ("crane_core.moments", "crane_core.selection")}
    assert len(digests) == 2
