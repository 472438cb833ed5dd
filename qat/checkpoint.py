"""Checkpoints that are whole whenever the process is stopped, and from which training goes on to the last bit."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.quant.errors import InputError

FORMAT = "bitwright-qat-checkpoint/1"


def write_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file so that at any moment the old one or the new one is there, and whole.

    Written beside its place, brought to the disk, then renamed: POSIX renames at once. The folder is brought to the
    disk last, or a crash of the machine could still show the old name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_whole(path: Path, *, kind: str = FORMAT, writer: str = "QATCallback.save") -> dict[str, Any]:
    """Reads what `write_whole` wrote, without running anything that it holds.

    Args:
        path: the file.
        kind: what its `format` has to be.
        writer: who writes such files, for messages.

    Raises:
        InputError: there is no such file, or it is none of ours.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such checkpoint") from error
    except Exception as error:
        raise InputError(f"{path}: this is no checkpoint that {writer} wrote ({error})") from error
    if not isinstance(content, dict) or content.get("format") != kind:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: this is no checkpoint that {writer} wrote: format = {found!r}")
    return content


def random_state() -> dict[str, Any]:
    """The generators that augmentation and dropout draw from: Python's, NumPy's and torch's on every device."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that the loop draws from
    assert isinstance(numpy_state, dict)
    keys = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    rest = {name: numpy_state[name] for name in ("has_gauss", "gauss")}
    return {
        "python": random.getstate(),
        "numpy": {"key": keys, "pos": int(numpy_state["state"]["pos"]), **rest},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Puts the generators back to what `random_state` found."""
    random.setstate(state["python"])
    numpy = state["numpy"]
    inner = {"key": numpy["key"].numpy().astype(np.uint32), "pos": numpy["pos"]}
    outer = {"has_gauss": int(numpy["has_gauss"]), "gauss": float(numpy["gauss"])}
    np.random.set_state({"bit_generator": "MT19937", "state": inner, **outer})  # noqa: NPY002 - see above
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
