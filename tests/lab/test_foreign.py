"""Text from models, questions, corpora and parameters on pages: as it stands, and never markup."""

from __future__ import annotations

import ast
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hostile import HOSTILE
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from crane_lab.show import foreign, open_page, table1_page
from crane_lab.show.curves import curves
from crane_lab.show.style import styled
from crane_lab.show.tables import table
from crane_lab.stages.comparisons import CATEGORIES
from crane_lab.store import ROOT
from crane_lab.testbed.rubric import SUBSCORES
from crane_lab.texts.visible import visible

# --- what cannot be seen --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ab\u202ecd\u2066", "ab⟨U+202E⟩cd⟨U+2066⟩"),
        ("zero\u200bwidth\ufeff\u2060", "zero⟨U+200B⟩width⟨U+FEFF⟩⟨U+2060⟩"),
        ("\x1b[31mred\x00\x07\x7f\x85", "⟨U+001B⟩[31mred⟨U+0000⟩⟨U+0007⟩⟨U+007F⟩⟨U+0085⟩"),
        ("\ud800 \uffff \u2028", "⟨U+D800⟩ ⟨U+FFFF⟩ ⟨U+2028⟩"),
        ("a\r\nb\rc\td", "a\nb\nc\td"),
    ],
)
def test_what_cannot_be_seen_is_named(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Điều gì? 什么？ そう\u3000です",
        unicodedata.normalize("NFD", "tiếng Việt"),
        "😀 👩‍👩‍👧 🏳️‍🌈",
        "می‌خواهم क्‍ष",  # joiners that Persian and Hindi need
        "a\u00a0b\u2009c",
    ],
)
def test_what_belongs_to_a_text_stays(text: str) -> None:
    assert visible(text) == text


def test_a_long_text_is_cut_and_its_length_said() -> None:
    shown = visible("x" * 10_000)
    assert shown.startswith("x" * 2_000 + "…") and "10,000 characters" in shown
    assert len(shown) < 2_100
    assert visible("x" * 10_000, None) == "x" * 10_000


# --- one function for each target -----------------------------------------------------------------


def read(markdown: str) -> tuple[set[str], str]:
    """The kinds of tokens in a text in Markdown, and what a reader reads."""
    kinds, said = set(), []
    for token in MarkdownIt("commonmark").parse(markdown):
        kinds.add(token.type)
        if token.type == "fence":
            said.append(token.content)
        for child in token.children or ():
            kinds.add(child.type)
            said.append("\n" if "break" in child.type else child.content)
    return kinds, "".join(said)


