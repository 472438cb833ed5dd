import itertools
import math

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.cost.ethos_u.estimate import network_cost
from bitwright.hw_constraints.cost.ethos_u.network import operations_of
from bitwright.hw_constraints.cost.ethos_u.operations import OpKind
from bitwright.hw_constraints.cost.ethos_u.systems import system_of
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.plan import plan

TARGETS = ("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024")


class Small(nn.Module):
    """Convolutions of each kind, a sum, a concatenation, pools, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.deep = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.point = nn.Conv2d(32, 64, 1)
        self.a = nn.Conv2d(64, 64, 3, 1, 1)
        self.b = nn.Conv2d(64, 48, 1)
        self.pool = nn.MaxPool2d(2)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(112, 10)

    def forward(self, x):
        x = self.deep(self.stem(x).relu()).relu()
        y = self.point(x)
        y = (self.a(y) + y).relu()
        y = self.pool(torch.cat([self.b(y), y], 1))
        return self.fc(self.gap(y).flatten(1))


def graph_of(network, side):
    torch.manual_seed(0)
    return capture(network().eval(), (torch.zeros(1, 3, side, side),)).graph


def operations_on(graph, target):
    return operations_of(graph, system_of(load_target(target)).configuration)[0]


@pytest.fixture(scope="module")
def small():
    return graph_of(Small, 64)


# What ethos-u-vela 5.2.0 printed for `Small` as `experiments/benchmarks/tflite_network.py` writes it, with the options
# of `experiments/benchmarks/peers/vela_options.json`: cycles, bytes of SRAM, bytes to and from DRAM or flash.
VELA = {
    "ethos-u55-128": (622459, 183792, 47584),
    "ethos-u65-512": (185609, 183808, 334224),
    "ethos-u85-1024": (128870, 183840, 218320),
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_small_network_costs_what_vela_says(small, target):
    cost = network_cost(small, load_target(target))
    cycles, sram, off_chip = VELA[target]
    assert cost.cycles == pytest.approx(cycles, rel=0.01)
    assert cost.on_chip_peak == pytest.approx(sram, rel=0.01)
    assert cost.off_chip_bytes == pytest.approx(off_chip, rel=0.01)


class Excited(nn.Module):
    """Squeeze and excite, lookup tables fused and alone."""

    def __init__(self):
        super().__init__()
        self.a, self.p, self.f = nn.Conv2d(3, 32, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1)
        self.g, self.c, self.d = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 1)

    def forward(self, x):
        y = nn.functional.hardswish(self.a(x))
        y = y * torch.sigmoid(self.g(self.f(self.p(y)).relu()))
        return self.d(nn.functional.silu(self.c(y)))


class Grouped(nn.Module):
    """Eight groups of eight channels, between convolutions of one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 64, 3, 2, 1), nn.Conv2d(64, 64, 3, 1, 1, groups=8), nn.Conv2d(64, 32, 1)

    def forward(self, x):
        return self.c(self.b(self.a(x)).relu())


# From the same source, cycles and SRAM.
OTHERS = [
    (Excited, "ethos-u55-128", 272237, 135824),
    (Excited, "ethos-u65-512", 100857, 135840),
    (Excited, "ethos-u85-1024", 110590, 135872),
    (Grouped, "ethos-u55-128", 197797, 133456),
    (Grouped, "ethos-u65-512", 68834, 133472),
    (Grouped, "ethos-u85-1024", 84291, 133504),
]


@pytest.mark.parametrize(("network", "target", "cycles", "sram"), OTHERS)
def test_other_forms_cost_what_vela_says(network, target, cycles, sram):
    cost = network_cost(graph_of(network, 64), load_target(target))
    assert not cost.unmodelled
    assert cost.cycles == pytest.approx(cycles, rel=0.01)
    assert cost.on_chip_peak == pytest.approx(sram, rel=0.01)


# Its lines for single operations on the U85.
VELA_BLOCKS = (22148, 4224, 12499, 52253, 9375, 8384, 9800, 9406, 781)


def test_each_block_costs_what_vela_says(small):
    cost = network_cost(small, load_target("ethos-u85-1024"))
    assert [op.cycles for op in cost.ops] == pytest.approx(VELA_BLOCKS, rel=0.01)


