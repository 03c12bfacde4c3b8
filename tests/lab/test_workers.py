"""Workers on one store: each takes what nobody has, and the death of one costs little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from collecting import processes
from test_pipeline import folder, settings_in

from crane_core.interventions import UNTOUCHED
from crane_lab.cli import work as cli_work
from crane_lab.pipeline import Pipeline
from crane_lab.runs import Project, RunError
from crane_lab.stages.comparisons import one_of_each
from crane_lab.store import Store
from crane_lab.store.artefacts import BusyError
from crane_lab.study import work
from crane_lab.study.nulls import Nulls
from crane_lab.study.work import PAGES, Work, done_together

__all__ = ["folder"]  # a fixture

STAGES = 6


def number(root: Path, log: Path, seconds: float, n: int) -> int:
    """An artefact that takes a while; who makes it says so in `log`, before and after."""
    store = Store(root)

    def compute() -> int:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()} {n}\n")
        time.sleep(seconds)
        return n

    return int(store.value("numbers", {"n": n}, compute))


def take(root: Path, log: Path, seconds: float = 0.3) -> None:
    """Be a worker on `STAGES` artefacts."""
    store = Store(root)

    def compute(n: int) -> int:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()} {n}\n")
        time.sleep(seconds)
        return n

    def value(n: int) -> int:
        return int(store.value("numbers", {"n": n}, partial(compute, n)))

    tasks = [(f"task {n}", partial(value, n)) for n in range(STAGES)]
    assert not done_together(tasks, store, lambda text: None)
    assert store.together(partial(value, n) for n in range(STAGES)) == list(range(STAGES))


def begun(log: Path) -> list[tuple[int, int]]:
    lines = log.read_text().splitlines() if log.is_file() else []
    return [(int(pid), int(n)) for pid, n in map(str.split, lines)]


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("numbers/*.value.json")}


def wait_for(log: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while len(begun(log)) < lines:
        assert time.monotonic() < deadline, "the workers did not begin"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one worker stores."""
    root = tmp_path_factory.mktemp("alone")
    take(root, root / "log", seconds=0)
    return contents(root)


