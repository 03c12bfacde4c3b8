"""Which language an answer is in, told apart from its grade.

A fluent answer in the wrong language must not pass as quality.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from crane_lab.texts.languages import LANGUAGES, known_code

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

_SCRIPTS = {code: language.script for code, language in LANGUAGES.items()}


@cache
def _identifier() -> LanguageIdentifier:
    # One of our own: the module's functions share a global one that anyone may restrict.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def untold(languages: Sequence[str]) -> list[str]:
    """Those of the languages that py3langid does not know, so that `fidelity` tells nothing."""
    return [x for x in languages if known_code(x, _identifier().labels) is None]


def fidelity(
    texts: Sequence[str] | pd.Series[str],
    languages: Sequence[str] | pd.Series[str],
    among: Sequence[str],
) -> pd.DataFrame:
    """Tell which language each text is in, and whether it is the one in `languages`.

    `text_language` is the language of `among` that py3langid finds most likely; "" for a text
    without letters, and for one written mostly in letters that no language of `among` uses.
    `in_language` is whether it equals the language expected, so a text without letters is not in
    it. A Series' index is kept. Only the text as a whole is looked at: one that changes language
    half-way counts as the one that prevails.

    Codes are read as `known_code` does: `zho_Hans` and `zh-Hant` are both py3langid's "zh", so
    neither is told from the other. Where py3langid lacks the expected language (`untold`), both
    columns are missing, never false; a text in such a language passes as the nearest of the others.

    Letters settle some cases first: without a Chinese character a text is not "zh", with nothing
    but Chinese characters it is neither "en" nor "vi". Alone, py3langid finds no evidence in single
    characters such as 熊 and takes the first language of the list. Where it finds none ("Paris",
    "ok"), the text counts as being in the expected language if its letters allow.

    Measured among en, zh and vi on the testbed's held-out text (data/testbed/corpus/perplexity):
    all of its 10,956 different sentences are right, and so are their first three words (Chinese:
    characters) alone. Shorter, English and Vietnamese are mistaken for each other: 3 and 12 % of
    the testbed's single words, which they partly share ("Canada"), 4 and 7 % of its first and last
    names, 2 and 0 % of its full names. What is in neither, but in the same letters (French), passes
    as the nearest of `among`.

    Raises ValueError if lengths differ, without languages in `among`, or for an expected language
    that is not among them; TypeError for a text that is no text.
    """
    if len(texts) != len(languages):
        raise ValueError(f"{len(texts)} texts but {len(languages)} languages")
    if not among:
        raise ValueError("`among` is empty; expected the codes of the languages to tell apart")
    outside = sorted({str(language) for language in languages} - set(among))
    if outside:
        raise ValueError(f"expected {', '.join(outside)}, but only {', '.join(among)} are told")
    identifier = _identifier()
    labels = {code: known_code(code, identifier.labels) for code in among}
    told = list(dict.fromkeys(label for label in labels.values() if label))
    found: list[str | None] = []
    for text, expected in zip(texts, languages, strict=True):
        if not isinstance(text, str):
            raise TypeError(f"expected a text, got {text!r}")
        own = labels[expected]
        label = None if own is None else _language_of(identifier, text, own, told)
        # Of several codes with one label, the expected one is meant.
        found.append(next((x for x in (expected, *among) if label and labels[x] == label), label))
    index = texts.index if isinstance(texts, pd.Series) else None
    frame = pd.DataFrame({"text_language": pd.Series(found, index=index, dtype="str")})
    right = [None if one is None else one == x for one, x in zip(found, languages, strict=True)]
    return frame.assign(in_language=pd.array(right, dtype="boolean" if None in right else "bool"))


def _language_of(
    identifier: LanguageIdentifier, text: str, expected: str, among: Sequence[str]
) -> str:
    letters = [
        unicodedata.name(character, "").split(" ")[0]
        for character in unicodedata.normalize("NFKC", text)
        if character.isalpha()
    ]
    if not letters:
        return ""
    if all(language in _SCRIPTS for language in among):
        ours = {_SCRIPTS[language] for language in among}
        if 2 * sum(letter in ours for letter in letters) < len(letters):
            return ""
    candidates = [name for name in among if name not in _SCRIPTS or _SCRIPTS[name] in letters]
    if not candidates:
        return ""
    evidence = dict(identifier.rank(text))
    # The expected language comes first, so that it wins where there is no evidence.
    candidates.sort(key=lambda name: name != expected)
    return max(candidates, key=lambda name: evidence[name])