@pytest.mark.parametrize("target", TARGETS)
def test_no_operation_multiplies_faster_than_its_array(small, target):
    cost = network_cost(small, load_target(target))
    for op in cost.ops:
        assert op.cycles >= op.op.macs / cost.system.configuration.total_macs


@pytest.mark.parametrize("target", TARGETS)
def test_staging_keeps_its_limit(small, target):
    cost = network_cost(small, load_target(target))
    assert cost.on_chip_peak <= cost.system.staging_limit


class Wide(nn.Module):
    """Feature maps of 2 MiB each, that no 384 KiB hold."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), *(nn.Conv2d(32, 32, 3, 1, 1) for _ in range(3)))

    def forward(self, x):
        return self.layers(x)


def test_what_does_not_fit_is_cascaded_within_the_limit():
    graph = graph_of(Wide, 256)
    cost = network_cost(graph, load_target("ethos-u65-512"))
    assert cost.cascades == ((0, 3),)
    assert cost.on_chip_peak <= cost.system.staging_limit
    outer = [op.bytes["dram"] for op in cost.ops[1:3]]
    assert max(outer) < 256 * 256 * 32  # inner feature maps never go to DRAM


def test_where_the_sram_is_shared_nothing_is_cascaded():
    cost = network_cost(graph_of(Wide, 256), load_target("ethos-u55-128"))
    assert cost.cascades == ()
    assert cost.on_chip_peak >= 2 * 256 * 256 * 32


def test_u85_chains_a_sum_and_u55_does_not(small):
    chained = operations_on(small, "ethos-u85-1024")
    apart = operations_on(small, "ethos-u55-128")
    assert [len(op.chained) for op in chained if op.chained] == [1]
    assert sum(op.kind is OpKind.ELEMENTWISE for op in apart) == 1
    assert len(apart) == len(chained) + 1


def test_a_concatenation_is_written_in_place_but_for_what_others_read(small):
    operations = operations_on(small, "ethos-u55-128")
    joined = next(op.output for op in operations if len(op.output.producers) == 2)
    assert [(op.type, op.shape[2]) for op in joined.producers] == [("conv2d", 48), ("copy", 64)]


def test_operations_come_behind_those_that_make_their_operands(small):
    for target in TARGETS:
        operations = operations_on(small, target)
        made = [{id(writer) for writer in tensor.producers} for op in operations for tensor in op.read]
        done = [{id(earlier) for earlier in operations[: op.index]} for op in operations for _ in op.read]
        assert all(before <= known for before, known in zip(made, done, strict=True))


class WithAHole(nn.Module):
    """An operator that the model does not know between two convolutions."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)

    def forward(self, x):
        return self.after(torch.cumsum(self.before(x), 1).relu())


def test_what_is_not_modelled_is_left_out_and_named():
    cost = network_cost(graph_of(WithAHole, 32), load_target("ethos-u55-128"))
    assert [op.op.type for op in cost.ops] == ["conv2d", "relu", "conv2d"]
    (hole,) = cost.unmodelled
    assert str(hole).startswith("cumsum [cumsum] (")
    assert "test_ethos_u.py:" in str(hole)
    assert str(hole).endswith("the model of the Ethos-U does not know 'cumsum'")


@pytest.mark.parametrize("target", TARGETS)
def test_the_lowered_network_costs_the_same(small, target):
    described = load_target(target)
    estimated = estimate(lower(small, described))
    assert estimated.cycles == network_cost(small, described).cycles
    assert not estimated.not_modelled


def test_sixteen_bits_are_not_reckoned_as_eight(small):
    described = load_target("ethos-u55-128")
    wide = estimate(lower(small, described, plan=plan(small, described.scheme(activations="int16"))))
    assert wide.assumptions[0].startswith(
        "a roofline instead of the Ethos-U model: it knows activations of 8 bits, and $x is int16 (12 "
    )
    assert wide.assumptions[0].endswith("MACs are reckoned at int8's rate, so times are lower bounds")
    layers = [layer for layer in wide.layers if layer.macs]
    assert layers and all(layer.compute_us > 0 for layer in layers)
    narrow = estimate(lower(small, described, plan=plan(small, described.scheme())))
    assert not any("roofline" in each for each in narrow.assumptions)
    assert narrow.us > 0.5 * wide.us  # roofs are no longer than what they stand for


