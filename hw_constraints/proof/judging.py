"""Turns a trace into statements about a file's layers: what each ran in, for how long, and why not in int8."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from bitwright.hw_constraints.proof.case import LayerCase, read_case
from bitwright.hw_constraints.proof.macs import count_macs, weight_position
from bitwright.hw_constraints.proof.onnx_graph import QUANTIZE, OnnxGraph
from bitwright.hw_constraints.proof.probe import Reason
from bitwright.hw_constraints.proof.report import LayerProof, State
from bitwright.hw_constraints.proof.tools.base import CODES, UNSTATED
from bitwright.hw_constraints.proof.trace import LayerTrace, Trace, layer_positions
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef

_PROVENANCE = ".provenance.json"
_BYTES = frozenset({"int8", "uint8"})
Explain = Callable[[LayerCase, str], Reason]


def references_of(path: Path) -> dict[str, str]:
    """Which tensor of the user's model each value stands for, from our exporter's file beside; empty without it.

    Raises:
        InputError: that file is damaged.
    """
    provenance = path.with_suffix(_PROVENANCE)
    if not provenance.is_file():
        return {}
    try:
        values = json.loads(provenance.read_text(encoding="utf-8"))["values"]
        return {value: str(TensorRef.parse(reference)) for value, reference in values.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{provenance}: not a provenance file ({error}); delete it or export again") from error


def _layer_names(graph: OnnxGraph, references: Mapping[str, str]) -> dict[int, str]:
    """Names for people, unique: the tensor's reference, else the node's name, else the value's."""
    names: dict[int, str] = {}
    for index in layer_positions(graph):
        node = graph.nodes[index]
        name = references.get(node.output[0]) or node.name or node.output[0]
        names[index] = name if name not in names.values() else f"{name} ({node.output[0]})"
    return names


class Judge:
    """Turns a trace into statements about layers.

    Args:
        graph: the file.
        trace: what became of its layers.
        references: the tensor of the user's model that each value stands for.
        explain: why a layer with codes around it ran in a real-valued precision (its second argument).
    """

    def __init__(self, graph: OnnxGraph, trace: Trace, references: Mapping[str, str], explain: Explain) -> None:
        self._graph = graph
        self._trace = trace
        self._references = references
        self._names = _layer_names(graph, references)
        self._macs = count_macs(graph)
        self._explain = explain
        self._weighted = {index for index in trace.layers if self._is_weighted(index)}
        self._all_macs = sum(self._macs.get(index, 0) for index in self._weighted)
        self._has_codes = any(node.op_type == QUANTIZE for node in graph.nodes)

    def layers(self) -> tuple[LayerProof, ...]:
        """One statement for each layer, in the file's order."""
        return tuple(self._layer(index, trace) for index, trace in self._trace.layers.items())

    def _is_weighted(self, index: int) -> bool:
        node = self._graph.nodes[index]
        position = weight_position(node.op_type)
        return position is not None and node.input[position] not in self._graph.computed_from_inputs

    def _layer(self, index: int, trace: LayerTrace) -> LayerProof:
        node = self._graph.nodes[index]
        owner = trace if trace.folded_into is None else self._trace.layers[trace.folded_into]
        state = self._state(index, trace, owner)
        macs = self._macs.get(index, 0)
        total_us = self._trace.total_us or 1.0
        return LayerProof(
            name=self._names[index],
            output=node.output[0],
            ref=self._references.get(node.output[0]),
            op=node.op_type,
            state=state,
            kernel=" + ".join(dict.fromkeys(kernel.op for kernel in owner.kernels)),
            precision=owner.precision,
            folded_into=None if trace.folded_into is None else self._names[trace.folded_into],
            file_format=self._file_format(index),
            time_us=trace.time_us,
            time_share=trace.time_us / total_us,
            macs=macs,
            mac_share=macs / self._all_macs if index in self._weighted and self._all_macs else 0.0,
            is_weighted=index in self._weighted,
            reason=self._reason(index, state, owner),
        )

    def _state(self, index: int, trace: LayerTrace, owner: LayerTrace) -> State:
        if trace.folded_into is not None and index not in self._weighted:
            return State.FOLDED
        if owner.precision == "int8" or (owner.precision == CODES and self._holds_bytes(index)):
            return State.INT8
        if owner.precision == "fp8":
            return State.FP8
        if owner.precision in (CODES, UNSTATED) or not (owner.kernels or self._trace.is_complete):
            return State.UNKNOWN
        codes = [self._graph.codes_before(value) for value in self._graph.nodes[index].input[:2]]
        if index in self._weighted and all(code is not None and code.is_float8 for code in codes):
            return State.FP8
        return State.FLOAT

    def _holds_bytes(self, index: int) -> bool:
        """Whether what the layer reads stands as 8-bit codes in the file."""
        return set(self._file_format(index).split(" x ")) <= _BYTES

    def _file_format(self, index: int) -> str:
        node = self._graph.nodes[index]
        position = weight_position(node.op_type)
        positions = (0,) if position is None else (0, position)
        codes = [self._graph.codes_before(node.input[at]) for at in positions if at < len(node.input)]
        plain = [self._graph.dtype(node.input[at]) or "float32" for at in positions if at < len(node.input)]
        return " x ".join(plain[i] if code is None else code.dtype for i, code in enumerate(codes))

    def _reason(self, index: int, state: State, owner: LayerTrace) -> Reason | None:
        if state is State.FP8 and owner.precision != "fp8":
            found = "fp8 (format proven in the file; not executed in fp8 by this runtime)"
            return Reason(causes=("format_not_executed",), found=found)
        if state is State.UNKNOWN:
            found = "the report does not say its format" if owner.kernels else "the report has no kernel for it"
            return Reason(causes=("not_reported",), found=found)
        if state is not State.FLOAT:
            return None
        if not self._has_codes:
            return Reason(causes=("not_quantized",), found="the file has no QuantizeLinear at all")
        try:
            case = read_case(self._graph, index)
        except InputError as error:
            return Reason(causes=("not_probed",), found=str(error))
        if case is None:
            return Reason(
                causes=("not_probed",), found="shapes around it are not static: give a file with fixed shapes"
            )
        if case.output is None and all(operand.codes is None for operand in case.operands):
            found = "neither its inputs nor its result are quantized in the file"
            return Reason(causes=("not_quantized",), found=found)
        return self._explain(case, owner.precision)
