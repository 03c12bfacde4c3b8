"""Verdicts of a judge that costs money, kept in one SQLite file as they arrive."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from crane_lab.engines.judging import JudgeError
from crane_lab.store.files import canonical, digest_of


class Question(NamedTuple):
    """One answer to be judged, under the digest of all that its verdict depends on."""

    key: str
    language: str
    question: str
    answer: str


class VerdictCache:
    """Verdicts in one SQLite file, each committed as it arrives.

    Every access opens the file anew for one short transaction, which is safe between threads and
    between processes, on network drives too (where the write-ahead log is not). The first verdict
    under a key stays.
    """

    _TABLES = (
        "CREATE TABLE IF NOT EXISTS judges (judge TEXT PRIMARY KEY, settings TEXT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, judge TEXT NOT NULL, "
        "language TEXT NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, "
        "status TEXT NOT NULL, score INTEGER, reason TEXT NOT NULL, reply TEXT NOT NULL, "
        "finish TEXT, served_model TEXT, asked INTEGER NOT NULL, prompt_tokens INTEGER, "
        "completion_tokens INTEGER, judged_at TEXT NOT NULL)",
    )

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as file:
                yield file
        except sqlite3.Error as error:
            raise JudgeError(
                f"the cache of verdicts {self.path} cannot be used: {error}. Nothing in it was "
                "changed; name another file as `cache`, or repair this one"
            ) from error

    def prepare(self, settings: Mapping[str, Any]) -> str:
        """Make the file ready to be written, before anything is paid for; return the judge's id."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JudgeError(f"no folder for the cache of verdicts {self.path}: {error}") from error
        text = canonical(dict(settings))
        judge = digest_of(text)
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            for table in self._TABLES:
                file.execute(table)
            file.execute("INSERT OR IGNORE INTO judges VALUES (?, ?)", (judge, text))
            file.execute("COMMIT")
        return judge

    def write(self, row: Mapping[str, Any]) -> None:
        """Keep one verdict; the first under its key stays."""
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        with self._open() as file:
            file.execute(
                f"INSERT INTO verdicts ({names}) VALUES ({marks}) ON CONFLICT (key) DO NOTHING",
                tuple(row.values()),
            )

    def read(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the verdicts there are among `keys`; reading makes no file and alters none."""
        if not keys or not self.path.exists():
            return {}
        rows = []
        with self._open() as file:
            if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'verdicts'").fetchone():
                return {}
            for start in range(0, len(keys), 500):  # SQLite bounds the number of values
                part = tuple(keys[start : start + 500])
                rows += file.execute(
                    "SELECT key, status, score, reason, finish FROM verdicts "
                    f"WHERE key IN ({', '.join('?' * len(part))})",
                    part,
                ).fetchall()
        names = ("status", "score", "reason", "finish")
        return {key: dict(zip(names, values, strict=True)) for key, *values in rows}
