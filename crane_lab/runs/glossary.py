"""Words of the glossary, linked where a page first uses them when the book is staged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

#: What these mean on a page is plain from the words, or another thing than in the glossary.
PLAIN = {"Contrast", "Drop", "Judge", "Margin", "Mask", "Profile", "Published", "Run", "Site"}
#: What is no running text: code, formulas, links, roles with their text, and tags.
_OTHER = re.compile(r"(`+.*?`+|\$[^$]*\$|\{[\w:]+\}`[^`]*`|!?\[[^\]]*\](?:\([^)]*\))?|<[^>]*>)")
_FENCE = re.compile(r"^\s*(`{3,}|:{3,}|\$\$)")


def glossary_terms(text: str) -> list[str]:
    """The entries of a page's glossary, in order."""
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^(?=\S)(.+)$", block[1], re.MULTILINE) if block else []


def with_terms(text: str, terms: Iterable[str]) -> str:
    """An executed notebook whose paragraphs link each term where it comes first."""
    notebook = json.loads(text)
    prose = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    sources = terms_linked(["".join(cell["source"]) for cell in prose], terms)
    for cell, source in zip(prose, sources, strict=True):
        cell["source"] = source
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def terms_linked(sources: Iterable[str], terms: Iterable[str]) -> list[str]:
    """A page's texts in Markdown, one after another, with each term linked where it comes first.

    Headings, tables, boxes, code and formulas are left as they are, and so is a term that the page
    links by itself.
    """
    sources = list(sources)
    linked = {
        name.lower() for name in re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]*)", "".join(sources))
    }
    # The longest first, so that "LAPE matched" is not taken for "LAPE".
    left = [t for t in sorted(terms, key=len, reverse=True) if t not in PLAIN]
    left = [term for term in left if term.lower() not in linked]
    found_in = []
    for source in sources:
        lines, fence = source.split("\n"), ""
        for i, line in enumerate(lines):
            if found := _FENCE.match(line):
                fence = "" if fence and found[1].startswith(fence) else fence or found[1]
            elif not fence and line[:1] not in ("#", "|", "(") and not line.startswith("Next: "):
                lines[i], left = _linked(line, left)
        found_in.append("\n".join(lines))
    return found_in


def _linked(line: str, terms: list[str]) -> tuple[str, list[str]]:
    """A line with the first use of each term as a link, and the terms that it does not use."""
    left = []
    for term in terms:
        called = re.escape(term).removesuffix(r"\ index")  # said without it, too
        called += r"(?:\ index)?" if term.endswith(" index") else "s?"
        word = re.compile(rf"(?<![\w|-]){called}(?![\w|-])", re.IGNORECASE)
        parts = _OTHER.split(line)
        for i in range(0, len(parts), 2):
            parts[i], count = word.subn(lambda m, t=term: f"{{term}}`{m[0]} <{t}>`", parts[i], 1)
            if count:
                line = "".join(parts)
                break
        else:
            left.append(term)
    return line, left
