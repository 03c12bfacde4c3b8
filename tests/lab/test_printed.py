"""The whole book as one page: its links lead to places in it, and nothing of it is lost."""

import re
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

from crane_lab.runs import Project, RunError
from crane_lab.runs.printed import BROWSERS, one_page, print_book

PAGE = """<html><head><title>{title} &#8212; Some book</title>
<link href="../_static/a.css?digest=1" rel="stylesheet" /><script src="../_static/a.js"></script>
</head><body><nav><a href="../book/two.html">away</a></nav>
<article class="bd-article"><section id="same"><h1>{title}</h1>{text}</section></article>
<a href="one.html">next</a></body></html>"""
TEXT = {
    "notebooks/one": '<p>tiếng Việt <a href="../book/two.html#same">there</a> '
    '<a href="../book/two.html">all of it</a> <a href="#same">up</a> '
    '<a href="https://example.org/x">out</a> <a href="../_sources/one.ipynb">file</a></p>'
    '<style>#T_1 td {{}}</style><table id="T_1"></table><img src="../_images/a.png" alt="b > a">'
    '<script type="application/json">{{"x": "</p>"}}</script><details class="sd-x">中文</details>'
    '<details class="folded">a table</details>',
    "book/two": "<p>$x$</p>",
}
TOC = {
    "root": "notebooks/one",
    "parts": [{"caption": "Part & parcel", "chapters": [{"file": "book/two"}]}],
}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    for name, text in TEXT.items():
        file = tmp_path / "_build" / "html" / f"{name}.html"
        file.parent.mkdir(parents=True)
        file.write_text(PAGE.format(title=name.split("/")[1].title(), text=text), "utf-8")
    return tmp_path / "_build" / "html"


def test_all_pages_become_one(built: Path) -> None:
    soup = BeautifulSoup(one_page(built, TOC, "A & B"), "lxml")
    places = {str(tag["id"]) for tag in soup.find_all(id=True)}
    links = [str(tag["href"]) for tag in soup.select("body a")]
    assert links == [
        *["#notebooks-one", "#book-two"],
        *["#book-two--same", "#book-two", "#notebooks-one--same"],
        *["https://example.org/x", "../html/_sources/one.ipynb"],
    ]
    assert {link[1:] for link in links if link.startswith("#")} <= places
    assert "T_1" in places, "the style of a table names it"
    assert soup.title is not None and soup.title.text == "A & B"
    assert [tag["href"] for tag in soup.select("link")] == ["../html/_static/a.css?digest=1"]
    assert [tag.get("src") for tag in soup.select("script[src]")] == [
        "../html/_static/mathjax/tex-chtml.js"
    ]
    assert soup.select_one("img")["src"] == "../html/_images/a.png"  # type: ignore[index]
    assert len(soup.select("details[open]")) == 2
    assert "application/json" not in str(soup) and "Part & parcel" in soup.text


def test_a_page_that_is_not_built_is_named(built: Path) -> None:
    (built / "book" / "two.html").unlink()
    with pytest.raises(RunError, match=r"no .*book/two\.html: `make book`"):
        one_page(built, TOC, "A")


def test_without_a_browser_the_page_is_left(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = built.parent.parent
    (root / "notebooks" / "profiles").mkdir(parents=True, exist_ok=True)
    (root / "notebooks" / "profiles" / "testbed.yaml").write_text("")
    (root / "_toc.yml").write_text(yaml.safe_dump(TOC))
    (root / "_config.yml").write_text("title: A\n")
    run = Project(root).run()
    monkeypatch.setenv("PATH", str(root / "none"))
    with pytest.raises(RunError, match=r"no Chromium.*crane\.html: open it in any browser"):
        print_book(run)
    page = root / "_build" / "print" / "crane.html"
    assert "tiếng Việt" in page.read_text("utf-8")

    # One that does nothing is found out; one that writes the file is believed.
    browser = root / "none" / BROWSERS[0]
    browser.parent.mkdir()
    browser.write_text("#!/bin/sh\necho it cannot >&2\n")
    browser.chmod(0o755)
    with pytest.raises(RunError, match=r"made no PDF of .*crane\.html: it cannot"):
        print_book(run)
    browser.write_text(
        '#!/bin/sh\nfor a in "$@"; do case $a in --print-to-pdf=*) : > "${a#*=}";; esac; done\n'
    )
    assert re.search(r"_build/print/crane\.pdf$", str(print_book(run)))
