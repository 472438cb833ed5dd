"""Quantized files: the float network underneath, and beside it how each tensor is coded.

Between a QuantizeLinear and a DequantizeLinear a tensor has codes; both fall away, and so do codes that pass through
operators that move them. Integer operators become the float operators of which they are the low-precision kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from bitwright.quant.onnx_import.calls import Array, Misfit, Reader, require
from bitwright.quant.onnx_import.element_types import dtype_name
from bitwright.quant.onnx_import.qparams import ImportedQParams, qparams_of
from bitwright.quant.onnx_import.readers.registry import READERS, axis_of, reads
from bitwright.quant.onnx_import.values import Shape, ValueType


@reads("QuantizeLinear", "com.microsoft::QuantizeLinear")
def _quantize(r: Reader) -> None:
    """The codes are the tensor itself from here on, and the tensor is noted as coded."""
    x = r.input(0)
    zero_point = r.optional(2)
    dtype = r.dtype(zero_point) if zero_point else dtype_name(r.integer("output_dtype", 0)) or "uint8"
    r.draft.qparams.setdefault(x, _qparams(r, x, dtype, r.integer("axis", 1)))
    r.alias(x)


@reads("DequantizeLinear", "com.microsoft::DequantizeLinear")
def _dequantize(r: Reader) -> None:
    x = r.input(0)
    if x in r.draft.qparams and not r.values.is_constant(x):
        r.alias(x)
        return
    value = real(r, x, 1, 2, axis=r.integer("axis", 1), name=r.node.output[0])
    if value != r.node.output[0]:
        r.alias(value)


def real(r: Reader, codes: str, scale: int, zero_point: int, *, axis: int = 1, name: str = "") -> str:
    """The float tensor that codes stand for: a constant of its own, or the coded tensor, noted as such.

    Args:
        r: the node that reads the codes.
        codes: their value.
        scale: the position of the scale among the node's operands.
        zero_point: likewise.
        axis: the channel axis where there is more than one scale.
        name: of a constant.
    """
    if codes in r.draft.qparams and not r.values.is_constant(codes):
        return codes
    if r.values.is_constant(codes) and r.dtype(codes).startswith(("float3", "float6")):
        return codes  # a float constant that was quantized and dequantized again
    qparams = _qparams(r, codes, r.dtype(codes), axis, scale, zero_point)
    kind = r.values.types[codes]
    if not r.values.is_constant(codes):
        r.values.types[codes] = ValueType(kind.shape, "float32")
        r.draft.qparams[codes] = qparams
        return codes
    require(qparams.scale is not None, "the scale of a constant is computed when the network runs")
    result, load = name or f"{codes}#real", r.values.loaders[codes]
    r.values.add_constant(result, ValueType(kind.shape, "float32"), lambda: qparams.real_values(load()))
    r.draft.qparams[result] = qparams
    r.draft.dequantized[result] = codes
    return result


def _qparams(r: Reader, coded: str, dtype: str, axis: int, scale: int = 1, zero_point: int = 2) -> ImportedQParams:
    """Raises Misfit where the numbers are not in the file, or do not fit the tensor."""
    scales = _large(r, scale)
    require(scales is not None, "no scale")
    zeros = _large(r, zero_point)
    block = r.integer("block_size", 0) or None
    rank = r.rank(coded) if scales is not None and (scales.size > 1 or block) else 0
    where = axis_of(axis, rank) if rank else None
    if where is not None and scales is not None and block is None:
        require(scales.ndim == 1 and r.shape(coded)[where] in (None, scales.size), "scales for other channels")
    elif where is not None and scales is not None and block is not None:
        require(block > 1 and _fits_blocks(r.shape(coded), scales.shape, where, block), "scales for other blocks")
    tensor_scale = _second_level(r, scale) if block else None
    qparams = qparams_of(dtype, scales, zeros, where, block=block if rank else None, tensor_scale=tensor_scale)
    if qparams is None:
        raise Misfit(f"codes of type {dtype!r}")
    return qparams


def _fits_blocks(shape: Shape, scales: Shape, axis: int, block: int) -> bool:
    """Whether there is one scale for each block along the axis; open sizes fit everything."""
    wanted = [None if size is None else -(-size // block) if d == axis else size for d, size in enumerate(shape)]
    return len(wanted) == len(scales) and all(a in (None, b) for a, b in zip(wanted, scales, strict=True))


def _second_level(r: Reader, scale: int) -> Array | None:
    """The scale of the scales, where these stand in the file as float8 codes (NVFP4)."""
    known = r.draft.qparams.get(r.input(scale))
    if known is None or known.scale is None or known.scale.ndim or known.spec.format.name != "float8_e4m3fn":
        return None
    return known.scale


def _large(r: Reader, position: int) -> Array | None:
    """A constant of any size; None when it is missing."""
    name = r.optional(position)
    if name is None:
        return None
    require(r.values.is_constant(name), "a scale or zero point that is computed")
    return r.values.loaders[name]()


# --- integer operators, as the float operator that they are a kernel of ---


def _as_standard(r: Reader, op_type: str, operands: Sequence[str]) -> None:
    """Reads the node as a standard one on float operands."""
    twin = NodeProto(op_type=op_type, name=r.node.name, input=operands, output=list(r.node.output)[:1])
    dropped = {"channels_last", "domain", "opset"}
    twin.attribute.extend(attribute for attribute in r.node.attribute if attribute.name not in dropped)
    twin.metadata_props.extend(r.node.metadata_props)
    r.values.types.update(r.values.infer_as(op_type, operands, twin.output, twin.attribute))
    READERS[op_type](Reader(r.draft, twin))


def _note_result(r: Reader, scale: int, zero_point: int) -> None:
    """The node's result is coded."""
    out = r.node.output[0]
    kind = r.values.types[out]
    r.values.types[out] = ValueType(kind.shape, "float32")
    zero = r.optional(zero_point)
    r.draft.qparams[out] = _qparams(r, out, r.dtype(zero) if zero else "uint8", 1, scale, zero_point)


