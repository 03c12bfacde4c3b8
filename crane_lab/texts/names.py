"""What many languages are called; `languages` has those that the book is about."""

from __future__ import annotations

from collections.abc import Sequence

from babel import Locale


def full_names(languages: Sequence[str]) -> dict[str, str]:
    """Code -> English name of each language by CLDR; a code unknown there stands for itself.

    `language_names` knows those that the book is about alone.
    """
    known = Locale("en").languages
    return {x: known.get(x, x) for x in languages}
