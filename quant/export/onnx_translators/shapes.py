"""Operators that move, cut and join in ONNX."""

from __future__ import annotations

import numpy as np

from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import (
    result_dtype,
    translates,
    typed_operand,
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


@translates("repeat_interleave")
def _repeat_interleave(b: OnnxBuilder, node: Node) -> None:
    """Each place several times: gathered by its number."""
    out, times, axis = b.result(node), node.attributes.get("repeats"), node.attributes.get("dim")
    if not isinstance(times, int) or axis is None:
        raise unsupported(node, "a tensor of repeats, or without dim")
    places = np.arange(b.shape(node.tensors[0])[axis]).repeat(times)
    b.emit("Gather", [b.operand(node, 0), b.constant(out, places)], out, axis=axis)


@translates("one_hot")
def _one_hot(b: OnnxBuilder, node: Node) -> None:
    out, classes = b.result(node), node.attributes["num_classes"]
    if classes < 0:
        classes = b.shape(node.outputs[0])[-1]
    rows = b.constant(out, np.eye(classes, dtype=np.int64))
    b.emit("Gather", [rows, b.operand(node, 0)], out, axis=0)


@translates("index_select")
def _index_select(b: OnnxBuilder, node: Node) -> None:
    b.emit("Gather", [b.operand(node, 0), b.operand(node, 1)], b.result(node), axis=node.attributes["dim"])


@translates("gather")
def _gather(b: OnnxBuilder, node: Node) -> None:
    operands = [b.operand(node, 0), b.operand(node, 1)]
    b.emit("GatherElements", operands, b.result(node), axis=node.attributes["dim"])


@translates("roll")
def _roll(b: OnnxBuilder, node: Node) -> None:
    """What leaves at the end comes in at the front: the tensor cut in two, and the halves changed."""
    out, shape, value = b.result(node), b.shape(node.tensors[0]), b.operand(node, 0)
    dims = node.attributes["dims"]
    if not dims:
        raise unsupported(node, "no dims")
    for position, (shift, dim) in enumerate(zip(node.attributes["shifts"], dims, strict=True)):
        cut = -shift % shape[dim]
        halves = [b.spare(out), b.spare(out)]
        b.emit("Split", [value, b.constant(out, [cut, shape[dim] - cut])], halves, axis=dim)
        value = b.emit("Concat", halves[::-1], out if position == len(dims) - 1 else b.spare(out), axis=dim)


@translates("flip")
def _flip(b: OnnxBuilder, node: Node) -> None:
    out, dims = b.result(node), list(node.attributes["dims"])
    bounds = ([-1] * len(dims), [np.iinfo(np.int64).min] * len(dims), dims, [-1] * len(dims))
    b.emit("Slice", [b.operand(node, 0), *(b.constant(out, list(bound)) for bound in bounds)], out)


@translates("tril", "triu")
def _triangle(b: OnnxBuilder, node: Node) -> None:
    diagonal = b.constant(b.result(node), np.int64(node.attributes["diagonal"]))
    b.emit("Trilu", [b.operand(node, 0), diagonal], b.result(node), upper=int(node.op == "triu"))


@translates("slice_scatter", "select_scatter")
def _overwrite(b: OnnxBuilder, node: Node) -> None:
    """`x[:, a:b] = y`: what lies before, the new part, what lies behind."""
    attributes, out, shape = node.attributes, b.result(node), b.shape(node.tensors[0])
    axis = attributes["dim"] % len(shape)
    if attributes.get("step", 1) != 1:
        raise unsupported(node, "a step other than 1")
    start, end, _ = slice(attributes.get("start"), attributes.get("end")).indices(shape[axis])
    new = b.operand(node, 1)
    if node.op == "select_scatter":
        start = attributes["index"] % shape[axis]
        end = start + 1
        new = b.emit("Unsqueeze", [new, b.constant(out, [axis])], b.spare(out))
    pieces = [b.spare(out) for _ in range(3)]
    sizes = b.constant(out, [start, end - start, shape[axis] - end])
    b.emit("Split", [b.operand(node, 0), sizes], pieces, axis=axis)
    b.emit("Concat", [pieces[0], new, pieces[2]], out, axis=axis)


@translates("scatter", "scatter_add")
def _scatter(b: OnnxBuilder, node: Node) -> None:
    if len(node.tensors) != 3:
        raise unsupported(node, "a number as source")
    reduction = "add" if node.op == "scatter_add" else "none"
    operands = [b.operand(node, i) for i in range(3)]
    b.emit("ScatterElements", operands, b.result(node), axis=node.attributes["dim"], reduction=reduction)


@translates("index_add")
def _index_add(b: OnnxBuilder, node: Node) -> None:
    """Whole slices are added where the index says: the index along one axis, for each element of a slice."""
    out, source = b.result(node), b.operand(node, 2)
    axis = node.attributes["dim"] % len(b.shape(node.tensors[0]))
    if node.attributes.get("alpha", 1) != 1:
        raise unsupported(node, "alpha other than 1")
    shape = list(b.shape(node.tensors[2]))
    lined_up = [size if place == axis else 1 for place, size in enumerate(shape)]
    index = b.emit("Reshape", [b.operand(node, 1), b.constant(out, lined_up)], b.spare(out))
    index = b.emit("Expand", [index, b.constant(out, shape)], b.spare(out))
    b.emit("ScatterElements", [b.operand(node, 0), index, source], out, axis=axis, reduction="add")


@translates("copy")
def _copy(b: OnnxBuilder, node: Node) -> None:
    """`x[:] = y`: the second tensor in the shape and type of the first."""
    out = b.result(node)
    value = typed_operand(b, node, 1, result_dtype(b, node), "src")
    b.emit("Expand", [value, b.constant(out, list(b.shape(node.outputs[0])))], out)


@translates("index")
def _index(b: OnnxBuilder, node: Node) -> None:
    """`x[:, i, j]`: one index is Gather; several, side by side, are GatherND over the dimensions moved to the front."""
    places = [i - 1 for i, ref in enumerate(node.inputs) if i and ref is not None]
    if any(b.graph.tensors[ref].dtype == "bool" for ref in node.tensors[1:]):
        raise unsupported(node, "a boolean mask")
    if len(places) == 1:
        b.emit("Gather", [b.operand(node, 0), b.operand(node, places[0] + 1)], b.result(node), axis=places[0])
        return
    if places != list(range(places[0], places[-1] + 1)):
        raise unsupported(node, "indices that do not stand side by side")
    out, shape, first = b.result(node), b.shape(node.tensors[0]), places[0]
    front = [*places, *(d for d in range(len(shape)) if d not in places)]
    value = b.emit("Transpose", [b.operand(node, 0)], b.spare(out), perm=front)
    common = np.broadcast_shapes(*(b.shape(ref) for ref in node.tensors[1:]))
    columns = []
    for place in places:
        index = b.emit("Expand", [b.operand(node, place + 1), b.constant(out, list(common))], b.spare(out))
        negative = b.emit("Less", [index, b.constant(out, np.int64(0))], b.spare(out))
        behind = b.emit("Add", [index, b.constant(out, np.int64(shape[place]))], b.spare(out))
        index = b.emit("Where", [negative, behind, index], b.spare(out))
        columns.append(b.emit("Unsqueeze", [index, b.constant(out, [-1])], b.spare(out)))
    indices = b.emit("Concat", columns, b.spare(out), axis=-1)
    # The common dimensions come out in front; torch has them where the first index stood.
    gathered = b.emit("GatherND", [value, indices], b.spare(out) if first else out)
    if first:
        n = len(common)
        back = [*range(n, n + first), *range(n), *range(n + first, n + len(shape) - len(places))]
        b.emit("Transpose", [gathered], out, perm=back)


@translates("constant_pad_nd", "pad")
def _pad(b: OnnxBuilder, node: Node) -> None:
    attributes, out = node.attributes, b.result(node)
    pairs = attributes["pad"]
    rank = len(b.shape(node.tensors[0]))
    before, after = [0] * rank, [0] * rank
    for i in range(len(pairs) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = pairs[2 * i], pairs[2 * i + 1]
    mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(attributes.get("mode", ""), "constant")
    value = b.constant(out, np.asarray(attributes.get("value") or 0), result_dtype(b, node))
    b.emit("Pad", [b.operand(node, 0), b.constant(out, before + after), value], out, mode=mode)
