"""Quick questions put into a page when the book is staged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from crane_lab.show.quick_questions import questions_html, quick_questions_of


def with_questions(text: str, path: Path) -> str:
    """An executed notebook with the questions of `path` before its exercises, or at its end.

    As it is if there is no such file. The exercises begin with their heading, which a cell may have
    after other text; a page without that heading has the questions at its end.
    """
    if not path.is_file():
        return text
    notebook = json.loads(text)
    cells: list[dict[str, Any]] = notebook["cells"]
    html = questions_html(quick_questions_of(path))
    asked = markdown_cell("quick-questions", f"## Quick questions\n\n{html}\n")
    for i, cell in enumerate(cells):
        source = "".join(cell["source"])  # a text, or its lines
        found = re.search(r"^## Exercise", source, re.MULTILINE)
        if cell["cell_type"] == "markdown" and found:
            before = [cell | {"source": source[: found.start()]}] if found.start() else []
            cells[i : i + 1] = [*before, asked, markdown_cell("exercises", source[found.start() :])]
            break
    else:
        cells.append(asked)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def markdown_cell(name: str, source: str) -> dict[str, Any]:
    """A cell that a page gets when the book is staged."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}
