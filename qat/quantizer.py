"""The module that holds the scale of one tensor (or of all that share it) while it is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bitwright.qat.calls import is_repeated
from bitwright.qat.methods import Method, learns
from bitwright.quant.dynamic_qparams import DynamicQParams
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.graph import TensorRef
from bitwright.quant.learned_scales import learned_scale, learned_zero_point, lsq_rate
from bitwright.quant.learned_steps import Grid, round_activation, round_dynamic
from bitwright.quant.qparams import QParams, choose_qparams, largest_code
from bitwright.quant.scheme import ScaleKind

# Weight of the newest batch in the moving range of scales that do not learn (torch's own averaging constant).
_MOMENTUM = 0.01
# The longest gradient of a scale, in shares of it.
_LONGEST = 1.0


class Quantizer(nn.Module):
    """Scale and zero point of a tensor, learned or observed; fake-quantizes activations when called.

    Attributes:
        log_ratio: float32, shape of the scale or [1], since `fully_shard` takes no scalars; the parameter that learns,
            0 at the start. See `LearnedScale`.
        shift: float32 [1]; how far the offset has moved, in steps of the start; None unless it learns (LSQ+).
        start: the scale before training, float32 `[]`, `[C]` or one for each block.
        zero_point: as calibrated; where the offset learns, that of the start.
        tensor_scale: the second level below scales of kind `float8_e4m3`; else None.
        observing: whether training batches still move the range; never when the scale learns.
        seen: the extremes of this step's batches so far, float32 [2]. The range moves once a step, so that accumulated
            batches, other processes' and those that checkpointing repeats all see one scale.
        stochastic: whether training rounds by chance; of weights only.
    """

    log_ratio: torch.Tensor
    shift: torch.Tensor | None
    start: torch.Tensor
    zero_point: torch.Tensor
    extremes: torch.Tensor
    tensor_scale: torch.Tensor | None

    def __init__(self, qparams: QParams, *, method: Method, weight: bool = False) -> None:
        super().__init__()
        self.spec, self.axis, self.method = qparams.spec, qparams.axis, method
        self.learned = learns(method, qparams.spec, weight=weight)
        self.observing = not self.learned
        self.seen: torch.Tensor | None = None
        self.stochastic = False
        self.register_buffer("start", qparams.scale.clone())
        self.register_buffer("zero_point", qparams.zero_point.clone())
        self.register_buffer("extremes", torch.stack(qparams.range))
        self.register_buffer("tensor_scale", _cloned(qparams.tensor_scale))
        self.log_ratio = nn.Parameter(_zeros(qparams.scale), requires_grad=self.learned)
        shifts = self.learned and method is Method.LSQ_PLUS and not (weight or qparams.spec.symmetric)
        self.shift = nn.Parameter(_zeros(qparams.scale)) if shifts else None
        self.grid = Grid.of(qparams)

    def scale(self, elements: int, *, log_ratio: torch.Tensor | None = None) -> torch.Tensor:
        """The scale as a function of `log_ratio`.

        Args:
            elements: how many values one scale serves, `n` in the paper's gradient scale `1 / sqrt(n * Q_P)`; for
                activations those of one sample.
            log_ratio: the whole of it, where `fully_shard` has left this process a part.
        """
        if not self.learned:
            return self.start.clone() if self.observing else self.start  # it may move before the backward pass
        return learned_scale(
            self.log_ratio if log_ratio is None else log_ratio,
            self.start,
            rate=self._rate(elements),
            linear=self.method is Method.LSQ_LINEAR,
            power_of_two=self.spec.scale_kind is ScaleKind.POWER_OF_TWO,
        )

    def _rate(self, elements: int) -> torch.Tensor:
        """What the gradient of the scale is multiplied by, beside `ds/dr`: see `LearnedScale`."""
        match self.method:
            case Method.TQT:
                return torch.ones_like(self.start)
            case Method.PACT:  # a step on alpha = s * high moves it by the paper's share
                return 1 / (self.start * largest_code(self.spec)).square()
        return lsq_rate(self.spec, self.start, elements)

    def _zero_point(self, scale: torch.Tensor, elements: int) -> torch.Tensor:
        if self.shift is None:
            return self.zero_point
        rate = self._rate(elements)
        return learned_zero_point(self.shift, scale, self.start, self.zero_point, rate, self.spec.code_range)

    @torch.no_grad()
    def qparams(self) -> QParams:
        """What the scale is at this moment, detached from training."""
        scale = self.scale(1).clone()
        zero_point = self._zero_point(scale, 1).clone()
        return QParams(self.spec, scale, zero_point, self.axis, _cloned(self.tensor_scale))

    def begins_at_zero(self, x: torch.Tensor) -> bool:
        """Whether the lowest code of a training batch is 0, and stays it."""
        return self.training and self.grid.low == 0 and self.shift is None

    def forward(self, x: torch.Tensor, *, ceiling: float | None = None) -> torch.Tensor:
        """float32, bfloat16 or float16 of any shape; rounded in float32, returned in its own type.

        Args:
            x: values.
            ceiling: they count as clipped to [0, ceiling], on a grid that begins at 0; None as they are.
        """
        values = x.float()
        if self.observing and self.training and not is_repeated():
            self._look(values.detach(), ceiling)
        if not torch.is_grad_enabled():
            return fake_quantize(values, self.qparams()).to(x.dtype)
        elements = values.numel() // max(1, len(values) if values.dim() else 1)
        scale = self.scale(elements)
        clipping_only = self.method is Method.PACT
        if self.shift is None:
            limit = None if ceiling is None or math.isinf(ceiling) else ceiling
            return round_activation(values, scale, self.grid, clipping_only=clipping_only, ceiling=limit).to(x.dtype)
        zero_point = self._zero_point(scale, elements)
        low, high = self.spec.code_range
        origin = float(zero_point.detach())
        grid = Grid(low - origin, high - origin)
        return round_activation(values, scale, grid, zero_point=zero_point).to(x.dtype)

    def _look(self, values: torch.Tensor, ceiling: float | None) -> None:
        extremes = torch.stack(torch.aminmax(values))
        if ceiling is not None:
            extremes.clamp_(0.0, ceiling)  # of NaN it stays NaN
        if self.seen is None:
            self.seen = extremes
        else:
            self.seen = torch.stack(
                (torch.minimum(self.seen[0], extremes[0]), torch.maximum(self.seen[1], extremes[1]))
            )

    @torch.no_grad()
    def observe(self, extremes: torch.Tensor) -> None:
        """Moves the range towards the extremes of a step's batches, float32 [2]."""
        self.seen = None
        self.extremes += _MOMENTUM * (extremes - self.extremes)
        self.assign(choose_qparams(self.extremes[0], self.extremes[1], self.spec, axis=self.axis))

    @torch.no_grad()
    def assign(self, qparams: QParams) -> None:
        """Starts anew from these numbers, in their format."""
        self.spec = qparams.spec
        self.start.copy_(qparams.scale)
        self.zero_point.copy_(qparams.zero_point)
        if self.tensor_scale is not None and qparams.tensor_scale is not None:
            self.tensor_scale.copy_(qparams.tensor_scale)
        self.log_ratio.zero_()
        if self.shift is not None:
            self.shift.zero_()
        self.grid = Grid.of(qparams)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.grid = Grid.of(QParams(self.spec, self.start, self.zero_point, self.axis))


