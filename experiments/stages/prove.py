"""Asks each runtime, layer by layer, what it really ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import LayerRow, ProveResult, RuntimeProof
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.hw_constraints.proof import LayerProof, ProofReport

_REAL = frozenset({"float64", "float32", "float16", "bfloat16"})


def prove_artifact(context: Context) -> ProveResult:
    """Proves the quantized artefact on each runtime, on the recipe's own example inputs."""
    from bitwright.experiments.runtime_model import named_inputs
    from bitwright.hw_constraints.proof import prove

    bench, artifact = context.bench, context.file("quantize", "quantized.onnx")
    example = bench.example(bench.new_model())
    runtimes, simulated = bench.runtimes_or_simulator()
    proofs = []
    with context.console.track("proving, runtimes", len(runtimes)) as advance:
        for runtime in runtimes:
            report = prove(
                artifact, runtime, inputs=named_inputs(artifact, example), threads=context.recipe.measure.threads
            )
            proofs.append(proof_of(report, executes=not simulated))
            advance(len(proofs), runtime)
    return ProveResult(proofs=tuple(proofs), simulated=bool(simulated))


def proof_of(report: ProofReport, *, executes: bool = True) -> RuntimeProof:
    """A report as it stands in the record.

    Args:
        report: of one runtime.
        executes: false where the runtime only stands in for the target's own: its times say nothing then.
    """
    from bitwright.hw_constraints.proof import State

    source = f"{report.runtime} {report.version}, its own optimised graph and profile"
    in_file = "codes in the file; not executed in fp8 here"

    def share(value: float, *, measured: bool = True, where: str = source) -> Figure:
        return Figure(value=100 * value, unit="%", origin="measured" if measured else "modelled", source=where)

    int8 = _mac_share(report, lambda layer: layer.state is State.INT8)
    fp8 = _mac_share(report, lambda layer: layer.state is State.FP8)
    low, where = (int8, source) if executes else (_mac_share(report, _is_coded), "codes in the file, not executed here")
    return RuntimeProof(
        runtime=report.runtime,
        version=report.version,
        settings=report.settings,
        low_precision_macs=share(low, measured=executes, where=where),
        int8_macs=share(int8),
        fp8_macs=share(fp8, measured=False, where=in_file),
        int8_time=share(report.time_share(State.INT8)),
        float_time=share(report.time_share(State.FLOAT)),
        conversion_time=share(report.conversion_time_share),
        total=Figure(value=report.total_us / 1e3, unit="ms", origin="measured", source=f"{source}; sum of kernels"),
        layers=tuple(
            LayerRow(
                layer=each.name,
                op=each.op,
                state=each.state.value,
                kernel=each.kernel,
                precision=each.precision,
                folded_into=each.folded_into,
                file_format=each.file_format,
                time_us=each.time_us,
                time_share=each.time_share,
                macs=each.macs,
                mac_share=each.mac_share,
                reason="" if each.reason is None else str(each.reason),
            )
            for each in report.layers
        ),
        warnings=tuple(map(str, report.warnings)),
        summary=report.summary(),
    )


def _mac_share(report: ProofReport, counts: Callable[[LayerProof], bool]) -> float:
    """Of the convolutions' and linear layers' MACs; divided once, so that all of them is exactly 1."""
    weighted = [each for each in report.layers if each.is_weighted]
    total = sum(each.macs for each in weighted)
    return sum(each.macs for each in weighted if counts(each)) / total if total else 0.0


def _is_coded(layer: LayerProof) -> bool:
    """Whether data and weight both stand as codes in the file."""
    return _REAL.isdisjoint(layer.file_format.split(" x "))


STAGE = Stage(
    name="prove",
    run=prove_artifact,
    result=ProveResult,
    needs=("quantize",),
    reads=("target", "prove.runtimes", "measure.threads", "model", "data", "example_inputs"),
    code=("bitwright.hw_constraints.proof", "bitwright.hw_constraints.backends"),
    packages=("onnxruntime", "openvino", "onnx"),
    reads_machine=True,
)
