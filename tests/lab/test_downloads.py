"""A notebook that was downloaded from the book runs where it lies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from crane_lab.runs import Project
from crane_lab.runs.downloads import downloadable, first_cell
from crane_lab.store import ROOT

ADDRESS = "https://github.com/someone/a.book"


def run_in(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_a_notebook_gets_one_cell_that_its_page_does_not_show() -> None:
    given: Any = Project().find("07").read()
    offered: Any = nbformat.reads(downloadable(nbformat.writes(given), ""), as_version=4)
    nbformat.validate(offered)
    assert offered.cells[1:] == given.cells and offered.metadata == given.metadata
    assert offered.cells[0].metadata.tags == ["remove-cell"]
    assert (
        "git" not in offered.cells[0].source and "import crane_lab" not in offered.cells[0].source
    )
    again = downloadable(nbformat.writes(given), ADDRESS)
    assert f'"git", "clone", "--depth", "1", "{ADDRESS}"' in json.loads(again)["cells"][0]["source"]


def test_a_downloaded_notebook_runs_outside_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the package installed from a checkout; PYTHONPATH stands for that here."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Like the kernels of a run: as the environment is, whatever the user has set up.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    given: Any = Project().find("07").read()
    source = tmp_path / "07_audit.ipynb"
    source.write_text(downloadable(nbformat.writes(given), ""), "utf-8")
    values = {"run_dir": str(tmp_path / "mine"), "n_simulated": 50}
    papermill.execute_notebook(
        source,
        tmp_path / "executed.ipynb",
        parameters=values,
        kernel_name="python3",
        progress_bar=False,
        cwd=tmp_path,
    )
    assert (tmp_path / "mine" / "results" / "audit_langspec_f1.csv").is_file()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """As a wheel installs it: the package, without data beside it."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "crane_lab", site / "crane_lab", ignore=shutil.ignore_patterns("*.pyc"))
    return site


def test_without_data_it_says_what_to_do(copied: Path, tmp_path: Path) -> None:
    said = run_in(tmp_path, first_cell(""), PYTHONPATH=str(copied))
    assert said.returncode == 1
    assert "no data in" in said.stderr and "make setup" in said.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_where_nothing_is_installed_it_fetches_the_project(copied: Path, tmp_path: Path) -> None:
    """From a repository on this machine, and without installing: pip is not asked here."""
    origin = tmp_path / "a.book"
    shutil.move(copied, origin)
    (origin / "data" / "published").mkdir(parents=True)
    (origin / "data" / "published" / "table1.csv").write_text("")
    name = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    for line in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "all"]):
        subprocess.run(["git", *line], cwd=origin, check=True)
    # What is installed is not found, and pip only says what it was asked for.
    hide = (
        "import importlib.util, subprocess\n"
        "find, run = importlib.util.find_spec, subprocess.run\n"
        "missing = lambda name: None if name == 'crane_lab' else find(name)\n"
        "importlib.util.find_spec = missing\n"
        "asked = []\n"
        "subprocess.run = lambda line, **how: (\n"
        "    run(line, **how) if line[0] == 'git' else asked.append(line[5:]))\n"
    )
    show = "\nimport crane_lab, os\nprint(os.getcwd(), crane_lab.__file__, asked, sep='\\n')"
    work = tmp_path / "work"
    work.mkdir()
    for _ in range(2):  # a second time, as after a restart, it is there already
        said = run_in(work, hide + first_cell(origin.as_uri()) + show)
        assert said.returncode == 0, said.stderr
        folder, file, asked = said.stdout.splitlines()
        assert folder == str(work / "a.book") and file.startswith(folder)
        assert asked == str(
            [
                ["-r", "requirements.txt", "-r", "requirements-lab.txt"],
                ["--no-deps", "-r", "requirements-nodeps.txt"],
            ]
        )
