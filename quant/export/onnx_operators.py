"""ATen operators in ONNX: one small function for each family.

A translator reads operands with `builder.operand(node, i)` and writes `builder.result(node)`; several ONNX nodes may
be needed, but the last one makes the value that carries the operator's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_builder import ELEMENT_TYPES, OnnxBuilder
from bitwright.quant.graph import Node

Translator = Callable[[OnnxBuilder, Node], None]
TRANSLATORS: dict[str, Translator] = {}


def translates(*ops: str) -> Callable[[Translator], Translator]:
    """Registers a translator for operator types."""

    def register(function: Translator) -> Translator:
        for op in ops:
            if op in TRANSLATORS:
                raise ValueError(f"operator {op!r} has two translations")
            TRANSLATORS[op] = function
        return function

    return register


def _unsupported(node: Node, what: str) -> InputError:
    return InputError(f"{node.source or node.module_path}: {node.op} with {what} has no ONNX translation")


def result_dtype(b: OnnxBuilder, node: Node) -> str:
    """The element type of a node's first result."""
    return b.graph.tensors[node.outputs[0]].dtype


def typed_operand(b: OnnxBuilder, node: Node, position: int, dtype: str, argument: str = "other") -> str:
    """An operand as `dtype`: cast when it has another type, a constant when it is a Python number."""
    ref = node.inputs[position] if position < len(node.inputs) else None
    if ref is None:
        return b.constant(b.result(node), np.asarray(node.attributes[argument]), dtype)
    name = b.read(ref, node)
    if b.graph.tensors[ref].dtype == dtype:
        return name
    return b.emit("Cast", [name], b.spare(b.result(node)), to=ELEMENT_TYPES[dtype])


# --- layers ---


@translates("conv1d", "conv2d", "conv3d")
def _conv(b: OnnxBuilder, node: Node) -> None:
    attributes = node.attributes
    rank = len(b.shape(node.tensors[1])) - 2
    padding = attributes["padding"]
    if isinstance(padding, str):
        auto_pad: str | None = "VALID" if padding == "valid" else "SAME_LOWER"
        pads = None
    else:
        auto_pad, pads = None, _both_sides(padding, rank)
    b.emit(
        "Conv",
        [name for name in (b.operand(node, 0), b.operand(node, 1), b.operand(node, 2)) if name],
        b.result(node),
        strides=_spread(attributes["stride"], rank),
        pads=pads,
        auto_pad=auto_pad,
        dilations=_spread(attributes["dilation"], rank),
        group=attributes["groups"],
    )


