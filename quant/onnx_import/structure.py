"""Who makes and who reads each value of an ONNX graph: every name once, nothing from nowhere, in an order that runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnx import GraphProto, NodeProto

from bitwright.quant.errors import InputError


def ordered_nodes(graph: GraphProto, label: str) -> list[NodeProto]:
    """The nodes in an order in which they can run; the file's own where it is one, as ONNX demands.

    Raises:
        InputError: a value is made twice or by nobody, or nodes wait for each other.
    """
    made_by = _makers(graph, label)
    nodes = list(graph.node)
    known = {*(item.name for item in graph.input), *(tensor.name for tensor in _initializers(graph))}
    waiting = {index: {made_by[name] for name in reads(node) if name not in known} for index, node in enumerate(nodes)}
    readers: dict[int, list[int]] = {index: [] for index in waiting}
    for index, makers in waiting.items():
        for maker in makers:
            readers[maker].append(index)
    ready = sorted((index for index, makers in waiting.items() if not makers), reverse=True)
    order: list[int] = []
    if all(maker < index for index, makers in waiting.items() for maker in makers):
        return nodes
    while ready:
        index = ready.pop()
        order.append(index)
        for reader in readers[index]:
            waiting[reader].discard(index)
            if not waiting[reader]:
                ready.append(reader)
    if len(order) < len(nodes):
        raise InputError(f"{label}: the nodes {_cycle(waiting, nodes)} wait for each other in a circle")
    return [nodes[index] for index in order]


def reads(node: NodeProto) -> Iterator[str]:
    """The values that a node reads, those that only its bodies read included."""
    yield from dict.fromkeys(filter(None, [*node.input, *outer_values(node)]))


def outer_values(node: NodeProto) -> list[str]:
    """The values that a node's bodies (of If, Loop, Scan) read from around it."""
    return list(dict.fromkeys(name for body in bodies(node) for name in _free_values(body)))


def bodies(node: NodeProto) -> list[GraphProto]:
    """The graphs that a node holds."""
    found: list[GraphProto] = []
    for attribute in node.attribute:
        found += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())]
    return found


def _free_values(body: GraphProto) -> Iterator[str]:
    own = {item.name for item in body.input} | {tensor.name for tensor in _initializers(body)}
    own |= {name for node in body.node for name in node.output}
    for node in body.node:
        yield from (name for name in reads(node) if name not in own)
    yield from (item.name for item in body.output if item.name not in own)


def _makers(graph: GraphProto, label: str) -> dict[str, int]:
    """Which node makes each value; inputs and initializers are made by none (-1)."""
    for what, names in (
        ("input", [item.name for item in graph.input]),
        ("initializer", [tensor.name for tensor in _initializers(graph)]),
    ):
        for name in _repeated(names):
            raise InputError(f"{label}: {what} {name!r} stands there twice")
        if "" in names:
            raise InputError(f"{label}: an {what} has no name")
    made_by = dict.fromkeys([*(i.name for i in graph.input), *(t.name for t in _initializers(graph))], -1)
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in made_by:
                first = "an input or initializer" if made_by[name] < 0 else spell(graph.node[made_by[name]])
                raise InputError(f"{label}: value {name!r} is made twice: by {first} and by {spell(node)}")
            made_by[name] = index
    for node in graph.node:
        for name in reads(node):
            if name not in made_by:
                raise InputError(f"{label}: {spell(node)} reads {name!r}, which nothing makes")
    for item in graph.output:
        if item.name not in made_by:
            raise InputError(f"{label}: output {item.name!r} is made by nothing")
    return made_by


def _initializers(graph: GraphProto) -> list[NodeProto]:
    return [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]


def _repeated(names: Sequence[str]) -> Iterable[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def _cycle(waiting: dict[int, set[int]], nodes: Sequence[NodeProto]) -> str:
    """One circle among nodes that wait, as `a -> b -> a`."""
    path: list[int] = [next(index for index, makers in waiting.items() if makers)]
    while path[-1] not in path[:-1]:
        path.append(min(maker for maker in waiting[path[-1]] if waiting[maker]))
    circle = path[path.index(path[-1]) :][::-1]
    return " -> ".join(spell(nodes[index]) for index in circle)


def spell(node: NodeProto) -> str:
    """A node for messages: its name, else its type and result."""
    return f"node {node.name or (node.output[0] if node.output else '')!r} ({node.op_type})"