def test_what_is_not_modelled_gets_a_roof_of_its_own():
    estimated = estimate(lower(graph_of(lambda: Odd(), 16), load_target("ethos-u55-128")))
    assert any("a roofline for conv2d: the compiler takes strides of (4, 4) apart" in a for a in estimated.assumptions)
    assert all(layer.us is not None for layer in estimated.layers)


class Interrupted(nn.Module):
    """Two convolutions with a sine between them, which the processor reckons; or the first of them alone."""

    def __init__(self, whole):
        super().__init__()
        self.before, self.after, self.whole = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1), whole

    def forward(self, x):
        x = self.before(x).relu()
        return self.after(torch.sin(x)).relu() if self.whole else x


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_host_runs_leaves_the_rest_its_figures(target):
    described = load_target(target)
    graph = graph_of(lambda: Interrupted(whole=True), 32)
    found = estimate(lower(graph, described))
    before = network_cost(graph_of(lambda: Interrupted(whole=False), 32), described)
    assert [layer.name for layer in found.not_modelled] == ["sin"]
    assert found.layers[0].cycles == before.cycles
    assert found.layers[2].cycles > 0
    assert found.cycles == network_cost(graph, described).cycles
    assert "no figures for what the accelerator does not run: sin" in found.assumptions
    assert not any("roofline" in each for each in found.assumptions)


def test_an_operation_that_the_model_knows_is_none_of_its_where_the_host_runs_it():
    graph = graph_of(lambda: Interrupted(whole=False), 32)
    (relu,) = (node for node in graph.nodes if node.op == "relu")
    cost = network_cost(graph, load_target("ethos-u55-128"), elsewhere={relu.name})
    assert [op.op.activation for op in cost.ops] == [""]
    assert [each.reason for each in cost.unmodelled] == ["the accelerator does not run it"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_model_s_own_peak_stands_beside_the_program_s(small, target):
    found = estimate(lower(small, load_target(target)))
    assert found.model_peak_bytes == {"sram": network_cost(small, load_target(target)).on_chip_peak}
    assert found.to_json()["model_peak_bytes"] == found.model_peak_bytes
    assert any(
        each.startswith("sram: the compiler's own schedule, as modelled, peaks at ") for each in found.assumptions
    )


class Gated(nn.Module):
    """A SiLU: a lookup table and a product, of which the program has one operation or two."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)

    def forward(self, x):
        return self.b(nn.functional.silu(self.a(x)))


@pytest.mark.parametrize("target", TARGETS)
def test_no_operation_of_the_model_is_lost_on_the_way_to_the_program(target):
    graph, described = graph_of(Gated, 32), load_target(target)
    found = estimate(lower(graph, described))
    assert found.cycles == network_cost(graph, described).cycles
    assert not any("no counterpart" in each for each in found.assumptions)


class Odd(nn.Module):
    """Calls whose operators are known, in forms that are not."""

    def __init__(self):
        super().__init__()
        self.stride, self.conv = nn.Conv2d(16, 16, 4, 4), nn.Conv2d(16, 16, 3, 1, 1)
        self.bias = nn.Parameter(torch.zeros(1, 16, 1, 1))

    def forward(self, x):
        x = torch.cat([x] * 5 + [x[:, :1]], 1)
        y = self.stride(x).relu() + self.bias
        z = self.conv(x)
        return y, torch.cat([z, z], 2), z.flatten(1)


def test_forms_that_are_not_modelled_say_why():
    reasons = " | ".join(str(each) for each in network_cost(graph_of(Odd, 16), load_target("ethos-u55-128")).unmodelled)
    assert "the compiler takes strides of (4, 4) apart" in reasons
    assert "an operand is a constant tensor" in reasons
    assert "a concatenation of something else than channels" in reasons
    assert "channels and positions trade places" in reasons


def test_a_target_that_is_no_ethos_u_is_refused():
    with pytest.raises(InputError, match=r"'tesla-fsd-hw3': cost.model is not 'ethos_u'"):
        system_of(load_target("tesla-fsd-hw3"))


def test_more_channels_never_take_fewer_cycles():
    class Net(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.conv = nn.Conv2d(3, channels, 3, 1, 1)

        def forward(self, x):
            return self.conv(x)

    for target in TARGETS:
        costs = [network_cost(graph_of(lambda c=c: Net(c), 32), load_target(target)).cycles for c in (8, 32, 128, 512)]
        assert all(math.floor(a) <= b for a, b in itertools.pairwise(costs))
