"""Text files as people have them: unpacked and decoded line by line, or refused in plain words.

Whatever a person gives as text (corpora, questions, items, a judge's instructions) is read here, so
that a file that is not what its name says meets the same words everywhere.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def _zstandard(path: Path) -> IO[bytes]:
    import pyarrow as pa  # not everywhere that questions are read

    return io.BufferedReader(pa.CompressedInputStream(path.open("rb"), "zstd"))


def _damage() -> tuple[type[Exception], ...]:
    """What a damaged packed file raises; pyarrow's errors only where it has been loaded."""
    arrow = sys.modules.get("pyarrow")
    more = () if arrow is None else (arrow.ArrowException,)
    return (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, *more)


#: Endings of packed files, and what unpacks them.
PACKINGS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstandard,
}
#: Characters of a line at most: beyond the longest books, below what fills a memory.
LONGEST = 2**24
#: What the first bytes of other kinds of files are.
_KINDS = {
    b"\x1f\x8b": "packed by gzip (name it .gz)",
    b"BZh": "packed by bzip2 (name it .bz2)",
    b"\xfd7zXZ": "packed by xz (name it .xz)",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard (name it .zst)",
    b"PK\x03\x04": "a zip archive or an Office file",
    b"PK\x05\x06": "an empty zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"PAR1": "Parquet (name it .parquet)",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream, as save_to_disk of `datasets` writes",
    b"%PDF": "PDF",
    b"{\\rtf": "RTF",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an Office file",
    b"\x89HDF": "an HDF5 file",
}
#: Byte order marks of other encodings; that of UTF-32 begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
#: What a server says in place of a file, if that is all there is.
_REFUSALS = re.compile(
    rb"\W*(error\W*)?(access (denied|to \S+.{0,99} (denied|restricted))|(http\W*)?4\d\d\b"
    rb"|(entry|file|page|repository) not found|not found$|forbidden|unauthori[sz]ed"
    rb"|invalid (username|user name|credentials|token)|too many requests|rate limit)",
    re.IGNORECASE,
)
_JSON = re.compile(rb"""(\xef\xbb\xbf)?\s*(\{\s*"\w+"\s*:|\[\s*["{\[])""")
_HEAD = 1024
#: What programs write where a table has no text; as a text of its own it is a mistake.
NOTHING = ("None", "nan", "NaN", "NAN", "null", "NULL", "<NA>", "undefined", "#N/A")


def packing(path: Path) -> str:
    """The one of `PACKINGS` that a file's name ends in, or ""."""
    return path.suffix if path.suffix in PACKINGS else ""


def check(path: Path, kind: bytes = b"") -> None:
    """Look at the beginning of a file, unpacked if it is packed.

    `kind` is what a file of its kind begins with; without it, text is expected. Raises OSError if
    it cannot be opened, and ValueError if it is damaged or evidently something else: a pointer of
    Git LFS, a web page, another kind of file, another encoding.
    """
    with _opened(path) as file:
        head: bytes = file.read(_HEAD)
    if kind and head.startswith(kind):
        return
    problem = _problem(head)
    if not problem and ".txt" in path.suffixes and _JSON.match(head):
        problem = "holds JSON, not plain text; name it .jsonl where JSON lines are read"
    if problem:
        raise ValueError(f"{path} {problem}")


def _problem(head: bytes) -> str:
    """What a file that begins so is instead of text, or ""."""
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"
    if len(head) < _HEAD and b"/annex/objects/" in head:
        return "is a pointer of git-annex, not the file itself; fetch it with `git annex get`"
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return (
                f"is not valid UTF-8 but {encoding}, by its byte order mark; save it as UTF-8, as "
                f"by `iconv -f {encoding} -t UTF-8`"
            )
    for first, kind in _KINDS.items():
        if head.startswith(first):
            return f"is no text but {kind}; expected UTF-8 text"
    if head[257:262] == b"ustar":
        return "is no text but a tar archive; unpack it"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:99].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return (
            "is a web page or XML, as servers send in place of a file; expected text: open it to "
            "see what it says, and download the file again"
        )
    if len(head) < 300 and b"\n" not in head.strip() and _REFUSALS.match(head):
        said = head.decode(errors="replace").strip()
        return f"says only {said!r}, as servers do in place of a file; download it again"
    return ""


def lines(path: Path) -> Iterator[str]:
    """A file's lines, one at a time and without their ends; unpacked by the name's ending.

    Line feeds, carriage returns and both together end a line; U+2028 and its like do not. A byte
    order mark of UTF-8 is no part of the first line.

    Raises as `check`, and ValueError for bytes that are not UTF-8, NUL characters and a line of
    more than `LONGEST` characters, each with its line number, and for a file whose lines are ended
    by other characters only.
    """
    return (line.removesuffix("\n") for line in _lines(path))


def whole_text(path: Path) -> str:
    """All of a text file, with its line ends as line feeds; raises as `lines`."""
    return "".join(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    check(path)
    number, line = 0, ""
    with _opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline=None) as text:
        try:
            while line := text.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST and line[-1] != "\n":
                    raise ValueError(
                        f"{path}, line {number}: more than {LONGEST:,} characters without an end "
                        "of line; expected shorter ones, in .txt one document per line"
                    )
                if "\0" in line:
                    raise ValueError(
                        f"{path}, line {number}: it has NUL characters, as UTF-16 and binary "
                        "files have; save it as UTF-8 text"
                    )
                if number == 1 and not line.endswith("\n") and (other := _other_ends(line)):
                    raise ValueError(
                        f"{path} has no line feeds but {other}; expected lines that end in \\n"
                    )
                yield line
        except UnicodeDecodeError:
            raise _not_utf8(path) from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file's bytes, unpacked; what can go wrong on the way in plain words."""
    try:
        with PACKINGS.get(packing(path), lambda file: file.open("rb"))(path) as file:
            yield file
    except _damage() as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except OSError as error:
        if error.errno is None:  # no matter of the system: bz2 and Zstandard report damage so
            raise ValueError(f"{path} is damaged: {error}") from error
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(
                f"{path} is a link to {os.readlink(path)}, which does not exist"
            ) from error
        raise type(error)(error.errno, f"cannot be read: {error.strerror}", str(path)) from error


def _other_ends(line: str) -> str:
    found = {"U+0085": "\x85", "U+2028": "\u2028", "U+2029": "\u2029"}
    return " and ".join(f"{line.count(x)} of {name}" for name, x in found.items() if x in line)


def _not_utf8(path: Path) -> ValueError:
    """Where it is not, for which the file is read once more: decoders count within pieces."""
    decoder, before, ends, block = codecs.getincrementaldecoder("utf-8")(), 0, 0, b"?"
    with _opened(path) as file:
        while block:
            block, kept = file.read(2**20), decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = before - len(kept) + error.start
                line = ends + error.object[: error.start].count(b"\n") + 1
                return ValueError(
                    f"{path} is not valid UTF-8 (byte {at}, line {line}); save it as UTF-8, as by "
                    "`iconv -f <its encoding> -t UTF-8`"
                )
            before, ends = before + len(block), ends + block.count(b"\n")
    return ValueError(f"{path} changed while it was read; run again")
