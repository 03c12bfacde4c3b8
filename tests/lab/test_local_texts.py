"""Local corpora: what is found, read and digested."""

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crane_lab.store import ROOT
from crane_lab.texts import local


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "en.txt").write_text("A cat sat.\n\n  A dog ran.  \n", encoding="utf-8")
    (tmp_path / "zh.txt").write_text("猫坐着。\u2028狗跑了。\n", encoding="utf-8")
    (tmp_path / "vi.txt").write_bytes("\ufeffCon mèo ngồi.\r\nCon chó chạy.".encode())
    return tmp_path


def test_a_line_is_a_document(folder: Path) -> None:
    assert local.read_texts(folder, "en") == ["A cat sat.", "A dog ran."]
    assert local.read_texts(folder, "zh") == ["猫坐着。\u2028狗跑了。"]
    assert local.read_texts(folder, "vi") == ["Con mèo ngồi.", "Con chó chạy."]


def test_unknown_language_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"'fr'.*available: en, vi, zh"):
        local.read_texts(folder, "fr")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"corpus folder .*nowhere does not exist"):
        local.read_texts(tmp_path / "nowhere", "en")


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
def test_empty_corpus(folder: Path, content: bytes) -> None:
    (folder / "en.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"en\.txt is empty"):
        local.read_texts(folder, "en")


def test_invalid_utf8_names_the_line(folder: Path) -> None:
    (folder / "vi.txt").write_bytes(b"tot\ntot\n\xc3\x28")
    with pytest.raises(ValueError, match=r"vi\.txt is not valid UTF-8 \(byte 8, line 3\)"):
        local.read_texts(folder, "vi")


def test_the_format_is_part_of_the_digest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "en.txt").write_text('{"text": "one"}\n')
    (tmp_path / "b" / "en.jsonl").write_text('{"text": "one"}\n')
    first, second = (local.corpus_digests(tmp_path / name, ["en"]) for name in ("a", "b"))
    assert first != second


def test_fingerprint_follows_the_file(folder: Path) -> None:
    before = local.corpus_digests(folder, ["en", "zh"])
    (folder / "zh.txt").write_text("别的。\n", encoding="utf-8")
    after = local.corpus_digests(folder, ["en", "zh"])
    assert before["en"] == after["en"] and before["zh"] != after["zh"]
    with pytest.raises(ValueError, match="available"):
        local.corpus_digests(folder, ["fr"])


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
    assert local.read_texts(tmp_path, "xx") == READ
    write(tmp_path / "other" / name, TEXTS, column="body")
    assert local.read_texts(tmp_path / "other", "xx", text_column="body") == READ
    with pytest.raises(ValueError, match=r"xx\..*no column 'text'; there are: id, body"):
        local.read_texts(tmp_path / "other", "xx")
    write(tmp_path / "numbers" / name, [1, 2])
    with pytest.raises(ValueError, match=r"xx\..*'text' must be a text, got int"):
        local.read_texts(tmp_path / "numbers", "xx")


def test_a_folder_per_language_and_a_path_with_the_language_in_it(tmp_path: Path) -> None:
    write(tmp_path / "xx" / "b.jsonl", ["third"])
    write(tmp_path / "xx" / "a.parquet", ["first", "second"])
    (tmp_path / "xx" / "notes.md").write_text("no text of the corpus")
    (tmp_path / "xx" / ".hidden.txt").write_text("no text of the corpus")
    for source in (tmp_path, tmp_path / "{language}", str(tmp_path / "{language}")):
        assert local.read_texts(source, "xx") == ["first", "second", "third"]
    assert local.read_texts(tmp_path / "{language}" / "b.jsonl", "xx") == ["third"]
    one = local.corpus_digests(tmp_path, ["xx"])
    write(tmp_path / "xx" / "b.jsonl", ["fourth"])
    assert local.corpus_digests(tmp_path, ["xx"]) != one


def test_repetitions_are_left_out(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Tiếng Việt")
    lines = ["Tiếng Việt", "a b", decomposed, "Tiếng  Việt ", "A b"]
    (tmp_path / "vi.txt").write_text("\n".join(lines), encoding="utf-8")
    assert local.read_texts(tmp_path, "vi") == ["Tiếng Việt", "a b", "A b"]
    every = ["Tiếng Việt", "a b", decomposed, "Tiếng  Việt", "A b"]
    assert local.read_texts(tmp_path, "vi", deduplicate=False) == every


def test_the_testbeds_texts_are_what_they_were() -> None:
    # Shipped results were computed on them before repetitions were left out.
    for folder in ("attribution", "perplexity"):
        for language in ("en", "zh", "vi"):
            path = ROOT / "data" / "testbed" / "corpus" / folder / f"{language}.txt"
            lines = path.read_text(encoding="utf-8").split("\n")
            assert local.read_texts(path.parent, language) == list(filter(None, lines))


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
        local.read_texts(source, "xx")
