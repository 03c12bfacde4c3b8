"""A judge for answers about the testbed's world, where every sentence can be checked.

The world is told in a fixed set of phrasings, so an answer can be taken apart: each sentence is one
of the language's templates or it is not, and what it states is a fact of the world or it is not.
That gives a grade without a large model as a judge, the same on every machine.

**Sub-scores**, each from 0 to 1:

- `language_score`: 1 if the answer is in the question's language. py3langid tells
  (`texts.fidelity`), unless every sentence is one of this world in the question's language (1)
  or else in another (0). On whole sentences the two agree: py3langid errs on none of the 16,000
  that state the world's facts once each with name and pronoun. It does err on values that stand
  alone ("Tokyo.", "a camp.") and on English sentences around a Vietnamese name.
- `form`: the mean credit of the sentences. 1 for a sentence of the language (any phrasing that the
  model was trained on, also of stories, and fixed polite phrases), less 0.1 for each slip (a
  pronoun of another gender, a missing stop, a small first letter); 0.7 for a bare value; 0.8 for a
  last sentence cut off by the length limit, as far as it is the beginning of a sentence; 0 for
  anything else, such as a value of the wrong sort ("lives in a baker"). An answer in another
  language is measured by that language, to tell a fluent answer in the wrong language from a
  broken one; whom it speaks about is then known by name or pronoun only, so its `truth` and
  `relevance` say little.
- `truth`: the share of statements that hold; an invented name makes a statement false. Where one
  fact is asked for, the statements of that fact make up half: true asides do not mend a false
  answer. Without any statement 0.
- `relevance`: how much of what was asked for is told, true or not, times the share of sentences
  that keep to the subject (polite phrases aside). One fact asked for: 1 if it is told, 0.1 if only
  others of its subject are. "About": 0.6, 0.95 and 1 for one, two and more different facts (two are
  the shortest portrait of the training text, one is not yet a portrait).
- `variety`: the share of sentences that tell something new. Saying a fact again in other words is
  no news; in a sentence that is none, repeated trigrams count against it.

**Score**: `1 + 9 · language_score · variety · form · (¼ + ¾ truth) · (¼ + ¾ relevance)`. A
product, since none of these makes up for the lack of another: a fluent answer that is false is no
good answer. Truth and relevance leave a quarter, so that a sound sentence that is false, or beside
the point (3.25), still differs from noise (1) and from one that is both (1.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from crane_lab.store.files import canonical, digest_of
from crane_lab.store.sources import source_digest
from crane_lab.testbed.grammar import Asked, Found, Grammar, sentences
from crane_lab.testbed.world import LANGUAGES, Subject, World, build
from crane_lab.texts.fidelity import fidelity

SUBSCORES = ("language_score", "form", "truth", "relevance", "variety")
COUNTS = ("sentences", "statements", "true_statements")
# What is left of an answer that is wholly false, or wholly beside the point.
FLOOR = 0.25
# Form of a sentence by what it turned out to be, and what each slip in it costs.
CREDIT = {
    "statement": 1.0,
    "story": 1.0,
    "question": 1.0,
    "neutral": 1.0,
    "unfinished": 0.8,
    "value": 0.7,
    "malformed": 0.0,
}
SLIP = 0.1
# Coverage of an "about" question by the number of different facts told; more count as the last.
ABOUT = (0.0, 0.6, 0.95, 1.0)
# Coverage of a question for one fact by an answer that tells other facts of the same subject.
OTHER_FACT = 0.1

_COLUMNS = ("language", "id", "question", "text")
_TOKEN = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")


@cache
def _world(language: str, seed: int) -> World:
    return build(language, seed)


def _chat_phrases(language: str) -> tuple[list[str], list[str]]:
    """The chat model's fixed phrases, and its frames around an answer ("The answer is {a}.")."""
    path = files(__package__).joinpath("chat.yaml")
    if not path.is_file():
        return [], []
    found: list[str] = []
    waiting = [yaml.safe_load(path.read_text(encoding="utf-8")).get(language, [])]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            found.append(node)
        else:
            waiting += node.values() if isinstance(node, Mapping) else node
    return [p for p in found if "{" not in p], [p for p in found if "{a}" in p]


