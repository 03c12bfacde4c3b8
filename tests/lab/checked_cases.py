"""What checks of exercises are put through: the right answer, an empty stub, each slip."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from crane_lab.show.checks import Checked


def shown(checked: Checked) -> str:
    """What a reader sees, without the signs of Markdown."""
    return checked._repr_markdown_().replace("*", "").replace("`", "").replace("\\", "")


def require_all_told(
    check: Callable[[Any], Checked], right: Any, empty: Any, slips: Iterable[tuple[Any, str]]
) -> None:
    """The right answer passes, an empty stub is no mistake, and each slip has its explanation."""
    found = check(right)
    assert found.state == "right", found
    assert shown(found).startswith("Right. ")
    found = check(empty)
    assert found.state == "nothing"
    assert shown(found).startswith("Nothing here yet. Put ")
    said = []
    for answer, words in slips:
        found = check(answer)
        assert found.state == "wrong" and words in shown(found), (words, found)
        said.append(found.words)
    assert len(set(said)) == len(said)