class DynamicQuantizer(nn.Module):
    """Fake-quantizes an activation by the scale that its own values have, in training as afterwards.

    Attributes:
        tensor_scale: the calibrated second level of a scale of kind `float8_e4m3`; else None.
    """

    tensor_scale: torch.Tensor | None
    learned = False

    def __init__(self, rule: DynamicQParams) -> None:
        super().__init__()
        self.spec, self.axis = rule.spec, rule.axis
        self.register_buffer("tensor_scale", _cloned(rule.tensor_scale))

    def begins_at_zero(self, x: torch.Tensor) -> bool:
        """Never known before the values are."""
        return False

    @property
    def rule(self) -> DynamicQParams:
        """How the qparams follow from the values."""
        return DynamicQParams(spec=self.spec, axis=self.axis, tensor_scale=_cloned(self.tensor_scale))

    def forward(self, x: torch.Tensor, *, ceiling: float | None = None) -> torch.Tensor:
        """As `Quantizer.forward`."""
        values = x.float()
        if not values.numel():
            return x
        return round_dynamic(values, self.rule.of(values.detach())).to(x.dtype)


def _zeros(scale: torch.Tensor) -> torch.Tensor:
    """Of the shape of a scale, [1] for a single one."""
    return scale.new_zeros(scale.shape or (1,))


def _cloned(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.clone()


class Quantizers(nn.Module):
    """All quantizers of a network, hung into it as one child so that its optimizer, DDP and checkpoints see them.

    Attributes:
        step: int64 [1]; how many steps these were trained.
        plan: uint8 [32]; the fingerprint of what is quantized, and how.
    """

    step: torch.Tensor
    plan: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("plan", torch.zeros(32, dtype=torch.uint8))
        self.by_tensor = nn.ModuleDict()
        self.dynamic = nn.ModuleDict()

    def add_dynamic(self, ref: TensorRef, quantizer: DynamicQuantizer) -> DynamicQuantizer:
        """Takes one more whose scale follows its tensor."""
        self.dynamic[str(ref).replace(".", "/")] = quantizer
        return quantizer

    def add(self, ref: TensorRef, quantizer: Quantizer) -> Quantizer:
        """Takes one more, under the name of its tensor (module names know no dots)."""
        self.by_tensor[str(ref).replace(".", "/")] = quantizer
        return quantizer

    def named(self) -> Iterator[tuple[str, Quantizer]]:
        """Each quantizer with the name of its tensor."""
        for name, module in self.by_tensor.items():
            assert isinstance(module, Quantizer)
            yield name.replace("/", "."), module

    @torch.no_grad()
    def bound_gradients(self) -> None:
        """Lets no step of plain descent move a scale by a larger share than its learning rate.

        Gradients of scales count in shares of the scale per unit of learning rate, and one of 240 has been seen (a
        depthwise weight in 8 bits, the first step): the scale is gone before the next batch. Trained thresholds have
        the same bound (Jain et al. 2020, normed log gradients: a tanh keeps them within [-1, 1]). Here and not in the
        backward pass, where the loss may still be scaled for float16.
        """
        gradients = [
            parameter.grad
            for _, quantizer in self.named()
            if quantizer.learned
            for parameter in quantizer.parameters()
            if parameter.grad is not None
        ]
        if gradients:
            torch._foreach_clamp_min_(gradients, -_LONGEST)
            torch._foreach_clamp_max_(gradients, _LONGEST)

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Passes its input on: an `nn.Sequential` runs each of its children, and this is one."""
        return x
