"""Texts per language and their token windows."""

import dataclasses
import gzip
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import hub_data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import PreTrainedTokenizerFast

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store
from crane_lab.texts import corpora


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


def test_twenty_one_languages(tmp_path: Path) -> None:
    codes = [f"l{number}" for number in range(21)]
    for code in codes:
        (tmp_path / f"{code}.txt").write_text(f"A text in {code}.", encoding="utf-8")
    windows = corpora.read_windows(PLAIN, tmp_path, codes, 2, 6, seed=0)
    assert list(windows) == codes and len(corpora.fingerprint(tmp_path, codes)) == 21


def test_fingerprint_follows_the_file(folder: Path) -> None:
    before = corpora.fingerprint(folder, ["en", "zh"])
    (folder / "zh.txt").write_text("别的。\n", encoding="utf-8")
    after = corpora.fingerprint(folder, ["en", "zh"])
    assert before["en"] == after["en"] and before["zh"] != after["zh"]
    with pytest.raises(ValueError, match="available"):
        corpora.fingerprint(folder, ["fr"])


# ------------------------------------------------------------------------------ formats and folders


TEXTS = ["Một dòng.\nHai dòng.", "  第二。 ", "", "A cat."]
READ = ["Một dòng.\nHai dòng.", "第二。", "A cat."]


