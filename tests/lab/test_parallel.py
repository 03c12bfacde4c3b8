"""The same paragraphs in every language, from a corpus that numbers them."""

import json
from pathlib import Path

import pytest
import torch
from byte_tokens import PLAIN, WITH_BOS

from crane_lab.texts import parallel
from crane_lab.texts.corpora import Corpus
from crane_lab.texts.local import LocalTexts, corpus_digests

#: What paragraph n is in each language: one language is twice as long, one lacks every third.
N = 30


def said(language: str, number: int) -> str:
    return f"{language}{number:03d}" + "." * (5 if language == "vi" else 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ids = {"en": list(range(N)), "vi": list(range(N))[::-1], "zh": [i for i in range(N) if i % 3]}
    for language, numbers in ids.items():
        lines = "".join(said(language, i) + "\n" for i in numbers)
        (tmp_path / f"{language}.txt").write_text(lines)
    facts = {"held_out": [0, 4, 5, 10], "languages": ids}
    (tmp_path / parallel.FILE).write_text(json.dumps(facts))
    return tmp_path


def windows(folder: Path, n: int = 5, part: str | None = None, **how: object) -> dict[str, str]:
    found = Corpus(str(folder), part, parallel=True, opening="bos", **how).windows(  # type: ignore[arg-type]
        WITH_BOS, ["en", "zh", "vi"], n, 8, seed=1
    )
    assert all(
        w.shape == (n, 8) and (w[:, 0] == WITH_BOS.bos_token_id).all() for w in found.values()
    )
    return {x: str(WITH_BOS.decode(w[:, 1:].flatten())) for x, w in found.items()}


def test_every_language_has_the_same_paragraphs(folder: Path) -> None:
    found = windows(folder, n=10)
    own = {
        x: [line[2:5] for line in text.split("\n") if len(line) >= 5] for x, text in found.items()
    }
    assert own["en"] == own["zh"][: len(own["en"])]  # equally long texts: the very same windows
    # The longer language's windows are spread over the same paragraphs.
    taken = {int(number) for number in own["en"]}
    assert {int(n) for n in own["vi"] if n.isdigit()} <= taken
    assert not any(number % 3 == 0 for number in taken)  # which Chinese lacks


def test_windows_of_a_longer_language_are_spread(folder: Path) -> None:
    few, all_ = windows(folder, n=3)["vi"], windows(folder, n=10)["vi"]
    assert few != all_[: len(few)]
    assert windows(folder, n=4)["en"] == windows(folder, n=10)["en"][: 4 * 7]


def test_what_is_held_out_is_held_out_in_every_language(folder: Path) -> None:
    for language in ("en", "zh", "vi"):
        parts = {p: LocalTexts(folder, language, part=p) for p in ("attribution", "perplexity")}
        assert {text[2:5] for text in parts["perplexity"]} <= {"000", "004", "005", "010"}
        assert len(parts["perplexity"]) + len(parts["attribution"]) == (
            20 if language == "zh" else 30
        )
        for texts in parts.values():
            assert texts.ids is not None
            assert [said(language, i) for i in texts.ids] == list(texts)
    with pytest.raises(
        ValueError, match="3 paragraphs in common, enough for 2 windows of 8 tokens"
    ):
        windows(folder, n=3, part="perplexity")


def test_the_numbers_are_part_of_the_digest(folder: Path) -> None:
    before = corpus_digests(folder, ["en"])
    facts = json.loads((folder / parallel.FILE).read_text())
    (folder / parallel.FILE).write_text(json.dumps(facts | {"held_out": [1]}))
    assert corpus_digests(folder, ["en"]) != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"held_out": [], "languages": {"zh": []}}', "KeyError"),
        ('{"held_out": [], "languages": {"en": ["a"]}}', "whole numbers"),
        ('{"held_out": [], "languages": {"en": [1, 1]}}', "'en' has a paragraph twice"),
        (
            '{"held_out": [], "languages": {"en": [1, 2]}}',
            "numbers 2 paragraphs of 'en', but en.txt",
        ),
    ],
)
def test_damaged_numbers(folder: Path, content: str, said: str) -> None:
    (folder / parallel.FILE).write_text(content)
    with pytest.raises(ValueError, match=said):
        LocalTexts(folder, "en")


def test_a_corpus_that_does_not_number(folder: Path) -> None:
    (folder / parallel.FILE).unlink()
    with pytest.raises(ValueError, match="does not say which paragraphs are translations"):
        windows(folder)
    assert LocalTexts(folder, "en").ids is None
    stream = Corpus(str(folder)).windows(PLAIN, ["en"], 3, 8, seed=0)["en"]
    assert stream.dtype == torch.long
