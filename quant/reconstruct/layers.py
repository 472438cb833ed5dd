"""Layers whose weights can be rounded with their inputs in view, as products of matrices.

A layer is `weight [G, R, K] @ columns [G, K, n]`: G groups (a depthwise convolution has one a channel), R results and K
terms in each, and n positions, those at which a filter is applied (im2col). Of large maps every `step`-th position in
each direction is looked at, shifted from sample to sample, so that every position has its turn: positions of one sample
are much alike, so a few of many samples say more than many of a few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.graph import Graph, Node
from bitwright.quant.plan import QuantPlan

_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
# Positions of one sample of one layer, the fewest and the most: more where samples are so few that all together would
# show a layer less than `ENOUGH`, or a term less than `ENOUGH_A_TERM`. MobileNetV2, 8 bits, 140 pictures calibrate and
# 60 others judge: 23.6 to 23.7 dB with 256, 64, 49 and 36 positions of each picture, 23.2 dB with 49 of 96 pictures.
POSITIONS = (49, 256)
ENOUGH, ENOUGH_A_TERM = 8192, 16
_RELU6 = (0.0, 6.0)
_ROUNDING = 1e-9  # of a root: 12,544 positions are 16 x 16 times 49


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer and the names of its parameters.

    Attributes:
        node: the operator.
        weight: its weight, by the placeholder's name.
        bias: its bias likewise; None where it has none of its own.
        weight_shape: of the weight.
        groups: of a convolution, else 1.
        bounds: what the activation fused behind it lets through.
        positions: of one sample that are looked at, about.
    """

    node: Node
    weight: str
    bias: str | None
    weight_shape: tuple[int, ...]
    groups: int
    bounds: tuple[float, float]
    positions: int

    @property
    def unbounded(self) -> bool:
        """No activation hides anything of its result."""
        return self.bounds == (-math.inf, math.inf)

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """A tensor that broadcasts to the weight's shape as `[G, R, K]`."""
        return weight.expand(self.weight_shape).reshape(self.groups, -1, math.prod(self.weight_shape[1:]))

    def columns(self, data: torch.Tensor, sample: int) -> torch.Tensor:
        """The layer's input at the chosen positions: `[G, K, n]`."""
        spatial = _CONVOLUTIONS.get(self.node.op, 0)
        if not spatial:
            rows = data.reshape(-1, data.shape[-1])
            return rows[_every(len(rows), 1, self.positions, sample)[0]].T[None]
        kernel = self.weight_shape[2:]
        stride, padding, dilation = (self._window(name, spatial, fill) for name, fill in _WINDOW)
        sizes = [
            (length + 2 * pad - spread * (size - 1) - 1) // by + 1
            for length, pad, spread, size, by in zip(data.shape[2:], padding, dilation, kernel, stride, strict=True)
        ]
        places = _every(math.prod(sizes), spatial, self.positions, sample)
        if math.prod(kernel) == 1 and not any(padding):
            every = (slice(at.start * by, None, at.step * by) for at, by in zip(places, stride, strict=True))
            chosen = data[(slice(None), slice(None), *every)]
            return chosen.transpose(0, 1).reshape(self.groups, self.weight_shape[1], -1)
        ranges = [
            # [kernel, positions] of one axis
            torch.arange(count)[place] * by - pad + spread * torch.arange(size)[:, None]
            for place, size, count, by, pad, spread in zip(
                places, kernel, sizes, stride, padding, dilation, strict=True
            )
        ]
        return _gathered(data, ranges).reshape(self.groups, math.prod(self.weight_shape[1:]), -1)

    def results(self, result: torch.Tensor, sample: int) -> torch.Tensor:
        """The layer's result at the same positions: `[G, R, n]`."""
        spatial = _CONVOLUTIONS.get(self.node.op, 0)
        if not spatial:
            rows = result.reshape(-1, result.shape[-1])
            return rows[_every(len(rows), 1, self.positions, sample)[0]].T[None]
        places = _every(math.prod(result.shape[2:]), spatial, self.positions, sample)
        chosen = result[(slice(None), slice(None), *places)]
        return chosen.transpose(0, 1).reshape(self.groups, self.weight_shape[0] // self.groups, -1)

    def _window(self, name: str, spatial: int, fill: int) -> tuple[int, ...]:
        given: Any = self.node.attributes.get(name, fill)
        values = tuple(given) if isinstance(given, list | tuple) else (given,)
        return tuple(int(value) for value in (values * spatial if len(values) == 1 else values))


_WINDOW = (("stride", 1), ("padding", 0), ("dilation", 1))


def _gathered(data: torch.Tensor, places: Sequence[torch.Tensor]) -> torch.Tensor:
    """The values at places `[kernel, positions]` of each spatial axis, `[C, kernel, B, positions]`; 0 outside.

    Axes are flattened, so that one look-up takes whole rows of channels where they are neighbours in memory.
    """
    spatial, lengths = len(places), data.shape[2:]
    flat, outside = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.bool)
    for axis, (place, length) in enumerate(zip(places, lengths, strict=True)):
        shape = [1] * (2 * spatial)
        shape[axis], shape[spatial + axis] = place.shape
        inside = place.clamp(0, length - 1)
        flat = flat * length + inside.reshape(shape)
        outside = outside | (place != inside).reshape(shape)
    behind = data.dim() in _LAST and data.is_contiguous(memory_format=_LAST[data.dim()])
    rows = data.movedim(1, -1).flatten(1, -2) if behind else data.flatten(2)
    axis = 1 if behind else 2
    taken = rows.index_select(axis, flat.flatten())
    beyond = outside.expand(flat.shape).flatten().nonzero().flatten()
    if beyond.numel():
        taken.index_fill_(axis, beyond, 0.0)
    taken = taken if behind else taken.transpose(1, 2)  # [B, kernel and positions, C]
    kernel, positions = flat.shape[:spatial], flat.shape[spatial:]
    shaped = taken.reshape(len(data), math.prod(kernel), math.prod(positions), -1)
    return shaped.permute(3, 1, 0, 2)


