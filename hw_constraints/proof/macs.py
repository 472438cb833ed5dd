"""Multiply-accumulates of each operator of an ONNX file, from the shapes of its values."""

from __future__ import annotations

import math
from collections.abc import Callable

from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph

# Where data and weight stand among an operator's inputs.
_OPERANDS = {
    "Conv": (0, 1),
    "FusedConv": (0, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
    "ConvTranspose": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "Gemm": (0, 1),
    "QGemm": (0, 3),
}


def weight_position(op: str) -> int | None:
    """Where the weight stands among the inputs of an operator with multiply-accumulates; None for others."""
    return _OPERANDS[op][1] if op in _OPERANDS else None


def count_macs(graph: OnnxGraph) -> dict[int, int]:
    """Multiply-accumulates by the node's position; operators without them are left out.

    A node whose shapes are not known, or not static but for a first dimension (counted as 1), is left out, too.
    """
    counts: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        if node.op_type not in _OPERANDS:
            continue
        shapes = [_static(graph.shape(node.input[position])) for position in _OPERANDS[node.op_type]]
        output = _static(graph.shape(node.output[0]))
        if output is not None and None not in shapes:
            data, weight = (shape for shape in shapes if shape is not None)
            counts[index] = _FORMULAS.get(node.op_type, _matmul)(data, weight, output)
    return counts


def _static(shape: tuple[int | None, ...] | None) -> tuple[int, ...] | None:
    if shape is None or None in shape[1:]:
        return None
    return tuple(1 if dim is None else dim for dim in shape)


def _conv(_: tuple[int, ...], weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    # weight [C_out, C_in / groups, *kernel]: each output element sums over all but the first axis.
    return math.prod(output) * math.prod(weight[1:])


def _transposed_conv(data: tuple[int, ...], weight: tuple[int, ...], _: tuple[int, ...]) -> int:
    # weight [C_in, C_out / groups, *kernel]: each input element is spread over all but the first axis.
    return math.prod(data) * math.prod(weight[1:])


def _matmul(data: tuple[int, ...], weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    # data [..., M, K], weight [..., K, N], output [..., M, N]; Gemm's transposes leave M * N * K as it is.
    return math.prod(output) * data[-1]


def _gemm(data: tuple[int, ...], weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    # M * N * K from |A| = M * K, |B| = K * N, |Y| = M * N, whichever operands are transposed.
    return math.isqrt(math.prod(data) * math.prod(weight) * math.prod(output))


_FORMULAS: dict[str, Callable[[tuple[int, ...], tuple[int, ...], tuple[int, ...]], int]] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "QLinearConv"), _conv),
    "ConvTranspose": _transposed_conv,
    **dict.fromkeys(("Gemm", "QGemm"), _gemm),
}
