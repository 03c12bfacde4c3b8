"""The judge of the surface: grades worked by hand, and what they never depend on."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_lab.engines.surface_judge import SurfaceJudge, variety

JUDGE = SurfaceJudge(["en", "zh", "vi"])
ENGLISH = "Rain falls when drops of water in a cloud grow too heavy to stay in the air."
CHINESE = "云里的水滴变得太重，留不住了，就会下雨。"
VIETNAMESE = "Trời mưa khi những giọt nước trong đám mây trở nên quá nặng."


def answers(rows: list[tuple[str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["language", "text"])
    return frame.assign(id=[f"q{n}" for n in range(len(rows))], question="Why does it rain?")


def parts(language: str, text: str, judge: SurfaceJudge = JUDGE) -> tuple[float, ...]:
    """Language, variety, presence and the grade."""
    graded = judge.score(answers([(language, text)])).iloc[0]
    assert list(judge.subscores) == ["language_score", "variety", "presence"]
    return tuple(float(graded[name]) for name in (*judge.subscores, "score"))


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", ENGLISH, (1, 1, 1, 10)),
        ("zh", CHINESE, (1, 1, 1, 10)),
        ("vi", VIETNAMESE, (1, 1, 1, 10)),
        # In another language than the question.
        ("en", CHINESE, (0, 1, 1, 1)),
        ("zh", ENGLISH, (0, 1, 1, 1)),
        ("vi", ENGLISH, (0, 1, 1, 1)),
        ("en", VIETNAMESE, (0, 1, 1, 1)),
        # Nothing at all, and nothing that is read.
        ("en", "", (0, 0, 0, 1)),
        ("zh", " \n\u3000", (0, 0, 0, 1)),
        ("en", "... !!! ---", (0, 0, 0, 1)),
        # Figures are something, but in no language.
        ("en", "1945", (0, 1, 1, 1)),
        # One word 50 times: 48 trigrams, one of them new.
        ("en", "water " * 50, (1, 1 / 48, 1, 1 + 9 / 48)),
        ("zh", "水" * 50, (1, 1 / 48, 1, 1 + 9 / 48)),
        ("vi", "Nước, nước; " * 25, (1, 1 / 48, 1, 1 + 9 / 48)),
        # Four words three times: ten trigrams, four different.
        ("en", "The rain is wet. " * 3, (1, 0.4, 1, 4.6)),
        ("zh", "下雨了吗？" * 3, (1, 0.4, 1, 4.6)),
        # Too short for a trigram.
        ("en", "Yes.", (1, 1, 1, 10)),
        ("zh", "是", (1, 1, 1, 10)),
        # An answer that mixes languages is in the one that prevails.
        ("en", f"{ENGLISH} 下雨。", (1, 1, 1, 10)),
        ("zh", f"{CHINESE} Rain.", (1, 1, 1, 10)),
        ("en", f"Rain. {CHINESE}", (0, 1, 1, 1)),
    ],
)
def test_worked_by_hand(language: str, text: str, expected: tuple[float, ...]) -> None:
    assert parts(language, text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "presence"),
    [
        ("Why does it rain?", 0),
        ("why does it rain why does it rain", 1),  # "it rain why" is new
        ("DOES IT RAIN", 0),
        ("It does rain.", 1),
        ("Rain.", 1),  # too short to be told from an answer
    ],
)
def test_an_echo_says_nothing(text: str, presence: float) -> None:
    assert parts("en", text)[2] == presence


def test_what_is_false_gets_what_is_true_gets() -> None:
    true, false = (parts("en", f"The capital of France is {x}.") for x in ("Paris", "Cairo"))
    assert true == false


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "雨はどうして降るのですか。空の水が重くなるからです。"),
        ("ko", "구름 속의 물방울이 무거워지면 비가 내립니다."),
        ("ru", "Дождь идёт, когда капли воды в облаке становятся тяжёлыми."),
        ("hi", "जब बादल में पानी की बूँदें भारी हो जाती हैं तब बारिश होती है।"),
        ("de", "Es regnet, wenn die Tropfen in einer Wolke zu schwer werden."),
        ("th", "ฝนตกเมื่อ หยดน้ำในเมฆ หนักเกินไป และ ตกลงมา"),
    ],
)
def test_other_languages(language: str, text: str) -> None:
    judge = SurfaceJudge(["en", language])
    assert parts(language, text, judge) == (1, 1, 1, 10)
    assert parts("en", text, judge)[0] == 0
    assert parts(language, f"{text} " * 4, judge)[1] < 0.5


def test_codes_with_a_script_or_region() -> None:
    judge = SurfaceJudge(["en", "zho_Hans"])
    assert parts("zho_Hans", CHINESE, judge) == (1, 1, 1, 10)


def test_letters_put_together_from_marks() -> None:
    """Vietnamese in two spellings that look alike, Hindi's vowels: words, not pieces of words."""
    text = "Trời mưa, trời mưa, trời mưa to."
    assert parts("vi", unicodedata.normalize("NFD", text)) == parts("vi", text)
    judge = SurfaceJudge(["hi", "en"])
    # Six words: trigrams abc, bca, cab, abc.
    assert parts("hi", "पानी की बूँदें पानी की बूँदें", judge)[1] == pytest.approx(3 / 4)


