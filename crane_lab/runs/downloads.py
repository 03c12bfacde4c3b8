"""What pages of notebooks offer for download: their tables, and themselves.

Paths in a notebook start in the project's folder. The first cell of a downloaded one goes there, or
makes its own folder one from what the wheel brought; the page does not show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from crane_lab.runs.questions import markdown_cell

#: Where a page's tables lie beside the sources of the book.
RESULTS = "results"

_HEAD = """\
# For a copy of this notebook that lies elsewhere: code and data are in the project's wheel or in a
# checkout of it (the page "Rerun it" says how to take either as kernel).
"""
_GO = """\
from crane_lab.store.place import work_here

work_here()
"""
_FETCH = """\
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("crane_lab") is None:  # as on Colab: fetch it, and what it needs
    project = Path("{name}").resolve()
    if not project.is_dir():
        subprocess.run(["git", "clone", "--depth", "1", "{address}", str(project)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    for what in (
        ["-r", "requirements.txt", "-r", "requirements-lab.txt"],
        ["--no-deps", "-r", "requirements-nodeps.txt"],
    ):
        subprocess.run([*pip, *what], cwd=project, check=True)
    sys.path.insert(0, str(project))

"""


def first_cell(address: str) -> str:
    """Return the code that a downloaded notebook begins with.

    It is the call of `crane_lab.store.place.work_here`. With an `address` it fetches the project
    first where `crane_lab` is not installed.
    """
    fetch = _FETCH.format(address=address, name=address.rsplit("/", 1)[-1]) if address else ""
    return (_HEAD + fetch + _GO).rstrip("\n")


def with_tables(text: str, tables: Iterable[str]) -> str:
    """Return an executed notebook with links to what it wrote, files of `../results`, at its end.

    As it is if it has written no table.
    """
    links = ", ".join(f"{{download}}`{name} <../{RESULTS}/{name}>`" for name in tables)
    if not links:
        return text
    notebook = json.loads(text)
    said = f"{links}. What their columns mean, and in which units: [Results](../book/results)."
    folded = f":::{{dropdown}} The numbers of this page, as tables\n\n{said}\n:::\n"
    notebook["cells"].append(markdown_cell("tables", folded))
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def downloadable(text: str, address: str) -> str:
    """Return an executed notebook with `first_cell` before its own, hidden on its page."""
    notebook = json.loads(text)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "find-the-project",
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": first_cell(address),
    }
    notebook["cells"].insert(0, cell)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
