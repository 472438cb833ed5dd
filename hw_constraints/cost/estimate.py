"""How long a lowered network takes, layer by layer, and what it moves: the same form from every cost model.

`cost/models/NAME.py` is one model; which one a target asks for stands in its file (`cost.model`). A number here is
always modelled, never measured; what the model leans on without proof is listed with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from bitwright.hw_constraints.lower.program import LoweredGraph, LoweredOp, Traffic
from bitwright.hw_constraints.target_types import Capability, UnverifiedField

MODELLED = "modelled"


@dataclass(frozen=True, kw_only=True)
class LayerEstimate:
    """What one operation takes.

    Attributes:
        name: of the operation in the lowered program.
        engine: who runs it.
        us: from its start to the next one's, microseconds; None where no figure says it (an operation on the host).
        compute_us: of the engine alone.
        transfer_us: of the memory that is busiest.
        hidden_us: what of its transfers runs while the operation before it computes.
        cycles: `us` in cycles of the engine's clock, where there is one.
        macs: multiply-accumulates.
        utilisation: of the engine's multipliers while it runs, 0 to 1; None without multiplications or figures.
        traffic: bytes by memory.
        bound_by: `compute`, the name of a memory, `launch`, or why there is no figure.
        energy_uj: microjoules, where the target gives energies.
    """

    name: str
    engine: str
    us: float | None
    compute_us: float = 0.0
    transfer_us: float = 0.0
    hidden_us: float = 0.0
    cycles: float | None = None
    macs: int = 0
    utilisation: float | None = None
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    bound_by: str = "compute"
    energy_uj: float | None = None


@dataclass(frozen=True, kw_only=True)
class LatencyEstimate:
    """What a network takes.

    Attributes:
        model: the cost model's name.
        lowered: what was reckoned.
        layers: in the order in which they run.
        peak_bytes: by memory, as the lowered program places its buffers.
        model_peak_bytes: by memory, as the schedule takes it that the cost model itself reckons with; empty for a model
            that takes the program's.
        unverified: statements of the target that the figures lean on and nobody has checked.
        assumptions: what the model had to assume, in words.
        origin: where the numbers come from.
    """

    model: str
    lowered: LoweredGraph
    layers: tuple[LayerEstimate, ...]
    peak_bytes: Mapping[str, int]
    model_peak_bytes: Mapping[str, int] = field(default_factory=dict)
    unverified: tuple[UnverifiedField, ...] = ()
    assumptions: tuple[str, ...] = ()
    origin: str = MODELLED

    @property
    def us(self) -> float:
        """Of all layers that have a figure, microseconds."""
        return sum(layer.us or 0.0 for layer in self.layers)

    @property
    def cycles(self) -> float | None:
        """Of all layers, where each has them."""
        known = [layer.cycles for layer in self.layers if layer.us is not None]
        return None if None in known else sum(cycles or 0.0 for cycles in known)

    @property
    def not_modelled(self) -> tuple[LayerEstimate, ...]:
        """The layers without a figure; the total is a lower bound when there are any."""
        return tuple(layer for layer in self.layers if layer.us is None)

    @property
    def energy_uj(self) -> float | None:
        """Microjoules, where every layer has them."""
        known = [layer.energy_uj for layer in self.layers if layer.us is not None]
        return None if not known or None in known else sum(energy or 0.0 for energy in known)

    @cached_property
    def traffic(self) -> dict[str, Traffic]:
        """Bytes by memory."""
        total: dict[str, Traffic] = {}
        for layer in self.layers:
            for memory, each in layer.traffic.items():
                before = total.get(memory, Traffic())
                total[memory] = Traffic(before.read + each.read, before.written + each.written)
        return total

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "target": self.lowered.target.id,
            "model": self.model,
            "origin": self.origin,
            "us": self.us,
            "cycles": self.cycles,
            "energy_uj": self.energy_uj,
            "peak_bytes": dict(self.peak_bytes),
            "model_peak_bytes": dict(self.model_peak_bytes),
            "constant_bytes": dict(self.lowered.memory.constant_bytes),
            "traffic": {name: {"read": each.read, "written": each.written} for name, each in self.traffic.items()},
            "not_modelled": [layer.name for layer in self.not_modelled],
            "unverified": [str(each) for each in self.unverified],
            "assumptions": list(self.assumptions),
            "layers": [_layer_json(self.lowered.by_name[layer.name], layer) for layer in self.layers],
        }


def _layer_json(op: LoweredOp, layer: LayerEstimate) -> dict[str, Any]:
    return {
        "name": layer.name,
        "operators": [node.op for node in op.block.nodes] or [op.block.op],
        "module": op.block.module_path,
        "source": str(op.block.source) if op.block.source else None,
        "writes": [str(ref) for ref in op.block.writes],
        "engine": layer.engine,
        "partition": op.block.partition,
        "tiles": op.tiling.tiles if op.tiling else None,
        "us": layer.us,
        "compute_us": layer.compute_us,
        "transfer_us": layer.transfer_us,
        "cycles": layer.cycles,
        "macs": layer.macs,
        "utilisation": layer.utilisation,
        "bound_by": layer.bound_by,
        "energy_uj": layer.energy_uj,
        "traffic": {name: {"read": each.read, "written": each.written} for name, each in layer.traffic.items()},
        "reasons": [str(reason) for reason in op.reasons],
    }


class Reckoning(NamedTuple):
    """What a cost model answers.

    Attributes:
        layers: in the order in which they run.
        assumptions: what had to be assumed, in words.
        peak_bytes: by memory, where the model has a schedule of its own.
    """

    layers: tuple[LayerEstimate, ...]
    assumptions: tuple[str, ...]
    peak_bytes: Mapping[str, int] = {}


class CostModel(Protocol):
    """What a module of `cost/models` offers as `estimate`."""

    def __call__(self, lowered: LoweredGraph) -> Reckoning:
        """The layers and what comes with them."""
        ...


def estimate(lowered: LoweredGraph) -> LatencyEstimate:
    """Reckons a lowered network by the model that its target asks for.

    Raises:
        InputError: the target's file does not say enough; the missing figures are named.
    """
    target = lowered.target
    target.require(Capability.COST)
    assert target.cost is not None  # part of the capability
    model: CostModel = importlib.import_module(f"bitwright.hw_constraints.cost.models.{target.cost.kind}").estimate
    reckoned = model(lowered)
    return LatencyEstimate(
        model=target.cost.kind,
        lowered=lowered,
        layers=reckoned.layers,
        peak_bytes=lowered.memory.peak_bytes,
        model_peak_bytes=reckoned.peak_bytes,
        unverified=leaned_on(lowered),
        assumptions=reckoned.assumptions,
    )


def leaned_on(lowered: LoweredGraph) -> tuple[UnverifiedField, ...]:
    """The unverified statements of the target that a lowering of this network rests on."""
    return lowered.target.leaned_on({node.op for op in lowered.ops for node in op.block.nodes})
