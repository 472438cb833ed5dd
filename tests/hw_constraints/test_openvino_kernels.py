"""What the target for OpenVINO alone claims, read off OpenVINO: activations run within the 8-bit layer before them."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(not this_machine().has_int8_dot_product, reason="a claim about processors with VNNI")

FUNCTIONS = {
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "gelu": nn.GELU(),
    "elu": nn.ELU(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "mish": nn.Mish(),
}
LAYERS = {"conv2d": "Convolution", "linear": "FullyConnected"}
# What the runtime computes in kernels of their own; two are left in any case, which code the input and the result.
ALONE = ("Subgraph", "Eltwise", "Math")


def network(layer: str, function: nn.Module) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if layer == "conv2d":
        body = [nn.Conv2d(16, 32, 3, padding=1), function, nn.Conv2d(32, 32, 3, padding=1), function]
        return nn.Sequential(*body, nn.Conv2d(32, 8, 1)).eval(), torch.randn(1, 16, 24, 24)
    body = [nn.Linear(64, 128), function, nn.Linear(128, 128), function]
    return nn.Sequential(*body, nn.Linear(128, 16)).eval(), torch.randn(32, 64)


def kernels(target: str, layer: str, function: nn.Module, folder: Path) -> Counter[tuple[str, str]]:
    """The runtime's operators with their precisions, for a network as the target plans it."""
    model, x = network(layer, function)
    quantized = quantize(capture(model, (x,)), load_target(target).scheme(), [x, torch.randn_like(x)])
    compiled = openvino.Core().compile_model(export_onnx_qdq(quantized, folder / "net.onnx"), "CPU")
    return Counter(
        (node.get_rt_info()["layerType"].astype(str), node.get_rt_info()["runtimePrecision"].astype(str))
        for node in compiled.get_runtime_model().get_ops()
    )


def alone(found: Counter[tuple[str, str]]) -> int:
    return sum(count for (kind, _), count in found.items() if kind in ALONE)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_a_post_operation_of_the_layer(name: str, layer: str, tmp_path: Path) -> None:
    found = kernels("x86-vnni-openvino", layer, FUNCTIONS[name], tmp_path)
    assert {key: n for key, n in found.items() if key[0] == LAYERS[layer]} == {(LAYERS[layer], "u8"): 3}
    assert alone(found) <= 2
    between = kernels("x86-vnni", layer, FUNCTIONS[name], tmp_path)  # with codes in front of the function
    assert alone(between) >= alone(found) + 2


def test_these_are_the_functions_that_the_target_names() -> None:
    patterns = load_target("x86-vnni-openvino").operators.fused_patterns
    more = set(patterns) - set(load_target("x86-vnni").operators.fused_patterns)
    assert {pattern[-1] for pattern in more} == set(FUNCTIONS)
    assert {pattern[0] for pattern in more} == set(LAYERS)
