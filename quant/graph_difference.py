"""Where two graphs of one network differ: operators, shapes, types, multiplications, weights.

Operators are compared as a collection, since two files of one network may order independent branches otherwise, and
twins (`flatten` and `reshape`, a spatial mean and a global pool) count as the same. Torch-free.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from bitwright.quant.graph import Graph, Node, TensorRef

# Spellings of one thing. What each class does to values is the same, given the shapes around it.
_TWINS = (
    {"reshape", "view", "_unsafe_view", "view_as", "flatten", "unflatten", "squeeze", "unsqueeze"},
    {"permute", "transpose", "t", "numpy_T", "movedim", "swapaxes"},
    {"split_with_sizes", "split", "chunk"},
    {"mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"},
    {"matmul", "mm", "bmm"},
    {"linear", "addmm"},
    {"constant_pad_nd", "pad"},
    {"clamp", "hardtanh", "clamp_min", "clamp_max"},
    {"index", "index_select", "embedding"},
    {"where", "masked_fill"},
    {"expand", "expand_as"},
    {"to", "type_as"},
)
_SPELLED = {op: min(twins) for twins in _TWINS for op in twins}
# They move values and compute nothing: exporters add, merge and drop them.
_MOVES = frozenset(_SPELLED[twins] for twins in ("reshape", "permute")) | {
    "select",
    "slice",
    "unbind",
    "expand",
    "flatten",
}


@dataclass(frozen=True, kw_only=True)
class GraphDifference:
    """What only one of two graphs has; both empty for the same network.

    Attributes:
        only_first: operators with their shapes, and how often more they stand in the first graph.
        only_second: likewise for the second one.
        macs: multiply-accumulates of both graphs.
        weight_bytes: bytes of the layers' weights of both graphs.
    """

    only_first: dict[str, int]
    only_second: dict[str, int]
    macs: tuple[int, int]
    weight_bytes: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        numbers = self.macs[0] == self.macs[1] and self.weight_bytes[0] == self.weight_bytes[1]
        return numbers and not self.only_first and not self.only_second


def graph_difference(first: Graph, second: Graph, *, moves: bool = True) -> GraphDifference:
    """Compares two graphs of one network.

    Args:
        first: a graph with static shapes.
        second: likewise.
        moves: whether operators that only move values count, too.
    """
    one, other = (_signatures(graph, moves=moves) for graph in (first, second))
    return GraphDifference(
        only_first={_spell(key): count for key, count in (one - other).items()},
        only_second={_spell(key): count for key, count in (other - one).items()},
        macs=(_macs(first), _macs(second)),
        weight_bytes=(weight_bytes(first), weight_bytes(second)),
    )


def weight_bytes(graph: Graph) -> int:
    """Bytes of the constants that layers multiply with, as float; each tensor once."""
    refs: set[TensorRef] = set()
    for node in graph.nodes:
        if graph.is_layer(node):
            position = graph.layer_positions(node)[1]
            ref = node.inputs[position] if position < len(node.inputs) else None
            if ref is not None and graph.is_constant(ref):
                refs.add(ref)
    return sum(4 * graph.tensors[ref].elements for ref in refs)


def _macs(graph: Graph) -> int:
    return sum(graph.macs(node) for node in graph.nodes)


def _signatures(graph: Graph, *, moves: bool) -> Counter[Hashable]:
    counts: Counter[Hashable] = Counter()
    for node in graph.nodes:
        op = _SPELLED.get(node.op, node.op)
        if moves or op not in _MOVES:
            counts[_signature(graph, node, op)] += 1
    return counts


def _signature(graph: Graph, node: Node, op: str) -> Hashable:
    """The operator, what it reads and makes; a number among its operands counts as none."""
    operands = [graph.tensors[ref] for ref in node.tensors if not _is_scalar(graph, ref)]
    results = [graph.tensors[ref] for ref in node.outputs]
    if op in ("flatten", "permute", "mean"):  # one may keep a dimension of size 1 that the other drops
        reads: Hashable = tuple(math.prod(size or -1 for size in info.shape) for info in operands)
        makes: Hashable = tuple(math.prod(size or -1 for size in info.shape) for info in results)
    else:
        layer = graph.is_layer(node)
        # A layer's bias may have come out of a norm that only one of the graphs has folded.
        reads = tuple(sorted((info.shape for info in operands[: 2 if layer else None]), key=repr))
        makes = tuple(info.shape for info in results)
    return op, reads, makes, tuple(info.dtype for info in results), graph.macs(node)


def _is_scalar(graph: Graph, ref: TensorRef) -> bool:
    return graph.is_constant(ref) and graph.tensors[ref].shape == ()


def _spell(signature: Hashable) -> str:
    assert isinstance(signature, tuple)
    op, reads, makes, _, macs = signature
    return f"{op} {reads} -> {makes}" + (f", {macs} MACs" if macs else "")
