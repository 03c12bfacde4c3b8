"""What is said instead of an answer."""

import dataclasses
from typing import Any

import pytest
import torch
from made_up_tasks import LINES, MODEL, PLACES, TOKENIZER, constant_model, prepared, tasks

from crane_lab.engines import answers
from crane_lab.engines.answers import answer_instead, first_lines, named_option, script_language
from crane_lab.engines.multiple_choice import (
    Prepared,
)

__all__ = ["prepared", "tasks"]  # fixtures


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Paris is a city.", "en"),
        ("巴黎是首都。", "zh"),
        ("Hà Nội là thủ đô.", "vi"),
        ("đi", "vi"),
        ("Ha Noi", "en"),
        ("猫 cat 狗 dog", "zh"),
        ("the cat 猫 sleeps", "en"),
        ("12, 30!", ""),
        ("", ""),
    ],
)
def test_language_by_script(text: str, language: str) -> None:
    assert script_language(text) == language


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        ("Rome.", ["Paris", "Rome", "Lima", "Oslo"], 1),
        ("It is rome, not Paris", ["Paris", "Rome", "Lima", "Oslo"], 1),
        ("Romeo", ["Paris", "Rome", "Lima", "Oslo"], None),
        ("the red fox", ["red", "the red fox", "red fox", "fox"], 1),
        ("红色。", ["红", "蓝", "绿", "红色"], 3),
        ("是巴黎", ["罗马", "巴黎", "利马", "奥斯陆"], 1),
        ("Ha\u0300 No\u0323\u0302i", ["Huế", "Hà Nội", "Đà Nẵng", "Cần Thơ"], 1),
        ("C++ (old)", ["C", "C++", "D", "E"], 1),
        ("", ["a", "b", "c", "d"], None),
    ],
)
def test_option_named_first(text: str, options: list[str], named: int | None) -> None:
    assert named_option(text, options) == named


def test_answers_are_sorted_into_kinds(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "en": ["Paris", "Rome", "Nobody", "con trong", "..."],
        "zh": ["巴黎", "罗马", "我不知道", "không biết", ""],
        "vi": ["Pa-ri", "Hà Nội", "con dai", "it is long", "1"],
    }
    kinds = ["gold", "wrong option", "same language", "other language", "nothing"]
    calls: list[list[str]] = []

    def speak(model: Any, tokenizer: Any, prompts: list[str], *_: int) -> list[str]:
        calls.append(prompts)
        return [text for language in ("en", "zh", "vi") for text in said[language]] * 2

    monkeypatch.setattr(answers, "first_lines", speak)
    described = tuple(  # the same options everywhere, the first one right
        dataclasses.replace(item, options=tuple(PLACES[item.language][:4]), answer=0)
        for item in prepared.described
    )
    fixed = dataclasses.replace(prepared, described=described)
    table = answer_instead(MODEL, TOKENIZER, fixed, n_items=5)
    assert list(table["category"]) == kinds * 6
    assert list(table["answer"][:5]) == ["Paris"] * 5 and table["text_language"][3] == "vi"
    # Spread over each task's nine items, and asked with the item's own prompt.
    assert list(table["id"][:5].str[-1]) == ["0", "1", "3", "5", "7"]
    assert calls[0][1] == "Question: Rome 1?\nAnswer:"


def test_continuations_are_greedy_line_by_line() -> None:
    prompts = [line[:cut] for cut in (5, 19, 12, 30) for line in LINES]
    said = first_lines(MODEL, TOKENIZER, prompts, max_new_tokens=6, batch_size=5)
    for prompt, text in zip(prompts, said, strict=True):
        ids = TOKENIZER(prompt)["input_ids"]
        new: list[int] = []
        while len(new) < 6 and 1 not in new:
            logits = MODEL(torch.tensor([ids + new])).logits
            new.append(int(logits[0, -1].argmax()))
        expected = TOKENIZER.decode(new, skip_special_tokens=True).split("\n")[0].strip()
        assert text == expected
    assert len(set(said)) > 3


def test_continuations_end_where_the_model_ends() -> None:
    for text, expected in (("</s>", ""), ("x", "xxxx"), ("\n", "")):
        model = constant_model(TOKENIZER(text)["input_ids"][0])
        assert first_lines(model, TOKENIZER, ["a", "b c d"], 4, 2) == [expected] * 2


def test_bad_free_answers(prepared: Prepared) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        answer_instead(MODEL, TOKENIZER, prepared, n_items=0, max_new_tokens=4)
    with pytest.raises(ValueError, match="exceed the model's 128 positions"):
        answer_instead(MODEL, TOKENIZER, prepared, n_items=1, max_new_tokens=120)
