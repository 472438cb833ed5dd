"""Imported networks that run: against ONNX Runtime on the same file, and written out again."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.to_captured import to_captured, to_quantized
from bitwright.quant.ptq import quantize
from bitwright.quant.restrict import restrict_model

SHAPE = (1, 3, 12, 12)


class Network(nn.Module):
    """Convolutions, a split, a concat, a resize, a gate and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Hardswish())
        self.third = nn.Sequential(nn.Conv2d(8, 6, 1), nn.SiLU())
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.head = nn.Sequential(nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        left, right = x.chunk(2, 1)
        x = torch.cat([self.second(left), right], 1) * torch.sigmoid(x.mean((2, 3), keepdim=True))
        y = torch.cat([self.up(self.pool(x)), self.third(x)], 1)
        return self.head(y.mean((2, 3))), y


class Noise(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.rest = iter(generator.standard_normal((12, *SHAPE)).astype(np.float32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.rest, None)
        return None if image is None else {"x": image}


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    captured = capture(Network().eval(), (torch.randn(SHAPE),))
    path = export_float(captured.graph, tmp_path_factory.mktemp("files") / "float.onnx")
    file = onnx.load(path)
    file.producer_name = "other"  # references and source lines must not be what makes it work
    onnx.save(file, path)
    path.with_suffix(".provenance.json").unlink()
    return path


@pytest.fixture(scope="module")
def quantized_file(float_file: Path) -> Path:
    path = float_file.with_name("quantized.onnx")
    settings = {"quant_format": QuantFormat.QDQ, "per_channel": True}
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(float_file, path, Noise(), **settings, **types)
    return path


def results(file: Path, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    # Fused kernels round once where Q/DQ round twice; the question here is what the file says.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(file), options).run(None, {"x": x})


X = np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32)


def test_a_float_file_runs_as_onnx_runtime_runs_it(float_file):
    captured = to_captured(graph_from_onnx(float_file).graph, float_file.name)
    for want, have in zip(results(float_file, X), captured.run(torch.from_numpy(X)), strict=True):
        np.testing.assert_allclose(have.numpy(), want, atol=1e-5)


def test_it_can_be_quantized_like_any_captured_network(float_file, tmp_path):
    from bitwright.hw_constraints.target import load_target

    captured = to_captured(graph_from_onnx(float_file).graph, float_file.name)
    quantized = quantize(captured, load_target("x86-vnni").scheme(), [torch.from_numpy(X)] * 2)
    file = export_onnx_qdq(quantized, tmp_path / "int8.onnx")
    for want, have in zip(results(float_file, X), results(file, X), strict=True):
        noise = np.square(want - have).mean() / np.square(want).mean()
        assert noise < 10 ** (-20 / 10)


def test_a_quantized_file_comes_back_code_for_code(quantized_file, tmp_path):
    quantized, _ = to_quantized(graph_from_onnx(quantized_file))
    written = export_onnx_qdq(quantized, tmp_path / "again.onnx")
    tables = [
        sorted(
            onnx.numpy_helper.to_array(tensor).tobytes()
            for tensor in onnx.load(file).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims and len(tensor.dims) > 1
        )
        for file in (quantized_file, written)
    ]
    assert tables[0] == tables[1] and len(tables[0]) == 5
    for want, have in zip(results(quantized_file, X), results(written, X), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)


def test_an_activation_that_a_quantizer_swallowed_is_there_in_float(float_file, quantized_file):
    operators = [node.op_type for node in onnx.load(quantized_file).graph.node]
    assert "Relu" not in operators and "Clip" not in operators  # else this tests nothing
    quantized, reference = to_quantized(graph_from_onnx(quantized_file))
    assert [node.op for node in reference.graph.nodes].count("hardtanh") == 2  # of the ReLU6, and of the head's ReLU
    floats = dict.fromkeys(quantized.plan.quantized, "asked")
    everything = restrict_model(quantized, reference, floats=floats)
    for want, have in zip(results(float_file, X), everything.run(torch.from_numpy(X)), strict=True):
        noise = np.square(want - have.numpy()).mean() / np.square(want).mean()
        assert noise < 10 ** (-25 / 10)  # of the weights, which are codes; a lost ReLU leaves less than 5 dB


def test_what_cannot_run_is_refused_by_name(tmp_path, float_file):
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    nodes = [helper.make_node("Own", ["x"], ["y"], domain="mine", name="mine")]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [out]), opset_imports=opsets, ir_version=9)
    path = tmp_path / "own.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match=re.escape("own.onnx: operator")):
        to_captured(graph_from_onnx(path).graph, "own.onnx")
    with pytest.raises(InputError, match=re.escape("float.onnx: has no QuantizeLinear; it is a network in float")):
        to_quantized(graph_from_onnx(float_file))


def test_open_shapes_are_refused(tmp_path):
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [value], [out]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match="give a file with static shapes"):
        to_captured(graph_from_onnx(path).graph, "open.onnx")
