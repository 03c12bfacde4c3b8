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

from crane_lab.parameter import Parameter
from crane_lab.runs.book import build_book
from crane_lab.runs.execution import DEFAULT_PROFILE, Project, Run, RunError
from crane_lab.runs.parameters import Notebook

__all__ = [
    "DEFAULT_PROFILE",
    "Notebook",
    "Parameter",
    "Project",
    "Run",
    "RunError",
    "build_book",
]
