"""What operators are made of: one function an operator, which writes its parts and says whether it could.

The formulas are the definitions in PyTorch's documentation of each operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bitwright.quant.graph import Node, TensorRef


class Writer(Protocol):
    """Takes down the parts of one operator."""

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        """Of a tensor of the graph or of a part."""
        ...

    def call(
        self, op: str, *operands: TensorRef, shape: Sequence[int], last: bool = False, **attributes: Any
    ) -> TensorRef:
        """Writes a part; the `last` one makes the operator's own result."""
        ...

    def constant(self, values: npt.NDArray[Any]) -> TensorRef:
        """A constant that the parts need."""
        ...


def _attention(write: Writer, node: Node) -> bool:
    """`softmax(q k^T · scale + mask) v`."""
    query, key, value, *masks = node.tensors
    q, k, v = write.shape(query), write.shape(key), write.shape(value)
    if len(q) != len(k) or len(k) != len(v) or q[:-2] != k[:-2]:
        return False  # grouped queries
    axes = len(k)
    scores = (*q[:-1], k[-2])
    turned = write.call("transpose", key, shape=(*k[:-2], k[-1], k[-2]), dim0=axes - 2, dim1=axes - 1)
    now = write.call("matmul", query, turned, shape=scores)
    scale = node.attributes.get("scale")
    now = write.call("mul", now, shape=scores, other=1 / math.sqrt(q[-1]) if scale is None else scale)
    if node.attributes.get("is_causal"):
        hidden = np.triu(np.full((q[-2], k[-2]), -1e4, np.float32), 1)  # e^-10000 is 0 in float32
        now = write.call("add", now, write.constant(hidden), shape=scores)
    if masks:
        now = write.call("add", now, masks[0], shape=scores)
    now = write.call("softmax", now, shape=scores, dim=axes - 1)
    write.call("matmul", now, value, shape=(*q[:-1], v[-1]), last=True)
    return True


def _normalize(write: Writer, x: TensorRef, axes: Sequence[int], eps: float, *, last: bool) -> TensorRef:
    """`(x - mean) / sqrt(var + eps)` over some axes."""
    shape = write.shape(x)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    mean = write.call("mean", x, shape=kept, dim=list(axes), keepdim=True)
    centred = write.call("sub", x, mean, shape=shape)
    squared = write.call("mul", centred, centred, shape=shape)
    variance = write.call("mean", squared, shape=kept, dim=list(axes), keepdim=True)
    shifted = write.call("add", variance, shape=kept, other=eps)
    factor = write.call("rsqrt", shifted, shape=kept)
    return write.call("mul", centred, factor, shape=shape, last=last)


def _scale_and_shift(write: Writer, x: TensorRef, operands: Sequence[TensorRef], shape: Sequence[int]) -> None:
    """`x · weight + bias`, as far as they are there; the last one makes the operator's result."""
    ops = ("mul", "add")[: len(operands)]
    for position, (op, operand) in enumerate(zip(ops, operands, strict=True)):
        x = write.call(op, x, operand, shape=shape, last=position == len(ops) - 1)


def _layer_norm(write: Writer, node: Node) -> bool:
    x, *affine = node.tensors
    count = len(node.attributes["normalized_shape"])
    axes = range(len(write.shape(x)) - count, len(write.shape(x)))
    eps = float(node.attributes.get("eps", 1e-5))
    normal = _normalize(write, x, list(axes), eps, last=not affine)
    _scale_and_shift(write, normal, affine, write.shape(x))
    return True


def _group_norm(write: Writer, node: Node) -> bool:
    x, *affine = node.tensors
    shape, groups = write.shape(x), int(node.attributes["num_groups"])
    apart = (shape[0], groups, math.prod(shape[1:]) // groups)
    eps = float(node.attributes.get("eps", 1e-5))
    now = write.call("reshape", x, shape=apart, size=apart)
    now = _normalize(write, now, [2], eps, last=False)
    now = write.call("reshape", now, shape=shape, size=shape, last=not affine)
    per_channel = (shape[1], *(1 for _ in shape[2:]))
    turned = [write.call("reshape", each, shape=per_channel, size=per_channel) for each in affine]
    _scale_and_shift(write, now, turned, shape)
    return True


def _silu(write: Writer, node: Node) -> bool:
    """`x · sigmoid(x)`."""
    (x,), shape = node.tensors, write.shape(node.tensors[0])
    write.call("mul", x, write.call("sigmoid", x, shape=shape), shape=shape, last=True)
    return True


def _relu6_of_shifted(write: Writer, x: TensorRef) -> TensorRef:
    """`min(max(x + 3, 0), 6)`."""
    shape = write.shape(x)
    return write.call("hardtanh", write.call("add", x, shape=shape, other=3.0), shape=shape, min_val=0.0, max_val=6.0)


def _hardsigmoid(write: Writer, node: Node) -> bool:
    """`relu6(x + 3) / 6`."""
    (x,), shape = node.tensors, write.shape(node.tensors[0])
    write.call("mul", _relu6_of_shifted(write, x), shape=shape, other=1 / 6, last=True)
    return True


def _hardswish(write: Writer, node: Node) -> bool:
    """`x · relu6(x + 3) / 6`."""
    (x,), shape = node.tensors, write.shape(node.tensors[0])
    gate = write.call("mul", _relu6_of_shifted(write, x), shape=shape, other=1 / 6)
    write.call("mul", x, gate, shape=shape, last=True)
    return True


def _clamp(write: Writer, node: Node) -> bool:
    """`minimum(maximum(x, min), max)`; bounds that are tensors are left alone."""
    if len(node.tensors) != 1:
        return False
    (x,), shape = node.tensors, write.shape(node.tensors[0])
    low, high = node.attributes.get("min"), node.attributes.get("max")
    if low is not None:
        x = write.call("maximum", x, shape=shape, other=low, last=high is None)
    if high is not None:
        write.call("minimum", x, shape=shape, other=high, last=True)
    return low is not None or high is not None


def _glu(write: Writer, node: Node) -> bool:
    """`a · sigmoid(b)` of the two halves along an axis."""
    (x,), shape = node.tensors, write.shape(node.tensors[0])
    axis = node.attributes.get("dim", -1) % len(shape)
    half = tuple(size // 2 if i == axis else size for i, size in enumerate(shape))
    bounds = [(0, half[axis]), (half[axis], shape[axis])]
    left, right = (write.call("slice", x, shape=half, dim=axis, start=a, end=b, step=1) for a, b in bounds)
    write.call("mul", left, write.call("sigmoid", right, shape=half), shape=half, last=True)
    return True


DECOMPOSITIONS: dict[str, Callable[[Writer, Node], bool]] = {
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "clamp": _clamp,
    "glu": _glu,
}
