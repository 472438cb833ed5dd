"""What a rounding leaves at nearest, and rotations as it is, is said with the reason."""

import torch
from torch import nn

from bitwright.experiments.stages.quantize import rotation_notes, rounding_notes
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.ptq import quantize


class Twice(nn.Module):
    """One layer of its own, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.twice(self.twice(self.first(x)).relu())
        return result


def test_layers_that_stay_at_nearest_are_named() -> None:
    captured = capture(Twice().eval(), (torch.zeros(1, 3, 4, 4),))
    quantized = quantize(captured, load_target("x86-vnni").scheme(), [torch.randn(1, 3, 4, 4)], rounding="nearest")
    said = "twice is rounded to nearest, not by 'gptq': 2 layers share its weight"
    assert rounding_notes("gptq", quantized) == (said, said)
    assert rounding_notes(None, quantized) == ()


def test_what_rotations_leave_alone_is_said_by_its_reason() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.a(x) + self.b(x))

    x = torch.randn(2, 4)
    quantized = quantize(capture(Residual().eval(), (x,)), load_target("x86-vnni").scheme(), [x])
    assert rotation_notes(["rotate"], quantized) == ("rotate leaves the sum behind linear as it is: relu reads it",)
    assert rotation_notes(["smoothquant"], quantized) == ()
