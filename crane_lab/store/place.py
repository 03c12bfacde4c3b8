"""The folder that a notebook works in, wherever its code was installed from."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from crane_lab.store.sources import ROOT

#: What notebooks read; the wheel has them as `crane_book.<folder>`.
FOLDERS = ("data", "notebooks", "benchmarks")


def work_here() -> Path:
    """Make the folder that paths start in the working folder, and return it.

    In a checkout that is the checkout. Installed from a wheel it is the folder that the process
    began in, and gets `FOLDERS` as links to what the wheel brought (as copies where links cannot be
    made).

    Raises FileNotFoundError if neither has the data, and FileExistsError if the folder has one of
    `FOLDERS` that is not the book's; nothing is made then.
    """
    if not (ROOT / "data" / "published").is_dir():
        brought = {folder: _brought(folder) for folder in FOLDERS}
        taken = [folder for folder in FOLDERS if (ROOT / folder).exists()]
        if taken:
            raise FileExistsError(
                f"{ROOT / taken[0]} is not the book's, whose data would be there: move the notebook"
                " to a folder of its own"
            )
        for folder, source in brought.items():
            target = ROOT / folder
            target.unlink(missing_ok=True)  # a link to what was uninstalled
            try:
                target.symlink_to(source, target_is_directory=True)
            except OSError:  # as on Windows, for want of a right
                shutil.copytree(source, target)
    os.chdir(ROOT)
    return ROOT


def _brought(folder: str) -> Path:
    """The folder as the wheel has it."""
    try:
        found = importlib.util.find_spec(f"crane_book.{folder}")
    except ModuleNotFoundError:
        found = None
    places = list(found.submodule_search_locations or ()) if found else []
    if not places:
        raise FileNotFoundError(
            f"no data in {ROOT}, nor in an installed wheel (crane_book): install the wheel that"
            " `make wheel` makes, or run `make setup` in a checkout and take its .venv as kernel"
        )
    return Path(places[0])
