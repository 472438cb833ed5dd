"""The SQLite file under a latency table: opened, checked, and only ever changed by whole transactions.

The journal is a write-ahead log, so that a killed writer leaves the state of its last commit. What SQLite itself does
not notice, a row that was edited, lost or smuggled in, the digest over the content shows. It guards against accidents:
who wants to deceive can reckon it anew.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError

SCHEMA = 1
_APPLICATION = 0x42574B54  # "BWKT": file(1) and sqlite3 show it
_CREATE = f"""
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {SCHEMA};
    CREATE TABLE head (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE sessions (name TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE kernels (name TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE networks (name TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
"""
_LOGS = ("-wal", "-shm", "-journal")
KINDS = ("kernels", "networks", "sessions", "facts")


class Database:
    """A connection whose content has been checked.

    Attributes:
        path: the file.
        head: the table's key and reference kernel, as text.
        entries: JSON texts by name, for each of `KINDS`.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, *, writes: bool) -> None:
        self.path = path
        self._connection, self._writes = connection, writes
        self.head: dict[str, str] = {}
        self.entries: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}

    @classmethod
    def create(cls, path: Path, head: Mapping[str, str]) -> Database:
        """A new file; it appears under its name only when it is complete.

        Raises:
            InputError: it cannot be written there.
        """
        partial = path.with_name(f"{path.name}.new")
        for stale in (partial, *(path.with_name(path.name + suffix) for suffix in _LOGS)):
            stale.unlink(missing_ok=True)  # SQLite would play the log of a table that was deleted into this one
        with _readable_errors(path):
            connection = sqlite3.connect(partial)
            try:
                connection.executescript(_CREATE)
                database = cls(partial, connection, writes=True)
                database.head = dict(head)
                with connection:
                    connection.executemany("INSERT INTO head VALUES (?, ?)", head.items())
                    connection.execute("INSERT INTO head VALUES ('content', ?)", (database.content_hash(),))
            finally:
                connection.close()
        partial.rename(path)
        return cls.open(path, write=True)

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Database:
        """Opens a file and checks all of it.

        Raises:
            InputError: there is none, it is no latency table, of another schema, damaged, or not what was written.
        """
        if not path.is_file():
            raise InputError(f"{path}: {'is a folder; name a table' if path.is_dir() else 'no such file'}")
        with _readable_errors(path):
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}", uri=True)
            try:
                if write:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
                database = cls(path, connection, writes=write)
                connection.execute("BEGIN")  # one state of the table, whatever a writer does meanwhile
                database._check()
                connection.rollback()
            except BaseException:
                connection.close()
                raise
        return database

    def _check(self) -> None:
        ask = self._connection.execute
        if ask("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            raise InputError(f"{self.path}: is not a latency table (`bitwright measure kernels` makes them)")
        schema = ask("PRAGMA user_version").fetchone()[0]
        if schema != SCHEMA:
            raise InputError(f"{self.path}: has schema {schema}; this version reads {SCHEMA}: measure the table anew")
        found = ask("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise InputError(
                f"{self.path}: is damaged ({' '.join(found.split())}): take it from a copy or measure it anew"
            )
        self.head = dict(ask("SELECT name, value FROM head"))
        for kind in KINDS:
            for name, value, digest in ask(f"SELECT name, value, digest FROM {kind}"):
                if digest_of(value) != digest:
                    raise InputError(
                        f"{self.path}: {kind} {name[:120]!r} is not what was written: take the table from a copy"
                    )
                self.entries[kind][name] = value
        if self.head.pop("content", None) != self.content_hash():
            raise InputError(f"{self.path}: is not what was written (rows were lost or added): take it from a copy")

    def content_hash(self) -> str:
        """SHA-256 over head and entries; the order in which they came does not matter."""
        parts = [sorted(self.head.items()), *(sorted(self.entries[kind].items()) for kind in KINDS)]
        return digest_of(json.dumps(parts))

    def write(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """Adds or replaces by kind and name, all or nothing.

        Raises:
            InputError: the disk is full, or the file cannot be written.
        """
        before = self.entries
        self.entries = {kind: {**known, **entries.get(kind, {})} for kind, known in before.items()}
        try:
            with _readable_errors(self.path), self._connection:
                for kind, added in entries.items():
                    rows = ((name, value, digest_of(value)) for name, value in added.items())
                    self._connection.executemany(f"INSERT OR REPLACE INTO {kind} VALUES (?, ?, ?)", rows)
                self._connection.execute("UPDATE head SET value = ? WHERE name = 'content'", (self.content_hash(),))
        except BaseException:
            self.entries = before
            raise

    def close(self) -> None:
        """After writing, folds the log into the file, which can then be copied alone."""
        if self._writes:
            with suppress(sqlite3.OperationalError):  # somebody reads just now: the log stays
                self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()


def digest_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """SQLite's complaints as one message."""
    try:
        yield
    except sqlite3.OperationalError as error:  # no room, no permission
        raise InputError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{path}: is damaged or no latency table ({error}): take it from a copy or measure it anew"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def as_text(value: Any) -> str:
    """Canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
