"""OpenVINO's benchmark_app: its counters (`-report_type detailed_counters`, CSV or JSON) and `-exec_graph_path`.

The counters name a kernel's type, its implementation with the precision at the end (`brgconv_avx512_1x1_I8`) and its
time; the execution graph names the layers of the model that went into it (`originalLayersNames`).
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.tools.base import UNSTATED, ToolReport
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError

_COUNTERS, _GRAPH = "counters", "execution graph"
_SUFFIX = re.compile(r"_([A-Za-z]+\d*)$")
_PRECISION_OF = {
    **dict.fromkeys(("i8", "u8"), "int8"),
    **dict.fromkeys(("i16", "u16"), "int16"),
    **dict.fromkeys(("f8e4m3", "f8e5m2"), "fp8"),
    **dict.fromkeys(("f32", "fp32"), "float32"),
    **dict.fromkeys(("f16", "fp16"), "float16"),
    "bf16": "bfloat16",
    **dict.fromkeys(("i32", "i64", "boolean"), "other"),
}
_WEIGHTED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})  # scales are real-valued operands
_NOT_EXECUTED = frozenset({"Parameter", "Result", "Constant", "Input", "Output", "Const"})
_FUSED = "undef"  # the implementation of a layer that another one took in
_RESOLUTION_US = 1.0  # both files are written in whole microseconds
_COARSE = 0.05  # of the time of a run that rounding may hide before it is said


class _Counter(NamedTuple):
    name: str
    op: str
    implementation: str
    us: float


class OpenVINO:
    """benchmark_app's files."""

    name = "openvino"
    title = "OpenVINO"

    def role(self, file: ReportFile) -> str | None:
        """By the heading of the counters, their JSON, or the attributes of an execution graph."""
        if file.starts_table("layerName", "execStatus", "layerType", "execType"):
            return _COUNTERS
        if isinstance(file.json, dict) and {"detailed_performance", "avg_performance"} & set(file.json):
            return _COUNTERS
        if file.xml is not None and file.xml.tag == "net" and file.xml.find(".//data[@execOrder]") is not None:
            return _GRAPH
        return None

    def read(self, files: Mapping[str, ReportFile]) -> ToolReport:
        """Times from the counters, names from the graph; either alone serves as well."""
        counted = _counters(files[_COUNTERS]) if _COUNTERS in files else None
        graph = files.get(_GRAPH)
        notes = []
        if graph is not None:
            kernels, executed = _from_graph(graph, counted)
        else:
            assert counted is not None  # one of the two roles was found
            counted = [each for each in counted if each.implementation != _FUSED]
            kernels = tuple(_kernel(each) for each in counted)
            executed = tuple(ExecutedNode(name=each.name, op=each.op) for each in counted)
            notes.append("without the execution graph (-exec_graph_path) layers that were fused are found by name only")
        run = [kernel for kernel in kernels if kernel.op not in _NOT_EXECUTED]
        total = sum(kernel.time_us for kernel in run)
        hidden = _RESOLUTION_US / 2 * len(run)
        if total and hidden > _COARSE * total:
            notes.append(
                f"OpenVINO writes whole microseconds: of {total:.0f} µs in {len(run)} kernels "
                f"up to {hidden:.0f} µs are rounding"
            )
        names = {kernel.name for kernel in run}
        return ToolReport(
            kernels=tuple(run),
            executed=tuple(node for node in executed if node.name in names),
            shapes=_shapes(graph) if graph is not None else {},
            notes=tuple(notes),
        )

    def how(self, model: Path) -> str:
        """One thread and one stream, so that times of kernels are not those of their neighbours."""
        onnx, folder = shlex.quote(str(model)), shlex.quote(str(model.with_suffix("")))
        return (
            f"benchmark_app -m {onnx} -d CPU -api sync -hint none -nstreams 1 -nthreads 1 -niter 200 -pc "
            f"-report_type detailed_counters -report_folder {folder}-openvino "
            f"-exec_graph_path {folder}-openvino/execution.xml\n"
            f"bitwright prove {onnx} --from {folder}-openvino/benchmark_detailed_counters_report.csv "
            f"--from {folder}-openvino/execution.xml"
        )


def _counters(file: ReportFile) -> list[_Counter]:
    """One entry a kernel in order; where runs are written one by one, medians over them."""
    rows = _json_rows(file) if file.json is not None else _csv_rows(file)
    times: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, tuple[str, str]] = {}
    for name, op, implementation, us in rows:
        times[name].append(us)
        facts.setdefault(name, (op, implementation))
    return [_Counter(name, *facts[name], median(each)) for name, each in times.items()]