def write(path: Path, texts: list[Any], column: str = "text") -> Path:
    """Texts as JSON lines, packed or not, or as Parquet, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path)
        return path
    lines = "".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


@pytest.mark.parametrize("name", ["xx.jsonl", "xx.jsonl.gz", "xx.parquet"])
def test_formats(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, [*TEXTS, None])
    assert corpora.read_texts(tmp_path, "xx") == READ
    write(tmp_path / "other" / name, TEXTS, column="body")
    assert corpora.read_texts(tmp_path / "other", "xx", text_column="body") == READ
    with pytest.raises(ValueError, match=r"xx\..*no column 'text'; there are: id, body"):
        corpora.read_texts(tmp_path / "other", "xx")
    write(tmp_path / "numbers" / name, [1, 2])
    with pytest.raises(ValueError, match=r"xx\..*'text' must be a text, got int"):
        corpora.read_texts(tmp_path / "numbers", "xx")


def test_a_folder_per_language_and_a_path_with_the_language_in_it(tmp_path: Path) -> None:
    write(tmp_path / "xx" / "b.jsonl", ["third"])
    write(tmp_path / "xx" / "a.parquet", ["first", "second"])
    (tmp_path / "xx" / "notes.md").write_text("no text of the corpus")
    (tmp_path / "xx" / ".hidden.txt").write_text("no text of the corpus")
    for source in (tmp_path, tmp_path / "{language}", str(tmp_path / "{language}")):
        assert corpora.read_texts(source, "xx") == ["first", "second", "third"]
    assert corpora.read_texts(tmp_path / "{language}" / "b.jsonl", "xx") == ["third"]
    one = corpora.fingerprint(tmp_path, ["xx"])
    write(tmp_path / "xx" / "b.jsonl", ["fourth"])
    assert corpora.fingerprint(tmp_path, ["xx"]) != one


def test_repetitions_are_left_out(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Tiếng Việt")
    lines = ["Tiếng Việt", "a b", decomposed, "Tiếng  Việt ", "A b"]
    (tmp_path / "vi.txt").write_text("\n".join(lines), encoding="utf-8")
    assert corpora.read_texts(tmp_path, "vi") == ["Tiếng Việt", "a b", "A b"]
    every = ["Tiếng Việt", "a b", decomposed, "Tiếng  Việt", "A b"]
    assert corpora.read_texts(tmp_path, "vi", deduplicate=False) == every


def test_the_testbeds_texts_are_what_they_were() -> None:
    # Shipped results were computed on them before repetitions were left out.
    for folder in ("attribution", "perplexity"):
        for language in ("en", "zh", "vi"):
            path = ROOT / "data" / "testbed" / "corpus" / folder / f"{language}.txt"
            lines = path.read_text(encoding="utf-8").split("\n")
            assert corpora.read_texts(path.parent, language) == list(filter(None, lines))


def _bad(folder: Path, kind: str) -> str | Path:
    path = folder / "xx.jsonl"
    if kind == "two":
        write(folder / "xx.parquet", ["a"])
        write(path, ["a"])
    elif kind == "empty folder":
        (folder / "xx").mkdir()
    elif kind == "a file":
        return write(path, ["a"])
    elif kind == "no such path":
        return folder / "{language}.txt"
    elif kind == "format":
        (folder / "xx.csv").write_text("a")
        return folder / "{language}.csv"
    elif kind == "not JSON":
        path.write_text('{"text": "a"}\nb\n')
    elif kind == "a list":
        path.write_text('["text"]\n')
    elif kind == "half a character":
        path.write_text('{"text": "\\ud800"}\n')
    elif kind == "UTF-8":
        path.write_bytes(b'{"text": "\xff"}\n')
    elif kind == "Parquet":
        write(folder / "xx.parquet", ["a" * 100])
        content = (folder / "xx.parquet").read_bytes()
        (folder / "xx.parquet").write_bytes(content[:-20])
    elif kind == "Parquet in another encoding":
        table = pa.table({"text": pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)})
        pq.write_table(table, folder / "xx.parquet")
    elif kind == "gzip":
        (folder / "xx.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}')[:-9])
    elif kind == "no text":
        write(folder / "xx.parquet", [None, " "])
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("two", r"several corpora for language 'xx', expected one: xx\.jsonl, xx\.parquet"),
        ("empty folder", r"folder .*xx is empty; expected files \.txt, \.jsonl"),
        ("a file", r"xx\.jsonl is a file; expected a folder with one <language>\.txt"),
        ("no such path", r"no corpus for language 'xx': no such file .*xx\.txt"),
        ("format", r"xx\.csv has an unknown format; expected \.txt"),
        ("not JSON", r"xx\.jsonl, line 2: not JSON"),
        ("a list", r"xx\.jsonl, line 1: expected an object with 'text', got list"),
        ("half a character", r"xx\.jsonl, line 1: .*surrogates not allowed"),
        ("UTF-8", r"xx\.jsonl is not valid UTF-8 \(byte 10, line 1\)"),
        ("Parquet", r"xx\.parquet is no Parquet file, or it is damaged"),
        ("Parquet in another encoding", r"xx\.parquet is not valid UTF-8"),
        ("gzip", r"xx\.jsonl\.gz is damaged"),
        ("no text", r"xx\.parquet is empty; expected documents"),
    ],
)
def test_bad_files(tmp_path: Path, kind: str, message: str) -> None:
    source = _bad(tmp_path, kind)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        corpora.read_texts(source, "xx")


def test_long_documents_are_cut_off() -> None:
    windows = corpora.windows(WITH_BOS, ["abcdef", "gh"], 1, 7, seed=0, max_document_tokens=3)
    assert WITH_BOS.decode(windows[0]) in ("<s>abc<s>gh", "<s>gh<s>abc")
    with pytest.raises(ValueError, match="max_document_tokens must be at least 1, got 0"):
        corpora.Corpus("x", max_document_tokens=0)
    with pytest.raises(ValueError, match="unknown part 'test'"):
        corpora.Corpus("x", part="test")


def test_token_counts(folder: Path) -> None:
    texts = {x: corpora.read_texts(folder, x) for x in ("en", "zh")}
    table = corpora.token_counts(WITH_BOS, texts).set_index("language")
    # One token per byte, so three per Chinese character.
    assert list(table.loc["en"]) == [2, 20, 20, 20, 10, 1, 1]
    assert list(table.loc["zh"]) == [1, 9, 27, 27, 27, 3, 1]
    with pytest.raises(ValueError, match="no text in language 'vi'"):
        corpora.token_counts(WITH_BOS, {"vi": []})


# ------------------------------------------------------------------------------- hub, in its layout


LANGUAGES = ("en", "zh", "vi")
SOURCE = "hub:wikimedia/wikipedia:20231101.{language}"


def article(language: str, index: int) -> dict[str, Any]:
    return {
        "id": str(index),
        "url": f"https://{language}.wikipedia.org/{index}",
        "title": f"{language} {index}",
        "text": f"{language} article {index}. " + f"{language} words " * (index % 7),
    }


def write_wikipedia(folder: Path, changes: dict[str, Any] | None = None) -> None:
    splits = {
        f"20231101.{x}": {"train": [article(x, i) for i in range(300)] + [article(x, 0)] * 20}
        for x in LANGUAGES
    }
    for row in splits["20231101.vi"]["train"]:
        row.update(changes or {})
    hub_data.write_dataset(
        folder / "wikimedia" / "wikipedia", splits, hub_data.WIKIPEDIA, "cc-by-sa-3.0"
    )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory from which `wikimedia/wikipedia` is a folder, which `datasets` takes for
    the data set of that name."""
    root = tmp_path / "hub"
    write_wikipedia(root)
    monkeypatch.chdir(root)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # `datasets` gives its threads five seconds to end after every stream.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    yield root


