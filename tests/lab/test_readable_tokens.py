"""Tokens as readable strings: no character is shown in halves, and nothing is lost."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from crane_lab.show.figures import readable_tokens


@pytest.fixture(scope="module")
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, without any merge: every non-ASCII character takes several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("text", ["Hà Nội ở đâu?", "越南的首都", "plain"])
def test_whole_characters(bytes_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = bytes_tokenizer(text)["input_ids"]
    pieces, counts = readable_tokens(bytes_tokenizer, ids)
    assert pieces == list(text)
    assert counts.tolist() == [len(letter.encode()) for letter in text]


def test_values_are_added_up(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = bytes_tokenizer("đi")["input_ids"]
    pieces, sums = readable_tokens(bytes_tokenizer, ids, [1.0, -0.25, 2.0])
    assert pieces == ["đ", "i"]
    np.testing.assert_allclose(sums, [0.75, 2.0])
    with pytest.raises(ValueError, match="3 tokens"):
        readable_tokens(bytes_tokenizer, ids, [1.0])


def test_text_that_ends_inside_a_character(bytes_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = bytes_tokenizer("a越")["input_ids"][:-1]
    pieces, counts = readable_tokens(bytes_tokenizer, ids)
    assert pieces[0] == "a" and counts.sum() == len(ids)
