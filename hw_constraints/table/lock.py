"""One writer a file: a lock file beside it, held by `flock`, so that it is free again however the writer ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitwright.quant.errors import InputError


@contextmanager
def sole_writer(
    file: Path, *, doing: str = "measuring", instead: str = "measure into another file and merge"
) -> Iterator[None]:
    """Holds a file's lock.

    Args:
        file: a table, or another record that grows.
        doing: what its writer does, for the message to a second one.
        instead: what a second one can do that does not want to wait.

    Raises:
        InputError: another process holds it; the message says which.
    """
    path = file.with_name(f"{file.name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "another process"
            raise InputError(f"{file}: process {holder} is {doing} into it; wait for it, or {instead}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back; the file stays, or a third process could lock another one
