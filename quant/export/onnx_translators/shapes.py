"""Operators that move, cut and join in ONNX."""

from __future__ import annotations

import numpy as np

from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import (
    result_dtype,
    translates,
    unsupported,
)
from bitwright.quant.graph import Node


@translates("view", "reshape", "flatten", "unsqueeze", "squeeze", "_unsafe_view", "unflatten", "view_as")
def _reshape(b: OnnxBuilder, node: Node) -> None:
    """Always Reshape: runtimes carry int8 through it, but not through Flatten or Squeeze."""
    b.emit("Reshape", [b.operand(node, 0), b.constant(b.result(node), list(b.shape(node.outputs[0])))], b.result(node))


@translates("permute")
def _permute(b: OnnxBuilder, node: Node) -> None:
    rank = len(node.attributes["dims"])
    b.emit("Transpose", [b.operand(node, 0)], b.result(node), perm=[d % rank for d in node.attributes["dims"]])


@translates("transpose", "t", "numpy_T")
def _transpose(b: OnnxBuilder, node: Node) -> None:
    rank = len(b.shape(node.tensors[0]))
    axes = list(range(rank))
    first, second = node.attributes.get("dim0", 0) % rank, node.attributes.get("dim1", 1) % rank
    axes[first], axes[second] = axes[second], axes[first]
    b.emit("Transpose", [b.operand(node, 0)], b.result(node), perm=axes)


@translates("expand", "expand_as")
def _expand(b: OnnxBuilder, node: Node) -> None:
    b.emit("Expand", [b.operand(node, 0), b.constant(b.result(node), list(b.shape(node.outputs[0])))], b.result(node))


@translates("repeat")
def _repeat(b: OnnxBuilder, node: Node) -> None:
    b.emit("Tile", [b.operand(node, 0), b.constant(b.result(node), list(node.attributes["repeats"]))], b.result(node))


@translates("cat", "concat")
def _cat(b: OnnxBuilder, node: Node) -> None:
    operands = [b.operand(node, i) for i, ref in enumerate(node.tensors) if b.graph.tensors[ref].elements]
    b.emit("Concat", operands, b.result(node), axis=node.attributes.get("dim", 0))


@translates("stack")
def _stack(b: OnnxBuilder, node: Node) -> None:
    out, shape = b.result(node), list(b.shape(node.outputs[0]))
    axis = node.attributes.get("dim", 0) % len(shape)
    shape[axis] = 1
    target = b.constant(out, shape)
    parts = [b.emit("Reshape", [b.operand(node, i), target], b.spare(out)) for i in range(len(node.tensors))]
    b.emit("Concat", parts, out, axis=axis)


@translates("split", "split_with_sizes", "chunk")
def _split(b: OnnxBuilder, node: Node) -> None:
    axis = node.attributes.get("dim", 0)
    sizes = [b.shape(ref)[axis] for ref in node.outputs]
    outputs = [b.result(node, i) for i in range(len(node.outputs))]
    b.emit("Split", [b.operand(node, 0), b.constant(b.result(node), sizes)], outputs, axis=axis)


@translates("unbind")
def _unbind(b: OnnxBuilder, node: Node) -> None:
    axis = node.attributes.get("dim", 0)
    for index in range(len(node.outputs)):
        out = b.result(node, index)
        b.emit("Gather", [b.operand(node, 0), b.constant(out, np.int64(index))], out, axis=axis)


@translates("slice")
def _slice(b: OnnxBuilder, node: Node) -> None:
    attributes, out = node.attributes, b.result(node)
    end = attributes["end"] if attributes["end"] is not None else np.iinfo(np.int64).max
    bounds = [attributes["start"] or 0, end, attributes["dim"], attributes["step"]]
    start, stop, axis, step = (b.constant(out, [value]) for value in bounds)
    b.emit("Slice", [b.operand(node, 0), start, stop, axis, step], out)


@translates("select")
def _select(b: OnnxBuilder, node: Node) -> None:
    out = b.result(node)
    b.emit("Gather", [b.operand(node, 0), b.constant(out, np.int64(node.attributes["index"]))], out,
           axis=node.attributes["dim"])  # fmt: skip


@translates("index_select")
def _index_select(b: OnnxBuilder, node: Node) -> None:
    b.emit("Gather", [b.operand(node, 0), b.operand(node, 1)], b.result(node), axis=node.attributes["dim"])


@translates("gather")
def _gather(b: OnnxBuilder, node: Node) -> None:
    operands = [b.operand(node, 0), b.operand(node, 1)]
    b.emit("GatherElements", operands, b.result(node), axis=node.attributes["dim"])


@translates("index")
def _index(b: OnnxBuilder, node: Node) -> None:
    positions = [i - 1 for i, ref in enumerate(node.inputs) if i and ref is not None]
    if len(positions) != 1 or b.graph.tensors[node.tensors[1]].dtype == "bool":
        raise unsupported(node, "several index tensors or a boolean mask")
    b.emit("Gather", [b.operand(node, 0), b.operand(node, positions[0] + 1)], b.result(node), axis=positions[0])


@translates("constant_pad_nd", "pad")
def _pad(b: OnnxBuilder, node: Node) -> None:
    attributes, out = node.attributes, b.result(node)
    pairs = attributes["pad"]
    rank = len(b.shape(node.tensors[0]))
    before, after = [0] * rank, [0] * rank
    for i in range(len(pairs) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pairs[2 * i], pairs[2 * i + 1]
    mode = {"reflect": "reflect", "replicate": "edge"}.get(attributes.get("mode", "constant"), "constant")
    value = b.constant(out, np.asarray(attributes.get("value") or 0), result_dtype(b, node))
    b.emit("Pad", [b.operand(node, 0), b.constant(out, before + after), value], out, mode=mode)