def test_two_workers_divide_the_stages(tmp_path: Path, alone: dict[str, bytes]) -> None:
    log = tmp_path / "log"
    both = [processes.Process(target=take, args=(tmp_path, log, 0.4)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert [one.exitcode for one in both] == [0, 0]
    assert sorted(n for _, n in begun(log)) == list(range(STAGES))  # none of them twice
    assert len({pid for pid, _ in begun(log)}) == 2
    assert contents(tmp_path) == alone


def test_a_killed_worker_loses_one_stage(tmp_path: Path, alone: dict[str, bytes]) -> None:
    log = tmp_path / "log"
    first, second = (processes.Process(target=take, args=(tmp_path, log, 0.5)) for _ in range(2))
    first.start()
    wait_for(log, 1)
    second.start()
    wait_for(log, 3)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)  # in the middle of a stage, most likely
    first.join(60)
    second.join(120)
    assert second.exitcode == 0
    assert STAGES <= len(begun(log)) <= STAGES + 1
    assert contents(tmp_path) == alone
    assert not list(tmp_path.glob("numbers/.*"))


def test_what_others_are_at_is_passed_by(tmp_path: Path) -> None:
    log = tmp_path / "log"
    other = processes.Process(target=number, args=(tmp_path, log, 1.5, 0))
    other.start()
    wait_for(log, 1)
    store, order = Store(tmp_path), []

    def value(n: int) -> Any:
        found = store.value("numbers", {"n": n}, lambda: n)
        order.append(n)
        return found

    with pytest.raises(BusyError, match="another process is at numbers/"), store.passing():
        value(0)
    with pytest.raises(BusyError), store.passing():
        store.together(partial(value, n) for n in (0, 1))
    assert order == [1]
    # What an artefact needs while it is made is waited for, or its work would be thrown away.
    with store.passing():
        assert store.value("outer", {}, lambda: value(0) + 1) == 1
    assert store.together(partial(value, n) for n in (0, 1, 2)) == [0, 1, 2]
    other.join(60)


def test_what_is_left_to_others_comes_last_and_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    other = processes.Process(target=number, args=(tmp_path, log, 1.0, 0))
    other.start()
    wait_for(log, 1)
    store = Store(tmp_path)
    done: list[int] = []

    def value(n: int) -> None:
        store.value("numbers", {"n": n}, lambda: n)
        done.append(n)

    tasks = [(str(n), partial(value, n)) for n in range(3)]
    assert not done_together(tasks, store, lambda text: None)
    assert done == [1, 2, 0]
    other.join(60)


def test_what_fails_keeps_nothing_else_from_being_done(tmp_path: Path) -> None:
    done: list[int] = []
    said: list[str] = []

    def fail() -> None:
        raise ValueError("no such model")

    tasks = [("04", fail), ("05", lambda: done.append(5))]
    failed = done_together(tasks, Store(tmp_path), said.append)
    assert done == [5]
    assert str(failed["04"]) == "no such model"
    assert "04: failed, ValueError: no such model" in said

    def full() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        done_together([("04", full), ("05", fail)], Store(tmp_path), said.append)


# --- what pages need ------------------------------------------------------------------------------


class Complete(Store):
    """A store in which nothing may be missing."""

    def _make(self, stage: str, *arguments: Any, **more: Any) -> None:
        raise AssertionError(f"an artefact of stage {stage} is missing")


@pytest.mark.filterwarnings("ignore:.*no neuron")
def test_a_page_finds_all_that_workers_made(folder: Path, tmp_path: Path) -> None:
    settings = settings_in(folder, random_seeds=(0,), task_limit=2, n_perplexity=2)
    values = {**vars(settings), "n_answers": 1, "answer_tokens": 2, "literal_reading": True}
    values |= {"null_data": str(tmp_path), "n_null": 1}
    needed = Work(values, Store(tmp_path))
    names = ["04_table1", "04b_confound", "04c_answers", "method", "00_meet_the_testbed"]
    tasks = needed.tasks(names)
    assert {name for name, _ in tasks} == {*names} - {"method"}
    assert not done_together(tasks, needed.store, lambda text: None)
    page = Pipeline(settings, Complete(tmp_path))
    rows = page.rows("intermediate")
    page.evaluated(rows)
    page.evaluated(page.rows("projections"))
    for kind in ("losses", "tasks"):
        assert Nulls.of(page, tmp_path, 1).of_rows(kind, rows)
    page.answers(UNTOUCHED, 1, 2)
    for row in one_of_each(rows):
        page.answers(row.intervention, 1, 2)
    with pytest.raises(AssertionError, match="stage answers is missing"):
        page.answers(UNTOUCHED, 1, 3)


def test_every_page_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page by a name that no notebook has, and tasks are made without any work."""
    assert set(PAGES) <= {notebook.name for notebook in Project().notebooks}
    monkeypatch.setattr(work, "Pipeline", None)
    run = Project().run()
    needed = Work(run.parameters, Store("none"))
    assert len(needed.tasks(PAGES)) >= len(PAGES)


# --- starting them --------------------------------------------------------------------------------


def launched(root: Path, code: str, workers: int = 2, **options: Any) -> None:
    (root / "notebooks" / "profiles").mkdir(parents=True, exist_ok=True)
    (root / "notebooks" / "profiles" / "testbed.yaml").write_text("")
    run = Project(root).run()
    command = [sys.executable, "-c", code]
    cli_work.launch(run, command, workers, {"timeout_min": 5, **options})


def test_workers_are_started_and_one_may_die(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "not to be found in any file")
    code = (
        "import os, signal; from pathlib import Path\n"
        "threads = os.environ['OMP_NUM_THREADS']\n"
        "try:\n    Path('first').touch(exist_ok=False)\n"
        "except FileExistsError:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path('threads').write_text(threads)\n"
    )
    launched(tmp_path, code)
    said = capsys.readouterr().out
    assert "2 workers as processes here" in said
    assert said.count("ended early") == 1
    assert "all that testbed needs is stored" in said
    assert int((tmp_path / "threads").read_text()) == max(1, len(os.sched_getaffinity(0)) // 2)
    kept = [
        path.read_bytes() for path in (tmp_path / "runs" / "workers").rglob("*") if path.is_file()
    ]
    assert kept and not any(b"not to be found" in content for content in kept)


def test_workers_that_all_fail_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no worker came to the end.*it is this"):
        launched(tmp_path, "import sys; sys.exit('it is this')", workers=1)
    with pytest.raises(ValueError, match="--workers is 0"):
        launched(tmp_path, "", workers=0)
    with pytest.raises(ValueError, match="submitit does not take these options"):
        launched(tmp_path, "", nonsense=3)


def test_a_worker_with_nothing_to_do_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRANE_RUN", raising=False)
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "testbed.yaml").write_text("")
    cli_work.work(Project(tmp_path).run())
    assert "all that testbed needs is stored" in capsys.readouterr().out


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "crane_lab.cli.main", "work", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--workers" in help_text and "--submit" in help_text
    pairs = [("slurm_partition", "gpu"), ("gpus_per_node", "1")]
    assert cli_work.submit_options(pairs) == {"slurm_partition": "gpu", "gpus_per_node": 1}
