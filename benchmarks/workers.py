"""Two workers against one: the same bytes, in how much of the time?

    python benchmarks/workers.py [--workers 2] [--profile smoke] [--out FOLDER]

What the notebooks of a run need is computed from nothing, first by one worker and then by several,
each with one thread, in two stores. Loading the model is in the times, as it is in life. `ratio` is
the second time over the first, `same` whether every artefact has the same bytes, and `work` the
seconds that the manifests give for the stages themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, machine, parser, write

CODE = """\
import json, sys
from pathlib import Path
from crane_lab.cli.work import work
from crane_lab.runs import Project
work(Project(Path(sys.argv[1])).run(sys.argv[2], json.loads(sys.argv[3])))
"""
#: The testbed's stages with enough in them that loading the model does not matter.
OVERRIDES = {
    "testbed": {"n_samples": "400", "task_limit": "100", "n_questions": "20"},
    "smoke": {},
}


def project(folder: Path) -> Path:
    """A project with this one's notebooks and data and no runs."""
    folder.mkdir(parents=True)
    for name in ("notebooks", "data"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def timed(folder: Path, profile: str, workers: int) -> float:
    """Seconds that so many workers take for everything."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", CODE, str(folder), profile, json.dumps(OVERRIDES[profile])]
    began = time.monotonic()
    running = [subprocess.Popen(command, env=environment, cwd=ROOT) for _ in range(workers)]
    for one in running:
        if one.wait():
            raise SystemExit("a worker failed")
    return time.monotonic() - began


def artefacts(folder: Path) -> dict[str, str]:
    """Digest of every artefact; manifests, with times in them, are left out."""
    store = folder / "runs" / "store"
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.glob("*/*"))
        if path.suffix != ".json" or path.name.endswith(".value.json")
    }


def work_in(folder: Path) -> float:
    """Seconds of all stages, by their manifests."""
    manifests = (folder / "runs" / "store").glob("*/*.json")
    found = [json.loads(p.read_text()) for p in manifests if not p.name.endswith(".value.json")]
    return sum(manifest["made"]["seconds"] for manifest in found)


def main() -> None:
    arguments = parser(__doc__, workers=2)
    arguments.add_argument("--profile", choices=OVERRIDES, default="testbed", help="smoke: minutes")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [project(Path(scratch) / name) for name in ("one", "several")]
        seconds = [timed(folders[0], options.profile, 1)]
        seconds += [timed(folders[1], options.profile, options.workers)]
        first, second = map(artefacts, folders)
        found: dict[str, Any] = {
            "profile": options.profile,
            "overrides": OVERRIDES[options.profile],
            "workers": options.workers,
            "artefacts": len(first),
            "same": first == second,
            "seconds_one": round(seconds[0], 1),
            "seconds_several": round(seconds[1], 1),
            "ratio": round(seconds[1] / seconds[0], 3),
            "work_one": round(work_in(folders[0]), 1),
            "work_several": round(work_in(folders[1]), 1),
            "load_average": round(os.getloadavg()[0], 1),
            "machine": machine(1),
        }
    print(json.dumps(found, indent=2))
    write("workers", found, options.out)


if __name__ == "__main__":
    main()
