"""Qualcomm's QNN: the profile as CSV (qnn-profile-viewer, or ONNX Runtime's `profiling_file_path`), and NAME_net.json.

A detailed profile has an event for each operator of the graph with its cycles on the accelerator (identifier
`NAME:OpId_7 (cycles)`) below events for the whole (`Accelerator (execute) time` in microseconds, the same in cycles).
It does not say formats. The converter's NAME_net.json does: `graph.nodes` with the tensors that each reads, and
`graph.tensors` with their `data_type` (QnnTypes.h, `Qnn_DataType_t`).
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.tools.base import UNSTATED, ToolReport
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError

_PROFILE, _GRAPH = "profile", "converted graph"
_OPERATOR = re.compile(r"^(?P<name>.*):OpId_(?P<id>\d+)(?: \((?P<unit>cycles|us)\))?$")
# Of the whole on the accelerator, the first that is there: the second includes waiting for it.
_WHOLE_US = ("Accelerator (execute) time", "QNN accelerator (execute) time")
_WHOLE_CYCLES = ("Accelerator (execute) time (cycles)",)
_MICROSECONDS, _CYCLES = "US", "CYCLES"
# Qnn_DataType_t, QnnTypes.h: the kind in the upper byte, the width in decimal digits in the lower.
_PRECISION_OF = {
    **dict.fromkeys((0x0008, 0x0108, 0x0308, 0x0408), "int8"),
    **dict.fromkeys((0x0016, 0x0116, 0x0316, 0x0416), "int16"),
    0x0216: "float16",
    0x0232: "float32",
}


class Qnn:
    """QNN's detailed profile."""

    name = "qnn"
    title = "QNN"

    def role(self, file: ReportFile) -> str | None:
        """By the columns of the profile, or the tensors of the converter's graph."""
        if file.starts_table("Msg Timestamp", "Message", "Time", "Unit of Measurement"):
            return _PROFILE
        graph = file.json.get("graph") if isinstance(file.json, dict) else None
        return _GRAPH if isinstance(graph, dict) and {"nodes", "tensors"} <= set(graph) else None

    def read(self, files: Mapping[str, ReportFile]) -> ToolReport:
        """Medians over the profile's runs."""
        if _PROFILE not in files:
            raise InputError(
                f"{files[_GRAPH].path}: the converter's graph has no times: give the profile's CSV as well"
            )
        file = files[_PROFILE]
        rows = file.table("Msg Timestamp")
        unit, operators = _operators(file, rows)
        if not operators:
            raise InputError(f"{file.path}: has no operators; profile with --profiling_level detailed")
        unit_us, notes = _unit_us(file, rows, unit)
        precisions: dict[str, str] = {}
        originals: dict[str, tuple[str, ...]] = {}
        ops: dict[str, str] = {}
        if _GRAPH in files:
            precisions, originals, ops = _from_graph(files[_GRAPH])
        else:
            notes.append("a profile does not say formats: give the converter's NAME_net.json as well")
        sources = _sources(rows)
        kernels, executed = [], []
        for name, times in operators.items():
            op = ops.get(name, "")
            kernels.append(
                KernelTime(
                    name=name,
                    op=op,
                    time_us=median(times) * unit_us,
                    provider="accelerator",
                    precision=precisions.get(name, UNSTATED),
                )
            )
            executed.append(
                ExecutedNode(name=name, op=op, originals=sources.get(name, (name, *originals.get(name, ()))))
            )
        whole = _events(file, rows, _WHOLE_US, _MICROSECONDS)
        return ToolReport(
            kernels=tuple(kernels),
            executed=tuple(executed),
            wall_us=median(whole) if whole else None,
            notes=tuple(notes),
        )

    def how(self, model: Path) -> str:
        """With Qualcomm's SDK on the host and the context binary on the device."""
        onnx, stem = shlex.quote(str(model)), shlex.quote(str(model.with_suffix("")))
        return (
            f"qnn-onnx-converter --input_network {onnx} --output_path {stem}.cpp  # writes {stem}_net.json\n"
            f"qnn-net-run --retrieve_context {stem}.bin --backend libQnnHtp.so --input_list inputs.txt "
            f"--profiling_level detailed --output_dir {stem}-qnn\n"
            f"qnn-profile-viewer --input_log {stem}-qnn/qnn-profiling-data_0.log --output {stem}.profile.csv\n"
            f"bitwright prove {onnx} --from {stem}.profile.csv --from {stem}_net.json\n"
            "# with ONNX Runtime's QNN provider: profiling_level=detailed, profiling_file_path=FILE.profile.csv"
        )


