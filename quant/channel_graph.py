"""The dependency graph of channels: which can be taken out of a network, and what goes with them.

A channel made by one layer is read by others, added to another layer's, normalized, concatenated, split into heads.
Whatever must leave together is one *unit*; units that occupy the same axes of the same parameters are a *group*, whose
units are each other's alternatives. Nothing here knows patterns of networks: each operator says what it does to
channels (`channel_operators`, `channel_layers`), and units are what is connected. After Fang et al. 2023 (DepGraph), at
the level of single channels. Torch-free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bitwright.quant.channel_flow import Flow, where
from bitwright.quant.channel_layers import LAYERS
from bitwright.quant.channel_operators import RULES
from bitwright.quant.channel_strands import Strand, axes_of, slab_axis
from bitwright.quant.graph import Graph, TensorKind, TensorRef
from bitwright.quant.smaller_graph import smaller_graph

Cuts = Mapping[TensorRef, Mapping[int, npt.NDArray[np.int64]]]


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels of which any number but all can be taken out.

    Attributes:
        name: the module that makes them, or the parameter; with a number where one makes several groups.
        units: what leaves at once, by number.
        axes: the parameters' axes that they occupy, (parameter, axis).
        inexact: what makes other channels change when one is taken out, such as a layer norm; "" when nothing does:
            then the smaller network computes what the whole one does with these channels zero.
    """

    name: str
    units: tuple[int, ...]
    axes: tuple[tuple[TensorRef, int], ...]
    inexact: str = ""


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """All groups of a network, and where their units are.

    Attributes:
        graph: the network.
        groups: in the order in which layers make them.
        strands: which units run along each tensor (see `channel_strands`); -1 where a channel stays.
        kept: why channels stay that a layer makes: by its weight.
    """

    graph: Graph
    groups: tuple[ChannelGroup, ...]
    strands: Mapping[TensorRef, tuple[Strand, ...]]
    kept: Mapping[TensorRef, str] = field(default_factory=dict)

    def group(self, name: str) -> ChannelGroup:
        """The group of a name.

        Raises:
            KeyError: there is none; lists those that there are.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"no group of channels {name!r}; there are: {', '.join(each.name for each in self.groups)}")

    def units_along(self, ref: TensorRef, axis: int) -> npt.NDArray[np.int64] | None:
        """The unit at each place of one axis, [size]; None where nothing that can go runs along it alone."""
        found = next((each for each in self.strands.get(ref, ()) if each.shape[axis] > 1), None)
        return None if found is None or axes_of(found) != (axis,) else found.ravel()

    def without(self, removed: Collection[int]) -> Cuts:
        """What is left of each parameter: the places that stay, by axis.

        Args:
            removed: units.
        """
        gone = np.fromiter(removed, dtype=np.int64)
        cuts: dict[TensorRef, dict[int, npt.NDArray[np.int64]]] = defaultdict(dict)
        for group in self.groups:
            if not np.isin(group.units, gone).any():
                continue
            for ref, axis in group.axes:
                units = self.units_along(ref, axis)
                assert units is not None  # a group has only such axes
                cuts[ref][axis] = np.flatnonzero(~np.isin(units, gone))
        return dict(cuts)

    def permuted(self, group: ChannelGroup, order: Sequence[int]) -> Cuts:
        """Where each place of each parameter comes from when the units of a group change places.

        Args:
            group: one of `groups`.
            order: unit `order[i]` goes to where unit i is.
        """
        cuts: dict[TensorRef, dict[int, npt.NDArray[np.int64]]] = defaultdict(dict)
        for ref, axis in group.axes:
            units = self.units_along(ref, axis)
            assert units is not None
            places = [np.flatnonzero(units == unit) for unit in group.units]
            source = np.arange(len(units))
            for index, taken in enumerate(order):
                source[places[index]] = places[taken]
            cuts[ref][axis] = source
        return dict(cuts)

    def shape_without(self, ref: TensorRef, removed: Collection[int]) -> tuple[int, ...]:
        """The shape of a tensor in the smaller network."""
        kept = self._kept(ref, removed)
        return tuple(
            len(kept[axis]) if axis in kept else size or 1 for axis, size in enumerate(self.graph.tensors[ref].shape)
        )

    def smaller(self, removed: Collection[int]) -> Graph:
        """The torch-free graph of the smaller network, for what reckons from one; with values where this one has them.

        Args:
            removed: units.
        """
        return smaller_graph(self.graph, {ref: self._kept(ref, removed) for ref in self.strands})

    def _kept(self, ref: TensorRef, removed: Collection[int]) -> dict[int, npt.NDArray[np.int64]]:
        """The places that stay along each axis of a tensor from which some may go."""
        gone = np.fromiter(removed, dtype=np.int64)
        kept = {}
        for strand in self.strands.get(ref, ()):
            axis = slab_axis(strand)
            if axis is not None:
                line = strand[tuple(slice(None) if each == axis else 0 for each in range(strand.ndim))]
                kept[axis] = np.flatnonzero(~np.isin(line, gone))
        return kept


def channel_graph(graph: Graph) -> ChannelGraph:
    """Finds what can be taken out of a network.

    Args:
        graph: captured with static shapes, batch norms not folded, so that its parameters are those of the module.
    """
    flow = Flow(graph)
    for node in graph.nodes:
        rule = LAYERS.get(node.op) or RULES.get(node.op)
        if rule is None or not node.outputs:
            flow.stay_all(node, f"{where(node)} is not known here")
        else:
            rule(flow, node)
    for ref in graph.outputs:
        flow.stay(ref, "the network returns them")
    for incoming, outgoing in graph.state:
        for ref in (incoming, outgoing):
            flow.stay(ref, "they are kept for the next call")
    _cut_as_slabs(flow)
    return _grouped(flow)


def _cut_as_slabs(flow: Flow) -> None:
    """What is left of a tensor must be a block: units that are spread over several axes become whole slabs of one.

    Of the axes that channels were split over, the last one shrinks: groups of a shuffle stay as many as they are.
    """
    while True:
        classes = flow.channels.classes()
        for strands in flow.strands.values():
            broken = [each for each in strands if len(axes_of(each)) > 1 and slab_axis(classes[each]) is None]
            for strand in broken:
                flow.channels.collapse(strand, axes_of(strand)[-1:])
            if broken:
                break
        else:
            return


def _grouped(flow: Flow) -> ChannelGraph:
    graph, classes = flow.graph, flow.channels.classes()
    fixed = {int(classes[channel]): reason for channel, reason in flow.channels.fixed.items()}
    inexact = {int(classes[channel]): reason for channel, reason in flow.channels.inexact.items()}
    places: dict[int, list[tuple[TensorRef, int, int]]] = defaultdict(list)
    kept: dict[TensorRef, str] = {}
    for ref in _parameters(graph):
        for strand in flow.of(ref):
            (axis,) = axes_of(strand)
            units, counts = np.unique(classes[strand], return_counts=True)
            for unit, count in zip(units.tolist(), counts.tolist(), strict=True):
                if unit not in fixed:
                    places[unit].append((ref, axis, count))
                elif axis == 0 and len(graph.tensors[ref].shape) > 1:
                    kept.setdefault(ref, fixed[unit])
    alike: dict[tuple[tuple[TensorRef, int, int], ...], list[int]] = defaultdict(list)
    for unit, occupied in places.items():
        alike[tuple(occupied)].append(unit)
    groups = _named(
        [
            ChannelGroup(
                name=_maker(graph, occupied),
                units=tuple(units),
                axes=tuple((ref, axis) for ref, axis, _ in occupied),
                inexact=next((inexact[unit] for unit in units if unit in inexact), ""),
            )
            for occupied, units in alike.items()
            if len(units) > 1
        ]
    )
    free = np.array(sorted(unit for group in groups for unit in group.units), dtype=np.int64)
    strands = {ref: tuple(_named_units(each, classes, free) for each in own) for ref, own in flow.strands.items()}
    strands = {ref: tuple(each for each in own if (each >= 0).any()) for ref, own in strands.items()}
    return ChannelGraph(graph=graph, groups=groups, strands=strands, kept=kept)


def _named_units(strand: Strand, classes: npt.NDArray[np.int64], free: npt.NDArray[np.int64]) -> Strand:
    units = classes[strand]
    return np.where(np.isin(units, free), units, -1)


def _parameters(graph: Graph) -> list[TensorRef]:
    """In the order in which the network reads them."""
    kinds = (TensorKind.PARAMETER, TensorKind.BUFFER)
    read = dict.fromkeys(ref for node in graph.nodes for ref in node.tensors)
    return [ref for ref in read if graph.tensors[ref].kind in kinds]


def _maker(graph: Graph, occupied: Sequence[tuple[TensorRef, int, int]]) -> str:
    """The layer that makes a unit: the first weight whose output axis it is on."""
    for ref, axis, _ in occupied:
        reader = graph.consumers[ref][0]
        made = 1 if reader.op.startswith("conv_transpose") or reader.op == "embedding" else 0
        if axis == made and graph.tensors[ref].kind is TensorKind.PARAMETER:
            return ref.module_path.rpartition(".")[0] or ref.module_path
    return occupied[0][0].module_path


def _named(groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    seen: dict[str, int] = defaultdict(int)
    result = []
    for group in groups:
        seen[group.name] += 1
        number = seen[group.name]
        result.append(group if number == 1 else replace(group, name=f"{group.name}#{number}"))
    return tuple(result)
