"""How Sphinx reads our docstrings, for the reference of `crane_core`; an extension of Sphinx.

Sections are underlined as numpy's are, but an entry is `name : what it is`, in words, where numpy
has a type that Sphinx would look up. So entries become lists of definitions.
"""

from __future__ import annotations

import re
from typing import Any

#: Sections made of entries; in others the text stays as it is.
ENTRIES = ("Parameters", "Attributes", "Raises")


def readable(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText: titles in bold, entries as definitions."""
    found: list[str] = []
    section = ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line and re.fullmatch("-{3,}", following):
            section = line.strip()
            found += ["", f"**{section}**", ""]
        elif re.fullmatch("-{3,}", line):
            continue
        elif section in ENTRIES and (entry := re.match(r"(\S.*?) : (.*)", line)):
            found += [f"``{entry[1]}``", f"    {entry[2]}"]
        elif section in ENTRIES and line and not line.startswith(" "):
            section = ""  # a paragraph after the entries
            found += ["", line]
        else:
            found.append(line)
    return found


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = readable(lines)


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
