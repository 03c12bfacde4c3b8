"""Chat templates and plain texts as token ids: what a checkpoint's tokenizer may do to them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from transformers import AddedToken, AutoTokenizer, GenerationConfig
from transformers.utils import chat_template_utils

from crane_lab.cli import rehearsal
from crane_lab.engines import prompting
from crane_lab.engines.decoding import end_tokens
from crane_lab.engines.generation import prompts
from crane_lab.engines.prompting import opened, opening, turn_end
from crane_lab.store import ROOT

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    found = AutoTokenizer.from_pretrained(str(ROOT / "data/testbed/chat"))
    found.chat_template = TEMPLATE
    return found


def chat(tokenizer: Any, question: str = "Who?") -> str:
    return str(tokenizer.decode(prompts(tokenizer, [question], chat=True)[0]))


# ---------------------------------------------------------------------------------------- templates


def test_templates_are_told_not_to_think(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        TEMPLATE
        + "{% if enable_thinking is defined and enable_thinking is false %}<off>{% endif %}"
        "{% if thinking is defined and not thinking %}<off too>{% endif %}"
    )
    assert chat(tokenizer).endswith("<assistant><off><off too>")


@pytest.mark.parametrize(
    "clock",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{% if strftime_now is defined %}{% set x = strftime_now('%d %b %Y') %}{% endif %}{{ x }}",
        "{% macro today() %}{{ strftime_now('%d %b %Y') }}{% endmacro %}{{ today() }}",
    ],
)
def test_templates_are_told_one_day(
    tokenizer: Any, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.chat_template = clock + " " + TEMPLATE
    first = chat(tokenizer)

    class Later(chat_template_utils.datetime):  # type: ignore[name-defined,misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2031, 5, 4)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert chat(tokenizer) == first
    assert "26 Jul 2024" in first


def test_a_template_without_end_is_an_error_within_seconds(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompting, "LONGEST", 0.2)
    many = "{% for i in range(99999) %}"
    for loop in (
        many + many + many + "{% endfor %}" * 3,
        "{% macro m(n) %}{% for i in range(9) %}{{ m(n + 1) if n < 90 }}{% endfor %}{% endmacro %}"
        "{{ m(0) }}",
        "{{ lipsum(n=1000000) }}",
    ):
        tokenizer.chat_template = TEMPLATE + loop
        start = time.monotonic()
        with pytest.raises(ValueError, match=r"came to no end in .* it loops; correct it"):
            chat(tokenizer)
        assert time.monotonic() - start < 20
    # The next one is not watched any more.
    tokenizer.chat_template = TEMPLATE
    assert chat(tokenizer).endswith("<assistant>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 9 ** 9 ** 9 ** 9 }}", r"computes powers \(\*\*\)"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", r"computes powers \(\*\*\)"),
        ("{% for i in range(1000000000) %}{% endfor %}", "OverflowError: Range too big"),
        ("{{ 'a' * 5000000 }}" + TEMPLATE, "makes 5,0.* characters of one question"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ raise_exception('system role first') }}", "TemplateError: system role first"),
        ("{{ messages[0].content.nothing.more }}", "UndefinedError"),
        ("{{ messages[3].content }}", "UndefinedError"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages|length }} hello", "does not write the question into the prompt"),
        ("{% for p in messages[0].content %}{{ p.image }}{% endfor %}", "does not write the quest"),
    ],
)
def test_a_template_that_cannot_be_used_is_said(
    tokenizer: Any, template: str, message: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=f"chat template of .*{message}"):
        chat(tokenizer)


def test_a_question_that_a_template_refuses_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if 'bomb' in messages[0].content %}{{ raise_exception('unsafe') }}{% endif %}"
        + TEMPLATE
    )
    with pytest.raises(ValueError, match=r"cannot be applied to 'What is a bomb.' .*unsafe"):
        prompts(tokenizer, ["Who?", "What is a bomb?"], chat=True)


def test_bold_text_in_a_template_is_no_power(tokenizer: Any) -> None:
    tokenizer.chat_template = "a **b** c {{ dict(**{'a': 'd'}).a }} " + TEMPLATE
    assert chat(tokenizer).removeprefix("<s>").startswith("a **b** c d <s><user>")


def test_a_template_of_several_by_name_needs_a_default(tokenizer: Any) -> None:
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "{{ 1 // 0 }}"}
    assert chat(tokenizer).endswith("<assistant>")
    tokenizer.chat_template = {"a": TEMPLATE, "b": TEMPLATE}
    with pytest.raises(ValueError, match=r"chat template of .*default"):
        chat(tokenizer)


def test_a_template_for_parts_of_a_message_gets_parts(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for p in messages[0].content %}{% if p.type == 'text' %}[{{ p.text }}]{% endif %}"
        "{% endfor %}"
    )
    assert chat(tokenizer) == "<s>[Who?]"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TEMPLATE, "</s>"),
        ("{% for m in messages %}{{ m.content }} <|turn|>\n{% endfor %}", "<|turn|>"),
        ("{% for m in messages %}{{ m.content }}\n</s>{% endfor %}", "</s>"),
        ("{% for m in messages %}{{ m.content }}. <|turn|>{% endfor %}", None),
        ("{{ messages[0].content }}<|turn|>", None),
        ("{{ messages[0].content }}{{ 1 // (2 - messages|length) }}", None),
        (None, None),
    ],
)
def test_what_a_template_ends_an_answer_with_ends_one(
    tokenizer: Any, template: str | None, end: str | None
) -> None:
    """Where a checkpoint's settings do not say so, answers would be as long as they may be."""
    tokenizer.chat_template = template
    tokenizer.add_tokens(AddedToken("<|turn|>", special=True))
    found = None if end is None else tokenizer.convert_tokens_to_ids(end)
    assert turn_end(tokenizer) == found
    ends = end_tokens(GenerationConfig(eos_token_id=[7]), tokenizer)
    assert ends == sorted({7, 2} | ({found} if found is not None else set()))


