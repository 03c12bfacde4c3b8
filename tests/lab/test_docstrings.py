"""Docstrings as the reference of `crane_core` reads them."""

import crane_core
from crane_lab.runs.docstrings import readable


def test_entries_become_definitions_and_titles_bold() -> None:
    docstring = [
        "What it does.",
        "",
        "Parameters",
        "----------",
        "x, y : two numbers,",
        "    in order.",
        "",
        "Returns",
        "-------",
        "a : no entry here, but text.",
        "",
        "Attributes",
        "----------",
        "z : one.",
        "",
        "Raises ValueError never.",
    ]
    assert readable(docstring) == [
        "What it does.",
        "",
        "",
        "**Parameters**",
        "",
        "``x, y``",
        "    two numbers,",
        "    in order.",
        "",
        "",
        "**Returns**",
        "",
        "a : no entry here, but text.",
        "",
        "",
        "**Attributes**",
        "",
        "``z``",
        "    one.",
        "",
        "",
        "Raises ValueError never.",
    ]


def test_no_title_is_left_underlined() -> None:
    for name in crane_core.__all__:
        lines = (getattr(crane_core, name).__doc__ or "").splitlines()
        assert not [line for line in readable(lines) if line.strip("-") == "" and line]
