"""The book's pages by axe-core: on a narrow screen in the dark, and on a wide one in the light.

These are the pages of the last run of `smoke`, as `make test` builds them before the tests begin.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from accessible import checked, failing, prepared
from browser import STATIC

from crane_lab.runs.roles import with_known_roles
from crane_lab.store import ROOT

BUILT = ROOT / "runs" / "smoke" / "_build" / "html"
PAGES = sorted(p for part in ("book", "notebooks") for p in (BUILT / part).glob("*.html"))
#: One of each kind, since the checker takes most of a minute for a long page: prose, what is
#: generated, an interactive figure, exercises with checks, and tables that scroll.
LOOKED_AT = {
    "dark": ("intro", "rerun", "bibliography", "03_selecting_and_masking"),
    "light": ("intro", "parameters", "19_better_criterion"),
}


def bare(body: str) -> str:
    head = "<!doctype html><html lang=en><head><title>A page</title></head>"
    return f"{head}<body><main>{body}</main></body></html>"


def test_the_checker_finds_what_it_looks_for(tmp_path: Path) -> None:
    body = "<h1>Title</h1><h4>Deep</h4><img src=a.png><p style='color:#ccc'>Pale words.</p>"
    html = prepared(bare(body), tmp_path.as_uri() + "/", dark=False)
    found = failing(checked(tmp_path, html, 1280))
    assert [line.split(",")[0] for line in found] == [
        "serious color-contrast",
        "moderate heading-order",
        "critical image-alt",
    ]


def test_wide_tables_can_be_scrolled_by_keyboard(tmp_path: Path) -> None:
    """By the script alone; one that fits is no stop for the tabulator."""
    script = f"<script>{(STATIC / 'scrollable.js').read_text('utf-8')}</script>"
    style = "<style>table { display: block; overflow-x: auto; white-space: nowrap }</style>"
    row = "<tr><th scope=col>a</th></tr><tr><td>{}</td></tr>"
    tables = f"<table id=wide>{row.format('wide ' * 200)}</table><table id=small>{row}</table>"
    body = f'{script}{style}<h1>Title</h1><div class="bd-article">{tables}</div>'
    html = prepared(bare(body), tmp_path.as_uri() + "/", dark=False)
    assert failing(checked(tmp_path, html, 390)) == []
    without = html.replace(script, "")
    assert "scrollable-region-focusable" in failing(checked(tmp_path, without, 390))[0]


@pytest.mark.parametrize(
    ("mode", "name"), [(mode, name) for mode, names in LOOKED_AT.items() for name in names]
)
def test_nothing_serious_on_a_page(mode: str, name: str, tmp_path: Path) -> None:
    if not PAGES:
        pytest.skip("no pages: `make book PROFILE=smoke` builds them")
    (page,) = [page for page in PAGES if page.stem == name]
    html = prepared(page.read_text("utf-8"), page.as_uri(), dark=mode == "dark")
    assert failing(checked(tmp_path, html, 390 if mode == "dark" else 1280)) == []


def test_entries_of_a_bibliography_are_items_of_a_list() -> None:
    entry = '<div class="citation" id="id3" role="doc-biblioentry">'
    assert with_known_roles(entry) == '<div class="citation" id="id3" role="listitem">'
