"""Channels that can only be scaled together: what a positive factor on one of them passes through unchanged.

Dividing channel c of a tensor by s and multiplying what reads it by s changes nothing, as long as everything in between
is positively homogeneous: `f(x / s) = f(x) / s` (Nagel et al. 2019, section 4.1). Tensors that such operators connect
form one space; it begins at the weights that make it and ends at those that read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitwright.quant.graph import CONVOLUTIONS, Graph, Node, TensorRef

# One operand, channels stay where they are; and over how many axes at the end positions are mixed.
_HOMOGENEOUS = {
    **dict.fromkeys(("relu", "leaky_relu", "clone", "contiguous", "dropout"), 0),
    **dict.fromkeys(("max_pool1d", "avg_pool1d", "adaptive_avg_pool1d"), 1),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"), 2),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d"), 2),
}
_CLAMPS = frozenset({"hardtanh", "relu6"})


@dataclass(frozen=True, kw_only=True)
class WeightUse:
    """A weight whose channels a space runs along.

    Attributes:
        node: the layer.
        weight: its weight.
        axis: of the weight.
        depthwise: the layer has one filter a channel, with a scale of its own.
    """

    node: Node
    weight: TensorRef
    axis: int
    depthwise: bool


@dataclass(frozen=True, kw_only=True)
class ChannelSpace:
    """Tensors whose channels are scaled together.

    Attributes:
        tensors: each with its axis of channels.
        channels: how many.
        makers: layers whose results they are: output channels are divided, biases too.
        readers: layers that sum over them: input channels are multiplied.
        ceiling: the smallest upper bound of a clamp among them; infinity where there is none.
    """

    tensors: Mapping[TensorRef, int]
    channels: int
    makers: tuple[WeightUse, ...]
    readers: tuple[WeightUse, ...]
    ceiling: float


def channel_spaces(graph: Graph) -> tuple[ChannelSpace, ...]:
    """The spaces of a network that can be scaled: made and read by layers with weights of their own."""
    return _Spaces(graph).free()


def channel_axes(graph: Graph) -> dict[TensorRef, int]:
    """The axis of channels of every activation: where layers have it, else the second of images, else the last."""
    ranks = {
        ref: len(info.shape)
        for ref, info in graph.tensors.items()
        if info.is_floating and not graph.is_constant(ref) and len(info.shape) > 1
    }
    guessed = {ref: 1 if rank > 3 else rank - 1 for ref, rank in ranks.items()}
    known = _Spaces(graph).axes
    return {ref: known.get(ref, axis) for ref, axis in guessed.items()}


class _Spaces:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parents: dict[TensorRef, TensorRef] = {}
        self.axes: dict[TensorRef, int] = {}
        self.fixed: set[TensorRef] = set()
        self.makers: dict[TensorRef, list[WeightUse]] = defaultdict(list)
        self.readers: dict[TensorRef, list[WeightUse]] = defaultdict(list)
        self.ceilings: dict[TensorRef, float] = {}
        self.fixed.update((*graph.inputs, *graph.outputs, *(ref for pair in graph.state for ref in pair)))
        for node in graph.nodes:
            self._note(node)

    def free(self) -> tuple[ChannelSpace, ...]:
        members: dict[TensorRef, list[TensorRef]] = defaultdict(list)
        for ref in self.axes:
            members[self._root(ref)].append(ref)
        fixed = {self._root(ref) for ref in self.fixed}
        return tuple(self._space(refs) for root, refs in members.items() if root not in fixed and self._is_whole(refs))

    def _is_whole(self, refs: Sequence[TensorRef]) -> bool:
        """Made by layers, read by layers, one axis of channels and as many everywhere."""
        made = [use for ref in refs for use in self.makers[ref]]
        read = [use for ref in refs for use in self.readers[ref]]
        sizes = {self.graph.tensors[ref].shape[self.axes[ref]] for ref in refs}
        return bool(made and read) and len(sizes) == 1 and None not in sizes

    def _space(self, refs: Sequence[TensorRef]) -> ChannelSpace:
        size = self.graph.tensors[refs[0]].shape[self.axes[refs[0]]]
        assert size is not None
        return ChannelSpace(
            tensors={ref: self.axes[ref] for ref in refs},
            channels=size,
            makers=tuple(use for ref in refs for use in self.makers[ref]),
            readers=tuple(use for ref in refs for use in self.readers[ref]),
            ceiling=min((self.ceilings[ref] for ref in refs if ref in self.ceilings), default=float("inf")),
        )

    # --- union and find ---

    def _root(self, ref: TensorRef) -> TensorRef:
        while self.parents.get(ref, ref) != ref:
            ref = self.parents[ref]
        return ref

    def _tie(self, *refs: TensorRef) -> None:
        roots = [self._root(ref) for ref in refs]
        self.parents.update(dict.fromkeys(roots, roots[0]))

    def _channels_at(self, ref: TensorRef, axis: int) -> bool:
        """Notes where a tensor's channels are; False where they were said to be elsewhere."""
        axis %= len(self.graph.tensors[ref].shape)
        return self.axes.setdefault(ref, axis) == axis

    # --- operators ---

    def _note(self, node: Node) -> None:
        known = (
            self._layer(node)
            if node.op in CONVOLUTIONS or node.op == "linear"
            else self._homogeneous(node)
            if node.op in _HOMOGENEOUS or node.op in _CLAMPS
            else self._addition(node)
            if node.op == "add"
            else self._flattening(node)
        )
        if not known:
            self.fixed.update((*node.tensors, *node.outputs))

    def _layer(self, node: Node) -> bool:
        data, weight, bias = (*node.inputs, None, None)[:3]
        if data is None or weight is None or not self._is_own(weight) or (bias is not None and not self._is_own(bias)):
            return False
        shape, groups = self.graph.tensors[weight].shape, int(node.attributes.get("groups", 1))
        if len(shape) < 2:
            return False
        along = -1 if node.op == "linear" else 1 - len(shape)  # batch and channels stand before the spatial axes
        axis = len(self.graph.tensors[data].shape) + along
        depthwise = groups > 1 and shape[1] == 1 and shape[0] == groups
        if groups > 1 and not depthwise:
            return False
        if not (self._channels_at(data, axis) and self._channels_at(node.outputs[0], axis)):
            return False
        reads = 0 if depthwise else 1
        self.readers[data].append(WeightUse(node=node, weight=weight, axis=reads, depthwise=depthwise))
        self.makers[node.outputs[0]].append(WeightUse(node=node, weight=weight, axis=0, depthwise=depthwise))
        return True

    def _is_own(self, ref: TensorRef) -> bool:
        return self.graph.is_constant(ref) and len(self.graph.consumers[ref]) == 1

    def _homogeneous(self, node: Node) -> bool:
        data, result = node.tensors[0], node.outputs[0]
        rank = len(self.graph.tensors[data].shape)
        if len(node.outputs) != 1 or len(node.tensors) != 1 or len(self.graph.tensors[result].shape) != rank:
            return False
        if node.op in _CLAMPS:
            low, high = (node.attributes.get(name, default) for name, default in (("min_val", 0.0), ("max_val", 6.0)))
            if low != 0.0:
                return False
            self.ceilings[result] = float(high)
        self._tie(data, result)
        self._take_axis(data, result)
        return data in self.axes and self.axes[data] < rank - _HOMOGENEOUS.get(node.op, 0)

    def _addition(self, node: Node) -> bool:
        refs = (*node.tensors, *node.outputs)
        activations = len(node.tensors) == 2 and not any(map(self.graph.is_constant, node.tensors))
        if not activations or node.attributes.get("alpha", 1) != 1:
            return False
        if len({self.graph.tensors[ref].shape for ref in refs}) != 1:
            return False
        self._tie(*refs)
        self._take_axis(*refs)
        return True

    def _flattening(self, node: Node) -> bool:
        """Spatial axes of length 1 vanish: the channels are what is left."""
        if node.op not in ("flatten", "view", "reshape", "squeeze", "mean") or len(node.tensors) != 1:
            return False
        data, result = node.tensors[0], node.outputs[0]
        before, after = self.graph.tensors[data].shape, self.graph.tensors[result].shape
        spatial = before[2:] if node.op != "mean" else (1,) * len(before[2:])
        if node.op == "mean" and sorted(axis % len(before) for axis in node.attributes.get("dim") or ()) != list(
            range(2, len(before))
        ):
            return False
        if len(before) < 3 or any(size != 1 for size in spatial) or before[:2] != after[:2]:
            return False
        if any(size != 1 for size in after[2:]):
            return False
        self._tie(data, result)
        return self._channels_at(data, 1) and self._channels_at(result, 1)

    def _take_axis(self, *refs: TensorRef) -> None:
        known = next((self.axes[ref] for ref in refs if ref in self.axes), None)
        if known is None:
            self.fixed.update(refs)
            return
        for ref in refs:
            if not self._channels_at(ref, known):
                self.fixed.add(ref)
