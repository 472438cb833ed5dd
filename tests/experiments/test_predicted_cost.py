import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bitwright.experiments.predicted_cost import shape_cost, with_folded_shapes
from bitwright.hw_constraints.modelled_time import modelled_time
from bitwright.hw_constraints.target import load_target
from bitwright.qat.sparsity.removal import removable, remove
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


class Branches(nn.Module):
    """A residual block with a depthwise layer, and a concatenation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand, self.deep = conv(3, 24, 3), conv(24, 72, 1), conv(72, 72, 5, groups=72)
        self.project, self.side, self.join = conv(72, 24, 1), conv(24, 40, 3), conv(64, 32, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + self.project(self.deep(self.expand(x).relu()).relu())
        x = self.join(torch.cat([x, self.side(x).relu()], 1)).relu()
        return self.head(x.mean((2, 3)))


def conv(made: int, out: int, kernel: int, *, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(made, out, kernel, padding=kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out)
    nn.init.normal_(norm.bias)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    return nn.Sequential(layer, norm)


@pytest.mark.parametrize("target", ["ethos-u85-1024", "ethos-u55-128", "tesla-fsd-hw3"])
@pytest.mark.parametrize("network", [lambda: block(48), Branches])
def test_the_cost_of_a_smaller_network_is_that_of_the_network_really_cut(
    network: Callable[[], nn.Module], target: str
) -> None:
    torch.manual_seed(0)
    chip, picture, model = load_target(target), torch.randn(1, 3, 32, 32), network().eval()
    cost = shape_cost("latency", (), chip, chip.scheme())
    found = removable(model, (picture,))
    for share in (0, 3):  # nothing, then a third of each group
        gone = [unit for group in found.groups for unit in group.units[::share]] if share else []
        predicted = cost.of(found.channels.smaller(gone))
        remove(model, found, gone, (picture,))
        real = modelled_time(fold_batch_norm(capture(model, (picture,))).graph, chip, None)
        assert real is not None
        assert predicted == pytest.approx(real.us / 1e3, rel=0.01)


def test_a_target_that_knows_no_latency_says_what_to_give() -> None:
    target = load_target("x86-vnni")
    message = (
        "target 'x86-vnni' has no cost model; predict.tables = [FILE] brings a table of `bitwright measure kernels`, "
        "or give cost: macs"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        shape_cost("latency", (), target, target.scheme())
