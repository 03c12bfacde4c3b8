"""Paragraphs of running prose from free documentation: DocBook's HTML, Mallard's XML.

A page becomes its blocks in document order. Translations are made from one source, so a page's
blocks have the same kinds in the same order in every language unless a translator changed them:
`crane_lab.texts.alignment` goes by that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from lxml import etree, html

#: Elements that begin a section of their own: DocBook's classes, and names of Mallard and HTML.
_SECTIONS = {
    *("book", "preface", "chapter", "appendix", "section", "sidebar"),
    *(f"sect{depth}" for depth in range(1, 6)),
    *("article", "header"),
}
#: What is left out with all that is in it, by name or class.
_LEFT_OUT = {
    *("head", "script", "style", "title", "titlepage", "navheader", "navfooter", "docnav", "toc"),
    *("footnotes", "footnote", "legalnotice", "revhistory", "banner", "list-of-figures", "caption"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "hr", "img"),
    *("info", "links", "desc", "comment", "subtitle", "thumbnails", "media", "indexterm"),
}
#: Blocks that are no prose: of them, only the place is kept.
_NO_PROSE = {"pre", "table", "screen", "code", "synopsis", "figure", "mediaobject"}
#: Elements within a paragraph that hold no words of the language.
_CODE_NAMES = {"code", "tt", "kbd", "samp", "cmd", "file", "input", "output", "sys", "email"}
_CODE_CLASSES = {"command", "filename", "userinput", "computeroutput", "literal", "option", "email"}
#: Elements that end a paragraph, as HTML's parser does not see it in a `div`.
_BLOCKS = {"div", "p", "ul", "ol", "dl", "table", "pre", "blockquote", "list", "steps", "terms"}
#: How the parts of one inline element are joined, where it shows them apart.
_JOINTS = {"guiseq": " ▸ ", "keyseq": "+"}

_CJK = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
_WRAPPED = re.compile(rf"(?<=[{_CJK}])[^\S\n]*\n\s*(?=[{_CJK}])")
_BEFORE_STOP = re.compile(r" (?=[.,](?: |$))")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_NO_WORDS = re.compile(r"https?://\S+|www\.\S+|\S+@\S+\.\S+|(?<!\w)/\S+|\d+")
_END = re.compile("[.!?…。！？؟।॥།༎༔][\"'”’“»«›)）」』】\\]]*$")
_DENSE = re.compile("[\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
#: Characters that a paragraph has at least, and which share of them may be code, addresses and
#: digits: in scripts that write a syllable or a word in one character, and in others. Code is as
#: long in both, so of a shorter text it is more.
SHORTEST = {True: 30, False: 80}
MOST_CODE = {True: 0.25, False: 0.15}


class Block(NamedTuple):
    """One block of a page.

    Parameters
    ----------
    section : which section of the page it is in, by number: "0", "0.2", "0.2.1".
    kind : the names of the elements from the section down to it, such as "note/p".
    text : what it says, as `normalised`; "" for what is no paragraph.
    code : how many characters of the text are in elements for code.
    """

    section: str
    kind: str
    text: str
    code: int


def html_blocks(page: bytes) -> list[Block]:
    """The blocks of a page of HTML in UTF-8, as DocBook's style sheets and Publican write it."""
    root = html.document_fromstring(page, parser=html.HTMLParser(encoding="utf-8"))
    return list(_walk(root, "0", (), [0]))


def mallard_blocks(page: bytes) -> list[Block]:
    """The blocks of a page of Mallard's XML. Raises lxml's XMLSyntaxError if it is none."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    return list(_walk(etree.fromstring(page, parser), "0", (), [0]))


def _walk(
    element: etree._Element, section: str, path: tuple[str, ...], below: list[int]
) -> Iterator[Block]:
    """Blocks under an element; `below` counts the sections seen in this one so far."""
    for child in element:
        if not isinstance(child.tag, str):  # comments, processing instructions
            continue
        names = _names(child)
        name = next(iter(names))
        if names.keys() & _LEFT_OUT:
            continue
        if names.keys() & _SECTIONS:
            yield from _walk(child, f"{section}.{below[0]}", (), [0])
            below[0] += 1
        elif name == "p" or "para" in names:
            pieces: list[tuple[str, bool]] = []
            whole = _pieces(child, False, pieces)
            text = normalised("".join(piece for piece, _ in pieces))
            if text:
                code = sum(len(piece.strip()) for piece, is_code in pieces if is_code)
                kind = "/".join((*path, "p"))
                yield Block(section, kind, text if whole else "", code)
            yield from _walk(child, section, (*path, "p"), below)
        elif name in _CODE_NAMES and "p" in path:
            continue
        elif names.keys() & _NO_PROSE:
            yield Block(section, "/".join((*path, name)), "", 0)
        else:
            deeper = () if name in ("html", "body") else (name,)
            yield from _walk(child, section, (*path, *deeper), below)


def _names(element: etree._Element) -> dict[str, None]:
    """An element's name, without its namespace, and its classes."""
    name = etree.QName(element).localname
    return dict.fromkeys([name, *element.get("class", "").split()])


def _pieces(element: etree._Element, code: bool, found: list[tuple[str, bool]]) -> bool:
    """Collect the text of a paragraph, and whether each piece is code.

    Return whether it is all there: with a list in the middle, a picture for a word or a link whose
    words stand elsewhere, it is not.
    """
    whole = True
    found.append((element.text or "", code))
    joint = _JOINTS.get(etree.QName(element).localname, "")
    children = list(element)
    if "switchinline" in _names(element):  # one text per system or program: the usual one is meant
        children = [x for x in children if x.get("id", "").startswith("default")]
        whole = bool(children)
    for place, child in enumerate(children):
        if isinstance(child.tag, str):
            names = _names(child)
            name = next(iter(names))
            if joint and place:
                found.append((joint, code))
            if name == "sup" or names.keys() & {"url", "indexterm", "footnote"}:
                found.append((" ", code))
            elif name in _BLOCKS | {"media", "img"} or (
                name == "link" and not "".join(child.itertext())
            ):
                whole = False
            else:
                inside = code or bool(
                    name in _CODE_NAMES or names.keys() & _CODE_CLASSES or _is_address(child)
                )
                whole = _pieces(child, inside, found) and whole
        tail = child.tail or ""
        found.append((tail.strip() if joint else tail, code))
    return whole


def _is_address(element: etree._Element) -> bool:
    return bool(re.match(r"\s*(https?|ftp)://", "".join(element.itertext())))


def normalised(text: str) -> str:
    """A text in NFC, with single spaces, without characters that are not seen.

    Chinese and Japanese have no space where a line was wrapped, no language has one before a stop.
    """
    text = _UNSEEN.sub("", unicodedata.normalize("NFC", text))
    return _BEFORE_STOP.sub("", " ".join(_WRAPPED.sub("", text).split()))


def is_prose(text: str, code: int = 0) -> bool:
    """Whether a paragraph is running text: long enough, whole sentences, little code, no markup.

    `code` is how many of its characters are known to be code.
    """
    if not _END.search(text) or text[0].islower() or re.search(r"[<{}|\\]|&\w+;", text):
        return False
    letters = sum(x.isalpha() or unicodedata.category(x)[0] == "M" for x in text)
    dense = len(_DENSE.findall(text)) > 0.3 * letters
    if len(text) < SHORTEST[dense] or letters < 0.65 * len(text):
        return False
    wordless = sum(len(found) for found in _NO_WORDS.findall(text))
    return max(code, wordless) <= MOST_CODE[dense] * len(text)
