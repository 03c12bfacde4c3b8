"""The open questions about the real world: as many, and as different, as they are meant to be."""

from __future__ import annotations

import unicodedata

import pytest

from crane_lab.engines.generation import read_questions
from crane_lab.texts.fidelity import fidelity

LANGUAGES = ["en", "zh", "vi"]
QUESTIONS = read_questions("data/open_questions", LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_seventy_different_questions_in_their_language(language: str) -> None:
    own = QUESTIONS[language]
    assert len({question.casefold().rstrip("?？.。") for question in own}) == len(own) == 70
    assert all(unicodedata.is_normalized("NFC", question) for question in own)
    assert fidelity(own, [language] * 70, LANGUAGES)["in_language"].all()
    # Short enough for a sentence or a paragraph to answer.
    assert max(map(len, own)) < 80
    assert all(question.endswith(("?", "？", ".", "。")) for question in own)


def test_none_is_about_the_testbed() -> None:
    testbed = read_questions("data/questions", LANGUAGES)
    assert not any({*testbed[x]} & {*QUESTIONS[x]} for x in LANGUAGES)


def test_the_same_is_asked_in_every_language() -> None:
    """A question is one where the others are, and a request where they are."""
    kinds = [[question[-1] in "?？" for question in QUESTIONS[x]] for x in LANGUAGES]
    assert kinds[0] == kinds[1] == kinds[2]
    assert 0 < kinds[0].count(False) < 10
