"""The hash that names a file."""

from __future__ import annotations

import hashlib

_PIECE = 1 << 20


def sha256_of(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(_PIECE), b""):
            sha.update(piece)
    return sha.hexdigest()