def _every(there: int, spatial: int, wanted: int, sample: int) -> tuple[slice, ...]:
    """Which positions along each axis; of few all."""
    share: float = (there / wanted) ** (1 / spatial)
    step = max(1, math.ceil(share - _ROUNDING))
    number = sample % step**spatial
    offsets = (number // step**axis % step for axis in reversed(range(spatial)))
    return tuple(slice(offset, None, step) for offset in offsets)


def find_layers(captured: CapturedModel, decided: QuantPlan, samples: int = 1) -> tuple[list[Layer], dict[str, str]]:
    """The layers that can be rounded with their inputs in view, in the order of the network; why others are not.

    Args:
        captured: the network.
        decided: says which of its layers are quantized.
        samples: how many there will be.

    Returns:
        The layers, and for every other node with a quantized weight the reason why it is rounded to nearest.
    """
    found, reasons = [], {}
    for node in captured.graph.nodes:
        if node.name not in decided.quantized or not any(ref in decided.weights for ref in node.tensors):
            continue
        reason = _reason_for_nearest(captured.graph, decided, node)
        if reason:
            reasons[node.name] = reason
        else:
            found.append(_layer(captured, decided, node, samples))
    return found, reasons


def _reason_for_nearest(graph: Graph, decided: QuantPlan, node: Node) -> str:
    weight = node.tensors[1] if len(node.tensors) > 1 else None
    if node.op not in _CONVOLUTIONS and node.op != "linear":
        return f"{node.op!r} is no convolution or linear layer"
    if weight is None or weight not in decided.weights or node.tensors[0] in decided.weights:
        return "its weight is computed"
    if len(graph.consumers[weight]) > 1:
        return f"{len(graph.consumers[weight])} layers share its weight"
    if isinstance(node.attributes.get("padding"), str):
        return "its padding is given in words"
    if not all(graph.tensors[ref].is_floating for ref in node.tensors):
        return "it does not work on real numbers"
    return ""


def _layer(captured: CapturedModel, decided: QuantPlan, node: Node, samples: int) -> Layer:
    graph = captured.graph
    bias = node.tensors[2] if len(node.tensors) > 2 else None
    own = bias is not None and bias in captured.value_refs and len(graph.consumers[bias]) == 1
    weight = captured.value_refs[node.tensors[1]]
    return Layer(
        node=node,
        weight=weight,
        bias=captured.value_refs[bias] if own and bias is not None else None,
        weight_shape=tuple(captured.values[weight].shape),
        groups=int(node.attributes.get("groups", 1)),
        bounds=_bounds(graph.by_name, decided.fused, node),
        positions=_positions(
            node, tuple(captured.values[weight].shape), graph.tensors[node.outputs[0]].shape[0] or 1, samples
        ),
    )


def _positions(node: Node, weight: tuple[int, ...], batch: int, samples: int) -> int:
    """How many of one sample; a sample may be a batch."""
    fewest, most = POSITIONS
    pieces = samples * (batch if node.op in _CONVOLUTIONS else 1)
    wanted = max(ENOUGH, ENOUGH_A_TERM * math.prod(weight[1:]))
    return min(most, max(fewest, -(-wanted // max(1, pieces))))


def _bounds(nodes: Mapping[str, Node], chains: tuple[tuple[str, ...], ...], node: Node) -> tuple[float, float]:
    """The range in which the activation behind a layer tells its results apart."""
    follower = next((nodes[chain[1]] for chain in chains if chain[0] == node.name), None)
    if follower is None or follower.op not in ("relu", "relu6", "hardtanh"):
        return -math.inf, math.inf
    if follower.op == "relu":
        return 0.0, math.inf
    low, high = _RELU6 if follower.op == "relu6" else (-1.0, 1.0)
    return float(follower.attributes.get("min_val", low)), float(follower.attributes.get("max_val", high))
