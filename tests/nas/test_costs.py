from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from bitwright.hw_constraints.target import load_target
from bitwright.nas import costs
from bitwright.nas.block_formats import apply_block_formats
from bitwright.nas.fingerprint import network_hash
from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import QuantPlan, plan

TARGET = load_target("x86-vnni")


class Net(nn.Module):
    def __init__(self, names: Sequence[str] = ("one", "two"), channels: int = 8) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Conv2d(3, channels, 3, padding=1))
        self.add_module(names[1], nn.Conv2d(channels, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(self.names[1])(torch.relu(self.get_submodule(self.names[0])(x)))


def planned(net: nn.Module, **formats: str) -> tuple[Graph, QuantPlan]:
    graph = fold_batch_norm(capture(net, (torch.zeros(1, 3, 10, 10),))).graph
    scheme = replace(TARGET.scheme(), quantize_outputs=False, codes_only_operators=frozenset())
    return graph, plan(graph, apply_block_formats(scheme, TARGET, formats))


def test_weights_are_counted_in_their_formats() -> None:
    weights, biases = (8 * 3 * 9, 4 * 8), (8, 4)
    assert costs.weight_bytes(*planned(Net())) == sum(weights) + 4 * sum(biases)
    assert costs.weight_bytes(*planned(Net(), two="float32")) == weights[0] + 4 * weights[1] + 4 * sum(biases)
    assert costs.weight_bytes(*planned(Net(), two="int4")) == weights[0] + weights[1] // 2 + 4 * sum(biases)


def test_macs_are_counted_in_full() -> None:
    assert costs.macs(planned(Net())[0]) == 100 * (8 * 3 * 9 + 4 * 8)


def test_peak_activations_are_those_of_the_worst_moment() -> None:
    # The second convolution holds its u8 input [1, 8, 10, 10] and its output [1, 4, 10, 10] in float32, as that leaves
    # the network unquantized; what is between the first one and its ReLU is never stored.
    assert costs.activation_bytes(*planned(Net())) == 8 * 100 + 4 * 4 * 100
    assert costs.activation_bytes(*planned(Net(), one="float32")) >= 8 * 100 + 4 * 4 * 100


def test_names_of_modules_do_not_make_another_network() -> None:
    assert network_hash(*planned(Net())) == network_hash(*planned(Net(("a", "b"))))


def test_shapes_and_formats_make_another_network() -> None:
    hashes = {
        network_hash(*planned(net, **formats))
        for net, formats in ((Net(), {}), (Net(channels=16), {}), (Net(), {"two": "float32"}), (Net(), {"one": "int4"}))
    }
    assert len(hashes) == 4


def test_the_target_s_own_format_is_no_exception() -> None:
    assert network_hash(*planned(Net(), one="int8")) == network_hash(*planned(Net()))
