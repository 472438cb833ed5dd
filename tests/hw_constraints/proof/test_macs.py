"""Multiply-accumulates against published counts and against counting by hand."""

import numpy as np
import onnx
import pytest

from bitwright.hw_constraints.proof.macs import count_macs
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph


def total(model: onnx.ModelProto) -> int:
    return sum(count_macs(OnnxGraph(model, "test")).values())


def test_resnet18_at_224(resnet18):
    # 1.814 GMAC: torchvision's published 1.814 GFLOPS (multiply-adds) for ResNet18_Weights.IMAGENET1K_V1.
    assert total(resnet18) == 1_814_073_344


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "expected"),
    [
        ("Conv", [(2, 8, 10, 10), (6, 8, 3, 3)], {}, 2 * 6 * 8 * 8 * 8 * 9),
        ("Conv", [(1, 8, 10, 10), (8, 1, 3, 3)], {"group": 8, "pads": [1] * 4}, 8 * 100 * 9),
        ("Conv", [(1, 4, 9), (6, 2, 3)], {"group": 2, "strides": [2]}, 6 * 4 * 2 * 3),
        ("ConvTranspose", [(1, 8, 5, 5), (8, 3, 2, 2)], {"strides": [2, 2]}, 8 * 25 * 3 * 4),
        ("ConvTranspose", [(1, 8, 5, 5), (8, 2, 2, 2)], {"group": 2}, 8 * 25 * 2 * 4),
        ("MatMul", [(2, 7, 5), (5, 3)], {}, 2 * 7 * 5 * 3),
        ("MatMul", [(4, 2, 7, 5), (4, 2, 5, 3)], {}, 8 * 7 * 5 * 3),
        ("Gemm", [(7, 5), (5, 3)], {}, 7 * 5 * 3),
        ("Gemm", [(5, 7), (3, 5)], {"transA": 1, "transB": 1}, 7 * 5 * 3),
    ],
)
def test_by_hand(network, op, inputs, attributes, expected):
    net = network()
    weight = net.constant(np.zeros(inputs[1], np.float32))
    assert total(net.model(net.node(op, "image", weight, **attributes), shape=inputs[0])) == expected


def test_a_dynamic_batch_counts_as_one(network):
    net = network()
    weight = net.constant(np.zeros((6, 4, 1, 1), np.float32))
    assert total(net.model(net.node("Conv", "image", weight), shape=("batch", 4, 5, 5))) == 6 * 25 * 4


def test_an_unknown_shape_is_left_out(network):
    net = network()
    weight = net.constant(np.zeros((6, 4, 1, 1), np.float32))
    assert total(net.model(net.node("Conv", "image", weight), shape=(1, 4, "height", 5))) == 0


def test_shapes_pass_through_integer_operators_that_onnx_does_not_know(network):
    net = network()
    scale, zero = net.constant(np.float32(0.1)), net.constant(np.uint8(0))
    codes = net.node("QuantizeLinear", "image", scale, zero)
    codes = net.node("QLinearAdd", codes, scale, zero, codes, scale, zero, scale, zero, domain="com.microsoft")
    pooled = net.node(
        "QLinearGlobalAveragePool", codes, scale, zero, scale, zero, domain="com.microsoft", channels_last=0
    )
    flat = net.node("Flatten", pooled)
    weight = net.constant(np.zeros((16, 10), np.int8))
    net.node("QGemm", flat, scale, zero, weight, scale, net.constant(np.int8(0)), domain="com.microsoft")
    assert total(net.model(net.node("Identity", flat))) == 160
