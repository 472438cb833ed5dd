"""Batch norms folded into the layers before them, on the torch-free graph; the weights are computed when read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.quant.graph import LAYERS, Graph, Node, TensorInfo, TensorKind, TensorRef

Array = npt.NDArray[Any]


def fold_batch_norms(graph: Graph) -> Graph:
    """Returns the graph with every batch norm folded that directly follows a layer read by it alone.

    The same rule as `passes.fold_batch_norm` has for a captured network: a layer that runs several times is folded when
    each run is followed by the same norm.
    With gamma / sqrt(var + eps) = k, the weight is w k and the bias (b - mean) k + beta.
    """
    folding = _Folding(graph)
    for norm in graph.nodes:
        layer = graph.producers.get(norm.tensors[0]) if norm.op == "batch_norm" and norm.tensors else None
        if layer is not None and _can_fold(graph, layer, norm):
            folding.fold(layer, norm)
    return folding.result()


def _can_fold(graph: Graph, layer: Node, norm: Node) -> bool:
    """Whether every run of a layer's weights is followed by the same norm, and nobody else reads its parameters."""
    if layer.op not in LAYERS or len(norm.inputs) != 5 or layer.inputs[1] is None:
        return False
    own = [ref for ref in layer.inputs[1:3] if ref is not None]
    constants = [*own, *(ref for ref in norm.inputs[1:] if ref is not None)]
    if norm.inputs[3] is None or norm.inputs[4] is None or not all(map(graph.is_constant, constants)):
        return False
    runs = graph.consumers[layer.inputs[1]]
    return all(graph.consumers[ref] == runs for ref in own) and all(
        _folds_alike(graph, run, layer, norm) for run in runs
    )


def _folds_alike(graph: Graph, run: Node, layer: Node, norm: Node) -> bool:
    behind = graph.sole_consumer(run.outputs[0])
    if behind is None or (run.op, run.inputs[1:], run.attributes) != (layer.op, layer.inputs[1:], layer.attributes):
        return False
    if run.op == "linear" and len(graph.tensors[run.outputs[0]].shape) != 2:
        return False  # its channels lie last, those of the norm at 1
    follows = behind.inputs[0] == run.outputs[0]
    return follows and (behind.op, behind.inputs[1:], behind.attributes) == (norm.op, norm.inputs[1:], norm.attributes)


@dataclass
class _Folding:
    """The graph so far: layers and norms that change, and how their parameters are computed."""

    graph: Graph
    layers: dict[str, Node] = field(default_factory=dict)
    norms: set[str] = field(default_factory=set)
    moved: dict[TensorRef, TensorRef] = field(default_factory=dict)
    loads: dict[TensorRef, Callable[[], Array]] = field(default_factory=dict)
    added: dict[TensorRef, TensorInfo] = field(default_factory=dict)

    def fold(self, layer: Node, norm: Node) -> None:
        weight, bias = (layer.inputs[i] if i < len(layer.inputs) else None for i in (1, 2))
        assert weight is not None  # layers have one
        channels = self.graph.tensors[norm.tensors[0]].shape[1]
        kind = self.graph.tensors[weight]
        path = weight.module_path.rpartition(".")[0]
        new: TensorRef | None = bias or TensorRef(weight.region, f"{path}.bias" if path else "bias")
        if bias is None and self.graph.load is not None and not _shifted(self.graph, norm, None).any():
            new = None  # a bias of zeros would cost every run an addition
        self.layers[layer.name] = replace(layer, inputs=(layer.inputs[0], weight, new))
        self.norms.add(norm.name)
        self.moved[norm.outputs[0]] = layer.outputs[0]
        self.loads[weight] = lambda: _scaled(self.graph, layer, weight, _factor(self.graph, norm))
        if new is not None:
            self.added[new] = TensorInfo(ref=new, shape=(channels,), dtype=kind.dtype, kind=TensorKind.PARAMETER)
            self.loads[new] = lambda: _shifted(self.graph, norm, bias).astype(kind.dtype)

    def result(self) -> Graph:
        """The graph without the folded norms."""
        nodes = [
            self._rewired(self.layers.get(node.name, node)) for node in self.graph.nodes if node.name not in self.norms
        ]
        read = {ref for node in nodes for ref in (*node.tensors, *node.outputs)}
        kept = {*self.graph.inputs, *self.graph.outputs, *(ref for pair in self.graph.state for ref in pair)}
        tensors: Mapping[TensorRef, TensorInfo] = {**self.graph.tensors, **self.added}

        def load(ref: TensorRef) -> Array:
            return self.loads[ref]() if ref in self.loads else self._original(ref)

        return replace(
            self.graph,
            nodes=tuple(nodes),
            tensors={ref: info for ref, info in tensors.items() if ref in read or ref in kept},
            outputs=tuple(self.moved.get(ref, ref) for ref in self.graph.outputs),
            state=tuple((before, self.moved.get(after, after)) for before, after in self.graph.state),
            load=load,
        )

    def _original(self, ref: TensorRef) -> Array:
        if self.graph.load is None:
            raise LookupError(f"tensor {ref} has no values in this graph")
        return np.asarray(self.graph.load(ref))

    def _rewired(self, node: Node) -> Node:
        if not any(ref in self.moved for ref in node.tensors):
            return node
        return replace(node, inputs=tuple(self.moved.get(ref, ref) if ref else None for ref in node.inputs))


def _values(graph: Graph, ref: TensorRef | None, otherwise: float) -> Array:
    return np.asarray(otherwise) if ref is None else graph.array(ref).astype(np.float64)


def _factor(graph: Graph, norm: Node) -> Array:
    """Gamma over the standard deviation, float64 [C]."""
    variance = _values(graph, norm.inputs[4], 1.0)
    return np.asarray(_values(graph, norm.inputs[1], 1.0) / np.sqrt(variance + norm.attributes["eps"]))


def _shifted(graph: Graph, norm: Node, bias: TensorRef | None) -> Array:
    centered = _values(graph, bias, 0.0) - _values(graph, norm.inputs[3], 0.0)
    return np.asarray(_values(graph, norm.inputs[2], 0.0) + centered * _factor(graph, norm))


def _scaled(graph: Graph, layer: Node, weight: TensorRef, factor: Array) -> Array:
    """The weight with each output channel times its factor; transposed convolutions are [in, out / groups, …]."""
    values = graph.array(weight)
    spread = [1] * (values.ndim - 2)
    if not layer.op.startswith("conv_transpose"):
        return np.asarray((values.astype(np.float64) * factor.reshape(-1, 1, *spread)).astype(values.dtype))
    groups = layer.attributes["groups"]
    grouped = values.astype(np.float64).reshape(groups, -1, *values.shape[1:])
    scaled = grouped * factor.reshape(groups, 1, -1, *spread)
    return np.asarray(scaled.reshape(values.shape).astype(values.dtype))
