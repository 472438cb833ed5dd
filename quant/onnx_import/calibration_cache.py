"""Reads TensorRT's calibration cache, which keeps the scales of a float ONNX file for implicit quantization.

    TRT-8600-EntropyCalibration2
    images: 3c00f9f4
    /model.0/act/Mul_output_0: 3e6c9314

The number behind each tensor is its scale (max |x| / 127, not the range), the bytes of a float32 as hexadecimal digits
without leading zeros, most significant first; 0 stands for a tensor without scale. Weights are not in it: TensorRT
takes max |w| / 127 of each output channel (NVIDIA, Deep-Learning-Accelerator-SW, tools/qdq-translator).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bitwright.quant.errors import InputError

SUFFIX = ".calib.cache"
_HEADER = re.compile(r"TRT-(\d+)-(\w+)")
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{1,8})")


def read_calibration_cache(path: str | Path) -> dict[str, np.float32]:
    """The scale of each tensor that has one.

    Raises:
        InputError: no such file, or not such a cache.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the calibration cache of a network") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text; give a calibration cache of TensorRT") from error
    if not lines or not _HEADER.fullmatch(lines[0]):
        first = (lines or [""])[0][:60]
        raise InputError(f"{path}:1: {first!r}; a calibration cache begins like TRT-8600-EntropyCalibration2")
    return dict(_entries(path, lines))


def _entries(path: Path, lines: list[str]) -> Iterator[tuple[str, np.float32]]:
    known: set[str] = set()
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"{path}:{number}: {line[:60]!r}; expected `tensor: 3c00f9f4`, a scale in hexadecimal digits"
            )
        name, scale = match[1], np.array([int(match[2], 16)], np.uint32).view(np.float32)[0]
        if name in known:
            raise InputError(f"{path}:{number}: tensor {name!r} stands there twice; keep one of its scales")
        known.add(name)
        if not np.isfinite(scale) or scale < 0:
            raise InputError(
                f"{path}:{number}: tensor {name!r} has the scale {scale}; expected one above 0, or 0 for none"
            )
        if scale:
            yield name, scale


def as_digits(scale: np.float32) -> str:
    """A scale as the cache has it."""
    return f"{int(np.array([scale], np.float32).view(np.uint32)[0]):x}"
