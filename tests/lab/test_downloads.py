"""A notebook that was downloaded from the book runs where it lies."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest

from crane_lab.runs import Project
from crane_lab.runs.downloads import downloadable, first_cell, with_tables
from crane_lab.store import ROOT
from crane_lab.store.place import FOLDERS

#: Files beside the packages that a wheel is made of.
ALONE = ("pyproject.toml", "README.md", "LICENSE")
ADDRESS = "https://github.com/someone/a.book"


def run_in(
    folder: Path, code: str, python: Path | str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", code],
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
    assert "git" not in offered.cells[0].source and "work_here()" in offered.cells[0].source
    again = downloadable(nbformat.writes(given), ADDRESS)
    assert f'"git", "clone", "--depth", "1", "{ADDRESS}"' in json.loads(again)["cells"][0]["source"]


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook as it is offered."""
    path = tmp_path_factory.mktemp("offered") / "07_audit.ipynb"
    given: Any = Project().find("07").read()
    path.write_text(downloadable(nbformat.writes(given), ""), "utf-8")
    return path


def test_a_page_offers_the_tables_that_its_notebook_wrote(offered: Path) -> None:
    given = offered.read_text("utf-8")
    assert with_tables(given, []) == given
    *before, last = json.loads(with_tables(given, ["a.csv", "b.csv"]))["cells"]
    assert before == json.loads(given)["cells"] and last["cell_type"] == "markdown"
    assert "{download}`a.csv <../results/a.csv>`, {download}`b.csv" in last["source"]


def execute(python: Path | str, offered: Path, folder: Path, run_dir: str) -> None:
    """Run a notebook that was downloaded to a folder by what is installed for `python`."""
    # Like the kernels of a run: as the environment is, whatever the user has set up.
    environment = os.environ | {"IPYTHONDIR": str(folder / ".ipy"), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment = {k: v for k, v in environment.items() if k not in ("JUPYTER_PATH", "PYTHONPATH")}
    if python == sys.executable:  # stands for an installation from this checkout
        environment["PYTHONPATH"] = str(ROOT)
    shutil.copy(offered, folder)
    line = [python, "-m", "papermill", "--no-progress-bar", "-k", "python3"]
    values = ["-p", "run_dir", run_dir, "-p", "n_simulated", "50"]
    said = subprocess.run(
        [*line, *values, offered.name, "executed.ipynb"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr


def test_a_downloaded_notebook_runs_outside_of_the_project(offered: Path, tmp_path: Path) -> None:
    execute(sys.executable, offered, tmp_path, str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "results" / "audit_langspec_f1.csv").is_file()
    assert not (tmp_path / "data").exists()


class Installed(NamedTuple):
    python: Path
    site: Path


@pytest.fixture(scope="module")
def from_the_wheel(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh environment with the wheel; what it needs comes from this one's."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {name.partition(".")[0] for name in config["packages"]} - {"crane_book"}
    for name in (*packages, *config["package-dir"].values()):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("requirements*.txt"), *map(ROOT.joinpath, ALONE)):
        shutil.copy(path, source)
    pip: list[Path | str] = [sys.executable, "-m", "pip", "--quiet"]
    how = ["--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*pip, "wheel", *how, folder, source], check=True)
    venv.create(folder / "venv", with_pip=False)
    site = next(folder.glob("venv/lib/*/site-packages"))
    (site / "needed.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    how = ["--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, "install", *how, site, *folder.glob("*.whl")], check=True)
    return Installed(folder / "venv" / "bin" / "python", site)


def test_a_downloaded_notebook_runs_from_the_wheel(
    from_the_wheel: Installed, offered: Path, tmp_path: Path
) -> None:
    """Beside itself it finds data and notebooks, and writes into the same folder."""
    execute(from_the_wheel.python, offered, tmp_path, "runs/mine")
    again = run_in(tmp_path, first_cell(""), from_the_wheel.python, PYTHONPATH="")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "runs" / "mine" / "results" / "audit_langspec_f1.csv").is_file()
    for folder in FOLDERS:
        assert (tmp_path / folder).resolve() == from_the_wheel.site / "crane_book" / folder


def test_the_wheel_has_every_module_and_all_that_notebooks_read(from_the_wheel: Installed) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "crane_core", "crane_lab", "data", "notebooks", "benchmarks/results"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    places = {x: x if x.startswith("crane_") else f"crane_book/{x}" for x in tracked}
    assert [x for x, place in places.items() if not (from_the_wheel.site / place).is_file()] == []


def test_a_folder_of_somebody_elses_is_not_taken(from_the_wheel: Installed, tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    said = run_in(tmp_path, first_cell(""), from_the_wheel.python, PYTHONPATH="")
    assert said.returncode == 1 and "move the notebook" in said.stderr
    assert os.listdir(tmp_path) == ["notebooks"] and not (tmp_path / "notebooks").is_symlink()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package without data, in a folder beside it or from a wheel."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "crane_lab", site / "crane_lab", ignore=shutil.ignore_patterns("*.pyc"))
    return site


def test_without_data_it_says_what_to_do(copied: Path, tmp_path: Path) -> None:
    hide = "import sys\nsys.modules['crane_book'] = None\n"  # that of a checkout's own installation
    said = run_in(tmp_path, hide + first_cell(""), PYTHONPATH=str(copied))
    assert said.returncode == 1
    assert "no data in" in said.stderr and "make setup" in said.stderr
    assert not any((tmp_path / folder).is_symlink() for folder in FOLDERS)


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
