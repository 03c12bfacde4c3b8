"""What people put into a run's folders, or change there, is theirs; what nothing needs can go."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_runs import ONE, TWO, make_project

from crane_lab.cli.gc import collect_garbage
from crane_lab.cli.work import work
from crane_lab.runs import Project, RunError
from crane_lab.runs.executed import is_as_written, mark, prune, record_of, remove_own
from crane_lab.store import ROOT, Store, source_digest


def executed(path: Path, name: str = "01_one", text: str = "hello\n") -> Path:
    """A notebook as the runner leaves it."""
    cell = nbformat.v4.new_code_cell("print('hello')", id="cell-1")
    cell["outputs"] = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    mark(notebook, name, digest="d", results={})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook), "utf-8")
    return path


def test_saving_is_no_edit_and_an_edit_is_one(tmp_path: Path) -> None:
    path = executed(tmp_path / "01_one.ipynb", text="hello\nworld\n")
    assert is_as_written(path)
    content = json.loads(path.read_text("utf-8"))
    content["metadata"]["language_info"] = {"name": "python"}
    content["cells"][0]["execution_count"] = 7
    path.write_text(json.dumps(content))  # as Jupyter saves it
    assert is_as_written(path)
    for change in (b"world", b"print"):
        edited = tmp_path / "edited" / path.name
        edited.parent.mkdir(exist_ok=True)
        edited.write_bytes(path.read_bytes().replace(change, b"other", 1))
        assert not is_as_written(edited) and record_of(edited)
    shutil.copy(path, copy := tmp_path / "mine.ipynb")
    assert not is_as_written(copy)  # under another name it is a reader's


def test_only_what_the_runner_wrote_is_pruned(tmp_path: Path) -> None:
    executed(tmp_path / "03_gone.ipynb", "03_gone")
    executed(tmp_path / "02_two.failed.ipynb", "02_two")
    kept = {executed(tmp_path / name, "01_one").name for name in ("01_one.ipynb", "copy.ipynb")}
    (tmp_path / "notes.ipynb").write_text("{}")
    edited = executed(tmp_path / "04_gone.ipynb", "04_gone")
    edited.write_text(edited.read_text("utf-8").replace("hello", "mine"), "utf-8")
    prune(tmp_path, ["01_one", "02_two"])
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "notes.ipynb", "04_gone.ipynb"}


def test_an_edit_is_set_aside_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        path = executed(tmp_path / "01_one.ipynb")
        path.write_text(path.read_text("utf-8").replace("hello", f"mine {number}"), "utf-8")
        remove_own(path)
    assert "mine 1" in (tmp_path / "01_one.edited.ipynb").read_text("utf-8")
    assert "mine 2" in (tmp_path / "01_one.edited-2.ipynb").read_text("utf-8")
    assert "kept as 01_one.edited-2.ipynb" in capsys.readouterr().err
    remove_own(executed(tmp_path / "01_one.ipynb"))
    assert not (tmp_path / "01_one.ipynb").exists()


def test_the_beginning_of_a_notebook_is_nobodys_edit(tmp_path: Path) -> None:
    """It is what papermill leaves that is killed while it writes; a merge that failed is kept."""
    said = {"a": [1, -2.5, True, None, 'ü \n"x"'], "b": {"c": False}}
    whole = json.dumps(said, indent=1, ensure_ascii=False)  # as notebooks are written
    for n in range(len(whole)):
        path = tmp_path / "01_one.failed.ipynb"
        path.write_text(whole[:n], "utf-8")
        remove_own(path)
        assert not list(tmp_path.iterdir()), whole[:n]
    for text in (whole, whole.replace("1", "<<<<<<< mine\n1"), "print(1)\n"):
        path.write_text(text, "utf-8")
        remove_own(path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_run_makes_again_what_was_edited_and_keeps_the_edit(tmp_path: Path) -> None:
    project = make_project(tmp_path / "a b {x} %s ü", n01_one=ONE)
    run = project.run()
    assert run.execute(progress=False) == 1
    (notebook,) = project.notebooks
    path, table = run.executed(notebook), run.directory / "results" / "one.csv"
    written = path.read_bytes()
    assert json.loads(run.uses(notebook).read_text("utf-8")) == []
    path.write_text(path.read_text("utf-8").replace("an empty selection", "a full one"), "utf-8")
    table.write_text("mine")
    (table.parent / "notes.txt").write_text("foreign")
    assert not run.is_current(notebook)
    assert run.execute(progress=False) == 1
    assert path.read_bytes() == written and table.read_text() == "20,1.0\n"
    assert "a full one" in path.with_name("01_one.edited.ipynb").read_text("utf-8")
    assert (table.parent / "one.edited.csv").read_text() == "mine"
    assert (table.parent / "notes.txt").read_text() == "foreign"


def test_with_nothing_to_do_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "book", n02_two=TWO)
    project.run().execute(progress=False)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError("a read-only file system")

    monkeypatch.setattr("crane_lab.runs.execution.locked", forbidden)
    monkeypatch.setattr("crane_lab.runs.execution.write_text", forbidden)
    assert Project(project.root).run().execute(progress=False) == 0
    assert "[1/1] 02_two: up to date" in capsys.readouterr().out


STORING = """\
# %% tags=["parameters"]
n_samples = 10  # samples per language
run_dir = "runs/testbed"  # where results go

