"""A profile: the time of each layer, of what lies between layers, and of the whole; they add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bitwright.hw_constraints.machine import Machine
from bitwright.hw_constraints.proof.report import State


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """What one layer, with those that its kernels took in, takes.

    Attributes:
        name: for people, as in a proof: the tensor's reference in our own files.
        module: path of the user's module; empty in other files and for the network's own forward.
        source: the user's line, where the artefact says it.
        members: names of the other layers whose work the same kernels do.
        op: operator type in the file.
        state: what it ran in.
        kernel: the runtime's operator types.
        us: microseconds of one run.
        low: lower end of the 95 % interval; None below six slices.
        high: upper end.
        macs: multiply-accumulates.
        bytes: read and written by the layer at the width it ran in; 0 when shapes are not known.
        conversions_us: of changes of format or layout right before it, which `us` does not hold.
        modelled_us: by the target's cost model; None without one, or for a layer that it has no figure for.
        predicted_us: by a predictor that learnt from measured kernels.
        remark: where measured and modelled or predicted are far apart: by how much, and the facts that say why.
    """

    name: str
    module: str
    source: str
    members: tuple[str, ...]
    op: str
    state: State
    kernel: str
    us: float
    low: float | None = None
    high: float | None = None
    macs: int = 0
    bytes: int = 0
    conversions_us: float = 0.0
    modelled_us: float | None = None
    predicted_us: float | None = None
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Kernels of one type that no layer of the file asked for: changes of format or of memory layout.

    Attributes:
        op: the runtime's operator type.
        count: how many of them.
        us: microseconds of one run, all together.
    """

    op: str
    count: int
    us: float


@dataclass(frozen=True, kw_only=True)
class NetworkProfile:
    """Where the time of a network goes on one runtime.

    Attributes:
        file: its path.
        runtime: the runtime or tool.
        version: of it.
        settings: the runtime's options in force.
        machine: where it ran; None for a report from elsewhere.
        device: where that ran, as its report says.
        threads: of the runtime.
        origin: of the layers' times: `measured`, or `modelled` for a compiler's own report.
        wall_us: one run without the profiler, microseconds.
        wall_low: lower end of its 95 % interval; None below six slices.
        wall_high: upper end.
        layers: in the file's order.
        conversions: what lies between them.
        overhead_us: of the run, outside kernels: the runtime's own work and the call's.
        profiler_us: what the profiler adds to each kernel, which was taken off.
        slices: how often profiled and undisturbed runs took turns.
        copy_gb_s: bytes read and written by a plain copy on one processor of this machine, GB/s; None elsewhere.
        modelled_by: target and cost model of the modelled times; empty without.
        modelled_us: of the whole.
        is_same_device: whether the modelled device is the one that was measured; shares are compared otherwise.
        predicted_us: of the whole; None without a predictor.
        notes: what a reader of the figures must know.
    """

    file: str
    runtime: str
    version: str
    settings: Mapping[str, str]
    machine: Machine | None
    device: str
    threads: int
    origin: str
    wall_us: float
    wall_low: float | None
    wall_high: float | None
    layers: tuple[LayerTime, ...]
    conversions: tuple[Conversion, ...]
    overhead_us: float
    profiler_us: float
    slices: int
    copy_gb_s: float | None = None
    modelled_by: str = ""
    modelled_us: float | None = None
    is_same_device: bool = False
    predicted_us: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def layers_us(self) -> float:
        """Of all layers."""
        return sum(layer.us for layer in self.layers)

    @property
    def conversions_us(self) -> float:
        """Of all conversions."""
        return sum(each.us for each in self.conversions)

    @property
    def modules(self) -> dict[str, float]:
        """Microseconds by module, each with all that is below it; `` is the whole network's layers."""
        totals: dict[str, float] = {}
        for layer in self.layers:
            parts = layer.module.split(".") if layer.module else []
            for depth in range(len(parts) + 1):
                path = ".".join(parts[:depth])
                totals[path] = totals.get(path, 0.0) + layer.us
        return totals

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _NESTED}
        return {
            **fields,
            "settings": dict(self.settings),
            "machine": None if self.machine is None else self.machine.to_json(),
            "layers_us": self.layers_us,
            "conversions_us": self.conversions_us,
            "layers": [asdict(layer) for layer in self.layers],
            "conversions": [asdict(each) for each in self.conversions],
            "modules": self.modules,
            "notes": list(self.notes),
        }


_NESTED = frozenset({"settings", "machine", "layers", "conversions", "notes"})