def _operators(file: ReportFile, rows: list[dict[str, str]]) -> tuple[str, dict[str, list[float]]]:
    """The unit of the operators' times, and the times of each, one a run; cycles where a profile has both."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        match = _OPERATOR.match(row["Event Identifier"])
        if match and row["Event Level"] == "SUB-EVENT":
            found[row["Unit of Measurement"], match["name"]].append(_time(file, row))
    unit = _CYCLES if any(each == _CYCLES for each, _ in found) else _MICROSECONDS
    return unit, {name: times for (each, name), times in found.items() if each == unit}


def _unit_us(file: ReportFile, rows: list[dict[str, str]], unit: str) -> tuple[float, list[str]]:
    """Microseconds of one unit of the operators' times, by the whole's time in both units."""
    if unit == _MICROSECONDS:
        return 1.0, []
    whole_us, cycles = _events(file, rows, _WHOLE_US, _MICROSECONDS), _events(file, rows, _WHOLE_CYCLES, _CYCLES)
    notes = ["cycles of operators that ran side by side on HVX and HMX add up to more than the time of the whole"]
    if whole_us and cycles and median(cycles):
        return median(whole_us) / median(cycles), notes
    return 1.0, [*notes, "times are cycles: the profile has no time of the whole in microseconds"]


def _events(file: ReportFile, rows: list[dict[str, str]], identifiers: tuple[str, ...], unit: str) -> list[float]:
    """Times of the first event of these names that the profile has, one a run."""
    for identifier in identifiers:
        named = [row for row in rows if row["Event Identifier"] == identifier and row["Unit of Measurement"] == unit]
        if named:
            return [_time(file, row) for row in named]
    return []


def _sources(rows: list[dict[str, str]]) -> dict[str, tuple[str, ...]]:
    """ONNX operators of each event, where ONNX Runtime's provider wrote its column `ONNX Source Ops`."""
    found = {}
    for row in rows:
        match = _OPERATOR.match(row["Event Identifier"])
        names = tuple(filter(None, (name.strip() for name in row.get("ONNX Source Ops", "").split(";"))))
        if match and names:
            found[match["name"]] = names
    return found


def _from_graph(file: ReportFile) -> tuple[dict[str, str], dict[str, tuple[str, ...]], dict[str, str]]:
    """For each node its precision (of the tensor that it reads first), the tensors that it writes, and its type."""
    nodes: Mapping[str, Any] = file.json["graph"]["nodes"]
    tensors: Mapping[str, Any] = file.json["graph"]["tensors"]
    precisions = {
        name: _PRECISION_OF.get(tensors[node["input_names"][0]]["data_type"], "other")
        for name, node in nodes.items()
        if node["input_names"] and node["input_names"][0] in tensors
    }
    writes = {name: tuple(node["output_names"]) for name, node in nodes.items()}
    return precisions, writes, {name: str(node["type"]) for name, node in nodes.items()}


def _time(file: ReportFile, row: Mapping[str, str]) -> float:
    try:
        return float(row["Time"])
    except ValueError as error:
        event = row["Event Identifier"]
        raise InputError(f"{file.path}: event {event!r} has the time {row['Time']!r}; expected a number") from error


TOOL = Qnn()
