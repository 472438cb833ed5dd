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
    lanes empty everywhere. Where the target's file names a packed layout, padding up to its multiple is mentioned, too,
    when it fills a quarter of the tensor. The network's own inputs and results are as they have to be.
    """

    name: ClassVar[str] = "channel_multiple"
    summary: ClassVar[str] = "a number of channels that the hardware has to pad"
    bad: ClassVar[str] = "self.conv = nn.Conv2d(64, 61, 3)"
    good: ClassVar[str] = "self.conv = nn.Conv2d(64, 64, 3)"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each layer with such a result that another layer reads."""
        if context.graph is None:
            return
        feeding = _feeding_layers(context.graph)
        for graph, node in context.computed_nodes():
            if node.name not in feeding or not graph.is_layer(node) or context.place(node) is not Place.LOW:
                continue
            channels = _channels(graph, node)
            if channels is None or channels <= _LANE:
                continue
            packed = _packed(context, channels)
            ragged = channels % _LANE != 0
            if not ragged and packed <= channels / (1 - _WASTE):
                continue
            padded = max(packed, -(-channels // _LANE) * _LANE)
            unit = f"multiples of {_LANE}" if ragged else "few padded channels"
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING if ragged else Severity.INFO,
                found=f"{node.op} makes {channels} channels, stored as {padded}",
                allowed=f"{unit}: {padded - channels} of {padded} channels are padding",
                suggestion=f"{padded} channels, at the same cost, or {max(channels // _LANE * _LANE, _LANE)}",
            )


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
    _, weight, _ = graph.layer_positions(node)
    ref = node.inputs[weight] if weight < len(node.inputs) else None
    if ref is None or not graph.is_constant(ref):
        return None
    shape = graph.tensors[node.outputs[0]].shape
    return shape[1] if node.op.startswith("conv") else shape[-1]


def _packed(context: LintContext, channels: int) -> int:
    fmt = context.target.numerics.activations[0].format.name
    return max([channels, *(layout.padded_channels(channels, fmt) for layout in context.target.layouts.values())])


RULE = ChannelMultiple
