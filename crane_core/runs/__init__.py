"""Runs of the book: profiles and parameters, stored artefacts, notebooks through papermill, pages.

    crane book --profile testbed [--notebook 02] [-p n_samples 200]

A *profile* is a flat YAML file of papermill parameters in `notebooks/profiles/`. A *run* is a
profile plus overrides, and owns a directory: `runs/<profile>/`, or `runs/<profile>-<hash>/` when
something is overridden, so that no override ever touches the default's results. Every notebook is
executed into `runs/<run>/notebooks/` and is left alone as long as its source, its parameters, the
modules it imports, the data and the installed packages are those it was executed with.

Nothing is written in place: files appear under their final name when they are complete, so a run
killed at any moment and started again ends with the files of one that was never killed.
"""

from crane_core.runs.book import build_book
from crane_core.runs.execution import DEFAULT_PROFILE, Project, Run, RunError
from crane_core.runs.files import DiskFullError, atomic_path, write_table
from crane_core.runs.parameters import Notebook, Parameter
from crane_core.runs.sources import ROOT, source_digest
from crane_core.runs.store import Record, Store, StoreFormatError

__all__ = [
    "DEFAULT_PROFILE",
    "ROOT",
    "DiskFullError",
    "Notebook",
    "Parameter",
    "Project",
    "Record",
    "Run",
    "RunError",
    "Store",
    "StoreFormatError",
    "atomic_path",
    "build_book",
    "source_digest",
    "write_table",
]
