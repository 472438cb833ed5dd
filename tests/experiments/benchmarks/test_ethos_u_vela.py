from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bitwright.experiments.benchmarks.peers.vela import VelaRun, configurations
from bitwright.experiments.benchmarks.rows.ethos_u_vela import kendall_tau_b, matched
from bitwright.experiments.benchmarks.tflite_network import tflite_network
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError

stats = pytest.importorskip("scipy.stats")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_tau_is_scipys(pairs):
    left, right = zip(*pairs, strict=True)
    if len(set(left)) > 1 and len(set(right)) > 1:
        assert kendall_tau_b(left, right) == pytest.approx(stats.kendalltau(left, right).statistic)


@dataclass
class Op:
    name: str
    cycles: int


@dataclass
class Cost:
    ops: tuple


def vela_run(layers):
    lines = tuple({"Name": name, "Op Cycles": str(cycles)} for name, cycles in layers)
    return VelaRun(version="", wall_s=0.0, summary={}, layers=lines, folder=Path())


def test_blocks_meet_by_name_and_parts_of_one_tensor_in_order():
    ours = Cost((Op("a", 1), Op("cat", 2), Op("cat", 3), Op("b", 4)))
    pairs, unmatched = matched(ours, vela_run([("a", 10), ("a", 0), ("cat", 20), ("cat", 30), ("c", 40)]))
    assert pairs == ((1, 10), (2, 20), (3, 30))
    assert sorted(unmatched) == ["b #0", "c #0"]


def test_every_configuration_names_a_target_and_its_system():
    for target, options in configurations().items():
        described = load_target(target)
        assert options[options.index("--accelerator-config") + 1] == target
        assert options[options.index("--system-config") + 1] in described.description


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.strided, self.same = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)

    def forward(self, x):
        return self.same(self.strided(x).relu())


def graph_of(network):
    torch.manual_seed(0)
    return capture(network.eval(), (torch.zeros(1, 3, 16, 16),)).graph


def test_padding_that_is_not_tensorflows_is_an_operator_of_its_own():
    described = tflite_network(graph_of(Net())).described()
    operators = [(op["op"], op["options"].get("padding")) for op in described["operators"]]
    assert operators == [("PAD", None), ("CONV_2D", "VALID"), ("DEPTHWISE_CONV_2D", "SAME")]
    shapes = [described["tensors"][op["outputs"][0]]["shape"] for op in described["operators"]]
    assert shapes == [[1, 18, 18, 3], [1, 8, 8, 8], [1, 8, 8, 8]]
    assert described["operators"][1]["options"]["fused_activation_function"] == "relu"


def test_weights_are_codes_of_what_torch_has_in_tensorflows_order():
    network = Net()
    described = tflite_network(graph_of(network))
    tensors = {tensor["name"]: tensor for tensor in described.described()["tensors"]}
    for name, order in (("strided", (0, 2, 3, 1)), ("same", (1, 2, 3, 0))):
        tensor = tensors[f"{name}.weight"]
        codes = described.arrays[tensor["data"]].astype(np.float64)
        axis = [1, 1, 1, 1]
        axis[tensor["axis"]] = -1
        float_weights = getattr(network, name).weight.detach().numpy().transpose(order)
        step = np.reshape(tensor["scale"], axis)
        assert np.abs(codes * step - float_weights).max() <= step.max() / 2 + 1e-9
        assert np.abs(codes).max() == 127


def test_an_operator_without_a_form_is_named():
    class Unknown(nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 1)

    with pytest.raises(InputError, match="node 'cumsum': no TensorFlow Lite form for 'cumsum' here"):
        tflite_network(graph_of(Unknown()))
