"""int8 `.tflite` files in LiteRT's reference kernels: the plan's qparams, and the integer reference's codes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("ai_edge_litert")

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import export_as
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import TensorRef
from bitwright.quant.integer.deployed import FLOAT_RULE, compare_codes
from bitwright.quant.integer.tflite import TFLITE
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QParamsSpec, QuantScheme

Array = np.ndarray[Any, Any]
SCHEME = load_target("ethos-u85-1024").scheme()


class Deployed:
    """A file in LiteRT's reference kernels, every tensor of it kept."""

    def __init__(self, file: Path, quantized: QuantizedModel) -> None:
        self.provenance = json.loads(file.with_name(f"{file.name}.provenance.json").read_text())
        self.quantized = quantized
        self.interpreter = Interpreter(
            model_path=str(file),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
        )
        self.interpreter.allocate_tensors()
        self.tensors = {each["name"]: each for each in self.interpreter.get_tensor_details()}

    def run(self, arguments: tuple[torch.Tensor, ...]) -> dict[TensorRef, Array]:
        """The codes of every tensor of the plan that stands in the file, in PyTorch's order of axes."""
        inputs = self.interpreter.get_input_details()
        for details, values in zip(inputs, arguments, strict=True):
            name, (scale, zero_point) = details["name"], details["quantization"]
            array = np.moveaxis(values.numpy(), 1, -1) if self._is_last(name) else values.numpy()
            if details["dtype"] is np.int8:
                array = np.clip(np.rint(array / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
            self.interpreter.set_tensor(details["index"], array)
        self.interpreter.invoke()
        return {
            TensorRef.parse(ref): self._plain(name)
            for name, ref in self.provenance["values"].items()
            if TensorRef.parse(ref) in self.quantized.plan.activations and self.tensors[name]["dtype"] is np.int8
        }

    def _is_last(self, name: str) -> bool:
        return self.provenance["layouts"][name] == "channels_last"

    def _plain(self, name: str) -> Array:
        values = self.interpreter.get_tensor(self.tensors[name]["index"])
        return np.moveaxis(values, -1, 1) if self._is_last(name) and values.ndim > 2 else values


def quantized_by(scheme: QuantScheme, network: nn.Module, *args: torch.Tensor) -> QuantizedModel:
    torch.manual_seed(1)
    batches = [tuple(torch.randn_like(arg) for arg in args) for _ in range(3)]
    return quantize(capture(network.eval(), args), scheme, [*batches, args])


class Blocks(nn.Module):
    """What a network for pictures is made of: every kind of convolution, additions, pools, tables, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise, self.dilated = (
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        )
        self.grouped, self.gate = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.relu(self.depthwise(x)) + self.dilated(F.max_pool2d(x, 3, 1, 1))
        y = F.relu6(y) * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))
        y = torch.cat([F.avg_pool2d(y, 2), torch.tanh(self.grouped(F.max_pool2d(y, 2)))], 1)
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


def test_litert_computes_the_codes_of_the_integer_reference(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 16, 16)
    quantized = quantized_by(SCHEME, Blocks(), x)
    deployed = Deployed(export_as(quantized, tmp_path / "net.tflite", "tflite_int8")[0], quantized)
    layers = compare_codes(quantized, (x,), deployed.run((x,)), arithmetic=TFLITE)
    known = {each.rule for each in layers}
    assert {"conv2d", "linear", "add", "mul", "adaptive_avg_pool2d", "avg_pool2d", "sigmoid", "tanh"} <= known
    assert [str(each.ref) for each in layers if each.unlike and each.rule != FLOAT_RULE] == []
    moved = [each for each in layers if each.rule == FLOAT_RULE]
    assert moved and not any(each.unlike for each in moved)  # pools and moves: copies of codes
    assert len(layers) == len(quantized.plan.activations)


def test_every_tensor_of_the_plan_has_its_qparams(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 16, 16)
    quantized = quantized_by(SCHEME, Blocks(), x)
    deployed = Deployed(export_as(quantized, tmp_path / "net.tflite", "tflite_int8")[0], quantized)
    for name, ref in deployed.provenance["values"].items():
        expected = quantized.qparams[TensorRef.parse(ref)]
        scale, zero_point = deployed.tensors[name]["quantization"]
        assert (np.float32(scale), zero_point) == (float(expected.scale), int(expected.zero_point)), name


def test_unsigned_codes_are_the_same_numbers_less_128(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 16, 16)
    unsigned = QParamsSpec(format=FORMATS["uint8"], symmetric=False)
    quantized = quantized_by(replace(SCHEME, activations=unsigned, name="unsigned"), Blocks(), x)
    deployed = Deployed(export_as(quantized, tmp_path / "net.tflite", "tflite_int8")[0], quantized)
    codes = {ref: each.astype(np.int64) + 128 for ref, each in deployed.run((x,)).items()}
    layers = compare_codes(quantized, (x,), codes, arithmetic=TFLITE)
    assert layers and not any(each.unlike for each in layers if each.rule in ("conv2d", "linear", "mul"))


WRITTEN = {
    "inverted_residual", "attention", "einsum", "pyramid", "branches", "conv1d", "dilated_grouped", "linear_rank_3",
    "upsample", "squeeze_excite", "pixel_shuffle",
}  # fmt: skip
REFUSED = {
    "causal_attention": "scaled_dot_product_attention",
    "conv3d": "conv3d",
    "transposed": "conv_transpose2d with groups or dilation",
    "group_norm": "group_norm",
    "addmm": "linalg_vector_norm",
    "pads": "pad with mode 'replicate'",
    "pooling": "adaptive_avg_pool2d with windows of unlike size",
    "grid_sample": "grid_sampler",
}


def test_each_network_is_written_or_refused_by_name(example: Any, tmp_path: Path, request: Any) -> None:
    """Where codes are moved or tables read, they are the simulation's; a table's last digit may move one code."""
    name = request.node.callspec.params["example"]
    quantized: QuantizedModel = example.quantized(SCHEME)
    if name in REFUSED:
        with pytest.raises(InputError, match=re.escape(REFUSED[name])):
            export_as(quantized, tmp_path / "net.tflite", "tflite_int8")
        assert not list(tmp_path.iterdir())
        return
    assert name in WRITTEN
    deployed = Deployed(export_as(quantized, tmp_path / "net.tflite", "tflite_int8")[0], quantized)
    layers = compare_codes(quantized, example.args, deployed.run(example.args), arithmetic=TFLITE)
    assert layers and all(each.distance <= 1 for each in layers), [each for each in layers if each.distance > 1]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (QParamsSpec(format=FORMATS["int16"], symmetric=True), "format int16; activations are int8 or uint8"),
        (QParamsSpec(format=FORMATS["float8_e4m3fn"], symmetric=True), "format float8_e4m3fn"),
    ],
)
def test_other_formats_are_refused_with_the_layer(spec: QParamsSpec, why: str, tmp_path: Path) -> None:
    quantized = quantized_by(replace(SCHEME, activations=spec, name="other"), Blocks(), torch.randn(1, 3, 16, 16))
    with pytest.raises(InputError, match=f"(?s)int8 .tflite files cannot hold:.*input.*{re.escape(why)}"):
        export_as(quantized, tmp_path / "net.tflite", "tflite_int8")
    assert not list(tmp_path.iterdir())


def test_the_suffix_is_the_formats(tmp_path: Path) -> None:
    quantized = quantized_by(SCHEME, nn.Linear(3, 2), torch.randn(1, 3))
    with pytest.raises(InputError, match=r"net.onnx'; int8 TensorFlow Lite is written as NAME.tflite"):
        export_as(quantized, tmp_path / "net.onnx", "tflite_int8")
