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
    padding = attributes["padding"]
    if isinstance(padding, str):
        auto_pad: str | None = "VALID" if padding == "valid" else "SAME_LOWER"
        pads = None
    else:
        auto_pad, pads = None, both_sides(padding, rank)
    b.emit(
        "Conv",
        [name for name in (b.operand(node, 0), b.operand(node, 1), b.operand(node, 2)) if name],
        b.result(node),
        strides=spread(attributes["stride"], rank),
        pads=pads,
        auto_pad=auto_pad,
        dilations=spread(attributes["dilation"], rank),
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
        raise unsupported(node, "is_causal or enable_gqa")
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
