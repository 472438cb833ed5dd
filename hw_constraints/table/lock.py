"""One writer a table: a lock file beside it, held by `flock`, so that it is free again however the writer ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitwright.quant.errors import InputError


@contextmanager
def sole_writer(table: Path) -> Iterator[None]:
    """Holds the table's lock.

    Raises:
        InputError: another process holds it; the message says which.
    """
    path = table.with_name(f"{table.name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "another process"
            raise InputError(
                f"{table}: process {holder} is measuring into it; wait for it, or measure into another file and merge"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back; the file stays, or a third process could lock another one
