"""Expected times (modelled, predicted) beside measured layers.

Each side cuts the network in its own way, so they meet where their cuts do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bitwright.hw_constraints.cost.estimate import LatencyEstimate, LayerEstimate
from bitwright.hw_constraints.target_types import Capability, Target


@dataclass(frozen=True, kw_only=True)
class ExpectedOp:
    """One operation as a model or a predictor cuts the network.

    Attributes:
        us: its time; None where nothing says it.
        keys: the layers of the file that it computes: references in our own files, names of nodes in others'.
        estimate: what the cost model says of it; None from a predictor.
    """

    us: float | None
    keys: frozenset[str]
    estimate: LayerEstimate | None = None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is expected of a whole network.

    Attributes:
        us: of the whole.
        ops: its operations.
        by: what says so.
        notes: what it had to assume.
    """

    us: float
    ops: tuple[ExpectedOp, ...]
    by: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """The smallest part of the network that whole measured layers and whole expected operations make up.

    Attributes:
        measured: positions of the measured layers.
        ops: the operations.
    """

    measured: tuple[int, ...]
    ops: tuple[ExpectedOp, ...]

    @property
    def us(self) -> float | None:
        """Microseconds of the operations; None when there are none, or one of them has no figure."""
        times = [op.us for op in self.ops]
        return None if not times or None in times else sum(time or 0.0 for time in times)


def estimate_file(path: Path, target: Target) -> LatencyEstimate:
    """Lowers and reckons an ONNX file for a target.

    Raises:
        InputError: the target serves no cost, or the file cannot be lowered to it.
    """
    from bitwright.hw_constraints.cost.estimate import estimate
    from bitwright.hw_constraints.lower.lowering import lower
    from bitwright.quant.onnx_import import graph_from_onnx

    target.require(Capability.COST)
    imported = graph_from_onnx(path)
    return estimate(lower(imported.graph, target, plan=imported.plan_by(target.scheme())))


def modelled(estimate: LatencyEstimate, keys: Iterable[str]) -> Expected:
    """An estimate as expected times.

    Args:
        estimate: of the file.
        keys: of all layers of the file, to tell by which of its two names a node is known there.
    """
    known = frozenset(keys)
    ops = []
    for layer in estimate.layers:
        nodes = estimate.lowered.by_name[layer.name].block.nodes
        names = {name for node in nodes for name in (node.name, *map(str, node.outputs))}
        ops.append(ExpectedOp(us=layer.us, keys=known & names, estimate=layer))
    by = f"{estimate.lowered.target.id}, {estimate.model}"
    return Expected(us=estimate.us, ops=tuple(ops), by=by, notes=estimate.assumptions)


def meet(measured: list[frozenset[str]], ops: Iterable[ExpectedOp]) -> tuple[Group, ...]:
    """Groups in which both sides cover the same layers.

    Args:
        measured: for each measured layer the keys of all layers whose work its kernels do.
        ops: operations; those without a key (relayouts) belong to no group.
    """
    from scipy.cluster.hierarchy import DisjointSet

    together = DisjointSet(range(len(measured)))
    owner: dict[str, int] = {}
    for position, keys in enumerate(measured):
        for key in keys:
            together.merge(position, owner.setdefault(key, position))
    placed = [(op, [owner[key] for key in op.keys if key in owner]) for op in ops]
    for _, positions in placed:
        for position in positions[1:]:
            together.merge(position, positions[0])
    by_root: dict[int, list[ExpectedOp]] = {}
    for op, positions in placed:
        if positions:
            by_root.setdefault(together[positions[0]], []).append(op)
    return tuple(
        Group(measured=tuple(sorted(each)), ops=tuple(by_root.get(together[next(iter(each))], ())))
        for each in together.subsets()
    )


def spread(groups: Iterable[Group], us: Mapping[int, float]) -> dict[int, float]:
    """Expected time of each measured layer; that of a group of several is split as their measured times are."""
    times = {}
    for group in groups:
        whole = group.us
        total = sum(us[position] for position in group.measured)
        if whole is None:
            continue
        for position in group.measured:
            times[position] = whole * (us[position] / total if total else 1 / len(group.measured))
    return times
