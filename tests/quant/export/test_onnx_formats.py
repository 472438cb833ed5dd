"""Files with blocks, dynamic scales and small floats: the same values as the simulation in two evaluators of ONNX."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind

Run = Callable[..., list[np.ndarray]]


class Mixed(nn.Module):
    """Products along three kinds of axes: of a linear layer, of two activations, and over input channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.conv = nn.Linear(64, 96), nn.Linear(96, 64), nn.Conv2d(32, 32, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        product = torch.matmul(self.second(torch.relu(self.first(x))), x.transpose(-1, -2))
        return product, self.conv(y)


_DRAWS = torch.Generator().manual_seed(0)
ARGUMENTS = (torch.randn(2, 8, 64, generator=_DRAWS), torch.randn(1, 32, 6, 6, generator=_DRAWS))


def tensors(name: str, *, dynamic: bool = False, **more: Any) -> QParamsSpec:
    return QParamsSpec(format=FORMATS[name], symmetric=more.pop("symmetric", True), dynamic=dynamic, **more)


def blocks(name: str, size: int, kind: ScaleKind = ScaleKind.FLOAT32, **more: Any) -> QParamsSpec:
    return tensors(name, granularity=Granularity.PER_BLOCK, block_size=size, scale_kind=kind, **more)


def quantized(activations: QParamsSpec, weights: QParamsSpec, model: nn.Module | None = None) -> QuantizedModel:
    operators = frozenset({"linear", "conv2d", "matmul"})
    scheme = QuantScheme(name="test", activations=activations, weights=weights, quantized_operators=operators)
    torch.manual_seed(0)
    return quantize(capture((model or Mixed()).eval(), ARGUMENTS), scheme, [ARGUMENTS], bias_correction=False)


U8, S8_CHANNELS = tensors("uint8", symmetric=False), tensors("int8", granularity=Granularity.PER_CHANNEL)
E8M0, E4M3 = ScaleKind.E8M0, ScaleKind.FLOAT8_E4M3
# Name: activations, weights, the opset that it needs, whether ONNX Runtime has the kernels.
CASES = {
    "int4 in groups": (U8, blocks("int4", 32), 21, True),
    "uint4 with zero points": (U8, blocks("uint4", 16, symmetric=False, observer="mse"), 21, True),
    "a shorter last group": (U8, blocks("int4", 40), 21, True),
    "bfloat16 and 2 bits": (tensors("bfloat16"), blocks("int2", 32), 21, True),
    "float16 and 3 bits": (tensors("float16"), blocks("int3", 32), 21, True),
    "dynamic uint8": (tensors("uint8", symmetric=False, dynamic=True), S8_CHANNELS, 20, True),
    "dynamic int8": (tensors("int8", dynamic=True), S8_CHANNELS, 21, True),
    "MXINT8": (blocks("int8", 32, E8M0, dynamic=True), blocks("int8", 32, E8M0), 24, True),
    "MXFP8": (blocks("float8_e4m3fn", 32, E8M0, dynamic=True), blocks("float8_e4m3fn", 32, E8M0), 24, True),
    "MXFP4": (blocks("float4_e2m1fn", 32, E8M0, dynamic=True), blocks("float4_e2m1fn", 32, E8M0), 24, False),
    "NVFP4": (blocks("float4_e2m1fn", 16, E4M3, dynamic=True), blocks("float4_e2m1fn", 16, E4M3), 23, False),
    "fnuz": (tensors("float8_e4m3fnuz"), tensors("float8_e5m2fnuz", granularity=Granularity.PER_CHANNEL), 20, True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_has_the_values_of_the_simulation(name: str, tmp_path: Path, run_onnx: Run) -> None:
    activations, weights, opset, runs = CASES[name]
    model = quantized(activations, weights)
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    stored = onnx.load(path)
    onnx.checker.check_model(stored, full_check=True)
    assert stored.opset_import[0].version == opset
    inputs = dict(zip((each.name for each in stored.graph.input), (x.numpy() for x in ARGUMENTS), strict=True))
    expected = model.run(*ARGUMENTS)
    evaluated = [ReferenceEvaluator(stored).run(None, inputs)]
    if runs:
        evaluated.append(run_onnx(path, inputs, disable_quant_qdq="1"))
    for results in evaluated:
        for ours, theirs in zip(expected, results, strict=True):
            _agree(ours.detach().numpy(), theirs)


def _agree(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal up to the order of sums, which may let one rounding tie fall the other way: one position, by one step."""
    near = np.isclose(theirs, ours, rtol=1e-7, atol=3e-6).all(-1)
    assert np.count_nonzero(~near) <= 1
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-2)


def test_two_bits_are_stored_as_such_where_the_opset_can(tmp_path: Path, run_onnx: Run) -> None:
    model = quantized(tensors("float16"), blocks("int2", 32))
    narrow = onnx.load(export_onnx_qdq(model, tmp_path / "narrow.onnx", opset=25))
    wide = onnx.load(export_onnx_qdq(model, tmp_path / "wide.onnx"))

    def types(stored: onnx.ModelProto) -> set[int]:
        return {each.data_type for each in stored.graph.initializer if each.name.endswith("/codes")}

    assert (types(narrow), types(wide)) == ({onnx.TensorProto.INT2}, {onnx.TensorProto.INT4})
    inputs = {"x": ARGUMENTS[0].numpy(), "y": ARGUMENTS[1].numpy()}
    for left, right in zip(
        run_onnx(tmp_path / "narrow.onnx", inputs), run_onnx(tmp_path / "wide.onnx", inputs), strict=True
    ):
        np.testing.assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize(
    ("activations", "weights", "message"),
    [
        (U8, blocks("float6_e2m3fn", 32, E8M0), "format 'float6_e2m3fn' cannot be written as ONNX; there are: int2, "),
        (tensors("tf32"), S8_CHANNELS, "format 'tf32' cannot be written as ONNX; there are: int2, "),
        (
            tensors("uint8", symmetric=True, dynamic=True),
            S8_CHANNELS,
            "dynamic activations as uint8 symmetric float32 cannot be written as ONNX; there are: uint8 asymmetric, ",
        ),
        (
            tensors("uint8", symmetric=False, dynamic=True, scale_kind=ScaleKind.POWER_OF_TWO),
            S8_CHANNELS,
            "dynamic activations as uint8 asymmetric power_of_two cannot be written as ONNX; there are: ",
        ),
        (
            blocks("int8", 32, E8M0, dynamic=True, narrow_range=True),
            S8_CHANNELS,
            "dynamic activations as int8 symmetric e8m0 narrow_range cannot be written as ONNX; there are: ",
        ),
        (
            blocks("int8", 40, dynamic=True),
            S8_CHANNELS,
            "tensor x: block_size = 40 does not divide axis 2 of (2, 8, 64); scales that follow the data need whole ",
        ),
    ],
)
def test_what_onnx_cannot_say(activations: QParamsSpec, weights: QParamsSpec, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        export_onnx_qdq(quantized(activations, weights), tmp_path / "model.onnx")
    assert str(refused.value).startswith(message)
    assert not (tmp_path / "model.onnx").exists()


class Scaled(nn.Module):
    """A number, a row as long as a block, a longer one, and a mean, beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.row = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.randn(64))
        self.short, self.linear = nn.Parameter(torch.randn(32)), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x * self.number + self.row) + self.short, y * y.mean()


@pytest.mark.parametrize("name", ["MXFP8", "MXINT8"])
def test_one_block_is_written_as_a_whole_tensor(name: str, tmp_path: Path, run_onnx: Run) -> None:
    activations, weights, _, _ = CASES[name]
    arguments = (torch.randn(2, 8, 64), torch.randn(1, 32, 6, 32))
    scheme = QuantScheme(
        name="test", activations=activations, weights=weights, quantized_operators=frozenset({"linear", "mul", "add"})
    )
    model = quantize(capture(Scaled().eval(), arguments), scheme, [arguments], bias_correction=False)
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    inputs = {"x": arguments[0].numpy(), "y": arguments[1].numpy()}
    for results in (ReferenceEvaluator(str(path)).run(None, inputs), run_onnx(path, inputs, disable_quant_qdq="1")):
        for ours, theirs in zip(model.run(*arguments), results, strict=True):
            np.testing.assert_allclose(theirs, ours.detach().numpy(), atol=1e-5)


def test_the_smallest_e8m0_scale_is_that_of_the_simulation(tmp_path: Path, run_onnx: Run) -> None:
    """Blocks of 2^-120 ask for a scale of 2^-128, which E8M0 cannot say."""
    activations, weights, _, _ = CASES["MXFP8"]
    tiny = (ARGUMENTS[0] * 2.0**-120, ARGUMENTS[1])
    model = quantized(activations, weights)
    stored = onnx.load(export_onnx_qdq(model, tmp_path / "model.onnx"))
    stored.graph.output.append(onnx.helper.make_tensor_value_info("x/dq", onnx.TensorProto.FLOAT, None))
    inputs = {"x": tiny[0].numpy(), "y": tiny[1].numpy()}
    (ref,) = (ref for ref in model.dynamic if str(ref) == "$x")
    expected = model.transform(ref, tiny[0])
    (found,) = run_onnx(stored, inputs, ["x/dq"], disable_quant_qdq="1")
    np.testing.assert_array_equal(found, expected.numpy())


class Remembering(nn.Module):
    """A state that nothing but the next call reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1, 4, 6, 6))
        self.a, self.b = nn.Conv2d(32, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.b(self.last) + 1
        self.last.copy_(self.a(x))
        return result


def test_a_quantized_state_is_written_though_nothing_reads_it(tmp_path: Path, run_onnx: Run, u8s8: QuantScheme) -> None:
    x = ARGUMENTS[1]
    captured = capture(Remembering().eval(), (x,))
    model = quantize(captured, replace(u8s8, quantize_outputs=True), [x])
    assert captured.graph.state[0][1] in model.qparams
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    state = captured.initial_state()
    expected = model.run(x, state=state)
    kept, result = run_onnx(path, {next(iter(onnx.load(path).graph.input)).name: x.numpy(), "x": x.numpy()})
    np.testing.assert_allclose(result, expected.detach().numpy(), atol=1e-5)
    (after,) = state.values()
    np.testing.assert_allclose(kept, after.detach().numpy(), atol=1e-5)
