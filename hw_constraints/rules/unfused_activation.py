"""An activation behind a layer that the accelerator cannot run as part of the layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint_context import LintContext, finding_at
from bitwright.hw_constraints.operators import ACTIVATIONS
from bitwright.hw_constraints.placement import Place
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.graph import Graph, Node

# What computes nearly the same, cheaply: x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, section 5.2).
_NEAR = {"silu": "hardswish", "mish": "hardswish"}
# What computes the same in several operators: (they, how it is written).
_PARTS = {"silu": (frozenset({"sigmoid", "mul"}), "x * torch.sigmoid(x)")}
# Below (vectors, the gates of squeeze-and-excitation) the pass over the tensor is not what takes the time.
_WORTH_IT = 1024  # elements


class UnfusedActivation:
    """Compares each layer and the activation behind it with the chains that the target's file lists.

    Where the pair is no chain and the layer looks nothing up in a table, its result is rounded, written and read again
    for the activation alone; where the activation has no low-precision kernel either, it is converted to float and
    back. An activation whose result leaves the network is fine: nothing has to be converted back.

    SiLU as one operator runs in float where only its parts, a sigmoid and a product, have low-precision kernels.
    Written out it is left alone: on a processor with VNNI EfficientNet-B0 then takes 0.79 of the time in ONNX Runtime,
    and a chain of 3x3 convolutions 0.91; in OpenVINO, which has no such kernels, both 1.06 (row silu_x86).
    """

    name: ClassVar[str] = "unfused_activation"
    summary: ClassVar[str] = "an activation that does not run as part of the layer before it"
    bad: ClassVar[str] = "x = torch.sigmoid(self.conv(x))  # and more layers behind it"
    good: ClassVar[str] = "x = F.relu(self.conv(x))"

    def check(self, context: LintContext) -> Iterator[Finding]:
        """Yields one finding for each pair that is no chain."""
        target = context.target
        for graph, node in context.computed_nodes():
            if node.op not in ACTIVATIONS or context.is_fused(node):
                continue
            layer = context.maker(node.tensors[0])
            place = context.place(node)
            shape = graph.tensors[node.outputs[0]].shape
            if None not in shape and graph.tensors[node.outputs[0]].elements < _WORTH_IT:
                continue
            if layer is None or not graph.is_layer(layer) or context.place(layer) is not Place.LOW:
                continue
            read_on = any(context.place(reader) is not Place.HOST for reader in context.readers(node.outputs[0]))
            if place not in (Place.LOW, Place.FLOAT) or not read_on or context.is_place(node.outputs[0]):
                continue
            if place is Place.LOW and _is_written_out(graph, node):
                continue
            parts = target.operators.decomposed.get(node.op)
            alone = f"runs on its own, as {', '.join(parts.parts)}" if parts else "runs on its own, in low precision"
            how = alone if place is Place.LOW else "runs in float, converted to and fro"
            listed = sorted(
                {p[1] for p in target.operators.fused_patterns if p[0] == layer.op and len(p) == 2} & ACTIVATIONS
            )
            if node.op in listed:
                continue  # a chain but for another reader of the layer's own result
            if _is_looked_up(context, graph, node):
                continue
            fits = f"{layer.op} with {' or '.join(listed)} behind it" if listed else f"{layer.op} alone"
            yield finding_at(
                self.name,
                node,
                severity=Severity.WARNING,
                found=f"{node.op} behind {layer.op} {how}",
                allowed=f"as one: {fits} ({target.id})",
                suggestion=_suggestion(target, node, place, listed),
            )


def _suggestion(target: Target, node: Node, place: Place, listed: list[str]) -> str:
    """What to write instead: first what the layer looks up in a table, then the same in low-precision parts."""
    tables, near = target.operators.table_lookups, _NEAR.get(node.op, "")
    if tables is not None and near in tables.of:
        return f"{near}, which the layer looks up in a table as it writes, and train a little further"
    fused = f"{listed[-1]}, and train a little further" if listed else "leave the activation out"
    parts, spelled = _PARTS.get(node.op, (frozenset(), ""))
    if place is Place.FLOAT and parts and parts <= target.operators.quantized:
        return f"{spelled}, whose parts run in low precision; or {fused}"
    return fused


def _is_written_out(graph: Graph, node: Node) -> bool:
    """Whether it is the sigmoid of `x * sigmoid(x)`, which is read with `x` alone: SiLU in its parts."""
    product = graph.sole_consumer(node.outputs[0])
    operands = {node.tensors[0], node.outputs[0]}
    return node.op == "sigmoid" and product is not None and product.op == "mul" and set(product.tensors) == operands


def _is_looked_up(context: LintContext, graph: Graph, node: Node) -> bool:
    """Whether the layer looks it up in a table as it writes: where nothing else reads what the layer computes."""
    tables = context.target.operators.table_lookups
    return tables is not None and node.op in tables.of and graph.sole_consumer(node.tensors[0]) is node


RULE = UnfusedActivation
