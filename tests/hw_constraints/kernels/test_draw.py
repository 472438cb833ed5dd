from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bitwright.hw_constraints.kernels import Family, Kernel, draw_kernels, known_rules, unusual
from bitwright.hw_constraints.kernels.axes import moves_one_axis, turns
from bitwright.hw_constraints.kernels.draw_moves import reduced
from bitwright.hw_constraints.kernels.random_sizes import RandomSizes

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
            padding=kernel.attribute("pads")[:2],
            output_padding=kernel.attribute("output_padding", 0),
            device="meta",
        )
        assert tuple(network(torch.empty(kernel.inputs[0], device="meta")).shape) == kernel.outputs[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_shapes_beside_the_usual_are_drawn(runtime: str) -> None:
    def share(family: Family, has: Callable[[Kernel], bool], number_format: str = "float32") -> float:
        kernels = draw_kernels(family, number_format, runtime, 150)
        return sum(map(has, kernels)) / len(kernels)

    def channels(kernel: Kernel) -> int:
        return min(kernel.inputs[0][1], kernel.outputs[0][1])

    for number_format in ("float32", "int8"):
        assert share(Family.CONV, lambda k: len(set(k.weight[2:])) > 1, number_format) > 0.05
        assert share(Family.CONV, lambda k: min(k.weight[2:]) > 1 and k.weight[2] != k.weight[3], number_format) > 0.01
        assert share(Family.CONV, lambda k: max(k.weight[2:]) > 7, number_format) > 0.01
        assert share(Family.CONV, lambda k: channels(k) < 3, number_format) > 0.02
        assert share(Family.POINTWISE, lambda k: channels(k) <= 3, number_format) > 0.02
        assert share(Family.DEPTHWISE, lambda k: min(k.weight[2:]) == 1, number_format) > 0.08
        assert share(Family.DEPTHWISE, lambda k: max(k.attribute("dilations")) > 1, number_format) > 0.03
        assert share(Family.GROUPED, lambda k: max(k.weight[2:]) > 3 and k.weight[1] > 1, number_format) > 0.08
        assert share(Family.POOL, lambda k: k.op == "MaxPool" and k.layout == "plain", number_format) > 0.03
    assert share(Family.CONV_TRANSPOSE, lambda k: max(k.weight[2:]) > 4) > 0.1
    assert share(Family.CONV_TRANSPOSE, lambda k: min(k.weight[2:]) == 1) > 0.03
    assert share(Family.SOFTMAX, lambda k: k.attribute("axis") in (1, 2)) > 0.1
    assert share(Family.COPY, lambda k: k.op == "Transpose" and not moves_one_axis(k)) > 0.08
    assert share(Family.ELEMENTWISE, lambda k: turns(k) > 1) > 0.05
    assert share(Family.OTHER, lambda k: k.op.startswith("Reduce") and k.attribute("const:1") == (1,)) > 0.05


@pytest.mark.parametrize("seed", range(20))
def test_unusual_shapes_are_what_they_are_called(seed: int) -> None:
    choice = random.Random(seed)
    shape, order = unusual.turned(choice)
    longer = [axis for axis in order if shape[axis] > 1]
    assert sorted(order) == list(range(len(shape))) and longer != sorted(longer)
    shape, other = unusual.repeated(choice)
    assert other != shape and np.broadcast_shapes(shape, other) == shape
    shape, axis = unusual.inner_axis(choice)
    assert 1 <= axis < len(shape) - 1 and shape[axis] > 1
    move = reduced(RandomSizes(choice))
    (shape,), axes = move.inputs, move.attributes["const:1"]
    assert np.zeros(shape).max(axis=axes, keepdims=bool(move.attributes["keepdims"])).shape == move.output
    assert len(set(unusual.window(choice))) == 2
