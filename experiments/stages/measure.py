"""Times the artefact beside its float twin, and beside the trained network where there is one, interleaved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.experiments.record import Figure
from bitwright.experiments.results import MeasureResult, SpeedRow
from bitwright.experiments.stage import Context, Stage

if TYPE_CHECKING:
    from bitwright.hw_constraints.backends import Arrays
    from bitwright.hw_constraints.measure import Latency, Measurement

_NETWORKS = ("float", "quantized")
_TRAINED = "trained"


def measure_artifact(context: Context) -> MeasureResult:
    """Measures, here or on the recipe's device; where none of the runtimes is, the result says so."""
    from bitwright.experiments.runtime_model import named_inputs

    inputs = named_inputs(context.file("quantize", "float.onnx"), context.bench.example(context.bench.new_model()))
    return _here(context, inputs) if context.recipe.measure.on is None else _on_device(context, inputs)


def _here(context: Context, inputs: Arrays) -> MeasureResult:
    from bitwright.hw_constraints.measure import measure_in_subprocess

    bench, asked = context.bench, context.recipe.measure
    runtimes = bench.runtimes(asked.runtimes)
    if not runtimes:
        wanted = ", ".join(bench.target.artifact.runtimes)
        return MeasureResult(threads=asked.threads, reason=f"none of the target's runtimes ({wanted}) is here")
    files = {name: (file, runtime) for runtime in runtimes for name, file in _files(context, runtime).items()}
    with context.console.track(f"measuring, at most {asked.seconds:g} s", None):
        measurement = measure_in_subprocess(
            files,
            threads=asked.threads,
            inputs=dict.fromkeys(files, inputs),
            min_rounds=asked.rounds,
            max_seconds=asked.seconds,
            seed=context.recipe.seed,
        )
    return _result(dict.fromkeys(runtimes, measurement), measurement.device.cpu_model)


def _on_device(context: Context, inputs: Arrays) -> MeasureResult:
    from bitwright.hw_constraints.transport import Device, measure_files_on
    from bitwright.hw_constraints.transport.runner.runtimes import IN_PROCESS

    asked, wanted = context.recipe.measure, context.bench.target.artifact.runtimes
    assert asked.on is not None
    measurements = {}
    with Device(asked.on) as device:
        there = device.hello()["runtimes"]
        readers = [name for name in wanted if name != "litert" and "version" in there.get(name, {})]
        for runtime in asked.runtimes or readers:
            files = _files(context, runtime)
            with context.console.track(f"measuring on {device.label}, at most {asked.seconds:g} s", None):
                measurements[runtime] = measure_files_on(
                    device,
                    files,
                    runtime=runtime,
                    threads=asked.threads,
                    inputs=dict.fromkeys(files, inputs) if runtime in IN_PROCESS else None,
                    say=context.console.say,
                    min_rounds=asked.rounds,
                    max_seconds=asked.seconds,
                    seed=context.recipe.seed,
                ).measurement
    if not measurements:
        reason = f"none of the target's runtimes ({', '.join(wanted)}) is on {device.label}"
        return MeasureResult(threads=asked.threads, reason=reason)
    machine = next(iter(measurements.values())).device
    return _result(measurements, f"{machine.cpu_model} ({device.label})")


def _files(context: Context, runtime: str) -> dict[str, Path]:
    files = {f"{network} {runtime}": context.file("quantize", f"{network}.onnx") for network in _NETWORKS}
    if "qat" in context.finished:
        files[f"{_TRAINED} {runtime}"] = context.file("qat", "qat.onnx")
    return files


def _result(measurements: Mapping[str, Measurement], device: str) -> MeasureResult:
    """What is told of measurements, by runtime; several runtimes may share one."""
    each = list({id(one): one for one in measurements.values()}.values())
    return MeasureResult(
        device=device,
        threads=each[0].threads,
        speeds=tuple(_speed(measurement, runtime) for runtime, measurement in measurements.items()),
        load=(each[0].load_before, each[-1].load_after),
        converged=all(one.converged for one in each),
        disturbed_rounds=sum(one.disturbed_rounds for one in each),
    )


def _speed(measurement: Measurement, runtime: str) -> SpeedRow:
    float_name, quantized_name = (f"{network} {runtime}" for network in _NETWORKS)
    trained_name = f"{_TRAINED} {runtime}"
    quantized = measurement.latency(quantized_name)
    engine = f"{runtime} {quantized.versions.get(runtime, '')}".strip()
    is_trained = trained_name in measurement.times_us
    return SpeedRow(
        runtime=engine,
        float_latency=latency_figure(measurement.latency(float_name), engine),
        quantized_latency=latency_figure(quantized, engine),
        ratio=_ratio(measurement, quantized_name, float_name, engine),
        trained_latency=latency_figure(measurement.latency(trained_name), engine) if is_trained else None,
        trained_ratio=_ratio(measurement, trained_name, float_name, engine) if is_trained else None,
    )


def _ratio(measurement: Measurement, name: str, over: str, engine: str) -> Figure:
    found = measurement.ratio(name, over)
    return Figure(
        value=found.value,
        unit="1",
        origin="measured",
        low=found.low,
        high=found.high,
        n=found.rounds,
        source=f"{engine}, paired by round",
    )


def latency_figure(latency: Latency, engine: str) -> Figure:
    """Median with the quartiles' distance around it."""
    threads = f"{latency.threads} thread{'s' * (latency.threads > 1)}"
    source = f"{engine} on {latency.device.cpu_model}, {threads}; median, interquartile range"
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
    needs=("quantize", "qat"),
    reads=("target", "measure.on", "measure.runtimes", "measure.threads", "measure.rounds", "measure.seconds", "model",
           "data", "example_inputs"),
    code=(
        "bitwright.hw_constraints.measure", "bitwright.hw_constraints.backends", "bitwright.hw_constraints.transport",
    ),
    packages=("onnxruntime", "openvino"),
    reads_machine=True,
)  # fmt: skip
