"""Files that ONNX Runtime's own quantizer wrote: Q/DQ, integer operators, scales that are computed while it runs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.graph import Graph
from bitwright.quant.graph_difference import graph_difference
from bitwright.quant.onnx_import import ImportedModel, graph_from_onnx
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.scheme import Granularity


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x + self.depthwise(x), x], 1)[:, :8]
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Noise(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._batches = iter([{"x": generator.standard_normal((1, 3, 16, 16), np.float32)} for _ in range(4)])

    def get_next(self) -> Any:
        return next(self._batches, None)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    torch.manual_seed(0)
    captured = fold_batch_norm(capture(Residual().eval(), (torch.randn(1, 3, 16, 16),)))
    return captured.graph, export_float(captured.graph, tmp_path_factory.mktemp("float") / "float.onnx")


def static(source: Path, path: Path, layout: QuantFormat, **settings: Any) -> ImportedModel:
    quantize_static(source, path, Noise(), quant_format=layout, **settings)
    return graph_from_onnx(path)


@pytest.mark.parametrize("layout", [QuantFormat.QDQ, QuantFormat.QOperator], ids=str)
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_float_network_comes_back_from_underneath(
    layout: QuantFormat, per_channel: bool, network: tuple[Graph, Path], tmp_path: Path
) -> None:
    graph, source = network
    imported = static(source, tmp_path / "int8.onnx", layout, per_channel=per_channel)
    difference = graph_difference(graph, imported.graph)
    # The quantizer drops a ReLU in front of codes that begin at zero: the same values.
    assert list(difference.only_first) == ["relu ((1, 8, 8, 8),) -> ((1, 8, 8, 8),)"]
    assert difference.only_second == {}
    assert difference.macs[0] == difference.macs[1]
    assert difference.weight_bytes[0] == difference.weight_bytes[1]
    assert imported.plan is not None and not imported.kept
    layers = {node.name for node in imported.graph.nodes if imported.graph.is_layer(node)}
    assert layers <= imported.plan.quantized
    assert set(imported.plan.biases) == layers


@pytest.mark.parametrize("layout", [QuantFormat.QDQ, QuantFormat.QOperator], ids=str)
def test_weights_are_the_codes_times_their_scale(
    layout: QuantFormat, network: tuple[Graph, Path], tmp_path: Path
) -> None:
    graph, source = network
    imported = static(source, tmp_path / "int8.onnx", layout, per_channel=True, weight_type=QuantType.QInt8)
    layers = [[node for node in each.nodes if each.is_layer(node)] for each in (graph, imported.graph)]
    for expected, node in zip(*layers, strict=True):
        weight = node.tensors[1]
        known = imported.qparams[weight]
        assert known.spec.format.name == "int8"
        assert known.scale is not None
        error = np.abs(imported.graph.array(weight) - graph.array(expected.tensors[1]))
        assert error.max() <= known.scale.max() / 2 * 1.001
        bias_error = np.abs(imported.graph.array(node.tensors[2]) - graph.array(expected.tensors[2]))
        assert bias_error.max() < 1e-3


def test_scales_and_zero_points_are_those_of_the_file(network: tuple[Graph, Path], tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    imported = static(network[1], path, QuantFormat.QOperator)
    file = onnx.load(path)
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    first = next(node for node in file.graph.node if node.op_type == "QLinearConv")
    known = imported.qparams[imported.graph.nodes[0].tensors[0]]
    assert known.scale == tables[first.input[1]]
    assert known.zero_point == tables[first.input[2]].astype(np.float32)


def test_dynamic_scales_leave_the_same_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    graph = capture(model, (torch.randn(2, 3, 12),)).graph
    source, path = export_float(graph, tmp_path / "float.onnx"), tmp_path / "dynamic.onnx"
    # The quantizer takes MatMul, not Gemm; the file below is what other exporters write.
    file = onnx.load(source)
    file.producer_name = "other"
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    nodes, tensors, value = [], [], file.graph.input[0].name
    for i, (weight, bias) in enumerate((("0.weight", "0.bias"), ("2.weight", "2.bias"))):
        tensors += [
            numpy_helper.from_array(tables[weight].T.copy(), f"w{i}"),
            numpy_helper.from_array(tables[bias], f"b{i}"),
        ]
        nodes.append(onnx.helper.make_node("MatMul", [value, f"w{i}"], [f"p{i}"], name=f"matmul{i}"))
        nodes.append(onnx.helper.make_node("Add", [f"p{i}", f"b{i}"], [f"s{i}"], name=f"add{i}"))
        value = f"s{i}"
        if i == 0:
            nodes.append(onnx.helper.make_node("Relu", ["s0"], ["r"], name="relu"))
            value = "r"
    ends = [file.graph.input[0], onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, [2, 3, 5])]
    model_proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors),
        opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9,
    )  # fmt: skip
    onnx.save(model_proto, source)
    quantize_dynamic(source, path, per_channel=True, weight_type=QuantType.QInt8)
    imported = graph_from_onnx(path)
    assert [node.op for node in imported.graph.nodes] == ["linear", "relu", "linear"]
    assert graph_difference(graph, imported.graph).is_empty
    for name, node in (("0.weight", imported.graph.nodes[0]), ("2.weight", imported.graph.nodes[2])):
        weight = node.tensors[1]
        scale = imported.qparams[weight].scale
        assert scale is not None
        assert np.abs(imported.graph.array(weight) - tables[name]).max() <= scale.max() / 2 * 1.001
        assert imported.qparams[node.tensors[0]].scale is None  # known when it runs


def test_codes_at_the_borders_are_the_float_tensors_behind_them(tmp_path: Path) -> None:
    """A network that takes and gives codes, as for accelerators without a float unit."""
    make = onnx.helper.make_node
    nodes = [
        make("DequantizeLinear", ["x", "s", "z"], ["a"]),
        make("Relu", ["a"], ["b"]),
        make("QuantizeLinear", ["b", "s", "z"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [1, 4]) for name in "xy"]
    tensors = [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.uint8(3), "z")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "m.onnx")
    imported = graph_from_onnx(tmp_path / "m.onnx")
    assert [node.op for node in imported.graph.nodes] == ["relu"]
    for ref in (*imported.graph.inputs, *imported.graph.outputs):
        assert imported.graph.tensors[ref].dtype == "float32"
        assert imported.qparams[ref].scale == 0.5
        assert imported.qparams[ref].zero_point == 3


def test_an_activation_with_a_scale_for_each_channel_is_coded_so(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
        onnx.helper.make_node("Relu", ["d"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy"]
    tensors = [numpy_helper.from_array(np.float32([0.5, 2]), "s"), numpy_helper.from_array(np.uint8([3, 4]), "z")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "m.onnx")
    imported = graph_from_onnx(tmp_path / "m.onnx")
    known = imported.qparams[imported.graph.inputs[0]]
    assert (known.axis, known.spec.granularity) == (1, Granularity.PER_CHANNEL)
    assert imported.plan is not None and imported.plan.scheme.activations.granularity is Granularity.PER_TENSOR


def test_blocks_of_four_bits_keep_their_size(tmp_path: Path) -> None:
    """Opset 21: one scale for 8 neighbours, as language models have them."""
    codes = np.arange(32).reshape(2, 16) % 16 - 8
    scales = np.array([[0.5, 1.0], [2.0, 4.0]], np.float32)
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["codes", "scales"], ["w"], axis=1, block_size=8),
        onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    ends = [onnx.helper.make_tensor_value_info(*each) for each in (("x", 1, [3, 16]), ("y", 1, [3, 2]))]
    tensors = [
        onnx.helper.make_tensor("codes", onnx.TensorProto.INT4, [2, 16], codes.reshape(-1).tolist()),
        numpy_helper.from_array(scales, "scales"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]), tmp_path / "m.onnx")
    imported = graph_from_onnx(tmp_path / "m.onnx")
    layer = imported.graph.nodes[0]
    assert layer.op == "linear"
    known = imported.qparams[layer.tensors[1]]
    assert (known.spec.format.name, known.axis, known.spec.block_size) == ("int4", 1, 8)
    np.testing.assert_array_equal(imported.graph.array(layer.tensors[1]), codes * np.repeat(scales, 8, 1))
