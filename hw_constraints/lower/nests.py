"""Operands and results of a loop nest as arrays with one axis for each loop: how a tile's place becomes slices.

An operand is brought into a form in which tiles are boxes; where that is a view, tiles are read and written in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.lower.integer_ops import Array
from bitwright.hw_constraints.lower.phases import Phases
from bitwright.hw_constraints.lower.work import Axis, Work, WorkKind
from bitwright.hw_constraints.lower.work_of import ROW_OPERATORS, canonical
from bitwright.quant.graph import TRANSPOSED_CONVOLUTIONS, Graph, Node


@dataclass(frozen=True)
class Box:
    """A tile's place: the half-open range along each loop."""

    batch: slice
    groups: slice
    out_channels: slice
    in_channels: slice
    rows: slice
    columns: slice

    @classmethod
    def at(cls, starts: Sequence[int], sizes: Sequence[int], lengths: Sequence[int]) -> Box:
        """From the first index along each of the six loops, clipped to the loops' lengths."""
        return cls(*(slice(a, min(a + n, end)) for a, n, end in zip(starts, sizes, lengths, strict=True)))


def is_rows(node: Node, work: Work) -> bool:
    """Whether every result depends on a whole row."""
    return work.kind is WorkKind.REDUCTION and node.op in ROW_OPERATORS


def by_groups(image: Array, groups: int) -> Array:
    """`[N, G·C, …]` as `[N, G, C, rows, columns]`; one-dimensional images get one row."""
    if image.ndim == 3:
        image = image[:, :, None]
    return image.reshape(image.shape[0], groups, image.shape[1] // groups, *image.shape[2:])


def data_form(graph: Graph, node: Node, work: Work, data: Array, image: bool) -> Array:
    """The data operand with its loops as axes.

    Convolutions and pools: `[N, G, C, rows, columns]`; products: `[B, rows, K]`; reductions: `[results, reduced]`;
    operators along rows: `[rows, length]`; elementwise: as `canonical` has it, `[N, C, rows, columns]`.
    """
    if work.kind in (WorkKind.CONVOLUTION, WorkKind.DEPTHWISE):
        return by_groups(data, work.groups)
    if work.kind is WorkKind.POOL:
        pooled = 2 if node.op[-2] == "2" else 1
        flat = data.reshape(-1, *data.shape[-pooled - 1 :])
        return by_groups(flat, work.groups)
    if work.kind is WorkKind.MATRIX_PRODUCT:
        position, weight, _ = graph.layer_positions(node)
        if weight < position:  # a constant from the left: columns are what is multiplied
            return np.moveaxis(data, -2, -1).reshape(1, -1, work.in_channels) if data.ndim > 1 else data[None, None]
        if work.batch == 1:
            return data.reshape(1, -1, work.in_channels)
        shape = tuple(size or 1 for size in graph.tensors[node.outputs[0]].shape)
        rows = data[None] if data.ndim == 1 else data
        return np.broadcast_to(rows, (*shape[:-2], *rows.shape[-2:])).reshape(work.batch, -1, work.in_channels)
    axes = reduced_axes(node, data.ndim)
    kept = [axis for axis in range(data.ndim) if axis not in axes]
    if work.kind is WorkKind.REDUCTION:
        turned = data.transpose(*kept, *axes)
        return turned.reshape(-1, math.prod(data.shape[axis] for axis in axes))
    return (
        data.reshape(canonical(data.shape, image=image))
        if image
        else np.moveaxis(data.reshape(1, 1, -1, data.shape[-1] if data.ndim else 1), -1, 1)
    )


def reduced_axes(node: Node, rank: int) -> list[int]:
    """The axes that a reduction, or an operator along rows, takes together."""
    given = node.attributes.get("dim")
    if given is None:
        return list(range(rank))
    axes = given if isinstance(given, list | tuple) else [given]
    return [axis % rank for axis in axes] or list(range(rank))


def weights_form(graph: Graph, node: Node, work: Work, weights: Array) -> Array:
    """Weights as `[batch or 1, G, out, in, kernel rows, kernel columns]`."""
    if work.kind is not WorkKind.MATRIX_PRODUCT:
        shape = (1, work.groups, work.out_channels, work.in_channels, work.y.kernel, work.x.kernel)
        return weights.reshape(shape)
    position, weight, _ = graph.layer_positions(node)
    if node.op != "linear" and weight > position:
        weights = np.moveaxis(weights, -2, -1) if weights.ndim > 1 else weights[None]
    if work.batch > 1:
        leading = tuple(size or 1 for size in graph.tensors[node.outputs[0]].shape)[:-2]
        weights = np.broadcast_to(weights, (*leading, *weights.shape[-2:]))
    return weights.reshape(-1, 1, work.out_channels, work.in_channels, 1, 1)


def result_form(graph: Graph, node: Node, work: Work, result: Array, image: bool) -> Array:
    """The result as `[B, G, out, rows, columns]` (a view where the layout allows)."""
    if node.op in TRANSPOSED_CONVOLUTIONS:
        image_of_rows = result[:, :, None] if result.ndim == 3 else result
        return Phases.of(graph, node).results(image_of_rows, work.groups)
    if work.kind in (WorkKind.CONVOLUTION, WorkKind.DEPTHWISE):
        return by_groups(result, work.groups)
    if work.kind is WorkKind.POOL:
        pooled = 2 if node.op[-2] == "2" else 1
        return by_groups(result.reshape(-1, *result.shape[-pooled - 1 :]), work.groups)
    if work.kind is WorkKind.MATRIX_PRODUCT:
        position, weight, _ = graph.layer_positions(node)
        if weight < position and result.ndim > 1:
            result = np.moveaxis(result, -2, -1)
        flat = result.reshape(work.batch, -1, work.out_channels)
        return np.moveaxis(flat, -1, 1)[:, None, :, None]
    if is_rows(node, work):
        axes = reduced_axes(node, result.ndim)
        kept = [axis for axis in range(result.ndim) if axis not in axes]
        rows = result.transpose(*kept, *axes).reshape(work.x.output, work.out_channels)
        return np.moveaxis(rows, -1, 0)[None, None, :, None]
    if work.kind is WorkKind.REDUCTION:
        return result.reshape(1, work.groups, 1, 1, 1)
    form = data_form(graph, node, work, result, image)
    return form[:, :, None]


def window_index(axis: Axis, first: int, results: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The real input positions that some results read, and how many positions of padding lie before and behind."""
    start = first * axis.stride - axis.padding
    stop = start + axis.span(results)
    low, high = axis.window(first, results)
    high = max(high, low)
    return (low, high), (min(max(0, low - start), axis.span(results)), max(0, stop - high) if high > low else 0)
