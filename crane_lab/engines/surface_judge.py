"""A judge that needs to know nothing of the world: it looks at the surface of an answer only.

**It does not grade truth**, nor whether an answer keeps to its question or makes sense: a fluent
falsehood gets the grade of a fluent answer. It tells what masks break first in a base model, and
what can be told of any text in any language without a large model or a fee.

**Sub-scores**, each from 0 to 1:

- `language_score`: 1 if the answer as a whole is in the question's language, as told by
  `texts.fidelity` among the judge's languages, otherwise 0. Figures alone are in none.
- `variety`: the share of the answer's trigrams that are not repeats of earlier ones: what the
  rubric's *variety* is within a sentence. A trigram is three words in a row, or three characters of
  Chinese and Japanese; case and punctuation are left aside. 1 if there are fewer than three.
- `presence`: 1 if anything is said: 0 without a letter or figure, and for an echo, an answer of
  three words or more without a trigram that the question does not have.

**Score**: `1 + 9 · language_score · variety · presence`.

Thai, Lao, Khmer and Burmese put no spaces between words; there a word is what stands between spaces
or punctuation, so that a loop without any is not seen.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

from crane_lab.engines.judging import HIGHEST, LOWEST, check_answers
from crane_lab.store.sources import source_digest
from crane_lab.texts.fidelity import fidelity, untold

#: First words of the Unicode names of signs that are words by themselves here.
_ALONE = {"CJK", "HIRAGANA", "KATAKANA"}


class SurfaceJudge:
    """Grades how an answer is said, never what: see the module.

    `languages` are those that an answer's language is told among. Raises ValueError for one that
    py3langid does not know.
    """

    name = "surface"
    subscores = ("language_score", "variety", "presence")

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = tuple(languages)
        if lacking := untold(self.languages):
            raise ValueError(
                f"judge 'surface' looks at which language an answer is in, and its identifier "
                f"(py3langid) does not know {', '.join(lacking)}; set judge to 'llm', or leave the "
                "language out"
            )

    def fingerprint(self) -> dict[str, Any]:
        """What the scores depend on: the languages, the rules and the identifier."""
        return {
            "judge": self.name,
            "languages": list(self.languages),
            "code": source_digest("crane_lab.engines.surface_judge"),
            "unicode": unicodedata.unidata_version,
            "py3langid": version("py3langid"),
        }

    def score(self, answers: pd.DataFrame) -> pd.DataFrame:
        """Grade answers, one a row, with columns `language`, `id`, `question` and `text`.

        Returns `answers` with columns added: `score` (1 to 10), `status` ("scored"; "empty" if
        there is nothing but space, which scores 1) and the sub-scores.

        Raises ValueError if a column is missing or a language is none of the judge's, and TypeError
        for a text that is no text.
        """
        check_answers(answers)
        texts = answers["text"].to_list()
        told = fidelity(texts, answers["language"].to_list(), self.languages)["in_language"]
        spoken = told.to_numpy(dtype=float)
        new = [variety(text) for text in texts]
        asked = answers["question"].to_list()
        there = [float(_says(text, question)) for text, question in zip(texts, asked, strict=True)]
        found = pd.DataFrame(dict(zip(self.subscores, (spoken, new, there), strict=True)))
        columns = {name: found[name].array for name in self.subscores}
        return answers.assign(
            score=(LOWEST + (HIGHEST - LOWEST) * found.prod(axis=1)).array,
            status=["scored" if text.strip() else "empty" for text in texts],
            **columns,
        )


def _words(text: str) -> list[str]:
    """The words of a text: runs of letters, marks and figures; one of `_ALONE` is a word itself."""
    found: list[str] = []
    within = False
    for sign in unicodedata.normalize("NFKC", text).casefold():
        if unicodedata.category(sign)[0] not in "LMN":
            within = False
        elif unicodedata.name(sign, "").split(" ")[0] in _ALONE:
            found.append(sign)
            within = False
        elif within:
            found[-1] += sign
        else:
            found.append(sign)
            within = True
    return found


def variety(text: str) -> float:
    """The share of a text's trigrams that are new, from 0 to 1; 0 if it has no word at all."""
    trigrams = _trigrams(text)
    return len(set(trigrams)) / len(trigrams) if trigrams else float(bool(_words(text)))


def _trigrams(text: str) -> list[tuple[str, str, str]]:
    words = _words(text)
    return [*zip(words, words[1:], words[2:], strict=False)]


def _says(text: str, question: str) -> bool:
    """Whether there is a word, and not only what the question says."""
    trigrams = set(_trigrams(text))
    return bool(trigrams - {*_trigrams(question)}) if trigrams else bool(_words(text))
