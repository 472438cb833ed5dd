"""The module that holds the scale of one tensor (or of all that share it) while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import TensorRef
from bitwright.quant.learned_steps import Grid, largest_code, learned_scale, round_activation
from bitwright.quant.qparams import QParams, choose_qparams
from bitwright.quant.scheme import ScaleKind

# Weight of the newest batch in the moving range of scales that do not learn (torch's own averaging constant).
_MOMENTUM = 0.01


class Quantizer(nn.Module):
    """Scale and zero point of a tensor, learned or observed; fake-quantizes activations when called.

    Attributes:
        log_ratio: float32, shape of the scale; the parameter that learns, 0 at the start. See `LearnedScale`.
        start: the scale before training, float32 `[]` or `[C]`.
        zero_point: stays as calibrated.
        observing: whether training batches still move the range; never when the scale learns.
        stochastic: whether training rounds by chance; of weights only.
    """

    log_ratio: torch.Tensor
    start: torch.Tensor
    zero_point: torch.Tensor
    extremes: torch.Tensor

    def __init__(self, qparams: QParams, *, learned: bool) -> None:
        super().__init__()
        self.spec, self.axis, self.learned = qparams.spec, qparams.axis, learned
        self.observing = not learned
        self.stochastic = False
        self.register_buffer("start", qparams.scale.clone())
        self.register_buffer("zero_point", qparams.zero_point.clone())
        self.register_buffer("extremes", torch.stack(qparams.range))
        self.log_ratio = nn.Parameter(torch.zeros_like(qparams.scale), requires_grad=learned)
        self.grid = Grid.of(qparams)

    def scale(self, elements: int) -> torch.Tensor:
        """The scale as a function of `log_ratio`.

        Args:
            elements: how many values one scale serves, `n` in the paper's gradient scale `1 / sqrt(n * Q_P)`; for
                activations those of one sample.
        """
        gradient_scale = float(max(1, elements) * largest_code(self.spec)) ** -0.5
        power_of_two = self.spec.scale_kind is ScaleKind.POWER_OF_TWO
        return learned_scale(self.log_ratio, self.start, gradient_scale=gradient_scale, power_of_two=power_of_two)

    @torch.no_grad()
    def qparams(self) -> QParams:
        """What the scale is at this moment, detached from training."""
        return QParams(self.spec, self.scale(1).clone(), self.zero_point.clone(), self.axis)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32, bfloat16 or float16 of any shape; rounded in float32, returned in its own type."""
        values = x.float()
        if self.observing and self.training:
            self.observe(*torch.aminmax(values.detach()))
        if not torch.is_grad_enabled():
            return fake_quantize(values, self.qparams()).to(x.dtype)
        scale = self.scale(values.numel() // max(1, len(values) if values.dim() else 1))
        return round_activation(values, scale, self.grid).to(x.dtype)

    @torch.no_grad()
    def observe(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Moves the range towards a batch's extremes."""
        self.extremes += _MOMENTUM * (torch.stack((low, high)) - self.extremes)
        self.assign(choose_qparams(self.extremes[0], self.extremes[1], self.spec, axis=self.axis))

    @torch.no_grad()
    def assign(self, qparams: QParams) -> None:
        """Starts anew from these numbers, in their format."""
        self.spec = qparams.spec
        self.start.copy_(qparams.scale)
        self.zero_point.copy_(qparams.zero_point)
        self.log_ratio.zero_()
        self.grid = Grid.of(qparams)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.grid = Grid.of(QParams(self.spec, self.start, self.zero_point, self.axis))


class Quantizers(nn.Module):
    """All quantizers of a network, hung into it as one child so that its optimizer, DDP and checkpoints see them."""

    def __init__(self) -> None:
        super().__init__()
        self.by_tensor = nn.ModuleDict()

    def add(self, ref: TensorRef, quantizer: Quantizer) -> Quantizer:
        """Takes one more, under the name of its tensor (module names know no dots)."""
        self.by_tensor[str(ref).replace(".", "/")] = quantizer
        return quantizer

    def named(self) -> Iterator[tuple[str, Quantizer]]:
        """Each quantizer with the name of its tensor."""
        for name, module in self.by_tensor.items():
            assert isinstance(module, Quantizer)
            yield name.replace("/", "."), module

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Passes its input on: an `nn.Sequential` runs each of its children, and this is one."""
        return x
