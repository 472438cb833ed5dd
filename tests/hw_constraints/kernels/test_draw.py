from __future__ import annotations

import pytest
import torch

from bitwright.hw_constraints.kernels import Family, draw_kernels, known_rules

RUNTIMES = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("number_format", ["float32", "int8"])
def test_drawn_kernels_are_different_and_come_again(runtime: str, number_format: str) -> None:
    first = draw_kernels(None, number_format, runtime, 200, seed=7)
    assert first == draw_kernels(None, number_format, runtime, 200, seed=7)
    assert len({kernel.key for kernel in first}) == len(first) == 200
    assert draw_kernels(None, number_format, runtime, 200, seed=8) != first


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_convolutions_cover_small_and_large_aligned_and_not(runtime: str) -> None:
    kernels = draw_kernels(Family.CONV, "float32", runtime, 400)
    sides = [kernel.inputs[0][2] for kernel in kernels]
    assert min(sides) <= 4
    assert max(sides) >= 192
    assert min(kernel.macs for kernel in kernels) < 1e5 < 1e9 < max(kernel.macs for kernel in kernels)
    odd = [kernel for kernel in kernels if kernel.weight[0] % 8]
    assert 0.1 < len(odd) / len(kernels) < 0.5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_convolutions_fuse_only_what_the_runtime_fuses(runtime: str) -> None:
    rules = known_rules(runtime)
    for kernel in draw_kernels(Family.POINTWISE, "float32", runtime, 200):
        summed = False
        for op in kernel.epilogue:
            assert rules.fuses(kernel.family, "float32", op, behind_add=summed)
            summed = summed or op == "add"


def test_a_family_without_kernels_in_codes_gives_none() -> None:
    assert draw_kernels(Family.NORM, "int8", "onnxruntime", 5) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_transposed_convolutions_are_those_that_a_network_has(runtime: str) -> None:
    for kernel in draw_kernels(Family.CONV_TRANSPOSE, "float32", runtime, 20, seed=1):
        network = torch.nn.ConvTranspose2d(
            *kernel.weight[:2],
            kernel.weight[2:],
            stride=kernel.attribute("strides"),
            padding=kernel.attribute("pads")[0],
            output_padding=kernel.attribute("output_padding", 0),
            device="meta",
        )
        assert tuple(network(torch.empty(kernel.inputs[0], device="meta")).shape) == kernel.outputs[0]
