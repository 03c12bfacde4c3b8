"""How a run stands, told quickly, and what the dead have left locked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_locks import rewritten
from test_runs import ONE, make_project

from crane_lab.cli.main import main
from crane_lab.cli.status import status, unlock
from crane_lab.runs import Project
from crane_lab.runs.executed import mark
from crane_lab.store import ROOT, Store, index
from crane_lab.store.locks import locked


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "book", n01_one=ONE, n02_two=ONE)


def states(project: Project) -> dict[str, str]:
    lines = status(project.run()).splitlines()
    found = [line.split(maxsplit=1) for line in lines if line.startswith("  0")]
    return {line[0]: line[1] for line in found}


def left_by(project: Project, *outputs: dict[str, str]) -> Path:
    """A notebook as papermill leaves it when it does not come to its end."""
    path = project.run().failed(project.notebooks[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [{"outputs": list(outputs)}]}))
    return path


def test_states_are_told_apart(project: Project) -> None:
    run = project.run()
    assert states(project) == {"01_one": "to do", "02_two": "to do"}
    with run.lock():
        assert states(project) == {"01_one": "waiting", "02_two": "waiting"}
        left_by(project, {"output_type": "stream"})
        assert states(project) == {"01_one": "running", "02_two": "waiting"}
        assert "executed by process" in status(run)
    assert states(project)["01_one"].startswith("interrupted")
    left_by(project, {"output_type": "error"})
    assert states(project)["01_one"].startswith("failed, see ")
    left_by(project).write_text('{"cells": [')  # killed while it was written
    assert states(project)["01_one"].startswith("interrupted")
    run.executed(project.notebooks[1]).write_text("{}")
    assert states(project)["02_two"].startswith("edited since it was written")
    notebook: dict[str, Any] = {"cells": [], "metadata": {}}
    mark(notebook, "02_two", digest="of another day")
    run.executed(project.notebooks[1]).write_text(json.dumps(notebook))
    assert states(project)["02_two"] == "out of date"


def test_a_run_whose_process_is_gone_is_not_running(project: Project) -> None:
    run = project.run()
    with run.lock():
        content = run.lock_file.read_text()
    run.lock_file.write_text(content)
    rewritten(run.lock_file, pid=4194304)
    left_by(project)
    assert "was executed by process 4194304" in status(run)
    assert states(project)["01_one"].startswith("interrupted")
    assert states(project)["02_two"] == "to do"


def test_stages_in_the_making_and_interrupted_ones(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRANE_RUN", "testbed")
    store = Store(project.runs / "store")

    def look() -> str:
        return status(project.run())

    assert "made now: sizes, process " in store.value("sizes", {"n": 1}, look)
    assert "sizes                         1 artefacts" in look()
    dead = project.runs / "store" / "items" / ".0.lock"
    with locked(dead, "items/0"):
        content = dead.read_text()
    dead.write_text(content)
    rewritten(dead, pid=4194304)
    assert "interrupted: items, process 4194304" in look()


def test_unlocking_leaves_the_living_alone(project: Project) -> None:
    runs = project.runs
    dead = runs / "store" / "items" / ".0.lock"
    with locked(dead, "items/0"):
        content = dead.read_text()
    dead.write_text(content)
    rewritten(dead, machine="elsewhere", host="node7", user="ann")
    said = unlock(runs)
    assert "left items/0: process" in said and "ann on node7" in said
    long_ago = time.time() - 3 * 3600
    os.utime(dead, (long_ago, long_ago))
    with project.run().lock():
        said = unlock(runs)
        assert "unlocked items/0: process" in said
        assert "last sign of life 3 h ago" in said
        assert "left run testbed: process" in said
        assert "unlocked run testbed" in unlock(runs, force=True)
    assert unlock(runs) == "nothing is locked"


# --- quickly --------------------------------------------------------------------------------------


def test_manifests_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRANE_RUN", "smoke")
    store = Store(tmp_path)
    for n in range(3):
        store.value("sizes", {"n": n}, lambda n=n: "x" * n)  # type: ignore[misc]
    first = index.kept(tmp_path)
    assert [one[:2] + one[3:] for one in first] == [
        (r["stage"], r["bytes"], r["run"]) for r in sorted(store.records(), key=lambda r: r["path"])
    ]
    with monkeypatch.context() as patch:
        patch.setattr(index, "_said", None)
        assert index.kept(tmp_path) == first
    store.discard("sizes", {"n": 2})
    store.value("other", {}, lambda: 1)
    next(tmp_path.glob("sizes/*.json")).write_text("{")
    assert {one.stage for one in index.kept(tmp_path)} == {"sizes", "other"}
    assert len(index.kept(tmp_path)) == len(list(_quietly(store)))
    (tmp_path / index.NAME).write_text('{"a": 1}')
    assert {one.stage for one in index.kept(tmp_path)} == {"sizes", "other"}
    assert index.kept(tmp_path / "nothing") == []


def _quietly(store: Store) -> list[object]:
    with pytest.warns(UserWarning, match="damaged"):
        return list(store.records())


def test_status_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom crane_lab.cli.main import main\n"
        "main(['status', '--profile', 'smoke']); main(['status', '--profile', 'smoke'])\n"
        "print(*{'torch', 'transformers', 'pandas', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == ""
    assert "run smoke" in done.stdout


def test_unlock_on_the_command_line(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("crane_lab.cli.main.Project", lambda: project)
    with project.run().lock():
        assert main(["unlock"]) == 0
        assert "left run testbed" in capsys.readouterr().out
        assert main(["unlock", "--force"]) == 0
    assert "unlocked run testbed" in capsys.readouterr().out
