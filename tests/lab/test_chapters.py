"""Chapters that are no notebooks begin with what they are for and end with the next page."""

import pytest
import yaml

from crane_lab.runs.book import toc_entries
from crane_lab.runs.chapters import descriptions, with_ends
from crane_lab.store import ROOT

ENTRIES = list(toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))))


def test_the_first_page_says_of_every_chapter_what_it_is_for() -> None:
    said = descriptions((ROOT / "book" / "intro.md").read_text("utf-8"))
    chapters = {entry for entry in ENTRIES if entry.startswith("book/")} - {"book/intro"}
    assert set(said) == chapters
    assert all(len(text) > 10 and "\n" not in text for text in said.values())


def test_a_chapter_has_both_ends() -> None:
    text = with_ends(
        "(label)=\n# Title\n\nOne.\n\n", "book/a", "For whom.", ["book/a", "notebooks/b"]
    )
    glance = ":::{admonition} At a glance\n:class: tip\n\nFor whom.\n:::\n"
    assert text == f"(label)=\n# Title\n\n{glance}\nOne.\n\nNext: [](../notebooks/b).\n"
    assert with_ends("# Title\n\nOne.", "book/a", "x", ["book/a"]).endswith("One.\n")
    with pytest.raises(ValueError, match="book/a has no title"):
        with_ends("One.", "book/a", "x", ["book/a"])