# ----------------------------------------------------------------------------------- control tokens


@pytest.mark.parametrize(
    "sign", ["</s>", "<s>", "<pad>", "<<s>s>", "</s></s>", "<|end|>", "<|fim|>", "<think>"]
)
@pytest.mark.parametrize("is_chat", [True, False])
def test_control_tokens_in_a_question_are_text(tokenizer: Any, sign: str, is_chat: bool) -> None:
    """Special ones, and those in brackets that the template alone makes special."""
    plain_ones = [AddedToken("<think>"), AddedToken("<|fim|>")]
    tokenizer.add_tokens([AddedToken("<|end|>", special=True), *plain_ones])
    tokenizer.chat_template = TEMPLATE.replace("</s>", "</s><|end|>") + "<think>\n"
    question = f"What is {sign} here?"
    plain, found = (prompts(tokenizer, [q], is_chat)[0] for q in ("What is x here?", question))
    controls = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    assert sum(i in controls for i in found) == sum(i in controls for i in plain)
    spelled = tokenizer.decode(plain).replace("What is x here?", question)
    assert tokenizer.decode(found) == spelled


def test_what_was_cut_has_the_tokens_of_text(tokenizer: Any) -> None:
    """As the tokenizer spells it if told to leave special tokens alone."""
    found = prompts(tokenizer, ["Is </s> a tag?"], chat=True)[0]
    inner = tokenizer("<user> Is </s> a tag?", add_special_tokens=False, split_special_tokens=True)
    assert found[1 : 1 + len(inner["input_ids"])] == inner["input_ids"]


@pytest.mark.parametrize("text", ["Is </s> a tag?", "</s>", "a<s>b <s>  c", "x </s>\n<unk>"])
def test_cut_text_of_a_tokenizer_like_llamas_gains_no_space(text: str) -> None:
    """It puts one before whatever begins a text, and so would before each piece."""
    llamas = rehearsal.tokenizer()
    as_text = llamas(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    llamas.chat_template = "{{ messages[0].content }}"
    assert prompts(llamas, [text], chat=True)[0][1:] == as_text
    assert opened(llamas, [text])[0][1:] == as_text


# -------------------------------------------------------------------------------- what opens a text


def test_a_token_that_ends_texts_does_not_end_prompts(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    plain = prompts(tokenizer, ["Who?"], chat=False)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer("a")["input_ids"][-1] == 2
    assert opening(tokenizer) == [1]
    assert prompts(tokenizer, ["Who?"], chat=False) == plain
    assert opened(tokenizer, []) == []


def test_nothing_opens_where_the_tokenizer_opens_nothing(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    assert opening(tokenizer) == []
    assert prompts(tokenizer, ["Who?"], chat=False)[0][0] != tokenizer.bos_token_id


def test_truncation_of_a_tokenizer_does_not_cut_prompts(tokenizer: Any) -> None:
    long = "Who is " + "very " * 40 + "old?"
    expected = [prompts(tokenizer, [long], is_chat) for is_chat in (True, False)]
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=300)
    tokenizer.truncation_side, tokenizer.model_max_length = "left", 8
    assert [prompts(tokenizer, [long], is_chat) for is_chat in (True, False)] == expected


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "question 1 is blank; expected a text"),
        (" \u3000\u200b\ufeff", "question 1 is blank"),
        ("a\0b", r"question 1 holds U\+0000, which is no character"),
        ("a\ud800b", r"question 1 holds U\+D800"),
        ("a\ufdd0b", r"question 1 holds U\+FDD0"),
    ],
)
def test_questions_that_are_no_text_are_refused(
    tokenizer: Any, question: str, message: str
) -> None:
    for is_chat in (True, False):
        with pytest.raises(ValueError, match=message):
            prompts(tokenizer, ["Who?", question], is_chat)
