"""Slides of the built book, a deck for each of its parts: what is read on a page, on a wall.

A page begins with its title and what one will be able to do; every section with a figure or a short
table of its own is a slide, with the section's first paragraph. A page that has nothing of the kind
has slides of what its sections say. A deck is one HTML file beside the book, without scripts but
for formulas and keys: space and the arrow keys go on and back, and printed it has a slide on every
sheet.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

from crane_lab.runs.execution import Run
from crane_lab.runs.printed import built_page, chapters, moved_beside
from crane_lab.store.files import write_text

#: Rows of a table, and characters of a paragraph, that fit on a slide.
ROWS, LETTERS = 9, 420
#: Characters, those of formulas included, that fit on a slide with nothing else.
ALONE = 2 * LETTERS
_STYLE = """
@page { size: 32cm 18cm; margin: 0; }
html { background: #fff; color: #1b1b1b; font: 20px/1.4 system-ui, sans-serif;
  scroll-snap-type: y mandatory; }
body { margin: 0; }
section { box-sizing: border-box; break-after: page; display: flex; flex-direction: column;
  gap: .6rem; height: 100vh; overflow: hidden; padding: 4vh 5vw; scroll-snap-align: start; }
section.title { background: #12324a; color: #fff; justify-content: center; }
h1, h2, p { margin: 0; }
h1 { font-size: 2.4rem; line-height: 1.15; }
h2 { font-size: 1.5rem; }
.shown { align-items: start; display: flex; flex: 1; justify-content: center; min-height: 0; }
.shown img { height: auto !important; max-height: 100%; max-width: 100%; min-width: 0 !important;
  object-fit: contain; }
.said { display: flex; flex: 1; flex-direction: column; gap: .6rem; min-height: 0; }
.said :is(ul, ol) { margin: 0; }
table { border-collapse: collapse; font-size: .8rem; }
td, th { border-bottom: 1px solid #ccc; padding: .2rem .5rem; text-align: left; }
caption { caption-side: bottom; font-size: .75rem; padding-top: .4rem; text-align: left; }
.where { color: #555; font-size: .7rem; }
"""
# A slide is as high as the window. Other keys scroll, as they do anywhere.
_KEYS = """
const steps = { ArrowRight: 1, ArrowDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1 };
addEventListener("keydown", (event) => {
  if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const slides = document.querySelectorAll("section");
  const step = event.shiftKey ? -1 : steps[event.key];
  const to = Math.round(scrollY / innerHeight) + step;
  slides[Math.max(0, Math.min(to, slides.length - 1))].scrollIntoView();
});
"""
_DECK = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{title}</title>
<style>{style}</style>
<script>window.MathJax = {{options: {{
  ignoreHtmlClass: "deck", processHtmlClass: "math"
}}}};</script>
<script>{keys}</script>
<script defer src="{base}/_static/mathjax/tex-chtml.js"></script>
</head>
<body class="deck">
{slides}
</body>
</html>
"""


def write_slides(run: Run) -> list[Path]:
    """Write a deck for every part of the built book of a run, and return their paths.

    Raises RunError without a built book.
    """
    toc = yaml.safe_load((run.project.root / "_toc.yml").read_text(encoding="utf-8"))
    decks, parts = [], dict[str, list[str]]()
    for caption, entry in chapters(toc):
        if entry.startswith("notebooks/"):
            page = built_page(run.book, entry)
            parts.setdefault(caption or run.name, []).extend(slides_of(page, entry, run.book.name))
    for title, slides in parts.items():
        slug = re.sub(r"\W+", "-", title.lower()).strip("-")
        path = run.book.parent / "slides" / f"{slug}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        begin = f'<section class="title"><h1>{escape(title)}</h1></section>'
        write_text(
            path,
            _DECK.format(
                title=escape(title),
                style=_STYLE,
                keys=_KEYS,
                base=posixpath.join("..", run.book.name),
                slides="\n".join([begin, *slides]),
            ),
        )
        decks.append(path)
        print(f"slides: {os.path.relpath(path)}, {len(slides) + 1} slides")
    return decks


def slides_of(page: str, entry: str, built: str) -> list[str]:
    """The slides of a built page as HTML, its title first; `built`: the folder of the pages."""
    article = BeautifulSoup(page, "html.parser").find("article")
    heading = article.find("h1") if isinstance(article, Tag) else None
    if not isinstance(article, Tag) or not isinstance(heading, Tag):
        return []
    for gone in article.select("script, .headerlink, .explorable, .quick-question, .toggle-hidden"):
        gone.decompose()
    for place in article.select('a[href^="#"]'):  # of the page, which a deck does not have
        place.unwrap()
    for tag in article.select("[src], [href]"):
        for name in {"src", "href"} & set(tag.attrs):
            tag[name] = moved_beside(str(tag[name]), entry, {}, posixpath.join("..", built))
    glance = article.select_one(".admonition.tip p:not(.admonition-title)")
    told = f"<p>{glance.decode_contents()}</p>" if glance else ""
    slides = [f'<section class="title"><h1>{_words(heading)}</h1>{told}</section>']
    titled = [
        (section, title)
        for section in article.select("section > section")
        if isinstance(title := section.find(re.compile(r"^h[2-6]$"), recursive=False), Tag)
    ]
    seen = [(section, title, next(_shown(section), "")) for section, title in titled]
    words_alone = not any(shown for *_, shown in seen)
    for section, title, shown in seen:
        first = section.find("p", recursive=False)
        body = ""
        if shown:
            text = _first_sentences(first) if isinstance(first, Tag) else ""
            body = f'{text}<div class="shown">{shown}</div>'
        elif words_alone and (said := _said(section)):
            body = f'<div class="said">{said}</div>'
        if body:
            of = f"{_words(heading)} · {_words(title)}" if title.name != "h2" else _words(heading)
            slides.append(
                f'<section><h2>{_words(title)}</h2>{body}<p class="where">{of}</p></section>'
            )
    return slides


def _shown(section: Tag) -> Iterator[str]:
    """Figures of a section itself, and tables that fit, as HTML: what there is to look at."""
    own = [tag for tag in section.select(".cell_output") if tag.find_parent("section") is section]
    for output in own:
        for image in output.select("img"):
            if image.find_parent("details") is None:
                yield str(image)
    for output in own:
        for table in output.select("table"):
            if len(table.select("tr")) <= ROWS and table.find_parent("details") is None:
                yield str(table)


def _said(section: Tag) -> str:
    """Paragraphs, lists and formulas that a section begins with, as far as a slide has room."""
    found, room = "", ALONE
    for part in section.find_all(True, recursive=False)[1:]:
        room -= len(part.get_text())
        if room < 0 or not (part.name in ("p", "ul", "ol") or "math" in part.get("class", [])):
            break
        found += str(part)
    return found


def _first_sentences(paragraph: Tag) -> str:
    """A paragraph as far as a slide has room, in whole sentences; nothing if none fits."""
    if len(paragraph.get_text()) <= LETTERS:
        return f"<p>{paragraph.decode_contents()}</p>"
    if paragraph.select(".math"):  # cut in the middle, a formula is none
        return ""
    text = paragraph.get_text()[:LETTERS]
    end = max(text.rfind(". "), text.rfind("? "))
    return f"<p>{escape(text[: end + 1])}</p>" if end > 0 else ""


def _words(tag: Tag) -> str:
    return tag.decode_contents().strip()
