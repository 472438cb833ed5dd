"""A tensor, or weights, that take a millisecond to bring in from memory once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.rules.exceeds_memory import spell_bytes
from bitwright.hw_constraints.target_hardware import MemoryKind
from bitwright.quant.graph import Graph, Node, TensorRef

# A network that runs with a camera at 30 Hz has 33 ms for everything: one tensor may not take 3 % of them for one pass.
_LONGEST_MS = 1.0


class SlowToMove:
    """Divides the bytes of results and weights by the bandwidth of the target's outer memory.

    A tensor larger than all memory on the chip is written there and read back; weights are read once for each run. What
    takes a millisecond for a single pass decides the latency, whatever the multipliers do. Targets without a public
    bandwidth are not judged.
    """

    name: ClassVar[str] = "slow_to_move"
    summary: ClassVar[str] = "a tensor or weights that take a millisecond to move once"
    bad: ClassVar[str] = "cost = (left[:, :, None] * right[:, None, :]).flatten(1, 2)  # 100 MB at 12 GB/s"
    good: ClassVar[str] = "cost = ...  # at a quarter of the resolution, or correlated group by group"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding where each such tensor arises, and one for each layer with such weights."""
        outer = self._outer(context)
        if outer is None:
            return
        name, rate = outer
        inner = sum(
            memory.size_bytes or 0 for memory in context.target.memories.values() if memory.kind is not MemoryKind.DRAM
        )
        limit = max(rate * _LONGEST_MS * 1e-3, inner)
        for graph, node in context.computed_nodes():
            large = _first_large(context, graph, node, limit)
            if large is not None:
                size = context.bytes(large) or 0
                constant = graph.is_constant(large)
                what = f"the weights of {node.op} take" if constant else f"{node.op} makes"
                yield finding_at(
                    self.name,
                    node,
                    severity=Severity.WARNING,
                    found=f"{what} {spell_bytes(size)}: {1e3 * size / rate:.2g} ms through {name} for one pass",
                    allowed=f"up to {spell_bytes(limit)}: {_LONGEST_MS:g} ms at {rate / 1e9:.4g} GB/s, "
                    f"or {spell_bytes(inner)} on the chip",
                    suggestion="fewer features, or weights in fewer bits"
                    if constant
                    else "lower the resolution or the channels here, or compute it slice by slice",
                )

    @staticmethod
    def _outer(context: LintContext) -> tuple[str, float] | None:
        """The outer memory's name and bytes per second."""
        clock = next((engine.clock_hz for engine in context.target.engines.values() if engine.clock_hz), None)
        for memory in context.target.memories.values():
            rate = memory.bytes_per_second(clock)
            if memory.kind is MemoryKind.DRAM and rate:
                return memory.name, rate
        return None


def _first_large(context: LintContext, graph: Graph, node: Node, limit: float) -> TensorRef | None:
    """A weight, or a result that nothing of its size led to, beyond the limit."""
    constants = [ref for ref in node.tensors if graph.is_constant(ref)]
    arriving = [ref for ref in node.tensors if not graph.is_constant(ref)]
    beyond = [ref for ref in (*constants, *node.outputs) if (context.bytes(ref) or 0) > limit]
    led_to = any((context.bytes(ref) or 0) > limit for ref in arriving)
    return next((ref for ref in beyond if graph.is_constant(ref) or not led_to), None)


RULE = SlowToMove
