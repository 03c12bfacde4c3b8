"""Digests of the code that results depend on, from the imports of modules."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crane_core.attribution import OBJECTIVES
from crane_core.selection import RULES
from crane_lab.store import ROOT, source_digest
from crane_lab.store.sources import OWN, PACKAGES, Sources, modules_behind

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


# --- code that is edited during a run -------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, to be edited."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, root / package, ignore=ignored)
    return root


def python(copy: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), **environment},
    )


EDIT = """
import pathlib
from crane_lab.store import source_digest, sources
path = pathlib.Path(sources.__file__).parents[1] / "texts" / "languages.py"
before = path.read_text()
def edit():
    path.write_text(before + "\\nSINCE = 1\\n")
"""


def test_what_is_edited_before_it_is_imported_is_refused(copy: Path) -> None:
    found = python(
        copy,
        EDIT
        + "edit()\ntry:\n    import crane_lab.texts.languages\n"
        + "except sources.CodeChangedError as error:\n    print(error)\nfinally:\n"
        + "    path.write_text(before)\n"
        + "import crane_lab.texts.languages\nprint('loaded')",
    )
    assert "code changed during the run" in found.stdout
    assert "texts/languages.py was edited" in found.stdout
    assert "same command again" in found.stdout
    assert found.stdout.endswith("loaded\n"), found.stderr


def test_what_is_edited_after_it_was_imported_does_not_count(copy: Path) -> None:
    found = python(
        copy,
        EDIT
        + "import crane_lab.texts.languages as loaded\n"
        + "first = source_digest(loaded.__name__)\nedit()\n"
        + "second = source_digest(loaded.__name__)\n"
        + "new = sources.Sources().digest(loaded.__name__)\n"
        + "path.write_text(before)\nprint(first == second, first == new)",
    )
    assert found.stdout == "True False\n", found.stderr


def test_a_kernel_with_other_code_than_its_runner_is_refused(copy: Path) -> None:
    digest = "from crane_lab.store.sources import code_digest; print(code_digest())"
    runner = python(copy, digest).stdout.strip()
    assert python(copy, digest, CRANE_CODE=runner).stdout.strip() == runner
    path = copy / "crane_core" / "moments.py"
    before = path.read_text()
    path.write_text(before + "# a remark, whatever it says\n")
    edited = python(copy, digest, CRANE_CODE=runner)
    path.write_text(before)
    assert edited.returncode == 1
    assert "code changed during the run: the code is not what it was" in edited.stderr
    ours = runner.partition("-")[0]
    upgraded = python(copy, digest, CRANE_CODE=f"{ours}-0123456789abcdef")
    assert "code changed during the run: an installed package is not what" in upgraded.stderr


def test_nothing_of_ours_is_loaded_before_the_sources_are_read() -> None:
    found = python(
        ROOT,
        "import sys, crane_lab\nprint('torch' in sys.modules, *(m for m in sys.modules if "
        "m.startswith('crane_')))",
    )
    loaded, *modules = found.stdout.split()
    assert loaded == "False"
    assert {m for m in modules if not m.startswith(("crane_lab.store", "crane_lab"))} == {
        "crane_core",
        "crane_core.files",
    }


# --- what is read out of them ---------------------------------------------------------------------


def test_choices_are_read_from_the_source() -> None:
    assert OWN.choices("crane_core.selection", "RULES") == RULES
    assert OWN.choices("crane_core.attribution", "OBJECTIVES") == tuple(OBJECTIVES)
    with pytest.raises(ValueError, match="defines no tuple or dictionary 'NOTHING'"):
        OWN.choices("crane_core.selection", "NOTHING")


def test_what_was_read_is_kept_for_as_long_as_the_code_is_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = root / "kept" / "sources.json"
    first = Sources(root, ("core", "lab"), kept)
    digest = first.digest("lab.stage")
    assert digest == sources(root).digest("lab.stage")
    first._keep_facts()
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", None)  # nothing is read again
        again = Sources(root, ("core", "lab"), kept)
        assert again.digest("lab.stage") == digest
        assert again.imports("lab.stage") == first.imports("lab.stage")
    (root / "core" / "deep.py").write_text("x = 2\n")
    assert Sources(root, ("core", "lab"), kept).digest("lab.stage") != digest
    kept.write_text("{")
    assert Sources(root, ("core", "lab"), kept).digest("lab.stage") != digest
