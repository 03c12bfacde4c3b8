"""What axe-core finds on a built page in a real browser, without a network."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from driven import Driven

#: What axe calls an impact and what fails a page; "moderate" ones are looked at by name.
FAILING = {"serious", "critical"}
#: Of the moderate ones, those that a reader who uses a keyboard or hears the page would notice.
#: Later versions of axe call the first serious.
NOTICED = {"scrollable-region-focusable", "heading-order"}

#: Nothing fades in, or it would be looked at while it is pale. What is folded is opened, or it
#: would not be looked at. Of a table's rows that are alike, in tags and colours, the first is
#: kept, and of words of code in one colour: axe takes its time for each of a thousand, and for
#: pictures that are written into the page.
PREPARE = """(() => {
  const still = document.createElement("style");
  still.textContent = "* { animation: none !important; transition: none !important }";
  document.head.append(still);
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  const boxes = document.querySelectorAll(".toggle-hidden");
  for (const box of boxes) box.classList.remove("toggle-hidden");
  const sizes = [...document.images].map((image) => [image, image.width, image.height]);
  const known = new Set();
  const again = (...look) => known.size === known.add(look.join()).size;
  const style = (tag) => {
    const { color, backgroundColor, fontWeight } = getComputedStyle(tag);
    return [color, backgroundColor, fontWeight];
  };
  const look = (cell) => {
    const within = [...cell.querySelectorAll("*")];
    const tags = within.map((part) => part.tagName + part.getAttribute("style"));
    return [cell.tagName, cell.scope, ...style(cell), ...tags];
  };
  const rows = [...document.querySelectorAll("tbody")].flatMap((body, table) =>
    [...body.rows].filter((row) => again(table, ...[...row.cells].flatMap(look))));
  const words = [...document.querySelectorAll("pre span[class]:not(:has(*))")].filter((word) =>
    again("word", ...style(word), ...style(word.closest("pre"))));
  // Looked at first and changed now: in turns, the page would be laid out anew each time.
  for (const row of rows) if (!row.querySelector("[rowspan]")) row.remove();
  for (const word of words) word.replaceWith(word.textContent);
  for (const [image, width, height] of sizes) {
    Object.assign(image.style, { width: `${width}px`, height: `${height}px` });
    if (image.src.startsWith("data:")) image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
  }
  return new Promise((ready) => setTimeout(ready, 100)); // scripts notice what has been opened
})()"""


def axe_script() -> str:
    """The checker itself, or a skipped test."""
    spec = find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("no axe-core: pip install -r requirements-dev.txt")
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


def failing(page: Driven, rules: list[str] | None = None) -> list[str]:
    """What fails the page that is open: rule, number of places and the first of them.

    `rules`: these alone; by default all.
    """
    options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
    if rules is not None:
        options["runOnly"] = {"type": "rule", "values": rules}
    page.said(PREPARE)
    page.said(f"{axe_script()}; 0")
    run = f"axe.run(document, {json.dumps(options)}).then((found) => found.violations)"
    return [
        f"{v['impact']} {v['id']}, {len(v['nodes'])} times: {v['nodes'][0]['html'][:200]}"
        for v in page.said(run)
        if v["impact"] in FAILING or v["id"] in NOTICED
    ]
