"""The proof: for each layer of a file what the runtime made of it, and the totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bitwright.hw_constraints.backends import KernelTime
from bitwright.hw_constraints.machine import Machine
from bitwright.hw_constraints.proof.probe import Reason
from bitwright.hw_constraints.proof.saturation import SaturationRisk, describe_risks

_COLUMNS = ("layer", "operator", "state", "kernel", "time", "MACs", "reason")
_SHOWN = 3
_ROUNDING = 1e-9  # of sums of shares


class State(StrEnum):
    """What a layer runs in."""

    INT8 = "int8"
    FP8 = "fp8"
    FLOAT = "float"
    FOLDED = "folded"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class LayerProof:
    """One layer of the file.

    Attributes:
        name: the layer's name for people: the tensor's reference in our own files, else the node's or the value's
            name.
        output: the name of its result in the file.
        ref: the `TensorRef` of its result, in files that we exported.
        op: operator type in the file.
        state: what it runs in; `folded` when another layer's kernel does its work; `fp8` where the kernel computes in
            fp8 or, with another `precision`, where the operands carry fp8 codes in the file and no more than that;
            `unknown` where another tool's report does not say.
        kernel: the runtime's operator types that do the work.
        precision: what these kernels compute in by the runtime's own trace.
        folded_into: the name of that other layer.
        file_format: code types of data and weight in the file, `float32` where it has none.
        time_us: median time of its kernels, microseconds.
        time_share: of all kernels.
        macs: multiply-accumulates; 0 for operators without.
        mac_share: of the convolutions' and linear layers' multiply-accumulates.
        is_weighted: whether it is a convolution or linear layer with a constant weight.
        reason: why it is not in int8.
    """

    name: str
    output: str
    ref: str | None
    op: str
    state: State
    kernel: str
    precision: str
    folded_into: str | None
    file_format: str
    time_us: float
    time_share: float
    macs: int
    mac_share: float
    is_weighted: bool
    reason: Reason | None


@dataclass(frozen=True, kw_only=True)
class ProofReport:
    """What one runtime on one machine makes of one file.

    Attributes:
        file: its path.
        runtime: the backend's name.
        version: the runtime's version.
        settings: the runtime's options in force.
        machine: where it ran; None for a report from elsewhere.
        layers: in the file's order.
        total_us: all kernels of one run, microseconds; 0 when a report from elsewhere has no times.
        saturation_risks: layers whose products may saturate on this machine with these settings, worst first.
        origin: `measured`, or `modelled` for a compiler's own estimate.
        device: where it ran as a report from elsewhere says, if it does.
        reports: the files of a report from elsewhere.
        wall_us: one run as that tool timed it, microseconds.
        unjoined: kernels of that report that no layer of the file could be found for.
        notes: what a reader of the figures must know.
    """

    file: str
    runtime: str
    version: str
    settings: dict[str, str]
    machine: Machine | None
    layers: tuple[LayerProof, ...]
    total_us: float
    saturation_risks: tuple[SaturationRisk, ...] = ()
    origin: str = "measured"
    device: str = ""
    reports: tuple[str, ...] = ()
    wall_us: float | None = None
    unjoined: tuple[KernelTime, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may make the results wrong here, or what a report from elsewhere leaves open, in words."""
        risks = (describe_risks(self.saturation_risks),) if self.saturation_risks else ()
        return (*risks, *((_describe_unjoined(self.unjoined, self.total_us),) if self.unjoined else ()), *self.notes)

    @property
    def int8_mac_share(self) -> float:
        """Share of the convolutions' and linear layers' multiply-accumulates that ran in int8."""
        return self._mac_share(State.INT8)

    @property
    def fp8_mac_share(self) -> float:
        """Share of them that carries fp8 codes in the file."""
        return self._mac_share(State.FP8)

    def _mac_share(self, state: State) -> float:
        weighted = [layer for layer in self.layers if layer.is_weighted]
        total = sum(layer.macs for layer in weighted)  # divided once: all of them are exactly 1
        return sum(layer.macs for layer in weighted if layer.state is state) / total if total else 0.0

    def time_share(self, state: State) -> float:
        """Share of the kernels' time in one state."""
        return sum(layer.time_share for layer in self.layers if layer.state is state)

    @property
    def conversion_time_share(self) -> float:
        """Share of the time that no layer accounts for: quantizing, dequantizing, changes of memory layout.

        What could not be joined with a layer is not known to be one of these, and is left out.
        """
        unjoined_us = sum(kernel.time_us for kernel in self.unjoined)
        known = sum(layer.time_share for layer in self.layers) + unjoined_us / (self.total_us or 1.0)
        return 1.0 - known if self.total_us and known < 1.0 - _ROUNDING else 0.0

    @property
    def is_fully_low_precision(self) -> bool:
        """Whether every convolution and linear layer runs in int8, or is fp8 in the file; false without any."""
        weighted = [layer for layer in self.layers if layer.is_weighted]
        return bool(weighted) and all(layer.state in (State.INT8, State.FP8) for layer in weighted)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "file": self.file,
            "runtime": self.runtime,
            "version": self.version,
            "settings": dict(self.settings),
            "machine": None if self.machine is None else self.machine.to_json(),
            "device": self.device,
            "reports": list(self.reports),
            "origin": self.origin,
            "total_us": self.total_us,
            "wall_us": self.wall_us,
            "int8_mac_share": self.int8_mac_share,
            "fp8_mac_share": self.fp8_mac_share,
            "int8_time_share": self.time_share(State.INT8),
            "float_time_share": self.time_share(State.FLOAT),
            "conversion_time_share": self.conversion_time_share,
            "layers": [asdict(layer) for layer in self.layers],
            "unjoined": [asdict(kernel) for kernel in self.unjoined],
            "saturation_risks": [asdict(risk) for risk in self.saturation_risks],
            "warnings": list(self.warnings),
        }

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Column heads and one row a layer, as text."""
        return _COLUMNS, [_row(layer) for layer in self.layers]

    def summary(self) -> str:
        """One line."""
        head = " ".join(filter(None, (self.runtime, self.version, f"on {self.device}" if self.device else "")))
        text = f"{head}: {self.int8_mac_share:.1%} of conv and linear MACs in int8"
        executed = any(layer.state is State.FP8 and layer.precision == "fp8" for layer in self.layers)
        times = f"{self.time_share(State.INT8):.0%} int8, {self.time_share(State.FLOAT):.0%} float"
        if self.fp8_mac_share:
            text += f", {self.fp8_mac_share:.1%} fp8"
            text += "" if executed else " in the file (not executed in fp8 by this runtime)"
            times += f", {self.time_share(State.FP8):.0%} fp8{'' if executed else ' computed in float'}"
        unknown = self._mac_share(State.UNKNOWN)
        if unknown:
            text += f", {unknown:.1%} not stated"
            times += f", {self.time_share(State.UNKNOWN):.0%} not stated"
        if not self.total_us:
            return f"{text}; no times in the report"
        kind = "time" if self.origin == "measured" else f"{self.origin} time"
        return f"{text}; {kind}: {times}, {self.conversion_time_share:.0%} conversions"


def format_table(report: ProofReport) -> str:
    """The report as plain text with aligned columns."""
    heads, rows = report.table()
    everything: Sequence[Sequence[str]] = [heads, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in everything]
    return "\n".join([*(line.rstrip() for line in lines), report.summary(), *report.warnings])


def _describe_unjoined(kernels: Sequence[KernelTime], total_us: float) -> str:
    share = sum(kernel.time_us for kernel in kernels) / total_us if total_us else 0.0
    names = ", ".join(kernel.name for kernel in kernels[:_SHOWN]) + (", …" if len(kernels) > _SHOWN else "")
    time = f" ({share:.1%} of the time)" if total_us else ""
    return f"{len(kernels)} of the report's kernels{time} belong to no layer of the file: {names}"


def _row(layer: LayerProof) -> tuple[str, ...]:
    state = f"in {layer.folded_into}" if layer.state is State.FOLDED else str(layer.state)
    macs = f"{layer.mac_share:.1%}" if layer.is_weighted else ""
    reason = "" if layer.reason is None else str(layer.reason)
    return (layer.name, layer.op, state, layer.kernel, f"{layer.time_share:.1%}", macs, reason)
