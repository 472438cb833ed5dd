"""Channels between layers that are no multiple of what the hardware computes at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.placement import Place
from bitwright.quant.graph import Graph, Node

# Products that one lane of 8-bit dot-product instructions sums: VNNI's VPDPBUSD, Arm's SDOT and UDOT, NVIDIA's dp4a.
_LANE = 4
# From here on more than a quarter of the packed tensor is padding.
_WASTE = 0.25


class ChannelMultiple:
    """Looks at the channels between layers: those left by pruning, or chosen without a look at the hardware.

    Four 8-bit products are one instruction of every dot-product unit, so that a count that is no multiple of 4 leaves
    lanes empty everywhere. Where the target's file names a packed layout whose padding would fill a quarter of a
    tensor, the layer with the most of it is mentioned. The network's own inputs and results are as they have to be.
    """

    name: ClassVar[str] = "channel_multiple"
    summary: ClassVar[str] = "a number of channels that the hardware has to pad"
    bad: ClassVar[str] = "self.conv = nn.Conv2d(64, 61, 3)"
    good: ClassVar[str] = "self.conv = nn.Conv2d(64, 64, 3)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each layer with a ragged result that another layer reads, and one about packing."""
        if context.graph is None:
            return
        feeding = _feeding_layers(context.graph)
        packed: list[tuple[int, int, Node]] = []
        for graph, node in context.computed_nodes():
            if node.name not in feeding or not graph.is_layer(node) or context.place(node) is not Place.LOW:
                continue
            channels = _channels(graph, node)
            if channels is None or channels <= _LANE or _is_squeezed(graph, node):
                continue
            stored = _stored(context, channels)
            if channels % _LANE:
                yield self._at(node, channels, stored, f"multiples of {_LANE}", Severity.WARNING)
            elif stored > channels / (1 - _WASTE):
                packed.append((stored - channels, channels, node))
        if packed:
            padding, channels, worst = max(packed, key=lambda each: each[0])
            allowed = f"few padded channels (so are {len(packed)} layers in all)" if len(packed) > 1 else "few of them"
            yield self._at(worst, channels, channels + padding, allowed, Severity.INFO)

    def _at(self, node: Node, channels: int, stored: int, allowed: str, severity: Severity) -> Finding:
        less = max(channels // _LANE * _LANE, _LANE)
        return finding_at(
            self.name,
            node,
            severity=severity,
            found=f"{node.op} makes {channels} channels, stored as {stored}: {stored - channels} are padding",
            allowed=allowed,
            suggestion=f"{stored} channels, at the same cost" + (f", or {less}" if less != channels else ""),
        )


def _is_squeezed(graph: Graph, node: Node) -> bool:
    """Whether it is a convolution of one position, as in squeeze-and-excitation: its padding costs next to nothing."""
    positions = graph.tensors[node.outputs[0]].shape[2:]
    return node.op.startswith("conv") and all(size == 1 for size in positions)


def _feeding_layers(graph: Graph) -> set[str]:
    """The nodes from whose result a path leads to a layer."""
    feeding: set[str] = set()
    for node in reversed(graph.nodes):
        readers = [reader for ref in node.outputs for reader in graph.consumers[ref]]
        if any(reader.name in feeding or graph.is_layer(reader) for reader in readers):
            feeding.add(node.name)
    return feeding


def _channels(graph: Graph, node: Node) -> int | None:
    """The channels of a layer with constant weights; products of two activations have none to choose."""
    if node.op in ("matmul", "bmm", "baddbmm"):
        return None
    _, weight, _ = graph.layer_positions(node)
    ref = node.inputs[weight] if weight < len(node.inputs) else None
    if ref is None or not graph.is_constant(ref):
        return None
    shape = graph.tensors[node.outputs[0]].shape
    return shape[1] if node.op.startswith("conv") else shape[-1]


def _stored(context: LintContext, channels: int) -> int:
    """The channels that are stored: whole lanes, and whole packs of the target's layouts."""
    fmt = context.target.numerics.activations[0].format.name
    padded = [layout.padded_channels(channels, fmt) for layout in context.target.layouts.values()]
    return max([-(-channels // _LANE) * _LANE, *padded])


RULE = ChannelMultiple
