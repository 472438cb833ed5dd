"""Layer by layer, given the same codes, the integer reference has the codes of ONNX Runtime's file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fake_quantize import quantize as code_of
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import TensorRef
from bitwright.quant.integer.deployed import FLOAT_RULE, compare_codes
from bitwright.quant.integer.network import IntegerLayers
from bitwright.quant.integer.rules import MLAS
from bitwright.quant.integer.tflite import TFLITE
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme

Run = Callable[..., list[np.ndarray]]


class Branches(nn.Module):
    """Convolutions of several kinds, an addition, a concatenation, pools, a gate, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU())
        self.pointwise, self.wide = nn.Conv2d(16, 16, 1), nn.Conv2d(32, 24, 3, padding=2, dilation=2)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = torch.relu(x + self.pointwise(self.depthwise(x)))
        z = self.wide(F.max_pool2d(torch.cat([x, y], 1), 2))
        return self.head(F.adaptive_avg_pool2d(z * torch.sigmoid(z), 1).flatten(1))


@pytest.fixture
def quantized(u8s8: QuantScheme) -> QuantizedModel:
    torch.manual_seed(0)
    batches = [torch.randn(1, 3, 32, 32) for _ in range(8)]
    return quantize(capture(Branches().eval(), (batches[0],)), u8s8, batches)


def deployed_codes(quantized: QuantizedModel, x: torch.Tensor, folder: Path, run_onnx: Run) -> dict[TensorRef, Any]:
    path = export_onnx_qdq(quantized, folder / "model.onnx")
    model = onnx.load(path)
    made = {output for node in model.graph.node for output in node.output}
    names = {ref: f"{value_name(ref)}/q" for ref in quantized.plan.activations if f"{value_name(ref)}/q" in made}
    for name in names.values():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    inputs = {model.graph.input[0].name: x.numpy()}
    results = run_onnx(model, inputs, list(names.values()), optimize=True)
    return dict(zip(names, results, strict=True))


def test_every_layer_has_the_codes_of_the_deployed_file(
    quantized: QuantizedModel, tmp_path: Path, run_onnx: Run
) -> None:
    x = torch.randn(1, 3, 32, 32)
    compared = compare_codes(quantized, (x,), deployed_codes(quantized, x, tmp_path, run_onnx))
    assert [each for each in compared if each.unlike] == []
    rules = {each.rule for each in compared}
    assert {"conv2d", "add", "max_pool2d", "sigmoid", "mul", "adaptive_avg_pool2d", FLOAT_RULE} <= rules


def test_a_layer_that_differs_is_named_alone(quantized: QuantizedModel, tmp_path: Path, run_onnx: Run) -> None:
    x = torch.randn(1, 3, 32, 32)
    deployed = deployed_codes(quantized, x, tmp_path, run_onnx)
    node = next(each for each in quantized.captured.graph.nodes if each.module_path == "pointwise")
    deployed[node.outputs[0]] = np.clip(deployed[node.outputs[0]].astype(np.int64) + 3, 0, 255)
    unlike = [each for each in compare_codes(quantized, (x,), deployed) if each.unlike]
    assert (unlike[0].ref, unlike[0].distance) == (node.outputs[0], 3)
    # Its reader was given the shifted codes, and the file was not: those two alone.
    assert len(unlike) == 2


def test_devices_that_round_otherwise_differ_by_a_code(quantized: QuantizedModel) -> None:
    x = torch.randn(1, 3, 32, 32)
    codes = {}
    for arithmetic in (MLAS, TFLITE):
        layers = IntegerLayers(quantized=quantized, arithmetic=arithmetic)
        quantized.run(x, transform=layers)
        codes[arithmetic.rounding] = layers.codes
    first, second = codes.values()
    distances = {ref: int(np.abs(first[ref] - second[ref]).max()) for ref in first}
    assert 0 < max(distances.values()) <= 3


def test_what_integers_do_not_cover_is_left_to_the_simulation(make_scheme: Callable[..., QuantScheme]) -> None:
    """Zero points by channel, and pools of images without a batch: a code beside the simulation, not another number."""
    weights = QParamsSpec(format=FORMATS["uint8"], symmetric=False, granularity=Granularity.PER_CHANNEL)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)).eval()
    model[0].weight.data += torch.linspace(-1, 1, 8)[:, None, None, None]
    batch, image = torch.randn(1, 3, 16, 16), torch.randn(3, 16, 16)
    for scheme, x in ((make_scheme("uint8", "int8", weights=weights), batch), (make_scheme("uint8", "int8"), image)):
        quantized = quantize(capture(model, (x,)), scheme, [x], bias_correction=False)
        simulated: dict[TensorRef, torch.Tensor] = {}

        def watch(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
            simulated[ref] = quantized.transform(ref, tensor)  # noqa: B023 - called in this round only
            return simulated[ref]  # noqa: B023

        quantized.run(x, transform=watch)
        layers = IntegerLayers(quantized=quantized)
        quantized.run(x, transform=layers)
        for ref, codes in layers.codes.items():
            assert np.abs(codes - code_of(simulated[ref], quantized.qparams[ref]).numpy()).max() <= 1, str(ref)