@reads("QLinearConv")
def _q_linear_conv(r: Reader) -> None:
    x, weight = real(r, r.input(0), 1, 2), real(r, r.input(3), 4, 5, axis=0)
    bias = _bias(r, r.optional(8), x, weight)
    _as_standard(r, "Conv", [x, weight, *([bias] if bias else [])])
    _note_result(r, 6, 7)


def _bias(r: Reader, bias: str | None, x: str, weight: str) -> str | None:
    """An int32 bias has scale(input) * scale(weight)."""
    if bias is None:
        return None
    require(r.values.is_constant(bias), "a bias that is computed")
    scales = [r.draft.qparams[name].scale for name in (x, weight)]
    require(scales[0] is not None and scales[1] is not None, "a scale that is computed")
    scale = np.asarray(scales[0] * scales[1], np.float32)  # type: ignore[operator]
    qparams = qparams_of("int32", scale, None, 0 if scale.ndim else None)
    assert qparams is not None  # int32 is a format
    result, load = f"{bias}#real", r.values.loaders[bias]
    r.values.add_constant(result, ValueType(r.shape(bias), "float32"), lambda: qparams.real_values(load()))
    r.draft.qparams[result] = qparams
    r.draft.dequantized[result] = bias
    return result


@reads("QLinearMatMul")
def _q_linear_matmul(r: Reader) -> None:
    right = real(r, r.input(3), 4, 5, axis=-1)
    _as_standard(r, "MatMul", [real(r, r.input(0), 1, 2), right])
    _note_result(r, 6, 7)


@reads("com.microsoft::QGemm")
def _q_gemm(r: Reader) -> None:
    x, weight = real(r, r.input(0), 1, 2), real(r, r.input(3), 4, 5, axis=0 if r.integer("transB", 0) else 1)
    bias = _bias(r, r.optional(6), x, weight)
    _as_standard(r, "Gemm", [x, weight, *([bias] if bias else [])])
    if r.optional(7) is not None:
        _note_result(r, 7, 8)


@reads("com.microsoft::QLinearAdd", "com.microsoft::QLinearMul")
def _q_linear_binary(r: Reader) -> None:
    operands = [real(r, r.input(0), 1, 2), real(r, r.input(3), 4, 5)]
    _as_standard(r, r.node.op_type.removeprefix("QLinear"), operands)
    _note_result(r, 6, 7)


