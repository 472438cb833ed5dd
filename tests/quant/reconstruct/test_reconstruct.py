"""Rounding through a whole network: its methods' contract, the exported file, resuming."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.reconstruct import ROUNDINGS
from bitwright.quant.reconstruct.block_learning import BlockData, BlockLearning, Learned
from bitwright.quant.reconstruct.gptq import ROUNDING
from bitwright.quant.reconstruct.method import LayerData, Rounded
from bitwright.quant.reconstruct.reconstruct import reconstruct
from bitwright.quant.scheme import QuantScheme

METHODS = ROUNDINGS.names()


class Residual(nn.Module):
    """A stem, an inverted residual block, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.expand, self.depthwise = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project, self.head = nn.Conv2d(16, 8, 1, bias=False), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(self.expand(x).relu()).relu())
        return self.head(x.mean((2, 3)))


def network() -> CapturedModel:
    torch.manual_seed(3)
    return capture(Residual().eval(), (torch.zeros(1, 3, 12, 12),))


@pytest.fixture
def captured() -> CapturedModel:
    return network()


def images(count: int, seed: int = 1) -> list[torch.Tensor]:
    """Smooth pictures: neighbours have something in common, as in photographs."""
    noise = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return list(nn.functional.interpolate(noise, size=(12, 12), mode="bilinear").split(1))


def noise(captured: CapturedModel, quantized: QuantizedModel) -> float:
    pictures = images(40, seed=2)
    reference = fold_batch_norm(captured)
    return sum(float((reference.run(x) - quantized.run(x)).square().sum()) for x in pictures)


@pytest.fixture(scope="module")
def w4(make_scheme: Callable[..., QuantScheme]) -> QuantScheme:
    return make_scheme("uint8", "int4")


@pytest.fixture(scope="module")
def rounded(w4: QuantScheme) -> Callable[[str | None], QuantizedModel]:
    """The network by one method, or without any."""
    return cache(lambda method: quantize(network(), w4, images(32), rounding=method))


@pytest.mark.parametrize("method", METHODS)
def test_less_noise_than_nearest(
    method: str, captured: CapturedModel, rounded: Callable[[str | None], QuantizedModel]
) -> None:
    share = {"nearest": 1.0}.get(method, 0.8)  # its weights are the same
    assert noise(captured, rounded(method)) < share * noise(captured, rounded(None))


@pytest.mark.parametrize("method", METHODS)
def test_the_file_has_the_codes_and_computes_what_was_simulated(
    method: str,
    rounded: Callable[[str | None], QuantizedModel],
    tmp_path: Path,
    run_onnx: Callable[..., Any],
) -> None:
    quantized = rounded(method)
    export_onnx_qdq(quantized, tmp_path / "network.onnx")
    model = onnx.load(tmp_path / "network.onnx")
    stored = {each.name: onnx.numpy_helper.to_array(each).astype(np.int32) for each in model.graph.initializer}
    for ref, name in quantized.captured.value_refs.items():
        if ref in quantized.plan.weights:
            chosen = quantized.captured.values[name]
            codes = codes_of(chosen, quantized.qparams[ref])
            assert torch.equal(quantized.simulated_values[name], chosen)  # rounding them again changes nothing
            assert any(
                each.size == codes.numel() and np.array_equal(np.sort(each.flatten()), np.sort(codes.numpy().flatten()))
                for each in stored.values()
            )
    (name,) = [each.name for each in model.graph.input]
    for x in images(8, seed=5):
        (result,) = run_onnx(tmp_path / "network.onnx", {name: x.numpy()})
        step = float(next(reversed(list(quantized.qparams.values()))).scale.max())
        np.testing.assert_allclose(result, quantized.run(x).numpy(), atol=2 * step)


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) if name in ("brecq", "qdrop") else name for name in METHODS]
)
def test_the_same_again(
    method: str, captured: CapturedModel, w4: QuantScheme, rounded: Callable[[str | None], QuantizedModel]
) -> None:
    again = quantize(captured, w4, images(32), rounding=method).captured.values
    assert all(torch.equal(value, again[name]) for name, value in rounded(method).captured.values.items())


def test_results_seen_while_calibrating_are_those_of_a_run_of_their_own(
    captured: CapturedModel, w4: QuantScheme
) -> None:
    """Also where data comes in batches and behind the samples that rounding looks at."""
    start = quantize(captured, w4, images(24), bias_correction=False)
    samples = [(x,) for x in images(24)]
    own = reconstruct(start, samples, ROUNDING).captured.values
    for batches in (images(24), [torch.cat(images(24)[:8]), torch.cat(images(24)[8:])]):
        found = quantize(captured, w4, batches, rounding="gptq").captured.values
        assert all(torch.equal(value, found[name]) for name, value in own.items())


