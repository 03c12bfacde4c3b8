"""Texts per language and their token windows."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import PreTrainedTokenizerFast

from crane_core import corpora


def byte_tokenizer(bos: bool) -> PreTrainedTokenizerFast:
    """One token per byte, so that what a window holds can be worked out by hand."""
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "en.txt").write_text("A cat sat.\n\n  A dog ran.  \n", encoding="utf-8")
    (tmp_path / "zh.txt").write_text("猫坐着。\u2028狗跑了。\n", encoding="utf-8")
    (tmp_path / "vi.txt").write_bytes("\ufeffCon mèo ngồi.\r\nCon chó chạy.".encode())
    return tmp_path


def test_a_line_is_a_document(folder: Path) -> None:
    assert corpora.read_texts(folder, "en") == ["A cat sat.", "A dog ran."]
    assert corpora.read_texts(folder, "zh") == ["猫坐着。\u2028狗跑了。"]
    assert corpora.read_texts(folder, "vi") == ["Con mèo ngồi.", "Con chó chạy."]


def test_unknown_language_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'fr'.*available: en, vi, zh"):
        corpora.read_texts(folder, "fr")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"corpus folder .*nowhere does not exist"):
        corpora.read_texts(tmp_path / "nowhere", "en")


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
def test_empty_corpus(folder: Path, content: bytes) -> None:
    (folder / "en.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"en\.txt is empty"):
        corpora.read_texts(folder, "en")


def test_invalid_utf8_names_the_line(folder: Path) -> None:
    (folder / "vi.txt").write_bytes(b"tot\ntot\n\xc3\x28")
    with pytest.raises(ValueError, match=r"vi\.txt is not valid UTF-8 \(byte 8, line 3\)"):
        corpora.read_texts(folder, "vi")


def test_bos_opens_every_document() -> None:
    windows = corpora.windows(WITH_BOS, ["abc", "defg"], n_samples=1, window=9, seed=0)
    text = WITH_BOS.decode(windows[0])
    assert text in ("<s>abc<s>defg", "<s>defg<s>abc")
    assert WITH_BOS.bos_token_id not in corpora.windows(PLAIN, ["abc", "defg"], 1, 7, 0)


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
        corpora.windows(tokenizer, texts, possible + 1, window, seed)
    if not possible:
        return
    windows = corpora.windows(tokenizer, texts, possible, window, seed)
    assert windows.shape == (possible, window) and windows.dtype == torch.long
    # Fewer windows are the beginning of more, and the same seed gives the same ones.
    fewer = corpora.windows(tokenizer, texts, 1, window, seed)
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
    first = corpora.windows(PLAIN, texts, 20, 16, seed=1)
    assert not torch.equal(first, corpora.windows(PLAIN, texts, 20, 16, seed=2))


def test_more_documents_than_are_tokenised_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"document {index}" for index in range(40)]
    at_once = corpora.windows(WITH_BOS, texts, 25, 16, seed=3)
    monkeypatch.setattr(corpora, "_CHUNK", 7)
    assert torch.equal(at_once, corpora.windows(WITH_BOS, texts, 25, 16, seed=3))


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
        corpora.windows(PLAIN, texts, n_samples, window, seed=0)


def test_every_language_gets_the_same(folder: Path) -> None:
    windows = corpora.read_windows(PLAIN, folder, ["en", "zh", "vi"], 4, 5, seed=0)
    assert list(windows) == ["en", "zh", "vi"]
    assert {tuple(value.shape) for value in windows.values()} == {(4, 5)}
    with pytest.raises(ValueError, match=r"language 'en': too little text: 2 documents"):
        corpora.read_windows(PLAIN, folder, ["en"], 5, 5, seed=0)


def test_fingerprint_follows_the_file(folder: Path) -> None:
    before = corpora.fingerprint(folder, ["en", "zh"])
    (folder / "zh.txt").write_text("别的。\n", encoding="utf-8")
    after = corpora.fingerprint(folder, ["en", "zh"])
    assert before["en"] == after["en"] and before["zh"] != after["zh"]
    with pytest.raises(ValueError, match="available"):
        corpora.fingerprint(folder, ["fr"])
