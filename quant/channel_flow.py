"""The strands of every tensor of a network, while operators are read one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bitwright.quant.channel_strands import Channels, Strand, along, axes_of
from bitwright.quant.graph import Graph, Node, TensorKind, TensorRef


class Flow:
    """Strands of tensors, and what operators do to them.

    Parameters have one strand for each axis: whatever runs along an axis of theirs can be taken out until something
    says that it stays. Arguments of the network have none, and neither have constants that were computed.

    Attributes:
        graph: the network.
        channels: which of them are one.
        strands: of each tensor; tensors that are not there have none.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.channels = Channels()
        self.strands: dict[TensorRef, tuple[Strand, ...]] = {}
        for ref, info in graph.tensors.items():
            if info.kind in (TensorKind.PARAMETER, TensorKind.BUFFER) and info.is_floating and info.shape:
                sizes = enumerate(self.shape(ref))
                self.strands[ref] = tuple(
                    along(self.channels.fresh([size]), axis, len(info.shape)) for axis, size in sizes if size > 1
                )

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        """Of a tensor; an axis that is not static counts as one along which nothing runs."""
        return tuple(size or 1 for size in self.graph.tensors[ref].shape)

    def rank(self, ref: TensorRef) -> int:
        """Of a tensor."""
        return len(self.graph.tensors[ref].shape)

    def of(self, ref: TensorRef | None) -> tuple[Strand, ...]:
        """The strands of a tensor."""
        return self.strands.get(ref, ()) if ref is not None else ()

    def vector(self, ref: TensorRef | None, axis: int) -> Strand | None:
        """The channels along one axis, [size]; None where nothing runs along it.

        A strand that runs along others as well is collapsed to this one.
        """
        if ref is None:
            return None
        axis %= self.rank(ref)
        strand = next((each for each in self.of(ref) if each.shape[axis] > 1), None)
        if strand is None:
            return None
        if axes_of(strand) != (axis,):
            self._replace(ref, strand, self.channels.collapse(strand, [axis]))
            return self.vector(ref, axis)
        return strand.ravel()

    def give(self, ref: TensorRef, strands: Iterable[Strand]) -> None:
        """Says what runs along a tensor."""
        self.strands[ref] = tuple(strand for strand in strands if axes_of(strand))

    def stay(self, ref: TensorRef | None, reason: str, axes: Iterable[int] | None = None) -> None:
        """Everything that runs along a tensor (along some axes of it) stays."""
        wanted = None if axes is None else {axis % self.rank(ref) for axis in axes} if ref is not None else set()
        for strand in self.of(ref):
            if wanted is None or wanted & set(axes_of(strand)):
                self.channels.fix(strand, reason)

    def stay_all(self, node: Node, reason: str) -> None:
        """Everything that runs along the operands of an operator stays; nothing runs along its results."""
        for ref in node.tensors:
            self.stay(ref, reason)

    def tie(self, left: Strand | None, right: Strand | None, reason: str) -> None:
        """Two runs of channels are the same; where one of them cannot change, the other stays."""
        if left is not None and right is not None:
            self.channels.unite(left, right)
        for only, other in ((left, right), (right, left)):
            if only is not None and other is None:
                self.channels.fix(only, reason)

    def merged(self, operands: Sequence[tuple[Sequence[int], Sequence[Strand]]], reason: str) -> list[Strand]:
        """What runs along the result of an operator that computes place by place.

        Args:
            operands: shape and strands of each; shapes broadcast against each other.
            reason: why a channel stays that another operand has along the same axis without being able to change.
        """
        rank = max((len(shape) for shape, _ in operands), default=0)
        shapes = [(1,) * (rank - len(shape)) + tuple(shape) for shape, _ in operands]
        parts = [[each.reshape((1,) * (rank - each.ndim) + each.shape) for each in strands] for _, strands in operands]
        result: list[Strand] = []
        for strand in (each for own in parts for each in own):
            result = self._woven(result, strand)
        for strand in result:
            for shape, own in zip(shapes, parts, strict=True):
                covered = {axis for each in own for axis in axes_of(each)}
                if any(shape[axis] > 1 and axis not in covered for axis in axes_of(strand)):
                    self.channels.fix(strand, reason)
        return result

    def _woven(self, strands: list[Strand], new: Strand) -> list[Strand]:
        """Adds a strand to others of one tensor; those that run along a common axis become one."""
        apart = []
        for each in strands:
            if set(axes_of(each)) & set(axes_of(new)):
                self.channels.unite(each, new)
                new = np.broadcast_arrays(each, new)[0]
            else:
                apart.append(each)
        return [*apart, new]

    def _replace(self, ref: TensorRef, old: Strand, new: Strand) -> None:
        self.strands[ref] = tuple(new if each is old else each for each in self.strands[ref])


def where(node: Node) -> str:
    """An operator in a message: what it is and the user's own line."""
    line = node.source or node.module_path
    return f"{node.op} ({line})" if line else node.op
