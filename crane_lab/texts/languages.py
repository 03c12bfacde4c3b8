"""What a language is called in English, and which letters it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Language(NamedTuple):
    """`script` is the first word of its letters' Unicode names, such as "LATIN" or "CJK"."""

    name: str
    script: str


#: code -> language. One that is not listed goes by its code, and is told by py3langid alone.
LANGUAGES: dict[str, Language] = {
    "en": Language("English", "LATIN"),
    "zh": Language("Chinese", "CJK"),
    "vi": Language("Vietnamese", "LATIN"),
}
NAMES = {code: language.name for code, language in LANGUAGES.items()}


def language_names(languages: Sequence[str]) -> dict[str, str]:
    """Code -> name of each language, in their order; a code without a name stands for itself."""
    return {x: NAMES.get(x, x) for x in languages}
