"""Parallel texts: blocks of pages, what is prose, and the committed data."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import Any

import pytest

from crane_lab.store import ROOT
from crane_lab.texts.documents import document_digest
from crane_lab.texts.manuals import Block, html_blocks, is_prose, mallard_blocks, normalised

TEXTS = ROOT / "data" / "texts"
LONG = "A paragraph of running text that is long enough to be taken, with two sentences. Yes."


def test_a_page_of_docbook() -> None:
    page = f"""<html><head><meta charset="UTF-8"><title>no</title></head><body>
    <div class="navheader"><p>Previous</p></div>
    <div class="sect1"><div class="titlepage"><h2>Title</h2></div>
    <p>\n{LONG}\n See <code class="filename">/etc/x</code>.</p>
    <div class="note"><p>Một ghi chú.</p></div><pre>rm -rf</pre><p> </p>
    <div class="sect2"><ul><li><p>In a list.</p></li></ul></div>
    <div class="sect2"><p>Last<sup><a>[1]</a></sup> one.</p></div></div></body></html>"""
    assert html_blocks(page.encode()) == [
        Block("0.0", "p", f"{LONG} See /etc/x.", 6),
        Block("0.0", "div/p", "Một ghi chú.", 0),
        Block("0.0", "pre", "", 0),
        Block("0.0.0", "ul/li/p", "In a list.", 0),
        Block("0.0.1", "p", "Last one.", 0),
    ]


def test_a_paragraph_with_a_list_in_it_is_not_whole() -> None:
    page = b'<div class="para">As follows: <ul><li><div class="para">One.</div></li></ul> on.</div>'
    blocks = html_blocks(b"<html><body>" + page + b"</body></html>")
    assert [(block.kind, block.text) for block in blocks] == [("p", ""), ("p/ul/li/p", "One.")]


def test_a_page_of_mallard() -> None:
    page = """<page xmlns="http://projectmallard.org/1.0/" id="x"><info><desc>no</desc></info>
    <title>No</title><p>Open <guiseq><gui>Settings</gui> <gui>Users</gui></guiseq>, press
    <keyseq><key>Ctrl</key><key>F</key></keyseq>.</p>
    <section id="s"><title>No</title><steps><item><p>See <link xref="y"/>.</p></item></steps>
    <p>Run <cmd>ls</cmd>.</p></section></page>"""
    assert mallard_blocks(page.encode()) == [
        Block("0", "p", "Open Settings ▸ Users, press Ctrl+F.", 0),
        Block("0.0", "steps/item/p", "", 0),
        Block("0.0", "p", "Run ls.", 2),
    ]


def test_normalised() -> None:
    assert normalised(" a\u00a0 b\u00ad\nc\u200bd e\u0301 ") == "a b cd é"
    assert normalised("安装\n 系统 Linux\n内核") == "安装系统 Linux 内核"


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        (LONG, True),
        ("“" + LONG + "”", True),
        (LONG[:-1], False),  # no end
        (LONG.rstrip(".") + ":", False),
        ("Too short.", False),
        (LONG + " <b>x</b>.", False),
        (LONG + " &nbsp;.", False),
        (LONG + " https://example.org/a/very/long/address/which/is/no/text.", False),
        ("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 " + LONG, False),
        ("这是一段中文文字，说明应当如何安装这个操作系统以及其他的软件包。", True),
        ("这太短。", False),
    ],
)
def test_prose(text: str, prose: bool) -> None:
    assert is_prose(text) is prose


def test_much_code_is_no_prose() -> None:
    assert is_prose(LONG, code=12) and not is_prose(LONG, code=13)


# ------------------------------------------------------------------------------ the committed data


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TEXTS / "paragraphs.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def lines() -> dict[str, list[str]]:
    return {x.stem: x.read_text("utf-8").split("\n")[:-1] for x in sorted(TEXTS.glob("*.txt"))}


def test_the_data_are_small_and_as_they_were_written() -> None:
    files = {x.relative_to(TEXTS).as_posix(): x for x in TEXTS.rglob("*") if x.is_file()}
    assert sum(x.stat().st_size for x in files.values()) < 12_000_000
    said = (TEXTS / "SHA256SUMS").read_text("utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in said)}
    del files["SHA256SUMS"]
    assert sums == {name: hashlib.sha256(x.read_bytes()).hexdigest() for name, x in files.items()}


def test_every_line_has_its_number(numbers: dict[str, Any], lines: dict[str, list[str]]) -> None:
    assert numbers["languages"].keys() == lines.keys()
    for language, ids in numbers["languages"].items():
        assert len(ids) == len(lines[language]) and ids == sorted(set(ids)), language


def test_parts_share_nothing(numbers: dict[str, Any], lines: dict[str, list[str]]) -> None:
    held_out = set(numbers["held_out"])
    for language, ids in numbers["languages"].items():
        parts: dict[bool, set[bytes]] = {True: set(), False: set()}
        for number, line in zip(ids, lines[language], strict=True):
            parts[number in held_out].add(document_digest(re.sub(r"\d+", "0", line.casefold())))
        assert not parts[True] & parts[False], language
        assert len(parts[True]) + len(parts[False]) == len(ids), language
        assert 0.15 < len(parts[True]) / len(ids) < 0.7, language


def test_lines_are_clean(lines: dict[str, list[str]]) -> None:
    for language, own in lines.items():
        for line in own:
            assert line == normalised(line) and unicodedata.is_normalized("NFC", line), language
            assert is_prose(line) and not re.search(r"[<{]|&\w+;", line), (language, line)


def test_many_languages_have_much_text(lines: dict[str, list[str]]) -> None:
    """Of Gemma's tokens, none of these has more than 5.5 characters."""
    much = {x for x, own in lines.items() if sum(map(len, own)) > 5.5 * 60_000}
    assert {"en", "fr", "es", "de", "id", "pt", "it", "nl", "sv", "ca", "no"} <= much
