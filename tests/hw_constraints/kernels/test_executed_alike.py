"""Small networks in which runtimes do what once was told wrongly: kernels said against nodes executed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from nets_by_hand import Net

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.kernels import Family, Kernel, minimal_model, split

REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")


def said_and_executed(model: bytes, runtime: str) -> tuple[Counter[Family], Counter[str]]:
    said = Counter(placed.kernel.family for placed in split(model, runtime).kernels)
    return said, Counter(node.op for node in get_backend(runtime).load(model).executed_graph())


def conv(net: Net, value: str, name: str, out: int, into: int, *, coded: bool = False) -> str:
    return net.node("Conv", [value, net.weight(out, into, 3, 3, coded=coded)], name, pads=[1] * 4, kernel_shape=[3, 3])


def clip(net: Net, value: str) -> str:
    return net.node("Clip", [value, *(net.constant(np.float32(bound)) for bound in (0, 6))], f"{value}_clip")


def test_behind_an_addition_onnx_runtime_fuses_no_clip() -> None:
    net = Net()
    first = conv(net, "x", "first", 32, 32)
    total = net.node("Add", [conv(net, first, "second", 32, 32), first], "total")
    said, executed = said_and_executed(net.model((1, 32, 8, 8), clip(net, total)), "onnxruntime")
    assert said[Family.ACTIVATION] == executed["Clip"] == 1
    assert sum(said.values()) == sum(executed.values())


def test_onnx_runtime_computes_activations_in_blocks_that_are_padded() -> None:
    net = Net()
    gate = conv(net, "x", "gate", 24, 32)
    silu = net.node("Mul", [gate, net.node("Sigmoid", [gate], "sigmoid")], "silu")
    said, executed = said_and_executed(net.model((1, 32, 8, 8), conv(net, silu, "last", 32, 24)), "onnxruntime")
    assert said[Family.ACTIVATION] == executed["QuickGelu"] == 1
    assert said[Family.REORDER] == sum(executed[op] for op in REORDERS) == 2


def resized(mode: str) -> bytes:
    net = Net()
    scales = net.constant(np.asarray([1, 1, 2, 2], np.float32))
    first = net.codes(conv(net, net.codes("x"), "first", 32, 32, coded=True), 100)
    settings = {"coordinate_transformation_mode": "asymmetric", "mode": mode}
    settings |= {"nearest_mode": "floor"} if mode == "nearest" else {}
    larger = net.codes(net.node("Resize", [first, "", scales], "larger", **settings), 100)
    return net.model((1, 32, 8, 8), net.codes(conv(net, larger, "last", 32, 32, coded=True), 100))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_onnx_runtime_resizes_codes_in_the_layout_of_its_neighbours(mode: str) -> None:
    said, executed = said_and_executed(resized(mode), "onnxruntime")
    assert said[Family.RESIZE] == executed["Resize"] == 1
    assert said[Family.REORDER] == executed["Transpose"] == 2
    assert sum(said.values()) == sum(executed.values())


@pytest.mark.parametrize(("mode", "said"), [("nearest", ("int8", ())), ("linear", ("float32", ("quantize",)))])
def test_openvino_interpolates_codes_only_by_the_nearest_one(mode: str, said: tuple[str, tuple[str, ...]]) -> None:
    model = resized(mode)
    resize = next(placed.kernel for placed in split(model, "openvino").kernels if placed.kernel.op == "Resize")
    assert (resize.format, resize.epilogue) == said
    executed = {node.op: node.originals for node in get_backend("openvino").load(model).executed_graph()}
    assert ("larger/q" in executed["Interpolate"]) is (resize.epilogue == ("quantize",))
    before = [node.originals for node in get_backend("openvino").load(model).executed_graph() if node.op == "Subgraph"]
    assert any("first/dq" in originals for originals in before) is (resize.format == "float32")


def branches_joined() -> bytes:
    """A residual branch behind HardSwish, joined with one that is only quantized behind the concatenation."""
    net = Net()
    stem = net.codes(conv(net, net.codes("x"), "stem", 32, 32, coded=True), 100)
    first = net.codes(net.node("HardSwish", [stem], "first"), 100, 0.03)
    second = net.codes(conv(net, first, "second", 32, 32, coded=True), 100)
    total = net.codes(net.node("Add", [net.codes(net.node("HardSwish", [second], "act"), 90), first], "total"), 100)
    other = net.node("HardSwish", [net.codes(conv(net, first, "third", 32, 32, coded=True), 100)], "other")
    joined = net.codes(net.node("Concat", [total, other], "joined", axis=1), 100)
    return net.model((1, 32, 8, 8), net.codes(conv(net, joined, "last", 32, 64, coded=True), 100))


def test_openvino_adds_behind_an_activation_and_quantizes_in_front_of_a_concatenation() -> None:
    said, executed = said_and_executed(branches_joined(), "openvino")
    assert said[Family.ACTIVATION] == 3 and said[Family.ELEMENTWISE] == 0
    # Codes of the argument, and the real values of what leaves, are made by generated code as well.
    assert said[Family.ACTIVATION] + said[Family.QUANTIZE] + said[Family.DEQUANTIZE] == executed["Subgraph"] == 5
    assert said[Family.CONCAT] == executed["Concatenation"] == 1
    formats = {placed.kernel.family: placed.kernel.format for placed in split(branches_joined(), "openvino").kernels}
    assert formats[Family.CONCAT] == "int8"


def large_nodes(model: bytes, elements: int) -> Counter[str]:
    """OpenVINO's own runtime graph: nodes of each kind whose result has so many elements."""
    import openvino

    compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU", {"INFERENCE_NUM_THREADS": 1})
    found: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        size = node.get_output_partial_shape(0).to_shape() if node.get_output_size() else ()
        if np.prod(size) == elements:
            found[node.get_rt_info()["layerType"].astype(str)] += 1
    return found


