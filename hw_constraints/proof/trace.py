"""What became of each node of an ONNX file in a runtime: joined by names that survive the runtime's optimisations.

Runtimes keep, prefix or suffix the names of nodes and values when they fuse. So the file is loaded with every node
and value renamed to a tag that can be found inside any such name; nothing else of it changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from bitwright.hw_constraints.backends import Arrays, Backend, ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.macs import weight_position
from bitwright.hw_constraints.proof.onnx_graph import DEQUANTIZE, QUANTIZE, OnnxGraph

_TAG = re.compile(r"bw(\d+)wb")
# What runtimes insert to change memory layout or type: it stands for a node of the file only if that moves data, too.
LAYOUT_OPERATORS = frozenset(
    {"Transpose", "ReorderInput", "ReorderOutput", "Reorder", "Reshape", "Cast", "Convert", "Reformat"}
)
_MOVES_DATA = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Expand", "DepthToSpace"})
_NO_LAYERS = frozenset({QUANTIZE, DEQUANTIZE, "Constant", "Identity", "Shape", "DynamicQuantizeLinear"})
_PROLOGUE = _MOVES_DATA | {"Pad", DEQUANTIZE}
_WEIGHTED_KERNEL = re.compile(r"conv|gemm|matmul|fullyconnected", re.IGNORECASE)
_QUANTIZERS = frozenset({QUANTIZE, DEQUANTIZE})
_ANY_ELEMENTWISE = frozenset({"Subgraph", "FakeQuantize", "Eltwise"})  # quantizers run in these as well as layers
_NO_LAYER_TYPES = frozenset({"int32", "int64", "bool"})


@dataclass(kw_only=True)
class LayerTrace:
    """What a layer of the file became.

    Attributes:
        kernels: the kernels that do its work and carry its name; empty when another layer's do it.
        folded_into: the position of that other layer.
    """

    kernels: list[KernelTime] = field(default_factory=list)
    folded_into: int | None = None

    @property
    def precision(self) -> str:
        """What its kernels compute in; a real-valued one among them decides.

        Where some of them multiply by weights, those alone count: one behind them that turns codes into the real
        values of a result of the graph does none of the layer's work.
        """
        multiply = [kernel for kernel in self.kernels if _WEIGHTED_KERNEL.search(kernel.op)]
        precisions = [kernel.precision for kernel in multiply or self.kernels]
        return next((name for name in precisions if name.startswith(("float", "bfloat"))), (precisions or [""])[0])

    @property
    def time_us(self) -> float:
        """The time of its kernels."""
        return sum(kernel.time_us for kernel in self.kernels)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A profiled run.

    Attributes:
        layers: by the node's position in the file.
        total_us: all kernels together.
        anchors: the layer that each kernel works for, by the kernel's name; those that only convert have none.
        is_complete: whether a layer without a kernel surely has none, as in a profile that was taken here.
    """

    layers: Mapping[int, LayerTrace]
    total_us: float
    anchors: Mapping[str, int] = field(default_factory=dict)
    is_complete: bool = True


def layer_positions(graph: OnnxGraph) -> tuple[int, ...]:
    """Nodes that a user would call layers: they work on data, not on codes' scales, constants or shapes."""
    return tuple(
        index
        for index, node in enumerate(graph.nodes)
        if node.op_type not in _NO_LAYERS
        and any(value in graph.computed_from_inputs for value in node.output)
        and (graph.dtype(node.output[0]) not in _NO_LAYER_TYPES or weight_position(node.op_type) is not None)
    )


def trace_layers(graph: OnnxGraph, backend: Backend, inputs: Arrays, *, threads: int = 1, runs: int = 10) -> Trace:
    """Runs the file with the runtime's profiler on and joins what ran with the file's layers."""
    session = backend.load(tagged_model(graph).SerializeToString(), threads=threads)
    return join_kernels(graph, session.profile(inputs, runs), session.executed_graph())


def join_kernels(
    graph: OnnxGraph, kernels: Sequence[KernelTime], executed: Iterable[ExecutedNode], *, is_complete: bool = True
) -> Trace:
    """Joins kernels with the layers whose tags the names of their executed nodes hold."""
    regions = _Regions(graph, executed)
    layers = {index: LayerTrace() for index in layer_positions(graph)}
    for kernel in kernels:
        anchor = regions.anchors.get(kernel.name)
        if anchor is not None:
            layers[anchor].kernels.append(kernel)
    for index, trace in layers.items():
        if not trace.kernels:
            trace.folded_into = regions.anchors.get(regions.owner_of(index) or "")
    return Trace(
        layers=layers,
        total_us=sum(kernel.time_us for kernel in kernels),
        anchors=regions.anchors,
        is_complete=is_complete,
    )


def tag(index: int) -> str:
    """The name of the node at a position that can be found inside any other."""
    return f"bw{index}wb"


