"""Pictures of 8 bits as arguments: ONNX Runtime's results are those of a preparation outside, to the last bit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import export_as
from bitwright.quant.export.onnx_pixels import Pixels
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

IMAGENET = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}


def pictures(count: int = 1) -> Any:
    drawn = np.random.default_rng(0).integers(0, 256, (count, 3, 12, 12), dtype=np.uint8)
    drawn[0, :, 0, :2] = 0, 255  # the whole range
    return drawn


def network_of(pixels: Pixels) -> QuantizedModel:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    prepared = [torch.from_numpy(pixels.prepared(each[None])) for each in pictures(4)]
    scheme = load_target("x86-vnni").scheme()
    return quantize(capture(network, (prepared[0],)), scheme, prepared)


def run(file: Path, x: Any) -> Any:
    session = onnxruntime.InferenceSession(str(file))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_normalized_pictures_are_prepared_in_the_file(tmp_path: Path) -> None:
    mean, std = (np.float32([float(part) for part in IMAGENET[name].split(",")]) for name in ("mean", "std"))
    pixels = Pixels(mean=mean, std=std)
    quantized = network_of(pixels)
    taking = export_as(quantized, tmp_path / "pixels.onnx", "onnx_qdq", input="uint8", **IMAGENET)[0]
    plain = export_as(quantized, tmp_path / "plain.onnx", "onnx_qdq")[0]
    picture = pictures()
    np.testing.assert_array_equal(run(taking, picture), run(plain, pixels.prepared(picture)))
    types = [node.op_type for node in onnx.load(taking).graph.node]
    assert types[:5] == ["Cast", "Div", "Sub", "Div", "QuantizeLinear"]


def test_pictures_in_0_1_are_their_own_codes(tmp_path: Path) -> None:
    pixels = Pixels(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32))
    quantized = network_of(pixels)
    ref = quantized.captured.graph.inputs[0]
    own = quantized.qparams[ref]
    exact = type(own)(own.spec, torch.tensor(1 / 255), torch.tensor(0.0))
    quantized = QuantizedModel(
        captured=quantized.captured, plan=quantized.plan, qparams={**quantized.qparams, ref: exact}
    )
    taking = export_as(quantized, tmp_path / "pixels.onnx", "onnx_qdq", input="uint8")[0]
    plain = export_as(quantized, tmp_path / "plain.onnx", "onnx_qdq")[0]
    picture = pictures()
    np.testing.assert_array_equal(run(taking, picture), run(plain, pixels.prepared(picture)))
    assert onnx.load(taking).graph.node[0].op_type == "DequantizeLinear"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input": "int4"}, "input = 'int4'; allowed: float32, uint8"),
        ({"mean": "0.5"}, "mean = '0.5' is of pictures; say input=uint8 as well"),
        ({"input": "uint8", "mean": "0.5,0.5"}, "mean = '0.5,0.5' has 2 numbers; the picture has 3 channels"),
        ({"input": "uint8", "std": "0"}, "std = '0'; each number is above 0"),
        ({"input": "uint8", "std": "x"}, "std = 'x'; it is a list of numbers"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings: dict[str, str], message: str, tmp_path: Path) -> None:
    quantized = network_of(Pixels(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32)))
    with pytest.raises(InputError, match=message):
        export_as(quantized, tmp_path / "net.onnx", "onnx_qdq", **settings)
    assert not list(tmp_path.iterdir())
