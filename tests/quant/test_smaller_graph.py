"""A graph with fewer channels says what building, cutting and capturing the smaller network says."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.qat.sparsity.removal import removable, remove
from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph
from bitwright.quant.smaller_graph import smaller_graph

IMAGE = torch.randn(1, 3, 8, 8)


class Residual(nn.Module):
    """Depthwise layers there and back, a sum, a concatenation, groups of several channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.point, self.grouped = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 24, 1, groups=4)
        self.norm, self.back = nn.GroupNorm(4, 24), nn.ConvTranspose2d(16, 16, 2, 2, groups=16)
        self.last, self.head = nn.BatchNorm2d(40), nn.Linear(40, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu6(x + self.deep(x))
        y = self.norm(self.grouped(self.point(self.wide(x))))
        x = self.last(torch.cat([self.back(x), F.interpolate(y, scale_factor=2.0)], 1))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Heads(nn.Module):
    """Attention written out with sizes that follow from tensors, parts and a norm over features."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.qkv = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12), nn.Linear(12, 36)
        self.out, self.gate, self.head = nn.Linear(12, 12), nn.Linear(12, 24), nn.Linear(12, 2)
        self.slope = nn.Parameter(torch.randn(1, 1, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        batch, places, _ = x.shape
        y = self.norm(x)
        q, k, v = self.qkv(y).chunk(3, -1)
        q, k, v = (each.reshape(batch, places, -1, 4).transpose(1, 2) for each in (q, k, v))
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        y = x + self.out(y.transpose(1, 2).reshape(batch, places, -1))
        one, two = self.gate(y * self.slope.expand(batch, places, -1)).chunk(2, -1)
        return self.head((one * two.sigmoid()).mean(1))


def spelled(graph: Graph) -> list[tuple[object, ...]]:
    def plain(attributes: Mapping[str, object]) -> dict[str, object]:
        return {name: list(value) if isinstance(value, tuple | list) else value for name, value in attributes.items()}

    shapes = {ref: info.shape for ref, info in graph.tensors.items()}
    return [
        (node.op, [shapes[ref] for ref in (*node.tensors, *node.outputs)], plain(node.attributes))
        for node in graph.nodes
    ]


@pytest.mark.parametrize("network", [Residual, Heads])
def test_it_is_the_graph_of_the_network_that_was_really_cut(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().eval()
    found = removable(model, (IMAGE,), inexact=True)
    assert len(found.groups) >= 2
    gone = [unit for group in found.groups for unit in group.units[:: max(2, math.ceil(len(group.units) / 2))]]
    before = spelled(found.captured.graph)
    smaller = found.channels.smaller(gone)
    values = {ref: smaller.array(ref).copy() for ref in smaller.tensors if smaller.is_constant(ref)}
    assert spelled(found.channels.smaller(())) == before
    remove(model, found, gone, (IMAGE,))
    cut = capture(model, (IMAGE,)).graph
    assert spelled(smaller) == spelled(cut) != before
    assert all(np.array_equal(values[ref], cut.array(ref)) for ref in values)


def test_parts_and_stretches_are_said_where_the_channels_are_now() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 9, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = self.conv(x)
            one, two = x.split([4, 5], 1)
            a, b = x.split(5, 1)
            return tuple(each.mean((1, 2)) for each in (one, two, a, b, x[:, 2:7], x[:, 4]))

    graph = capture(Parts().eval(), (IMAGE,)).graph
    kept = np.array([0, 1, 4, 5, 8])
    stretches = iter([range(4), range(4, 9), range(5), range(5, 9), range(2, 7)])
    places = {graph.nodes[0].outputs[0]: {1: kept}}
    for node in graph.nodes:
        if node.op in ("split", "split_with_sizes", "slice"):
            places |= {ref: {1: np.flatnonzero(np.isin(next(stretches), kept))} for ref in node.outputs}
    said = {node.op: node.attributes for node in smaller_graph(graph, places).nodes}
    assert tuple(said["split_with_sizes"]["split_sizes"]) == (2, 3)
    assert said["split"]["split_size"] == 3
    assert (said["slice"]["start"], said["slice"]["end"]) == (2, 4)
    assert said["select"]["index"] == 2
