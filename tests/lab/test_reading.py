"""What every page says for its readers: how long it takes, what it is about, where to go next."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from crane_lab.runs import Project
from crane_lab.runs.book import toc_entries
from crane_lab.runs.exercises import by_page
from crane_lab.runs.reading import READING_TIME, minutes_to_read, reading_time
from crane_lab.store import ROOT

NOTEBOOKS = Project().notebooks
ENTRIES = list(toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))))
INTRO = (ROOT / "book" / "intro.md").read_text("utf-8")


def plain(source: str) -> str:
    return re.sub(r"\s*\n# ?", " ", source)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_a_notebook_says_at_its_top_what_it_is_about(notebook: object) -> None:
    source = notebook.source  # type: ignore[attr-defined]
    top = plain(source.split("\n# %%", 1)[0])
    wanted = r":::\{admonition\} At a glance :class: tip  ?\*\*You will be able to\*\* .+"
    assert re.search(wanted + r"\*\*It assumes\*\* .+\*\*It takes\*\* .+ :::", top)
    assert minutes_to_read(source) > 0


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_a_notebook_ends_with_the_next_page_and_why(notebook: object) -> None:
    name = notebook.name  # type: ignore[attr-defined]
    following = dict(pairwise(ENTRIES))[f"notebooks/{name}"]
    said = re.search(r" Next: \[[^]]+\]\(([\w./]+)\)(.+)$", plain(notebook.source).strip())  # type: ignore[attr-defined]
    assert said, f"{name} does not end with `Next: [page](file), why`"
    target = (Path("notebooks") / said[1]).as_posix().replace("notebooks/../", "")
    assert target == following
    assert len(said[2]) > 30


def test_the_first_page_lists_every_page_in_order() -> None:
    listed = INTRO.split("## Every page")[1].split("\n## ")[0]
    targets = [
        t.removeprefix("../") if "/" in t else f"book/{t}"
        for t in re.findall(r"\]\(([\w./]+)\)", listed)
    ]
    assert set(ENTRIES) - {"book/intro"} == set(targets)
    notebooks = [t for t in targets if t.startswith("notebooks/")]
    assert notebooks[:11] == [e for e in ENTRIES if e.startswith("notebooks/")][:11]


def test_times_are_added_up() -> None:
    told = "**It takes** {} to\n# read; the computer needs a minute."
    assert reading_time([told.format("forty minutes")]) == "about one hour"
    sources = [told.format(t) for t in ("three quarters of\n# an hour", "an hour", "half an hour")]
    assert reading_time(sources) == "about two hours"
    assert minutes_to_read(sources[0]) == 45
    for wrong in ("# nothing", told.format("a week")):
        with pytest.raises(ValueError, match=r"\*\*It takes\*\* half an hour to read"):
            minutes_to_read(wrong)
    assert INTRO.count(READING_TIME) == 1


def test_the_short_way_takes_as_long_as_its_pages() -> None:
    way = re.search(r"\*\*Read\*\* \((\d+) minutes, no code\)\n(.+?)\n\n", INTRO, re.DOTALL)
    assert way
    names = re.findall(r"\]\(\.\./notebooks/(\w+)\)", way[2])
    sources = {notebook.name: notebook.source for notebook in NOTEBOOKS}
    assert len(names) >= 5
    assert sum(minutes_to_read(sources[name]) for name in names) == int(way[1])


@pytest.mark.parametrize("language", ["zh", "vi"])
def test_summaries_in_other_languages_say_which_and_no_number(language: str) -> None:
    found = BeautifulSoup(INTRO, "lxml").find_all(attrs={"lang": language})
    assert [tag.name for tag in found] == ["span", "div"]
    said = found[1].text.replace("Llama-2-7B", "").replace("LangSpec-F1", "")
    assert not re.search(r"\d", said) and "`make book`" in said


def test_exercises_keep_their_order_within_a_page() -> None:
    numbers: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {
        "a": {"exercise": {"x": (3,), "y": (10,)}, "figure": {"f": (4,)}},
        "b": {"exercise": {"z": (11,)}},
        "c": {},
    }
    by_page(numbers)
    assert numbers == {
        "a": {"exercise": {"x": (1,), "y": (2,)}, "figure": {"f": (4,)}},
        "b": {"exercise": {"z": (1,)}},
        "c": {},
    }