@reads(
    "com.microsoft::QLinearGlobalAveragePool", "com.microsoft::QLinearAveragePool", "com.microsoft::QLinearLeakyRelu",
    "com.microsoft::QLinearSigmoid", "com.microsoft::QLinearSoftmax",
)  # fmt: skip
def _q_linear_unary(r: Reader) -> None:
    require(not r.integer("channels_last", 0), "channels in the last dimension")
    _as_standard(r, r.node.op_type.removeprefix("QLinear"), [real(r, r.input(0), 1, 2)])
    _note_result(r, 3, 4)


@reads("com.microsoft::QLinearConcat")
def _q_linear_concat(r: Reader) -> None:
    parts = range(2, len(r.inputs), 3)
    _as_standard(r, "Concat", [real(r, r.input(i), i + 1, i + 2) for i in parts])
    _note_result(r, 0, 1)


# --- scales that are computed while the network runs ---


@reads("DynamicQuantizeLinear")
def _dynamic_quantize(r: Reader) -> None:
    x = r.input(0)
    qparams = qparams_of("uint8", None, None)
    assert qparams is not None  # uint8 is a format
    r.draft.qparams.setdefault(x, qparams)
    r.alias(x)
    r.draft.dynamic_scales[r.node.output[1]] = ()


@reads("MatMulInteger", "ConvInteger")
def _integer_product(r: Reader) -> None:
    """Its scale follows in a multiplication; until then a constant weight is its codes."""
    x, codes = r.input(0), r.input(1)
    require(x in r.draft.qparams, "codes of unknown scale")
    if r.values.is_constant(codes):
        zero_point = _large(r, 3)
        axis = -1 if r.node.op_type == "MatMulInteger" else 0
        count = 1 if zero_point is None else zero_point.size
        qparams = qparams_of(
            r.dtype(codes), np.ones(count, np.float32), None if zero_point is None else zero_point.reshape(-1),
            axis_of(axis, r.rank(codes)),
        )  # fmt: skip
        require(qparams is not None, "codes of a type without format")
        assert qparams is not None
        weight, load = f"{codes}#real", r.values.loaders[codes]
        r.values.add_constant(weight, ValueType(r.shape(codes), "float32"), lambda: qparams.real_values(load()))
        r.draft.qparams[weight] = qparams
        r.draft.dequantized[weight] = codes
    else:
        weight = codes
    _as_standard(r, r.node.op_type.removesuffix("Integer"), [x, weight])
    kind = r.values.types[r.node.output[0]]
    r.values.types[r.node.output[0]] = ValueType(kind.shape, "float32")


def belongs_to_codes(r: Reader) -> bool:
    """Whether a multiplication only gives integer products their scale; then it falls away, and the weight gets it."""
    names = [r.input(0), r.input(1)]
    dynamic = r.draft.dynamic_scales
    if not any(name in dynamic for name in names):
        return False
    constants = tuple(name for each in names for name in dynamic.get(each, (each,)) if r.values.is_constant(name))
    data = [name for name in names if name not in dynamic and not r.values.is_constant(name)]
    if not data:
        dynamic[r.node.output[0]] = constants
        return True
    for call in reversed(r.draft.calls):
        if data[0] in call.outputs:
            for name in constants:
                _rescale(r, call.inputs[1] or "", name)
            break
    r.alias(data[0])
    return True


def _rescale(r: Reader, weight: str, scale: str) -> None:
    codes, old = r.draft.dequantized.get(weight), r.draft.qparams.get(weight)
    if codes is None or old is None or old.scale is None:
        return
    factor = np.asarray(r.values.loaders[scale](), np.float32).reshape(-1)
    scales = np.broadcast_to(old.scale.reshape(-1) * factor, (max(old.scale.size, factor.size),))
    zeros = None if old.zero_point is None else np.broadcast_to(old.zero_point.reshape(-1), scales.shape)
    rank = r.rank(codes)
    axis = rank - 1 if scales.size > 1 and rank == 2 else 0
    qparams = qparams_of(old.spec.format.name, scales, zeros, axis)
    if qparams is not None:
        load = r.values.loaders[codes]
        r.draft.qparams[weight] = qparams
        r.values.loaders[weight] = lambda: qparams.real_values(load())
