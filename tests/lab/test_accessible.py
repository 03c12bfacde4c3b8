"""The book's pages by axe-core, and on a narrow screen: all of them, in one browser.

These are the pages of the last run of `smoke`, as `make test` builds them before the tests begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accessible import failing
from browser import STATIC
from driven import Driven, driven

from crane_lab.runs.roles import with_known_roles
from crane_lab.store import ROOT

BUILT = ROOT / "runs" / "smoke" / "_build" / "html"
PAGES = sorted(p for part in ("book", "notebooks") for p in (BUILT / part).glob("*.html"))
#: Looked at both in the light and wide, and in the dark and narrow; every other page one way, in
#: turns, since the checker takes seconds for each.
TWICE = {
    "intro",
    "00_meet_the_testbed",
    "04d_drops_and_budgets",
    "09_gold_standard",
    "19_better_criterion",
}
LOOKS = [
    (page, dark)
    for number, page in enumerate(PAGES)
    for dark in (False, True)
    if page.stem in TWICE or dark == bool(number % 2)
]

#: What lies beyond the right edge and cannot be scrolled to, and what scrolls without a stop for
#: the tabulator.
OUTSIDE = """(() => {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page itself");
  const right = (tag) => tag.getBoundingClientRect().right;
  const scrolls = (box) => ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
  const visible = { contentVisibilityAuto: true };
  const shown = (tag) => tag.checkVisibility(visible) && tag.getClientRects().length;
  const parts = ":is(img, table, pre, svg, p, li, fieldset, select, input)";
  for (const tag of document.querySelectorAll(`.bd-article ${parts}`)) {
    if (!shown(tag) || right(tag) <= innerWidth + 1) continue;
    let box = tag.parentElement;
    while (box && !scrolls(box)) box = box.parentElement;
    if (!box || right(box) > innerWidth + 1) found.push(tag.outerHTML.slice(0, 120));
  }
  for (const box of document.querySelectorAll(".bd-article *")) {
    const wide = box.scrollWidth > box.clientWidth + 1 && box.clientWidth;
    if (wide && scrolls(box) && shown(box) && box.tabIndex < 0)
      found.push(`no stop: ${box.outerHTML.slice(0, 120)}`);
  }
  return found;
})()"""


def bare(body: str) -> str:
    head = "<!doctype html><html lang=en><head><meta charset=utf-8><title>A page</title></head>"
    return f"{head}<body><main>{body}</main></body></html>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    with driven(tmp_path_factory.mktemp("browser")) as page:
        yield page


def show(browser: Driven, folder: Path, body: str, width: int = 1280) -> None:
    (folder / "page.html").write_text(bare(body), "utf-8")
    browser.opened(folder / "page.html", width)


def test_the_checker_finds_what_it_looks_for(browser: Driven, tmp_path: Path) -> None:
    pale = "<p style='color:#ccc'>Pale words.</p>"
    rows = "<tr><td>1</td></tr>" * 3 + "<tr><td style='color:#ccc'>pale</td></tr>"
    folded = f"<details><summary>More</summary>{pale}</details><table>{rows}</table>"
    show(browser, tmp_path, f"<h1>Title</h1><h4>Deep</h4><img src=a.png>{pale}{folded}")
    found = failing(browser)
    assert [line.split(":")[0] for line in found] == [
        "serious color-contrast, 3 times",
        "moderate heading-order, 1 times",
        "critical image-alt, 1 times",
    ]


def test_wide_tables_can_be_scrolled_by_keyboard(browser: Driven, tmp_path: Path) -> None:
    """By the script alone; one that fits is no stop for the tabulator."""
    script = f"<script>{(STATIC / 'scrollable.js').read_text('utf-8')}</script>"
    style = "<style>table { display: block; overflow-x: auto; white-space: nowrap }</style>"
    row = "<tr><th scope=col>a</th></tr><tr><td>{}</td></tr>"
    tables = f"<table id=wide>{row.format('wide ' * 200)}</table><table id=small>{row}</table>"
    body = f'{style}<h1>Title</h1><div class="bd-article">{tables}</div>'
    show(browser, tmp_path, f"{script}{body}", 390)
    assert failing(browser) == [] and browser.said(OUTSIDE) == []
    assert browser.said("[...document.querySelectorAll('[tabindex]')].map((t) => t.id)") == ["wide"]
    show(browser, tmp_path, body, 390)
    assert "scrollable-region-focusable" in failing(browser)[0]
    assert browser.said(OUTSIDE)[0].startswith('no stop: <table id="wide">')


@pytest.mark.parametrize(
    ("page", "dark"), LOOKS, ids=[f"{p.stem}-{'dark' if dark else 'light'}" for p, dark in LOOKS]
)
def test_nothing_serious_on_a_page(page: Path, dark: bool, browser: Driven) -> None:
    browser.opened(page, 390 if dark else 1280, dark=dark)
    assert browser.said("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert failing(browser) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_is_out_of_reach_on_a_narrow_screen(page: Path, browser: Driven) -> None:
    browser.opened(page, 390)
    assert browser.said(OUTSIDE) == []


def test_what_is_out_of_reach_is_found(browser: Driven, tmp_path: Path) -> None:
    wide = "<svg style='width:900px;height:9px'></svg>"
    box = f"<div tabindex=0 style='overflow-x:auto'>{wide}</div>"
    show(browser, tmp_path, f"<div class=bd-article style='overflow:hidden'>{wide}{box}</div>", 390)
    assert [found[:9] for found in browser.said(OUTSIDE)] == ["<svg styl"]


def test_entries_of_a_bibliography_are_items_of_a_list() -> None:
    entry = '<div class="citation" id="id3" role="doc-biblioentry">'
    assert with_known_roles(entry) == '<div class="citation" id="id3" role="listitem">'
