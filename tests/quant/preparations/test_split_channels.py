"""Outlier channels are split: exact in float, the paper's halves, the channels that gain most, a smaller step."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.plan import plan
from bitwright.quant.preparations.split_channels import PREPARATION, chosen, find_lines
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme

LOUD = 3  # channel with large weights


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 6))


def inverted() -> nn.Sequential:
    """As MobileNetV2 has them: the channels pass through a depthwise convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 20, 1), nn.ReLU6(), nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.ReLU6(), nn.Conv2d(20, 4, 1)
    )


def pooled() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 4, 2))


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "linear": (linear, (5, 12)),
    "inverted": (inverted, (2, 3, 8, 8)),
    "pooled": (pooled, (2, 3, 8, 8)),
}


def made(name: str) -> tuple[CapturedModel, torch.Tensor]:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model = build().eval()
    model[-1].weight.data[:, LOUD] *= 12.0
    x = torch.randn(shape)
    return capture(model, (x,)), x


@pytest.fixture
def whole(make_scheme: Callable[..., QuantScheme]) -> QuantScheme:
    """One scale for a whole weight, where outliers hurt most."""
    scheme = make_scheme("uint8", "int4")
    weights = QParamsSpec(format=scheme.weights.format, symmetric=True, granularity=Granularity.PER_TENSOR)
    return make_scheme("uint8", "int4", weights=weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_changes_in_float(name: str, whole: QuantScheme) -> None:
    model, x = made(name)
    after = PREPARATION.prepare(model, whole, [])
    shapes = [value.shape for value in after.values.values()]
    assert any(21 in shape for shape in shapes) and not any(20 in shape for shape in shapes)
    assert len(after.graph.nodes) == len(model.graph.nodes)
    torch.testing.assert_close(after.run(x), model.run(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_files_run_in_onnx_runtime(name: str, whole: QuantScheme, tmp_path: Path, run_onnx: Any) -> None:
    model, x = made(name)
    after = PREPARATION.prepare(model, whole, [])
    (found,) = run_onnx(export_float(after.graph, tmp_path / "float.onnx"), {"input": x.numpy()})
    np.testing.assert_allclose(found, model.run(x).numpy(), rtol=1e-4, atol=1e-4)
    quantized = quantize(model, whole, [x], preparations=["split_channels"])
    (found,) = run_onnx(export_onnx_qdq(quantized, tmp_path / "codes.onnx"), {"input": x.numpy()})
    np.testing.assert_allclose(found, quantized.run(x).numpy(), atol=0.02 * float(quantized.run(x).abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_quantized_network_comes_nearer(name: str, whole: QuantScheme) -> None:
    model, x = made(name)

    def noise(*names: str) -> float:
        quantized = quantize(model, whole, [x], preparations=names, bias_correction=False)
        return float((quantized.run(x) - model.run(x)).square().mean())

    assert noise("split_channels") < 0.7 * noise()


def test_the_loud_channel_is_split_and_its_halves_round_as_the_whole(whole: QuantScheme) -> None:
    model, _ = made("linear")
    after = PREPARATION.prepare(model, whole, [])
    (line,) = find_lines(model.graph, plan(model.graph, whole))
    name = model.value_refs[line.reader.tensors[1]]
    before, now = model.values[name].numpy(), after.values[name].numpy()
    step = np.abs(now).max() / 7  # of codes up to 7; half a step apart moves the largest by a quarter
    halves = now[:, [LOUD, 20]]
    np.testing.assert_allclose(halves.sum(1), before[:, LOUD], rtol=1e-5)
    apart = halves[:, 1] - halves[:, 0]
    np.testing.assert_allclose(apart, apart[0], rtol=1e-4)
    step = 2 * apart[0]
    codes = np.rint(halves / step).sum(1)  # equation 6 of the paper: as the whole, ties aside
    np.testing.assert_array_equal(codes, np.rint(before[:, LOUD] / step))


@pytest.mark.parametrize("by_rows", [True, False])
def test_channels_are_those_that_gain_most_of_all(by_rows: bool) -> None:
    weight = torch.tensor([[8.0, 5.0, 1.0], [1.0, 6.0, 2.0], [1.0, 7.5, 0.5]])

    def cost(split: tuple[int, ...]) -> float:
        halved = weight.clone()
        for channel in split:
            halved[:, channel] /= 2
        largest = halved.abs().amax(1) if by_rows else halved.abs().amax().expand(3)
        return float(largest.square().sum())

    assert cost(tuple(chosen(weight, 1, by_rows=by_rows))) == min(cost((c,)) for c in range(3))
    if by_rows:
        assert cost(tuple(chosen(weight, 2, by_rows=True))) == min(cost(pair) for pair in product(range(3), repeat=2))


def test_channels_that_others_read_as_well_are_left_alone(whole: QuantScheme) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 20)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            return x + self.second(x)

    model = capture(Forked().eval(), (torch.randn(2, 12),))
    assert find_lines(model.graph, plan(model.graph, whole)) == []
    assert PREPARATION.prepare(model, whole, []) is model
