"""Latency that can be compared across a whole search, though candidates are measured minutes or days apart.

Every candidate is timed interleaved with one fixed reference artefact; what counts is the paired ratio, times the
reference's latency when the study began. The machine's moods cancel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.measure import Measurement, measure_in_subprocess
from bitwright.nas.result import replace_file
from bitwright.nas.workload import Workload
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import QuantPlan

# The ratio's 95 % interval gets as narrow as 2 %, if the time allows: candidates closer than that are equally fast.
_EFFORT: Mapping[str, float] = {"min_rounds": 20, "max_seconds": 3.0, "target_half_width": 0.02}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The fixed artefact: the user's own network in float.

    Attributes:
        artifact: its file.
        runtime: the backend that runs it and all candidates.
        latency_ms: its median when the study began.
        threads: of the runtime.
        device: the machine; figures of two machines do not mix.
    """

    artifact: Path
    runtime: str
    latency_ms: float
    threads: int
    device: str


def timed_runtimes(workloads: Iterable[Workload]) -> tuple[str, ...]:
    """Runtimes that run the artefacts of these on this machine, each once."""
    return tuple(dict.fromkeys(each.runtime for each in workloads if each.runtime is not None))


def device_name(*runtimes: str) -> str:
    """The machine and the runtimes, as far as latencies depend on them."""
    machine = this_machine()
    versions = " and ".join(f"{each} {get_backend(each).version()}" for each in runtimes)
    return f"{machine.cpu_model} ({', '.join(sorted(machine.isa))}), {versions}"


def open_reference(workload: Workload, runtime: str, folder: Path, *, threads: int) -> Reference:
    """The study's reference on a runtime; made and measured when the study begins, found again later."""
    record, artifact = (folder / f"reference-{runtime}.{kind}" for kind in ("json", "onnx"))
    if record.exists():
        return Reference(artifact=artifact, **json.loads(record.read_text(encoding="utf-8")))
    model = workload.build({})
    export_float(fold_batch_norm(capture(model, workload.example(model))).graph, artifact)
    measured = measure_in_subprocess({"reference": (artifact, runtime)}, threads=threads, inputs=None, **_EFFORT)
    reference = Reference(
        artifact=artifact,
        runtime=runtime,
        latency_ms=measured.latency("reference").median_us / 1e3,
        threads=threads,
        device=device_name(runtime),
    )
    content = {key: value for key, value in asdict(reference).items() if key != "artifact"}
    replace_file(record, json.dumps(content, indent=1).encode() + b"\n")
    return reference


@dataclass(frozen=True, kw_only=True)
class ComparableLatency:
    """Milliseconds at the study's beginning: ratio to the reference times its latency, with the 95 % interval."""

    latency_ms: float
    low_ms: float
    high_ms: float


def measure_against(reference: Reference, artifacts: Mapping[str, Path]) -> dict[str, ComparableLatency]:
    """Times artefacts interleaved with the reference, in the same rounds.

    Args:
        reference: names the runtime.
        artifacts: by any name.

    Raises:
        InputError: the runtime does not accept an artefact.
    """
    candidates = {f"candidate {name}": path for name, path in artifacts.items()}
    files = {name: (path, reference.runtime) for name, path in {"reference": reference.artifact, **candidates}.items()}
    effort = {**_EFFORT, "max_seconds": _EFFORT["max_seconds"] * len(artifacts)}
    measured: Measurement = measure_in_subprocess(files, threads=reference.threads, inputs=None, **effort)
    scale, found = reference.latency_ms, {}
    for name, candidate in zip(artifacts, candidates, strict=True):
        ratio = measured.ratio(candidate, "reference")
        found[name] = ComparableLatency(
            latency_ms=ratio.value * scale, low_ms=ratio.low * scale, high_ms=ratio.high * scale
        )
    return found


PredictLatency = Callable[[Graph, QuantPlan], ComparableLatency]


def predicted_latency(table: Path) -> PredictLatency:
    """Latency of a candidate before it is trained or exported, from a table of measured kernels.

    Args:
        table: of the device, runtime and threads that the search is for.

    Returns:
        What takes a network and its plan and says its latency with the 90 % interval.

    Raises:
        InputError: the table is missing, damaged or empty; later, a candidate that cannot be split into kernels.
    """
    from bitwright.hw_constraints.predict.from_table import load_predictor
    from bitwright.hw_constraints.predict.planned_model import planned_model

    predictor = load_predictor(table)

    def latency(graph: Graph, plan: QuantPlan) -> ComparableLatency:
        found = predictor.network(predictor.split(planned_model(graph, plan)))
        return ComparableLatency(latency_ms=found.us / 1e3, low_ms=found.low / 1e3, high_ms=found.high / 1e3)

    return latency