def test_rows_stay_and_empty_ones_are_told() -> None:
    frame = answers([("en", ENGLISH), ("zh", ""), ("vi", ENGLISH)]).assign(mask="none")
    frame.index = pd.Index(["c", "a", "b"])
    graded = JUDGE.score(frame)
    pd.testing.assert_frame_equal(graded[list(frame)], frame)
    assert graded["score"].to_list() == [10, 1, 1]
    assert graded["status"].to_list() == ["scored", "empty", "scored"]
    assert len(JUDGE.score(frame.iloc[:0])) == 0


def test_what_cannot_be_graded() -> None:
    with pytest.raises(ValueError, match="does not know bo; set judge to 'llm'"):
        SurfaceJudge(["en", "bo"])
    with pytest.raises(ValueError, match="text missing"):
        JUDGE.score(answers([("en", "a")]).drop(columns="text"))
    with pytest.raises(ValueError, match="expected fr"):
        JUDGE.score(answers([("fr", "a")]))
    with pytest.raises(TypeError, match="expected a text"):
        JUDGE.score(answers([("en", "a")]).assign(text=[5]))


def test_the_fingerprint_names_the_languages() -> None:
    assert JUDGE.fingerprint() == SurfaceJudge(("en", "zh", "vi")).fingerprint()
    assert JUDGE.fingerprint() != SurfaceJudge(["en", "zh"]).fingerprint()


anything = st.lists(
    st.tuples(st.sampled_from(["en", "zh", "vi"]), st.text(max_size=60)), min_size=1, max_size=5
)


@settings(max_examples=30, deadline=None)
@given(anything)
def test_grades_are_in_range_and_made_of_their_parts(rows: list[tuple[str, str]]) -> None:
    graded = JUDGE.score(answers(rows))
    found = graded[list(JUDGE.subscores)].to_numpy()
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(graded["score"], 1 + 9 * found.prod(axis=1))
    # Each row is graded by itself, and the same whenever it is graded.
    for number, row in enumerate(rows):
        alone = JUDGE.score(answers([row])).iloc[0]
        assert alone["score"] == graded["score"].iloc[number]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=30), st.integers(2, 5))
def test_what_is_said_again_is_never_more_varied(words: list[str], times: int) -> None:
    once, again = (variety(" ".join(words * n)) for n in (1, times))
    assert again <= once
    assert again < 1


@given(st.lists(st.sampled_from("水火木金土"), min_size=3, max_size=30))
def test_words_and_characters_are_counted_alike(signs: list[str]) -> None:
    spaced = variety(" ".join(signs))
    assert variety("".join(signs)) == spaced
    assert variety(", ".join(f"W{ord(sign)}" for sign in signs)) == spaced
