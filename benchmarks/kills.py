"""A whole run that is killed at random moments: what is lost, and is the end the same to the byte?

    python benchmarks/kills.py [--trials 100] [--longest 16] [--seed 0] [--reference runs/smoke]

A copy of the checkout (its committed files) executes the profile `smoke` and builds the book once
undisturbed, unless `--reference` is the folder of such a run. Then it starts anew, and everything
of the run, kernels included, is killed (SIGKILL) at a random moment, `--trials` times in all, each
time started again; when a run reaches its end, its files are compared and the next begins from
nothing. The moment is drawn evenly from the first `--longest` seconds in which notebooks are
executed, and from half as many more after every kill that no notebook was finished before. Counted
are

- lost: artefacts and executed notebooks, finished before a kill, that were made again after it;
- changed: result files, executed notebooks and pages whose bytes differ at the end;
- left: unfinished files that are still there at the end;
- notices: words of a resumed run on something truncated or altered.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import ROOT, machine, parser, write

from crane_lab.store.files import file_sha256

ALLOWED = 3600.0  # seconds without a kill, after which a run counts as hanging


def start(project: Path, log: Path) -> subprocess.Popen[bytes]:
    """One `crane book`, in a session of its own so that its kernels die with it."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-B", "-m", "crane_lab.cli.main", "book", "--profile", "smoke"],
            cwd=project,
            env={**kept, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def begun(process: subprocess.Popen[bytes], log: Path, said: int) -> None:
    """Wait until a run says what it does with its first notebook, or has ended."""
    while process.poll() is None and b"\n[1/" not in b"\n" + log.read_bytes()[said:]:
        time.sleep(0.05)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a run and whatever it started: kernels have sessions of their own."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    children: dict[int, list[int]] = {}
    for line in listed.stdout.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    waiting, found = [process.pid], []
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def files(run: Path) -> dict[str, str]:
    """Checksums of what a run leaves for people: results, executed notebooks, pages."""
    found = [p for part in ("results", "notebooks", "_build/html") for p in (run / part).rglob("*")]
    kept = [p for p in sorted(found) if p.is_file() and not p.name.startswith(".")]
    return {p.relative_to(run).as_posix(): file_sha256(p) for p in kept}


def finished(project: Path) -> dict[str, int]:
    """When each finished artefact and executed notebook was written."""
    manifests = (project / "runs" / "store").glob("*/*.json")
    executed = (project / "runs" / "smoke" / "notebooks").glob("*.ipynb")
    whole = [p for p in executed if not p.name.endswith(".failed.ipynb")]
    found = [p for p in (*manifests, *whole) if not p.name.startswith(".")]
    return {p.relative_to(project).as_posix(): p.stat().st_mtime_ns for p in found}


def left(project: Path) -> list[str]:
    """Unfinished files in the project's runs."""
    found = [p for p in (project / "runs").rglob("*") if p.is_file()]
    unfinished = (".tmp", ".part", ".failed.ipynb")
    return sorted(str(p.relative_to(project)) for p in found if p.name.endswith(unfinished))


def undisturbed(project: Path) -> Path:
    """The folder of a run that nothing disturbs."""
    log = project.parent / "log"
    if start(project, log).wait() != 0:
        raise SystemExit(log.read_text(encoding="utf-8"))
    return project / "runs" / "smoke"


def trials(
    project: Path, reference: dict[str, str], wanted: int, longest: float, seed: int
) -> dict[str, Any]:
    """Kill and resume until there were enough kills, and see each run to its end."""
    log = project.parent / "log"
    draw = random.Random(seed)
    counts: dict[str, Any] = {"trials": 0, "runs": 0, "lost": [], "changed": [], "left": []}
    during: dict[str, int] = {}
    log.unlink(missing_ok=True)
    while counts["trials"] < wanted:
        shutil.rmtree(project / "runs", ignore_errors=True)
        done, within = False, longest
        while not done:
            before = finished(project)
            said = log.stat().st_size if log.exists() else 0
            process = start(project, log)
            alone = counts["trials"] >= wanted
            begun(process, log, said)
            try:
                status = process.wait(ALLOWED if alone else draw.uniform(0.2, within))
            except subprocess.TimeoutExpired:
                kill(process)
                counts["trials"] += 1
                lines = log.read_bytes()[said:].decode("utf-8").splitlines()
                states = [line for line in lines if line.startswith("[")]
                running = states[-1].split()[1].strip(":") if states else "start"
                if states and states[-1].endswith("up to date"):
                    running = "between notebooks, or the book"
                during[running] = during.get(running, 0) + 1
                if alone:
                    raise SystemExit(f"hangs:\n{log.read_text(encoding='utf-8')}") from None
            else:
                if status != 0:
                    raise SystemExit(f"failed:\n{log.read_text(encoding='utf-8')}")
                done = True
            after = finished(project)
            executed = [sum(name.endswith(".ipynb") for name in found) for found in (before, after)]
            within = longest if executed[1] > executed[0] else 1.5 * within
            counts["lost"] += [name for name, when in before.items() if after.get(name) != when]
        counts["runs"] += 1
        now = files(project / "runs" / "smoke")
        names = sorted(now.keys() | reference.keys())
        counts["changed"] += [name for name in names if now.get(name) != reference.get(name)]
        counts["left"] += left(project)
        print({k: v if isinstance(v, int) else len(v) for k, v in counts.items()}, flush=True)
    text = log.read_text(encoding="utf-8")
    return {
        **counts,
        "files_compared": len(reference),
        "killed_during": dict(sorted(during.items())),
        "notices": text.count("truncated or altered"),
        "tracebacks": text.count("Traceback"),
        "seconds_until_a_kill_at_first": [0.2, longest],
        "seed": seed,
    }


def main() -> None:
    """Measure and write it down."""
    arguments = parser(__doc__, trials=100, longest=16, seed=0)
    arguments.add_argument("--reference", type=Path, help="folder of a run that ended undisturbed")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
        result = {
            "machine": machine(1),
            **trials(
                project,
                files(options.reference or undisturbed(project)),
                options.trials,
                float(options.longest),
                options.seed,
            ),
        }
    print(write("kills", result, options.out))


if __name__ == "__main__":
    main()