@translates("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(b: OnnxBuilder, node: Node) -> None:
    attributes = node.attributes
    rank = len(b.shape(node.tensors[1])) - 2
    b.emit(
        "ConvTranspose",
        [name for name in (b.operand(node, 0), b.operand(node, 1), b.operand(node, 2)) if name],
        b.result(node),
        strides=_spread(attributes["stride"], rank),
        pads=_both_sides(attributes["padding"], rank),
        output_padding=_spread(attributes["output_padding"], rank),
        dilations=_spread(attributes["dilation"], rank),
        group=attributes["groups"],
    )


@translates("linear")
def _linear(b: OnnxBuilder, node: Node) -> None:
    """As Gemm: it takes an int32 bias, which MatMul + Add does not."""
    shape, out = b.shape(node.tensors[0]), b.result(node)
    inputs = [b.operand(node, 0), b.operand(node, 1), b.operand(node, 2)]
    if len(shape) != 2:
        flat = b.constant(out, [-1, shape[-1]])
        inputs[0] = b.emit("Reshape", [inputs[0], flat], b.spare(out))
        product = b.emit("Gemm", [name for name in inputs if name], b.spare(out), transB=1)
        b.emit("Reshape", [product, b.constant(out, list(b.shape(node.outputs[0])))], out)
        return
    b.emit("Gemm", [name for name in inputs if name], out, transB=1)


@translates("addmm")
def _addmm(b: OnnxBuilder, node: Node) -> None:
    beta, alpha = float(node.attributes["beta"]), float(node.attributes["alpha"])
    operands = [b.operand(node, 1), b.operand(node, 2), b.operand(node, 0)]
    b.emit("Gemm", operands, b.result(node), alpha=alpha, beta=beta)


@translates("matmul", "mm", "bmm")
def _matmul(b: OnnxBuilder, node: Node) -> None:
    b.emit("MatMul", [b.operand(node, 0), b.operand(node, 1)], b.result(node))


@translates("scaled_dot_product_attention")
def _attention(b: OnnxBuilder, node: Node) -> None:
    """softmax(q k^T * scale + mask) v, spelled out: then every matmul can be seen and quantized."""
    if node.attributes.get("is_causal") or node.attributes.get("enable_gqa"):
        raise _unsupported(node, "is_causal or enable_gqa")
    out, query = b.result(node), node.tensors[0]
    rank = len(b.shape(query))
    scale = node.attributes.get("scale") or b.shape(query)[-1] ** -0.5
    axes = [*range(rank - 2), rank - 1, rank - 2]
    keys = b.emit("Transpose", [b.operand(node, 1)], b.spare(out), perm=axes)
    scores = b.emit("MatMul", [b.operand(node, 0), keys], b.spare(out))
    scores = b.emit("Mul", [scores, b.constant(out, np.float32(scale))], b.spare(out))
    mask = b.operand(node, 3)
    if mask:
        if b.graph.tensors[node.inputs[3]].dtype == "bool":  # type: ignore[index]
            zero, low = b.constant(out, np.float32(0)), b.constant(out, np.float32(-np.inf))
            mask = b.emit("Where", [mask, zero, low], b.spare(out))
        scores = b.emit("Add", [scores, mask], b.spare(out))
    weights = b.emit("Softmax", [scores], b.spare(out), axis=-1)
    b.emit("MatMul", [weights, b.operand(node, 2)], out)


@translates("batch_norm")
def _batch_norm(b: OnnxBuilder, node: Node) -> None:
    channels = b.shape(node.tensors[0])[1]
    operands = [b.operand(node, i) for i in range(5)]
    for position, value in ((1, 1.0), (2, 0.0)):
        operands[position] = operands[position] or b.constant(b.result(node), np.full(channels, value, np.float32))
    b.emit("BatchNormalization", operands, b.result(node), epsilon=node.attributes["eps"])


@translates("layer_norm", "native_layer_norm")
def _layer_norm(b: OnnxBuilder, node: Node) -> None:
    dims = node.attributes["normalized_shape"]
    scale = b.operand(node, 1) or b.constant(b.result(node), np.ones(dims, np.float32))
    operands = [b.operand(node, 0), scale, *([b.operand(node, 2)] if b.operand(node, 2) else [])]
    b.emit("LayerNormalization", operands, b.result(node), axis=-len(dims), epsilon=node.attributes["eps"])


@translates("group_norm")
def _group_norm(b: OnnxBuilder, node: Node) -> None:
    """By instance normalization over the groups: opset 20's own operator has one scale for each group only."""
    out, shape = b.result(node), b.shape(node.tensors[0])
    groups = node.attributes["num_groups"]
    grouped = b.emit("Reshape", [b.operand(node, 0), b.constant(out, [shape[0], groups, -1])], b.spare(out))
    one, zero = b.constant(out, np.ones(groups, np.float32)), b.constant(out, np.zeros(groups, np.float32))
    normed = b.emit("InstanceNormalization", [grouped, one, zero], b.spare(out), epsilon=node.attributes["eps"])
    affine = [(op, b.operand(node, i)) for op, i in (("Mul", 1), ("Add", 2)) if b.operand(node, i)]
    value = b.emit("Reshape", [normed, b.constant(out, list(shape))], b.spare(out) if affine else out)
    target = b.constant(out, [-1, *[1] * (len(shape) - 2)])
    for position, (op, parameter) in enumerate(affine):
        shaped = b.emit("Reshape", [parameter, target], b.spare(out))
        value = b.emit(op, [value, shaped], out if position == len(affine) - 1 else b.spare(out))


@translates("embedding")
def _embedding(b: OnnxBuilder, node: Node) -> None:
    b.emit("Gather", [b.operand(node, 0), b.operand(node, 1)], b.result(node), axis=0)


# --- activations and arithmetic ---

_UNARY = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
    "neg": "Neg", "floor": "Floor", "ceil": "Ceil", "round": "Round", "erf": "Erf", "sin": "Sin", "cos": "Cos",
    "reciprocal": "Reciprocal", "hardswish": "HardSwish", "mish": "Mish", "logical_not": "Not", "bitwise_not": "Not",
    "sign": "Sign", "atan": "Atan", "softplus": "Softplus", "isnan": "IsNaN",
}  # fmt: skip


@translates(*_UNARY)
def _unary(b: OnnxBuilder, node: Node) -> None:
    b.emit(_UNARY[node.op], [b.operand(node, 0)], b.result(node))


