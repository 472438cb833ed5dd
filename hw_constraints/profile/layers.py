"""Profiles a file on a runtime here, or by the report of a tool that ran it elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.backends.blame import with_lines
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.measure.process import ask_worker
from bitwright.hw_constraints.profile.assemble import (
    LayerFigures,
    layers_of,
    scene_of,
    sources_of,
    with_expected,
)
from bitwright.hw_constraints.profile.conversions import by_type, conversions_before
from bitwright.hw_constraints.profile.expected import Expected, estimate_file, modelled
from bitwright.hw_constraints.profile.report import Conversion, NetworkProfile
from bitwright.hw_constraints.profile.slices import Slices
from bitwright.hw_constraints.proof.elsewhere import prove_from
from bitwright.hw_constraints.proof.judging import Judge, references_of
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph, read_onnx
from bitwright.hw_constraints.proof.own_process import OwnProcessBackend
from bitwright.hw_constraints.proof.probe import Prober
from bitwright.hw_constraints.proof.report import LayerProof
from bitwright.hw_constraints.proof.trace import Trace, join_kernels, tagged_model
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.errors import InputError

WORKER = "bitwright.hw_constraints.profile.worker"
FEWEST_SLICES = 6  # the fewest of which an interval can be had
Predict = Callable[[], Expected]


def profile_file(
    path: Path,
    runtime: str,
    *,
    threads: int = 1,
    seconds: float = 10.0,
    inputs: Arrays | None = None,
    target: Target | None = None,
    predict: Predict | None = None,
) -> NetworkProfile:
    """Times each layer of a file, and the whole without the profiler, in turns in one fresh process.

    Args:
        path: an ONNX file.
        runtime: a backend's name.
        threads: of the runtime.
        seconds: about so long, six turns at least.
        inputs: one batch; standard normal numbers when not given.
        target: gives modelled times; it has to serve cost.
        predict: gives predicted times of this file, runtime and thread count.

    Raises:
        InputError: a file, runtime, target or input is not usable.
        MissingExtraError: the runtime is not installed.
    """
    backend = get_backend(runtime)
    if "onnx" not in backend.reads:
        reads = ", ".join(backend.reads)
        raise InputError(f"runtime {runtime!r} reads {reads}: layers are profiled where a runtime reads ONNX files")
    version = backend.version()
    graph = read_onnx(path)
    expected = _expected(graph, path, target, predict)
    slices = _measured(graph, path, inputs, {"runtime": runtime, "threads": threads, "seconds": seconds})
    trace = join_kernels(graph, slices.kernels, slices.executed)
    prober = Prober(OwnProcessBackend(backend, path))
    proofs = Judge(graph, trace, references_of(path), lambda case, _: prober.reason(case)).layers()
    profile = NetworkProfile(
        file=str(path),
        runtime=runtime,
        version=version,
        settings=slices.settings,
        machine=this_machine(),
        device="",
        threads=threads,
        origin="measured",
        wall_us=slices.wall_us,
        wall_low=slices.wall[0],
        wall_high=slices.wall[1],
        layers=layers_of(graph, proofs, _figures(trace, proofs, slices), sources_of(path)),
        conversions=by_type(each for each in slices.kernels if each.name not in trace.anchors),
        overhead_us=slices.overhead_us,
        profiler_us=slices.profiler_us,
        slices=slices.count,
        copy_gb_s=slices.copy_gb_s,
        notes=slices.notes,
    )
    return _with_expectations(profile, proofs, expected, target, slices.overhead_us / max(1, len(slices.kernels)))


def _measured(graph: OnnxGraph, path: Path, inputs: Arrays | None, asked: dict[str, Any]) -> Slices:
    """Times of the file's kernels and runs; its nodes carry tags by which `join_kernels` finds them again."""
    with worker_files(tagged_model(graph), inputs, str(path)) as files:
        request = {**files, **asked, "kind": "layers", "name": str(path), "fewest_slices": FEWEST_SLICES}
        return Slices(ask_worker(WORKER, request, threads=asked["threads"]))


