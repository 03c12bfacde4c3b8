"""Figures that open large: by mouse and keyboard, closed in three ways, nothing without scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from accessible import failing
from browser import STATIC
from driven import Driven, driven

OPEN = "Boolean(document.querySelector('dialog')?.open)"
_DRAWN = b"<svg xmlns='http://www.w3.org/2000/svg' width='1500' height='1600'/>"
SVG = f"data:image/svg+xml;base64,{base64.b64encode(_DRAWN).decode()}"
FIGURES = f"""<div style="overflow-x:auto"><img id="first" src="{SVG}" alt="A &lt;b&gt;
line" style="width:700px;max-width:100%;min-width:560px;height:auto"></div>
<img id="second" src="{SVG}" alt="Another" width="50" height="50">
<a href="#x">link <img id="linked" src="{SVG}" alt="to x" width="50" height="50"></a>
<img id="silent" src="{SVG}" alt="" width="50" height="50">"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    with driven(tmp_path_factory.mktemp("browser")) as page:
        yield page


def show(browser: Driven, folder: Path, *, scripts: bool = True, dark: bool = False) -> None:
    style, script = ((STATIC / f"figure_zoom.{kind}").read_text("utf-8") for kind in ("css", "js"))
    script = f"{(STATIC / 'scrollable.js').read_text('utf-8')}\n{script}"
    head = f"<style>{style}</style>" + (f"<script>{script}</script>" if scripts else "")
    (folder / "page.html").write_text(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>A page</title>"
        f"{head}</head><body><main class=bd-article><h1>Title</h1>{FIGURES}</main></body></html>",
        "utf-8",
    )
    browser.opened(folder / "page.html", 390, dark=dark)


def test_a_figure_opens_by_keyboard_and_scrolls_both_ways(browser: Driven, tmp_path: Path) -> None:
    show(browser, tmp_path)
    for _ in range(2):  # what scrolls sideways on the page, and the figure in it
        browser.pressed("Tab")
    assert browser.said("document.activeElement.id") == "first"
    assert "tap it to see it large" in browser.said(
        "document.querySelector('.scroll-hint').innerText"
    )
    assert not browser.said(OPEN)
    browser.pressed("Enter")
    browser.until(f"{OPEN} && document.querySelector('dialog img').complete")
    found = browser.said(
        """(() => {
          const dialog = document.querySelector("dialog");
          const box = dialog.querySelector(".figure-scrolled");
          const [image] = box.children;
          box.scrollTo(300, 200);
          const { left, right, bottom } = dialog.getBoundingClientRect();
          return { name: dialog.ariaLabel, alt: image.alt, size: [image.width, image.height],
            at: [box.scrollLeft, box.scrollTop], focus: dialog.contains(document.activeElement),
            inside: left >= 0 && right <= innerWidth && bottom <= innerHeight,
            bold: document.querySelectorAll("b").length };
        })()"""
    )
    alt = "A <b>\nline"
    assert found == {
        "name": alt, "alt": alt, "size": [1500, 1600], "at": [300, 200], "focus": True,
        "inside": True, "bold": 0,
    }  # fmt: skip
    browser.pressed("Escape")
    browser.until(f"!{OPEN}")
    assert browser.said("document.activeElement.id") == "first"


def test_a_figure_opens_by_a_click_and_is_closed_by_one(browser: Driven, tmp_path: Path) -> None:
    show(browser, tmp_path)
    for number, (figure, name) in enumerate([("first", "A <b>\nline"), ("second", "Another")]):
        browser.clicked(f"#{figure}")
        browser.until(OPEN)
        assert browser.said("document.querySelector('dialog').ariaLabel") == name
        assert browser.said("document.querySelectorAll('dialog img').length") == 1
        if number:
            browser.said("document.querySelector('dialog').click()")  # as beside it
        else:
            browser.clicked("dialog button")
        browser.until(f"!{OPEN}")
    browser.clicked("#linked")  # stays a link
    assert browser.said("location.hash") == "#x" and not browser.said(OPEN)
    assert browser.said("document.querySelector('#silent').tabIndex") == -1


@pytest.mark.parametrize("dark", [False, True])
def test_the_checker_finds_nothing(browser: Driven, tmp_path: Path, dark: bool) -> None:
    show(browser, tmp_path, dark=dark)
    assert failing(browser) == []
    browser.said("document.querySelector('#first').click()")
    browser.until(OPEN)
    assert failing(browser) == []


def test_without_scripts_a_figure_is_a_picture(browser: Driven, tmp_path: Path) -> None:
    show(browser, tmp_path, scripts=False)
    stops = browser.said("[...document.querySelectorAll('img')].map((one) => one.tabIndex)")
    assert stops == [-1] * 4
    assert browser.said("document.querySelectorAll('img[role], dialog').length") == 0


def test_what_the_script_may_not_do() -> None:
    script = (STATIC / "figure_zoom.js").read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval", "http"):
        assert way not in script
