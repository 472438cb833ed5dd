"""What one more MiB or GB/s would buy: networks lowered and reckoned again with single figures of the target changed.

Each axis is varied by itself, everything else as the target's file says; several networks count by their weights. All
numbers are modelled, by the cost model that the target asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitwright.hw_constraints.cost.estimate import LatencyEstimate, LayerEstimate, estimate
from bitwright.hw_constraints.explore_axes import Axis, Setting
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A network and how much it counts.

    Attributes:
        name: for tables.
        graphs: the network, or its regions one after the other.
        weight: how often it runs for one run of the others.
    """

    name: str
    graphs: tuple[Graph, ...]
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """Every network at one setting.

    Attributes:
        setting: what was changed.
        us: microseconds of each network.
        total_us: of all, each times its weight.
        refused: why a network cannot be lowered there; empty when all can.
    """

    setting: Setting
    us: Mapping[str, float]
    total_us: float
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One axis from end to end."""

    axis: Axis
    points: tuple[Point, ...]

    @property
    def own(self) -> Point:
        """As the target's file says."""
        return next(point for point in self.points if point.setting.is_own)

    def change(self, point: Point) -> float | None:
        """How much longer a point takes than the target as it is, as a share; None where it was refused."""
        return None if point.refused or not self.own.total_us else point.total_us / self.own.total_us - 1


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """A layer that takes much of the time, and what would help it.

    Attributes:
        network: its network.
        layer: its name.
        module: the module that it belongs to; "" for none.
        source: the user's line, as text.
        us: microseconds of one run.
        share: of all networks' weighted time.
        bound_by: what it waits for.
        remedy: the axis at whose upper end the layer gains most; "" when none helps it.
        gain: the share of the layer's time that it then saves.
    """

    network: str
    layer: str
    module: str
    source: str
    us: float
    share: float
    bound_by: str
    remedy: str
    gain: float


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """All sweeps, and the layers that hold the networks back on the target as it is.

    Attributes:
        target: as its file says.
        workloads: what ran, by name, with weights.
        sweeps: one for each axis.
        held_back: the longest layers first.
        not_modelled: layers without a figure, which no total includes.
        unverified: statements of the target that the figures lean on and nobody has checked.
        assumptions: what the cost model had to assume.
    """

    target: Target
    workloads: Mapping[str, float]
    sweeps: tuple[Sweep, ...]
    held_back: tuple[HeldBack, ...]
    not_modelled: tuple[str, ...]
    unverified: tuple[str, ...]
    assumptions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "target": self.target.id,
            "origin": "modelled",
            "workloads": dict(self.workloads),
            "sweeps": [
                {
                    "axis": sweep.axis.name,
                    "points": [
                        {
                            "setting": point.setting.text,
                            "own": point.setting.is_own,
                            "us": dict(point.us),
                            "total_us": point.total_us,
                            "change": sweep.change(point),
                            "refused": point.refused or None,
                        }
                        for point in sweep.points
                    ],
                }
                for sweep in self.sweeps
            ],
            "held_back": [vars(each) for each in self.held_back],
            "not_modelled": list(self.not_modelled),
            "unverified": list(self.unverified),
            "assumptions": list(self.assumptions),
        }


def explore(
    workloads: Sequence[Workload],
    target: Target,
    axes: Sequence[Axis],
    *,
    longest: int = 10,
    on_point: Callable[[str], None] = lambda text: None,
) -> Exploration:
    """Varies figures of a target one by one.

    Args:
        workloads: networks with static shapes.
        target: serves `cost`.
        axes: what is varied; read for this target.
        longest: how many layers to name.
        on_point: told about each point before it is reckoned.

    Raises:
        InputError: the target as it is does not serve the networks.
    """
    own = {workload.name: _estimates(workload, target) for workload in workloads}
    sweeps, ends = [], {}
    for axis in axes:
        points = []
        for setting in axis.settings:
            on_point(f"{axis.name} = {setting.text}")
            estimates, refused = (own, "") if setting.is_own else _reckoned(workloads, setting.target)
            points.append(_point(setting, workloads, estimates, refused))
            if setting is axis.settings[-1] and not refused:
                ends[axis.name] = estimates
        sweeps.append(Sweep(axis=axis, points=tuple(points)))
    everything = [each for estimates in own.values() for each in estimates]
    return Exploration(
        target=target,
        workloads={workload.name: workload.weight for workload in workloads},
        sweeps=tuple(sweeps),
        held_back=tuple(_held_back(workloads, own, ends)[:longest]),
        not_modelled=tuple(layer.name for each in everything for layer in each.not_modelled),
        unverified=tuple(dict.fromkeys(str(field) for each in everything for field in each.unverified)),
        assumptions=tuple(dict.fromkeys(text for each in everything for text in each.assumptions)),
    )


Estimates = Mapping[str, Sequence[LatencyEstimate]]


def _estimates(workload: Workload, target: Target) -> list[LatencyEstimate]:
    return [estimate(lower(graph, target)) for graph in workload.graphs]


def _reckoned(workloads: Sequence[Workload], target: Target) -> tuple[Estimates, str]:
    """Every network, or why one cannot be lowered: a memory may be too small for its tiles."""
    try:
        return {workload.name: _estimates(workload, target) for workload in workloads}, ""
    except InputError as error:
        return {}, str(error)


def _point(setting: Setting, workloads: Sequence[Workload], estimates: Estimates, refused: str) -> Point:
    us = {name: sum(each.us for each in of_network) for name, of_network in estimates.items()}
    total = sum(workload.weight * us.get(workload.name, 0.0) for workload in workloads)
    return Point(setting=setting, us=us, total_us=total, refused=refused)


def _held_back(workloads: Sequence[Workload], own: Estimates, ends: Mapping[str, Estimates]) -> list[HeldBack]:
    """All layers, those with the largest share of the weighted time first."""
    total = sum(workload.weight * each.us for workload in workloads for each in own[workload.name]) or 1.0
    better = {axis: _layers(estimates) for axis, estimates in ends.items()}
    found = []
    for workload in workloads:
        for part, each in enumerate(own[workload.name]):
            for layer in each.layers:
                if not layer.us:
                    continue
                gains = {
                    axis: 1 - (layers[key].us or 0.0) / layer.us
                    for axis, layers in better.items()
                    if (key := (workload.name, part, layer.name)) in layers
                }
                remedy = max(gains, key=lambda axis: gains[axis], default="")
                helps = bool(remedy) and gains[remedy] > 0
                op = each.lowered.by_name[layer.name]
                found.append(
                    HeldBack(
                        network=workload.name,
                        layer=layer.name,
                        module=op.block.module_path,
                        source=str(op.block.source or ""),
                        us=layer.us,
                        share=workload.weight * layer.us / total,
                        bound_by=layer.bound_by,
                        remedy=remedy if helps else "",
                        gain=gains[remedy] if helps else 0.0,
                    )
                )
    return sorted(found, key=lambda each: -each.share)


def _layers(estimates: Estimates) -> dict[tuple[str, int, str], LayerEstimate]:
    return {
        (name, part, layer.name): layer
        for name, of_network in estimates.items()
        for part, each in enumerate(of_network)
        for layer in each.layers
    }
