"""Texts that are not ours, on a page: shown as they stand, and never markup.

Questions, answers, corpora, tokens, names of models and tasks, parameters and error messages may
hold anything. What they become is one function for each place they can stand in: `as_markdown`,
`as_html`, `as_attribute`, `as_data` (for scripts), `as_label` (figures). What reaches a page goes
through `prose`, `verbatim` or `marked_up`, and nothing else in this project makes Markdown or HTML.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from IPython.display import HTML, Markdown
from markdown_it import MarkdownIt
from markupsafe import Markup

from crane_lab.texts.visible import SHOWN, visible

#: Characters of a text that a figure shows.
LABEL = 200
#: Characters without a space after which a line may break.
WORD = 40

# What sentences of ours are made of; no link, no picture, no HTML, no heading.
_PROSE = {
    *("inline", "text", "text_special", "softbreak", "hardbreak", "code_inline"),
    *(
        f"{kind}_{end}"
        for kind in ("paragraph", "bullet_list", "list_item", "strong", "em")
        for end in ("open", "close")
    ),
}
_PARSER = MarkdownIt("commonmark")
# What may begin something in Markdown: some signs anywhere, some not within a word, some where a
# line begins.
_MARKS = re.compile(
    r"[\\`*\[\]<>&$~|{}@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=/)"
    r"|^(?P<before>[ \t]*[0-9]*)(?P<sign>[-+=#%:.()])",
    re.MULTILINE,
)
# Not scripts that break anywhere, nor before an accent of its own.
_LONG = re.compile(rf"[^\s\u2e80-\U0010ffff]{{{WORD}}}(?=[^\s\u2e80-\U0010ffff\u0300-\u036f])")
# What may begin or end something in HTML, or a line in a script; in JSON they stand in texts alone.
_SIGNS = re.compile("[<>&\u2028\u2029]")


# --- what a text becomes --------------------------------------------------------------------------


def as_markdown(text: object, longest: int | None = SHOWN) -> str:
    """A text within a sentence in Markdown: read as it stands, line breaks included."""

    def escaped(found: re.Match[str]) -> str:
        return f"{found['before']}\\{found['sign']}" if found["sign"] else f"\\{found[0]}"

    return _MARKS.sub(escaped, visible(text, longest)).replace("\n", "\\\n")


def as_code(text: object) -> str:
    """A text as code within a sentence in Markdown."""
    shown = visible(text).replace("\n", "⏎")
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    # A space at both ends is taken for a frame, and so is one beside a backtick.
    framed = shown.strip("`") != shown or shown[:1] == shown[-1:] == " " or not shown
    return f"{ticks} {shown} {ticks}" if framed else f"{ticks}{shown}{ticks}"


def as_html(text: object, longest: int | None = SHOWN) -> Markup:
    """A text within an element of HTML; long words may break, so that none widens the page."""
    marked = _LONG.sub("\\g<0>\0", visible(text, longest))  # which leaves no NUL itself
    return Markup("<wbr>".join(map(escape, marked.split("\0"))).replace("\n", "<br>"))


def as_inline(text: str) -> Markup:
    """A sentence of ours, with emphasis and code as in Markdown, within an element of HTML.

    Should there be more in it than this, or more than one line, it is shown as it stands.
    """
    tokens = _PARSER.parseInline(text)
    kinds = {part.type for token in tokens for part in (token, *(token.children or ()))}
    if not kinds <= _PROSE or "\n" in text:
        return as_html(text, None)
    return Markup(_PARSER.renderInline(visible(text, None)))


def as_attribute(text: object) -> Markup:
    """A text as the value of an attribute of HTML, to stand in quotes."""
    return Markup(escape(visible(text, None)))


def as_data(value: object) -> Markup:
    """Lists, dictionaries, texts and numbers as JSON in a `<script type="application/json">`.

    With none of the signs that could end the element or begin one. Texts in it are taken as they
    are: they go through `visible` first, and what reads them sets them as text.
    """
    data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(_SIGNS.sub(lambda found: f"\\u{ord(found[0]):04x}", data))


def as_label(text: object) -> str:
    """A text in a figure."""
    return visible(text, LABEL).replace("\t", " ")


# --- what reaches a page --------------------------------------------------------------------------


def prose(text: str, fold: str = "") -> Markdown:
    """Sentences of ours, in Markdown: paragraphs, lists, emphasis and code.

    Names and texts in them went through `as_markdown`. Should there be more than this after all (a
    link, HTML, a heading), all of it is shown as it stands. With a title, `fold`, the text opens
    when that is clicked.
    """
    tokens = _PARSER.parse(text)
    kinds = {part.type for token in tokens for part in (token, *(token.children or ()))}
    shown = visible(text, None) if kinds <= _PROSE else as_markdown(text, None)
    if fold:
        head = f'<details class="folded"><summary>{as_html(fold)}</summary>'
        shown = f"{head}\n\n{shown}\n\n</details>"
    return _markdown(shown)


def _markdown(text: str) -> Markdown:
    """Not `Markdown(text)`, which opens a text that is an address or names a file."""
    found = Markdown()
    found.data = text
    return found


def verbatim(
    text: object, before: str = "", language: str = "text", longest: int | None = SHOWN
) -> Markdown:
    """A text in a block of its own, as it stands, with a sentence of ours `before` it.

    `language` is the one it is coloured as.
    """
    shown = visible(text, longest)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    block = f"{fence}{language}\n{shown}\n{fence}"
    return _markdown(f"{prose(before).data}\n\n{block}" if before else block)


def marked_up(html: Markup) -> HTML:
    """HTML made with `markup`; TypeError for a text of which nobody knows where it comes from."""
    if not isinstance(html, Markup):
        raise TypeError(f"HTML is made with `markup`, from a template; got {type(html).__name__}")
    found = HTML()
    found.data = str(html)  # given at once, an address or the name of a file would be opened
    return found


def folded(title: str, *shown: Any) -> HTML:
    """Figures and tables of ours (`HTML`, `Styler`) that open when their title is clicked."""
    inner = Markup("\n".join(str(one._repr_html_()) for one in shown))
    return marked_up(
        markup(
            '<details class="folded"><summary>{title}</summary>\n{inner}\n</details>',
            title=title,
            inner=inner,
        )
    )


def made_here(html: str) -> Markup:
    """HTML that was made here before, and is read again from an executed notebook."""
    return Markup(html)


def markup(template: str, **values: Any) -> Markup:
    """A template of HTML with values in its fields: texts through `as_html`, HTML as it is."""
    return Markup(template).format(
        **{
            name: as_html(value) if isinstance(value, str) and not hasattr(value, "__html__")
            else value
            for name, value in values.items()
        }
    )  # fmt: skip
