"""TensorRT: trtexec's `--exportLayerInfo` (detailed verbosity) and `--exportProfile`.

Layer info is what the engine inspector says (TensorRT Developer Guide, "Engine Inspector"): `Layers` with `Name`,
`LayerType`, `Inputs` and `Outputs` with their `Format/Datatype`, `Weights`, `TacticName`, and, since TensorRT 8.6, the
names of the ONNX nodes in `Metadata`. A profile is a list of `name`, `averageMs`, `medianMs`, behind a `count`.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.tools.base import UNSTATED, ToolReport
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError

_LAYERS, _PROFILE = "layer info", "profile"
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_COPY = re.compile(r"^Reformatting CopyNode for \w+ Tensor \d+ to ")
_FOREIGN = re.compile(r"^\{ForeignNode\[(.*)\.\.\.(.*)\]\}$")
_POINTWISE = re.compile(r"PWN\(|[()]")
_WORKS = re.compile(r"conv|gemm|matmul|matrixmultiply|fully", re.IGNORECASE)
_OPAQUE = "Myelin"  # a whole subgraph in one layer, whose inside the inspector does not show
# By words of `Format/Datatype`: "Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP16
# format", "Half", "FP8". The first that is found counts.
_PRECISIONS = (
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bfloat16"),
    (re.compile(r"fp8|float8", re.IGNORECASE), "fp8"),
    (re.compile(r"fp4|float4|int4", re.IGNORECASE), "int4"),
    (re.compile(r"u?int8", re.IGNORECASE), "int8"),
    (re.compile(r"fp16|half", re.IGNORECASE), "float16"),
    (re.compile(r"fp32|float", re.IGNORECASE), "float32"),
)


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
            layers: list[Mapping[str, Any]] = [{"Name": name} for name in times]
            notes = ["the profile alone does not say formats: give the file of --exportLayerInfo as well"]
        else:
            layers, notes = _layers(files[_LAYERS]), []
            if profile is not None:
                _check_together(files[_LAYERS], layers, profile, times)
            else:
                notes = ["the layer info has no times: give the file of --exportProfile as well"]
        return ToolReport(
            kernels=tuple(_kernel(layer, times) for layer in layers),
            executed=tuple(_executed(layer) for layer in layers),
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


def _layers(file: ReportFile) -> list[Mapping[str, Any]]:
    layers = file.json["Layers"]
    if any(isinstance(layer, str) for layer in layers):
        raise InputError(
            f"{file.path}: holds names only; build and export with --profilingVerbosity=detailed for their formats"
        )
    if not all(isinstance(layer, dict) and isinstance(layer.get("Name"), str) for layer in layers):
        raise InputError(f"{file.path}: an entry of 'Layers' has no 'Name'; expected trtexec's --exportLayerInfo")
    return list(layers)


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


def _check_together(
    file: ReportFile, layers: Iterable[Mapping[str, Any]], profile: ReportFile, times: Mapping[str, float]
) -> None:
    names = {layer["Name"] for layer in layers}
    strange = [name for name in times if name not in names]
    if len(strange) > len(times) / 2:
        raise InputError(
            f"{profile.path}: {len(strange)} of its {len(times)} layers are not in {file.path}, such as "
            f"{strange[0]!r}: export both from one engine"
        )


def _kernel(layer: Mapping[str, Any], times: Mapping[str, float]) -> KernelTime:
    return KernelTime(
        name=layer["Name"],
        op=_type(layer),
        time_us=times.get(layer["Name"], 0.0),
        provider=str(layer.get("TacticName", "")),
        precision=_precision(layer),
    )


def _type(layer: Mapping[str, Any]) -> str:
    return str(layer.get("LayerType", "Reformat" if _COPY.match(layer["Name"]) else ""))


def _precision(layer: Mapping[str, Any]) -> str:
    """What a layer computes in: what it multiplies for one with weights, else its largest real-valued operand."""
    inputs = [each for each in layer.get("Inputs", ()) if isinstance(each, dict)]
    typed = [(_volume(each), _format(each.get("Format/Datatype", ""))) for each in inputs]
    known = [(volume, name) for volume, name in typed if name]
    if not known or _type(layer) == _OPAQUE:
        return "other" if inputs and not known else UNSTATED
    if _WORKS.search(_type(layer)):
        return known[0][1]
    return max(known)[1]


def _format(text: str) -> str:
    return next((name for pattern, name in _PRECISIONS if pattern.search(text)), "")


def _volume(tensor: Mapping[str, Any]) -> int:
    sizes = tensor.get("Dimensions", ())
    return math.prod(abs(int(size)) for size in sizes) if isinstance(sizes, list) else 0


def _shape(layer: Mapping[str, Any]) -> tuple[int, ...]:
    outputs = [each for each in layer.get("Outputs", ()) if isinstance(each, dict)]
    sizes = outputs[0].get("Dimensions") if outputs else None
    return tuple(sizes) if isinstance(sizes, list) and all(isinstance(size, int) for size in sizes) else ()


def _executed(layer: Mapping[str, Any]) -> ExecutedNode:
    outputs = [each["Name"] for each in layer.get("Outputs", ()) if isinstance(each, dict) and "Name" in each]
    return ExecutedNode(
        name=layer["Name"],
        op=_type(layer),
        outputs=tuple(outputs),
        originals=tuple(_ONNX_LAYER.findall(str(layer.get("Metadata", "")))) or split_name(layer["Name"]),
    )


def split_name(name: str) -> tuple[str, ...]:
    """The ONNX names in a fused layer's name: `w + Conv_9 + PWN(Clip_13)` is `w`, `Conv_9`, `Clip_13`.

    `{ForeignNode[a...b]}` is everything from a to b; `Reformatting CopyNode … to x` changes x's operand.
    """
    name = _COPY.sub("", name)
    foreign = _FOREIGN.match(name)
    if foreign:
        return foreign.groups()
    parts = (part for piece in name.split(" + ") for part in _POINTWISE.sub("", piece).split(", "))
    return tuple(filter(None, (part.strip() for part in parts)))


TOOL = TensorRT()
