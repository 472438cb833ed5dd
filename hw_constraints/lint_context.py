"""What a lint rule can look at, with what several rules ask for reckoned once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.node_properties import properties
from bitwright.hw_constraints.operators import CREATIONS, MOVEMENTS
from bitwright.hw_constraints.placement import Place, fused_names, places
from bitwright.hw_constraints.predicate import Value
from bitwright.hw_constraints.source_focus import focus
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.geometry import geometry_tensors
from bitwright.quant.graph import Graph, Node, TensorRef
from bitwright.quant.plan import QuantPlan
from bitwright.quant.scheme import QParamsSpec
from bitwright.quant.stored_size import dtype_bits, stored_bits

if TYPE_CHECKING:  # importing capture would load torch
    from bitwright.quant.capture import CaptureFailure

# They pass one tensor's values on, in another order or shape.
_PASSING = MOVEMENTS - {"cat", "stack"}


@dataclass(frozen=True, kw_only=True)
class LintContext:
    """What a rule can look at.

    Attributes:
        graph: the captured network; None when it could not be captured.
        target: the accelerator.
        plan: how the network is to be quantized, once that is decided.
        capture_failures: what stood in the way of capturing it.
        unused_modules: modules with parameters that take no part in any result.
        ranges: (smallest, largest) value of tensors, where calibration has seen them.
    """

    graph: Graph | None
    target: Target
    plan: QuantPlan | None = None
    capture_failures: tuple[CaptureFailure, ...] = ()
    unused_modules: tuple[str, ...] = ()
    ranges: Mapping[TensorRef, tuple[float, float]] = field(default_factory=dict)

    def computed_nodes(self) -> Iterator[tuple[Graph, Node]]:
        """The nodes whose result is not known before the network runs, each with the graph."""
        if self.graph is not None:
            for node in self._computed:
                yield self.graph, node

    def input_tensors(self) -> Iterator[tuple[Graph, TensorRef]]:
        """The network's inputs and incoming states, each with the graph."""
        if self.graph is not None:
            for ref in (*self.graph.inputs, *(incoming for incoming, _ in self.graph.state)):
                yield self.graph, ref

    def properties(self, node: Node) -> Mapping[str, Value]:
        """The named facts about a call; see `node_properties`."""
        if node.name not in self._properties:
            assert self.graph is not None
            self._properties[node.name] = properties(self.graph, node)
        return self._properties[node.name]

    def is_fused(self, node: Node) -> bool:
        """Whether a call vanishes into the low-precision operator before it."""
        return node.name in self._fused

    def place(self, node: Node) -> Place:
        """Where the accelerator runs a call."""
        return self._places[node.name]

    def is_hosted(self, node: Node) -> bool:
        """Whether a call on real numbers runs on the host; what only passes codes on stays where its operand is."""
        return node.name in self._hosted

    def is_place(self, ref: TensorRef) -> bool:
        """Whether a tensor holds indices or coordinates rather than values."""
        return ref in self._coordinates

    def maker(self, ref: TensorRef) -> Node | None:
        """The node whose values a tensor holds, moves between them skipped; None for inputs and constants."""
        assert self.graph is not None
        node = self.graph.producers.get(ref)
        while node is not None and node.op in _PASSING and node.tensors:
            node = self.graph.producers.get(node.tensors[0])
        return node

    def readers(self, ref: TensorRef) -> tuple[Node, ...]:
        """The nodes that compute with a tensor, moves between them skipped."""
        assert self.graph is not None
        found: dict[str, Node] = {}
        waiting, seen = [ref], {ref}
        while waiting:
            for node in self.graph.consumers[waiting.pop()]:
                if node.op not in _PASSING:
                    found[node.name] = node
                    continue
                waiting += [out for out in node.outputs if out not in seen]
                seen.update(node.outputs)
        return tuple(found.values())

    def bits(self, ref: TensorRef) -> int:
        """The bits of one element as the accelerator stores it: as planned, else its default where it computes so."""
        assert self.graph is not None
        info = self.graph.tensors[ref]
        if self.plan is not None:
            spec = self._spec(ref)
            if spec is not None:
                return spec.format.bits
        elif info.is_floating:
            node = self.graph.producers.get(ref)
            if node is None or self.place(node) in (Place.LOW, Place.MOVED):
                return self.target.numerics.activations[0].format.bits
        return dtype_bits(info.dtype)

    def bytes(self, ref: TensorRef) -> int | None:
        """The bytes of a tensor as the accelerator stores it, with the scales of blocks; None if its shape is open."""
        assert self.graph is not None
        if None in self.graph.tensors[ref].shape:
            return None
        return -(-stored_bits(self.graph, ref, self.bits(ref), self._spec(ref)) // 8)

    def _spec(self, ref: TensorRef) -> QParamsSpec | None:
        return None if self.plan is None else self.plan.activations.get(ref) or self.plan.weights.get(ref)

    @cached_property
    def _computed(self) -> tuple[Node, ...]:
        assert self.graph is not None
        known: set[TensorRef] = set()
        computed = []
        for node in self.graph.nodes:
            shape_alone = node.op in CREATIONS and all(
                None not in self.graph.tensors[ref].shape for ref in node.outputs
            )
            if shape_alone or all(ref in known or self.graph.is_constant(ref) for ref in node.tensors):
                known.update(node.outputs)
            else:
                computed.append(node)
        return tuple(computed)

    @cached_property
    def _properties(self) -> dict[str, dict[str, Value]]:
        return {}

    @cached_property
    def _places(self) -> dict[str, Place]:
        return places(self.graph, self.target, self.plan, fused=self._fused) if self.graph else {}

    @cached_property
    def _hosted(self) -> frozenset[str]:
        assert self.graph is not None
        hosted: set[str] = set()
        for node in self._computed:
            makers = [maker for ref in node.tensors if (maker := self.graph.producers.get(ref))]
            if node.op in self.target.operators.shared_qparams:
                there = any(maker.name in hosted for maker in makers)
            else:
                there = self.place(node) is Place.HOST and self._is_real(node)
            if there:
                hosted.add(node.name)
        return frozenset(hosted)

    def _is_real(self, node: Node) -> bool:
        assert self.graph is not None
        return any(self.graph.tensors[ref].is_floating for ref in (*node.tensors, *node.outputs))

    @cached_property
    def _fused(self) -> frozenset[str]:
        return fused_names(self.graph, self.target) if self.graph else frozenset()

    @cached_property
    def _coordinates(self) -> frozenset[TensorRef]:
        return geometry_tensors(self.graph) if self.graph else frozenset()


def finding_about(
    rule: str, graph: Graph, ref: TensorRef, *, severity: Severity, found: str, allowed: str, suggestion: str
) -> Finding:
    """A finding about a tensor that no operator makes (an input, a state), at the line that reads it first.

    Without a line where nothing reads it.
    """
    reader = next((each for each in graph.consumers[ref] if each.source), None)
    return Finding(
        rule=rule,
        severity=severity,
        node=str(ref),
        found=found,
        allowed=allowed,
        suggestion=suggestion,
        source=reader.source if reader else None,
        focus=focus(reader) if reader else "",
        module_path=reader.module_path if reader else "",
    )


def finding_at(rule: str, node: Node, *, severity: Severity, found: str, allowed: str, suggestion: str) -> Finding:
    """A finding about an operator call, with the user's own line."""
    return Finding(
        rule=rule,
        severity=severity,
        node=node.name,
        found=found,
        allowed=allowed,
        suggestion=suggestion,
        source=node.source,
        focus=focus(node),
        module_path=node.module_path,
    )
