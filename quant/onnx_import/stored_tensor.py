"""A tensor that is written in a file: checked against its own header, read only when somebody asks for its values.

Weights beside the file are read from its own folder and from nowhere else: no path that leaves it, no link.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from bitwright.quant.errors import InputError
from bitwright.quant.onnx_import.element_types import dtype_name, stored_bytes

Array = npt.NDArray[Any]

# NumPy's own limit is 64; no operator of ONNX works on more than a handful.
LARGEST_RANK = 32
# What file systems take at most for a name (255 bytes) leaves a few folders; a longer one is no path.
_LONGEST_PATH = 255
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def check_tensor(tensor: TensorProto, place: str, folder: Path) -> None:
    """Checks a tensor's header against its data, without reading or allocating the data.

    Raises:
        InputError: the header is impossible, or the data do not belong to it.
    """
    dtype = dtype_name(tensor.data_type)
    if not dtype:
        raise InputError(f"{place}: element type {tensor.data_type}; ONNX has no such type")
    if len(tensor.dims) > LARGEST_RANK:
        raise InputError(f"{place}: {len(tensor.dims)} dimensions; at most {LARGEST_RANK}")
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"{place}: shape {list(tensor.dims)} has a negative dimension")
    if tensor.HasField("segment"):
        raise InputError(f"{place}: is stored in segments, which nobody writes; save the file again with `onnx.save`")
    wanted = stored_bytes(tensor.dims, dtype)
    if tensor.data_location == TensorProto.EXTERNAL:
        _external(tensor, place, folder, wanted)
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != wanted:
            raise _wrong_size(tensor, place, dtype, f"{len(tensor.raw_data)} bytes", f"{wanted} bytes")
    else:
        _check_fields(tensor, place, dtype)


def _check_fields(tensor: TensorProto, place: str, dtype: str) -> None:
    given = max(len(getattr(tensor, field)) for field in _FIELDS)
    count = math.prod(tensor.dims)
    # Complex numbers take two entries; elements of four bits share one in pairs.
    wanted = 2 * count if dtype.startswith("complex") else count
    packed = stored_bytes(tensor.dims, dtype) if stored_bytes([1, 2], dtype) == 1 else wanted
    if given not in (wanted, packed):
        raise _wrong_size(tensor, place, dtype, f"{given} values", f"{wanted}")


def _wrong_size(tensor: TensorProto, place: str, dtype: str, given: str, wanted: str) -> InputError:
    return InputError(
        f"{place}: holds {given} of data; its shape {list(tensor.dims)} of {dtype} needs {wanted}; "
        "the file is truncated or was edited"
    )


def load_tensor(tensor: TensorProto, place: str, folder: Path) -> Array:
    """The values of a checked tensor.

    Raises:
        InputError: the external file went away or changed.
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    wanted = stored_bytes(tensor.dims, dtype_name(tensor.data_type))
    file, offset = _external(tensor, place, folder, wanted)
    with file.open("rb") as stream:
        stream.seek(offset)
        raw = stream.read(wanted)
    return np.asarray(numpy_helper.to_array(TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)))


def _external(tensor: TensorProto, place: str, folder: Path, wanted: int) -> tuple[Path, int]:
    """The file and offset of external data.

    Raises:
        InputError: the place is outside the folder, is not there, or does not hold the tensor.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = file_inside(location, place, folder)
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key, "0" if key == "offset" else str(wanted))
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise InputError(f"{place}: external data {key} = {text[:40]!r}; expected a number of bytes")
        numbers[key] = int(text)
    if numbers["length"] != wanted:
        dtype = dtype_name(tensor.data_type)
        raise _wrong_size(tensor, place, dtype, f"{numbers['length']} external bytes", f"{wanted} bytes")
    size = file.stat().st_size
    if numbers["offset"] + wanted > size:
        raise InputError(
            f"{place}: bytes {numbers['offset']} to {numbers['offset'] + wanted} of {location!r}, "
            f"which has {size}; the file of the weights is truncated"
        )
    return file, numbers["offset"]


def file_inside(location: str, place: str, folder: Path) -> Path:
    """The file of the weights, when it lies in the model's folder without any link on the way."""
    windows, posix = PureWindowsPath(location), PurePosixPath(location)
    outside = windows.drive or windows.root or posix.is_absolute() or ".." in {*windows.parts, *posix.parts}
    if not location or outside or "\0" in location or len(location) > _LONGEST_PATH:
        raise InputError(f"{place}: external data at {location[:80]!r}; only files in the model's own folder are read")
    file = folder
    for part in posix.parts:
        file = file / part
        if file.is_symlink():
            raise InputError(f"{place}: external data at {location!r} is a link; only plain files are read")
    if not file.is_file():
        raise InputError(f"{place}: external data at {location!r}: no such file in {folder}; copy it beside the model")
    return file
