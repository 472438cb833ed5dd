"""The facts about one operator call that a target's constraints name: kernel, stride, channels, shapes, types.

Everything comes from the graph's shapes and from the attributes under ATen's argument names. A value that is not
static is None, which leaves a predicate undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bitwright.hw_constraints.operators import (
    ADAPTIVE_POOLS,
    ALONG_AN_AXIS,
    MATRIX_PRODUCTS,
    REDUCTIONS,
    RESIZES,
    WINDOW_POOLS,
)
from bitwright.hw_constraints.predicate import Value
from bitwright.quant.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, Graph, Node

Shape = tuple[int | None, ...]


def properties(graph: Graph, node: Node) -> dict[str, Value]:
    """All named properties of a node, by the names of `operators.properties_of`.

    Images are `[batch, channels, depth?, height?, width]`; `rows` is how many vectors along the last dimension the
    first operand holds; `taps` is how many products one output element of a convolution sums.
    """
    values = _tensor_properties(graph, node)
    for operators, compute in _FAMILIES:
        if node.op in operators:
            values.update(compute(graph, node))
    return values


def _shape(graph: Graph, node: Node, position: int = 0) -> Shape:
    """The shape of an operand; () when there is none."""
    ref = node.inputs[position] if position < len(node.inputs) else None
    return graph.tensors[ref].shape if ref is not None else ()


def _output_shape(graph: Graph, node: Node) -> Shape:
    return graph.tensors[node.outputs[0]].shape if node.outputs else ()


def _product(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if None in known else math.prod(size for size in known if size is not None)


def _at(shape: Sequence[int | None], index: int) -> int | None:
    return shape[index] if -len(shape) <= index < len(shape) else None


def _tensor_properties(graph: Graph, node: Node) -> dict[str, Value]:
    shape = _shape(graph, node)
    spatial, result = shape[2:], _output_shape(graph, node)
    known = [size for size in shape if size is not None]
    return {
        "dtype": graph.tensors[node.tensors[0]].dtype if node.tensors else None,
        "inputs": len(node.tensors),
        "rank": len(shape),
        "batch": _at(shape, 0),
        "channels": _at(shape, 1),
        "depth": _at(spatial, -3),
        "height": _at(spatial, -2) if len(spatial) > 1 else 1,
        "width": _at(spatial, -1),
        "elements": _product(shape),
        "largest_dim": max(known, default=1) if len(known) == len(shape) else None,
        "rows": _product(shape[:-1]),
        "out_height": _at(result[2:], -2) if len(result) > 3 else 1,
        "out_width": _at(result[2:], -1),
    }


def _numbers(given: Any, count: int, default: int) -> list[int | None]:
    """An ATen size argument as `count` numbers: `3`, `[3]` and `[3, 3]` are the same for two dimensions."""
    values = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if len(values) <= 1:
        values = (values or [default]) * count
    return [value if isinstance(value, int) else None for value in values]


def _by_axis(name: str, values: Sequence[int | None], absent: int) -> dict[str, Value]:
    """`{name}_d`, `_h`, `_w` from the sizes along the trailing axes; axes that do not exist count as `absent`."""
    padded = [absent] * (3 - len(values)) + list(values)
    return {f"{name}_{axis}": value for axis, value in zip("dhw", padded, strict=True)}


def _window(
    attributes: Mapping[str, Any], kernel: Sequence[int | None], stride: Sequence[int | None]
) -> dict[str, Value]:
    count = len(kernel)
    return {
        **_by_axis("kernel", kernel, 1),
        **_by_axis("stride", stride, 1),
        **_by_axis("dilation", _numbers(attributes.get("dilation"), count, 1), 1),
        **_by_axis("padding", _numbers(attributes.get("padding"), count, 0), 0),
    }


def _convolution(graph: Graph, node: Node) -> dict[str, Value]:
    weight = _shape(graph, node, 1)
    kernel = weight[2:]
    groups = node.attributes.get("groups", 1)
    transposed = (
        node.op in TRANSPOSED_CONVOLUTIONS
    )  # weights are [in, out / groups, …] there, [out, in / groups, …] else
    first, second = _at(weight, 0), _at(weight, 1)
    across = second * groups if second is not None else None
    inputs, outputs = (first, across) if transposed else (across, first)
    per_group = inputs // groups if inputs is not None else None
    values: dict[str, Value] = {
        "groups": groups,
        "in_channels": inputs,
        "out_channels": outputs,
        "channels_per_group": per_group,
        "depthwise": groups > 1 and per_group == 1,
        "taps": _product((per_group, *kernel)),
    }
    stride = _numbers(node.attributes.get("stride"), len(kernel), 1)
    return values | _window(node.attributes, kernel, stride)


def _window_pool(graph: Graph, node: Node) -> dict[str, Value]:
    count = int(node.op[-2])
    kernel = _numbers(node.attributes.get("kernel_size"), count, 1)
    given = node.attributes.get("stride")
    return _window(node.attributes, kernel, _numbers(given, count, 1) if given else kernel)


def _adaptive_pool(graph: Graph, node: Node) -> dict[str, Value]:
    count = int(node.op[-2])
    sizes = _shape(graph, node)[-count:]
    wanted = _output_shape(graph, node)[-count:]
    kernel = [-(-size // out) if size and out else None for size, out in zip(sizes, wanted, strict=True)]
    stride = [size // out if size and out else None for size, out in zip(sizes, wanted, strict=True)]
    return _window({}, kernel, stride)


def _matrix_product(graph: Graph, node: Node) -> dict[str, Value]:
    return {
        "in_features": _at(_shape(graph, node, 1 if node.op in ("addmm", "baddbmm") else 0), -1),
        "out_features": _at(_output_shape(graph, node), -1),
    }


def _resize(graph: Graph, node: Node) -> dict[str, Value]:
    before, after = _shape(graph, node)[2:], _output_shape(graph, node)[2:]
    # A size that is no multiple has no integer factor; 0 stands for it, which no hardware accepts.
    scales = [
        (new // old if new % old == 0 else 0) if new and old else None for old, new in zip(before, after, strict=True)
    ]
    return {"align_corners": bool(node.attributes.get("align_corners", False)), **_by_axis("scale", scales, 1)}


def _reduction(graph: Graph, node: Node) -> dict[str, Value]:
    shape = _shape(graph, node)
    given = node.attributes.get("dim")
    axes = [given] if isinstance(given, int) else list(given or range(len(shape)))
    reduced = [_at(shape, axis) for axis in axes]
    known = [size for size in reduced if size is not None]
    return {
        "reduced_elements": _product(reduced),
        "largest_reduced_dim": max(known, default=1) if len(known) == len(reduced) else None,
    }


def _axis(graph: Graph, node: Node) -> dict[str, Value]:
    given = node.attributes.get("dim", 0)
    rank = max(len(_shape(graph, node)), len(_output_shape(graph, node)))
    return {"axis": given % rank if isinstance(given, int) and rank else None}


_FAMILIES: tuple[tuple[frozenset[str], Callable[[Graph, Node], dict[str, Value]]], ...] = (
    (CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS, _convolution),
    (WINDOW_POOLS, _window_pool),
    (ADAPTIVE_POOLS, _adaptive_pool),
    (MATRIX_PRODUCTS, _matrix_product),
    (RESIZES, _resize),
    (REDUCTIONS, _reduction),
    (ALONG_AN_AXIS, _axis),
)