@translates("hardtanh", "clamp", "clamp_min", "clamp_max", "relu6")
def _clamp(b: OnnxBuilder, node: Node) -> None:
    attributes = node.attributes
    low = 0.0 if node.op == "relu6" else attributes.get("min_val", attributes.get("min"))
    high = 6.0 if node.op == "relu6" else attributes.get("max_val", attributes.get("max"))
    dtype, out = result_dtype(b, node), b.result(node)
    bounds = [b.constant(out, np.asarray(v), dtype) if v is not None else "" for v in (low, high)]
    b.emit("Clip", [b.operand(node, 0), *bounds], out)


@translates("leaky_relu", "elu", "hardsigmoid", "gelu", "silu", "rsqrt", "log1p", "square")
def _composed(b: OnnxBuilder, node: Node) -> None:
    x, out, attributes = b.operand(node, 0), b.result(node), node.attributes
    if node.op == "leaky_relu":
        b.emit("LeakyRelu", [x], out, alpha=float(attributes["negative_slope"]))
    elif node.op == "elu":
        b.emit("Elu", [x], out, alpha=float(attributes["alpha"]))
    elif node.op == "hardsigmoid":
        b.emit("HardSigmoid", [x], out, alpha=1 / 6, beta=0.5)
    elif node.op == "gelu":
        b.emit("Gelu", [x], out, approximate=attributes["approximate"])
    elif node.op == "silu":
        b.emit("Mul", [x, b.emit("Sigmoid", [x], b.spare(out))], out)
    elif node.op == "rsqrt":
        b.emit("Reciprocal", [b.emit("Sqrt", [x], b.spare(out))], out)
    elif node.op == "log1p":
        b.emit("Log", [b.emit("Add", [x, b.constant(out, np.float32(1))], b.spare(out))], out)
    else:
        b.emit("Mul", [x, x], out)


@translates("prelu")
def _prelu(b: OnnxBuilder, node: Node) -> None:
    out, rank = b.result(node), len(b.shape(node.tensors[0]))
    slope = b.emit("Reshape", [b.operand(node, 1), b.constant(out, [-1, *[1] * (rank - 2)])], b.spare(out))
    b.emit("PRelu", [b.operand(node, 0), slope], out)


_BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "maximum": "Max", "minimum": "Min", "pow": "Pow",
    "logical_and": "And", "logical_or": "Or", "bitwise_and": "And", "bitwise_or": "Or", "atan2": "Atan2",
}  # fmt: skip


@translates("add", "sub", "mul", "maximum", "minimum", "pow", "logical_and", "logical_or", "bitwise_and", "bitwise_or")
def _binary(b: OnnxBuilder, node: Node) -> None:
    dtype, out = result_dtype(b, node), b.result(node)
    other = "exponent" if node.op == "pow" else "other"
    left = typed_operand(b, node, 0, dtype, "self")
    right = typed_operand(b, node, 1, dtype, other)
    alpha = node.attributes.get("alpha", 1)
    if alpha != 1:
        right = b.emit("Mul", [right, b.constant(out, np.asarray(alpha), dtype)], b.spare(out))
    b.emit(_BINARY[node.op], [left, right], out)


@translates("rsub")
def _rsub(b: OnnxBuilder, node: Node) -> None:
    dtype = result_dtype(b, node)
    b.emit("Sub", [typed_operand(b, node, 1, dtype), typed_operand(b, node, 0, dtype, "self")], b.result(node))


@translates("div", "floor_divide")
def _div(b: OnnxBuilder, node: Node) -> None:
    rounding = "floor" if node.op == "floor_divide" else node.attributes.get("rounding_mode")
    dtype, out = result_dtype(b, node), b.result(node)
    if rounding and not dtype.startswith("float"):
        raise _unsupported(node, f"rounding_mode={rounding!r} on {dtype}")
    operands = [typed_operand(b, node, 0, dtype, "self"), typed_operand(b, node, 1, dtype)]
    quotient = b.emit("Div", operands, b.spare(out) if rounding else out)
    if rounding == "floor":
        b.emit("Floor", [quotient], out)
    elif rounding == "trunc":
        size = b.emit("Floor", [b.emit("Abs", [quotient], b.spare(out))], b.spare(out))
        b.emit("Mul", [size, b.emit("Sign", [quotient], b.spare(out))], out)


