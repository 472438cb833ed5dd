"""A network made ready to run computes what the captured one does, tensor by tensor."""

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.graph import TensorRef
from bitwright.quant.inference import ready_to_run


class Convolutions(nn.Module):
    """Every window and epilogue that the kernels take, and some that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.grouped = nn.Conv2d(8, 12, (1, 3), groups=4)
        self.same = nn.Conv2d(12, 12, 3, padding="same")
        self.shared = nn.Conv2d(12, 12, 1)
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = nn.functional.relu6(self.stem(x))
        x = nn.functional.hardtanh(self.depthwise(x))
        x = torch.relu(self.same(torch.relu(self.grouped(x))))
        x = self.shared(torch.relu(self.shared(x)))
        last = self.last(x)
        return last, torch.relu(last)


def seen_by(network, x: torch.Tensor) -> dict[TensorRef, torch.Tensor]:
    tensors: dict[TensorRef, torch.Tensor] = {}
    network.run(x, transform=lambda ref, tensor: tensors.setdefault(ref, tensor))
    return tensors


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("everything", [True, False])
def test_watched_tensors_are_those_of_the_captured_network(everything: bool, batch: int) -> None:
    x = torch.randn(batch, 3, 17, 20)
    captured = capture(Convolutions().eval(), (x,))
    expected = seen_by(captured, x)
    watched = {
        ref
        for ref in expected
        if everything or ref not in captured.graph.producers or captured.graph.producers[ref].op != "conv2d"
    }
    ready = ready_to_run(captured, watched)
    found = seen_by(ready, x)
    assert found.keys() >= watched
    for ref in found:
        torch.testing.assert_close(found[ref], expected[ref], rtol=1e-4, atol=1e-5)
    fused = len(expected) - len(found)
    assert fused == (0 if everything else 3), "stem, depthwise and grouped each take in their activation"


def test_the_captured_network_stays_as_it_was() -> None:
    x = torch.randn(1, 3, 16, 16)
    captured = capture(Convolutions().eval(), (x,))
    before = captured.run(x)
    ready_to_run(captured, set())
    for old, new in zip(before, captured.run(x), strict=True):
        assert torch.equal(old, new)


def test_results_of_the_network_are_not_lost() -> None:
    x = torch.randn(1, 3, 16, 16)
    captured = capture(Convolutions().eval(), (x,))
    for expected, found in zip(captured.run(x), ready_to_run(captured, set()).run(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
