"""A deck of slides for each part of the book."""

from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from driven import driven
from test_runs import ONE, make_project

from crane_lab.cli.main import main
from crane_lab.runs import RunError
from crane_lab.runs.slides import (
    _DECK,
    _KEYS,
    _STYLE,
    ALONE,
    LETTERS,
    ROWS,
    slides_of,
    write_slides,
)

IMAGE = '<img alt="A rising line" src="data:image/png;base64,AA">'
ROW = "<tr><td>1</td></tr>"
PAGE = f"""<html><article class="bd-article"><section><h1>One &amp; only<a class="headerlink"
href="#a">#</a></h1><div class="admonition tip"><p class="admonition-title">At a glance</p><p>You
will be able to see.</p></div>
<section><h2>Figure</h2><p>What it is: <a href="#fig-1">Figure 1</a>. <a
href="02_b.html">More</a></p>
<div class="cell_output">{IMAGE}<script>alert(1)</script></div>
<section><h3>Inner</h3><p>{"Long one. " * 90}</p><div class="cell_output"><img alt="b"
src="../_images/b.png"></div></section></section>
<section><h2>Long table</h2>
<div class="cell_output"><table>{ROW * (ROWS + 1)}</table></div></section>
<section><h2>Short table</h2><div class="cell_output"><table>{ROW}</table></div></section>
<section><h2>To try</h2>
<div class="cell_output"><div class="explorable">{IMAGE}</div></div></section>
<section><h2>Folded</h2><div class="cell_output"><details>{IMAGE}</details></div></section>
<section><h2>Words</h2><p>Only.</p></section></section></article></html>"""


def test_a_slide_for_every_section_with_something_to_see() -> None:
    slides = [BeautifulSoup(s, "html.parser") for s in slides_of(PAGE, "notebooks/01_a", "html")]
    heads = [s.find(["h1", "h2"]).text for s in slides]  # type: ignore[union-attr]
    assert heads == ["One & only", "Figure", "Inner", "Short table"]
    assert "able to see" in slides[0].text and not slides[1].select("script")
    assert [a["href"] for a in slides[1].select("a")] == ["../html/notebooks/02_b.html"]
    assert "What it is: Figure 1." in slides[1].text
    assert [i["src"] for i in slides[2].select("img")] == ["../html/_images/b.png"]
    (said,) = slides[2].select("p:not(.where)")
    assert 0 < len(said.text) <= LETTERS and said.text.endswith("Long one.")
    assert slides_of("<html></html>", "notebooks/01_a", "html") == []


WORDS = f"""<article><section><h1>Method</h1>
<section><h2>Formula</h2><p>It <a href="#a">is</a>:</p>
<div class="math">\\[x\\]</div><ul><li>so</li>
</ul><div class="cell">code</div><p>after it</p></section>
<section><h2>Long</h2><p>{"a" * (ALONE - 9)}</p><p>{"b" * 10}</p></section>
<section><h2>Code</h2><div class="cell">code</div></section></section></article>"""


def test_a_page_without_figures_has_slides_of_what_its_sections_say() -> None:
    slides = [BeautifulSoup(s, "html.parser") for s in slides_of(WORDS, "notebooks/01_a", "html")]
    assert [s.find(["h1", "h2"]).text for s in slides] == ["Method", "Formula", "Long"]  # type: ignore[union-attr]
    said = slides[1].select_one(".said")
    assert said is not None and [part.name for part in said.find_all(recursive=False)] == [
        "p", "div", "ul",
    ]  # fmt: skip
    assert not said.select("a") and "It is:" in said.text
    assert "a" * 9 in slides[2].text and "bbb" not in slides[2].text


def test_keys_go_on_and_back(tmp_path: Path) -> None:
    slides = "".join(f'<section class="title">{i}</section>' for i in range(4))
    deck = tmp_path / "deck.html"
    deck.write_text(
        _DECK.format(title="A", style=_STYLE, keys=_KEYS, base="..", slides=slides), "utf-8"
    )
    with driven(tmp_path) as browser:
        browser.opened(deck)
        place = "Math.round(10 * scrollY / innerHeight) / 10"
        for key, at in [
            ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowDown", 2), (" ", 3), ("ArrowRight", 3),
            ("ArrowUp", 2), ("ArrowLeft", 1), ("End", 3),
        ]:  # fmt: skip
            browser.pressed(key)
            browser.until(f"{place} === {at}", 5)


def test_a_deck_for_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "book", n01_one=ONE)
    toc = {
        "parts": [
            {"caption": "The method", "chapters": [{"file": "notebooks/01_one"}]},
            {"caption": "Reference", "chapters": [{"file": "book/glossary"}]},
        ]
    }
    (project.root / "_toc.yml").write_text(yaml.safe_dump(toc))
    monkeypatch.setattr("crane_lab.cli.main.Project", lambda: project)
    assert main(["slides"]) == 1
    assert "`make book` builds the pages first" in capsys.readouterr().err
    run = project.run()
    with pytest.raises(RunError, match=r"no .*01_one\.html"):
        write_slides(run)
    page = run.book / "notebooks" / "01_one.html"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    assert main(["slides"]) == 0
    (deck,) = (run.book.parent / "slides").iterdir()
    assert deck.name == "the-method.html"
    assert "the-method.html, 5 slides" in capsys.readouterr().out
    soup = BeautifulSoup(deck.read_text("utf-8"), "lxml")
    assert len(soup.select("section")) == 5
    sources = [tag["src"] for tag in soup.select("[src]")]
    assert not any(str(source).startswith(("http", "//")) for source in sources)
