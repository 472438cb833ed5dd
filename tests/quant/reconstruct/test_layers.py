"""Layers as products of matrices."""

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.plan import plan
from bitwright.quant.ptq import quantize
from bitwright.quant.reconstruct import layers
from bitwright.quant.reconstruct.layers import find_layers
from bitwright.quant.scheme import QuantScheme

CASES = {
    "conv2d": (nn.Conv2d(4, 6, 3, padding=1), (1, 4, 9, 8)),
    "strided, dilated": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 0)), (2, 4, 9, 8)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 9, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (1, 4, 9, 8)),
    "pointwise": (nn.Conv2d(4, 6, 1, stride=2), (1, 4, 9, 8)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=2), (3, 4, 9)),
    "conv3d": (nn.Conv3d(2, 6, (1, 2, 3)), (1, 2, 4, 5, 6)),
    "linear": (nn.Linear(5, 3), (2, 7, 5)),
}


@pytest.mark.parametrize("positions", [10_000, 7])
@pytest.mark.parametrize("case", CASES)
def test_weight_times_columns_is_the_result(
    case: str, positions: int, u8s8: QuantScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "POSITIONS", (positions, positions))
    module, shape = CASES[case]
    captured = capture(module.eval(), (torch.randn(shape),))
    quantized = quantize(captured, u8s8, [(torch.randn(shape),)])
    (layer,), reasons = find_layers(quantized.captured, quantized.plan)
    assert not reasons
    x = torch.randn(shape)
    bias = 0.0 if module.bias is None else module.bias.reshape(layer.groups, -1, 1)
    seen = set()
    for sample in range(9):
        result = layer.matrix(module.weight) @ layer.columns(x, sample) + bias
        torch.testing.assert_close(result, layer.results(module(x), sample))
        if x.dim() in (4, 5):  # as the kernels leave their results in memory
            behind = x.to(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
            assert torch.equal(layer.columns(behind, sample), layer.columns(x, sample))
        seen.update(layer.results(module(x), sample).flatten().tolist())
    assert seen <= set(module(x).flatten().tolist())
    if positions > 7:
        assert len(seen) == module(x).numel()


def test_what_is_rounded_to_nearest_says_why(u8s8: QuantScheme) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.twice = nn.ConvTranspose2d(3, 3, 2), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.twice(self.twice(self.up(x)))

    captured = capture(Odd().eval(), (torch.zeros(1, 3, 4, 4),))
    quantized = quantize(captured, u8s8, [torch.randn(1, 3, 4, 4)])
    found, reasons = find_layers(quantized.captured, quantized.plan)
    assert not found
    assert sorted(reasons.values()) == [
        "'conv_transpose2d' is no convolution or linear layer",
        "2 layers share its weight",
        "2 layers share its weight",
    ]
    assert set(reasons) <= plan(captured.graph, u8s8).quantized
