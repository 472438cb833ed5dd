"""Implicit quantization: what comes back equals what went out; what TensorRT would compute otherwise is refused."""

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import export_as
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.formats import FORMATS
from bitwright.quant.onnx_import import graph_from_onnx
from bitwright.quant.onnx_import.calibration_cache import read_calibration_cache
from bitwright.quant.onnx_import.to_captured import to_quantized
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind, Granularity, Override, QParamsSpec, QuantScheme, ScaleKind

Example = Any  # of conftest.py
NAME = "tensorrt_implicit"
INT8 = QParamsSpec(format=FORMATS["int8"], symmetric=True)
CHANNELS = replace(INT8, granularity=Granularity.PER_CHANNEL)


def int8(make_scheme: Any, weights: QParamsSpec = CHANNELS) -> QuantScheme:
    scheme: QuantScheme = make_scheme("int8", "int8", weights=weights, bias=BiasKind.FLOAT32)
    return replace(scheme, name=f"implicit {weights.granularity}")


@pytest.mark.parametrize("weights", [CHANNELS, INT8], ids=["per_channel", "per_tensor"])
def test_plan_and_qparams_come_back(example: Example, weights: QParamsSpec, make_scheme: Any, tmp_path: Path) -> None:
    quantized = example.quantized(int8(make_scheme, weights))
    path, *_ = export_as(quantized, tmp_path / "model.onnx", NAME)
    onnx.checker.check_model(str(path))
    assert not any("Quantize" in node.op_type for node in onnx.load(path).graph.node)
    imported = graph_from_onnx(path)
    plan, graph = imported.plan_by(quantized.plan.scheme), imported.graph
    read = {ref for node in graph.nodes for ref in node.tensors} | set(graph.outputs)
    assert set(plan.activations) == {ref for ref in quantized.plan.activations if ref in read}
    assert set(plan.weights) == set(quantized.plan.weights)
    assert plan.quantized == quantized.plan.quantized
    assert plan.biases == quantized.plan.biases == {}
    for ref in (*plan.activations, *plan.weights):
        known, expected = imported.qparams[ref], quantized.qparams[ref]
        assert known.spec.format == FORMATS["int8"]
        assert known.axis == expected.axis
        np.testing.assert_array_equal(known.scale, expected.scale.numpy())
        assert not np.any(known.zero_point)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.side, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        return self.head((x + self.side(x).exp()).mean((2, 3)).unsqueeze(1))


def small(
    activations: QParamsSpec = INT8, weights: QParamsSpec = CHANNELS, *, overrides: tuple[Override, ...] = ()
) -> tuple[QuantizedModel, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    scheme = QuantScheme(
        name="small",
        activations=activations,
        weights=weights,
        bias=BiasKind.FLOAT32,
        quantized_operators=frozenset({"conv2d", "linear", "add", "mean"}),
        shared_qparams_operators=frozenset({"unsqueeze"}),
        fused_patterns=(("conv2d", "relu"),),
        overrides=overrides,
    )
    return quantize(capture(Net().eval(), (x,)), scheme, [(x,)], bias_correction=False), x


def test_the_network_that_comes_back_computes_the_same_bit_for_bit(tmp_path: Path) -> None:
    quantized, x = small()
    path, *_ = export_as(quantized, tmp_path / "model.onnx", NAME)
    again, _ = to_quantized(graph_from_onnx(path))
    with torch.no_grad():
        torch.testing.assert_close(again.run(x), quantized.run(x), rtol=0, atol=0)


def test_the_cache_is_written_as_tensorrt_writes_it(tmp_path: Path) -> None:
    """The bytes of each scale by `struct`, most significant first, as in NVIDIA's own caches."""
    quantized, _ = small()
    _, cache, *_ = export_as(quantized, tmp_path / "model.onnx", NAME, tensorrt="8.6.1")
    header, *lines = cache.read_text().splitlines()
    assert header == "TRT-8601-EntropyCalibration2"
    written = dict(line.rsplit(": ", 1) for line in lines)
    for ref in quantized.plan.activations:
        digits = written[str(ref).removeprefix("$")]
        assert struct.unpack(">f", bytes.fromhex(digits.zfill(8)))[0] == quantized.qparams[ref].scale.item()


def test_precisions_and_arguments(tmp_path: Path) -> None:
    quantized, _ = small(overrides=(Override(module="side", keep_float=True),))
    path, cache, precisions, arguments = export_as(quantized, tmp_path / "model.onnx", NAME, dla_core="1")
    content = json.loads(precisions.read_text())
    nodes = {node.name: node.op_type for node in onnx.load(path).graph.node}
    assert content["layers"].keys() == nodes.keys()
    by_type = {nodes[name]: precision for name, precision in content["layers"].items() if nodes[name] != "Conv"}
    assert {kind: by_type[kind] for kind in ("Exp", "Add", "Gemm")} == {"Exp": "fp16", "Add": "int8", "Gemm": "int8"}
    convolutions = {name.split("@")[0]: each for name, each in content["layers"].items() if nodes[name] == "Conv"}
    assert convolutions == {"conv": "int8", "side": "fp16"}
    lines = arguments.read_text().split()
    assert lines[:5] == [
        f"--onnx={path.name}",
        f"--calib={cache.name}",
        "--int8",
        "--fp16",
        "--precisionConstraints=obey",
    ]
    assert lines[6:] == ["--useDLACore=1", "--allowGPUFallback"]
    pairs = dict(pair.rsplit(":", 1) for pair in lines[5].removeprefix("--layerPrecisions=").split(","))
    assert pairs == content["layers"]


def test_values_within_fused_layers_and_around_moves_have_a_scale(tmp_path: Path) -> None:
    """Where one is missing TensorRT leaves int8: before the ReLU, and where a linear layer's input becomes a matrix."""
    quantized, _ = small()
    path, cache, *_ = export_as(quantized, tmp_path / "model.onnx", NAME)
    scales, model = read_calibration_cache(cache), onnx.load(path)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "Add")]
    assert len(layers) == 4
    results = {item.name for item in model.graph.output}
    for node in layers:
        assert node.input[0] in scales, node.name
        followed = [other for other in model.graph.node if node.output[0] in other.input]
        assert node.output[0] in scales or followed[0].output[0] in results or followed[0].op_type == "Exp", node.name
    (relu,) = (node for node in model.graph.node if node.op_type == "Relu")
    assert scales[relu.input[0]] == scales[relu.output[0]]