PICTURE, TOKENS = (1, 32, 12, 20), (1, 24, 320)


@pytest.mark.parametrize(
    ("family", "op", "number_format", "layout", "shape", "node"),
    [
        (Family.REORDER, "channels_last_to_plain", "float32", "plain", PICTURE, "Reorder"),
        (Family.REORDER, "plain_to_channels_last", "float32", "channels_last", PICTURE, "Reorder"),
        (Family.REORDER, "plain_to_channels_last", "int8", "channels_last", PICTURE, "Reorder"),
        (Family.DEQUANTIZE, "DequantizeLinear", "int8", "channels_last", PICTURE, "Subgraph"),
        (Family.DEQUANTIZE, "DequantizeLinear", "int8", "plain", TOKENS, "Subgraph"),
        (Family.ACTIVATION, "HardSwish", "int8", "channels_last", PICTURE, "Subgraph"),
        (Family.ACTIVATION, "Gelu", "int8", "plain", TOKENS, "Subgraph"),
    ],
)
def test_openvino_converts_the_whole_tensor_in_one_of_both_models(
    family: Family, op: str, number_format: str, layout: str, shape: tuple[int, ...], node: str
) -> None:
    """It moves slices, pools and views in front of conversions, where these cost nothing; here it cannot."""
    kernel = Kernel(family=family, op=op, format=number_format, inputs=(shape,), outputs=(shape,), layout=layout)
    model = minimal_model(kernel, "openvino", branches=1)
    elements = int(np.prod(shape))
    more, less = (large_nodes(each, elements) for each in (model.with_kernel, model.without_kernel))
    assert more[node] - less[node] == 1
    for each in (more, less):
        each.pop(node, None)
        each.pop("Reshape", None)
    assert more - less <= Counter({"Reorder": 1}) and not less - more


@pytest.mark.parametrize(("out", "family"), [(32, Family.DEPTHWISE), (64, Family.GROUPED)])
def test_a_convolution_that_makes_several_channels_of_each_is_no_depthwise_one(out: int, family: Family) -> None:
    """ONNX Runtime has its depthwise kernel, in blocks as in codes, only for as many channels out as in."""
    net = Net()
    first = conv(net, "x", "first", 32, 32)
    weight = net.weight(out, 1, 3, 3, coded=False)
    net.node("Conv", [first, weight], "each", pads=[1] * 4, kernel_shape=[3, 3], group=32)
    model = net.model((1, 32, 8, 8), conv(net, "each", "last", 32, out))
    said, executed = said_and_executed(model, "onnxruntime")
    assert said[family] == 1 and said[Family.DEPTHWISE] + said[Family.GROUPED] == 1
    assert said[Family.REORDER] == sum(executed[op] for op in REORDERS)
