"""Vocabularies that are one, and those that only look alike."""

from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import Lowercase
from transformers import PreTrainedTokenizerFast

from crane_lab.texts.vocabularies import vocabulary_difference


def words(*names: str, **special: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def test_vocabularies() -> None:
    base = words("a", "b", "c")
    assert vocabulary_difference(base, words("a", "b", "c", eos_token="c")) == ""
    chat = words("a", "b", "c")
    chat.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    assert vocabulary_difference(base, chat) == ""
    assert "lacks 1 token(s), such as '<|user|>'" in vocabulary_difference(chat, base)
    for other, message in (
        (
            words("a", "b", "c", "d"),
            "3 and 4 tokens: the other has besides 1 token(s), such as 'd'",
        ),
        (words("a", "c", "b"), "numbers otherwise 2 token(s), such as 'b'"),
        (
            words("a", "b", "x"),
            "lacks 1 token(s), such as 'c', has besides 1 token(s), such as 'x'",
        ),
    ):
        assert message in vocabulary_difference(base, other)


def test_marks_renamed_in_place() -> None:
    base, chat = words("a", "b", "c"), words("a", "b", "c")
    base.add_special_tokens({"additional_special_tokens": ["<|reserved|>", "<|im_start|>"]})
    chat.add_special_tokens({"additional_special_tokens": ["<|begin|>", "<|user|>"]})
    assert vocabulary_difference(base, chat) == ""
    lacking = vocabulary_difference(base, words("a", "b"))
    assert "the other lacks 3 token(s), such as '<|im_start|>'" in lacking


def test_the_same_tokens_made_otherwise() -> None:
    """Other merges, or another normaliser, encode the same text otherwise."""

    def tokenizer(*merges: tuple[str, str], normalizer: Any = None) -> PreTrainedTokenizerFast:
        vocabulary = {token: i for i, token in enumerate([*"theriv", "th", "he", "the", "?"])}
        made = Tokenizer(BPE(vocabulary, list(merges), unk_token="?"))
        if normalizer is not None:
            made.normalizer = normalizer
        return PreTrainedTokenizerFast(tokenizer_object=made)

    base = tokenizer(("t", "h"), ("th", "e"))
    assert vocabulary_difference(base, tokenizer(("t", "h"), ("th", "e"))) == ""
    for other in (
        tokenizer(("h", "e")),
        tokenizer(("t", "h"), ("th", "e"), normalizer=Lowercase()),
    ):
        assert 'the same tokens, but others of them for "The river' in (
            vocabulary_difference(base, other)
        )
