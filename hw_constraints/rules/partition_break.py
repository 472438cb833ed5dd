"""Work that leaves the accelerator in the middle of the network and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_types import Otherwise
from bitwright.quant.graph import Graph, Node


class PartitionBreak:
    """Looks for operators on the host between operators on the accelerator.

    Each such place ends a partition: the tensor is copied out, the accelerator waits, and the result is copied back. A
    toolchain that compiles one partition only runs everything behind the first break on its host, however well the
    accelerator could run it; how much work that is stands in the finding.
    """

    name: ClassVar[str] = "partition_break"
    summary: ClassVar[str] = "an operator on the host that cuts the network in two"
    bad: ClassVar[str] = "x = self.conv2(F.softplus(self.conv1(x)))  # softplus runs on the host"
    good: ClassVar[str] = "x = self.conv2(F.relu(self.conv1(x)))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding where each stay on the host begins; the first alone where there is one partition."""
        if context.graph is None or context.target.operators.others is not Otherwise.HOST:
            return
        graph = context.graph
        if not any(context.is_hosted(node) for _, node in context.computed_nodes()):
            return
        behind, before = _work_behind(context, graph), _behind_accelerated(context, graph)
        macs = np.array([_macs(graph, node) for node in graph.nodes], np.float64)
        for _, node in context.computed_nodes():
            makers = [maker for ref in node.tensors if (maker := graph.producers.get(ref))]
            begins = context.is_hosted(node) and not any(map(context.is_hosted, makers))
            if not begins or node.name not in before or not behind[node.name]:
                continue
            cut_off = _positions(behind[node.name], len(macs))
            work, total = macs[cut_off].sum(), macs.sum()
            share = f"{100 * work / total:.0f} % of the products" if work else f"{cut_off.sum()} calls"
            single = context.target.operators.single_partition
            yield finding_at(
                self.name,
                node,
                severity=Severity.ERROR if single else Severity.WARNING,
                found=f"{node.op} on the host cuts the network: {share} come behind it"
                + (", on the host as well" if single else ", after a copy out and one back"),
                allowed="one partition: host operators before the first layer or behind the last",
                suggestion="replace it (bitwright targets lists what runs), or move it to the network's end",
            )
            if single:
                return  # nothing behind it runs on the accelerator anyway


def _macs(graph: Graph, node: Node) -> int:
    static = all(None not in graph.tensors[ref].shape for ref in (*node.tensors, *node.outputs))
    return graph.macs(node) if static else 0


def _behind_accelerated(context: LintContext, graph: Graph) -> set[str]:
    """The nodes that read, over any way, what the accelerator computed."""
    found: set[str] = set()
    for node in graph.nodes:
        for ref in node.tensors:
            maker = graph.producers.get(ref)
            if maker and (maker.name in found or context.place(maker) is Place.LOW):
                found.add(node.name)
    return found


def _work_behind(context: LintContext, graph: Graph) -> dict[str, int]:
    """For each node, the accelerated nodes that its result reaches, as bits by their position in the graph."""
    behind: dict[str, int] = {}
    bits = {node.name: 1 << i if context.place(node) is Place.LOW else 0 for i, node in enumerate(graph.nodes)}
    for node in reversed(graph.nodes):
        reached = 0
        for ref in node.outputs:
            for reader in graph.consumers[ref]:
                reached |= behind[reader.name] | bits[reader.name]
        behind[node.name] = reached
    return behind


def _positions(bits: int, count: int) -> npt.NDArray[np.bool_]:
    """Which of `count` bits are set."""
    packed = np.frombuffer(bits.to_bytes(-(-count // 8), "little"), np.uint8)
    return np.unpackbits(packed, count=count, bitorder="little").astype(bool)


RULE = PartitionBreak
