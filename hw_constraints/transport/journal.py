"""What this machine knows of its jobs: an SQLite file, so that nothing is lost when the driver is killed.

A list of jobs has a nonce, which is part of its jobs' names. A list that was not finished is taken up with the same
nonce, and the device answers with the results that it has; a finished one is measured anew.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lists (key TEXT PRIMARY KEY, nonce TEXT NOT NULL, opened TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, device TEXT NOT NULL, state TEXT NOT NULL, result TEXT, failures INTEGER NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '', changed TEXT NOT NULL
);
"""
_BUSY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class JobNote:
    """What is known of a job.

    Attributes:
        state: `asked`, `measured` or `failed`.
        failures: tries that did not bring an answer.
        note: what the last of them said.
    """

    state: str
    failures: int
    note: str


class Journal:
    """The file; each call is one transaction that is on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.executescript(_SCHEMA)

    def nonce(self, key: str) -> str:
        """The nonce of a list: the one it has when it was not finished, else a new one."""
        with self._open() as database:
            new = (key, secrets.token_hex(8), _now())
            database.execute("INSERT INTO lists VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", new)
            (nonce,) = database.execute("SELECT nonce FROM lists WHERE key = ?", (key,)).fetchone()
        return str(nonce)

    def finish(self, key: str) -> None:
        """Closes a list."""
        with self._open() as database:
            database.execute("DELETE FROM lists WHERE key = ?", (key,))

    def result(self, job: str) -> dict[str, Any] | None:
        """A job's result, if it has arrived."""
        with self._open() as database:
            row = database.execute("SELECT result FROM jobs WHERE id = ? AND state = 'measured'", (job,)).fetchone()
        return json.loads(row[0]) if row else None

    def note(self, job: str) -> JobNote | None:
        """What is known of a job."""
        with self._open() as database:
            row = database.execute("SELECT state, failures, note FROM jobs WHERE id = ?", (job,)).fetchone()
        return JobNote(state=row[0], failures=row[1], note=row[2]) if row else None

    def asked(self, job: str, device: str) -> None:
        """A job is about to be asked for."""
        with self._open() as database:
            database.execute(
                "INSERT INTO jobs (id, device, state, changed) VALUES (?, ?, 'asked', ?) "
                "ON CONFLICT (id) DO UPDATE SET state = 'asked', changed = excluded.changed WHERE state = 'failed'",
                (job, device, _now()),
            )

    def measured(self, job: str, result: dict[str, Any]) -> None:
        """A result has arrived."""
        with self._open() as database:
            database.execute(
                "UPDATE jobs SET state = 'measured', result = ?, changed = ? WHERE id = ?",
                (json.dumps(result), _now(), job),
            )

    def failed(self, job: str, why: str, *, given_up: bool) -> None:
        """A try brought no answer."""
        with self._open() as database:
            database.execute(
                "UPDATE jobs SET failures = failures + 1, note = ?, state = ?, changed = ? WHERE id = ?",
                (why, "failed" if given_up else "asked", _now(), job),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=_BUSY_S)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self._path}: not a usable journal of jobs: {error}; move it away") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