def _csv_rows(file: ReportFile) -> list[_Counter]:
    column = next(name for row in file.rows for name in row if name.startswith("realTime"))
    table = file.table("layerName")
    if not any(row["layerName"] == "Total" for row in table[-1:]):
        raise InputError(f"{file.path}: does not end with a line 'Total'; it may be cut off: make it again")
    rows = [row for row in table if row["layerName"] != "Total" and row["execType"]]
    return [
        _Counter(
            row["layerName"], row["layerType"], row["execType"], _microseconds(file, row["layerName"], row[column])
        )
        for row in rows
    ]


def _json_rows(file: ReportFile) -> list[_Counter]:
    runs = file.json.get("detailed_performance") or [file.json["avg_performance"]]
    return [
        _Counter(
            node["name"], node["node_type"], node["exec_type"], _microseconds(file, node["name"], node["real_time"])
        )
        for run in runs
        for node in run["nodes"]
    ]


def _microseconds(file: ReportFile, name: str, milliseconds: str) -> float:
    try:
        return 1e3 * float(milliseconds)
    except ValueError as error:
        raise InputError(f"{file.path}: layer {name!r} has the time {milliseconds!r}; expected milliseconds") from error


def _kernel(counter: _Counter) -> KernelTime:
    return KernelTime(
        name=counter.name,
        op=counter.op,
        time_us=counter.us,
        provider=f"CPU {counter.implementation}",
        precision=_precision_of_implementation(counter.implementation),
    )


def _precision_of_implementation(text: str) -> str:
    """`brgconv_avx512_dw_I8` computes in int8; `undef` and such do not say."""
    suffix = _SUFFIX.search(text)
    return _PRECISION_OF.get(suffix[1].lower(), UNSTATED) if suffix else UNSTATED


def _from_graph(
    file: ReportFile, counted: Sequence[_Counter] | None
) -> tuple[tuple[KernelTime, ...], tuple[ExecutedNode, ...]]:
    times = {each.name: each.us for each in counted} if counted is not None else None
    kernels, executed = [], []
    for layer in _graph_layers(file):
        name, data = layer.attrib["name"], _data(layer)
        clock = data.get("execTimeMcs", "")
        own = float(clock) if clock.replace(".", "").isdigit() else 0.0
        kernels.append(
            KernelTime(
                name=name,
                op=layer.attrib["type"],
                time_us=own if times is None else times.get(name, 0.0),
                provider=f"CPU {data.get('primitiveType', '')}",
                precision=_graph_precision(file, layer),
            )
        )
        originals = tuple(filter(None, data.get("originalLayersNames", "").split(",")))
        executed.append(ExecutedNode(name=name, op=layer.attrib["type"], originals=originals))
    if times is not None and not set(times) & {kernel.name for kernel in kernels}:
        raise InputError(f"{file.path}: has none of the counters' layers; write both in one run of benchmark_app")
    return tuple(kernels), tuple(executed)


def _graph_precision(file: ReportFile, layer: ElementTree.Element) -> str:
    """`runtimePrecision`, which is that of the first operand, unless another operand is real-valued data."""
    stated = _PRECISION_OF.get(_data(layer).get("runtimePrecision", "").lower(), UNSTATED)
    if stated != "int8" or layer.attrib["type"] in _WEIGHTED:
        return stated
    assert file.xml is not None  # by its role
    constants = {each.attrib["id"] for each in file.xml.iterfind("./layers/layer") if each.attrib["type"] == "Const"}
    edges = file.xml.iterfind(f"./edges/edge[@to-layer='{layer.attrib['id']}']")
    data = {edge.attrib["to-port"] for edge in edges if edge.attrib["from-layer"] not in constants}
    ports = (port for port in layer.iterfind("./input/port") if port.attrib["id"] in data)
    kinds = [_PRECISION_OF.get(port.attrib.get("precision", "").lower(), "other") for port in ports]
    return next((kind for kind in kinds if kind.startswith(("float", "bfloat"))), stated)


def _graph_layers(file: ReportFile) -> list[ElementTree.Element]:
    assert file.xml is not None  # by its role
    return [layer for layer in file.xml.iterfind("./layers/layer") if layer.attrib.get("type") not in _NOT_EXECUTED]


def _data(layer: ElementTree.Element) -> Mapping[str, str]:
    data = layer.find("data")
    return data.attrib if data is not None else {}


def _shapes(file: ReportFile) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for layer in _graph_layers(file):
        port = layer.find("./output/port")
        if port is not None:
            shapes[layer.attrib["name"]] = tuple(int(dim.text or 0) for dim in port.iterfind("dim"))
    return shapes


TOOL = OpenVINO()
