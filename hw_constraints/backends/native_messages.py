"""What native libraries print on standard error while they load a model."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


class Messages:
    """The lines that were printed; complete when the block of `native_messages` is left."""

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()

    @property
    def last(self) -> str:
        """The last line that is not empty; empty when there is none."""
        return next((line.strip() for line in reversed(self.lines) if line.strip()), "")


@contextmanager
def native_messages() -> Iterator[Messages]:
    """Keeps the file descriptor of standard error for itself in its block: these lines are news to nobody.

    It is that of the whole process: what other threads print in the meantime is kept, too.
    """
    messages = Messages()
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield messages
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            messages.lines = tuple(file.read().decode(errors="replace").splitlines())
