"""Reads encodings: the JSON in which AIMET and Qualcomm's runtimes keep scales beside a float ONNX file.

Layouts (AIMET, "Encoding Format Specification", quic.github.io/aimet-pages):
  0.6.1   {tensor: [{bitwidth, dtype, is_symmetric, scale, offset, min, max}, one for each channel]}
  1.0.0   [{name, bw, dtype, enc_type, is_sym, scale: [...], offset: [...], block_size}]
  2.0.0   [{name, output_dtype, y_scale, y_zero_point, axis, block_size}], as QuantizeLinear has them

The first two count codes from 0, signed ones too: `value = (code + offset) * scale`, code in [0, 2^bw - 1], so that a
signed symmetric tensor has the offset -2^(bw - 1). `is_symmetric` means signed codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.errors import InputError
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import.coding import Coding, Codings

Array = npt.NDArray[Any]
SUFFIX = ".encodings"
# No network has as many tensors; a channel of 0.6.1 takes about 200 bytes.
_LARGEST_FILE = 2**31 - 1
_FLAT = ("PER_TENSOR", "PER_CHANNEL", "PER_BLOCK")


def read_encodings(path: str | Path) -> Codings:
    """Reads an encodings file of any of the three layouts.

    Raises:
        InputError: no such file, no JSON, an unknown layout, or an entry that says what no number format here does.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: {path.stat().st_size / 2**30:.1f} GiB; encodings take at most 2 GiB")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the encodings of a network") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({error}); export the encodings again") from error
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(version, str) or version not in _LAYOUTS:
        raise InputError(f"{path}: version = {version!r}; there are: {', '.join(_LAYOUTS)}")
    entries = _LAYOUTS[version](content, str(path))
    found: dict[str, Coding] = {}
    for name, entry in entries:
        if name in found:
            raise InputError(f"{path}: tensor {name!r} stands there twice; keep one of its encodings")
        coding = _guarded(entry, f"{path}: tensor {name!r}")
        if coding is not None:
            found[name] = coding
    return Codings(file=str(path), by_value=found, int32_biases=True)


Entry = Callable[[], Coding | None]


def _guarded(entry: Entry, place: str) -> Coding | None:
    """The coding of an entry; whatever a damaged one leads to is named with its place."""
    try:
        coding = entry()
        if coding is not None:
            _check(coding)
        return coding
    except KeyError as error:
        raise InputError(f"{place}: {error.args[0]} is missing; export the encodings again") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{place}: {error}; export the encodings again") from error


def _check(coding: Coding) -> None:
    if coding.dtype not in FORMATS:
        raise ValueError(f"codes of type {coding.dtype!r}, which is no number format")
    if not coding.scale.size or coding.scale.shape != coding.zero_point.shape:
        raise ValueError(f"{coding.scale.size} scales for {coding.zero_point.size} offsets")
    if not (np.isfinite(coding.scale) & (coding.scale > 0)).all():
        raise ValueError("a scale that is not above 0")
    if not (np.isfinite(coding.zero_point) & (coding.zero_point % 1 == 0)).all():
        raise ValueError("an offset that is no whole number")


# --- layouts ---


def _sections(content: Mapping[str, Any], file: str, kind: type) -> Iterator[Any]:
    for key in ("activation_encodings", "param_encodings"):
        section = content.get(key, kind())
        if not isinstance(section, kind):
            raise InputError(f"{file}: {key} is a {type(section).__name__}; version {content['version']} has a "
                             f"{kind.__name__} there: export the encodings again")  # fmt: skip
        yield section


def _read_0_6_1(content: Mapping[str, Any], file: str) -> Iterator[tuple[str, Entry]]:
    for section in _sections(content, file, dict):
        for name, channels in section.items():
            yield name, partial(_channels, channels)


