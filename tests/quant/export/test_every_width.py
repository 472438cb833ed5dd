"""Every integer width, and every opset that can say a format: the file has the values of the simulation."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.formats import FORMATS
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind

Run = Callable[..., list[np.ndarray]]
X = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))


def made(activations: QParamsSpec, weights: QParamsSpec) -> QuantizedModel:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 8)).eval()
    scheme = QuantScheme(
        name="test", activations=activations, weights=weights, quantized_operators=frozenset({"linear"})
    )
    return quantize(capture(model, (X,)), scheme, [X], bias_correction=False)


def spec(name: str, *, symmetric: bool = True, **more: object) -> QParamsSpec:
    return QParamsSpec(format=FORMATS[name], symmetric=symmetric, **more)  # type: ignore[arg-type]


def agree(model: QuantizedModel, path: Path, run_onnx: Run) -> None:
    ours = model.run(X).detach().numpy()
    for (theirs,) in (
        ReferenceEvaluator(str(path)).run(None, {"input": X.numpy()}),
        run_onnx(path, {"input": X.numpy()}),
    ):
        near = np.isclose(theirs, ours, rtol=1e-6, atol=1e-5)
        # Sums in another order let a tie fall the other way: that moves its row by a step of one tensor.
        assert np.count_nonzero(~near.all(1)) <= 1
        np.testing.assert_allclose(theirs, ours, atol=0.05 * np.abs(ours).max())


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("signed", [True, False])
def test_every_integer_width_is_written(bits: int, signed: bool, tmp_path: Path, run_onnx: Run) -> None:
    name = f"{'' if signed else 'u'}int{bits}"
    weights = spec(f"int{min(bits, 8)}", granularity=Granularity.PER_CHANNEL, narrow_range=bits % 2 == 0)
    model = made(spec(name, symmetric=False), weights)
    path = export_onnx_qdq(model, tmp_path / "model.onnx")
    agree(model, path, run_onnx)
    stored = {each.name: each for each in onnx.load(path).graph.initializer}
    codes = [onnx.numpy_helper.to_array(each) for name, each in stored.items() if name.endswith("weight/codes")]
    low, high = weights.code_range
    assert codes and all(low <= int(each.min()) and int(each.max()) <= high for each in codes)


def test_noise_falls_with_every_bit() -> None:
    truth = made(spec("float32"), spec("float32")).captured.run(X)

    def noise(bits: int) -> float:
        model = made(spec(f"int{bits}"), spec(f"int{bits}", granularity=Granularity.PER_CHANNEL))
        return float((model.run(X) - truth).square().mean())

    noises = [noise(bits) for bits in range(3, 17)]
    assert all(narrow < wide for wide, narrow in pairwise(noises))
    # A bit halves the step, a quarter of the noise is left.
    assert 0.2 < (noises[-1] / noises[0]) ** (1 / (len(noises) - 1)) < 0.3


@pytest.mark.parametrize("opset", range(21, 26))
@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        (spec("uint8", symmetric=False), spec("int4", granularity=Granularity.PER_BLOCK, block_size=16)),
        (spec("float8_e4m3fn"), spec("float8_e5m2", granularity=Granularity.PER_CHANNEL)),
        (spec("int16"), spec("int8", granularity=Granularity.PER_CHANNEL, narrow_range=True)),
        (spec("int8", scale_kind=ScaleKind.POWER_OF_TWO), spec("int8", scale_kind=ScaleKind.POWER_OF_TWO)),
    ],
    ids=["int4 in groups", "float8", "int16 and narrow range", "powers of two"],
)
def test_every_opset_that_can_say_it(
    activations: QParamsSpec, weights: QParamsSpec, opset: int, tmp_path: Path, run_onnx: Run
) -> None:
    model = made(activations, weights)
    path = export_onnx_qdq(model, tmp_path / "model.onnx", opset=opset)
    onnx.checker.check_model(str(path), full_check=True)
    assert onnx.load(path).opset_import[0].version == opset
    agree(model, path, lambda *args: run_onnx(*args, disable_quant_qdq="1"))
