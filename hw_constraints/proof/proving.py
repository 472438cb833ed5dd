"""Proves, layer by layer, what a runtime executes of an ONNX file: anyone's Q/DQ or integer-operator file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.proof.judging import Judge, references_of
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, random_inputs, read_onnx
from bitwright.hw_constraints.proof.own_process import OwnProcessBackend
from bitwright.hw_constraints.proof.probe import Prober
from bitwright.hw_constraints.proof.report import ProofReport
from bitwright.hw_constraints.proof.saturation import SaturationRisk, saturation_risks
from bitwright.hw_constraints.proof.trace import trace_layers

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
        InputError: the file is not readable, the runtime unknown or not accepting it or ending its process with it, or
            inputs are needed.
        MissingExtraError: the runtime is not installed.
    """
    version = get_backend(runtime).version()
    backend = OwnProcessBackend(get_backend(runtime), Path(path))
    graph = read_onnx(Path(path))
    session = backend.load(Path(path), threads=threads)
    batch = random_inputs(graph) if inputs is None else inputs
    session.run(batch)
    prober = Prober(backend)
    trace = trace_layers(graph, backend, batch, threads=threads, runs=runs)
    return ProofReport(
        file=str(path),
        runtime=runtime,
        version=version,
        settings=dict(session.settings),
        machine=this_machine(),
        layers=Judge(graph, trace, references_of(Path(path)), lambda case, _: prober.reason(case)).layers(),
        total_us=trace.total_us,
        saturation_risks=_saturation_risks(graph, session.settings),
    )


def _saturation_risks(graph: OnnxGraph, settings: Mapping[str, str]) -> tuple[SaturationRisk, ...]:
    guarded = settings.get(_EXACT_SETTING) == "1"
    return saturation_risks(graph) if this_machine().saturates_u8s8 and not guarded else ()
