"""Single documents: the text of a row, which are the same, which part each belongs to."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

#: Of documents that are split in two parts, one in so many is kept for perplexity.
HELD_OUT = 5
#: Which documents the stages read where both corpora have one source.
PARTS = ("attribution", "perplexity")


def document_digest(text: str) -> bytes:
    """A digest that is the same for texts that differ only in white space and composition."""
    text = unicodedata.normalize("NFC", text)
    # To take every text apart would take longer than all the rest.
    if "  " in text or not text.isprintable() or text != text.strip():
        text = " ".join(text.split())
    return hashlib.sha256(text.encode()).digest()


def distinct(texts: Iterable[str]) -> Iterator[str]:
    """Each text once, stripped; blank ones and repetitions (as `read_texts` has them) left out."""
    seen = set()
    for text in texts:
        digest = document_digest(text)
        if text.strip() and digest not in seen:
            seen.add(digest)
            yield text.strip()


def part_of(digest: bytes) -> str:
    """Which of `PARTS` the document of a `document_digest` belongs to if one source serves both.

    It depends on the document alone, so the parts have no text in common whatever the seed, the
    order and the number of documents are. One document in `HELD_OUT` is kept for perplexity.
    """
    return PARTS[digest[0] % HELD_OUT == 0]


def text_of(row: Any, text_column: str) -> str:
    """The text of a row, "" for a null. Raises TypeError, KeyError or UnicodeEncodeError."""
    if not isinstance(row, dict):
        raise TypeError(f"expected an object with {text_column!r}, got {type(row).__name__}")
    if text_column not in row:
        raise KeyError(no_column(text_column, row))
    text = row[text_column]
    if text is not None and not isinstance(text, str):
        raise TypeError(f"{text_column!r} must be a text, got {type(text).__name__}")
    (text or "").encode()  # JSON can spell half characters that no tokenizer takes
    return text or ""


def no_column(text_column: str, columns: Iterable[str]) -> str:
    """What to say of a table without the column that should hold the text."""
    return (
        f"no column {text_column!r}; there are: {', '.join(columns) or 'none'} "
        "(the parameter text_column says which holds the text)"
    )


def reason(error: Exception) -> str:
    """An error's message; a KeyError's own text would be in quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)
