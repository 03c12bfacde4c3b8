"""The built book as one page, and that page as a PDF: what is read on a screen, on paper."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import yaml

from crane_lab.runs.execution import Run, RunError
from crane_lab.store.files import write_text

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "microsoft-edge")
#: Seconds that a browser may take for the whole book.
PATIENCE = 1200
_STYLE = """
@page { margin: 16mm 15mm 18mm; size: A4; @bottom-center { content: counter(page); } }
html { background: #fff; font-size: 11px; }
body { display: block; margin: 0 auto; max-width: 50rem; }
.bd-article { break-before: page; padding: 0; }
.bd-article h1 { margin-top: 0; }
.headerlink, .toggle-button, .copybtn, details.hide { display: none !important; }
.bd-article table { display: table; overflow-wrap: anywhere; width: auto; }
.bd-article .cell_output table { font-size: .62rem; }
.bd-article pre { overflow-wrap: anywhere; white-space: pre-wrap; }
.bd-article :is(img, svg) { max-width: 100%; }
.bd-article :is(img, svg, tr, figure) { break-inside: avoid; }
:is(h1, h2, h3, h4, caption) { break-after: avoid; }
.bd-article :is(div, figure, section, mjx-container) { overflow: visible !important; }
.book-contents li { list-style: none; margin: .1rem 0; }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{title}</title>
{styles}
<style>{style}</style>
<script>window.MathJax = {{options: {{
  ignoreHtmlClass: "bd-article", processHtmlClass: "math"
}}}};</script>
<script defer src="{base}/_static/mathjax/tex-chtml.js"></script>
</head>
<body>
<h1>{title}</h1>
<nav class="book-contents" aria-label="Contents">
{contents}
</nav>
{articles}
</body>
</html>
"""


def print_book(run: Run) -> Path:
    """Print the built pages of a run and return the PDF.

    The pages are put into one first, in the order of the table of contents, which is kept beside
    the PDF. RunError without a built book, without a browser, and if that fails.
    """
    toc = yaml.safe_load((run.project.root / "_toc.yml").read_text(encoding="utf-8"))
    config = yaml.safe_load((run.project.root / "_config.yml").read_text(encoding="utf-8"))
    page = run.book.parent / "print" / "crane.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, one_page(run.book, toc, str(config["title"])))
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RunError(
            f"no Chromium, Chrome or Edge to make a PDF with; the whole book is in one page, "
            f"{os.path.relpath(page)}: open it in any browser and print it from there"
        )
    pdf = page.with_suffix(".pdf")
    pdf.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        command += ["--generate-pdf-document-outline", "--virtual-time-budget=600000"]
        if os.geteuid() == 0:  # there is no sandbox for root; the page is our own
            command.append("--no-sandbox")
        command += [f"--print-to-pdf={pdf}", page.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            said = done.stderr.strip()[-500:]
        except subprocess.TimeoutExpired:
            said = f"it took longer than {PATIENCE} seconds"
    if not pdf.is_file():
        raise RunError(f"{browser} made no PDF of {os.path.relpath(page)}: {said}")
    print(f"book: printed, {os.path.relpath(pdf)}")
    return pdf


def one_page(built: Path, toc: Mapping[str, Any], title: str) -> str:
    """All pages of a built book as one HTML page that lies in a folder beside it.

    Links between pages lead to places of this one. Scripts are left out, but for formulas.
    Raises RunError if a page of the table of contents was not built.
    """
    entries = [("", str(toc["root"])), *chapters(toc)]
    sources = {entry: built_page(built, entry) for _, entry in entries}
    base = posixpath.join("..", built.name)
    # Of the names on a page only those that links lead to are changed: styles name others.
    linked = r'href="(?:[^"#:]+\.html)?#([^"]+)"'
    places = {place for source in sources.values() for place in re.findall(linked, source)}
    articles, contents = [], []
    part = ""
    for caption, entry in entries:
        if caption != part:
            contents.append(f"<p><b>{escape(caption)}</b></p>")
            part = caption
        name = re.search(r"<title>(.*?)(?: &#8212; .*?)?</title>", sources[entry], re.S)
        contents.append(f'<li><a href="#{_slug(entry)}">{name[1] if name else entry}</a></li>')
        articles.append(_article(sources[entry], entry, sources, places, base))
    styles = "\n".join(
        f'<link rel="stylesheet" href="{moved_beside(address, toc["root"], sources, base)}" />'
        for address in re.findall(r'<link [^>]*href="([^"]+\.css[^"]*)"', sources[toc["root"]])
    )
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        styles=styles,
        base=base,
        contents="\n".join(contents),
        articles="\n".join(articles),
    )


def built_page(built: Path, entry: str) -> str:
    """A built page as HTML; RunError if it was not built."""
    file = built / f"{entry}.html"
    if not file.is_file():
        raise RunError(f"no {os.path.relpath(file)}: `make book` builds the pages first")
    return file.read_text(encoding="utf-8")


def chapters(toc: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The caption of the part and the name of every chapter, in order."""
    parts: Iterable[Mapping[str, Any]] = toc.get("parts") or [toc]
    for part in parts:
        for chapter in part["chapters"]:
            yield str(part.get("caption", "")), str(chapter["file"])


def _article(source: str, entry: str, known: Mapping[str, str], places: set[str], base: str) -> str:
    """A page's article, its places and links named so that they are those of the one page."""
    start = source.index('<article class="bd-article">')
    text = source[start : source.rindex("</article>")].partition(">")[2]
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.S)
    text = re.sub(r"<details class=\"(?=sd-|folded\")", r'<details open class="', text)

    def renamed(found: re.Match[str]) -> str:
        attribute, value = found[1], found[2]
        if attribute == "id":
            return f' id="{_slug(entry)}--{value}"' if value in places else found[0]
        return f' {attribute}="{moved_beside(value, entry, known, base)}"'

    text = re.sub(r'\s(id|href|src)="([^"]*)"', renamed, text)
    return f'<article class="bd-article" id="{_slug(entry)}">{text}</article>'


def moved_beside(address: str, entry: str, known: Mapping[str, str], base: str) -> str:
    """Where an address on a page leads, as seen from a page in a folder beside the built ones.

    `known`: pages that are in that one; `base`: the folder of the others.
    """
    if re.match(r"(?:[a-z]+:|//)", address):
        return address
    path, _, place = address.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(entry), path)) if path else entry
    page = target.removesuffix(".html")
    if page in known:
        return f"#{_slug(page)}--{place}" if place else f"#{_slug(page)}"
    return posixpath.join(base, target) + (f"#{place}" if place else "")


def _slug(entry: str) -> str:
    return re.sub(r"\W", "-", entry)
