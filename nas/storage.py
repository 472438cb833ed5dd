"""Where a study is kept: SQLite in its folder, or a PostgreSQL database that a team shares; one driver at a time.

Credentials are those of libpq (`PGUSER`, `PGPASSWORD`, `~/.pgpass`, a service file): a URL with a password is refused,
since recipes are kept and shown.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy
from sqlalchemy.engine import URL, make_url

from bitwright.quant.errors import InputError
from bitwright.quant.yaml_lines import shown

# So long a database that does not answer is waited for: a restart, or a network that comes back.
PATIENCE_S = 120.0
_BETWEEN_TRIES_S = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_LOST = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.DBAPIError)


@dataclass(frozen=True, kw_only=True)
class StudyPlace:
    """A study's storage and name.

    Attributes:
        shown: what messages call it.
    """

    storage: optuna.storages.RDBStorage
    name: str
    shown: str


class DatabaseLost(Exception):
    """The database went away in the middle of something; what was not written can be done again."""


@contextmanager
def study_place(
    folder: Path, *, database: str | None, name: str, patient: bool, on_wait: Callable[[str], None]
) -> Iterator[StudyPlace]:
    """The place of a study, this process's own for as long as the context lasts; a killed owner's claim ends with it.

    Args:
        folder: of the search; SQLite's file is there.
        database: `postgresql://host/database`; None is SQLite.
        name: of the study in a shared database.
        patient: whether a database that does not answer is waited for, at most `PATIENCE_S`.
        on_wait: told in words when the database does not answer.

    Raises:
        InputError: another driver has it, the folder is not writable, or the database cannot be used.
        DatabaseLost: from inside the context.
    """
    with _owned(folder):
        if database is None:
            path = folder / "study.db"
            with _stored(path) as storage:
                yield StudyPlace(storage=storage, name="search", shown=str(path))
            return
        url = _url(database)
        _reach(url, database, PATIENCE_S if patient else 0.0, on_wait)
        try:
            storage = optuna.storages.RDBStorage(url.render_as_string(), engine_kwargs={"pool_pre_ping": True})
            try:
                with _claimed(storage.engine, name, database):
                    yield StudyPlace(storage=storage, name=name, shown=f"{database}, study {name!r}")
            finally:
                close(storage)
        except _LOST as error:
            raise DatabaseLost from error


@contextmanager
def says_when_full(folder: Path) -> Iterator[None]:
    """Turns a disk that takes no more into one message.

    Raises:
        InputError: in place of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = error.filename or folder
        raise InputError(
            f"{where}: cannot be written ({error.strerror}); what was told is safe; make room, then start the search "
            "again"
        ) from error


def close(storage: optuna.storages.RDBStorage) -> None:
    """Lets go of a database's connections, so that its files can be moved; the claim on a study stays."""
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: not writable ({error.strerror}); name another folder") from None
    with lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read() or "unknown"
            raise InputError(
                f"{folder}: process {owner} drives this search; wait for it, or name another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def _stored(path: Path) -> Iterator[optuna.storages.RDBStorage]:
    """SQLite that does not wait for the disk at each commit.

    Write-ahead logging keeps every commit when the process is killed; results are flushed in files of their own.
    """
    storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
    storage.engine.dispose()  # connections made from here on are set up below

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def set_up(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    try:
        yield storage
    except _LOST as error:
        raise InputError(
            f"{path}: cannot be written ({_reason(error)}); what was told is safe; make room, then start the search "
            "again"
        ) from error
    finally:
        close(storage)


def _url(database: str) -> URL:
    try:
        url = make_url(database)
    except sqlalchemy.exc.ArgumentError:
        raise InputError(f"search.storage = {database!r}: not a URL; write postgresql://host/database") from None
    if url.password is not None or any(name.endswith("password") for name in url.query):
        raise InputError(
            f"search.storage = {shown(database)}: a password in a recipe is kept and shown; take it out, and set "
            "PGPASSWORD or write it to ~/.pgpass"
        )
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InputError(
            f"search.storage = {database!r} needs psycopg; install it with pip install 'bitwright[postgresql]'"
        ) from None
    return url.set(drivername="postgresql+psycopg")


def _reach(url: URL, database: str, patience_s: float, on_wait: Callable[[str], None]) -> None:
    """Returns when the database answers.

    Raises:
        InputError: it does not within that time.
    """
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
    deadline, said = time.monotonic() + patience_s, False
    while True:
        try:
            with engine.connect():
                return
        except sqlalchemy.exc.OperationalError as error:
            reason = _reason(error)
        if time.monotonic() >= deadline:
            waited = f"for {patience_s:.0f} s; what was told is safe, the same search goes on " if patience_s else ""
            raise InputError(f"search.storage = {database!r} does not answer {waited}({reason})")
        if not said:
            on_wait(f"database {database} does not answer ({reason}); waiting {patience_s:.0f} s for it")
        said = True
        time.sleep(_BETWEEN_TRIES_S)


def _reason(error: BaseException) -> str:
    inner = getattr(error, "orig", None) or error.__cause__ or error
    return str(inner).strip().splitlines()[0]


@contextmanager
def _claimed(engine: sqlalchemy.Engine, name: str, database: str) -> Iterator[None]:
    """A lock of the session: the database lets it go when the connection ends, however that happens."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with engine.connect() as connection:
        if not connection.execute(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
            raise InputError(
                f"search.storage = {database!r}: another process drives study {name!r}; wait for it, or give this "
                "search another name"
            )
        connection.commit()
        yield
