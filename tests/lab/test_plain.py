"""Text files as people have them: read right, or one error that says what was found."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crane_lab.texts import plain

TEXT = "Một dòng.\nHai\u2028dòng.\n\nBa."
LINES = ["Một dòng.", "Hai\u2028dòng.", "", "Ba."]


def _zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": _zst,
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_packings_line_ends_and_byte_order_marks(
    tmp_path: Path, packing: str, end: str, mark: str
) -> None:
    path = tmp_path / f"vi.txt{packing}"
    path.write_bytes(PACK[packing]((mark + TEXT.replace("\n", end)).encode()))
    assert list(plain.lines(path)) == LINES
    assert plain.whole_text(path) == TEXT


def test_every_packing_is_tested() -> None:
    assert set(PACK) == {"", *plain.PACKINGS}


@pytest.mark.parametrize("packing", list(PACK)[1:])
def test_a_packed_file_that_is_cut_off_is_damaged(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.txt{packing}"
    whole = PACK[packing]("".join(f"line {i} {i**3}\n" for i in range(2000)).encode())
    for content in (whole[: len(whole) // 2], b"no such thing", whole[:5] + b"\0" * 40):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.txt{packing} is damaged"):
            list(plain.lines(path))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 137000000000\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "a pointer of Git LFS.*git lfs pull"),
        (b"/annex/objects/MD5-s5--2b00\n", "a pointer of git-annex.*git annex get"),
        (TEXT.encode("utf-16"), "not valid UTF-8 but UTF-16.*iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "not valid UTF-8 but UTF-16"),
        (TEXT.encode("utf-32"), "not valid UTF-8 but UTF-32"),
        ("two\nlines".encode("utf-16-le"), "line 1: it has NUL characters.*UTF-16"),
        ("một\ncâu".encode("utf-16-be"), "NUL|not valid UTF-8"),
        (b"fine\nbad\0\n", "line 2: it has NUL"),
        ("一\n二\n猫坐着。".encode("gb18030"), r"not valid UTF-8 \(byte 3, line 2\).*iconv"),
        ("one\nnaïve".encode("latin-1"), r"not valid UTF-8 \(byte 6, line 2\)"),
        ("chữ".encode()[:-1], r"not valid UTF-8 \(byte 2, line 1\)"),
        (b"\xef\xbb\xbfone\n\xff", r"not valid UTF-8 \(byte 7, line 2\)"),
        (gzip.compress(b"text", mtime=0), r"no text but packed by gzip \(name it \.gz\)"),
        (bz2.compress(b"text"), r"no text but packed by bzip2"),
        (lzma.compress(b"text"), r"no text but packed by xz"),
        (_zst(b"text"), r"no text but packed by Zstandard"),
        (b"%PDF-1.7\n", "no text but PDF"),
        (b"PAR1....PAR1", r"no text but Parquet \(name it \.parquet\)"),
        (b"<!DOCTYPE html>\n<html><body>Sign in", "a web page or XML"),
        (b"\xef\xbb\xbf \n<HTML lang='en'>", "a web page or XML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page or XML"),
        (b'{"text": "a"}\n{"text": "b"}\n', r"holds JSON, not plain text; name it \.jsonl"),
        (b'\xef\xbb\xbf[\n  {"text": "a"}]', "holds JSON"),
        (b"Access denied", "says only 'Access denied', as servers do"),
        (b"404: Not Found\n", "says only '404: Not Found'"),
        (b"Entry not found", "says only"),
        (b"Invalid username or password.", "says only"),
        (b"Access to model x/y is restricted. You must be authenticated.", "says only"),
        ("a\u2028b\u2028c".encode(), "no line feeds but 2 of U\\+2028; expected lines"),
        ("a\x85b".encode(), "no line feeds but 1 of U\\+0085"),
    ],
)
def test_what_is_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vi.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"vi\.txt.*{message}"):
        list(plain.lines(path))


def test_archives_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with zipfile.ZipFile(tmp_path / "vi.txt", "w") as file:
        file.write(tmp_path / "a.txt", "a.txt")
    with pytest.raises(ValueError, match="no text but a zip archive"):
        plain.whole_text(tmp_path / "vi.txt")
    with tarfile.open(tmp_path / "vi.txt", "w") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    with pytest.raises(ValueError, match="no text but a tar archive"):
        plain.whole_text(tmp_path / "vi.txt")
    # Within a packed file as well: `vi.txt.gz` that is a tar.
    (tmp_path / "vi.txt.gz").write_bytes(gzip.compress((tmp_path / "vi.txt").read_bytes()))
    with pytest.raises(ValueError, match="no text but a tar archive"):
        plain.whole_text(tmp_path / "vi.txt.gz")


@pytest.mark.parametrize(
    "content",
    [
        b"Access denied\nWhat is it about?\n",
        b"What does 404 Not Found mean?",
        b"a < b and <html> in between",
        b"{x} is [1] a set",
        b"[1] Smith, 2001",
        b"Forbidden fruits are " + b"sweet " * 60,
        b"version https://example.org",
    ],
)
def test_texts_that_only_look_like_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "en.txt"
    path.write_bytes(content)
    assert list(plain.lines(path)) == content.decode().splitlines()


def test_where_an_encoding_breaks_far_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vi.txt"
    line = "chữ Việt " * 30 + "\n"
    before = (line * 5000).encode()
    path.write_bytes(before + b"ok \xe1\xbb" + line.encode())
    with pytest.raises(ValueError, match=rf"byte {len(before) + 3}, line 5001\)"):
        list(plain.lines(path))


def test_a_line_without_an_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "LONGEST", 1000)
    path = tmp_path / "en.txt"
    path.write_text("short\n" + "x" * 999 + "\n" + "x" * 1000 + "\n" + "x" * 5000)
    with pytest.raises(ValueError, match=r"en\.txt, line 4: more than 1,000 characters without"):
        list(plain.lines(path))


def test_files_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vi.txt").symlink_to(tmp_path / "blobs" / "4d7a")
    with pytest.raises(FileNotFoundError, match=r"vi\.txt is a link to .*4d7a, which does not"):
        plain.whole_text(tmp_path / "vi.txt")
    with pytest.raises(FileNotFoundError, match=r"cannot be read: No such file.*zh\.txt"):
        plain.whole_text(tmp_path / "zh.txt")
    (tmp_path / "zh.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"cannot be read: Is a directory.*zh\.txt"):
        plain.whole_text(tmp_path / "zh.txt")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "en.txt").write_text("text")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"cannot be read: Permission denied.*en\.txt"):
        plain.whole_text(tmp_path / "en.txt")


def test_another_kind_of_file_can_be_expected(tmp_path: Path) -> None:
    path = tmp_path / "vi.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    plain.check(path, b"PAR1")
    path.write_bytes(POINTER)
    with pytest.raises(ValueError, match="pointer of Git LFS"):
        plain.check(path, b"PAR1")