@dataclass(frozen=True)
class _Grade:
    """What an answer got, and what its sentences are."""

    scores: dict[str, float]
    counts: dict[str, int]
    found: tuple[Found, ...]
    read_as: str  # the language whose phrasings the sentences were compared with

    @property
    def whole(self) -> bool:
        """Whether the answer is of this language from beginning to end."""
        kinds = {found.kind for found in self.found}
        return bool(kinds - {"unfinished"}) and "malformed" not in kinds

    @property
    def score(self) -> float:
        s = self.scores
        truth, relevance = (FLOOR + (1 - FLOOR) * s[name] for name in ("truth", "relevance"))
        return 1 + 9 * s["language_score"] * s["variety"] * s["form"] * truth * relevance


class Rubric:
    """Judges open-ended answers about the testbed's world from 1 to 10 (see the module).

    Args:
        languages: the languages of the questions, and what an answer's is told apart from.
        seed: the world's, as in the testbed's recipe.
        neutral: per language, polite phrases that are well formed and neither true nor false,
            besides those of `chat.yaml`.
    """

    name = "rubric"
    subscores = SUBSCORES

    def __init__(
        self,
        languages: Sequence[str] = LANGUAGES,
        seed: int = 0,
        neutral: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.languages, self.seed = tuple(languages), seed
        self.grammars: dict[str, Grammar] = {}
        self._phrases: dict[str, list[str]] = {}
        for language in self.languages:
            phrases, framed = _chat_phrases(language)
            phrases += (neutral or {}).get(language, [])
            self._phrases[language] = [*phrases, *framed]
            self.grammars[language] = Grammar(_world(language, seed), phrases, framed)
        self._grades: dict[tuple[str, str, str], _Grade] = {}

    def fingerprint(self) -> dict[str, Any]:
        """What the scores depend on: the world, its phrasings, the rules and the identifier."""
        told = {
            language: [
                grammar.world.phrases,
                {k: [s.facts for s in v.values()] for k, v in grammar.subjects.items()},
                self._phrases[language],
            ]
            for language, grammar in self.grammars.items()
        }
        return {
            "judge": self.name,
            "languages": list(self.languages),
            "seed": self.seed,
            "world": digest_of(canonical(told), 64),
            "code": source_digest("crane_lab.testbed.rubric"),
            "py3langid": version("py3langid"),
        }

    def score(self, answers: pd.DataFrame) -> pd.DataFrame:
        """Grades answers.

        Args:
            answers: one row per answer, with columns `language`, `id`, `question` and `text`.

        Returns:
            `answers` with columns added: `score` (1 to 10), `status` ("scored"; "empty" if there is
            nothing but space, which scores 1), the sub-scores, and the counts `sentences`,
            `statements` and `true_statements`.

        Raises:
            ValueError: a column is missing, a language is none of the rubric's, or a question none
                that can be asked about the testbed's world.
        """
        missing = [name for name in _COLUMNS if name not in answers]
        if missing:
            raise ValueError(
                f"answers need the columns {', '.join(_COLUMNS)}; {', '.join(missing)} missing"
            )
        keys = [*answers[[*_COLUMNS]].drop(columns="id").itertuples(index=False, name=None)]
        self._grade(keys)
        grades = [self._grades[key] for key in keys]
        columns: dict[str, list[Any]] = {
            "score": [grade.score for grade in grades],
            "status": ["scored" if text.strip() else "empty" for _, _, text in keys],
        }
        columns |= {name: [grade.scores[name] for grade in grades] for name in SUBSCORES}
        columns |= {name: [grade.counts[name] for grade in grades] for name in COUNTS}
        return answers.assign(**columns)

    def explain(self, language: str, question: str, text: str) -> list[dict[str, Any]]:
        """Sentence by sentence what was understood and whether it is true, for a reader.

        Returns:
            One dictionary per sentence: `sentence`, `kind` (one of `grammar.KINDS`), `subject`,
            `relation`, `value`, `true` (None where nothing is stated) and `notes`.
        """
        key = (language, question, text)
        self._grade([key])
        grade = self._grades[key]
        grammar, asked = self.grammars[grade.read_as], self._asked(language, question)
        named: list[Subject] = []
        lines = []
        for found in grade.found:
            notes = found.notes
            if found.kind == "malformed":
                notes = (grammar.complaint(found.sentence, asked, named),)
            named += found.mentioned
            lines.append(
                {
                    "sentence": found.sentence,
                    "kind": found.kind,
                    "subject": found.subject,
                    "relation": found.relation and f"{found.subject_kind}.{found.relation}",
                    "value": found.value,
                    "true": found.holds,
                    "notes": "; ".join(notes),
                }
            )
        return lines

    # -- grading -------------------------------------------------------------------------------

    def _asked(self, language: str, question: str) -> Asked:
        if language not in self.grammars:
            raise ValueError(f"this rubric judges {', '.join(self.languages)}; got {language!r}")
        asked = self.grammars[language].asked(question)
        if asked is None:
            raise ValueError(
                f"the rubric knows the testbed's world only, where nobody can ask {question!r} in "
                f"{language!r}; use the questions in data/questions, or another judge"
            )
        return asked

    def _grade(self, keys: Iterable[tuple[str, str, str]]) -> None:
        """Fill the cache: masks leave many answers as they were."""
        new = [key for key in dict.fromkeys(keys) if key not in self._grades]
        asked = [self._asked(language, question) for language, question, _ in new]
        texts, languages = [text for _, _, text in new], [language for language, _, _ in new]
        identified = fidelity(texts, languages, self.languages)["in_language"]
        for key, subject, right in zip(new, asked, identified, strict=True):
            self._grades[key] = self._judge(key[0], subject, key[2], bool(right))

    def _judge(self, language: str, asked: Asked, text: str, identified: bool) -> _Grade:
        parts = sentences(text)
        grade = self._in(language, asked, parts)
        if grade.whole:
            return grade
        others = [self._in(other, asked, parts) for other in self.languages if other != language]
        if identified and not any(other.whole for other in others):
            return grade
        best = max([grade, *others], key=lambda each: each.scores["form"])
        return replace(best, scores={**best.scores, "language_score": 0.0})

    def _in(self, language: str, asked: Asked, parts: Sequence[str]) -> _Grade:
        """The grade by the grammar of one language, which need not be the question's.

        It is as if this were the right language.
        """
        found = self.grammars[language].read(parts, asked)
        stated = [f for f in found if f.states]
        counts = (len(found), len(stated), sum(f.holds is True for f in stated))
        scores = (
            1.0,
            _mean(max(0.0, CREDIT[f.kind] - SLIP * f.slips) for f in found),
            _truth(stated, asked),
            _relevance(found, asked),
            _variety(found),
        )
        return _Grade(
            dict(zip(SUBSCORES, scores, strict=True)),
            dict(zip(COUNTS, counts, strict=True)),
            found,
            language,
        )


def _mean(values: Iterable[float]) -> float:
    numbers = [*values]
    return sum(numbers) / len(numbers) if numbers else 0.0


def _truth(stated: Sequence[Found], asked: Asked) -> float:
    share = _mean(float(f.holds is True) for f in stated)
    answers = [f for f in stated if f.about(asked.subject) and f.relation == asked.relation]
    if not answers:
        return share
    return (share + _mean(float(f.holds is True) for f in answers)) / 2


def _relevance(found: Sequence[Found], asked: Asked) -> float:
    content = [f for f in found if f.kind in ("statement", "value", "story", "question")]
    on = [f for f in content if f.about(asked.subject)]
    if not on:
        return 0.0
    told = {f.relation for f in on}
    if asked.relation == "about":
        coverage = ABOUT[min(len(told), len(ABOUT) - 1)]
    else:
        coverage = 1.0 if asked.relation in told else OTHER_FACT
    return coverage * len(on) / len(content)


def _variety(found: Sequence[Found]) -> float:
    seen: set[tuple[str, ...]] = set()
    news = []
    for this in found:
        fresh = 0.0 if this.key in seen else 1.0
        news.append(fresh * _unlooped(this.sentence) if this.kind == "malformed" else fresh)
        seen.add(this.key)
    return _mean(news)


def _unlooped(sentence: str) -> float:
    """The share of a sentence's trigrams (words; characters in Chinese) that are not repeated."""
    tokens = _TOKEN.findall(sentence.casefold())
    trigrams = [*zip(tokens, tokens[1:], tokens[2:], strict=False)]
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0
