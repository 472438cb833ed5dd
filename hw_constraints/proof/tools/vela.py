"""Arm's Vela: `--verbose-performance`'s per-layer CSV, and the summary CSV, which has the clock.

What it writes is the compiler's own estimate for an Ethos-U, not a measurement. A layer goes by the name of the tensor
that it writes; operators that Vela merged into the one before have no cycles.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.tools.base import CODES, ToolReport
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError

_LAYERS, _SUMMARY = "per-layer estimate", "summary"
# Columns by version: 4 renamed the first and the third, 3 had no target.
_FIRST = ("Original Operator", "TFLite_operator", "TFLite Operator")
_NPU = "NPU"
_WHOLE_PERCENT = 99.0  # rounding included; the lines of a whole network add up to 100


class Vela:
    """Vela's performance report."""

    name = "vela"
    title = "Vela"

    def role(self, file: ReportFile) -> str | None:
        """By the columns."""
        if any(file.starts_table(first, "NNG Operator") for first in _FIRST):
            return _LAYERS
        return _SUMMARY if file.starts_table("experiment", "network", "accelerator_configuration") else None

    def read(self, files: Mapping[str, ReportFile]) -> ToolReport:
        """Cycles by layer; in microseconds when the summary is there."""
        if _LAYERS not in files:
            raise InputError(f"{files[_SUMMARY].path}: the summary has no layers: give the *_per-layer.csv as well")
        file = files[_LAYERS]
        first = next(each for each in _FIRST if file.starts_table(each, "NNG Operator"))
        rows = file.table(first)
        whole = sum(_number(file, row, "Network% (cycles)") for row in rows if row.get("Network% (cycles)"))
        if rows and "Network% (cycles)" in rows[0] and whole < _WHOLE_PERCENT:
            raise InputError(
                f"{file.path}: its layers take {whole:.0f} % of the cycles; it may be cut off: make it again"
            )
        summary = files[_SUMMARY].table("experiment")[0] if _SUMMARY in files else {}
        clock_mhz = _number(files[_SUMMARY], summary, "core_clock") / 1e6 if summary else 1.0
        kernels, executed = [], []
        for name, mine in _layers(rows):
            ops = " + ".join(row["NNG Operator"] for row in mine)
            on_npu = mine[0].get("Target", _NPU) == _NPU
            kernels.append(
                KernelTime(
                    name=name,
                    op=ops if on_npu else f"{ops} (CPU)",
                    time_us=sum(_number(file, row, "Op Cycles") for row in mine) / clock_mhz,
                    provider=mine[0].get("Target", _NPU),
                    precision=CODES,
                )
            )
            executed.append(ExecutedNode(name=name, op=kernels[-1].op, originals=(mine[0]["Name"],)))
        notes = ["Vela estimates cycles while it compiles; nothing was measured"]
        if not summary:
            notes.append("times are cycles: the clock is in the *_summary_*.csv, give it as well")
        on_host = [kernel.name for kernel in kernels if kernel.provider != _NPU]
        if on_host:
            notes.append(f"{len(on_host)} operators stay on the CPU and have no estimate: {', '.join(on_host[:3])}")
        return ToolReport(
            device=summary.get("accelerator_configuration", ""),
            origin="modelled",
            kernels=tuple(kernels),
            executed=tuple(executed),
            wall_us=1e6 * _number(files[_SUMMARY], summary, "inference_time") if summary else None,
            notes=tuple(notes),
        )

    def how(self, model: Path) -> str:
        """Vela reads TensorFlow Lite: a converter that keeps the values' names keeps the join."""
        stem = shlex.quote(str(model.with_suffix("")))
        return (
            f"vela {stem}.tflite --accelerator-config ethos-u65-512 --config Arm/vela.ini "
            "--system-config Ethos_U65_Client_Server --memory-mode Dedicated_Sram_384KB "
            f"--verbose-performance --output-dir {stem}-vela\n"
            f"bitwright prove {shlex.quote(str(model))} --from {stem}-vela/*_per-layer.csv "
            f"--from {stem}-vela/*_summary_*.csv\n"
            "# FILE.tflite: the same network as int8 TensorFlow Lite, its tensors named as the values of the ONNX file"
        )


def _layers(rows: Iterable[dict[str, str]]) -> list[tuple[str, list[dict[str, str]]]]:
    """Lines by layer, under names that are unique; one without cycles goes with the line before of the same name."""
    layers: list[tuple[str, list[dict[str, str]]]] = []
    for row in rows:
        if layers and layers[-1][1][0]["Name"] == row["Name"] and row["Op Cycles"] == "0":
            layers[-1][1].append(row)
            continue
        times = sum(mine[0]["Name"] == row["Name"] for _, mine in layers)
        layers.append((f"{row['Name']} #{times + 1}" if times else row["Name"], [row]))
    return layers


def _number(file: ReportFile, row: Mapping[str, str], column: str) -> float:
    text = row.get(column, "")
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"{file.path}: {column} = {text!r} at {row.get('Name', 'its line')!r}; expected a number"
        ) from error


TOOL = Vela()
