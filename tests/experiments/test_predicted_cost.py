import re

import pytest
import torch
from torch import nn

from bitwright.experiments.predicted_cost import shape_cost, with_folded_shapes
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.channel_graph import channel_graph
from bitwright.quant.errors import InputError
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm


def block(channels: int) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(3, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, groups=channels), nn.BatchNorm2d(channels), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4),
    )  # fmt: skip
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.bias)  # a shift of 0 would be folded into no bias at all
    return network.eval()


def spelled(graph: Graph) -> list[tuple[object, ...]]:
    return [(node.op, *(graph.tensors[ref].shape for ref in (*node.tensors, *node.outputs))) for node in graph.nodes]


def test_shapes_of_a_smaller_network_are_those_of_building_folding_and_capturing_it() -> None:
    picture = torch.randn(1, 3, 8, 8)
    channels = channel_graph(capture(block(12), (picture,)).graph)
    smaller = with_folded_shapes(channels.smaller(channels.groups[0].units[:5]))
    built = fold_batch_norm(capture(block(7), (picture,))).graph
    assert spelled(smaller) == spelled(built)
    assert "batch_norm" not in {node.op for node in smaller.nodes}


def test_a_target_that_knows_no_latency_says_what_to_give() -> None:
    target = load_target("x86-vnni")
    message = (
        "target 'x86-vnni' has no cost model; predict.tables = [FILE] brings a table of `bitwright measure kernels`, "
        "or give cost: macs"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        shape_cost("latency", (), target, target.scheme())
