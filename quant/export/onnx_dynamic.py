"""Scales that the network computes from its own activations, in operators of ONNX.

uint8, asymmetric         DynamicQuantizeLinear, which ONNX Runtime fuses into integer kernels
symmetric                 ReduceMax(|x|), of the tensor or of each block, then the scale that the spec defines
  float32                 / largest code
  e8m0 (MX)               rounded down to a power of two by a Cast to float8e8m0, times 2^-emax
  float8_e4m3 (NVFP4)     / largest code, as a float8 of the calibrated scale of the tensor
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
from onnx import TensorProto

from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.formats import IntFormat
from bitwright.quant.qparams import SMALLEST_FLOAT8, SMALLEST_SCALE, largest_code
from bitwright.quant.scheme import QParamsSpec, ScaleKind

_TYPES = {
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int4": TensorProto.INT4,
    "float4_e2m1fn": TensorProto.FLOAT4E2M1,
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
}
_FIRST_E8M0 = 24
_FIRST_OUTPUT_TYPE = 21  # a QuantizeLinear without zero point says with `output_dtype` what it writes


def first_opset_of_dynamic(spec: QParamsSpec) -> int:
    """The opset that a dynamic scale needs.

    Raises:
        InputError: ONNX cannot say it.
    """
    if is_dynamic_uint8(spec):
        return 11
    # A rounded-down power of two leaves values beyond the largest code; QuantizeLinear saturates at -128, not -127.
    cut_short = spec.narrow_range and spec.scale_kind is ScaleKind.E8M0
    known = spec.symmetric and spec.format.name in _TYPES and spec.scale_kind is not ScaleKind.POWER_OF_TWO
    if cut_short or not known:
        symmetry = "symmetric" if spec.symmetric else "asymmetric"
        kind = f"{spec.format.name} {symmetry} {spec.scale_kind}{' narrow_range' if cut_short else ''}"
        allowed = f"uint8 asymmetric, or symmetric {', '.join(_TYPES)} with a scale of float32, e8m0 or float8_e4m3"
        raise InputError(f"dynamic activations as {kind} cannot be written as ONNX; there are: {allowed}")
    return _FIRST_E8M0 if spec.scale_kind is ScaleKind.E8M0 else _FIRST_OUTPUT_TYPE


def quantize_dynamically(
    builder: OnnxBuilder, name: str, shape: Sequence[int], dynamic: DynamicQParams, *, back: bool = True
) -> None:
    """Writes what quantizes the value `name` and turns it `back` into `name/dq`, which nobody may want.

    Raises:
        InputError: blocks that do not divide the axis: a scale for a shorter last one would need padding at run time.
    """
    spec = dynamic.spec
    if is_dynamic_uint8(spec):
        parts = [f"{name}/q", f"{name}/scale", f"{name}/zero_point"]
        builder.emit("DynamicQuantizeLinear", [name], parts)
        if back:
            builder.emit("DequantizeLinear", parts, f"{name}/dq")
        return
    largest = _largest_magnitude(builder, name, shape, dynamic)
    scale = _scale(builder, name, largest, dynamic)
    size = stored_block_size(spec, dynamic.axis, shape)
    cut = {"axis": dynamic.axis, "block_size": size} if size else {}
    builder.emit("QuantizeLinear", [name, scale], f"{name}/q", output_dtype=_TYPES[spec.format.name], **cut)
    builder.emit("DequantizeLinear", [f"{name}/q", scale], f"{name}/dq", **cut)


def stored_block_size(spec: QParamsSpec, axis: int | None, shape: Sequence[int]) -> int | None:
    """The `block_size` to write; None where one block is all: ONNX Runtime takes one scale as that of a tensor."""
    alone = axis is None or (len(shape) == 1 and spec.block_size is not None and shape[0] <= spec.block_size)
    return None if alone else spec.block_size


def is_dynamic_uint8(spec: QParamsSpec) -> bool:
    """Whether it is what `DynamicQuantizeLinear` computes."""
    usual = spec.format.name == "uint8" and spec.scale_kind is ScaleKind.FLOAT32
    return usual and not (spec.symmetric or spec.block_size)


def _largest_magnitude(builder: OnnxBuilder, name: str, shape: Sequence[int], dynamic: DynamicQParams) -> str:
    """`max |x|` of the tensor, a scalar, or of each block, in the shape that the scales have."""
    magnitude = builder.emit("Abs", [name], builder.spare(name))
    size, axis = dynamic.spec.block_size, dynamic.axis
    if size is None or axis is None:
        return builder.emit("ReduceMax", [magnitude], builder.spare(name), keepdims=0)
    if shape[axis] % size:
        raise InputError(
            f"tensor {name}: block_size = {size} does not divide axis {axis} of {tuple(shape)}; scales that follow the "
            "data need whole blocks: take another block_size or keep the layer in float"
        )
    blocks = [*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :]]
    cut = builder.emit("Reshape", [magnitude, builder.constant(name, blocks)], builder.spare(name))
    return builder.emit("ReduceMax", [cut, builder.constant(name, [axis + 1])], builder.spare(name), keepdims=0)


def _scale(builder: OnnxBuilder, name: str, largest: str, dynamic: DynamicQParams) -> str:
    spec = dynamic.spec

    def step(op: str, value: str, operand: float | None = None, **attributes: int | str) -> str:
        operands = [value] if operand is None else [value, builder.constant(name, np.float32(operand))]
        return builder.emit(op, operands, builder.spare(name), **attributes)

    if spec.scale_kind is ScaleKind.E8M0:
        # Where all is zero any scale will do; E8M0 has no zero, and nothing below 2^-127.
        power = step("Max", largest, max(float(SMALLEST_SCALE), 2.0 ** (_largest_exponent(spec) - 127)))
        power = step("Cast", power, to=TensorProto.FLOAT8E8M0, round_mode="down")
        return step("Mul", step("Cast", power, to=TensorProto.FLOAT), 2.0 ** -_largest_exponent(spec))
    scale = step("Div", largest, largest_code(spec))
    if spec.scale_kind is ScaleKind.FLOAT32:
        return step("Max", scale, float(SMALLEST_SCALE))
    assert dynamic.tensor_scale is not None
    tensor_scale = builder.add_initializer(f"{name}/tensor_scale", dynamic.tensor_scale.numpy())
    zero = builder.add_initializer(f"{name}/scale_zero_point", np.zeros((), ml_dtypes.float8_e4m3fn))
    codes = builder.emit("QuantizeLinear", [scale, tensor_scale, zero], builder.spare(name))
    relative = builder.emit("DequantizeLinear", [codes, tensor_scale, zero], builder.spare(name))
    return step("Max", relative, float(dynamic.tensor_scale * SMALLEST_FLOAT8))


def _largest_exponent(spec: QParamsSpec) -> int:
    """Of the largest power of two among the codes."""
    return spec.format.bits - 2 if isinstance(spec.format, IntFormat) else spec.format.max_exponent
