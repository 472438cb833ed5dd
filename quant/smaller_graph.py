"""A network's graph with fewer channels: its shapes, its values, and what its operators say of sizes.

Torch-free, and without running anything: what reckons from a graph (MACs, lowering, cost models, exporters) is to say
of the result what it says of the smaller network when that was built and captured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.graph import Graph, Node, TensorRef

Kept = Mapping[TensorRef, Mapping[int, npt.NDArray[np.int64]]]


def smaller_graph(graph: Graph, kept: Kept) -> Graph:
    """The same operators on fewer channels.

    Args:
        graph: the network.
        kept: the places that stay, of each tensor that gets smaller, by axis.
    """
    tensors = {
        ref: replace(info, shape=_shape(info.shape, kept[ref])) if ref in kept else info
        for ref, info in graph.tensors.items()
    }
    smaller = replace(graph, tensors=tensors, load=_sliced(graph.load, kept))
    return replace(smaller, nodes=tuple(_resized(node, graph, smaller, kept) for node in graph.nodes))


def _shape(shape: tuple[int | None, ...], places: Mapping[int, npt.NDArray[np.int64]]) -> tuple[int | None, ...]:
    return tuple(len(places[axis]) if axis in places else size for axis, size in enumerate(shape))


def _sliced(
    load: Callable[[TensorRef], npt.NDArray[Any]] | None, kept: Kept
) -> Callable[[TensorRef], npt.NDArray[Any]] | None:
    if load is None:
        return None

    def values(ref: TensorRef) -> npt.NDArray[Any]:
        array = np.asarray(load(ref))
        for axis, places in kept.get(ref, {}).items():
            array = array.take(places, axis=axis)
        return array

    return values


def _resized(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
    """The call with its sizes as they are in the smaller network; the call itself where it says none."""
    touched = any(ref in kept for ref in (*node.tensors, *node.outputs))
    rule = _SIZES.get(node.op) if touched else None
    return node if rule is None else rule(node, graph, smaller, kept)


def _saying(node: Node, **sizes: Any) -> Node:
    return replace(node, attributes={**node.attributes, **sizes})


def _grouped(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
    """A depthwise convolution has as many groups as channels; others keep theirs, which all lose the same places."""
    data, weight = node.tensors[:2]
    shape = graph.tensors[weight].shape
    if node.attributes.get("groups", 1) == 1 or shape[1] != 1:
        return node
    return _saying(node, groups=smaller.tensors[data].shape[len(smaller.tensors[data].shape) - len(shape) + 1])


def _normalized(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
    count = len(node.attributes["normalized_shape"])
    return _saying(node, normalized_shape=smaller.tensors[node.tensors[0]].shape[-count:])


def _given(name: str) -> Callable[[Node, Graph, Graph, Kept], Node]:
    """For operators that are told their result's shape; -1 there stands for what follows from the rest."""

    def resized(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
        asked = zip(node.attributes[name], smaller.tensors[node.outputs[0]].shape, strict=True)
        return _saying(node, **{name: tuple(-1 if size == -1 else new for size, new in asked)})

    return resized


def _parted(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
    """Parts that are no longer alike are told one by one."""
    axis = int(node.attributes.get("dim", 0))
    sizes = tuple(smaller.tensors[ref].shape[axis] or 0 for ref in node.outputs)
    if node.op == "split_with_sizes":
        return _saying(node, split_sizes=sizes)
    if len(set(sizes[:-1])) <= 1 and sizes[-1] <= sizes[0]:
        return _saying(node, split_size=sizes[0])
    return replace(node, op="split_with_sizes", attributes={"split_sizes": sizes, "dim": axis})


def _ranged(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
    """A stretch of channels begins behind as many as stay of those before it; one with gaps has no such beginning."""
    data = node.tensors[0]
    axis = int(node.attributes.get("dim") or 0) % len(graph.tensors[data].shape)
    places = kept.get(data, {}).get(axis)
    size = graph.tensors[data].shape[axis]
    if places is None or size is None or node.attributes.get("step") not in (None, 1):
        return node
    start, end, _ = slice(node.attributes.get("start"), node.attributes.get("end")).indices(size)
    first, last = np.searchsorted(places, (start, max(end, start))).tolist()
    return _saying(node, start=first, end=last)


def _selected(node: Node, graph: Graph, smaller: Graph, kept: Kept) -> Node:
    data = node.tensors[0]
    shape = graph.tensors[data].shape
    axis = int(node.attributes.get("dim") or 0) % len(shape)
    places, size = kept.get(data, {}).get(axis), shape[axis]
    if places is None or size is None:
        return node
    return _saying(node, index=int(np.searchsorted(places, int(node.attributes["index"]) % size)))


_SIZES: Mapping[str, Callable[[Node, Graph, Graph, Kept], Node]] = {
    **{f"conv{rank}d": _grouped for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": _grouped for rank in (1, 2, 3)},
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized),
    "view": _given("size"), "reshape": _given("shape"),
    **dict.fromkeys(("split", "split_with_sizes"), _parted),
    "expand": _given("size"), "slice": _ranged, "select": _selected,
}  # fmt: skip