def _channels(channels: list[dict[str, Any]]) -> Coding | None:
    first = channels[0]
    if first["dtype"] == "float":
        return _float(first["bitwidth"])
    if {(each["bitwidth"], each["is_symmetric"]) for each in channels} != {(first["bitwidth"], first["is_symmetric"])}:
        raise ValueError("channels of different bitwidth or symmetry")
    signed = str(first["is_symmetric"]).lower() == "true"
    scale, offset = (np.array([each[key] for each in channels], np.float64) for key in ("scale", "offset"))
    return _counted_from_0(first["bitwidth"], signed, scale, offset)


def _read_1_0_0(content: Mapping[str, Any], file: str) -> Iterator[tuple[str, Entry]]:
    for section in _sections(content, file, list):
        for entry in section:
            yield _name(entry, file), partial(_flat, entry)


def _flat(entry: Mapping[str, Any]) -> Coding | None:
    if entry["enc_type"] not in _FLAT:
        raise ValueError(f"enc_type = {entry['enc_type']!r} has no counterpart here; there are: {', '.join(_FLAT)}")
    if entry["dtype"] == "FLOAT":
        return _float(entry["bw"])
    if entry.get("zero_point_shift"):
        raise ValueError("codes between whole numbers (zero_point_shift) have no counterpart here")
    block = int(entry["block_size"]) if entry["enc_type"] == "PER_BLOCK" else None
    scale, offset = (np.array(entry[key], np.float64).reshape(-1) for key in ("scale", "offset"))
    if entry["enc_type"] == "PER_TENSOR" and scale.size != 1:
        raise ValueError(f"enc_type = 'PER_TENSOR' with {scale.size} scales")
    return _counted_from_0(entry["bw"], bool(entry["is_sym"]), scale, offset, block)


def _read_2_0_0(content: Mapping[str, Any], file: str) -> Iterator[tuple[str, Entry]]:
    section = content.get("encodings")
    if not isinstance(section, list):
        raise InputError(f"{file}: encodings is no list; version 2.0.0 has one: export the encodings again")
    for entry in section:
        yield _name(entry, file), partial(_as_quantize_linear, entry)


def _as_quantize_linear(entry: Mapping[str, Any]) -> Coding | None:
    if "per_block_int_scale" in entry:
        raise ValueError("scales that are multiples of a channel's (per_block_int_scale) have no counterpart here")
    scale = np.array(entry["y_scale"], np.float64)
    zeros = np.array(entry.get("y_zero_point") or np.zeros_like(scale), np.float64)
    axis, block = entry.get("axis"), entry.get("block_size")
    return _coding(str(entry["output_dtype"]), scale, zeros, axis, block)


def _name(entry: Any, file: str) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{file}: an encoding without a name: {str(entry)[:60]}; export the encodings again")
    return name


def _counted_from_0(bits: int, signed: bool, scale: Array, offset: Array, block: int | None = None) -> Coding:
    """`(code + offset) * scale` with codes from 0 on, as `(code - zero_point) * scale`."""
    zeros = -(offset + 2 ** (bits - 1)) if signed else -offset
    return _coding(f"{'' if signed else 'u'}int{bits}", scale, zeros, None, block)


def _coding(dtype: str, scale: Array, zeros: Array, axis: int | None, block: int | None) -> Coding:
    if scale.size == 1 and zeros.size == 1 and block is None:
        scale, zeros, axis = scale.reshape(()), zeros.reshape(()), None
    return Coding(
        dtype=dtype,
        scale=scale.astype(np.float32),
        zero_point=zeros.astype(np.float32) + np.float32(0),  # no negative zeros
        axis=None if axis is None else int(axis),
        block=None if block is None else int(block),
    )


def _float(bits: int) -> Coding | None:
    """float16; float32 is what a tensor without encoding has."""
    if bits == 32:
        return None
    if bits != 16:
        raise ValueError(f"floats of {bits} bits; there are 16 and 32")
    return _coding("float16", np.ones(1), np.zeros(1), None, None)


_LAYOUTS: Mapping[str, Callable[[Mapping[str, Any], str], Iterator[tuple[str, Entry]]]] = {
    "0.6.1": _read_0_6_1,
    "1.0.0": _read_1_0_0,
    "2.0.0": _read_2_0_0,
}
VERSIONS = tuple(_LAYOUTS)
