"""How a run stands, and who is at work on it: `crane status` and `crane unlock`."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from crane_lab.runs.executed import is_edited
from crane_lab.runs.execution import Run
from crane_lab.runs.parameters import Notebook
from crane_lab.store.index import kept
from crane_lab.store.locks import Holder, held_in, holder


def status(run: Run) -> str:
    """What of a run is done, what is being done and by whom, and what the store keeps of it.

    A notebook is "up to date", "running", "waiting" (while others of the run are executed),
    "interrupted" (its process is gone), "failed", "out of date" or "to do".
    """
    at_work = holder(run.lock_file)
    alive = at_work is not None and not at_work.gone
    lines = [f"run {run.name}: {os.path.relpath(run.directory)}"]
    if at_work is not None:
        lines.append(f"  {'executed by' if alive else 'was executed by'} {at_work}")
    for notebook in run.notebooks:
        lines.append(f"  {notebook.name:24} {_state(run, notebook, alive)}")
    store = run.project.runs / "store"
    lines += _stages(held_in(store), "made now", False)
    lines += _stages(held_in(store), "interrupted", True)
    stages: dict[str, list[tuple[int, float]]] = {}
    for one in kept(store):
        if one.run == run.name:
            stages.setdefault(one.stage, []).append((one.bytes, one.seconds))
    lines.append("kept in the store by this run" + (":" if stages else ": nothing yet"))
    for stage, own in sorted(stages.items()):
        size, seconds = (sum(column) for column in zip(*own, strict=True))
        lines.append(
            f"  {stage:24} {len(own):>6,} artefacts {size / 2**20:>9.1f} MiB {seconds:>9.0f} s"
        )
    return "\n".join(lines)


def _state(run: Run, notebook: Notebook, alive: bool) -> str:
    if run.is_current(notebook):
        return "up to date"
    begun = run.failed(notebook)
    if begun.is_file():
        if _has_error(begun):
            return f"failed, see {os.path.relpath(begun)}"
        return "running" if alive else "interrupted: the same command goes on from here"
    if alive:
        return "waiting"
    executed = run.executed(notebook)
    if is_edited(executed):
        return "edited since it was written; set aside when it is run again"
    return "out of date" if executed.is_file() else "to do"


def _has_error(path: Path) -> bool:
    """Whether a notebook was ended by an error, and not by whoever interrupted it."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        errors = [output for output in outputs if output.get("output_type") == "error"]
        return any(error.get("ename") != "KeyboardInterrupt" for error in errors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # killed while it was written


def _stages(locks: dict[Path, Holder], title: str, gone: bool) -> list[str]:
    """A line for each process that has, or had, something in the making."""
    by: dict[tuple[str, int, str], list[tuple[str, Holder]]] = {}
    for path, who in locks.items():
        if who.gone == gone:
            by.setdefault((who.machine, who.pid, who.start), []).append((path.parent.name, who))
    lines = []
    for found in by.values():
        counts = Counter(stage for stage, _ in found)
        what = ", ".join(stage if n == 1 else f"{n} of {stage}" for stage, n in counts.items())
        lines.append(f"  {title}: {what}, {found[0][1]}")
    return lines


def unlock(runs: Path, force: bool = False) -> str:
    """Remove what dead processes hold in a folder of runs, and say what is left to whom.

    With `force` also what living ones hold: they go on, and others repeat their work.
    """
    lines = []
    for path, who in held_in(runs, runs / "store").items():
        name = path.parent.name + "/" if path.parent != runs else "run "
        what = name + path.name.removeprefix(".").removesuffix(".lock")
        if who.gone or force:
            path.unlink(missing_ok=True)
            lines.append(f"unlocked {what}: {who}")
        else:
            lines.append(f"left {what}: {who} gives signs of life; --force unlocks it all the same")
    return "\n".join(lines or ["nothing is locked"])
