"""Where the benchmarks keep what they download and compute: beside the checkout's code, ignored by git."""

from __future__ import annotations

import os
from pathlib import Path

from bitwright.quant.errors import InputError

SAMPLE_VARIABLE = "BITWRIGHT_IMAGENET_SAMPLE"
CAMVID_VARIABLE = "BITWRIGHT_CAMVID"


def checkout() -> Path:
    """The root of the checkout that this code runs from.

    Raises:
        InputError: the code was installed from a wheel, which carries no benchmarks' results.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise InputError("benchmarks run from a checkout of the repository, not from an installed wheel")
    return root


def peers_home() -> Path:
    """The peers' environments."""
    return checkout() / ".peers"


def cache() -> Path:
    """Preprocessed pictures, float files, peers' results."""
    return checkout() / ".bench"


def imagenet_root(given: str | None) -> Path:
    """The folder of the ImageNet sample: the option's, else the environment's.

    Raises:
        InputError: neither names a folder.
    """
    return _root(given, SAMPLE_VARIABLE, "val/WNID/*.jpg")


def camvid_root(given: str | None) -> Path:
    """The folder of labelled road scenes: the option's, else the environment's.

    Raises:
        InputError: neither names a folder.
    """
    return _root(given, CAMVID_VARIABLE, "train/images/*, train/labels/*.png and the same of test/")


def _root(given: str | None, variable: str, holds: str) -> Path:
    text = given or os.environ.get(variable, "")
    if not text:
        raise InputError(f"this row needs data.root=FOLDER (or ${variable}): a folder with {holds}")
    if not Path(text).is_dir():
        raise InputError(f"data.root = {text!r}: no such folder")
    return Path(text)
