"""An ONNX file as the kernels that a runtime runs for it: what fuses, in which format, and what lies between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx

from bitwright.hw_constraints.kernels.coded_graph import CodedGraph
from bitwright.hw_constraints.kernels.conversions import with_conversions
from bitwright.hw_constraints.kernels.draft import Draft
from bitwright.hw_constraints.kernels.fusing import fused
from bitwright.hw_constraints.kernels.kernel import Kernel, Shape
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.kernels.layouts import with_reorders
from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, read_onnx


@dataclass(frozen=True, kw_only=True)
class PlacedKernel:
    """A kernel and the place in the network where it runs.

    Attributes:
        kernel: what runs.
        layers: names of the values that it computes, the last one is its result; in our own exports they say which
            tensors of the user's network these are.
        replaces: `type:value` of each operator of the file that it stands for; empty for what the runtime inserts.
    """

    kernel: Kernel
    layers: tuple[str, ...]
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Split:
    """A network as kernels.

    Attributes:
        runtime: the backend's name.
        kernels: in an order in which they can run.
        inputs: shapes of the network's arguments.
        outputs: shapes of its results.
    """

    runtime: str
    kernels: tuple[PlacedKernel, ...] = field(repr=False)
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def split(model: Path | bytes | onnx.ModelProto | OnnxGraph, runtime: str, rules: FusionRules | None = None) -> Split:
    """Splits a network without running it.

    Args:
        model: float, or with QuantizeLinear/DequantizeLinear.
        runtime: the backend's name.
        rules: what fuses there; None takes what was found on the known version.

    Raises:
        InputError: it is no ONNX model, has sizes that are not static, or the runtime's rules are not known.
    """
    rules = rules or known_rules(runtime)
    graph = CodedGraph(_graph(model), quantizes_before=rules.quantizes_before)
    drafts = with_reorders(with_conversions(fused(graph, rules), graph, rules), graph, rules)
    inputs = tuple(graph.shape(item.name) for item in graph.graph.inputs)
    outputs = tuple(graph.shape(result.value) for result in graph.results if result)
    return Split(runtime=runtime, kernels=tuple(map(_placed, drafts)), inputs=inputs, outputs=outputs)


def _graph(model: Path | bytes | onnx.ModelProto | OnnxGraph) -> OnnxGraph:
    if isinstance(model, OnnxGraph):
        return model
    if isinstance(model, bytes):
        return OnnxGraph(onnx.load_model_from_string(model), f"model of {len(model)} bytes")
    return OnnxGraph(model, model.graph.name) if isinstance(model, onnx.ModelProto) else read_onnx(Path(model))


def _placed(draft: Draft) -> PlacedKernel:
    return PlacedKernel(kernel=draft.kernel(), layers=tuple(draft.layers), replaces=tuple(draft.replaces))