class Elements(HTMLParser):
    """The elements of HTML with their attributes, its comments, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.text = ""
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += "\n" if tag == "br" else ""

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_in_a_sentence(text: str) -> None:
    kinds, said = read(f"- Its answer, “{foreign.as_markdown(text)}”, is one.")
    assert kinds <= {
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close", "inline"),
        *("paragraph_open", "paragraph_close", "text", "text_special", "hardbreak"),
    }
    # Blanks at the ends of lines are no part of a paragraph.
    lines = [line.strip() for line in f"Its answer, “{visible(text)}”, is one.".split("\n")]
    assert [line.strip() for line in said.split("\n")] == lines


@pytest.mark.parametrize("text", [*HOSTILE.values(), "`", "``a`", " a ", ""])
def test_as_code(text: str) -> None:
    kinds, said = read(f"Language {foreign.as_code(text)} is one.")
    assert kinds == {"paragraph_open", "inline", "paragraph_close", "text", "code_inline"}
    assert said.replace(" ", "") == f"Language{visible(text)}isone.".replace("\n", "⏎").replace(
        " ", ""
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_in_an_element_and_in_an_attribute(text: str) -> None:
    page = Elements(
        foreign.markup('<p title="{title}">{text}</p>', title=foreign.as_attribute(text), text=text)
    )
    assert {tag for tag, _ in page.tags} <= {"p", "br", "wbr"} and not page.comments
    assert page.tags[0] == ("p", {"title": visible(text, None)})
    assert page.text == visible(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_in_a_block_of_its_own(text: str) -> None:
    kinds, said = read(foreign.verbatim(text, "What it reads:").data)
    assert kinds == {"paragraph_open", "inline", "paragraph_close", "text", "fence"}
    assert said == f"What it reads:{visible(text)}\n"


def test_prose_is_ours_or_shown_as_it_stands() -> None:
    ours = "**CRANE**, *English*: `x` < 3.\n\n- one\n- two"
    assert foreign.prose(ours).data == ours
    for theirs in ("a <b>b</b>", "[x](https://x.org)", "![x](y)", "# T", "```\nx\n```", "<!-- x"):
        kinds, said = read(foreign.prose(theirs).data)
        assert kinds <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special",
                         "hardbreak"}  # fmt: skip
        assert said == theirs
    assert foreign.prose("- a", "More <b>").data == (
        '<details class="folded"><summary>More &lt;b&gt;</summary>\n\n- a\n\n</details>'
    )


def test_html_is_made_from_templates() -> None:
    with pytest.raises(TypeError, match="template"):
        foreign.marked_up("<b>x</b>")  # type: ignore[arg-type]
    inner = foreign.markup("<i>{x}</i>", x="<")
    assert foreign.markup("<p>{inner}{n:.1f}</p>", inner=inner, n=1.25) == ("<p><i>&lt;</i>1.2</p>")


# --- tables and figures ---------------------------------------------------------------------------


def test_tables_and_figures_behind_a_click() -> None:
    cells = table(pd.DataFrame({"a": ["<b>"]}), "A caption")
    figure = foreign.marked_up(foreign.markup("<p>{x}</p>", x="a figure"))
    soup = BeautifulSoup(foreign.folded("All <rows>", cells, figure).data, "lxml")
    folded = soup.select_one("details:not([open])")
    assert folded is not None and folded.summary is not None
    assert folded.summary.text == "All <rows>" and folded.find("p", string="a figure")
    assert [cell.text for cell in folded.select("table td")] == ["<b>"]
    assert folded.select("th[scope=col]")


def test_a_table_shows_what_it_is_given() -> None:
    hostile = HOSTILE["markup"]
    frame = pd.DataFrame({hostile: ["a", hostile], "n": [1.25, np.nan], "o": [0.5, hostile]})
    made = table(frame, hostile, {"n": "{:.1f}"})
    page = Elements(made.to_html())
    names = {"style", "table", "caption", "thead", "tbody", "tr", "th", "td", "br", "wbr"}
    assert {tag for tag, _ in page.tags} <= names and not page.comments
    assert page.text.count(visible(hostile)) == 4
    heads = [given for tag, given in page.tags if tag == "th"]
    assert len(heads) == 3 and all(given["scope"] == "col" for given in heads)
    assert "<td" in made.to_html() and ">1.2<" in made.to_html() and ">–<" in made.to_html()
    assert ">0.500000<" in made.to_html()


def test_long_words_may_break_and_count() -> None:
    made = table(pd.DataFrame({"answer": ["x" * 10_000]}), "One")
    page = Elements(made.to_html())
    assert sum(tag == "wbr" for tag, _ in page.tags) == 2_000 // foreign.WORD - 1 + 1
    assert "10,000 characters" in page.text


def drawn(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj() if hasattr(text, "get_text")]  # type: ignore[attr-defined]


def test_a_figure_shows_signs_of_mathematics_and_boxes(recwarn: pytest.WarningsRecorder) -> None:
    label = "$\\frac{1}$ a_b \u202e 🦜"
    figure = curves(
        {label: ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])}, "x $", "y^", title="$\\nosuch$"
    )
    assert "$\\frac{1}$ a_b ⟨U+202E⟩ □" in drawn(figure)
    assert "$\\nosuch$" in drawn(figure)
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    many = {"a": (range(1, 20), range(1, 20)), "b": (range(1, 20), range(1, 20))}
    assert not [t for t in drawn(curves(many, "x", "y", xscale="log", yscale="log")) if "$" in t]


def test_texts_within_what_a_figure_is_given() -> None:
    seen: list[Any] = []

    @styled
    def draw(*given: Any) -> Figure:
        seen.extend(given)
        return Figure()

    frame = pd.DataFrame({"a\x00": ["b\x00"], "n": [1.0]}, index=["c\x00"])
    draw(frame, {"d\x00": ("e\x00", [1, "f\x00"])}, np.ones(2))
    assert list(seen[0].columns) == ["a⟨U+0000⟩", "n"] and list(seen[0].index) == ["c⟨U+0000⟩"]
    assert seen[0].iloc[0, 0] == "b⟨U+0000⟩"
    assert seen[1] == {"d⟨U+0000⟩": ("e⟨U+0000⟩", [1, "f⟨U+0000⟩"])}
    assert seen[2].sum() == 2


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_page_05_shows(text: str) -> None:
    kinds, said = read(open_page.framed(text).data)
    assert "fence" in kinds and said.endswith(f"{visible(text)}\n")
    parts = {"score": 1.0} | dict.fromkeys(SUBSCORES, 0.5)
    explained = [{"sentence": text, "relation": text, "value": text, "true": None}]
    first, sentences, _ = open_page.taken_apart(
        {"question": text, "text": text, **parts}, explained
    )
    page = Elements(first.data)
    assert {tag for tag, _ in page.tags} <= {"p", "b", "br", "wbr"} and not page.comments
    assert page.text == f"{visible(text)} “{visible(text)}”"
    assert Elements(sentences.to_html()).text.count(visible(text)) == 3
    items = pd.DataFrame(
        [(m, x, "en", "en-0", text, text, 8.0) for m, x in (("Org", ""), ("CRANE", "en"))],
        columns=["method", "mask_language", "language", "id", "question", "text", "score"],
    )  # fmt: skip
    shown = Elements(open_page.answers_table(items, "en", "English").to_html())
    assert not shown.comments and "script" not in {tag for tag, _ in shown.tags}
    assert shown.text.count(visible(text)) == 3  # the question, and an answer under each mask


def test_what_pages_say_of_tokens_and_answers() -> None:
    text = HOSTILE["markup"]
    shares = pd.DataFrame(
        [
            {"method": m, "mask_language": x, "language": "en", "n": 9, "favourite": text,
             "favourite_share": 0.5, **dict.fromkeys(CATEGORIES, 0.2)}
            for m, x in (("Org", ""), ("CRANE", "en"))
        ]
    )  # fmt: skip
    kinds, said = read(table1_page.answers_in_words(shares, {"en": text}).data)
    assert "html_inline" not in kinds and "link_open" not in kinds and visible(text) in said


# --- nobody goes round them -----------------------------------------------------------------------

#: Makes Markdown or HTML, or changes what pandas escapes; and where it may be called.
MAKERS = {
    "HTML": "crane_lab/show/foreign.py",
    "Markdown": "crane_lab/show/foreign.py",
    "to_html": "crane_lab/show/tables.py",
    "to_markdown": "",
    "set_caption": "crane_lab/show/tables.py",
    "format_index": "crane_lab/show/tables.py",
    "mathtext": "",
}


def called(node: ast.Call) -> str:
    return getattr(node.func, "id", "") or getattr(node.func, "attr", "")


def round_about(path: str, source: str) -> list[str]:
    """Calls that make markup outside of where it is made, and templates that are not constant."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        if name in MAKERS and path != MAKERS[name]:
            found.append(f"{path}:{node.lineno}: {name}")
        # Neighbouring constants are one; an f-string is none.
        constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
        if name in ("Markup", "markup") and path != MAKERS["HTML"] and not constant:
            found.append(f"{path}:{node.lineno}: a template of HTML that is not constant")
        styled = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value).endswith(
            ".style"
        )
        if styled and path != MAKERS["set_caption"]:
            found.append(f"{path}:{node.lineno}: a table of its own")
        if name == "display" and any(isinstance(part, ast.JoinedStr) for part in node.args):
            found.append(f"{path}:{node.lineno}: a text that is displayed")
    return found


def test_all_that_reaches_a_page_goes_through_one_module() -> None:
    paths = [*(ROOT / "crane_lab").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]
    found = [
        line
        for path in sorted(paths)
        for line in round_about(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert found == []


def test_going_round_would_be_noticed() -> None:
    source = 'HTML(x)\ndisplay.Markdown(f"{x}")\nMarkup(f"<b>{x}</b>")\nframe.to_html()\nMarkup("")'
    source += '\nframe.style.format("{}")\ndisplay(f"{x}")'
    assert len(round_about("notebooks/05.py", source)) == 6


@pytest.mark.parametrize("text", ["http://127.0.0.1:9/page", "{file}"])
def test_a_text_that_names_something_is_not_opened(text: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("what is in the file")
    named = text.format(file=file)
    assert "in the file" not in str(foreign.prose(foreign.as_markdown(named)).data)
    assert named in str(foreign.marked_up(foreign.markup("{x}", x=named)).data).replace("<wbr>", "")


def test_a_text_that_looks_like_a_target_is_shown() -> None:
    assert foreign.as_markdown("(x)=") == "\\(x)="
