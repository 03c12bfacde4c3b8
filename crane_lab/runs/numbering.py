"""Figures and tables of notebooks, numbered page by page when the book is staged, and their list.

The numbers begin with the notebook's: Table 4.2 is the second of notebook 04. The paper's own
tables and figures have a number without a point. Prose that says "the figure below" or "the table
above" names it by its number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from crane_lab.show.foreign import made_here, markup

#: A table's caption, or the beginning of a picture with its alternative text (`figures`).
_PIECE = re.compile(
    r"(?P<caption><caption>)(?P<title>.*?)</caption>"
    r'|(?P<picture><div style="overflow-x:auto"><img src="[^"]*" alt="(?P<alt>[^"]*)")',
    re.DOTALL,
)
#: Prose that points at one of the page.
_POINTS = re.compile(r"\b[Tt]he\s(?P<kind>figure|table)\s(?P<where>below|above)\b")
#: What can be tried has its own picture and tables, which change.
_TRIED = 'class="explorable'
PAGE = "figures.md"
_HEAD = """# Figures and tables

Every figure and table of the notebooks by its number, with what it shows. What is numbered without
a point, such as Table 1, is the paper's.
"""


@dataclass(frozen=True)
class Shown:
    """A figure or table: its `name` ("Table 4.2"), where it is, its caption as HTML, its cell."""

    name: str
    anchor: str
    title: Markup
    cell: int = 0
    folded: bool = False


def with_numbers(text: str, page: str) -> tuple[str, list[Shown]]:
    """An executed notebook with its figures and tables numbered, and what they are.

    `page`: the notebook's number, such as "04b". Cells whose output is not shown, or that have
    something to try, are left as they are. "The table below" becomes a link to the first numbered
    table after the words, "the table above" to the last one before (of a cell's, one that is not
    folded comes first); without any, words stay.
    """
    notebook = json.loads(text)
    found: list[Shown] = []
    counts = {"Table": 0, "Figure": 0}
    short = page.lstrip("0") or "0"
    short = short if short[0].isdigit() else f"0{short}"

    def with_number(match: re.Match[str]) -> str:
        kind = "Table" if match["caption"] else "Figure"
        counts[kind] += 1
        name = f"{kind} {short}.{counts[kind]}"
        anchor = name.lower().replace(" ", "-").replace(".", "-")
        title = made_here(match["title"] if match["caption"] else match["alt"])
        before_it = match.string[: match.start()]
        folded = before_it.count("<details") > before_it.count("</details>")
        found.append(Shown(name, anchor, title, len(before), folded))
        label = markup(
            '<span class="numbered" id="{anchor}">{name}.</span>', anchor=anchor, name=name
        )
        if kind == "Table":
            return f"<caption>{label} {match['title']}</caption>"
        # What it shows, of an alternative text that goes on to say what is seen.
        said = made_here(re.split(r"(?<=[^.]\.) ", match["alt"], maxsplit=1)[0])
        caption = markup("<p>{label} {said}</p>", label=label, said=said)
        return f"{caption}{match['picture']}"

    before: list[int] = []  # how many had been found where a cell begins
    for cell in notebook["cells"]:
        before.append(len(found))
        if {"remove-cell", "remove-output"} & set(cell["metadata"].get("tags", [])):
            continue
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if html and _TRIED not in html:
                output["data"]["text/html"] = _PIECE.sub(with_number, html)
    for cell, n in zip(notebook["cells"], before, strict=True):
        if cell.get("cell_type") == "markdown":
            named = partial(_named, list(reversed(found[:n])), found[n:])
            cell["source"] = _POINTS.sub(named, "".join(cell["source"]))
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", found


def _named(above: list[Shown], below: list[Shown], match: re.Match[str]) -> str:
    """The link for words that point; `above` and `below` are nearest first."""
    kind = match["kind"].capitalize()
    nearest = below if match["where"] == "below" else above
    fitting = [one for one in nearest if one.name.startswith(kind)]
    if not fitting:
        return match[0]
    together = [one for one in fitting if one.cell == fitting[0].cell]
    one = min(together, key=lambda one: one.folded)  # the first of those that are alike
    return str(markup('<a href="#{anchor}">{name}</a>', anchor=one.anchor, name=one.name))


def list_of(pages: Iterable[tuple[str, str, list[Shown]]]) -> str:
    """The page that lists them, as MyST text; `pages`: a notebook's name, title, and its own."""
    lines = [_HEAD]
    for name, title, own in pages:
        if not own:
            continue
        lines += [f"## [{title}](../notebooks/{name})", "", "<ul>"]
        lines += [
            markup(
                '<li><a href="../notebooks/{page}.html#{anchor}">{name}</a>: {title}</li>',
                page=name,
                anchor=one.anchor,
                name=one.name,
                title=one.title,
            )
            for one in own
        ]
        lines += ["</ul>", ""]
    return "\n".join(lines)
