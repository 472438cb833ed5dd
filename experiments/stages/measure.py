"""Times the artefact beside its float twin on each of the target's runtimes, interleaved in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import MeasureResult, SpeedRow
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.hw_constraints.measure import Latency, Measurement

_NETWORKS = ("float", "quantized")


def measure_artifact(context: Context) -> MeasureResult:
    """Measures; a target whose runtimes are not here is not measured, and the result says so."""
    from bitwright.experiments.runtime_model import named_inputs
    from bitwright.hw_constraints.measure import measure_in_subprocess

    bench, asked = context.bench, context.recipe.measure
    runtimes = bench.runtimes(asked.runtimes)
    if not runtimes:
        wanted = ", ".join(bench.target.artifact.runtimes)
        return MeasureResult(threads=asked.threads, reason=f"none of the target's runtimes ({wanted}) is here")
    files = {
        f"{network} {runtime}": (context.file("quantize", f"{network}.onnx"), runtime)
        for runtime in runtimes
        for network in _NETWORKS
    }
    inputs = named_inputs(context.file("quantize", "float.onnx"), bench.example(bench.new_model()))
    with context.console.track(f"measuring, at most {asked.seconds:g} s", None):
        measurement = measure_in_subprocess(
            files,
            threads=asked.threads,
            inputs=dict.fromkeys(files, inputs),
            min_rounds=asked.rounds,
            max_seconds=asked.seconds,
            seed=context.recipe.seed,
        )
    return MeasureResult(
        device=measurement.device.cpu_model,
        threads=asked.threads,
        speeds=tuple(_speed(measurement, runtime) for runtime in runtimes),
        load=(measurement.load_before, measurement.load_after),
        converged=measurement.converged,
        disturbed_rounds=measurement.disturbed_rounds,
    )


def _speed(measurement: Measurement, runtime: str) -> SpeedRow:
    float_name, quantized_name = (f"{network} {runtime}" for network in _NETWORKS)
    ratio = measurement.ratio(quantized_name, float_name)
    quantized = measurement.latency(quantized_name)
    engine = f"{runtime} {quantized.versions.get(runtime, '')}".strip()
    return SpeedRow(
        runtime=engine,
        float_latency=latency_figure(measurement.latency(float_name), engine),
        quantized_latency=latency_figure(quantized, engine),
        ratio=Figure(
            value=ratio.value,
            unit="1",
            origin="measured",
            low=ratio.low,
            high=ratio.high,
            n=ratio.rounds,
            source=f"{engine}, paired by round",
        ),
    )


def latency_figure(latency: Latency, engine: str) -> Figure:
    """Median with the quartiles' distance around it."""
    source = f"{engine} on {latency.device.cpu_model}, {latency.threads} threads; median, interquartile range"
    return Figure(
        value=latency.median_us / 1e3,
        unit="ms",
        origin="measured",
        spread=latency.spread_us / 1e3,
        n=latency.n,
        source=source,
    )


STAGE = Stage(
    name="measure",
    run=measure_artifact,
    result=MeasureResult,
    needs=("quantize",),
    reads=("target", "measure.runtimes", "measure.threads", "measure.rounds", "measure.seconds", "model", "data",
           "example_inputs"),
    code=("bitwright.hw_constraints.measure", "bitwright.hw_constraints.backends"),
    packages=("onnxruntime", "openvino"),
    reads_machine=True,
)  # fmt: skip
