"""The quantization plan: which tensor gets which format, and who shares scale and zero point.

Decided once, from the graph and a scheme; PTQ, QAT and every exporter follow it. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bitwright.quant.divisors import reads_as_divisor
from bitwright.quant.formats import IntFormat
from bitwright.quant.geometry import geometry_tensors, has_learned_weights
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.scheme import FLOAT32, BiasKind, Granularity, Override, QParamsSpec, QuantScheme


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
        weights: spec of each quantized parameter and constant; nodes that stay in float read it in float.
        groups: sets of tensors that carry the same qparams; constants among them follow the activations.
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

    A node runs in low precision when its operator type is in `scheme.quantized_operators`, it works on float32, it is
    no geometry, and no override keeps it in float. Its operands and the result of its fused chain are then quantized;
    operators that only move codes pass qparams on and tie them together. A result of the network stays in float
    unless a node in low precision reads it, too, or the scheme quantizes outputs; what is only divided by does.

    Where several overrides meet (in a fused chain, in a group that shares qparams, at a weight that layers share),
    the one that stands last in the scheme decides for all of them.

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
        self.leaves = {*graph.outputs, *(after for _, after in graph.state)}
        self.specs: dict[TensorRef, QParamsSpec] = {}
        self.ranks: dict[TensorRef, int] = {}  # which override decided; -1: the scheme's default
        self.groups: list[set[TensorRef]] = []
        self.quantized: set[str] = set()
        self.decided: dict[TensorRef, tuple[int, QParamsSpec]] = {}  # for the results of chains

    def plan(self) -> QuantPlan:
        reasons = {node.name: self._reason_for_float(node) for node in self.graph.nodes}
        chains = self._chains(reasons)
        self.quantized.update(node.name for chain in chains for node in chain)
        for chain in chains:
            inner = {ref for node in chain[:-1] for ref in node.outputs}
            for node in chain:
                self._quantize_operands(node, inner)
            self._quantize_results(chain)
        self._tie_shared(reasons)
        specs = {ref: spec for ref, spec in self.specs.items() if spec.format != FLOAT32}  # which they are anyway
        constants = {ref for ref in specs if self.graph.is_constant(ref)}
        return QuantPlan(
            scheme=self.scheme,
            activations={ref: spec for ref, spec in specs.items() if ref not in constants},
            weights={ref: spec for ref, spec in specs.items() if ref in constants},
            groups=tuple(frozenset(group) for group in self.groups if group <= specs.keys()),
            biases=self._biases(chain[0] for chain in chains),
            fused=tuple(tuple(node.name for node in chain) for chain in chains if len(chain) > 1),
            quantized=frozenset(self.quantized),
            kept_float={name: why for name, why in reasons.items() if why and name not in self.quantized},
        )

    def _reason_for_float(self, node: Node) -> str | None:
        """None when the node runs in low precision, "" when the question does not arise."""
        results = [self.graph.tensors[ref] for ref in node.outputs if self.graph.tensors[ref].is_floating]
        if not results:
            return ""
        if node.outputs[0] in self.places and not has_learned_weights(self.graph, node):
            return "computes indices or coordinates"
        override = self._override(node)[1]
        if override is not None and override.keep_float:
            return f"kept in float by {override.origin or 'an override'}"
        if node.op in self.scheme.shared_qparams_operators:
            return ""
        if node.op not in self.scheme.quantized_operators:
            return f"scheme {self.scheme.name!r} has no quantized {node.op!r}"
        if results[0].dtype != "float32":
            return f"computes in {results[0].dtype}; only float32 is quantized"
        if self._writes_codes_only(node) and all(map(self._is_divisor, node.outputs)):
            return "is divided by, and small codes would be zero"
        return "works on constants only" if all(map(self.graph.is_constant, node.tensors)) else None

    def _chains(self, reasons: Mapping[str, str | None]) -> list[tuple[Node, ...]]:
        """The nodes that run in low precision, each with those that are fused behind it."""
        patterns = set(self.scheme.fused_patterns)
        fused: dict[str, tuple[Node, ...]] = {}
        for chain in self.graph.chains(patterns):
            if reasons[chain[0].name] is None:
                kept = [i for i, node in enumerate(chain) if self._is_kept_float(node)]
                cut = chain[: kept[0]] if kept else chain
                if tuple(node.op for node in cut) in patterns:
                    fused[chain[0].name] = cut
        followers = {node.name for chain in fused.values() for node in chain[1:]}
        anchors = [node for node in self.graph.nodes if reasons[node.name] is None and node.name not in followers]
        return [fused.get(node.name, (node,)) for node in anchors]

    def _is_kept_float(self, node: Node) -> bool:
        override = self._override(node)[1]
        return override is not None and override.keep_float

    def _override(self, node: Node) -> tuple[int, Override | None]:
        """The override that decides for a node, and where it stands in the scheme."""
        override = self.scheme.override_for(module_path=node.module_path, operator=node.op)
        return (-1, None) if override is None else (self.scheme.overrides.index(override), override)

    # --- which tensors ---

    def _quantize_operands(self, node: Node, inner: set[TensorRef]) -> None:
        _, weight, _ = self.graph.layer_positions(node)
        has_weights = self.graph.is_layer(node)
        for position, ref in enumerate(node.inputs):
            if ref is None or ref in inner or ref in self.places or not self._is_float32(ref):
                continue
            if not self.graph.is_constant(ref):
                self._assign(ref, *self._activation_spec(ref))
            elif has_weights and position == weight:
                self._assign(ref, *self._weight_spec(node, ref))
            elif not has_weights:
                rank, override = self._override(node)
                self._assign(ref, rank, (override and override.activations) or self.scheme.activations)

    def _quantize_results(self, chain: tuple[Node, ...]) -> None:
        decided = max((self._override(node) for node in chain), key=lambda ranked: ranked[0])
        rank, override = decided
        spec = (override and override.activations) or self.scheme.activations
        self.decided.update(dict.fromkeys(chain[-1].outputs, (rank, spec)))
        if spec.dynamic:
            return  # sums leave a product in full precision; whoever multiplies next chooses the scale
        codes_only = self._writes_codes_only(chain[0])
        for ref in chain[-1].outputs:
            stays = ref in self.places or self._is_divisor(ref) or not self._is_float32(ref)
            stays_real = self.scheme.codes_as_read or self._is_leaving(ref)
            if not stays and (codes_only or self._is_needed(ref) or not stays_real):
                self._assign(ref, rank, spec)

    def _writes_codes_only(self, node: Node) -> bool:
        return self.scheme.quantize_outputs or node.op in self.scheme.codes_only_operators

    def _is_float32(self, ref: TensorRef) -> bool:
        return self.graph.tensors[ref].dtype == "float32"

    def _is_leaving(self, ref: TensorRef) -> bool:
        """Whether a tensor is a result of the network, be it after moves only."""
        return ref in self.leaves or any(self._is_leaving(moved) for moved in self._moved(ref))

    def _is_divisor(self, ref: TensorRef) -> bool:
        """Whether a tensor is only divided by, in float, be it after moves."""
        readers = self.graph.consumers[ref]
        return bool(readers) and ref not in self.leaves and all(self._divides(node, ref) for node in readers)

    def _divides(self, node: Node, ref: TensorRef) -> bool:
        if node.op in self.scheme.shared_qparams_operators:
            return all(map(self._is_divisor, node.outputs))
        return reads_as_divisor(node, ref) and node.op not in self.scheme.quantized_operators

    def _is_needed(self, ref: TensorRef) -> bool:
        """Whether a node in low precision reads a tensor, be it after moves only."""
        if any(node.name in self.quantized for node in self.graph.consumers[ref]):
            return True
        return any(self._is_needed(moved) for moved in self._moved(ref))

    def _moved(self, ref: TensorRef) -> Iterable[TensorRef]:
        for node in self.graph.consumers[ref]:
            if node.op in self.scheme.shared_qparams_operators and not self._is_kept_float(node):
                yield from (result for result in node.outputs if self.graph.tensors[result].is_floating)

    # --- which spec ---

    def _activation_spec(self, ref: TensorRef) -> tuple[int, QParamsSpec]:
        """By the chain that makes it; an input of the network by its readers when they agree."""
        if ref in self.decided:
            return self.decided[ref]
        producer = self.graph.producers.get(ref)
        if producer is not None:
            rank, override = self._override(producer)
        else:
            readers = {self._override(node)[0] for node in self.graph.consumers[ref]}
            rank = readers.pop() if len(readers) == 1 else -1
            override = self.scheme.overrides[rank] if rank >= 0 else None
        return rank, (override and override.activations) or self.scheme.activations

    def _weight_spec(self, node: Node, ref: TensorRef) -> tuple[int, QParamsSpec]:
        rank, override = self._override(node)
        spec = (override and override.weights) or self.scheme.operator_weights.get(node.op, self.scheme.weights)
        is_stack = node.op in ("matmul", "bmm") and len(self.graph.tensors[ref].shape) > 2
        if is_stack and spec.granularity is Granularity.PER_CHANNEL:
            # Matrices of a stack are no channels of one another: keys and values of learned queries, which fold to
            # constants. Runtimes' kernels take one zero point for all of them.
            spec = replace(spec, granularity=Granularity.PER_TENSOR)
        return rank, spec

    def _assign(self, ref: TensorRef, rank: int, spec: QParamsSpec) -> None:
        if ref not in self.specs or rank > self.ranks[ref]:
            self.specs[ref], self.ranks[ref] = spec, rank

    # --- who shares ---

    def _tie_shared(self, reasons: dict[str, str | None]) -> None:
        """Operators that only move codes: what goes in quantized comes out with the same qparams."""
        for node in self.graph.nodes:
            if node.op not in self.scheme.shared_qparams_operators or reasons[node.name] != "":
                continue
            moved = [ref for ref in node.tensors if self.graph.tensors[ref].is_floating]
            results = [ref for ref in node.outputs if self.graph.tensors[ref].is_floating]
            known = [ref for ref in moved if ref in self.specs and not self.specs[ref].dynamic]
            if not known or not results:
                continue
            if not all(ref in self.specs or self.graph.is_constant(ref) for ref in moved):
                reasons[node.name] = "some of its operands are in float"
                continue
            if any(ref in self.specs and self.specs[ref].dynamic for ref in moved):
                reasons[node.name] = "some of its operands have scales that follow the data"
                continue
            rank, override = self._override(node)
            own = override and override.activations
            if own and own.dynamic and rank > max(self.ranks[ref] for ref in known):
                reasons[node.name] = "its result has a scale that follows the data"
                continue
            self.quantized.add(node.name)
            for ref in {*moved, *results} - {*known}:
                self._assign(ref, -1, self.specs[known[0]])
            if own:
                self._assign(results[0], rank, own)
            self._tie({*moved, *results})

    def _tie(self, members: set[TensorRef]) -> None:
        touching = [group for group in self.groups if group & members]
        self.groups = [group for group in self.groups if not group & members]
        merged = members.union(*touching)
        deciding = max(sorted(merged), key=lambda ref: self.ranks[ref])
        spec, rank = self.specs[deciding], self.ranks[deciding]
        self.specs.update(dict.fromkeys(merged, spec))
        self.ranks.update(dict.fromkeys(merged, rank))
        self.groups.append(merged)

    def _has_one_scale_a_sum(self, ref: TensorRef) -> bool:
        """Whether a sum of products of integers is known to be a multiple of one scale, in which a bias can be kept."""
        spec = self.specs.get(ref)
        return spec is not None and isinstance(spec.format, IntFormat) and not (spec.dynamic or spec.block_size)

    def _biases(self, layers: Iterable[Node]) -> dict[str, BiasPlan]:
        if self.scheme.bias is not BiasKind.INT32:
            return {}
        plans = {}
        for node in layers:
            operands = [node.inputs[i] if i < len(node.inputs) else None for i in self.graph.layer_positions(node)]
            data, weight, bias = operands
            if not self.graph.is_layer(node) or data is None or weight is None or bias is None:
                continue
            if (
                all(map(self._has_one_scale_a_sum, (data, weight)))
                and self.graph.is_constant(weight)
                and self.graph.is_constant(bias)
            ):
                plans[node.name] = BiasPlan(bias=bias, input=data, weight=weight)
        return plans
