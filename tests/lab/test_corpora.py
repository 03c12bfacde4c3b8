"""A corpus, local or of the hub: its documents, windows, digests and provenance."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import hub_data
import pytest
from byte_tokens import PLAIN, WITH_BOS
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

from crane_lab.pipeline import Pipeline
from crane_lab.settings import Settings
from crane_lab.store import ROOT, Store
from crane_lab.texts import corpora, documents, local


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "en.txt").write_text("A cat sat.\n\n  A dog ran.  \n", encoding="utf-8")
    (tmp_path / "zh.txt").write_text("猫坐着。\u2028狗跑了。\n", encoding="utf-8")
    (tmp_path / "vi.txt").write_bytes("\ufeffCon mèo ngồi.\r\nCon chó chạy.".encode())
    return tmp_path


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
    assert list(windows) == codes and len(local.corpus_digests(tmp_path, codes)) == 21


def test_languages_with_the_same_text_are_said(folder: Path) -> None:
    (folder / "xx.txt").write_bytes((folder / "en.txt").read_bytes())
    with pytest.warns(UserWarning, match=r"en and xx have the same text.*a copy"):
        corpora.read_windows(PLAIN, folder, ["en", "vi", "xx"], 2, 5, seed=0)


def test_one_source_under_two_names(folder: Path, tmp_path: Path) -> None:
    other, copy = tmp_path / "other", tmp_path / "copy"
    other.mkdir()
    copy.mkdir()
    for language in ("en", "zh", "vi"):
        (copy / f"{language}.txt").write_bytes((folder / f"{language}.txt").read_bytes())
    (other / "en.txt").symlink_to(folder / "en.txt")
    (other / "vi.txt").write_text("Khác.")
    languages, own = ["en", "vi"], str(folder)
    for same in (own, f"{own}/", f"{own}/../{folder.name}", f"{own}/{{language}}.txt", str(other)):
        assert corpora.one_source(own, same, languages)
    assert not corpora.one_source(own, str(copy), languages)
    assert not corpora.one_source(own, str(other), ["vi"])
    assert corpora.one_source("hub:a/{language}", "hub:a/{language}", languages)
    assert not corpora.one_source("hub:a/{language}", own, languages)


# ------------------------------------------------------------------------------ formats and folders


def test_of_a_large_corpus_some_documents_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "COUNTED", 10)
    (tmp_path / "en.txt").write_text("".join(f"{i:03d}\n" for i in range(95)))
    texts = local.read_texts(tmp_path, "en")
    counted = list(corpora._spread(texts, 10))
    assert counted == [f"{i:03d}" for i in (0, 10, 19, 29, 38, 48, 57, 67, 76, 86)]
    table = corpora.token_counts(WITH_BOS, {"en": texts, "vi": texts[:7]}).set_index("language")
    assert list(table["documents"]) == [10, 7] and list(table["tokens"]) == [30, 21]
    assert list(table["characters"]) == [30, 21]


def test_settings_of_a_corpus() -> None:
    with pytest.raises(ValueError, match="max_document_tokens must be at least 1, got 0"):
        corpora.Corpus("x", max_document_tokens=0)
    with pytest.raises(ValueError, match="unknown part 'test'"):
        corpora.Corpus("x", part="test")


def test_token_counts(folder: Path) -> None:
    texts = {x: local.read_texts(folder, x) for x in ("en", "zh")}
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
            for part, seed in zip(documents.PARTS, seeds, strict=True)
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
    found = corpora.Corpus(str(folder)).provenance(["en"])["en"]
    digest = local.corpus_digests(folder, ["en"])["en"]
    assert found["files"] == {str(folder / "en.txt"): digest} and found["fingerprint"] == digest
    assert (found["documents"], found["characters"]) == (2, 20)


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
    assert apart.corpus.fingerprint(["en"]) == local.corpus_digests(testbed["corpus"], ["en"])


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
