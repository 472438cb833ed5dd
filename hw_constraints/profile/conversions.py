"""Changes of format and layout that a runtime puts between layers: which layer waits for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.profile.report import Conversion


def conversions_before(
    executed: Sequence[ExecutedNode], kernels: Sequence[KernelTime], anchors: Mapping[str, int]
) -> dict[int, float]:
    """Microseconds of the conversions that a layer's kernels wait for, by the layer's position in the file.

    A conversion is a kernel that stands for no layer; it counts for the first layer that reads what it makes, directly
    or through other conversions, and for none where it makes a result of the network.

    Args:
        executed: the graph that ran, in an order in which it can run.
        kernels: with their times.
        anchors: the layer of each kernel that stands for one.
    """
    readers: dict[str, list[ExecutedNode]] = {}
    for node in executed:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    by_name = {node.name: node for node in executed}
    found: dict[int, float] = {}
    for kernel in kernels:
        if kernel.name in anchors or kernel.name not in by_name or not kernel.time_us:
            continue
        layer = _first_layer(by_name[kernel.name], readers, anchors)
        if layer is not None:
            found[layer] = found.get(layer, 0.0) + kernel.time_us
    return found


def _first_layer(
    start: ExecutedNode, readers: Mapping[str, Sequence[ExecutedNode]], anchors: Mapping[str, int]
) -> int | None:
    seen, stack = {start.name}, [start]
    while stack:
        for value in stack.pop().outputs:
            for reader in readers.get(value, ()):
                if reader.name in anchors:
                    return anchors[reader.name]
                if reader.name not in seen:
                    seen.add(reader.name)
                    stack.append(reader)
    return None


def by_type(kernels: Iterable[KernelTime]) -> tuple[Conversion, ...]:
    """Conversions added up by the runtime's operator type, the longest first."""
    totals: dict[str, list[float]] = {}
    for kernel in kernels:
        totals.setdefault(kernel.op, []).append(kernel.time_us)
    found = [Conversion(op=op, count=len(times), us=sum(times)) for op, times in totals.items() if sum(times)]
    return tuple(sorted(found, key=lambda each: -each.us))
