"""Token windows, worked out by hand (Algorithm 1, line 3)."""

from typing import Any

import pytest
import torch
from byte_tokens import PLAIN, WITH_BOS, byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as token_models
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from crane_core import windows as module
from crane_core.windows import plain_tokens, token_windows


def test_bos_opens_every_document() -> None:
    windows = token_windows(WITH_BOS, ["abc", "defg"], n_samples=1, window=9, seed=0)
    text = WITH_BOS.decode(windows[0])
    assert text in ("<s>abc<s>defg", "<s>defg<s>abc")
    assert WITH_BOS.bos_token_id not in token_windows(PLAIN, ["abc", "defg"], 1, 7, 0)


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.text("abcdé", min_size=1, max_size=9), min_size=1, max_size=12),
    window=st.integers(2, 6),
    seed=st.integers(0, 5),
    bos=st.booleans(),
)
def test_windows_cut_the_shuffled_stream(
    texts: list[str], window: int, seed: int, bos: bool
) -> None:
    tokenizer = WITH_BOS if bos else PLAIN
    total = sum(len(text.encode()) + bos for text in texts)
    possible = total // window
    with pytest.raises(ValueError, match=rf"enough for {possible} windows of {window} tokens"):
        token_windows(tokenizer, texts, possible + 1, window, seed)
    if not possible:
        return
    windows = token_windows(tokenizer, texts, possible, window, seed)
    assert windows.shape == (possible, window) and windows.dtype == torch.long
    # Fewer windows are the beginning of more, and the same seed gives the same ones.
    fewer = token_windows(tokenizer, texts, 1, window, seed)
    assert torch.equal(fewer[0], windows[0])
    # Nothing is repeated: the tokens are those of the documents in some order, the end cut off.
    stream: list[int] = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        stream += ids + ([tokenizer.bos_token_id] if bos else [])
    counts = torch.bincount(torch.tensor(stream), minlength=257)
    used = torch.bincount(windows.flatten(), minlength=257)
    assert (used <= counts).all() and total - window < int(used.sum()) <= total


def test_another_seed_is_another_order() -> None:
    texts = [f"document {index}" for index in range(40)]
    first = token_windows(PLAIN, texts, 20, 16, seed=1)
    assert not torch.equal(first, token_windows(PLAIN, texts, 20, 16, seed=2))


def test_more_documents_than_are_tokenised_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"document {index}" for index in range(40)]
    at_once = token_windows(WITH_BOS, texts, 25, 16, seed=3)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert torch.equal(at_once, token_windows(WITH_BOS, texts, 25, 16, seed=3))


@pytest.mark.parametrize(
    ("texts", "n_samples", "window", "message"),
    [
        ([], 1, 4, "corpus is empty"),
        (["abc"], 0, 4, "n_samples must be at least 1, got 0"),
        (["abc"], 1, 1, "window must be at least 2"),
    ],
)
def test_bad_requests(texts: list[str], n_samples: int, window: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_windows(PLAIN, texts, n_samples, window, seed=0)


def test_long_documents_are_cut_off() -> None:
    windows = token_windows(WITH_BOS, ["abcdef", "gh"], 1, 7, seed=0, max_document_tokens=3)
    assert WITH_BOS.decode(windows[0]) in ("<s>abc<s>gh", "<s>gh<s>abc")


def test_special_tokens_in_a_text_are_text() -> None:
    text = "now <s>10</s> coins"
    window = token_windows(WITH_BOS, [text], 1, 1 + len(text), seed=0)[0].tolist()
    assert window[0] == WITH_BOS.bos_token_id and WITH_BOS.bos_token_id not in window[1:]
    assert WITH_BOS.decode(window[1:]) == text
    # One call as text, and the next is as it was.
    assert WITH_BOS("<s>")["input_ids"] == [WITH_BOS.bos_token_id]
    slow = ByT5Tokenizer()
    assert plain_tokens(slow, ["a</s>", "b"]) == [[ord(x) + 3 for x in "a</s>"], [ord("b") + 3]]
    assert plain_tokens(WITH_BOS, []) == []


def test_a_special_token_that_text_cannot_be_told_from_is_refused() -> None:
    # A vocabulary whose words alone make the token: nothing can spell it.
    whole = Tokenizer(token_models.WordLevel({"<s>": 0, "?": 1, "a": 2}, unk_token="?"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<s>", unk_token="?")
    assert plain_tokens(made, ["a b"]) == [[2, 1]]  # what stands for unknown words may be there
    with pytest.raises(ValueError, match="text 1 holds the special token <s>; take it out"):
        plain_tokens(made, ["a", "a <s>"])


@pytest.mark.parametrize("tokenizer", [WITH_BOS, ByT5Tokenizer()], ids=["fast", "slow"])
def test_half_a_surrogate_pair_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="text 1 holds half a surrogate pair; take it out"):
        plain_tokens(tokenizer, ["fine", "broken \ud83d"])


def test_truncation_and_padding_of_a_tokenizer_do_not_cut_windows() -> None:
    """Some tokenizer.json come with both, and with a side that is cut."""
    made = byte_tokenizer(True)
    made.backend_tokenizer.enable_truncation(4)
    made.backend_tokenizer.enable_padding(length=64)
    made.truncation_side = made.padding_side = "left"
    made.model_max_length = 4
    expected = token_windows(WITH_BOS, ["abcdefgh", "ij"], 1, 12, 0)
    assert torch.equal(token_windows(made, ["abcdefgh", "ij"], 1, 12, 0), expected)


def test_every_window_opens_with_bos() -> None:
    texts = ["abc", "defg", "hi"]
    windows = token_windows(WITH_BOS, texts, 3, 4, seed=0, opening="bos")
    assert windows.shape == (3, 4) and windows.dtype == torch.long
    assert (windows[:, 0] == WITH_BOS.bos_token_id).all()
    assert WITH_BOS.bos_token_id not in windows[:, 1:]
    text = WITH_BOS.decode(windows[:, 1:].flatten())
    assert len(text) == 9 and {*text.split("\n")[:2]} < set(texts)
    # Of 12 signs with their line ends, 4 windows of 3 new tokens can be made, no fifth.
    assert len(token_windows(WITH_BOS, texts, 4, 4, seed=0, opening="bos")) == 4
    with pytest.raises(ValueError, match="enough for 4 windows of 4 tokens"):
        token_windows(WITH_BOS, texts, 5, 4, seed=0, opening="bos")


def test_a_tokenizer_without_bos_opens_none() -> None:
    windows = token_windows(PLAIN, ["abc", "defg"], 2, 4, seed=0, opening="bos")
    assert PLAIN.decode(windows.flatten()).replace("\n", "|") in ("abc|defg", "defg|abc")
    with pytest.raises(ValueError, match="unknown window opening 'eos'"):
        token_windows(PLAIN, ["abc"], 1, 2, seed=0, opening="eos")
