"""Layers with weights, in place in the user's own module tree: the class changes, names and parameters stay.

A batch norm behind a layer is folded in the layer's own forward, so that the quantized weight is the folded one, as on
the device. While the batch norm still learns its statistics (training, before it freezes), the layer computes with
`fq(w * k) / k` and the batch norm runs as ever: the codes are those of the folded weight, the statistics those of the
batch. Once it is frozen, and in eval mode, the layer computes with `fq(w * k)` and the batch norm hands its input on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bitwright.qat.calls import CallCounter, is_repeated
from bitwright.qat.methods import Method
from bitwright.qat.quantizer import Quantizer
from bitwright.qat.shards import whole
from bitwright.quant.fake_quantize import broadcastable, fake_quantize, spread
from bitwright.quant.learned_steps import round_weight, rounded_again, straight_through
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import BIAS_SPEC
from bitwright.quant.scheme import QParamsSpec, ScaleKind
from bitwright.quant.weights import choose_weight_qparams

# Below it a batch norm's factor counts as this: its channel is dead, and a scale must not become 0.
_SMALLEST_FACTOR = 1e-20


def norm_factor(norm: _BatchNorm) -> torch.Tensor:
    """`k = gamma / sqrt(var + eps)`, float32 [C]."""
    assert norm.running_var is not None  # only such batch norms are folded
    inverse = torch.rsqrt(norm.running_var + norm.eps)
    return inverse if norm.weight is None else whole(norm.weight) * inverse


class FoldedWeight:
    """What a layer computes with: its weight and bias, folded with the batch norm behind it, and rounded.

    A per-channel scale belongs to the unfolded weight (`s = s_w * |k|`), so that codes stay where they are when the
    batch norm moves. One scale for all channels, and a power of two, must be that of the folded weight itself.

    Attributes:
        quantizer: of the weight; None where only the batch norm is folded.
        norm: the batch norm that is folded in, if any.
        inputs: the quantizer of the layer's input in each of its calls, where the bias is kept as int32; else None.
        counter: of its calls in this forward of the network.
    """

    def __init__(
        self, layer: Any, qparams: QParams | None, norm: _BatchNorm | None, *, axis: int, method: Method
    ) -> None:
        self.norm, self.axis = norm, axis
        self.inputs: list[Quantizer | None] = []
        self.counter = CallCounter()
        self.quantizer: Quantizer | None = None
        if qparams is None:
            return
        # One scale a channel or block that may be any float can be taken apart into the weight's and the norm's share.
        self.is_relative = norm is not None and qparams.axis is not None
        self.is_relative &= qparams.spec.scale_kind is ScaleKind.FLOAT32
        if self.is_relative and norm is not None:
            qparams = replace(qparams, scale=qparams.scale / self._size(norm_factor(norm).detach(), qparams.scale))
        self.quantizer = Quantizer(qparams, method=method, weight=True)
        self.clip = qparams.scale / self._widest(layer.weight.detach()).scale

    def __call__(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias of this call."""
        live = self.norm is not None and self.norm.training
        weight, bias, scale = self._fold(layer.weight, layer.bias, live=live)
        if bias is None or layer.training or not self.inputs:
            return weight, bias  # int32 steps are too fine to be felt in training
        source = self.inputs[self.counter.next(len(self.inputs), layer, ())]
        if source is None:
            return weight, bias
        return weight, int32_bias(bias, source, scale)

    @torch.no_grad()
    def deployed(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor | None, QParams | None]:
        """The folded weight on its grid, the folded bias in float, and the weight's qparams."""
        weight, bias, scale = self._fold(layer.weight, layer.bias, live=False)
        if self.quantizer is None:
            return weight, bias, None
        return weight, bias, replace(self.quantizer.qparams(), scale=scale.clone())

    @torch.no_grad()
    def divisor(self, layer: Any) -> torch.Tensor:
        """What the layer's weight is divided by to give codes, at this moment; broadcasts against it.

        The whole of it, also where `fully_shard` has left this process parts of the parameters.
        """
        quantizer, weight = self.quantizer, layer.weight
        assert quantizer is not None
        factor = norm_factor(self.norm) if self.norm is not None else None
        elements = weight.numel() // max(1, quantizer.start.numel())
        scale = quantizer.scale(elements, log_ratio=whole(quantizer.log_ratio))
        divisor, _ = self._steps(scale, factor)
        return self._spread(divisor, weight)

    @torch.no_grad()
    def restart(self, layer: Any, spec: QParamsSpec, *, observer: str | None) -> None:
        """Goes on in another format.

        Args:
            layer: whose weight it is.
            spec: its new one.
            observer: what chooses the scale anew; None when it is about to be loaded.
        """
        assert self.quantizer is not None
        if observer is None:
            self.quantizer.assign(replace(self.quantizer.qparams(), spec=spec))
            return
        weight = layer.weight
        factor = None if self.norm is None else norm_factor(self.norm)
        if factor is not None:
            weight = weight * broadcastable(factor, self.axis, weight.dim())
        qparams = choose_weight_qparams(weight, replace(spec, observer=observer), self._cut_axis)
        qparams = replace(qparams, spec=spec)
        if factor is not None and self.is_relative:
            qparams = replace(qparams, scale=qparams.scale / self._size(factor, qparams.scale))
        self.quantizer.assign(qparams)
        self.clip = qparams.scale / self._widest(layer.weight).scale

    def _fold(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, live: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Weight, bias, and the scale of the weight's codes."""
        # Beside a live batch norm, a scale of the unfolded weight needs of it no more than signs.
        wants_factor = self.norm is not None and not (live and self.quantizer is not None and self.is_relative)
        factor = norm_factor(self.norm) if wants_factor and self.norm is not None else None
        if self.quantizer is None:
            scale = torch.ones(())
            if factor is not None and not live:
                weight = weight * broadcastable(factor, self.axis, weight.dim())
        else:
            scale = self.quantizer.scale(weight.numel() // max(1, self.quantizer.start.numel()))
            divisor, scale = self._steps(scale, factor, live=live)
            steps = self._spread(divisor, weight)
            if self.quantizer.stochastic and self.quantizer.training:
                weight = dithered(weight, steps.detach())
            multiplier = steps if divisor is scale else self._spread(scale, weight)
            weight = round_weight(weight, steps, multiplier, self.quantizer.grid)
        if self.norm is None or factor is None or live:
            return weight, bias, scale
        assert self.norm.running_mean is not None
        shift = -self.norm.running_mean if bias is None else bias - self.norm.running_mean
        folded = shift * factor if self.norm.bias is None else torch.addcmul(self.norm.bias, shift, factor)
        return weight, folded, scale

    def _steps(
        self, scale: torch.Tensor, factor: torch.Tensor | None, *, live: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the unfolded weight is divided by to give codes, and the scale of the weight that comes out.

        Beside a live batch norm the weight that comes out is unfolded, and both are the same.
        """
        if self.norm is None:
            return scale, scale
        if self.is_relative:
            divisor = self._signed(scale)
            return divisor, divisor if live or factor is None else scale * self._size(factor, scale)
        assert factor is not None
        divisor = self._signed(scale / self._size(factor, scale))
        return divisor, divisor if live else scale

    def _signed(self, scale: torch.Tensor) -> torch.Tensor:
        """With the signs that the batch norm gives to channels."""
        assert self.norm is not None
        if self.norm.weight is None:
            return scale
        gamma = whole(self.norm.weight.detach())
        return torch.where(self._beside(gamma, scale) < 0, -scale, scale)

    @property
    def is_following(self) -> bool:
        """Whether the scale is taken from the weights after each step."""
        return self.quantizer is not None and self.quantizer.observing

    @torch.no_grad()
    def follow(self, weight: torch.Tensor) -> None:
        """Takes the scale from the weights, as far clipped as at the start; MX's and NVFP4's as they are defined."""
        quantizer = self.quantizer
        assert quantizer is not None
        widest = self._widest(weight)
        quantizer.start.copy_(widest.scale * self.clip if widest.tensor_scale is None else widest.scale)
        if quantizer.tensor_scale is not None and widest.tensor_scale is not None:
            quantizer.tensor_scale.copy_(widest.tensor_scale)

    def _widest(self, weight: torch.Tensor) -> QParams:
        """The qparams that clip nothing, or that the format defines."""
        assert self.quantizer is not None
        if self.norm is not None and not self.is_relative:
            weight = weight * broadcastable(norm_factor(self.norm).detach(), self.axis, weight.dim())
        spec = self.quantizer.spec
        return choose_weight_qparams(weight, replace(spec, observer="min_max"), self._cut_axis)

    @property
    def _cut_axis(self) -> int | None:
        """The axis of channels, or that of blocks where scales are theirs."""
        assert self.quantizer is not None
        return self.axis if self.quantizer.spec.block_size is None else self.quantizer.axis

    def _spread(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """One value for all, a channel or a block, so that they broadcast against the weight."""
        assert self.quantizer is not None
        size = self.quantizer.spec.block_size
        axis = self._cut_axis if values.dim() else None
        if size is not None and values.dim() and axis is not None and values.shape[axis] == 1:
            return values  # one block, or factors of whole channels
        return spread(values, weight, axis=axis, block_size=size)

    def _beside(self, factor: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """A factor a channel, so that it broadcasts against scales of blocks."""
        return broadcastable(factor, self.axis, scale.dim()) if scale.dim() > 1 else factor

    def _size(self, factor: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self._beside(factor.abs().clamp(min=_SMALLEST_FACTOR), scale)


def dithered(weight: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    """The weight plus noise that is even over one step: its nearest rounding is then stochastic rounding.

    `round(v + u - 1/2)` with `u` even in [0, 1) is `floor(v) + 1` with probability `v - floor(v)`: right on average
    (Gupta et al. 2015, Deep Learning with Limited Numerical Precision, section 3).
    """
    return weight + (torch.rand_like(weight) - 0.5) * divisor


def int32_bias(bias: torch.Tensor, source: Quantizer, weight_scale: torch.Tensor) -> torch.Tensor:
    """The bias as the device keeps it: int32 with scale(input) * scale(weight)."""
    step = source.qparams().scale * weight_scale.detach()
    exact = QParams(BIAS_SPEC, step, torch.zeros_like(step), 0 if step.dim() else None)
    return straight_through(bias, fake_quantize(bias.detach(), exact))


@dataclass(eq=False)
class RoundedConstant:
    """A weight or constant that a function call reads, on its grid."""

    quantizer: Quantizer

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """float32, any shape."""
        quantizer = self.quantizer
        scale = quantizer.scale(values.numel() // max(1, quantizer.start.numel()))
        if not values.requires_grad:  # a buffer, such as a running mean, whose reader may take no gradient for it
            scale = scale.detach()
        scale = spread(scale, values, axis=quantizer.axis, block_size=quantizer.spec.block_size)
        return round_weight(values, scale, scale, quantizer.grid)


@dataclass(eq=False)
class RoundedBias:
    """A bias that a function call reads, as int32; in training its steps are too fine to be felt."""

    source: Quantizer
    weight: Quantizer

    def __call__(self, bias: torch.Tensor) -> torch.Tensor:
        """float32 [C]."""
        return bias if self.weight.training else int32_bias(bias, self.source, self.weight.scale(1))


class _InPlace:
    """Common to the classes below: `folded` is set by `quantize_in_place`."""

    folded: FoldedWeight


class _Convolution(_InPlace):
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.folded(self)
        with rounded_again(x):
            return self._conv_forward(x, weight, bias)  # type: ignore[no-any-return]


class _Linear(_InPlace):
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.folded(self)
        with rounded_again(x):
            return F.linear(x, weight, bias)


class _TransposedConvolution(_InPlace):
    def forward(self: Any, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        rank = self.weight.dim() - 2
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        extra = self._output_padding(x, output_size, self.stride, self.padding, self.kernel_size, rank, self.dilation)
        weight, bias = self.folded(self)
        with rounded_again(x):
            return convolve(x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)


class ScheduledNorm:
    """A batch norm that stays in eval mode once it is frozen, whatever `model.train()` says.

    Where activation checkpointing repeats a forward, the batch is normalized again and counted only once.
    """

    frozen = False

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """As the batch norm's own."""
        if self.training and is_repeated():
            # With statistics, though they are copies: checkpointing holds the repeated forward to the same tensors.
            mean, variance = (each if each is None else each.clone() for each in (self.running_mean, self.running_var))
            return F.batch_norm(x, mean, variance, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)  # type: ignore[misc,no-any-return]

    def train(self: Any, mode: bool = True) -> Any:
        """As `nn.Module.train`."""
        return super().train(mode and not self.frozen)  # type: ignore[misc]


class FoldedNorm(ScheduledNorm):
    """A batch norm that its layer has taken in: only its statistics are still learned, until it freezes."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """Normalizes by the batch in training; hands `x` on else."""
        return super().forward(x) if self.training else x


_STOCK: tuple[tuple[type[nn.Module], type], ...] = (
    *((kind, _Convolution) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    *((kind, _TransposedConvolution) for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)),
    (nn.Linear, _Linear),
)


def in_place_class(module: nn.Module) -> type | None:
    """What a layer's class can be replaced by; None when it computes in a way of its own."""
    for kind, replacement in _STOCK:
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return replacement
    return None


def swap_class(module: nn.Module, behaviour: type) -> None:
    """Gives a module another forward in place; `restore_class` undoes it."""
    own: Any = type(module)
    module.__class__ = _combined(own, behaviour)


def restore_class(module: nn.Module, behaviour: type) -> None:
    """Gives a module its own class back; a class that was put around it since, as by `fully_shard`, stays around."""
    module.__class__ = _without(type(module), behaviour)


def _without(kind: Any, behaviour: type) -> Any:
    if kind.__bases__[0] is behaviour:
        return kind.__bases__[1]
    bases = tuple(_without(base, behaviour) if issubclass(base, behaviour) else base for base in kind.__bases__)
    return type(kind.__name__, bases, {"__module__": kind.__module__, "__doc__": kind.__doc__})


class EagerForward:
    """A module whose function calls are quantized: it runs eagerly when the model is compiled.

    A `TorchFunctionMode` that hooks begin and end cannot be part of a compiled graph; the modules inside are left out
    with it, so that results are those of the eager model.
    """

    @_disable_dynamo
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own, also when somebody has kept this method and the module is taken apart again."""
        if not isinstance(self, EagerForward):
            return type(self).forward(self, *args, **kwargs)
        return super().forward(*args, **kwargs)  # type: ignore[misc]


@cache
def _combined(own: Any, behaviour: Any) -> Any:
    return type(f"{behaviour.__name__.lstrip('_')}{own.__name__}", (behaviour, own), {"__module__": own.__module__})
