"""Proves, layer by layer, what a runtime executes of an ONNX file: anyone's Q/DQ or integer-operator file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bitwright.hw_constraints.backends import Arrays, Backend, get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.proof.case import read_case
from bitwright.hw_constraints.proof.macs import count_macs, weight_position
from bitwright.hw_constraints.proof.onnx_graph import QUANTIZE, OnnxGraph, random_inputs, read_onnx
from bitwright.hw_constraints.proof.probe import Prober, Reason
from bitwright.hw_constraints.proof.report import LayerProof, ProofReport, State
from bitwright.hw_constraints.proof.saturation import SaturationRisk, saturation_risks
from bitwright.hw_constraints.proof.trace import LayerTrace, Trace, layer_positions, trace_layers
from bitwright.quant.errors import InputError
from bitwright.quant.graph import TensorRef

_PROVENANCE = ".provenance.json"
# Settings under which a runtime does not use 16-bit sums: see backends.onnxruntime.
_EXACT_SETTING = "session.x64quantprecision"


def prove(path: Path, runtime: str, *, inputs: Arrays | None = None, threads: int = 1, runs: int = 10) -> ProofReport:
    """Runs the file with the runtime's profiler on and says what became of each of its layers.

    Args:
        path: an ONNX file with QuantizeLinear/DequantizeLinear, integer operators, or none of them.
        runtime: a backend's name.
        inputs: one batch; standard normal numbers when not given.
        threads: of the runtime.
        runs: profiled runs; times are medians.

    Raises:
        InputError: the file is not readable, the runtime unknown or not accepting it, or inputs are needed.
        MissingExtraError: the runtime is not installed.
    """
    backend = get_backend(runtime)
    version = backend.version()
    graph = read_onnx(Path(path))
    session = backend.load(Path(path), threads=threads)
    batch = random_inputs(graph) if inputs is None else inputs
    session.run(batch)
    trace = trace_layers(graph, backend, batch, threads=threads, runs=runs)
    return ProofReport(
        file=str(path),
        runtime=runtime,
        version=version,
        settings=dict(session.settings),
        machine=this_machine(),
        layers=_Judge(graph, backend, trace, _references(Path(path))).layers(),
        total_us=trace.total_us,
        saturation_risks=_saturation_risks(graph, session.settings),
    )


def _saturation_risks(graph: OnnxGraph, settings: Mapping[str, str]) -> tuple[SaturationRisk, ...]:
    guarded = settings.get(_EXACT_SETTING) == "1"
    return saturation_risks(graph) if this_machine().saturates_u8s8 and not guarded else ()


def _references(path: Path) -> dict[str, str]:
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


class _Judge:
    """Turns a trace into statements about layers."""

    def __init__(self, graph: OnnxGraph, backend: Backend, trace: Trace, references: Mapping[str, str]) -> None:
        self._graph = graph
        self._trace = trace
        self._references = references
        self._names = _layer_names(graph, references)
        self._macs = count_macs(graph)
        self._prober = Prober(backend)
        self._runtime = backend.name
        self._weighted = {index for index in trace.layers if self._is_weighted(index)}
        self._all_macs = sum(self._macs.get(index, 0) for index in self._weighted)
        self._has_codes = any(node.op_type == QUANTIZE for node in graph.nodes)

    def layers(self) -> tuple[LayerProof, ...]:
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
            reason=self._reason(index, state),
        )

    def _state(self, index: int, trace: LayerTrace, owner: LayerTrace) -> State:
        if trace.folded_into is not None and index not in self._weighted:
            return State.FOLDED
        if owner.precision == "int8":
            return State.INT8
        codes = [self._graph.codes_before(value) for value in self._graph.nodes[index].input[:2]]
        if index in self._weighted and all(code is not None and code.is_float8 for code in codes):
            return State.FP8
        return State.FLOAT

    def _file_format(self, index: int) -> str:
        node = self._graph.nodes[index]
        position = weight_position(node.op_type)
        positions = (0,) if position is None else (0, position)
        codes = [self._graph.codes_before(node.input[at]) for at in positions if at < len(node.input)]
        plain = [self._graph.dtype(node.input[at]) or "float32" for at in positions if at < len(node.input)]
        return " x ".join(plain[i] if code is None else code.dtype for i, code in enumerate(codes))

    def _reason(self, index: int, state: State) -> Reason | None:
        if state is State.FP8:
            found = "fp8 (format proven in the file; not executed in fp8 by this runtime)"
            return Reason(causes=("format_not_executed",), found=found)
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
        return self._prober.reason(case)
