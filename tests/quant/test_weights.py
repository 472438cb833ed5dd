"""Scales of weights leave the int32 accumulator room for the bias and the sum that it is added to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.fake_quantize import quantize as codes_of
from bitwright.quant.graph import TensorRef
from bitwright.quant.integer.accumulators import overflows, worst_case
from bitwright.quant.integer.network import grid_of
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme

WEIGHT = TensorRef("", "weight")


def vanishing(inputs: int, weight: float = 1e-5) -> nn.Linear:
    """Weights as a batch norm with a vanishing gamma leaves them, beside biases of its beta."""
    layer = nn.Linear(inputs, 4)
    with torch.no_grad():
        layer.weight.copy_(weight * torch.linspace(0.5, 1.0, inputs))
        layer.bias.copy_(torch.tensor([1.0, -1.0, 0.3, 0.0]))
    return layer.eval()


def quantized(layer: nn.Module, scheme: QuantScheme, inputs: int) -> QuantizedModel:
    return quantize(capture(layer, (torch.ones(1, inputs),)), scheme, [torch.ones(1, inputs)], bias_correction=False)


def extremes(network: QuantizedModel) -> np.ndarray[Any, Any]:
    """What the accumulators hold at most, in Python's integers, over all inputs that the codes can say."""
    (bias,) = network.plan.biases.values()
    values, names = network.captured.values, network.captured.value_refs
    weights = codes_of(values[names[bias.weight]], network.qparams[bias.weight]).numpy()
    added = codes_of(values[names[bias.bias]], network.bias_qparams(bias)).numpy()
    return np.concatenate(worst_case(weights, grid_of(network.qparams[bias.input]), added))


def holding_the_bias_alone(network: QuantizedModel) -> QuantizedModel:
    """With scales in which the bias just fits."""
    (bias,) = network.plan.biases.values()
    values = network.captured.values[network.captured.value_refs[bias.bias]]
    least = values.abs() / network.qparams[bias.input].scale / (2**31 - 1)
    own = network.captured.values[network.captured.value_refs[bias.weight]].abs().amax(1) / 127
    tight = replace(network.qparams[bias.weight], scale=torch.maximum(own, least))
    return replace(network, qparams={**network.qparams, bias.weight: tight})


@pytest.mark.parametrize("inputs", [64, 40_000])
def test_no_accumulator_wraps_around_where_a_bias_is_as_large_as_int32_can_be(u8s8: QuantScheme, inputs: int) -> None:
    network = quantized(vanishing(inputs), u8s8, inputs)
    assert overflows(extremes(holding_the_bias_alone(network)))[-1].count > 0
    held = extremes(network)
    assert overflows(held)[-1].count == 0
    assert np.abs(held).max() > 2**30  # nothing is given away either


def test_the_file_computes_the_channel_whose_weights_do_not_matter(
    u8s8: QuantScheme, tmp_path: Path, run_onnx: Callable[..., Any]
) -> None:
    """The runtime as the judge; results in codes, since real ones are made by other kernels."""
    network, x = quantized(vanishing(64), replace(u8s8, quantize_outputs=True), 64), torch.ones(1, 64)
    exact = vanishing(64)(x).detach().numpy()
    step = float(network.qparams[network.captured.graph.outputs[0]].scale)
    (found,) = run_onnx(export_onnx_qdq(network, tmp_path / "held.onnx"), {"input": x.numpy()}, optimize=True)
    assert np.abs(found - exact).max() <= step
    tight = export_onnx_qdq(holding_the_bias_alone(network), tmp_path / "tight.onnx")
    (wrong,) = run_onnx(tight, {"input": x.numpy()}, optimize=True)
    assert np.abs(wrong - exact).max() > 10 * step


def test_scales_of_usual_layers_are_those_of_their_weights(u8s8: QuantScheme) -> None:
    layer = nn.Linear(512, 4)
    network = quantized(layer, u8s8, 512)
    own = layer.weight.detach().abs().amax(1) / 127
    torch.testing.assert_close(network.qparams[WEIGHT].scale, own)


def test_sums_that_pass_int32_by_themselves_leave_the_bias_half(make_scheme: Callable[..., QuantScheme]) -> None:
    """int16 data: no scale of the weights is asked to make up for an accumulator that is too narrow anyway."""
    layer = vanishing(4096, weight=1.0)
    network = quantized(layer, make_scheme("int16", "int8"), 4096)
    torch.testing.assert_close(network.qparams[WEIGHT].scale, layer.weight.detach().abs().amax(1) / 127)
