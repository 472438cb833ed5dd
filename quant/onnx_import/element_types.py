"""ONNX's element types: their names as `quant.graph` spells them, and how many bytes their values take in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import TensorProto

_SPELT_OTHERWISE = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    TensorProto.FLOAT4E2M1: "float4_e2m1fn",
    TensorProto.FLOAT8E8M0: "float8_e8m0fnu",
}
# Elements narrower than a byte are packed, the first one in the low bits.
_BITS = {
    **dict.fromkeys(("int4", "uint4", "float4_e2m1fn"), 4),
    **dict.fromkeys(("int2", "uint2"), 2),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16),
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    "complex128": 128,
}


def dtype_name(element_type: int) -> str:
    """The name of an element type; "" when ONNX has none of that number."""
    if element_type not in TensorProto.DataType.values() or element_type == TensorProto.UNDEFINED:
        return ""
    return _SPELT_OTHERWISE.get(element_type) or TensorProto.DataType.Name(element_type).lower()


ELEMENT_TYPES = {name: number for number in TensorProto.DataType.values() if (name := dtype_name(number))}


def stored_bytes(dims: Sequence[int], dtype: str) -> int:
    """How many bytes such a tensor takes as raw data (strings are never raw)."""
    return -(-math.prod(dims) * _BITS.get(dtype, 8) // 8)
