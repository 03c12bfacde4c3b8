"""What a notebook's kernel is given, and how many of them run side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from crane_lab.store.artefacts import RUN_NAME, USES
from crane_lab.store.sources import CODE, code_digest

# What an executed notebook must not depend on: the user's Jupyter, IPython and matplotlib set-up,
# the network, hash randomisation, and progress bars that print timings into the pages.
_ENVIRONMENT = {
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    # tqdm.auto, which libraries import, asks for a widget package that pages cannot show anyway.
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}

#: Threads that torch and its libraries use.
THREADS = "OMP_NUM_THREADS"
#: Bytes of a checkpoint of which several copies at work are no burden; so many at most.
SMALL, MOST = 2**28, 4


def notebooks_at_once(model: Path, device: str) -> int:
    """How many notebooks over a model are executed at once: one on each core for a small one.

    One alone where the model is large, not in a folder, or on another device than the CPU: it
    would be loaded as often, and uses all that there is by itself.
    """
    small = (
        model.is_dir() and sum(p.stat().st_size for p in model.rglob("*") if p.is_file()) <= SMALL
    )
    return min(_cores(), MOST) if small and device == "cpu" else 1


def threads_of(jobs: int) -> int | None:
    """Threads for each of several kernels; None where the one there is may have all."""
    return None if jobs == 1 else max(1, _cores() // jobs)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def environment(scratch: str, run: str, *, offline: bool, threads: int | None) -> Iterator[None]:
    """Set the environment that kernels of a run inherit, and put the old one back.

    `scratch`: a folder that is theirs alone; `threads`: unless the user has set another number.
    """
    changed: dict[str, str | None] = {
        **_ENVIRONMENT,
        "IPYTHONDIR": scratch,
        RUN_NAME: run,  # what the store notes beside an artefact
        USES: str(Path(scratch, "uses")),
        CODE: os.environ.get(CODE) or code_digest(),  # kernels begin later than their runner
        "JUPYTER_PATH": None,
    }
    if threads is not None and THREADS not in os.environ:
        changed[THREADS] = str(threads)
    changed |= {name: "1" if offline else "0" for name in changed if "OFFLINE" in name}
    saved = {name: os.environ.get(name) for name in changed}
    _set(changed)
    try:
        yield
    finally:
        _set(saved)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
