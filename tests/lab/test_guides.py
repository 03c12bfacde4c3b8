"""The checklist for reviewers and the plans for teaching name sections and exercises that exist."""

import re
from pathlib import Path

import pytest

from crane_lab.store import ROOT

GUIDES = {name: (ROOT / "book" / f"{name}.md") for name in ("review", "teaching")}
#: A link to a page, and after it the sections meant, in italics.
NAMED = re.compile(r"\]\(([\w./]+)\)((?:[,:;]?\s(?:and\s)?\*[^*]+\*)+)")


def one_line(text: str) -> str:
    return " ".join(text.split())


def sections(page: Path) -> set[str]:
    """Headings and titles of exercises of a notebook or a chapter, without how hard they are."""
    text = re.sub(r"^# ?", "", page.read_text("utf-8"), flags=re.M) if page.suffix == ".py" else ""
    text = text or page.read_text("utf-8")
    title = r"\{exercise(?:-start)?\} (.+?)(?: · \w+, \d+ minutes)?$"
    found = re.findall(rf"^#+ (.+)$|{title}", text, re.M)
    return {one_line(heading or exercise) for heading, exercise in found}


def page_of(target: str) -> Path:
    name = target.removeprefix("../")
    if name.startswith("notebooks/"):
        return ROOT / f"{name}.py"
    return ROOT / "book" / f"{name}.md"


def named(guide: Path) -> list[tuple[str, str]]:
    return [
        (page, one_line(section))
        for page, listed in NAMED.findall(guide.read_text("utf-8"))
        for section in re.findall(r"\*([^*]+)\*", listed)
    ]


@pytest.mark.parametrize("name", GUIDES)
def test_sections_and_exercises_are_there(name: str) -> None:
    found = named(GUIDES[name])
    assert len(found) > 15
    missing = [(page, section) for page, section in found if section not in sections(page_of(page))]
    assert not missing


def test_a_wrong_name_is_found(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text(
        "[The\naudit](../notebooks/07_audit), *At\n  chance*, *Find the count*, *Not\nthere*."
    )
    known = sections(ROOT / "notebooks" / "07_audit.py")
    assert [section in known for _, section in named(guide)] == [True, True, False]
