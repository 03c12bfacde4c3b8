"""What folded code of a page is called, so that a reader knows which of it holds what."""

from __future__ import annotations

import json
from collections.abc import Sequence

#: Tags that papermill knows, or has set -> what the cell holds.
_TAGGED = {"parameters": "parameters", "injected-parameters": "parameters of this run"}


def with_prompts(text: str) -> str:
    """An executed notebook whose cells say when folded that they hold parameters or imports."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        held = _held(cell["metadata"].get("tags", []), "".join(cell["source"]))
        if cell["cell_type"] == "code" and held:
            prompts = {f"code_prompt_{do}": f"{do.capitalize()} {held}" for do in ("show", "hide")}
            cell["metadata"].setdefault("mystnb", {}).update(prompts)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _held(tags: Sequence[str], source: str) -> str:
    if named := [held for tag, held in _TAGGED.items() if tag in tags]:
        return named[0]
    return "imports" if source.startswith(("import ", "from ")) else ""