class Dying:
    """A method that is killed at its third layer, and counts the layers that it rounds."""

    name = "dying"
    samples = 8
    wants_products = True
    position_bytes = 0

    def __init__(self, dies_at: int) -> None:
        self.dies_at, self.rounded = dies_at, 0

    def round(self, data: LayerData) -> Rounded:
        if self.rounded == self.dies_at:
            raise KeyboardInterrupt
        self.rounded += 1
        return ROUNDING.round(data)


def test_a_killed_run_goes_on_behind_the_finished_layers(
    captured: CapturedModel, w4: QuantScheme, tmp_path: Path
) -> None:
    start = quantize(captured, w4, images(8), bias_correction=False)
    samples = [(x,) for x in images(8)]
    whole = reconstruct(start, samples, Dying(99))
    with pytest.raises(KeyboardInterrupt):
        reconstruct(start, samples, Dying(3), folder=tmp_path)
    again = Dying(99)
    done: list[int] = []
    resumed = reconstruct(start, samples, again, folder=tmp_path, progress=done.append)
    assert again.rounded == 2
    assert done == [1, 2, 3, 4, 5]
    assert all(torch.equal(value, resumed.captured.values[name]) for name, value in whole.captured.values.items())
    assert not any(tmp_path.iterdir())  # all are done: nothing is left


class DyingBlocks(Dying):
    """The same with blocks: killed before its third block is learned."""

    def round_block(self, data: BlockData) -> Learned | None:
        if self.blocks == self.dies_at:
            raise KeyboardInterrupt
        self.blocks += 1
        return BlockLearning(data, drop=0.5, steps=20).run()

    def __init__(self, dies_at: int) -> None:
        super().__init__(99)
        self.dies_at, self.blocks = dies_at, 0

    def round(self, data: LayerData) -> Rounded:
        return ROUNDING.round(data)


def test_a_killed_run_goes_on_behind_the_finished_blocks(
    captured: CapturedModel, w4: QuantScheme, tmp_path: Path
) -> None:
    start = quantize(captured, w4, images(8), bias_correction=False)
    samples = [(x,) for x in images(8)]
    whole = reconstruct(start, samples, DyingBlocks(99))
    with pytest.raises(KeyboardInterrupt):
        reconstruct(start, samples, DyingBlocks(2), folder=tmp_path)
    again = DyingBlocks(99)
    resumed = reconstruct(start, samples, again, folder=tmp_path)
    assert again.blocks == 1  # stem, residual block, classifier
    assert all(torch.equal(value, resumed.captured.values[name]) for name, value in whole.captured.values.items())
    for ref, qparams in whole.qparams.items():
        assert torch.equal(qparams.scale, resumed.qparams[ref].scale)
        if ref in whole.plan.weights:
            chosen = whole.captured.values[whole.captured.value_refs[ref]]
            assert torch.equal(whole.simulated_values[whole.captured.value_refs[ref]], chosen)


def test_layers_of_other_data_are_not_taken_up(captured: CapturedModel, w4: QuantScheme, tmp_path: Path) -> None:
    start = quantize(captured, w4, images(8), bias_correction=False)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(start, [(x,) for x in images(8)], Dying(3), folder=tmp_path)
    other = Dying(99)
    reconstruct(start, [(x,) for x in images(8, seed=7)], other, folder=tmp_path)
    assert other.rounded == 5


def test_an_unknown_method_names_the_choices(captured: CapturedModel, w4: QuantScheme) -> None:
    with pytest.raises(InputError, match=r"unknown rounding 'gtpq'; there are: .*gptq.*did you mean 'gptq'"):
        quantize(captured, w4, images(1), rounding="gtpq")


def test_one_sample_and_a_dead_channel(captured: CapturedModel, w4: QuantScheme) -> None:
    weight = next(name for name in captured.values if name.endswith("stem_0_weight"))
    captured.values[weight][2] = 0.0  # type: ignore[index]
    quantized = quantize(captured, w4, images(1), rounding="gptq")
    assert quantized.run(images(1)[0]).isfinite().all()


@pytest.mark.parametrize("rounding", ["gptq", "nearest", "adaround"])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_inputs_that_never_vary_say_nothing_of_weights(u8s8: QuantScheme, rounding: str, value: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(512, 4)).eval()
    constant = [torch.full((1, 3, 12, 12), value) for _ in range(4)]
    captured = capture(network, (constant[0],))
    rounded = quantize(captured, u8s8, constant, rounding=rounding)
    assert all(torch.isfinite(each).all() for each in rounded.simulated_values.values())
    torch.testing.assert_close(rounded.run(constant[0]), network(constant[0]), rtol=0.05, atol=0.05)
