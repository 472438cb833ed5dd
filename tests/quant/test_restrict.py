"""Nodes taken back to float: against the float network, and against a plan that kept them in float from the start."""

import re

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize
from bitwright.quant.restrict import restrict_model, restrict_plan
from bitwright.quant.scheme import Override

SCHEME = load_target("x86-vnni").scheme()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.SiLU())
        self.third = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = self.third(torch.cat([x, self.second(x)], 1)) + x
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    captured = capture(Network().eval(), (torch.zeros(2, 3, 8, 8),))
    return quantize(captured, SCHEME, [torch.randn(2, 3, 8, 8) for _ in range(8)]), fold_batch_norm(captured)


def test_all_in_float_is_the_float_network(networks):
    quantized, reference = networks
    restricted = restrict_model(quantized, reference, floats=dict.fromkeys(quantized.plan.quantized, "asked"))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(restricted.run(x), reference.run(x))  # corrected biases would show
    assert not restricted.qparams
    assert set(restricted.plan.kept_float.values()) >= {"asked"}


def test_none_in_float_is_the_quantized_network(networks):
    quantized, reference = networks
    restricted = restrict_model(quantized, reference, floats={})
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(restricted.run(x), quantized.run(x))


@pytest.mark.parametrize("module", ["first", "second", "third", "head"])
def test_it_is_the_plan_that_would_have_kept_them_in_float(networks, module):
    graph, full = networks[0].captured.graph, networks[0].plan
    wanted = plan(graph, SCHEME.with_overrides(Override(module=module, keep_float=True)))
    floats = {node.name: "asked" for node in graph.nodes if node.name in full.quantized - wanted.quantized}
    assert floats
    found = restrict_plan(graph, full, floats=floats)
    assert found.quantized == wanted.quantized
    assert found.activations == wanted.activations
    assert found.weights == wanted.weights
    assert found.biases == wanted.biases
    assert set(found.groups) == set(wanted.groups)


def test_a_real_result_has_no_codes_where_only_float_operators_read_it(networks):
    quantized, _ = networks
    graph = quantized.captured.graph
    convs = [node for node in graph.nodes if node.op == "conv2d"]
    silu = next(node for node in graph.nodes if node.op == "silu")
    before_silu, shared = convs[1].outputs[0], graph.producers[convs[1].inputs[0]].outputs[0]
    assert graph.consumers[before_silu] == (silu,)
    found = restrict_plan(graph, quantized.plan, floats={}, real={before_silu, shared})
    assert quantized.plan.activations.keys() - found.activations.keys() == {before_silu}


def test_a_fused_chain_is_not_torn(networks):
    quantized, _ = networks
    first, *_ = quantized.plan.fused[0]
    with pytest.raises(ValueError, match=re.escape("run as one: keep all of them in float, or none")):
        restrict_plan(quantized.captured.graph, quantized.plan, floats={first: "asked"})
