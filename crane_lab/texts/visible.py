"""A text as it is, with nothing in it that cannot be seen."""

from __future__ import annotations

from unicodedata import category

#: Characters of a text that a page shows; the files of results have it whole.
SHOWN = 2000
# Joiners that scripts and emoji need, and format characters of Arabic that have a shape.
_PART_OF_TEXT = frozenset("\n\t\u200c\u200d\u06dd\u08e2") | set(map(chr, range(0x600, 0x606)))


def visible(text: object, longest: int | None = SHOWN) -> str:
    """A text with what cannot be seen named by its number, such as ⟨U+202E⟩, and cut if long.

    Named are characters that turn the direction of a line, have no width, control a terminal or are
    no characters at all; line breaks and tabs stay. A text of more than `longest` characters ends
    with the number of its characters.
    """
    text = str(text).replace("\r\n", "\n").replace("\r", "\n")
    cut = ""
    if longest is not None and len(text) > longest:
        cut = f"… ({longest:,} of {len(text):,} characters)"
        text = text[:longest]
    if not text.isprintable():
        text = "".join(c if _is_seen(c) else f"⟨U+{ord(c):04X}⟩" for c in text)
    return text + cut


def _is_seen(character: str) -> bool:
    if character.isprintable() or character in _PART_OF_TEXT:
        return True
    # Spaces of other widths, private characters and those newer than this Python's tables stay.
    no_character = ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF
    return category(character) in ("Zs", "Co", "Cn") and not no_character
