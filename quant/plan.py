"""The quantization plan: which tensor gets which format, and who shares scale and zero point.

Decided once, from the graph and a scheme; PTQ, QAT and every exporter follow it. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwright.quant.geometry import geometry_tensors
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.scheme import BiasKind, QParamsSpec, QuantScheme


@dataclass(frozen=True, kw_only=True)
class BiasPlan:
    """A bias kept as int32 with scale = scale(input) * scale(weight) and zero point 0."""

    bias: TensorRef
    input: TensorRef
    weight: TensorRef


@dataclass(frozen=True, kw_only=True)
class QuantPlan:
    """What to quantize, how, and what not, and why not.

    Attributes:
        scheme: where it came from.
        activations: spec of each quantized activation.
        weights: spec of each quantized parameter.
        groups: sets of activations that carry the same qparams.
        biases: the biases kept as int32, by the name of the node that reads them.
        fused: node names that run as one, anchor first.
        quantized: names of the nodes that run in low precision.
        kept_float: the reason for each node that has floating-point work and stays in float.
    """

    scheme: QuantScheme
    activations: Mapping[TensorRef, QParamsSpec]
    weights: Mapping[TensorRef, QParamsSpec]
    groups: tuple[frozenset[TensorRef], ...]
    biases: Mapping[str, BiasPlan]
    fused: tuple[tuple[str, ...], ...]
    quantized: frozenset[str]
    kept_float: Mapping[str, str]


def plan(graph: Graph, scheme: QuantScheme) -> QuantPlan:
    """Decides for every tensor of a network whether and how it is quantized.

    A node runs in low precision when its operator type is in `scheme.quantized_operators`, it works on floating
    point, it is no geometry, and no override keeps it in float. Its activation operands and the result of its fused
    chain are then quantized; operators that only move codes pass qparams on and tie them together.

    Args:
        graph: the network, batch norms folded where they can be.
        scheme: what the target asks for.
    """
    return _Planner(graph, scheme).plan()


class _Planner:
    def __init__(self, graph: Graph, scheme: QuantScheme) -> None:
        self.graph = graph
        self.scheme = scheme
        self.places = geometry_tensors(graph)
        self.kept_float: dict[str, str] = {}
        self.activations: dict[TensorRef, QParamsSpec] = {}
        self.weights: dict[TensorRef, QParamsSpec] = {}
        self.groups: list[set[TensorRef]] = []
        self.quantized: set[str] = set()

    def plan(self) -> QuantPlan:
        chains = {chain[0].name: chain for chain in self.graph.chains(self.scheme.fused_patterns)}
        followers = {node.name for chain in chains.values() for node in chain[1:]}
        anchors = [node for node in self.graph.nodes if node.name not in followers and self._runs_quantized(node)]
        fused = [chains[node.name] for node in anchors if node.name in chains]
        inner = {ref for chain in fused for node in chain[:-1] for ref in node.outputs}
        for anchor in anchors:
            chain = chains.get(anchor.name, (anchor,))
            self.quantized.update(node.name for node in chain)
            for node in chain:
                self.kept_float.pop(node.name, None)
                self._quantize_operands(node, inner)
            self._quantize_result(chain[-1], anchor)
        self._explain_followers(followers)
        self._tie_shared()
        return QuantPlan(
            scheme=self.scheme,
            activations=self.activations,
            weights=self.weights,
            groups=tuple(frozenset(group) for group in self.groups),
            biases=self._biases(anchors),
            fused=tuple(tuple(node.name for node in chain) for chain in fused),
            quantized=frozenset(self.quantized),
            kept_float=self.kept_float,
        )

    def _runs_quantized(self, node: Node) -> bool:
        reason = self._reason_for_float(node)
        if reason:
            self.kept_float[node.name] = reason
        return reason is None

    def _reason_for_float(self, node: Node) -> str | None:
        """None when the node runs in low precision, "" when the question does not arise."""
        if not any(self.graph.tensors[ref].is_floating for ref in node.outputs):
            return ""
        if node.outputs[0] in self.places and not self.graph.macs(node):
            return "computes indices or coordinates"
        override = self.scheme.override_for(module_path=node.module_path, operator=node.op)
        if override is not None and override.keep_float:
            return f"kept in float by {override.origin or 'an override'}"
        if node.op in self.scheme.quantized_operators:
            operands = [ref for ref in node.tensors if not self.graph.is_constant(ref)]
            return None if operands else "works on constants only"
        if node.op in self.scheme.shared_qparams_operators:
            return ""
        return f"scheme {self.scheme.name!r} has no quantized {node.op!r}"

    def _quantize_operands(self, node: Node, inner: set[TensorRef]) -> None:
        has_weights = self.graph.macs(node) > 0
        for position, ref in enumerate(node.inputs):
            if ref is None or ref in inner or not self.graph.tensors[ref].is_floating:
                continue
            if not self.graph.is_constant(ref):
                if ref not in self.places and ref not in self.activations:
                    self.activations[ref] = self._activation_spec(ref, node)
            elif has_weights and position <= 1:
                self.weights[ref] = self._weight_spec(node)
            elif not has_weights:
                self.activations[ref] = self.scheme.activations

    def _quantize_result(self, last: Node, anchor: Node) -> None:
        result = last.outputs[0]
        leaves = result in self.graph.outputs or any(result == out for _, out in self.graph.state)
        if result in self.places or (leaves and not self.scheme.quantize_outputs):
            return
        self.activations[result] = self._activation_spec(result, anchor)

    def _activation_spec(self, ref: TensorRef, reader: Node) -> QParamsSpec:
        node = self.graph.producers.get(ref, reader)
        override = self.scheme.override_for(module_path=node.module_path, operator=node.op)
        return override.activations if override and override.activations else self.scheme.activations

    def _weight_spec(self, node: Node) -> QParamsSpec:
        override = self.scheme.override_for(module_path=node.module_path, operator=node.op)
        if override and override.weights:
            return override.weights
        return self.scheme.operator_weights.get(node.op, self.scheme.weights)

    def _explain_followers(self, followers: set[str]) -> None:
        for node in self.graph.nodes:
            if node.name in followers and node.name not in self.quantized:
                reason = self._reason_for_float(node)
                if reason:
                    self.kept_float[node.name] = reason

    def _tie_shared(self) -> None:
        """Operators that only move codes: what goes in quantized comes out with the same qparams."""
        for node in self.graph.nodes:
            if node.op not in self.scheme.shared_qparams_operators:
                continue
            moved = [ref for ref in node.tensors if self.graph.tensors[ref].is_floating]
            override = self.scheme.override_for(module_path=node.module_path, operator=node.op)
            if not moved or (override and override.keep_float):
                continue
            if node.outputs[0] in self.places or not all(ref in self.activations for ref in moved):
                continue
            self.quantized.add(node.name)
            spec = self.activations[moved[0]]
            results = [ref for ref in node.outputs if self.graph.tensors[ref].is_floating]
            self.activations.update(dict.fromkeys(results, spec))
            self._tie({*moved, *results})

    def _tie(self, members: set[TensorRef]) -> None:
        touching = [group for group in self.groups if group & members]
        self.groups = [group for group in self.groups if not group & members]
        merged = members.union(*touching)
        spec = self.activations[min(merged)]
        self.activations.update(dict.fromkeys(merged, spec))
        self.groups.append(merged)

    def _biases(self, anchors: list[Node]) -> dict[str, BiasPlan]:
        if self.scheme.bias is not BiasKind.INT32:
            return {}
        return {
            node.name: BiasPlan(bias=node.inputs[2], input=node.inputs[0], weight=node.inputs[1])
            for node in anchors
            if self.graph.macs(node)
            and len(node.inputs) > 2
            and node.inputs[0] in self.activations
            and node.inputs[1] in self.weights
            and node.inputs[2] is not None
            and self.graph.is_constant(node.inputs[2])
        }
