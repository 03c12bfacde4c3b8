"""Quick questions put into a page when the book is staged."""

from __future__ import annotations

import json
from pathlib import Path

from crane_lab.show.quick_questions import questions_html, quick_questions_of


def with_questions(text: str, path: Path) -> str:
    """An executed notebook with the questions of `path` before its exercises, or at its end.

    As it is if there is no such file. A page whose exercises do not begin a cell has the questions
    at its end.
    """
    if not path.is_file():
        return text
    notebook = json.loads(text)
    cells = notebook["cells"]
    place = next((i for i, cell in enumerate(cells) if _has_exercises(cell)), len(cells))
    html = questions_html(quick_questions_of(path))
    cell = {
        "cell_type": "markdown",
        "id": "quick-questions",
        "metadata": {},
        "source": f"## Quick questions\n\n{html}\n",
    }
    cells.insert(place, cell)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _has_exercises(cell: dict[str, object]) -> bool:
    source = cell["source"]
    text = "".join(source) if isinstance(source, list) else str(source)
    return text.startswith("## Exercise")