# %%
from crane_lab.store import Store

print(Store("runs/store").value("numbers", {"n": n_samples}, lambda: [n_samples] * 1000))
"""


def test_what_nothing_needs_is_listed_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "book", n01_one=STORING)
    project.run().execute(progress=False)
    store = Store(project.runs / "store")
    code = source_digest("crane_core.moments")
    store.value("kept", {"by": "hand", "code": code}, lambda: 1)
    for run, stage in (("gone", "old"), ("half", "begun"), ("testbed", "dropped")):
        monkeypatch.setenv("CRANE_RUN", run)
        store.value(stage, {"code": code}, lambda: 1)
    monkeypatch.setattr(
        "crane_lab.store.artefacts.modules_digested", lambda _: ["crane_core.moments"]
    )
    store.value("stale", {"code": "another"}, lambda: 1)
    (project.runs / "half").mkdir()
    (project.runs / "half" / "parameters.yaml").write_text("profile: nowhere\n")
    (store.root / "judge.sqlite").write_text("paid")
    (store.root / "old" / "notes.txt").write_text("foreign")

    said = collect_garbage(project, store, delete=False)
    assert "crane gc --delete" in said
    names = {line.split()[0] for line in said.splitlines() if "artefacts" in line}
    assert names == {"old", "dropped", "stale"}
    with project.run().lock(), pytest.raises(RunError, match="at work on run"):
        other_process_collects(project)
    assert {r["stage"] for r in store.records()} == {*names, "kept", "begun", "numbers"}

    collect_garbage(project, store, delete=True)
    assert {r["stage"] for r in Store(store.root).records()} == {"kept", "begun", "numbers"}
    assert (store.root / "judge.sqlite").exists() and (store.root / "old" / "notes.txt").exists()
    assert "not needed: 0.0 MiB" in collect_garbage(project, store, delete=False)
    assert Project(project.root).run().execute(progress=False) == 0


def test_what_workers_made_is_kept_until_the_run_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "book", n01_one=STORING)
    run = project.run("testbed", {"n_samples": "11"})
    monkeypatch.setenv("CRANE_RUN", run.name)
    store = Store(project.runs / "store")
    for made_by_a_worker in (False, True):
        if made_by_a_worker:
            work(run)
        store.value("numbers", {"n": 11}, lambda: 1)
        collect_garbage(project, store, delete=True)
        assert bool(list(store.records())) == made_by_a_worker


def other_process_collects(project: Project) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from crane_lab.cli.gc import collect_garbage; from crane_lab.runs import Project\n"
        "from crane_lab.store import Store\n"
        "p = Project(Path(sys.argv[1])); collect_garbage(p, Store(p.runs / 'store'), True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(project.root)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise RunError(done.stderr.strip().splitlines()[-1])


def test_make_clean_keeps_runs_and_clean_all_asks(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "_build").mkdir()
    paid = tmp_path / "runs" / "store" / "judge.sqlite"
    (tmp_path / "runs" / "testbed" / "_build").mkdir(parents=True)
    paid.parent.mkdir()
    paid.write_text("paid")

    def make(*words: str, said: str = "") -> int:
        return subprocess.run(
            ["make", *words], cwd=tmp_path, input=said, text=True, capture_output=True
        ).returncode

    assert make("clean") == 0 and paid.exists()
    assert (
        not (tmp_path / "_build").exists() and not (paid.parent.parent / "testbed/_build").exists()
    )
    for said in ("", "no\n"):
        assert make("clean-all", said=said) != 0 and paid.exists()
    assert make("clean-all", said="yes\n") == 0 and not paid.exists()
    paid.parent.mkdir(parents=True)
    assert make("clean-all", "CONFIRM=yes") == 0 and not (tmp_path / "runs").exists()
