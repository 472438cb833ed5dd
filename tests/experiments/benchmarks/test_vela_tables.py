"""What Vela does with a function behind a convolution is what `table_lookups` of the Ethos-U targets says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.experiments.benchmarks import places
from bitwright.experiments.benchmarks.peers.vela import PEER, configurations, run_vela
from bitwright.experiments.benchmarks.tflite_network import tflite_network
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.graph import Graph

FUNCTIONS = {
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "hardswish": nn.Hardswish(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
}


def network(function: nn.Module) -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), function, nn.Conv2d(32, 32, 3, 1, 1))
    return capture(layers.eval(), (torch.zeros(1, 3, 64, 64),)).graph


@pytest.mark.parametrize("target", configurations())
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_lowering_runs_both_as_one(name: str, target: str) -> None:
    lowered = lower(network(FUNCTIONS[name]), load_target(target))
    assert [[node.op for node in op.block.nodes] for op in lowered.ops] == [["conv2d", name], ["conv2d"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vela_looks_the_function_up_as_the_convolution_writes(name: str, tmp_path: Path) -> None:
    home = places.peers_home()
    if not (home / PEER).is_dir():
        pytest.skip("needs Vela: python -m bitwright.experiments.benchmarks.setup_peers")
    for target, run in run_vela(name, tflite_network(network(FUNCTIONS[name])), home=home, cache=tmp_path).items():
        written, table, second = run.layers
        assert written["Name"] == table["Name"] != second["Name"], target  # both make the same tensor
        assert (table["NNG Operator"], table["Op Cycles"]) == ("LUT", "0"), target


def test_the_targets_name_these_functions() -> None:
    for target in configurations():
        tables = load_target(target).operators.table_lookups
        assert tables is not None and tables.of == set(FUNCTIONS)