def test_weights_of_other_scales_are_written_as_the_values_of_their_codes(tmp_path: Path) -> None:
    """Clipped ranges: TensorRT would take the largest weight; from the rounded ones it finds the plan's scale."""
    quantized, x = small(weights=replace(CHANNELS, narrow_range=True))
    clipped_at = {ref: replace(quantized.qparams[ref], scale=quantized.qparams[ref].scale * 0.7) for ref in
                  quantized.plan.weights}  # fmt: skip
    quantized = replace(quantized, qparams={**quantized.qparams, **clipped_at})
    graph = quantized.captured.graph
    path, *_ = export_as(quantized, tmp_path / "model.onnx", NAME)
    imported = graph_from_onnx(path)
    for ref in quantized.plan.weights:
        qparams, stored = quantized.qparams[ref], torch.from_numpy(np.array(imported.graph.array(ref)))
        values = torch.from_numpy(graph.array(ref))
        np.testing.assert_allclose(imported.qparams[ref].scale, qparams.scale.numpy(), rtol=1e-6)
        assert torch.equal(codes_of(stored, qparams), codes_of(values, qparams))
        assert (stored != values).any()
    again, _ = to_quantized(imported)
    with torch.no_grad():
        step = float(max(each.scale.max() for each in quantized.qparams.values()))
        assert (again.run(x) - quantized.run(x)).abs().max() <= step


@pytest.mark.parametrize(
    ("activations", "weights", "message"),
    [
        (replace(INT8, symmetric=False), CHANNELS, r"^input \$x of conv2d 'conv'.*: asymmetric, with the zero point "
         r"-?\d+; TensorRT's implicit quantization is symmetric: quantize with symmetric: true$"),
        (replace(INT8, format=FORMATS["int16"]), CHANNELS, r"^input \$x of conv2d 'conv'.*: format int16; TensorRT's"),
        (replace(INT8, dynamic=True), CHANNELS, "its scale follows the data; a calibration cache holds fixed scales"),
        (INT8, replace(CHANNELS, format=FORMATS["int4"]), "^weight conv.weight of conv2d 'conv'.*: format int4"),
        (INT8, replace(INT8, granularity=Granularity.PER_BLOCK, block_size=4), "a scale for each block"),
        (INT8, replace(CHANNELS, scale_kind=ScaleKind.POWER_OF_TWO), r"^weight conv.weight of conv2d 'conv'.*: scale "
         r"\S+; TensorRT takes max \|w\| / 127 = \S+: quantize weights with observer min_max, narrow_range and"),
    ],
)  # fmt: skip
def test_what_implicit_quantization_lacks_is_refused_by_name(
    activations: QParamsSpec, weights: QParamsSpec, message: str, tmp_path: Path
) -> None:
    quantized, _ = small(activations, weights)
    with pytest.raises(InputError, match=message):
        export_as(quantized, tmp_path / "model.onnx", NAME)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensorrt": "10"}, "tensorrt = '10'; expected MAJOR.MINOR.PATCH, such as 10.7.0"),
        ({"tensorrt": "11.0.0"}, "TensorRT 11 has no implicit quantization: take 10 or older"),
        ({"dla_core": "both"}, "dla_core = 'both'; expected a number, such as 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        export_as(small()[0], tmp_path / "model.onnx", NAME, **settings)
