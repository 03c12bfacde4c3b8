"""Roles that a screen reader knows, where Sphinx writes others; an extension of Sphinx.

The bibliography is a list by its role, and its entries have a role that was dropped from the
standard since: a reader who hears the page is told of a list without items.
"""

from __future__ import annotations

from typing import Any


def with_known_roles(body: str) -> str:
    """The body of a page in which entries of the bibliography are items of its list."""
    return body.replace('role="doc-biblioentry"', 'role="listitem"')


def _page(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if "body" in context:
        context["body"] = with_known_roles(context["body"])


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx."""
    app.connect("html-page-context", _page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
