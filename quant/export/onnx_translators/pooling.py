"""Pooling, reductions and searches in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwright.quant.export.onnx_builder import OnnxBuilder
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
        raise unsupported(node, f"sizes that do not divide ({before[-rank:]} to {after[-rank:]})")
    kernel = [old // new for old, new in zip(before[-rank:], after[-rank:], strict=True)]
    b.emit("AveragePool", [b.operand(node, 0)], b.result(node), kernel_shape=kernel, strides=kernel)


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


@translates("cumsum")
def _cumsum(b: OnnxBuilder, node: Node) -> None:
    axis = b.constant(b.result(node), np.int64(node.attributes["dim"]))
    b.emit("CumSum", [typed_operand(b, node, 0, result_dtype(b, node)), axis], b.result(node))
