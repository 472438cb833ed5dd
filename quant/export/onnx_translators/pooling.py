"""Pooling, reductions and searches in ONNX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import (
    both_sides,
    result_dtype,
    spread,
    translates,
    typed_operand,
    unsupported,
)
from bitwright.quant.graph import Node


@translates("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(b: OnnxBuilder, node: Node) -> None:
    _pool(b, node, "MaxPool", dilations=spread(node.attributes["dilation"], _pool_rank(node)))


@translates("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(b: OnnxBuilder, node: Node) -> None:
    if node.attributes.get("divisor_override"):
        raise unsupported(node, "divisor_override")
    _pool(b, node, "AveragePool", count_include_pad=int(node.attributes["count_include_pad"]))


def _pool_rank(node: Node) -> int:
    return int(node.op[-2])


def _pool(b: OnnxBuilder, node: Node, op: str, **more: Any) -> None:
    attributes, rank = node.attributes, _pool_rank(node)
    b.emit(
        op,
        [b.operand(node, 0)],
        b.result(node),
        kernel_shape=spread(attributes["kernel_size"], rank),
        strides=spread(attributes["stride"] or attributes["kernel_size"], rank),
        pads=both_sides(attributes["padding"], rank),
        ceil_mode=int(attributes["ceil_mode"]),
        **more,
    )


@translates("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_avg_pool(b: OnnxBuilder, node: Node) -> None:
    rank, before, after = _pool_rank(node), b.shape(node.tensors[0]), b.shape(node.outputs[0])
    if all(size == 1 for size in after[-rank:]):
        b.emit("GlobalAveragePool", [b.operand(node, 0)], b.result(node))
        return
    if any(old % new for old, new in zip(before[-rank:], after[-rank:], strict=True)):
        _uneven_windows(b, node, before[-rank:], after[-rank:])
        return
    kernel = [old // new for old, new in zip(before[-rank:], after[-rank:], strict=True)]
    b.emit("AveragePool", [b.operand(node, 0)], b.result(node), kernel_shape=kernel, strides=kernel)


def _uneven_windows(b: OnnxBuilder, node: Node, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """Windows of unlike size are no AveragePool; along each axis they are a product with a constant matrix.

    Output i of n averages the inputs from floor(i * size / n) to ceil((i + 1) * size / n).
    """
    out, rank = b.result(node), len(b.shape(node.tensors[0]))
    value = b.operand(node, 0)
    for axis, (size, n) in enumerate(zip(before, after, strict=True), start=rank - len(before)):
        matrix = np.zeros((size, n), np.float32)
        for i in range(n):
            window = slice(i * size // n, -(-(i + 1) * size // n))
            matrix[window, i] = 1 / (window.stop - window.start)
        # MatMul works on the last axis: the one in question changes places with it and back.
        swap = list(range(rank))
        swap[axis], swap[-1] = swap[-1], swap[axis]
        if axis == rank - 1:
            value = b.emit("MatMul", [value, b.constant(out, matrix)], out)
            continue
        moved = b.emit("Transpose", [value], b.spare(out), perm=swap)
        product = b.emit("MatMul", [moved, b.constant(out, matrix)], b.spare(out))
        value = b.emit("Transpose", [product], b.spare(out), perm=swap)


_REDUCTIONS = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin", "prod": "ReduceProd"}


@translates(*_REDUCTIONS)
def _reduce(b: OnnxBuilder, node: Node) -> None:
    """A mean over all spatial dimensions is a global average pool: runtimes have that one in int8."""
    out, rank = b.result(node), len(b.shape(node.tensors[0]))
    dims = node.attributes.get("dim")
    dims = sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank)))
    keep = bool(node.attributes.get("keepdim", False))
    x = typed_operand(b, node, 0, result_dtype(b, node))
    if node.op == "mean" and rank > 2 and dims == list(range(2, rank)):
        pooled = b.emit("GlobalAveragePool", [x], out if keep else b.spare(out))
        if not keep:
            b.emit("Reshape", [pooled, b.constant(out, list(b.shape(node.outputs[0])))], out)
        return
    b.emit(_REDUCTIONS[node.op], [x, b.constant(out, dims)], out, keepdims=int(keep))


@translates("max", "min")
def _extreme(b: OnnxBuilder, node: Node) -> None:
    """Three operators of one name: over everything, along a dimension with its index, of two tensors."""
    out, largest, x = b.result(node), node.op == "max", b.operand(node, 0)
    if len(node.tensors) > 1:
        b.emit("Max" if largest else "Min", [x, b.operand(node, 1)], out)
        return
    reduce = "ReduceMax" if largest else "ReduceMin"
    if "dim" not in node.attributes:
        b.emit(reduce, [x], out, keepdims=0)
        return
    axis, keep = node.attributes["dim"], int(bool(node.attributes["keepdim"]))
    b.emit(reduce, [x, b.constant(out, [axis])], out, keepdims=keep)
    b.emit("ArgMax" if largest else "ArgMin", [x], b.result(node, 1), axis=axis, keepdims=keep)


@translates("var", "std")
def _variance(b: OnnxBuilder, node: Node) -> None:
    """mean((x - mean(x))^2) * n / (n - correction)."""
    out, x, shape = b.result(node), b.operand(node, 0), b.shape(node.tensors[0])
    dims = node.attributes.get("dim")
    dims = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(shape)))]
    correction = node.attributes.get("correction", 1 if node.attributes.get("unbiased", True) else 0)
    n = math.prod(shape[d] for d in dims)
    axes, keep = b.constant(out, dims), int(bool(node.attributes.get("keepdim", False)))
    centered = b.emit("Sub", [x, b.emit("ReduceMean", [x, axes], b.spare(out))], b.spare(out))
    mean = b.emit("ReduceMean", [b.emit("Mul", [centered] * 2, b.spare(out)), axes], b.spare(out), keepdims=keep)
    factor = b.constant(out, np.float32(n / (n - (1 if correction is None else correction))))
    variance = b.emit("Mul", [mean, factor], b.spare(out) if node.op == "std" else out)
    if node.op == "std":
        b.emit("Sqrt", [variance], out)


@translates("linalg_vector_norm", "norm")
def _norm(b: OnnxBuilder, node: Node) -> None:
    order = node.attributes.get("ord", node.attributes.get("p"))
    if order not in (1, 2):
        raise unsupported(node, f"order {order}")
    dims, keep = node.attributes.get("dim"), int(bool(node.attributes.get("keepdim", False)))
    axes = [b.constant(b.result(node), [dims] if isinstance(dims, int) else list(dims))] if dims else []
    b.emit(f"ReduceL{int(order)}", [b.operand(node, 0), *axes], b.result(node), keepdims=keep)


@translates("any", "all")
def _any(b: OnnxBuilder, node: Node) -> None:
    """The largest or the smallest of 0 and 1; ONNX reduces numbers alone."""
    out, dim = b.result(node), node.attributes.get("dim")
    truth = b.emit("Cast", [b.operand(node, 0)], b.spare(out), to=ELEMENT_TYPES["bool"])
    numbers = b.emit("Cast", [truth], b.spare(out), to=ELEMENT_TYPES["int32"])
    dims = range(len(b.shape(node.tensors[0]))) if dim is None else [dim] if isinstance(dim, int) else dim
    op, keep = ("ReduceMax" if node.op == "any" else "ReduceMin"), int(bool(node.attributes.get("keepdim", False)))
    found = b.emit(op, [numbers, b.constant(out, list(dims))], b.spare(out), keepdims=keep)
    b.emit("Cast", [found], out, to=ELEMENT_TYPES[result_dtype(b, node)])


@translates("argmax", "argmin")
def _argmax(b: OnnxBuilder, node: Node) -> None:
    if node.attributes["dim"] is None:
        raise unsupported(node, "dim=None")
    op = "ArgMax" if node.op == "argmax" else "ArgMin"
    keep = int(bool(node.attributes["keepdim"]))
    b.emit(op, [b.operand(node, 0)], b.result(node), axis=node.attributes["dim"], keepdims=keep)


@translates("topk")
def _topk(b: OnnxBuilder, node: Node) -> None:
    count = b.constant(b.result(node), [node.attributes["k"]])
    outputs = [b.result(node), b.result(node, 1)]
    largest, ordered = int(node.attributes["largest"]), int(node.attributes["sorted"])
    b.emit("TopK", [b.operand(node, 0), count], outputs, axis=node.attributes["dim"], largest=largest, sorted=ordered)


@translates("argsort")
def _argsort(b: OnnxBuilder, node: Node) -> None:
    """All of an axis by TopK, whose order of equal values is that of their places."""
    out, axis = b.result(node), node.attributes["dim"]
    count = b.constant(out, [b.shape(node.tensors[0])[axis]])
    largest = int(bool(node.attributes["descending"]))
    b.emit("TopK", [b.operand(node, 0), count], [b.spare(out), out], axis=axis, largest=largest, sorted=1)


@translates("cumsum")
def _cumsum(b: OnnxBuilder, node: Node) -> None:
    axis = b.constant(b.result(node), np.int64(node.attributes["dim"]))
    b.emit("CumSum", [typed_operand(b, node, 0, result_dtype(b, node)), axis], b.result(node))