def of_hub(tmp_path: Path, **changes: Any) -> corpora.Corpus:
    options = {"source": SOURCE, "n_documents": 100, "store": Store(tmp_path / "store")}
    return corpora.Corpus(**{**options, **changes})  # type: ignore[arg-type]


def test_hub_documents_are_drawn_by_seed_and_kept(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = of_hub(tmp_path)
    texts = {x: corpus.texts(x) for x in LANGUAGES}
    known = {x: [article(x, i)["text"].strip() for i in range(300)] for x in LANGUAGES}
    for x in LANGUAGES:
        assert len(texts[x]) == len(set(texts[x])) == 100
        assert set(texts[x]) <= set(known[x]) and texts[x] != known[x][:100]
    assert of_hub(tmp_path, seed=1).texts("en") != texts["en"]
    every = of_hub(tmp_path, n_documents=1000)
    assert sorted(every.texts("en")) == sorted(known["en"])
    assert len(of_hub(tmp_path, n_documents=1000, deduplicate=False).texts("en")) == 320
    # The same draw anywhere, and afterwards without the hub.
    elsewhere = dataclasses.replace(corpus, store=Store(tmp_path / "elsewhere"))
    assert elsewhere.texts("en") == texts["en"]
    prints = corpus.fingerprint(LANGUAGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset_builder", None)
    assert of_hub(tmp_path).texts("vi") == texts["vi"]
    assert of_hub(tmp_path).fingerprint(LANGUAGES) == prints
    windows = of_hub(tmp_path).windows(PLAIN, LANGUAGES, 5, 8, seed=0)
    assert {tuple(value.shape) for value in windows.values()} == {(5, 8)}
    with pytest.raises(ValueError, match=r"language 'en': too little.*n_documents is 100"):
        of_hub(tmp_path).windows(PLAIN, ["en"], 5000, 8, seed=0)


def test_parts_of_one_source_have_no_document_in_common(hub: Path, tmp_path: Path) -> None:
    for n, seeds in ((100, (0, 0)), (1000, (0, 1))):
        parts = [
            set(of_hub(tmp_path, part=part, seed=seed, n_documents=n).texts("en"))
            for part, seed in zip(corpora.PARTS, seeds, strict=True)
        ]
        assert parts[0] and parts[1] and not parts[0] & parts[1]
    assert len(parts[0]) + len(parts[1]) == 300
    assert 0.1 < len(parts[1]) / 300 < 0.3  # one in five


def test_what_a_corpus_depends_on_is_in_its_fingerprint(hub: Path, tmp_path: Path) -> None:
    plain = of_hub(tmp_path).fingerprint(["en"])
    for changes in (
        {"seed": 1},
        {"n_documents": 99},
        {"part": "attribution"},
        {"part": "perplexity"},
        {"max_document_tokens": 5},
    ):
        assert of_hub(tmp_path, **changes).fingerprint(["en"]) != plain


def test_provenance_names_source_and_licence(hub: Path, folder: Path, tmp_path: Path) -> None:
    corpus = of_hub(tmp_path, part="perplexity")
    about = json.loads(json.dumps(corpus.provenance(["en", "vi"])))
    assert about["vi"]["config"] == "20231101.vi"
    assert about["en"]["dataset"] == "wikimedia/wikipedia"
    assert about["en"]["licence"] == ["cc-by-sa-3.0"]
    assert about["en"]["revision"] and about["en"]["seed"] == 0
    assert about["en"]["read"] >= 100 and about["en"]["part"] == "perplexity"
    assert about["en"]["documents"] == len(corpus.texts("en"))
    local = corpora.Corpus(str(folder)).provenance(["en"])["en"]
    digest = corpora.fingerprint(folder, ["en"])["en"]
    assert local["files"] == {str(folder / "en.txt"): digest} and local["fingerprint"] == digest
    assert (local["documents"], local["characters"]) == (2, 20)


def test_a_pipeline_divides_a_hub_dataset(hub: Path, tmp_path: Path) -> None:
    settings = Settings(
        model=str(ROOT / "data" / "testbed" / "base"),
        corpus=SOURCE,
        perplexity_corpus=SOURCE,
        corpus_documents=200,
        n_samples=4,
        n_perplexity=2,
        window=8,
    )
    found = Pipeline(settings, Store(tmp_path / "store"))
    assert found.windows["zh"].shape == (4, 8)
    assert found.perplexity_windows["zh"].shape == (2, 8)
    for x in LANGUAGES:
        assert not set(found.corpus.texts(x)) & set(found.perplexity_corpus.texts(x))
    assert found.token_counts()["language"].tolist() == list(LANGUAGES)
    # One folder given for both is divided, too; two are not.
    own = Settings().corpus
    testbed = {"corpus": str(ROOT / own), "perplexity_corpus": str(ROOT / own)}
    both = Pipeline(dataclasses.replace(settings, **testbed), found.store)  # type: ignore[arg-type]
    assert both.corpus.part == "attribution" and both.perplexity_corpus.part == "perplexity"
    testbed["perplexity_corpus"] = str(ROOT / Settings().perplexity_corpus)
    apart = Pipeline(dataclasses.replace(settings, **testbed), found.store)  # type: ignore[arg-type]
    assert apart.corpus.part is apart.perplexity_corpus.part is None
    assert apart.corpus.fingerprint(["en"]) == corpora.fingerprint(testbed["corpus"], ["en"])


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"source": "hub:wikimedia/wikipedia:20231101.{language}x"},
            ValueError,
            r"no configuration '20231101\.enx' among the dataset's 3; closest: 20231101\.en",
        ),
        ({"source": SOURCE + ":test"}, ValueError, r"Bad split: test\. Available.*train"),
        ({"text_column": "body"}, ValueError, r"no column 'body'; there are: id, url, title, text"),
        ({"source": "hub:wikimedia/wikipedia:20231101.en"}, ValueError, r"with \{language\} in it"),
        ({"source": "hub:{language}:a:b:c"}, ValueError, r"expected hub:<dataset>"),
        (
            {"source": "hub:no/such-{language}"},
            ConnectionError,
            r"hub did not answer.*local folder",
        ),
    ],
)
def test_wrong_hub_sources(
    hub: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(kind, match=message):
        of_hub(tmp_path, **changes).texts("en")
    assert not list((tmp_path / "store").rglob("*.json"))  # nothing is kept of it


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (
            DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub."),
            PermissionError,
            r"the dataset is gated; accept its terms.*HF_TOKEN",
        ),
        (
            DatasetNotFoundError("Dataset 'x' doesn't exist on the Hub or cannot be accessed."),
            FileNotFoundError,
            r"no such dataset or revision, or it is private.*hf auth login",
        ),
        (ConnectionError("Couldn't reach 'x'"), ConnectionError, r"hub did not answer.*folder"),
        (FileNotFoundError("Couldn't find any data file"), ConnectionError, r"did not answer"),
        (EmptyDatasetError("doesn't contain any data files"), ValueError, r"any data files"),
        (
            DataFilesNotFoundError("No (supported) data files found"),
            ValueError,
            r"supported. data files",
        ),
        (RuntimeError("Dataset scripts are no longer"), ValueError, r"scripts are no longer"),
    ],
)
def test_what_the_hub_may_say(
    hub: Path,
    tmp_path: Path,
    raised: Exception,
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(kind, match=rf"corpus hub:wikimedia/wikipedia:20231101\.en.*{message}"):
        of_hub(tmp_path).texts("en")


def test_a_connection_that_breaks_on_the_way(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = datasets.IterableDataset.__iter__

    def breaking(self: Any) -> Iterator[Any]:
        for index, row in enumerate(real(self)):
            if index == 30:
                raise OSError("reset by peer")
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(datasets.IterableDataset, "__iter__", breaking)
        with pytest.raises(ConnectionError, match=r"broke after 30 documents; run again"):
            of_hub(tmp_path).texts("en")
    assert not list((tmp_path / "store").rglob("*.*"))
    assert len(of_hub(tmp_path).texts("en")) == 100


def test_hub_documents_without_text(hub: Path, tmp_path: Path) -> None:
    write_wikipedia(hub, {"text": " "})
    with pytest.raises(ValueError, match=r"20231101\.vi:train is empty: 320 documents"):
        of_hub(tmp_path).texts("vi")
