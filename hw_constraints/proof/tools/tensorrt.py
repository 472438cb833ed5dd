"""TensorRT: trtexec's `--exportLayerInfo` (detailed verbosity) and `--exportProfile`.

Layer info is what the engine inspector says (`backends.tensorrt_layers`). A profile is a list of `name`, `averageMs`
and `medianMs`, behind a `count`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from bitwright.hw_constraints.backends import KernelTime
from bitwright.hw_constraints.backends.tensorrt_layers import (
    Layer,
    check_layers,
    executed_node,
    layer_type,
    precision_of_layer,
)
from bitwright.hw_constraints.proof.tools.base import UNSTATED, ToolReport
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError

_LAYERS, _PROFILE = "layer info", "profile"


class TensorRT:
    """trtexec's exported JSON."""

    name = "tensorrt"
    title = "TensorRT"

    def role(self, file: ReportFile) -> str | None:
        """Layer info is an object with `Layers`, a profile a list that a `count` begins."""
        if isinstance(file.json, dict) and isinstance(file.json.get("Layers"), list):
            return _LAYERS
        if isinstance(file.json, list) and any(isinstance(e, dict) and "averageMs" in e for e in file.json):
            return _PROFILE
        return None

    def read(self, files: Mapping[str, ReportFile]) -> ToolReport:
        """Joins both by the layers' names; each alone says half of it."""
        profile = files.get(_PROFILE)
        times = _times(profile) if profile is not None else {}
        if _LAYERS not in files:
            layers: list[Layer] = [{"Name": name} for name in times]
            notes = ["the profile alone does not say formats: give the file of --exportLayerInfo as well"]
        else:
            layers, notes = _layers(files[_LAYERS]), []
            if profile is not None:
                _check_together(files[_LAYERS], layers, profile, times)
            else:
                notes = ["the layer info has no times: give the file of --exportProfile as well"]
        return ToolReport(
            kernels=tuple(_kernel(layer, times) for layer in layers),
            executed=tuple(executed_node(layer) for layer in layers),
            shapes={layer["Name"]: shape for layer in layers if (shape := _shape(layer))},
            notes=tuple(notes),
        )

    def how(self, model: Path) -> str:
        """Two runs of trtexec: profiling one of them slows it down, so the time of the whole comes from the other."""
        onnx, stem = shlex.quote(str(model)), shlex.quote(str(model.with_suffix("")))
        return (
            f"trtexec --onnx={onnx} --stronglyTyped --profilingVerbosity=detailed --saveEngine={stem}.engine "
            f"--skipInference\n"
            f"trtexec --loadEngine={stem}.engine --profilingVerbosity=detailed --separateProfileRun "
            f"--exportLayerInfo={stem}.layers.json --exportProfile={stem}.profile.json\n"
            f"bitwright prove {onnx} --from {stem}.layers.json --from {stem}.profile.json\n"
            "# TensorRT before 10: --best --precisionConstraints=obey in place of --stronglyTyped, "
            "--buildOnly in place of --skipInference"
        )


def _layers(file: ReportFile) -> list[Layer]:
    try:
        return check_layers(file.json["Layers"])
    except InputError as error:
        raise InputError(f"{file.path}: {error}; export with --profilingVerbosity=detailed") from error


def _times(file: ReportFile) -> dict[str, float]:
    """Microseconds a run by name; medians where TensorRT (8.5 and later) gives them, else means."""
    times: dict[str, float] = {}
    for position, entry in enumerate(file.json):
        if "name" not in entry:
            continue
        milliseconds = entry.get("medianMs", entry.get("averageMs"))
        if not isinstance(milliseconds, int | float):
            raise InputError(f"{file.path}: entry {position} ({entry['name']!r}) has no medianMs or averageMs")
        times[entry["name"]] = times.get(entry["name"], 0.0) + 1e3 * milliseconds
    return times


def _check_together(file: ReportFile, layers: Iterable[Layer], profile: ReportFile, times: Mapping[str, float]) -> None:
    names = {layer["Name"] for layer in layers}
    strange = [name for name in times if name not in names]
    if len(strange) > len(times) / 2:
        raise InputError(
            f"{profile.path}: {len(strange)} of its {len(times)} layers are not in {file.path}, such as "
            f"{strange[0]!r}: export both from one engine"
        )


def _kernel(layer: Layer, times: Mapping[str, float]) -> KernelTime:
    return KernelTime(
        name=layer["Name"],
        op=layer_type(layer),
        time_us=times.get(layer["Name"], 0.0),
        provider=str(layer.get("TacticName", "")),
        precision=precision_of_layer(layer) or UNSTATED,
    )


def _shape(layer: Layer) -> tuple[int, ...]:
    outputs = [each for each in layer.get("Outputs", ()) if isinstance(each, dict)]
    sizes = outputs[0].get("Dimensions") if outputs else None
    return tuple(sizes) if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes) else ()


TOOL = TensorRT()
