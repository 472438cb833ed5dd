"""A tensor, a layer or a network that is larger than the memory it would have to lie in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.target_hardware import Memory
from bitwright.quant.graph import Graph, Node


class ExceedsMemory:
    """Compares tensors, layers and weights with the memories of the target whose sizes are known.

    Nothing is said as long as one memory has no stated size: then it may all fit there. A tensor has to lie in one
    memory; what a layer reads and writes, and all weights together, may lie in several.
    """

    name: ClassVar[str] = "exceeds_memory"
    summary: ClassVar[str] = "a tensor, a layer or weights larger than the memories"
    bad: ClassVar[str] = "volume = left.unsqueeze(2) * right.unsqueeze(3)  # 64 x 192 x 192 x 640 elements"
    good: ClassVar[str] = "volume = ...  # at a quarter of the resolution, or a few disparities at a time"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each such tensor, layer and network."""
        memories = [memory for memory in context.target.memories.values() if memory.size_bytes]
        if not memories or len(memories) < len(context.target.memories):
            return
        largest = max(memories, key=lambda memory: memory.size_bytes or 0)
        together = sum(memory.size_bytes or 0 for memory in memories)
        said = f"{spell_bytes(largest.size_bytes or 0)} in {largest.name}, the largest memory"
        for graph, node in context.computed_nodes():
            result = max((context.bytes(ref) or 0 for ref in node.outputs), default=0)
            layer = sum(context.bytes(ref) or 0 for ref in dict.fromkeys((*node.tensors, *node.outputs)))
            if result > (largest.size_bytes or 0):
                yield self._at(node, f"{node.op} makes a tensor of {spell_bytes(result)} {_shape(graph, node)}", said)
            elif graph.is_layer(node) and layer > together:
                found = f"{node.op} reads and writes {spell_bytes(layer)}"
                yield self._at(node, found, f"{spell_bytes(together)} in {_names(memories)} together")
        yield from self._weights(context, together, _names(memories))

    def _at(self, node: Node, found: str, allowed: str) -> Finding:
        return finding_at(
            self.name,
            node,
            severity=Severity.ERROR,
            found=found,
            allowed=allowed,
            suggestion="lower the resolution or the channels here, or compute it in slices",
        )

    def _weights(self, context: LintContext, together: int, names: str) -> Iterator[Finding]:
        graph = context.graph
        if graph is None:
            return
        read = dict.fromkeys(ref for node in graph.nodes for ref in node.tensors if graph.is_constant(ref))
        weights = sum(context.bytes(ref) or 0 for ref in read)
        if weights > together:
            yield Finding(
                rule=self.name,
                severity=Severity.ERROR,
                node="",
                found=f"all weights together take {spell_bytes(weights)}",
                allowed=f"{spell_bytes(together)} in {names}",
                suggestion="a smaller network, or weights in fewer bits",
            )


def spell_bytes(count: float) -> str:
    """`3.5 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"


def _shape(graph: Graph, node: Node) -> str:
    return str(list(graph.tensors[node.outputs[0]].shape))


def _names(memories: list[Memory]) -> str:
    return " and ".join(memory.name for memory in memories)


RULE = ExceedsMemory
