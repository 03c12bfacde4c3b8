"""Tokenizers of one token per byte, so that what a window holds can be worked out by hand."""

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import PreTrainedTokenizerFast


def byte_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    vocab = {
        symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    vocab["<s>"] = 256
    tokenizer = Tokenizer(token_models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **({"bos_token": "<s>"} if bos else {})
    )


PLAIN, WITH_BOS = byte_tokenizer(False), byte_tokenizer(True)
