"""Exercises are numbered page by page, not over the whole book; an extension of Sphinx.

`sphinx_exercise` takes its numbers from Sphinx's figures, which count over all pages. Here they are
counted again before anything is written, so that titles, solutions and references all have them.
"""

from __future__ import annotations

from typing import Any

#: What `sphinx_exercise` calls its kind of figure.
KIND = "exercise"


def by_page(numbers: dict[str, dict[str, dict[str, tuple[int, ...]]]]) -> None:
    """Number the exercises of every page from 1, in the order that they have."""
    for kinds in numbers.values():
        of_page = kinds.get(KIND, {})
        for place, label in enumerate(sorted(of_page, key=of_page.__getitem__), 1):
            of_page[label] = (place,)


def _renumber(app: Any, env: Any) -> list[str]:
    by_page(env.toc_fignumbers)
    return []  # no page besides has to be written anew for it


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    # Late: this is where Sphinx counts.
    app.connect("env-get-updated", _renumber, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
