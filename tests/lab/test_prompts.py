"""Folded code says what it holds."""

import json

from crane_lab.runs.prompts import with_prompts


def test_folded_cells_say_what_they_hold() -> None:
    cells = [
        ("code", ["parameters", "hide-input"], "model = 1"),
        ("code", ["injected-parameters", "hide-input"], "model = 2"),
        ("code", ["hide-input"], "import json\n\nx = 1"),
        ("code", ["hide-input"], "figure()"),
        ("markdown", [], "from here on"),
    ]
    image = {"mystnb": {"image": {"alt": "A line"}}}  # is kept
    given = {
        "cells": [
            {"cell_type": kind, "metadata": {"tags": tags, **image}, "source": source}
            for kind, tags, source in cells
        ]
    }
    made = json.loads(with_prompts(json.dumps(given)))["cells"]
    assert all(cell["metadata"]["mystnb"]["image"] == {"alt": "A line"} for cell in made)
    said = [cell["metadata"]["mystnb"].get("code_prompt_show") for cell in made]
    assert said == ["Show parameters", "Show parameters of this run", "Show imports", None, None]
    assert made[0]["metadata"]["mystnb"]["code_prompt_hide"] == "Hide parameters"
