"""The pipeline of a run for commands that compute what the book ships."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from crane_lab.pipeline import Pipeline
from crane_lab.runs.execution import Run
from crane_lab.settings import Settings
from crane_lab.store import Store
from crane_lab.store.artefacts import RUN_NAME


@contextlib.contextmanager
def pipeline_of(run: Run, store: str | Path | None = None) -> Iterator[Pipeline]:
    """A run's pipeline; inside, the project's root is the working folder.

    `store`: where results are kept, by default the runs' own.
    """
    named = os.environ.get(RUN_NAME)
    os.environ[RUN_NAME] = named or run.name
    try:
        with contextlib.chdir(run.project.root):
            yield Pipeline(Settings.of(run.parameters), Store(store or run.project.runs / "store"))
    finally:
        if named is None:
            del os.environ[RUN_NAME]
