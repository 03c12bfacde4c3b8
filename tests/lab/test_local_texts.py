"""Local corpora: what is found, read and digested."""

import gzip
import hashlib
import json
import lzma
import tracemalloc
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from byte_tokens import PLAIN

from crane_core.windows import token_windows
from crane_lab.store import ROOT
from crane_lab.texts import documents, local


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
    content = lines.encode()
    if path.suffix in (".gz", ".xz"):
        content = (gzip if path.suffix == ".gz" else lzma).compress(content)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["xx.jsonl", "xx.jsonl.gz", "xx.jsonl.xz", "xx.parquet"])
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
    elif kind == "no object":
        path.write_text('{"text": "a"}\n"text"\n')
    elif kind == "NaN":
        path.write_text('{"text": NaN}\n')
    elif kind == "over several lines":
        path.write_text(json.dumps({"text": "a"}, indent=1))
    elif kind == "deep":
        path.write_text('{"text":' * 100_000)
    elif kind == "long number":
        path.write_text('{"text": "a", "id": ' + "1" * 5000 + "}")
    elif kind == "what a server says":
        path.write_text('{"error": "Access denied"}')
    elif kind == "nested Parquet":
        pq.write_table(pa.table({"text": [{"body": "a"}]}), folder / "xx.parquet")
    elif kind == "bytes in Parquet":
        pq.write_table(pa.table({"text": [b"a"]}), folder / "xx.parquet")
    elif kind == "pointer":
        (folder / "xx.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "link":
        (folder / "xx.txt").symlink_to(folder / "gone")
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
        ("empty folder", r"folder .*xx is empty; expected files \.txt \(one document per line\)"),
        ("a file", r"xx\.jsonl is a file; expected a folder with one <language>\.txt"),
        ("no such path", r"no corpus for language 'xx': no such file .*xx\.txt"),
        ("format", r"xx\.csv has an unknown format; expected \.txt"),
        ("not JSON", r"xx\.jsonl, line 2: not JSON"),
        ("a list", r"xx\.jsonl, line 1: a JSON array; expected one object per line"),
        ("no object", r"xx\.jsonl, line 2: expected an object with 'text', got str"),
        ("NaN", r"xx\.jsonl, line 1: 'text' must be a text, got float"),
        ("over several lines", r"xx\.jsonl, line 1: not JSON .*expected one object per line"),
        ("deep", r"xx\.jsonl, line 1: .*recursion"),
        ("long number", r"xx\.jsonl, line 1: .*digits"),
        ("what a server says", r"xx\.jsonl says only .*Access denied"),
        ("nested Parquet", r"xx\.parquet, row 1: 'text' must be a text, got dict"),
        ("bytes in Parquet", r"xx\.parquet, row 1: 'text' must be a text, got bytes"),
        ("pointer", r"xx\.parquet is a pointer of Git LFS"),
        ("link", r"xx\.txt is a link to .*gone, which does not exist"),
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


# ---------------------------------------------------------------- what lies beside what is expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vi.csv", r"available: en\); vi\.csv is not read; expected \.txt.*read_csv"),
        ("vi.json", r"vi\.json is not read.*rename it to \.jsonl"),
        ("vi.json.gz", r"vi\.json\.gz is not read.*rename it to \.jsonl"),
        ("vi.txt.zip", r"vi\.txt\.zip is not read.*unpack it"),
        ("vi", r"vi is not read; expected \.txt"),
        ("VI.TXT", r"VI\.TXT is not read"),
        ("VI.txt", r"VI\.txt is for 'VI'"),
        ("vi.part1.txt", r"vi\.part1\.txt is for 'vi\.part1'"),
        ("vi.txt/", r"vi\.txt is a folder; expected a file, or a folder 'vi' of files"),
    ],
)
def test_what_is_almost_a_languages_file_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "en.txt").write_text("A cat.")
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_text("text")
    with pytest.raises(ValueError, match=rf"no corpus for language 'vi' in .*{message}"):
        local.corpus_files(tmp_path, "vi")


def test_data_of_a_folder_that_are_not_read_are_said(tmp_path: Path) -> None:
    write(tmp_path / "vi" / "a.jsonl", ["one"])
    (tmp_path / "vi" / "README.md").write_text("about it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local.corpus_files(tmp_path, "vi")
    (tmp_path / "vi" / "b.csv").write_text("text\ntwo\n")
    with pytest.warns(UserWarning, match=r"vi: b\.csv not read; read are \.txt"):
        assert local.read_texts(tmp_path, "vi") == ["one"]
    (tmp_path / "vi" / "a.jsonl").unlink()
    with pytest.raises(ValueError, match=r"vi has only README\.md, b\.csv; expected files"):
        local.corpus_files(tmp_path, "vi")
    (tmp_path / "en" / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"en has only data; expected files"):
        local.corpus_files(tmp_path, "en")


def test_paths_that_people_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "{x}", "50 %", "văn bản", "[1]*?", "~no-one"):
        write(tmp_path / name / "vi.jsonl", [name])
        assert local.read_texts(tmp_path / name, "vi") == [name]
        assert local.read_texts(name, "vi") == [name]
        assert local.read_texts(f"~/{name}/{{language}}.jsonl", "vi") == [name]
    with pytest.raises(FileNotFoundError, match=r"\{lang\}\.txt does not exist.*\{language\}"):
        local.read_texts(tmp_path / "{lang}.txt", "vi")


