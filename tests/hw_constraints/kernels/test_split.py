"""What `split` says is compared with what the runtime says that it executes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from nets_by_hand import Net

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.kernels import Family, split
from bitwright.quant.errors import InputError

RUNTIMES = ["onnxruntime", "openvino"]


def ops(model: bytes, runtime: str) -> list[str]:
    return ["+".join((placed.kernel.op, *placed.kernel.epilogue)) for placed in split(model, runtime).kernels]


def test_convolutions_take_activations_and_additions_along(residual_float: bytes) -> None:
    fused = ["Conv+relu", "MaxPool", "Conv+relu", "Conv+add+relu", "GlobalAveragePool"]
    assert ops(residual_float, "onnxruntime") == [*fused, "blocked_to_plain", "Flatten", "Gemm"]
    assert ops(residual_float, "openvino") == ["plain_to_channels_last", *fused, "Gemm"]


def test_in_codes_relu_vanishes_and_additions_are_fused_only_by_openvino(residual_int8: bytes) -> None:
    begin, end = ["QuantizeLinear", "plain_to_channels_last", "Conv", "MaxPool", "Conv"], ["GlobalAveragePool"]
    assert ops(residual_int8, "onnxruntime") == [
        *begin,
        *("Conv", "Add", *end, "channels_last_to_plain", "Flatten", "Gemm+dequantize"),
    ]
    assert ops(residual_int8, "openvino") == [*begin, "Conv+requantize+add", *end, "Gemm+dequantize"]


@pytest.mark.parametrize("coded", ["float", "int8"])
def test_onnx_runtime_executes_as_many_kernels_of_each_kind(
    coded: str, residual_float: bytes, residual_int8: bytes
) -> None:
    model = residual_float if coded == "float" else residual_int8
    executed = Counter(node.op for node in get_backend("onnxruntime").load(model).executed_graph())
    kernels = Counter(placed.kernel.family for placed in split(model, "onnxruntime").kernels)
    assert kernels[Family.CONV] == executed["Conv"] + executed["QLinearConv"]
    assert kernels[Family.REORDER] == sum(executed[op] for op in ("ReorderInput", "ReorderOutput", "Transpose"))
    assert sum(kernels.values()) == sum(executed.values())


@pytest.mark.parametrize("coded", ["float", "int8"])
def test_openvino_executes_as_many_convolutions_and_additions(
    coded: str, residual_float: bytes, residual_int8: bytes
) -> None:
    model = residual_float if coded == "float" else residual_int8
    executed = Counter(node.op for node in get_backend("openvino").load(model).executed_graph())
    kernels = Counter(placed.kernel.family for placed in split(model, "openvino").kernels)
    assert kernels[Family.CONV] == executed["Convolution"]
    assert kernels[Family.ELEMENTWISE] == executed["Eltwise"] == 0
    assert kernels[Family.LINEAR] == executed["FullyConnected"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_layer_of_the_file_is_in_one_kernel(runtime: str, residual_float: bytes) -> None:
    layers = [
        layer
        for placed in split(residual_float, runtime).kernels
        if placed.kernel.family != Family.REORDER
        for layer in placed.layers
    ]
    assert len(layers) == len(set(layers))
    assert {"stem", "stem_relu", "pool", "first", "second", "sum", "sum_relu", "mean", "logits"} <= set(layers)


def test_a_bound_that_codes_can_exceed_keeps_the_layer_in_float() -> None:
    """ONNX Runtime drops a relu before codes only when their zero point is the least code; so it is with ours."""
    models = {}
    for zero in (0, 100):
        net = Net()
        conv = net.node("Conv", [net.codes("x", 100), net.weight(32, 32, 3, 3, coded=True)], "conv")
        models[zero] = net.model((1, 32, 8, 8), net.codes(net.node("Relu", [conv], "relu"), zero))
    for zero, in_codes in ((0, True), (100, False)):
        executed = {node.op for node in get_backend("onnxruntime").load(models[zero]).executed_graph()}
        kernels = [placed.kernel for placed in split(models[zero], "onnxruntime").kernels]
        convolution = next(kernel for kernel in kernels if kernel.family is Family.CONV)
        assert ("QLinearConv" in executed) is in_codes
        assert (convolution.format == "int8") is in_codes


def test_codes_pass_through_views() -> None:
    net = Net()
    view = net.node("Reshape", [net.codes("x"), net.constant(np.asarray([4, 16]))], "view")
    product = net.node("MatMul", [view, net.weight(16, 8, coded=True)], "product")
    model = net.model(
        (1, 4, 16), net.codes(net.node("Reshape", [product, net.constant(np.asarray([1, 4, 8]))], "back"))
    )
    formats = {placed.kernel.op: placed.kernel.format for placed in split(model, "onnxruntime").kernels}
    assert formats["MatMul"] == "int8"


def test_a_gather_is_not_merged_with_the_layer_behind_it() -> None:
    net = Net()
    token = net.node("Gather", [net.codes("x"), net.constant(np.asarray(0))], "token", axis=1)
    model = net.model((1, 4, 16), net.node("Gemm", [net.codes(token), net.weight(16, 8, coded=True)], "product"))
    kernels = [placed.kernel for placed in split(model, "onnxruntime").kernels]
    assert [kernel.inputs for kernel in kernels if kernel.op == "Gemm"] == [((1, 16),)]


@pytest.mark.parametrize(("runtime", "expected"), [("onnxruntime", ["Conv", "silu"]), ("openvino", ["Conv+silu"])])
def test_silu_is_one_kernel(runtime: str, expected: list[str]) -> None:
    net = Net()
    conv = net.node("Conv", ["x", net.weight(32, 32, 1, 1, coded=False)], "conv")
    model = net.model((1, 32, 8, 8), net.node("Mul", [conv, net.node("Sigmoid", [conv], "gate")], "silu"))
    assert [op for op in ops(model, runtime) if "_to_" not in op] == expected


def test_sizes_that_are_not_static_are_refused(residual_float: bytes) -> None:
    model = onnx.load_model_from_string(residual_float)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(InputError, match="its latency needs static sizes"):
        split(model, "onnxruntime")


def test_a_runtime_that_nobody_probed_is_named(residual_float: bytes) -> None:
    with pytest.raises(InputError, match="runtime 'abacus': what it fuses is not known"):
        split(residual_float, "abacus")


def test_openvino_takes_norms_that_stand_alone_as_products_and_sums() -> None:
    """Of a dense block: concatenation, norm, relu; one node, in the layout of its neighbours, as is executed."""
    net = Net()
    stem = net.node("Conv", ["x", net.weight(32, 16, 3, 3, coded=False)], "stem", pads=[1] * 4, kernel_shape=[3, 3])
    joined = net.node("Concat", [stem, net.node("Relu", [stem], "relu")], "joined", axis=1)
    channels = [net.constant(np.linspace(0.5, 1.5, 64, dtype=np.float32)) for _ in range(4)]
    norm = net.node("Relu", [net.node("BatchNormalization", [joined, *channels], "norm")], "norm_relu")
    last = net.node("Conv", [norm, net.weight(16, 64, 1, 1, coded=False)], "last", kernel_shape=[1, 1])
    model = net.model((1, 16, 12, 12), last)
    assert ops(model, "openvino").count("BatchNormalization+relu") == 1
    executed = Counter(node.op for node in get_backend("openvino").load(model).executed_graph())
    kernels = Counter(placed.kernel.family for placed in split(model, "openvino").kernels)
    alone = kernels[Family.NORM] + kernels[Family.ACTIVATION]
    assert alone == executed["Subgraph"] + executed["Eltwise"] == 2
    assert kernels[Family.CONV] + kernels[Family.POINTWISE] == executed["Convolution"]
    assert kernels[Family.REORDER] <= executed["Reorder"]
