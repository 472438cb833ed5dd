"""Outlier channel splitting (Zhao et al. 2019, arXiv:1901.09504): a channel with large weights becomes two.

    w x = (w / 2) x + (w / 2) x                                                                      (equation 3)

halves what sets the scale, without changing the network. The halves are moved apart by half a step Δ of the rounding
that follows, so that together they round as the whole did:

    w x = (w - Δ/2) / 2 x + (w + Δ/2) / 2 x                                    (equation 5: "quantization-aware")

The channel is made twice where it arises, in the rows of the layer in front, so no operator is added. Which ones: those
whose halves lower the sum of the rows' squared scales most, one after the other, `SHARE` of each layer's channels (the
paper's 1 to 5 %). Layers in front whose channels also go elsewhere are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.fx
from torch.fx.node import map_arg

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.formats import IntFormat
from bitwright.quant.fx_nodes import copy_graph
from bitwright.quant.graph import Graph, Node
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.preparations.between import ceiling_of, has_own_weight, is_depthwise, is_own, leaving
from bitwright.quant.rewrite import arguments, blank
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme
from bitwright.quant.weights import choose_weight_qparams

SHARE = 0.05
_GROUPS = 6  # its position among the arguments of every convolution
_POOLS = frozenset(
    {"max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"}
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Channels from where they arise to the one layer that sums over them.

    Attributes:
        maker: an ordinary convolution or linear layer.
        between: what passes channels on one by one: activations, pools, depthwise convolutions.
        reader: an ordinary convolution or linear layer.
    """

    maker: Node
    between: tuple[Node, ...]
    reader: Node


class SplitChannels:
    """Needs no data."""

    name = "split_channels"
    samples = 1

    @torch.no_grad()
    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """See the module; weights in float formats, or in blocks of their own, gain nothing and stay as they are."""
        decided = plan(captured.graph, scheme)
        for line in find_lines(captured.graph, decided):
            captured = split(captured, line, decided.weights[line.reader.tensors[1]])
        return captured


def find_lines(graph: Graph, decided: QuantPlan) -> list[Line]:
    """Every line that ends in a layer with weights in few bits."""
    found = []
    for reader in graph.nodes:
        spec = decided.weights.get(reader.tensors[1]) if _is_ordinary(graph, reader) else None
        if spec is None or not isinstance(spec.format, IntFormat) or spec.block_size is not None:
            continue
        line = _line(graph, reader)
        if line is not None:
            found.append(line)
    return found


def _is_ordinary(graph: Graph, node: Node) -> bool:
    return has_own_weight(graph, node) and int(node.attributes.get("groups", 1)) == 1


def _line(graph: Graph, reader: Node) -> Line | None:
    between: list[Node] = []
    ref = reader.tensors[0]
    while True:
        maker = graph.producers.get(ref)
        if maker is None or graph.sole_consumer(ref) is None or ref in leaving(graph):
            return None
        if _is_ordinary(graph, maker):
            has_bias = len(maker.tensors) < 3 or is_own(graph, maker.tensors[2])
            return Line(maker=maker, between=tuple(reversed(between)), reader=reader) if has_bias else None
        if not _passes(graph, maker):
            return None
        between.append(maker)
        ref = maker.tensors[0]


def _passes(graph: Graph, node: Node) -> bool:
    """Whether channels go through a node one by one, each to one of its own."""
    if ceiling_of(node) is not None or node.op in _POOLS:
        return len(node.outputs) == 1 and len(node.tensors) == 1
    own_bias = len(node.tensors) < 3 or is_own(graph, node.tensors[2])
    return has_own_weight(graph, node) and is_depthwise(graph, node) and own_bias


def chosen(weight: torch.Tensor, count: int, *, by_rows: bool) -> list[int]:
    """Which channels to split, in this order; a channel may come again, as may its copy.

    Args:
        weight: `[O, C, …]`.
        count: how many.
        by_rows: each result has a scale of its own; else one fits all.
    """
    largest = weight.abs().flatten(2).amax(2) if weight.dim() > 2 else weight.abs()
    largest = largest.double() if by_rows else largest.double().amax(0, keepdim=True)
    picked: list[int] = []
    for _ in range(count):
        first, where = largest.max(1)
        second = largest.scatter(1, where[:, None], 0.0).amax(1)
        gain = first.square() - torch.maximum(second, first / 2).square()
        gains = torch.zeros(largest.shape[1], dtype=torch.float64).scatter_add_(0, where, gain)
        best = int(gains.argmax())
        picked.append(best)
        largest[:, best] /= 2
        largest = torch.cat([largest, largest[:, best : best + 1]], 1)
    return picked


def split(captured: CapturedModel, line: Line, spec: QParamsSpec) -> CapturedModel:
    """The same network with some channels of a line twice."""
    names, values = captured.value_refs, dict(captured.values)
    name = names[line.reader.tensors[1]]
    count = math.ceil(SHARE * values[name].shape[1])
    by_rows = spec.granularity is Granularity.PER_CHANNEL
    picked = chosen(values[name], count, by_rows=by_rows)
    values[name], order = _halved(values[name], picked, spec)
    for node in (line.maker, *line.between):
        for ref in node.tensors[1:]:
            values[names[ref]] = values[names[ref]][order].contiguous()
    graph, copied = copy_graph(captured.fx_graph)
    by_name = {old.name: new for old, new in copied.items()}
    for node in (line.maker, *line.between, line.reader):
        _reshape(by_name[node.name], values, len(order))
    return replace(captured, fx_graph=graph, values=values)


def _halved(weight: torch.Tensor, picked: list[int], spec: QParamsSpec) -> tuple[torch.Tensor, list[int]]:
    """The weight with more columns, and of which old one each is."""
    order, split = list(range(weight.shape[1])), weight.double()
    for column in picked:
        order.append(order[column])
        split[:, column] /= 2
        split = torch.cat([split, split[:, column : column + 1]], 1)
    scale = choose_weight_qparams(split.float(), spec, 0).scale.double()
    quarter = scale.reshape(-1, *[1] * (weight.dim() - 2)) / 4
    for second, first in enumerate(picked, start=weight.shape[1]):
        split[:, first] -= quarter
        split[:, second] += quarter
    return split.to(weight.dtype), order


def _reshape(node: torch.fx.Node, values: dict[str, torch.Tensor], channels: int) -> None:
    """Notes what became of the shapes of a node's parameters and result."""
    for operand in node.all_input_nodes:
        if operand.name in values:
            operand.meta["val"] = values[operand.name]
    given = arguments(node)
    if given.get("groups", 1) != 1:
        node.args = (*node.args[:_GROUPS], channels, *node.args[_GROUPS + 1 :])
    node.meta["val"] = node.target(*map_arg(node.args, blank), **map_arg(node.kwargs, blank))  # type: ignore[operator]


PREPARATION = SplitChannels()
