"""The language of an answer, told apart from its grade."""

import math
import re

import pytest
from made_up_answers import make_answers

from crane_lab.store.sources import ROOT
from crane_lab.texts.fidelity import fidelity, untold
from crane_lab.texts.languages import FLORES, known_code

AMONG = ["en", "zh", "vi"]


SENTENCES = {
    "Alice Adler lives in Coldhill.": "en",
    "丽华住在白桥镇。": "zh",
    "Cô ấy thích ăn phở.": "vi",
    "She is a baker.": "en",
    "她是面包师。": "zh",
    "Anh ấy là bác sĩ": "vi",
    "LÀ BÁC SĨ": "vi",
    "Yes": "en",
    "Có": "vi",
    "是": "zh",
    "熊": "zh",  # py3langid alone has no evidence for this one
    "他是iPhone工程师": "zh",
    "Alice Adler 是医生。": "zh",
    "42": "",
    " !? 😀": "",
    "": "",
    "Она живёт в Москве.": "",
    "그녀는 의사입니다.": "",
    "これはペンです": "",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_the_language_of_a_text(text: str) -> None:
    told = fidelity([text] * 3, AMONG, AMONG)
    assert list(told["text_language"]) == [SENTENCES[text]] * 3
    assert list(told["in_language"]) == [language == SENTENCES[text] for language in AMONG]


def test_a_word_without_evidence_is_in_the_expected_language() -> None:
    told = fidelity(["Paris"] * 3, AMONG, AMONG)
    assert list(told["in_language"]) == [True, False, True]


def test_held_out_sentences_of_the_testbed_are_told() -> None:
    for language in AMONG:
        path = ROOT / "data" / "testbed" / "corpus" / "perplexity" / f"{language}.txt"
        found = re.split(r"(?<=[.!?])\s+|(?<=[。！？])|\n", path.read_text(encoding="utf-8"))
        texts = [text for text in dict.fromkeys(found) if text.strip()][::5]
        assert len(texts) > 500
        for expected in AMONG:
            told = fidelity(texts, [expected] * len(texts), AMONG)
            assert told["in_language"].mean() == float(expected == language)


def test_fidelity_keeps_the_index_and_refuses_what_it_cannot_tell() -> None:
    answers = make_answers(4, list(SENTENCES)[:4])
    told = fidelity(answers["text"], answers["language"], AMONG)
    assert list(told.index) == list(answers.index)
    assert answers.join(told)["in_language"].all()
    assert list(fidelity([], [], AMONG).dtypes) == list(told.dtypes)
    # A language without an entry of its own is told by py3langid alone.
    assert list(fidelity(["Il habite à Paris."], ["fr"], ["en", "fr"])["in_language"]) == [True]
    for texts, languages, among, message in (
        (["a"], ["en", "en"], AMONG, "1 texts but 2 languages"),
        (["a"], ["en"], [], "is empty; expected the codes"),
        (["a"], ["fr"], AMONG, "expected fr, but only en, zh, vi"),
    ):
        with pytest.raises(ValueError, match=message):
            fidelity(texts, languages, among)
    with pytest.raises(TypeError, match="expected a text, got nan"):
        fidelity([math.nan], ["en"], AMONG)  # type: ignore[list-item]


def test_a_language_that_the_identifier_lacks_is_missing_never_false() -> None:
    """As for Tibetan and Cebuano: the others are told as ever, and no text is in one of them."""
    among = ["en", "bo", "ceb"]
    assert untold(among) == ["bo", "ceb"]
    texts = ["The river is long.", "བོད་སྐད་ནི་ཅི་ཞིག་ཡིན།", "Asa ang dalan?", "བོད་སྐད"]
    told = fidelity(texts, ["en", "bo", "ceb", "en"], among)
    assert list(told["text_language"].fillna("missing")) == ["en", "missing", "missing", ""]
    assert told["in_language"].isna().to_list() == [False, True, True, False]
    assert told["in_language"].dropna().to_list() == [True, False]
    assert told["in_language"].mean() == 0.5
    assert fidelity(["a"], ["bo"], ["bo"])["in_language"].isna().all()


@pytest.mark.parametrize("code", ["zh", "ZH", "zh-Hant", "zh_TW", "zho", "zho_Hans", "cmn"])
def test_other_codes_of_a_language_are_the_same_language(code: str) -> None:
    told = fidelity(["她是面包师。", "She is a baker."], [code, code], ["en", code])
    assert list(told["text_language"]) == [code, "en"]
    assert list(told["in_language"]) == [True, False]


def test_codes_with_one_label_are_not_told_apart() -> None:
    among = ["pt-BR", "pt-PT", "eng_Latn"]
    told = fidelity(["O rio é longo e muito bonito."] * 3, among, among)
    assert list(told["text_language"]) == ["pt-BR", "pt-PT", "pt-BR"]
    assert list(told["in_language"]) == [True, True, False]
    assert not untold(among)


def test_every_language_of_belebele_has_one_code() -> None:
    assert len(set(FLORES.values())) == len(FLORES)
    for code, name in FLORES.items():
        assert known_code(name, FLORES) == code
    assert known_code("xx", FLORES) is None
