"""A kernel's own operators in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, Family, Kernel
from bitwright.hw_constraints.kernels.onnx_parts import ACTIVATION_SCALE, Parts
from bitwright.hw_constraints.kernels.surroundings import Surroundings

_REQUANTIZE = "requantize+"
_BINARY = {"add": "Add", "mul": "Mul", "sub": "Sub"}
_UNARY = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
    "leakyrelu": "LeakyRelu",
    "elu": "Elu",
    "gelu": "Gelu",
    "mish": "Mish",
    "softplus": "Softplus",
}
_LAST_AXIS = frozenset({"LayerNormalization", "RMSNormalization"})
_NORM_OPERANDS = {
    "LayerNormalization": 2,
    "RMSNormalization": 1,
    "InstanceNormalization": 2,
    "GroupNormalization": 2,
    "BatchNormalization": 4,
}
_OF_CODES = frozenset({"zero_point", "rescale"})


def emit(kernel: Kernel, parts: Parts, values: list[str], around: Surroundings) -> list[str]:
    """Adds the operators that make up a kernel.

    Args:
        kernel: what to write.
        parts: where to.
        values: the kernel's inputs.
        around: how codes are made.

    Returns:
        its results.
    """
    if kernel.family is Family.QUANTIZE:
        return [around.coded(values[0])]
    if kernel.family is Family.ATTENTION:
        return [_attention(kernel, parts, values)]
    taken = len(values) - sum(_binary(op) is not None for op in kernel.epilogue)
    extra = values[taken:]
    attributes = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in kernel.attributes
        if not name.startswith("const:") and name not in _OF_CODES
    }
    if kernel.op == "Gemm":
        attributes["transB"] = 1
    main = _operands(kernel, parts, values[:taken], around)
    results = parts.nodes_of(_OP.get(kernel.op, kernel.op), main, len(kernel.outputs), **attributes)
    if kernel.op == "silu":
        results = [parts.node("Mul", [values[0], results[0]])]
    for op in kernel.epilogue:
        results[0] = _epilogue(op, parts, results[0], extra, around)
    if not around.writes_codes:
        return results
    scale = ACTIVATION_SCALE * (2 if kernel.attribute("rescale") else 1)
    return [around.coded(value, scale=scale) for value in results]


_OP = {"silu": "Sigmoid"}


def _attention(kernel: Kernel, parts: Parts, values: list[str]) -> str:
    """`softmax(Q K^T) V` of values in the order batch, tokens, heads, width where transposes are part of it."""
    query, key, value = values
    if kernel.attribute("transposed"):
        query, value = (parts.node("Transpose", [one], perm=[0, 2, 1, 3]) for one in (query, value))
        key = parts.node("Transpose", [key], perm=[0, 2, 3, 1])
    weights = parts.node("Softmax", [parts.node("MatMul", [query, key])], axis=-1)
    result = parts.node("MatMul", [weights, value])
    return parts.node("Transpose", [result], perm=[0, 2, 1, 3]) if "transpose" in kernel.epilogue else result


def _operands(kernel: Kernel, parts: Parts, values: list[str], around: Surroundings) -> list[str]:
    """The operands of the main operator by position."""
    operands, coded = list(values), kernel.format == "int8"
    if kernel.family in CONVOLUTIONS:
        operands += [parts.weight(kernel.weight, coded=coded), parts.bias(kernel.weight[0], coded=coded)]
    elif kernel.family is Family.CONV_TRANSPOSE:
        operands += [parts.weight(kernel.weight, coded=False)]
    elif kernel.op == "Gemm":
        operands += [parts.weight(kernel.weight[::-1], coded=coded), parts.bias(kernel.weight[1], coded=coded)]
    elif kernel.family is Family.LINEAR:
        operands += [parts.weight(kernel.weight, coded=coded, axis=1)]
    elif kernel.family is Family.NORM:
        channels = kernel.inputs[0][-1 if kernel.op in _LAST_AXIS else 1]
        operands += [parts.positive(channels) for _ in range(_NORM_OPERANDS.get(kernel.op, 0))]
    elif kernel.weight:
        stored = parts.weight(kernel.weight, coded=False)
        operands.append(around.coded(stored) if coded else stored)
    constants = {int(name.split(":")[1]): value for name, value in kernel.attributes if name.startswith("const:")}
    for position in sorted(constants):
        operands += [""] * (position - len(operands))
        operands.insert(position, parts.constant(_as_array(constants[position])))
    return operands


def _epilogue(op: str, parts: Parts, value: str, extra: list[str], around: Surroundings) -> str:
    if op in ("quantize", "dequantize"):
        return value
    binary = _binary(op)
    if binary is not None:
        value = around.coded(value) if op.startswith(_REQUANTIZE) else value
        return parts.node(binary, [value, extra.pop(0)])
    if op == "clip":
        bounds = [parts.constant(np.float32(bound)) for bound in (0, 6)]
        return parts.node("Clip", [value, *bounds])
    if op == "silu":
        return parts.node("Mul", [value, parts.node("Sigmoid", [value])])
    return parts.node(_UNARY[op], [value])


def _binary(op: str) -> str | None:
    return _BINARY.get(op.removeprefix(_REQUANTIZE))


def _as_array(value: object) -> npt.NDArray[Any]:
    array = np.asarray(value)
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
