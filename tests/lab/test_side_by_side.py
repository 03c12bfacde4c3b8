"""Notebooks that are executed at the same time, each in a process and a folder of its own."""

import re
from pathlib import Path

import pytest
from test_runs import make_project, tree

from crane_lab.runs import RunError, kernels
from crane_lab.runs.kernels import notebooks_at_once

MEETING = """\
# %% tags=["parameters"]
n_samples = 10  # samples per language
run_dir = "runs/testbed"  # where results go

# %%
import os
import time
from pathlib import Path

Path("met-{me}").touch()
deadline = time.monotonic() + 120
while not Path("met-{other}").exists():
    assert time.monotonic() < deadline, "alone"
    time.sleep(0.05)
folder = Path(run_dir) / "results"
folder.mkdir(parents=True)
(folder / "{me}.txt").write_text(os.environ.get("OMP_NUM_THREADS", "all"))
print("written to", folder)
"""


def meeting(me: str, other: str) -> str:
    return MEETING.replace("{me}", me).replace("{other}", other)


def test_notebooks_are_executed_side_by_side(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    project = make_project(tmp_path / "ü", n01_a=meeting("a", "b"), n02_b=meeting("b", "a"))
    run = project.run()
    assert run.execute(jobs=2) == 2
    results = run.directory / "results"
    assert {path.stem: path.read_text().isdigit() for path in results.iterdir()} == {
        "a": True,
        "b": True,
    }
    for name in ("01_a", "02_b"):
        shown = run.executed(project.find(name)).read_text()
        assert "written to runs/testbed/results" in shown and f".{name}" not in shown
    said = capfd.readouterr().out
    assert "[1/2] 01_a: running" in said and re.search(r"\[2/2\] 02_b: \d+ s", said)
    # The same files as one after another, and nothing else.
    before = tree(project.root / "runs")
    assert run.execute(jobs=2) == 0
    (results / "b.txt").unlink()
    assert run.execute([project.find("02")], progress=False, jobs=2) == 1
    assert tree(project.root / "runs") == before
    with pytest.raises(ValueError, match="jobs is 0: expected at least 1"):
        run.execute(jobs=0)


def test_what_runs_beside_a_failure_comes_to_its_end(tmp_path: Path) -> None:
    failing = meeting("b", "a") + "raise SystemError('no more')\n"
    project = make_project(tmp_path, n01_a=meeting("a", "b"), n02_b=failing)
    run = project.run()
    with pytest.raises(RunError, match="02_b failed in cell 2 of 2"):
        run.execute(jobs=2)
    assert [path.name for path in (run.directory / "results").iterdir()] == ["a.txt"]
    assert run.is_current(project.find("01"))
    failed = run.failed(project.find("02")).read_text()
    assert "written to runs/testbed/results" in failed
    assert not list(run.directory.glob(".0*"))


def test_side_by_side_two_notebooks_may_not_write_one_result(tmp_path: Path) -> None:
    twice = meeting("b", "a").replace("b.txt", "a.txt")
    project = make_project(tmp_path, n01_a=meeting("a", "b"), n02_b=twice)
    with pytest.raises(RunError, match=r"both write results/a\.txt"):
        project.run().execute(jobs=2)


def test_large_models_are_not_run_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crane_lab.runs.kernels._cores", lambda: 8)
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert notebooks_at_once(tmp_path, "cpu") == kernels.MOST
    assert (
        notebooks_at_once(tmp_path, "cuda")
        == notebooks_at_once(tmp_path / "org" / "name", "cpu")
        == 1
    )
    monkeypatch.setattr("crane_lab.runs.kernels.SMALL", 1)
    assert notebooks_at_once(tmp_path, "cpu") == 1
    assert [kernels.threads_of(jobs) for jobs in (1, 2, 16)] == [None, 4, 1]
