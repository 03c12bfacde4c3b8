"""Which of some languages a text is in, where none of them is expected.

By itself, so that the grades of answers, which depend on the code of `fidelity`, stay as they are.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from crane_lab.texts.fidelity import _identifier, untold
from crane_lab.texts.languages import FLORES, known_code

#: ISO 15924 code -> the first words of its letters' Unicode names, where it is not the only one.
_WORDS = {
    "Latn": ("LATIN",),
    "Cyrl": ("CYRILLIC",),
    "Grek": ("GREEK",),
    "Arab": ("ARABIC",),
    "Hang": ("HANGUL",),
    "Deva": ("DEVANAGARI",),
    "Tibt": ("TIBETAN",),
    "Hans": ("CJK",),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA"),
}
_KANA = ("HIRAGANA", "KATAKANA")


def identified(texts: Sequence[str], among: Sequence[str]) -> list[str]:
    """Which of the languages `among` each text is in; "" where that cannot be told.

    Unlike `fidelity`, no language is expected, so none is favoured: a text without letters, in
    letters that are mostly of no language's script, or without evidence for one language more than
    for another ("Paris") is in none. With kana it is Japanese, if that is among them.

    Raises ValueError as `require_told` does.
    """
    return [language for language, _ in identified_surely(texts, among)]


def identified_surely(texts: Sequence[str], among: Sequence[str]) -> list[tuple[str, float]]:
    """What `identified` returns, each with the identifier's confidence.

    That is the probability that it gives the language among those in the text's script: 1 where
    the script alone tells, 0 where nothing does. It takes evidence for independent, so it is more
    often near 1 than it is right.
    """
    require_told(among)
    return [_told(text, tuple(among)) for text in texts]


def require_told(among: Sequence[str]) -> None:
    """See, before there are texts, that `identified` can tell languages.

    Raises ValueError for a language that py3langid does not know, or whose script is not listed.
    """
    if unknown := untold(among):
        raise ValueError(
            f"whether a text is in {unknown[0]!r} cannot be told: py3langid does not know it; "
            "leave it out"
        )
    if missing := [x for x in among if _script(x) not in _WORDS]:
        raise ValueError(
            f"whether a text is in {missing[0]!r} cannot be told: expected letters of "
            f"{', '.join(_WORDS)}, got {_script(missing[0]) or 'unknown ones'}; leave it out"
        )


def _script(language: str) -> str:
    return FLORES.get(language, "").partition("_")[2]


@lru_cache(maxsize=2**16)  # pages ask for the same answers several times
def _told(text: str, among: tuple[str, ...]) -> tuple[str, float]:
    letters = [
        unicodedata.name(c, "").split(" ")[0].split("-")[0]
        for c in unicodedata.normalize("NFKC", text)
        if c.isalpha()
    ]
    own = {x: sum(letter in _WORDS[_script(x)] for letter in letters) for x in among}
    likely = [x for x in among if letters and 2 * own[x] >= len(letters)]
    if "ja" in likely and any(letter in _KANA for letter in letters):
        likely = ["ja"]
    if len(likely) < 2:
        return (likely[0], 1.0) if likely else ("", 0.0)
    identifier = _identifier()
    evidence = dict(identifier.rank(text))
    labels = {x: known_code(x, identifier.labels) for x in likely}
    best = sorted(likely, key=lambda x: -evidence[labels[x]])
    first, *others = (float(evidence[labels[x]]) for x in best)
    if first == others[0]:
        return "", 0.0
    return best[0], 1 / (1 + sum(math.exp(other - first) for other in others))
