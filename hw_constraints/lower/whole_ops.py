"""Operators that the interpreter runs in one piece: moves, and windows that are no boxes of a nest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.lower.integer_ops import Real
from bitwright.hw_constraints.lower.layout import permutation
from bitwright.hw_constraints.lower.work_of import sizes_of
from bitwright.hw_constraints.operators import ADAPTIVE_POOLS
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TRANSPOSED_CONVOLUTIONS, Graph, Node


def runs_whole(graph: Graph, node: Node) -> bool:
    """Whether an operator that computes has windows that are no boxes of its nest."""
    if node.op in ADAPTIVE_POOLS:
        before, after = graph.tensors[node.tensors[0]].shape, graph.tensors[node.outputs[0]].shape
        count = int(node.op[-2])
        return any((n or 1) % (m or 1) for n, m in zip(before[-count:], after[-count:], strict=True))
    if node.op in TRANSPOSED_CONVOLUTIONS:  # with a dilation, taps of one phase are no window
        count = int(node.op[-2])
        return count == 3 or sizes_of(node.attributes.get("dilation"), count, 1) != [1] * count
    return node.op in _INTERPOLATIONS or node.op == "conv3d"


def run_whole(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    """All results of a call.

    Args:
        node: the call.
        operands: real values of its tensors, in order; of indices the numbers themselves.
        shapes: of its results.

    Raises:
        InputError: the interpreter does not know the operator.
    """
    if node.op in TRANSPOSED_CONVOLUTIONS:
        return [_transposed_convolution(node, operands, shapes[0])]
    if node.op == "conv3d":
        return [_convolution(node, operands, shapes[0])]
    if node.op in _INTERPOLATIONS:
        return [_interpolated(node, operands[0], shapes[0])]
    if node.op in ADAPTIVE_POOLS:
        return [_adaptive_pool(node, operands[0], shapes[0])]
    if node.op in _MOVES:
        return _MOVES[node.op](node, operands, shapes)
    raise InputError(f"node {node.name!r}: the interpreter does not know {node.op!r}")


def _taps(node: Node, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], Any]:
    count = len(kernel)
    stride = sizes_of(node.attributes.get("stride"), count, 1)
    padding = sizes_of(node.attributes.get("padding"), count, 0)
    dilation = sizes_of(node.attributes.get("dilation"), count, 1)
    return stride, padding, dilation, itertools.product(*map(range, kernel))


def _transposed_convolution(node: Node, operands: Sequence[Real], shape: tuple[int, ...]) -> Real:
    """Each input position adds its taps to the output; what falls outside is cut off."""
    data, weights = operands[:2]
    groups, kernel = node.attributes.get("groups", 1), weights.shape[2:]
    stride, padding, dilation, taps = _taps(node, kernel)
    # Room for everything that is written; the output is a box of it.
    room = [
        max((size - 1) * s + (k - 1) * d + 1, p + out)
        for size, s, k, d, p, out in zip(data.shape[2:], stride, kernel, dilation, padding, shape[2:], strict=True)
    ]
    per_group = data.shape[1] // groups
    total = np.zeros((shape[0], shape[1], *room))
    grouped = total.reshape(shape[0], groups, -1, *room)
    x = data.reshape(data.shape[0], groups, per_group, -1)
    w = weights.reshape(groups, per_group, weights.shape[1], *kernel)
    for tap in taps:
        add = np.einsum("ngcp,gco->ngop", x, w[_behind(tap)]).reshape(*grouped.shape[:3], *data.shape[2:])
        where = tuple(
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, s, size in zip(tap, dilation, stride, data.shape[2:], strict=True)
        )
        grouped[_behind(where)] += add
    box = tuple(slice(p, p + out) for p, out in zip(padding, shape[2:], strict=True))
    return np.asarray(total[_behind(box)])


def _behind(places: Iterable[Any]) -> tuple[Any, ...]:
    """An index into the last axes."""
    return (Ellipsis, *places)


def _convolution(node: Node, operands: Sequence[Real], shape: tuple[int, ...]) -> Real:
    data, weights = operands[:2]
    groups, kernel = node.attributes.get("groups", 1), weights.shape[2:]
    stride, padding, dilation, taps = _taps(node, kernel)
    padded = np.pad(data, [(0, 0), (0, 0), *((p, p) for p in padding)])
    total = np.zeros((shape[0], groups, shape[1] // groups, *shape[2:]))
    x = padded.reshape(data.shape[0], groups, -1, *padded.shape[2:])
    w = weights.reshape(groups, -1, *weights.shape[1:])
    for tap in taps:
        where = tuple(
            slice(t * d, t * d + (out - 1) * s + 1, s)
            for t, d, s, out in zip(tap, dilation, stride, shape[2:], strict=True)
        )
        total += np.einsum("ngc...,goc->ngo...", x[_behind(where)], w[_behind(tap)])
    return total.reshape(shape)


def _sliced(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    axis, size = node.attributes.get("dim", 0), operands[0].shape[node.attributes.get("dim", 0)]
    start, end = node.attributes.get("start") or 0, node.attributes.get("end")
    start, end = (start + size if start < 0 else start), size if end is None else end
    index: list[Any] = [slice(None)] * operands[0].ndim
    index[axis] = slice(start, end + size if end < 0 else end, node.attributes.get("step", 1))
    return [operands[0][tuple(index)]]


def _parts(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    axis = node.attributes.get("dim", 0) % operands[0].ndim
    ends = np.cumsum([shape[axis] for shape in shapes])[:-1]
    return np.split(operands[0], ends, axis=axis)


def _padded(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    given = node.attributes["pad"]
    pairs = list(zip(given[::2], given[1::2], strict=True))[::-1]
    widths = [(0, 0)] * (operands[0].ndim - len(pairs)) + pairs
    if any(min(pair) < 0 for pair in widths) or node.attributes.get("mode", "constant") != "constant":
        raise InputError(f"node {node.name!r}: the interpreter pads with constants only")
    return [np.pad(operands[0], widths, constant_values=node.attributes.get("value") or 0.0)]


_INTERPOLATIONS = frozenset({"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"})


def _interpolated(node: Node, values: Real, shape: tuple[int, ...]) -> Real:
    """Axis by axis, the last one first: result i lies at `(i + 1/2) s - 1/2`, with corners aligned at `i s`."""
    corners = node.attributes.get("align_corners", False)
    factors = node.attributes.get("scale_factors") or node.attributes.get("scales")
    for axis in range(values.ndim - 1, 1, -1):
        size, results = values.shape[axis], shape[axis]
        places = np.arange(results, dtype=np.float64)
        if corners:
            places = places * ((size - 1) / (results - 1) if results > 1 else 0.0)
        else:
            step = 1 / factors[axis - 2] if factors else size / results
            places = np.maximum((places + 0.5) * step - 0.5, 0.0)
        low = np.minimum(np.floor(places).astype(np.int64), size - 1)
        high = np.minimum(low + 1, size - 1)
        share = (places - low).reshape(-1, *(1,) * (values.ndim - 1 - axis))
        values = (1 - share) * np.take(values, low, axis=axis) + share * np.take(values, high, axis=axis)
    return values


def _adaptive_pool(node: Node, values: Real, shape: tuple[int, ...]) -> Real:
    """Result i of m covers inputs `⌊i n / m⌋` to `⌈(i + 1) n / m⌉` of n, along each axis."""
    reduce = np.max if "max" in node.op else np.mean
    for axis in range(values.ndim - int(node.op[-2]), values.ndim):
        n, m = values.shape[axis], shape[axis]
        bins = [range(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        parts = [reduce(np.take(values, each, axis=axis), axis=axis, keepdims=True) for each in bins]
        values = np.concatenate(parts, axis=axis)
    return values


def _whole(index: Real) -> npt.NDArray[np.intp]:
    """An operand that says where."""
    return np.asarray(index, dtype=np.intp)


def _indexed(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    """`x[i, :, j]`, with whole numbers as indices."""
    given = iter(operands[1:])
    places = [None if ref is None else next(given) for ref in node.inputs[1:]]
    if any(each is not None and each.dtype == np.bool_ for each in places):
        raise InputError(f"node {node.name!r}: the interpreter reads no masks")
    return [operands[0][tuple(slice(None) if each is None else _whole(each) for each in places)]]


def _scattered(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    """Elements written to the places that an index says; where several go to one place, any of them stays."""
    values, index = operands[0].copy(), _whole(operands[1])
    source = operands[2] if len(operands) > 2 else np.asarray(node.attributes["value"], np.float64)
    if source.ndim:
        source = source[tuple(slice(0, size) for size in index.shape)]
    np.put_along_axis(values, index, source, axis=node.attributes["dim"])
    return [values]


def _shuffled(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    """Channels to blocks of pixels, or blocks of pixels to channels."""
    n, c, h, w = operands[0].shape
    if node.op == "pixel_shuffle":
        r = node.attributes["upscale_factor"]
        return [operands[0].reshape(n, -1, r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(shapes[0])]
    r = node.attributes["downscale_factor"]
    return [operands[0].reshape(n, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4).reshape(shapes[0])]


def _nearest(node: Node, operands: Sequence[Real], shapes: Sequence[tuple[int, ...]]) -> list[Real]:
    """Result i reads input ⌊i · size / results⌋."""
    values = operands[0]
    for axis in range(2, values.ndim):
        results, size = shapes[0][axis], values.shape[axis]
        values = np.take(values, np.arange(results) * size // results, axis=axis)
    return [values]


_MOVES: dict[str, Callable[[Node, Sequence[Real], Sequence[tuple[int, ...]]], list[Real]]] = {
    **dict.fromkeys(
        ("permute", "transpose", "movedim", "t"), lambda n, o, s: [o[0].transpose(permutation(n, o[0].ndim))]
    ),
    "relayout": lambda n, o, s: [o[0]],
    "slice": _sliced,
    "select": lambda n, o, s: [np.take(o[0], n.attributes["index"], axis=n.attributes["dim"])],
    "cat": lambda n, o, s: [np.concatenate(o, axis=n.attributes.get("dim", 0))],
    "stack": lambda n, o, s: [np.stack(o, axis=n.attributes.get("dim", 0))],
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _parts),
    "unbind": lambda n, o, s: [np.take(o[0], i, axis=n.attributes.get("dim", 0)) for i in range(len(s))],
    "index_select": lambda n, o, s: [np.take(o[0], _whole(o[1]), axis=n.attributes["dim"])],
    "gather": lambda n, o, s: [np.take_along_axis(o[0], _whole(o[1]), axis=n.attributes["dim"])],
    "embedding": lambda n, o, s: [o[0][_whole(o[1])]],
    "index": _indexed,
    "scatter": _scattered,
    "flip": lambda n, o, s: [np.flip(o[0], n.attributes["dims"])],
    "roll": lambda n, o, s: [np.roll(o[0], n.attributes["shifts"], n.attributes["dims"] or None)],
    "repeat": lambda n, o, s: [np.tile(o[0], n.attributes["repeats"])],
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _shuffled),
    "expand": lambda n, o, s: [np.broadcast_to(o[0], s[0])],
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _nearest),
    **dict.fromkeys(("reshape", "view", "flatten", "unsqueeze", "squeeze"), lambda n, o, s: [o[0].reshape(s[0])]),
}
