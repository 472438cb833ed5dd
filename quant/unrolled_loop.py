"""Finds loops over the parts of a tensor that capture has unrolled: `stack([f(x[:, i]) for i in range(n)], 1)`.

Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitwright.quant.elementwise import ELEMENTWISE
from bitwright.quant.graph import Graph, Node, TensorRef

# Layers whose operand has a batch as its first axis, when it has that many axes.
_BATCHED_RANK = {
    **dict.fromkeys(("conv1d", "max_pool1d"), 3),
    **dict.fromkeys(("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"), 4),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d"), 4),
    "conv3d": 5,
}
# Here it suffices that one axis is left in front of those that they work on.
_LEADING = frozenset(["linear", "batch_norm", "group_norm"])
_WITH_NUMBER = frozenset(["add", "sub", "mul", "div", "pow"])


@dataclass(frozen=True, kw_only=True)
class UnrolledLoop:
    """A loop whose every step does the same to one part of a tensor.

    Attributes:
        source: what it runs over.
        axis: along which axis, 0 or 1; the results are stacked along it again.
        count: how many steps.
        step: the operators of the first step, without the read of its part and without the stack.
    """

    source: TensorRef
    axis: int
    count: int
    step: tuple[Node, ...]


def unrolled_loop(graph: Graph, stack: Node) -> UnrolledLoop | str:
    """The loop whose results a `stack` collects, or why there is none that could run on the whole batch at once."""
    axis = _axis(graph, stack, stack.outputs[0])
    if stack.op != "stack" or axis is None or axis > 1 or len(stack.tensors) < 2:
        return f"{stack.op} does not collect the steps of a loop along one of the first two axes"
    steps = [_step(graph, end) for end in stack.tensors]
    if any(step is None or len(step) < 2 for step in steps):
        return "what is stacked are not results of steps that read one part of a tensor each"
    known = [step for step in steps if step]
    source = known[0][0].tensors[0]
    shape = graph.tensors[source].shape
    for i, step in enumerate(known):
        index = step[0].attributes["index"]
        reads = step[0].tensors[0] == source and _axis(graph, step[0], source) == axis
        if not reads or index % (shape[axis] or 1) != i or not _alike(step, known[0]):
            return f"step {i} is unlike the first one"
    if None in shape or shape[axis] != len(known):
        return "it does not run over all parts of the tensor"
    first = known[0]
    if graph.tensors[first[0].outputs[0]].shape[:1] != graph.tensors[first[-1].outputs[0]].shape[:1]:
        return "its steps change the size of the batch"
    return UnrolledLoop(source=source, axis=axis, count=len(known), step=first[1:])


def _step(graph: Graph, end: TensorRef) -> tuple[Node, ...] | None:
    """The operators from the read of a part to what is stacked."""
    step: list[Node] = []
    while True:
        node = graph.producers.get(end)
        if node is None or graph.sole_consumer(end) is None:
            return None
        step.insert(0, node)
        if node.op == "select":
            return tuple(step)
        if not _by_element(graph, node):
            return None
        end = node.tensors[0]


def _by_element(graph: Graph, node: Node) -> bool:
    """Whether what it does to one element of the batch, its operand's first axis, does not hang on the others."""
    rank, others = len(graph.tensors[node.tensors[0]].shape), node.tensors[1:]
    if not all(map(graph.is_constant, others)):
        return False
    if node.op in _BATCHED_RANK:
        return rank == _BATCHED_RANK[node.op]
    if node.op == "layer_norm":
        return rank > len(node.attributes["normalized_shape"])
    return rank > 1 and (node.op in _LEADING or (node.op in ELEMENTWISE | _WITH_NUMBER and not others))


def _alike(step: tuple[Node, ...], first: tuple[Node, ...]) -> bool:
    """Whether two steps call the same operators with the same weights."""
    same = all(
        (a.op, a.inputs[1:], a.attributes) == (b.op, b.inputs[1:], b.attributes)
        for a, b in zip(step[1:], first[1:], strict=False)
    )
    return len(step) == len(first) and same


def _axis(graph: Graph, node: Node, ref: TensorRef) -> int | None:
    given, rank = node.attributes.get("dim", 0), len(graph.tensors[ref].shape)
    return given % rank if isinstance(given, int) and rank else None