def profile_from(
    path: Path, reports: Sequence[Path], *, target: Target | None = None, predict: Predict | None = None
) -> NetworkProfile:
    """As `profile_file`, with the layers' times of another tool's report (`prove_from`).

    Raises:
        InputError: as `prove_from`, or the report has no times.
    """
    report = prove_from(path, reports)
    names = ", ".join(report.reports)
    if not report.total_us:
        raise InputError(f"{names}: has no times; `bitwright prove {path} --how {report.runtime}` says how to get them")
    graph = read_onnx(path)
    wall_us = report.wall_us or report.total_us
    scale = min(1.0, wall_us / report.total_us)
    figures = {each.name: LayerFigures(us=each.time_us * scale) for each in report.layers if each.folded_into is None}
    unjoined_us = sum(kernel.time_us for kernel in report.unjoined)
    between = (
        Conversion(op="between layers", count=0, us=report.conversion_time_share * report.total_us * scale),
        Conversion(op="belongs to no layer of the file", count=len(report.unjoined), us=unjoined_us * scale),
    )
    profile = NetworkProfile(
        file=str(path),
        runtime=report.runtime,
        version=report.version,
        settings=report.settings,
        machine=None,
        device=report.device,
        threads=0,
        origin=report.origin,
        wall_us=wall_us,
        wall_low=None,
        wall_high=None,
        layers=layers_of(graph, report.layers, figures, sources_of(path)),
        conversions=tuple(each for each in between if each.us),
        overhead_us=max(0.0, wall_us - report.total_us),
        profiler_us=0.0,
        slices=0,
        notes=(f"times are those of {names}", *report.warnings),
    )
    return _with_expectations(profile, report.layers, _expected(graph, path, target, predict), target, 0.0)


@contextmanager
def worker_files(model: onnx.ModelProto, inputs: Arrays | None, name: str) -> Iterator[dict[str, Any]]:
    """The model and its inputs in files, as the worker's requests name them; messages about the model say `name`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, file)
        request: dict[str, Any] = {"file": str(file)}
        if inputs is not None:
            np.savez(Path(folder) / "inputs.npz", **dict(inputs))  # type: ignore[arg-type]
            request["inputs"] = str(Path(folder) / "inputs.npz")
        try:
            yield request
        except InputError as error:
            raise with_lines(InputError(str(error).replace(str(file), name)), Path(name)) from error


def _figures(trace: Trace, proofs: Sequence[LayerProof], slices: Slices) -> dict[str, LayerFigures]:
    """Times of the layers that have kernels, by name."""
    before = conversions_before(slices.executed, slices.kernels, trace.anchors)
    found = {}
    for proof, (position, layer) in zip(proofs, trace.layers.items(), strict=True):
        if layer.folded_into is None:
            low, high = slices.interval((kernel.name for kernel in layer.kernels), layer.time_us)
            found[proof.name] = LayerFigures(
                us=layer.time_us, low=low, high=high, conversions_us=before.get(position, 0.0)
            )
    return found


def _expected(graph: OnnxGraph, path: Path, target: Target | None, predict: Predict | None) -> dict[str, Expected]:
    found = {}
    if target is not None:
        names = {name for node in graph.nodes for name in (node.name, *node.output)}
        found["modelled"] = modelled(estimate_file(path, target), names | set(references_of(path).values()))
    if predict is not None:
        found["predicted"] = predict()
    return found


def _with_expectations(
    profile: NetworkProfile,
    proofs: Sequence[LayerProof],
    expected: dict[str, Expected],
    target: Target | None,
    start_us: float,
) -> NetworkProfile:
    same = target is not None and _is_of(profile, target)
    if target is not None and same and not profile.device:
        note = f"the report does not say its device: it is taken to be {target.id}"
        profile = replace(profile, notes=(*profile.notes, note))
    for what, each in expected.items():
        is_absolute = what == "predicted" or same
        known = sum(op.us or 0.0 for op in each.ops)
        scale = 1.0 if is_absolute or not known else profile.layers_us / known
        scene = scene_of(profile.layers, scale=scale, start_us=start_us, copy_gb_s=profile.copy_gb_s, what=what)
        notes = (*profile.notes, *(f"{what}: {note}" for note in each.notes))
        profile = replace(profile, layers=with_expected(profile.layers, proofs, each, scene), notes=notes)
        if what == "modelled":
            profile = replace(profile, modelled_by=each.by, modelled_us=each.us, is_same_device=same)
        else:
            profile = replace(profile, predicted_us=each.us)
    return profile


def _is_of(profile: NetworkProfile, target: Target) -> bool:
    """Whether the times are of the target's own device, as far as anything says so."""
    if profile.device:
        return profile.device.lower().replace("_", "-") == target.id
    return profile.machine is None and profile.runtime in target.artifact.runtimes
