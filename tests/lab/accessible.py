"""What axe-core finds on a built page in a real browser, without a network."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from browser import loaded

#: What axe calls an impact and what fails a page; "moderate" ones are looked at by name.
FAILING = {"serious", "critical"}
#: Of the moderate ones, those that a reader who uses a keyboard or hears the page would notice.
#: Later versions of axe call the first serious.
NOTICED = {"scrollable-region-focusable", "heading-order"}

_RUN = """<script>addEventListener("load", () => setTimeout(() => {
  axe.run(document, OPTIONS).then((found) => {
    const made = document.createElement("pre");
    made.id = "axe-found";
    made.textContent = JSON.stringify(found.violations);
    document.body.replaceChildren(made);
  });
}, 500));</script>"""


def axe_script() -> str:
    """The checker itself, or a skipped test."""
    spec = find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("no axe-core: pip install -r requirements-dev.txt")
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


def prepared(html: str, address: str, *, dark: bool, rules: list[str] | None = None) -> str:
    """A page that checks itself when it has been loaded: with the checker, and without MathJax.

    Formulas are set by MathJax, which has an accessible form of its own and takes most of the time.
    `rules`: these alone; by default all.
    """
    html = re.sub(r"<script[^>]*mathjax[^>]*></script>", "", html)
    if dark:
        html = re.sub(r'localStorage\.getItem\("(mode|theme)"\)', '"dark"', html)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules is not None:
        options["runOnly"] = {"type": "rule", "values": rules}
    check = f"<script>{axe_script()}</script>" + _RUN.replace("OPTIONS", json.dumps(options))
    html = html.replace("<head>", f'<head><base href="{address}">', 1)
    return html.replace("</body>", f"{check}</body>")


def checked(folder: Path, html: str, width: int) -> list[dict[str, Any]]:
    """What axe says against a prepared page in a window of a width; skips without Chromium."""
    options = ["--virtual-time-budget=60000", f"--window-size={width},1000"]
    (found,) = loaded(folder, html, options, timeout=300).select("#axe-found")
    violations: list[dict[str, Any]] = json.loads(found.text)
    return violations


def failing(violations: list[dict[str, Any]]) -> list[str]:
    """Of what was found, what fails a page: rule, number of places and the first of them."""
    return [
        f"{v['impact']} {v['id']}, {len(v['nodes'])} times: {v['nodes'][0]['html'][:200]}"
        for v in violations
        if v["impact"] in FAILING or v["id"] in NOTICED
    ]
