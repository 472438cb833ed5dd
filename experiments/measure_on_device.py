"""What `measure --on ADDRESS` does: the files go to a device, and what it measured comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.console import Console
from bitwright.experiments.model_commands import checked_names
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from bitwright.hw_constraints.transport import JobResult

# Without --runtime: those of the device's own runtimes that read the file, never a vendor's tool unasked.
_BY_SUFFIX = {".onnx": ("onnxruntime", "openvino"), ".tflite": ("litert",)}


def measure_on_device(
    files: Sequence[Path],
    address: str,
    asked: Sequence[str] | None,
    *,
    threads: int,
    seconds: float,
    console: Console,
) -> dict[str, JobResult]:
    """Times files against each other on each runtime of a device; the first file is the reference.

    Raises:
        InputError: a file is not there, the address is none, or the device cannot be used.
    """
    from bitwright.hw_constraints.transport import Device, measure_files_on

    names = checked_names(files, threads=threads, seconds=seconds)
    with Device(address) as device:
        runtimes = tuple(asked or _found(files, device.label, device.hello()["runtimes"]))
        return {
            runtime: measure_files_on(
                device,
                {name: Path(name) for name in names},
                runtime=runtime,
                threads=threads,
                max_seconds=seconds,
                say=console.say,
            )
            for runtime in runtimes
        }


def _found(files: Sequence[Path], device: str, there: Mapping[str, Mapping[str, str]]) -> list[str]:
    suffixes = sorted({each.suffix for each in files})
    able = _BY_SUFFIX.get(suffixes[0], ()) if len(suffixes) == 1 else ()
    if not able:
        raise InputError(f"{device}: no runtime is known for {' and '.join(suffixes)} files; name one with --runtime")
    usable = [name for name in able if "version" in there[name]]
    if not usable:
        raise InputError(f"{device}: {'; '.join(there[name]['missing'] for name in able)}")
    return usable


def to_json(result: JobResult) -> dict[str, Any]:
    """A result as plain values: the measurement, and where and how it was taken."""
    taken = {"job": result.job, "address": result.device, "conditions": dict(result.conditions)}
    return {**result.measurement.to_json(), **taken, "settings": dict(result.settings)}


def remarks(result: JobResult) -> Iterator[str]:
    """What else there is to say: where it was measured, its clocks and heat."""
    machine, after = result.measurement.device, result.conditions["after"]
    yield f"measured on {result.device}: {machine.cpu_model}, {machine.cores} cores"
    if after["clocks_mhz"]:
        yield "clocks: " + ", ".join(f"{name} {value:.0f} MHz" for name, value in after["clocks_mhz"].items())
    if after["temperatures_c"]:
        yield "temperatures: " + ", ".join(f"{name} {value:.0f} °C" for name, value in after["temperatures_c"].items())
    if result.conditions["waited_s"] >= 1:
        yield f"waited {result.conditions['waited_s']:.0f} s for it to cool"
    if result.throttled:
        yield f"throttled all the same: {'; '.join(result.throttled)}: these latencies are of a hot device"
