"""A file by its content: what it is called on a device, and pieces of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Content:
    """Bytes that are copied to a device.

    Attributes:
        label: what messages call it.
        source: the file they are in, or the bytes.
        suffix: of the name on the device; runtimes go by it.
    """

    label: str
    source: Path | bytes
    suffix: str

    @cached_property
    def sha256(self) -> str:
        """The hash of all of it, in hexadecimal."""
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @property
    def name(self) -> str:
        """The name on the device."""
        return self.sha256 + self.suffix

    def piece(self, offset: int, most: int) -> bytes:
        """At most so many bytes from an offset."""
        with self._open() as file:
            file.seek(offset)
            return file.read(most)

    def _open(self) -> io.BytesIO | io.BufferedReader:
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")


def file_content(path: Path) -> Content:
    """An artefact.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return Content(label=str(path), source=path, suffix=path.suffix)


def arrays_content(label: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Content:
    """Inputs of a network; the same arrays give the same bytes."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return Content(label=label, source=stream.getvalue(), suffix=".npz")
