"""What a chapter that is no notebook begins and ends with: what it is for, and the next page.

Notebooks have both in their sources. A chapter takes its beginning from the first page, which lists
every page with what it is about, and its end from the table of contents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LISTED = re.compile(
    r"^\[[^\]]+\]\((?P<target>[\w./]+)\)\n: (?P<said>.+?)\n(?=\n)", re.MULTILINE | re.DOTALL
)
_TITLE = re.compile(r"^# .+\n", re.MULTILINE)


def descriptions(first_page: str) -> dict[str, str]:
    """Return what the first page says of every chapter, by its entry in the table of contents."""
    return {
        f"book/{found['target']}": re.sub(r"\s+", " ", found["said"])
        for found in _LISTED.finditer(first_page)
        if "/" not in found["target"]
    }


def with_ends(text: str, entry: str, said: str, entries: Sequence[str]) -> str:
    """Return a chapter with `said` below its title and the entry after its own at its end.

    Raises ValueError if it has no title.
    """
    title = _TITLE.search(text)
    if not title:
        raise ValueError(f"{entry} has no title: expected a line that begins with `# `")
    glance = f"\n:::{{admonition}} At a glance\n:class: tip\n\n{said}\n:::\n"
    ended = text[: title.end()] + glance + text[title.end() :].rstrip() + "\n"
    following = entries[entries.index(entry) + 1 :]
    return ended + (f"\nNext: [](../{following[0]}).\n" if following else "")
