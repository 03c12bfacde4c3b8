"""Verdicts of a judge that costs money, kept in one SQLite file as they arrive."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from crane_lab.engines.judging import JudgeError, one_line
from crane_lab.store.files import canonical, digest_of

#: How a reply ended that no further asking will make readable.
REFUSED = ("refused", "content_filter")


class Question(NamedTuple):
    """One answer to be judged, under the digest of all that its verdict depends on."""

    key: str
    language: str
    question: str
    answer: str


class Kept(NamedTuple):
    """Verdicts by key, and how many others are there whose checksum does not fit."""

    verdicts: dict[str, dict[str, Any]]
    damaged: int = 0

    def settled(self) -> dict[str, dict[str, Any]]:
        """Those that stay: a grade, or an answer that the endpoint refuses to have graded.

        A reply that could not be read is kept to be looked at; a rerun asks again.
        """
        return {
            key: row
            for key, row in self.verdicts.items()
            if row["status"] == "scored" or row["finish"] in REFUSED
        }


class VerdictCache:
    """Verdicts in one SQLite file, each committed as it arrives.

    Every access opens the file anew for one short transaction, which is safe between threads and
    between processes, on network drives too (where the write-ahead log is not). The first grade
    under a key stays. Every row has a checksum over all its columns in a table of its own; a row
    that it does not fit is as good as absent.
    """

    _COLUMNS = (
        *("key", "judge", "language", "question", "answer", "status", "score", "reason", "reply"),
        *("finish", "served_model", "asked", "prompt_tokens", "completion_tokens", "judged_at"),
    )
    _TABLES = (
        "CREATE TABLE IF NOT EXISTS judges (judge TEXT PRIMARY KEY, settings TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, judge TEXT NOT NULL, "
        "language TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, "
        "status TEXT NOT NULL, score INTEGER, reason TEXT NOT NULL, reply TEXT NOT NULL, "
        "finish TEXT, served_model TEXT, asked INTEGER NOT NULL, prompt_tokens INTEGER, "
        "completion_tokens INTEGER, judged_at TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS seals (key TEXT PRIMARY KEY, digest TEXT NOT NULL)",
    )

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as file:
                # A damaged character makes the checksum fail, not the reading.
                file.text_factory = lambda raw: raw.decode("utf-8", "replace")
                yield file
        except (sqlite3.Error, UnicodeError, MemoryError) as error:  # it repeats damaged names
            raise self._unusable(str(error)) from error

    def _unusable(self, what: str) -> JudgeError:
        return JudgeError(
            f"the cache of verdicts {self.path} cannot be used: {one_line(what)}. Nothing in it "
            "was changed. If it was damaged, `sqlite3 FILE .recover` saves what can be read; put "
            "the file aside under another name, and all is asked and paid for again"
        )

    def prepare(self, settings: Mapping[str, Any]) -> str:
        """Make the file ready to be written, before anything is paid for; return the judge's id.

        A damaged index is made anew. Raises JudgeError for a file that is damaged otherwise.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JudgeError(f"no folder for the cache of verdicts {self.path}: {error}") from error
        text = canonical(dict(settings))
        judge = digest_of(text)
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            sealed = "seals" in self._check_tables(file)
            if self._problem(file):
                file.execute("REINDEX")
                if problem := self._problem(file):
                    raise self._unusable(problem)
                warnings.warn(f"an index of {self.path} was damaged and is made anew", stacklevel=5)
            for table in self._TABLES:
                file.execute(table)
            file.execute("INSERT OR REPLACE INTO judges VALUES (?, ?)", (judge, text))
            if not sealed:
                rows = file.execute(f"SELECT {', '.join(self._COLUMNS)} FROM verdicts").fetchall()
                seals = [(row[0], _seal(row)) for row in rows]
                file.executemany("INSERT INTO seals VALUES (?, ?)", seals)
            file.execute("COMMIT")
        return judge

    @staticmethod
    def _problem(file: sqlite3.Connection) -> str:
        """What is wrong with the file but for single values, which the checksums tell of."""
        found = [str(row[0]) for row in file.execute("PRAGMA integrity_check")]
        return "; ".join(text for text in found if text != "ok" and " value in " not in text)

    def _check_tables(self, file: sqlite3.Connection) -> set[str]:
        """The names of the tables there are; JudgeError if one is not as this class makes it.

        A damaged name would otherwise pass for an empty file, and all be paid for again.
        """
        made = set[tuple[str | None, ...]]()
        for sql in self._TABLES:
            name = sql.split()[5]
            made.add(("table", name, name, sql.replace("IF NOT EXISTS ", "")))
            made.add(("index", f"sqlite_autoindex_{name}_1", name, None))
        found = file.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        for row in found:
            if row not in made:
                raise self._unusable(f"its {row[0]} {row[1]!r} is not one that this program makes")
        return {row[1] for row in found}

    def register(self, settings: Mapping[str, Any]) -> str:
        """Note what is really sent to a judge, and return the id for it."""
        text = canonical(dict(settings))
        with self._open() as file:
            file.execute("INSERT OR REPLACE INTO judges VALUES (?, ?)", (digest_of(text), text))
        return digest_of(text)

    def write(self, row: Mapping[str, Any]) -> None:
        """Keep one verdict (a value per column); the first grade under its key stays."""
        values = tuple(row[name] for name in self._COLUMNS)
        marks = ", ".join("?" * len(values))
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            if row["key"] not in self._read(file, [row["key"]]).settled():
                file.execute(f"INSERT OR REPLACE INTO verdicts VALUES ({marks})", values)
                file.execute(
                    "INSERT OR REPLACE INTO seals VALUES (?, ?)", (values[0], _seal(values))
                )
            file.execute("COMMIT")

    def read(self, keys: Sequence[str]) -> Kept:
        """Return the verdicts there are among `keys`; reading makes no file and alters none."""
        if not keys or not self.path.exists():
            return Kept({})
        with self._open() as file:
            return self._read(file, keys)

    def _read(self, file: sqlite3.Connection, keys: Sequence[str]) -> Kept:
        tables = self._check_tables(file)
        if "verdicts" not in tables:
            return Kept({})
        columns = ", ".join(f"v.{name}" for name in self._COLUMNS)
        sealed = "seals" in tables  # a file from before there were checksums has none
        join = "LEFT JOIN seals s ON s.key = v.key" if sealed else ""
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), 500):  # SQLite bounds the number of values
            part = tuple(keys[start : start + 500])
            rows += file.execute(
                f"SELECT {columns}, {'s.digest' if sealed else 'NULL'} FROM verdicts v {join} "
                f"WHERE v.key IN ({', '.join('?' * len(part))})",
                part,
            ).fetchall()
        asked = set(keys)
        whole = [
            row for *row, digest in rows if row[0] in asked and (digest == _seal(row) or not sealed)
        ]
        named = (dict(zip(self._COLUMNS, row, strict=True)) for row in whole)
        return Kept({row["key"]: row for row in named}, len(rows) - len(whole))


def _seal(row: Iterable[Any]) -> str:
    """The checksum of a row, over all its columns in their order."""
    return digest_of(json.dumps([*row], default=repr), 32)
