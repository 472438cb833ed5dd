"""Layers with weights, attention and normalization in ONNX."""

from __future__ import annotations

import numpy as np

from bitwright.quant.export.onnx_builder import OnnxBuilder
from bitwright.quant.export.onnx_translators.registry import (
    both_sides,
    spread,
    translates,
    unsupported,
)
from bitwright.quant.graph import Node


@translates("conv1d", "conv2d", "conv3d")
def _conv(b: OnnxBuilder, node: Node) -> None:
    attributes = node.attributes
    rank = len(b.shape(node.tensors[1])) - 2
    dilation = spread(attributes["dilation"], rank)
    if len(b.shape(node.tensors[0])) != rank + 2:
        raise unsupported(node, "an input without batch dimension")
    if attributes["padding"] == "same":
        # torch puts the odd element behind; an explicit pad is what runtimes' int8 kernels take.
        total = [d * (size - 1) for d, size in zip(dilation, b.shape(node.tensors[1])[2:], strict=True)]
        pads = [size // 2 for size in total] + [size - size // 2 for size in total]
    else:
        pads = both_sides(0 if attributes["padding"] == "valid" else attributes["padding"], rank)
    b.emit(
        "Conv",
        [name for name in (b.operand(node, 0), b.operand(node, 1), b.operand(node, 2)) if name],
        b.result(node),
        strides=spread(attributes["stride"], rank),
        pads=pads,
        dilations=dilation,
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
        strides=spread(attributes["stride"], rank),
        pads=both_sides(attributes["padding"], rank),
        output_padding=spread(attributes["output_padding"], rank),
        dilations=spread(attributes["dilation"], rank),
        group=attributes["groups"],
    )


@translates("linear")
def _linear(b: OnnxBuilder, node: Node) -> None:
    """As Gemm: it takes an int32 bias, which MatMul + Add does not. Where the builder wants it, as those two."""
    shape, out = b.shape(node.tensors[0]), b.result(node)
    product, bias = b.write_product(node), b.operand(node, 2)
    if product is not None:
        if bias:
            b.emit("Add", [product, bias], out)
        return
    inputs = [b.operand(node, 0), b.operand(node, 1), bias]
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


@translates("baddbmm")
def _baddbmm(b: OnnxBuilder, node: Node) -> None:
    out = b.result(node)
    if node.attributes["beta"] != 1 or node.attributes["alpha"] != 1:
        raise unsupported(node, "beta or alpha other than 1")
    product = b.emit("MatMul", [b.operand(node, 1), b.operand(node, 2)], b.spare(out))
    b.emit("Add", [product, b.operand(node, 0)], out)


@translates("einsum")
def _einsum(b: OnnxBuilder, node: Node) -> None:
    """Those that are no product of two matrices; the others were taken apart at capture."""
    operands = [b.operand(node, i) for i in range(len(node.tensors))]
    b.emit("Einsum", operands, b.result(node), equation=node.attributes["equation"].replace(" ", ""))


@translates("matmul", "mm", "bmm")
def _matmul(b: OnnxBuilder, node: Node) -> None:
    b.emit("MatMul", [b.operand(node, 0), b.operand(node, 1)], b.result(node))


@translates("scaled_dot_product_attention")
def _attention(b: OnnxBuilder, node: Node) -> None:
    """softmax(q k^T * scale + mask) v, spelled out: then every matmul can be seen and quantized."""
    if node.attributes.get("enable_gqa"):
        raise unsupported(node, "enable_gqa")
    out, query, key = b.result(node), node.tensors[0], node.tensors[1]
    rank = len(b.shape(query))
    scale = node.attributes.get("scale") or b.shape(query)[-1] ** -0.5
    axes = [*range(rank - 2), rank - 1, rank - 2]
    keys = b.emit("Transpose", [b.operand(node, 1)], b.spare(out), perm=axes)
    scores = b.emit("MatMul", [b.operand(node, 0), keys], b.spare(out))
    scores = b.emit("Mul", [scores, b.constant(out, np.float32(scale))], b.spare(out))
    mask = _attention_mask(b, node, (b.shape(query)[-2], b.shape(key)[-2]))
    if mask:
        scores = b.emit("Add", [scores, mask], b.spare(out))
    weights = b.emit("Softmax", [scores], b.spare(out), axis=-1)
    b.emit("MatMul", [weights, b.operand(node, 2)], out)


def _attention_mask(b: OnnxBuilder, node: Node, size: tuple[int, int]) -> str:
    """What is added to the scores, "" for nothing; a boolean mask keeps where it is true."""
    out, ref = b.result(node), node.inputs[3] if len(node.inputs) > 3 else None
    if node.attributes.get("is_causal"):
        return b.constant(out, np.triu(np.full(size, -np.inf, np.float32), 1))
    if ref is None:
        return ""
    if b.graph.tensors[ref].dtype != "bool":
        return b.operand(node, 3)
    zero, low = b.constant(out, np.float32(0)), b.constant(out, np.float32(-np.inf))
    return b.emit("Where", [b.operand(node, 3), zero, low], b.spare(out))


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


@translates("rms_norm")
def _rms_norm(b: OnnxBuilder, node: Node) -> None:
    """X / sqrt(mean(x^2) + eps) * weight, spelled out: the operator of its own is new in opset 23."""
    out, x = b.result(node), b.operand(node, 0)
    eps = node.attributes["eps"] if node.attributes["eps"] is not None else np.finfo(np.float32).eps
    axes = b.constant(out, list(range(-len(node.attributes["normalized_shape"]), 0)))
    mean = b.emit("ReduceMean", [b.emit("Mul", [x, x], b.spare(out)), axes], b.spare(out), keepdims=1)
    root = b.emit("Sqrt", [b.emit("Add", [mean, b.constant(out, np.float32(eps))], b.spare(out))], b.spare(out))
    weight = b.operand(node, 1)
    normed = b.emit("Div", [x, root], b.spare(out) if weight else out)
    if weight:
        b.emit("Mul", [normed, weight], out)


@translates("instance_norm")
def _instance_norm(b: OnnxBuilder, node: Node) -> None:
    if not node.attributes["use_input_stats"]:
        raise unsupported(node, "running statistics")
    channels = b.shape(node.tensors[0])[1]
    scale = b.operand(node, 1) or b.constant(b.result(node), np.ones(channels, np.float32))
    shift = b.operand(node, 2) or b.constant(b.result(node), np.zeros(channels, np.float32))
    operands = [b.operand(node, 0), scale, shift]
    b.emit("InstanceNormalization", operands, b.result(node), epsilon=node.attributes["eps"])


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
