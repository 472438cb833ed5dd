"""From a graph to the accelerator's operations in the order in which they run, chained where the unit can."""

from __future__ import annotations

from collections.abc import Collection

from bitwright.hw_constraints.cost.ethos_u.figures import Configuration
from bitwright.hw_constraints.cost.ethos_u.graph_reader import GraphReader, Unmodelled
from bitwright.hw_constraints.cost.ethos_u.operations import NpuOp, OpKind, connect
from bitwright.quant.graph import Graph

MAX_CHAIN = 4  # operations in one chain of U85 [V]
MAX_CHAIN_INPUTS = 3  # feature maps that a chain reads from memory [V]


def operations_of(
    graph: Graph, configuration: Configuration, elsewhere: Collection[str] = ()
) -> tuple[list[NpuOp], tuple[Unmodelled, ...]]:
    """The operations in the order in which they run, and the nodes that no operation stands for.

    Args:
        graph: the network.
        configuration: of the accelerator.
        elsewhere: names of the nodes that it does not run.
    """
    reader = GraphReader(graph, configuration, elsewhere)
    for node in graph.nodes:
        reader.read(node)
    ordered = _ordered(reader)
    connect(ordered)
    if configuration.is_u85:
        ordered = _chained(ordered)
        connect(ordered)
    _choose_formats(ordered)
    return ordered, tuple(reader.unmodelled)


def _ordered(reader: GraphReader) -> list[NpuOp]:
    """Depth first from the results: the last operand's operations run first, parts of a concatenation in order."""
    writers: dict[int, list[NpuOp]] = {}
    for op in reader.operations:
        writers.setdefault(id(op.output), []).append(op)
    left_out = [ref for each in reader.unmodelled for ref in each.node.tensors]
    maps = [reader.maps[ref] for ref in (*left_out, *reversed(reader.graph.outputs)) if ref in reader.maps]
    ends = [op for tensor in maps for op in writers.get(id(tensor), [])]
    done: set[int] = set()
    order: list[NpuOp] = []
    stack: list[tuple[bool, NpuOp]] = [(False, op) for op in reversed(ends)]
    while stack:
        ready, op = stack.pop()
        if ready:
            order.append(op)
        elif id(op) not in done:
            done.add(id(op))
            stack.append((True, op))
            for tensor in op.inputs:
                stack += [(False, writer) for writer in reversed(writers.get(id(tensor), []))]
    return order


def _chained(operations: list[NpuOp]) -> list[NpuOp]:
    """U85: an elementwise operation joins the one right before it, if that alone makes its operand."""
    kept: list[NpuOp] = []
    for op in operations:
        head = kept[-1] if kept else None
        if head is not None and op.kind is OpKind.ELEMENTWISE and _can_chain(head, op):
            head.chained.append(op)
        else:
            kept.append(op)
    return kept


def _can_chain(head: NpuOp, op: NpuOp) -> bool:
    made = head.written
    outside = len(head.read) + sum(tensor is not made for tensor in op.inputs)
    return (
        head.kind is not OpKind.RESIZE
        and any(tensor is made for tensor in op.inputs)
        and made.consumers == [op]
        and len(made.producers) == 1
        and not made.is_output
        and head.last.shape == made.shape == op.shape
        and len(head.chained) + 2 <= MAX_CHAIN
        and outside <= MAX_CHAIN_INPUTS
    )


def _choose_formats(operations: list[NpuOp]) -> None:
    """Bricks wherever every reader and writer sees the same columns and channels and nobody else reads it."""
    for op in operations:
        for tensor, shape in zip(op.inputs, op.input_shapes, strict=True):
            if shape[1:] != tensor.shape[1:]:
                tensor.linear = True