_COMPARE = {"eq": "Equal", "lt": "Less", "gt": "Greater", "le": "LessOrEqual", "ge": "GreaterOrEqual", "ne": "Equal"}


@translates(*_COMPARE)
def _compare(b: OnnxBuilder, node: Node) -> None:
    dtype, out = b.graph.tensors[node.tensors[0]].dtype, b.result(node)
    operands = [typed_operand(b, node, 0, dtype, "self"), typed_operand(b, node, 1, dtype)]
    if node.op == "ne":
        b.emit("Not", [b.emit("Equal", operands, b.spare(out))], out)
    else:
        b.emit(_COMPARE[node.op], operands, out)


@translates("where")
def _where(b: OnnxBuilder, node: Node) -> None:
    dtype = result_dtype(b, node)
    operands = [b.operand(node, 0), typed_operand(b, node, 1, dtype, "self"), typed_operand(b, node, 2, dtype)]
    b.emit("Where", operands, b.result(node))


@translates("masked_fill")
def _masked_fill(b: OnnxBuilder, node: Node) -> None:
    value = typed_operand(b, node, 2, result_dtype(b, node), "value")
    b.emit("Where", [b.operand(node, 1), value, b.operand(node, 0)], b.result(node))


@translates("to", "_to_copy", "type_as")
def _cast(b: OnnxBuilder, node: Node) -> None:
    b.emit("Cast", [b.operand(node, 0)], b.result(node), to=ELEMENT_TYPES[result_dtype(b, node)])


@translates("softmax", "log_softmax")
def _softmax(b: OnnxBuilder, node: Node) -> None:
    op = "Softmax" if node.op == "softmax" else "LogSoftmax"
    b.emit(op, [b.operand(node, 0)], b.result(node), axis=node.attributes["dim"])


# --- pooling and reductions ---


@translates("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(b: OnnxBuilder, node: Node) -> None:
    _pool(b, node, "MaxPool", dilations=_spread(node.attributes["dilation"], _pool_rank(node)))


@translates("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(b: OnnxBuilder, node: Node) -> None:
    if node.attributes.get("divisor_override"):
        raise _unsupported(node, "divisor_override")
    _pool(b, node, "AveragePool", count_include_pad=int(node.attributes["count_include_pad"]))


def _pool_rank(node: Node) -> int:
    return int(node.op[-2])


def _pool(b: OnnxBuilder, node: Node, op: str, **more: Any) -> None:
    attributes, rank = node.attributes, _pool_rank(node)
    b.emit(
        op,
        [b.operand(node, 0)],
        b.result(node),
        kernel_shape=_spread(attributes["kernel_size"], rank),
        strides=_spread(attributes["stride"] or attributes["kernel_size"], rank),
        pads=_both_sides(attributes["padding"], rank),
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
        raise _unsupported(node, f"sizes that do not divide ({before[-rank:]} to {after[-rank:]})")
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
        raise _unsupported(node, "dim=None")
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


# --- shapes ---


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
        raise _unsupported(node, "several index tensors or a boolean mask")
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


# --- images ---


@translates(
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_linear1d"
)
def _resize(b: OnnxBuilder, node: Node) -> None:
    out = b.result(node)
    sizes = b.constant(out, list(b.shape(node.outputs[0])))
    if "nearest" in node.op:
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        aligned = bool(node.attributes["align_corners"])
        options = {"mode": "linear", "coordinate_transformation_mode": "align_corners" if aligned else "half_pixel"}
    b.emit("Resize", [b.operand(node, 0), "", "", sizes], out, **options)


@translates("pixel_shuffle")
def _pixel_shuffle(b: OnnxBuilder, node: Node) -> None:
    b.emit(
        "DepthToSpace", [b.operand(node, 0)], b.result(node), blocksize=node.attributes["upscale_factor"], mode="CRD"
    )


@translates("grid_sampler")
def _grid_sample(b: OnnxBuilder, node: Node) -> None:
    modes = {0: "linear", 1: "nearest", 2: "cubic"}
    paddings = {0: "zeros", 1: "border", 2: "reflection"}
    b.emit(
        "GridSample",
        [b.operand(node, 0), b.operand(node, 1)],
        b.result(node),
        mode=modes[node.attributes["interpolation_mode"]],
        padding_mode=paddings[node.attributes["padding_mode"]],
        align_corners=int(bool(node.attributes["align_corners"])),
    )


def _spread(value: int | Sequence[int], rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _both_sides(padding: int | Sequence[int], rank: int) -> list[int]:
    return _spread(padding, rank) * 2
