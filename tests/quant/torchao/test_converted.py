"""Programs of torchao's `convert_pt2e` as ours: codes, scales and results equal; runs wherever torchao is installed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("torchao", reason="package torchao is not installed")

from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.fake_quantize import quantize
from bitwright.quant.ptq import quantize as quantize_network
from bitwright.quant.scheme import BiasKind
from bitwright.quant.torchao.converted import import_converted
from bitwright.quant.torchao.quantizer import SchemeQuantizer


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.body(x) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def program() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 16)
    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(Residual().eval(), (x,)).module(), quantizer)
    with torch.no_grad():
        prepared(x)
    return convert_pt2e(prepared), x


def test_weights_come_with_their_codes_and_scales(program: Any) -> None:
    module, _ = program
    quantized = import_converted(module)
    assert len(quantized.plan.weights) == 3
    for ref, qparams in quantized.qparams.items():
        if ref in quantized.plan.weights:
            stored = getattr(module, ref.module_path)
            values = quantized.captured.values[quantized.captured.value_refs[ref]]
            assert torch.equal(quantize(values, qparams).to(stored.dtype), stored)


def test_it_computes_what_the_program_computes(program: Any) -> None:
    module, x = program
    quantized = import_converted(module)
    ops = {node.op for node in quantized.captured.graph.nodes if node.name in quantized.plan.quantized}
    assert {"conv2d", "linear", "add"} <= ops
    assert quantized.plan.fused == (("conv2d", "relu"), ("conv2d_1", "add", "relu_1"))
    for batch in (x, torch.randn(2, 3, 16, 16)):
        # torchao multiplies by the reciprocal of a scale: a tie may fall the other way, by one step of one tensor.
        difference = (quantized.run(batch) - module(batch)).abs()
        assert difference.max() < step_of_result(quantized) and difference.median() < 1e-6


def step_of_result(quantized: Any) -> float:
    """What one code of the last layer's input moves a result at most."""
    last = next(node for node in quantized.captured.graph.nodes if node.op == "linear")
    data, weight = (quantized.qparams[ref] for ref in last.tensors[:2])
    return float(data.scale * weight.scale.max() * 127)


def test_ours_goes_to_torchao_and_comes_back_as_it_was() -> None:
    torch.manual_seed(0)
    network, x = Residual().eval(), torch.randn(2, 3, 16, 16)
    scheme = replace(load_target("x86-vnni").scheme(), bias=BiasKind.FLOAT32)
    prepared = prepare_pt2e(torch.export.export(network, (x,)).module(), SchemeQuantizer(scheme))
    with torch.no_grad():
        prepared(x)
    back = import_converted(convert_pt2e(prepared))
    ours = quantize_network(capture(network, (x,)), scheme, [(x,)], bias_correction=False)
    scales = [sorted(float(s) for q in each.qparams.values() for s in q.scale.flatten()) for each in (ours, back)]
    assert scales[0] == pytest.approx(scales[1], rel=1e-6)  # convolutions here and there differ in their last bit
    torch.testing.assert_close(back.run(x), ours.run(x), rtol=0, atol=1e-6)


def test_a_program_in_float_is_refused() -> None:
    module = torch.export.export(Residual().eval(), (torch.randn(1, 3, 16, 16),)).module()
    with pytest.raises(InputError, match="has no quantize_per_tensor"):
        import_converted(module)