def tagged_model(graph: OnnxGraph) -> onnx.ModelProto:
    """The same model with every node, and every value that a node makes, named by the node's position."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    has_body = any(attribute.HasField("g") for node in graph.nodes for attribute in node.attribute)
    renamed = {
        value: f"{tag(index)}.{output}"
        for index, node in enumerate(graph.nodes)
        for output, value in enumerate(node.output)
        # Bodies of If and Loop refer to outer values by name.
        if value and not has_body
    }
    for index, node in enumerate(model.graph.node):
        node.name = tag(index)
        for operands in (node.input, node.output):
            operands[:] = [renamed.get(value, value) for value in operands]
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)
    del model.graph.value_info[:]
    return model


class _Regions:
    """Which nodes of the file each executed node stands for.

    Attributes:
        anchors: the layer that gives an executed node its name: the one with multiply-accumulates, else the first.
    """

    def __init__(self, graph: OnnxGraph, executed: Iterable[ExecutedNode]) -> None:
        self._graph = graph
        self._layers = set(layer_positions(graph))
        executed = list(executed)
        members = self._members(executed)
        self.anchors: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        for node in executed:
            layers = sorted(members.get(node.name, set()) & self._layers)
            if layers:
                named = [index for index in _tags((node.name,)) if index in layers]
                weighted = [i for i in layers if weight_position(graph.nodes[i].op_type) is not None]
                self.anchors[node.name] = (weighted or named or layers)[0]
            for index in layers:
                if index not in self._owners or self.anchors[node.name] == index:
                    self._owners[index] = node.name

    def owner_of(self, index: int) -> str | None:
        """The executed node that does a layer's work: its own, else its producer's, else its reader's."""
        if index in self._owners:
            return self._owners[index]
        # Of several producers the last can take it in: only then are the other operands ready.
        producers = sorted(self._neighbours(index, forward=False), reverse=True)
        for neighbour in producers or self._neighbours(index, forward=True):
            owner = self.owner_of(neighbour) if neighbour < index else self._owners.get(neighbour)
            if owner is not None:
                return owner
        return None

    def _neighbours(self, index: int, *, forward: bool) -> list[int]:
        """Layers next to a layer, across quantizers."""
        found, stack = [], [index]
        while stack:
            node = self._graph.nodes[stack.pop()]
            if forward:
                nearby = [reader for value in node.output for reader in self._graph.readers.get(value, [])]
            else:
                nearby = [self._graph.producer[value] for value in node.input if value in self._graph.producer]
            found += [other for other in nearby if other in self._layers]
            stack += [other for other in nearby if other not in self._layers]
        return found

    def _members(self, executed: list[ExecutedNode]) -> dict[str, set[int]]:
        """What the runtime says, grown towards the inputs up to what other executed nodes make."""
        tags = {node.name: self._stands_for(node) for node in executed}
        claimed = {index for indices in tags.values() for index in indices}
        return {node.name: self._grow(tags[node.name], claimed, node.op) for node in executed if tags[node.name]}

    def _stands_for(self, node: ExecutedNode) -> list[int]:
        tags = _tags(node.originals) or _tags((node.name, *node.outputs))
        if node.op in LAYOUT_OPERATORS:
            return [index for index in tags if self._graph.nodes[index].op_type in _MOVES_DATA]
        if node.op in _QUANTIZERS:
            return [index for index in tags if self._graph.nodes[index].op_type in _QUANTIZERS]
        return tags

    def _grow(self, tags: list[int], claimed: set[int], op: str) -> set[int]:
        """Adds the operators that the runtime merged without keeping their names.

        These are the ones between its tags, those that only move or dequantize what it reads, and where the kernel's
        own layer goes by the name of a later operator (a folded normalization, the quantizer behind it) the path back
        to that layer.
        """
        members, stack = set(tags), list(tags)
        has_weights = bool(_WEIGHTED_KERNEL.search(op))
        is_lost = self._is_lost(members, op)
        while stack:
            current = stack.pop()
            if self._graph.nodes[current].op_type == QUANTIZE and current == min(tags) and not is_lost:
                continue
            for value in self._graph.nodes[current].input:
                source = self._graph.producer.get(value)
                if source is None or source in members:
                    continue
                # A quantizer in front of a concatenation is copied to its operands, and still stands behind it here.
                is_passed = is_lost and self._graph.nodes[source].op_type in _QUANTIZERS
                if source in claimed and not is_passed:
                    continue
                weighted = any(weight_position(self._graph.nodes[index].op_type) is not None for index in members)
                moves = self._graph.nodes[source].op_type in _PROLOGUE
                searches = (has_weights and not weighted) or (is_lost and not members & self._layers)
                if source > min(tags) or moves or searches:
                    members.add(source)
                    stack.append(source)
        return members

    def _is_lost(self, members: set[int], op: str) -> bool:
        """Whether a kernel that is no conversion goes by quantizers alone, so that its own layer is before them."""
        if _WEIGHTED_KERNEL.search(op):
            return not any(weight_position(self._graph.nodes[index].op_type) is not None for index in members)
        is_conversion = op in LAYOUT_OPERATORS | _QUANTIZERS | _ANY_ELEMENTWISE
        return not is_conversion and not members & self._layers


def _tags(names: Iterable[str]) -> list[int]:
    return [int(digits) for name in names for digits in _TAG.findall(name)]