def test_beginnings_are_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "vi.txt").write_text("version https://git-lfs.github.com/spec/v1\n")
    write(tmp_path / "en.parquet", ["a"])
    local.checked_files(tmp_path, "en")
    with pytest.raises(ValueError, match=r"vi\.txt is a pointer of Git LFS"):
        local.checked_files(tmp_path, "vi")


# --------------------------------------------------------------------------- larger than the memory


@pytest.mark.parametrize("name", ["xx.txt", "xx.jsonl", "xx.jsonl.gz", "xx.parquet"])
def test_documents_are_read_when_they_are_asked_for(tmp_path: Path, name: str) -> None:
    texts = [f" document {i % 90} " if i % 7 else "" for i in range(100)]
    if name == "xx.txt":
        (tmp_path / name).write_text("\n".join(texts))
    else:
        write(tmp_path / name, texts)
    expected = list(dict.fromkeys(filter(None, map(str.strip, texts))))
    found = local.read_texts(tmp_path, "xx")
    assert list(found) == list(found) == expected and len(found) == len(expected)
    assert found == expected and found != expected[1:] and found != [*expected[1:], "other"]
    assert found[3] == expected[3] and found[-1] == expected[-1]
    assert found[2:9:3] == expected[2:9:3] and found[5:5] == []
    assert found.take([8, 1, 1, 40]) == [expected[i] for i in (8, 1, 1, 40)]
    assert "document 5" in found and "document" not in found
    with pytest.raises(IndexError):
        found[len(expected)]
    every = local.read_texts(tmp_path, "xx", deduplicate=False)
    assert every == list(filter(None, map(str.strip, texts)))


def test_parts_are_those_of_the_documents(folder: Path) -> None:
    (folder / "en.txt").write_text("".join(f"document {i}\n" for i in range(50)))
    parts = [local.LocalTexts(folder, "en", part=part) for part in documents.PARTS]
    assert sorted([*parts[0], *parts[1]]) == sorted(local.read_texts(folder, "en"))
    for part, own in zip(documents.PARTS, parts, strict=True):
        assert {documents.part_of(documents.document_digest(text)) for text in own} == {part}
    (folder / "en.txt").write_text(parts[0][0])
    assert len(local.LocalTexts(folder, "en", part=documents.PARTS[1])) == 0


def test_windows_are_those_of_a_list(tmp_path: Path) -> None:
    texts = [f"document {i} {'x' * (i % 37 + 1)}" for i in range(3000)]
    (tmp_path / "en.txt").write_text("\n".join(texts))
    found = local.read_texts(tmp_path, "en")
    for n in (1, 40, 900):
        expected = token_windows(PLAIN, texts, n, 64, seed=3)
        assert torch.equal(token_windows(PLAIN, found, n, 64, seed=3), expected)


def test_only_what_is_drawn_is_read_and_in_few_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "en.txt").write_text("".join(f"{i} ".ljust(200, "a") + "\n" for i in range(5000)))
    found, goes, plain_take = local.read_texts(tmp_path, "en"), [], local.LocalTexts.take

    def take(self: local.LocalTexts, places: np.ndarray) -> list[str]:
        goes.append(len(places))
        return plain_take(self, places)

    monkeypatch.setattr(local.LocalTexts, "take", take)
    token_windows(PLAIN, found, 10, 20, seed=0)
    assert goes == [64]
    goes.clear()
    token_windows(PLAIN, found, 1000, 200, seed=0)
    assert len(goes) == 2 and sum(goes) < 1.3 * 1000


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_text("".join(f"{i} ".ljust(400, "a") + "\n" for i in range(10_000)))
    tracemalloc.start()
    try:
        found = local.read_texts(tmp_path, "en")
        token_windows(PLAIN, found, 20, 64, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.25 * path.stat().st_size


def test_files_that_change_in_between_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("one\ntwo\n")
    found = local.read_texts(tmp_path, "en")
    assert found[1] == "two"
    (tmp_path / "en.txt").write_text("zero\none\ntwo\n")
    with pytest.raises(ValueError, match=r"en\.txt changed while the documents were read; run ag"):
        list(found)


@pytest.mark.parametrize(
    "text",
    ["a b", " a b", "a b\n", "a  b", "a\tb", "a\u3000b", "a\xa0b", "a\x1cb", "", " ", "e\u0301 b"],
)
def test_digests_are_those_of_texts_taken_apart(text: str) -> None:
    apart = " ".join(unicodedata.normalize("NFC", text).split())
    assert documents.document_digest(text) == documents.document_digest(apart)
    assert documents.document_digest(apart).hex() == hashlib.sha256(apart.encode()).hexdigest()
