"""Scales the channels of activations so that quantization moves the results least; the network stays the same.

Dividing channel c of a tensor by s_c and multiplying the weights that read it by s_c changes nothing
(`channel_spaces`). It changes what rounding costs. To first order, in squared units of the results,

    activations   sum over tensors t   (range_t(s) / steps)^2  sum_c s_c^2 G_tc
    weights       sum over readers k   sum_o (max_c |w_oc| s_c / w_steps)^2 H_ko  sum_c M_kc / s_c^2

with `range_t(s)` the range of all channels after scaling, `G` and `H` what noise in a channel of a tensor and of the
reader's result costs (`sensitivity`), and `M_kc` the mean square of the reader's input times its taps. Both terms fall
when channels come to like ranges, until the readers' weights get unlike ones: the balance that SmoothQuant (Xiao et
al. 2023, eq. 4) strikes by an exponent, here by what it does to the results. Each space is minimized by itself over
log s: the scale of an output channel does not change the relative rounding of its weights.

Where a clamp (ReLU6) lies in a space, its bound stays what it is: channels that reach it keep s = 1, the others grow
at most to the bound, with some room left.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.channel_spaces import ChannelSpace, channel_spaces
from bitwright.quant.fake_quantize import broadcastable
from bitwright.quant.formats import IntFormat
from bitwright.quant.graph import TensorRef
from bitwright.quant.scheme import QParamsSpec, QuantScheme

# Below a clamp a channel grows to its bound divided by this: what calibration saw may be surpassed by so much.
HEADROOM = 1.25
_STEPS = 50
_RATE = 0.15  # of log s; 150 steps of 0.05 take 2 s longer on MobileNetV2 and end no lower
_DEAD = 1e-9  # of a tensor's range: nothing to scale
_FLOAT_STEPS = 2.0**5  # a float format's largest step in relation to its range, of formats with 3 bits of mantissa


@dataclass(frozen=True)
class Equalized:
    """What became of a network.

    Attributes:
        captured: with other weights and the same results.
        factors: what each channel of a tensor was divided by, float32 `[C]`; tensors without any are what they were.
    """

    captured: CapturedModel
    factors: Mapping[TensorRef, torch.Tensor]

    def sensitivity(self, before: Mapping[TensorRef, torch.Tensor]) -> dict[TensorRef, torch.Tensor]:
        """`channel_sensitivity` of the new network from that of the old: with `x' = x / s`, `dy/dx' = s dy/dx`."""
        return {ref: cost * self.factors[ref].square() if ref in self.factors else cost for ref, cost in before.items()}


class ChannelStatistics:
    """What flows through tensors, channel by channel, float32 `[C]` each; `note` looks at one tensor of one sample.

    Attributes:
        reached: the largest magnitude of all samples.
        powers: the mean square in each sample.
    """

    def __init__(self, axes: Mapping[TensorRef, int]) -> None:
        self._axes = axes
        self._low: dict[TensorRef, torch.Tensor] = {}
        self._high: dict[TensorRef, torch.Tensor] = {}
        self.reached: dict[TensorRef, torch.Tensor] = {}
        self.powers: dict[TensorRef, list[torch.Tensor]] = {}

    def note(self, ref: TensorRef, tensor: torch.Tensor) -> None:
        """Counts a tensor, once a sample; others than those of the axes are passed over."""
        if ref not in self._axes or not tensor.numel():
            return
        rows = tensor.movedim(self._axes[ref], 0).flatten(1)
        low, high = rows.amin(1), rows.amax(1)  # `aminmax` takes five times as long
        largest = torch.maximum(-low, high)
        seen = ref in self.reached
        self._low[ref] = self._low[ref] + low if seen else low
        self._high[ref] = self._high[ref] + high if seen else high
        self.reached[ref] = torch.maximum(self.reached[ref], largest) if seen else largest
        self.powers.setdefault(ref, []).append(rows.square().mean(1))

    def low(self, ref: TensorRef) -> torch.Tensor:
        """The mean over samples of the smallest value: one outlier does not decide."""
        return self._low[ref] / len(self.powers[ref])

    def high(self, ref: TensorRef) -> torch.Tensor:
        """Of the largest."""
        return self._high[ref] / len(self.powers[ref])

    def power(self, ref: TensorRef) -> torch.Tensor:
        """Of the mean square."""
        return torch.stack(self.powers[ref]).mean(0)

    def typical_energy(self, ref: TensorRef, weights: torch.Tensor) -> float:
        """The median over samples of `sum_c weights_c mean(x_c^2)`; infinity where nothing was seen.

        Scaled channels with weights that follow (`Equalized.sensitivity`) have the same.
        """
        energies = [float(power.double() @ weights.double()) for power in self.powers.get(ref, [])]
        return (statistics.median(energies) if energies else 0.0) or math.inf


@torch.no_grad()
def equalize(
    captured: CapturedModel,
    scheme: QuantScheme,
    sensitivity: Mapping[TensorRef, torch.Tensor],
    seen: ChannelStatistics,
) -> Equalized:
    """Returns the network with other weights and the same results, and what was done to its tensors.

    Args:
        captured: the network in float, batch norms folded.
        scheme: how it will be quantized.
        sensitivity: `channel_sensitivity` of `channel_axes`.
        seen: what flows through the tensors of `channel_axes`, in the same samples.
    """
    spaces = channel_spaces(captured.graph)
    values = dict(captured.values)
    found: dict[TensorRef, torch.Tensor] = {}
    for space in spaces:
        factors = Balance(space, captured, values, seen, sensitivity, scheme).factors()
        if space.ceiling != float("inf"):
            factors = _below_ceiling(space, factors, seen)
        _scale(space, factors, values, captured)
        found.update(dict.fromkeys(space.tensors, factors))
    return Equalized(replace(captured, values=values), found)


@dataclass(frozen=True)
class Reader:
    """A layer that sums over the channels: `largest` weight `[out, C]`, `power` of its input `[C]`, `cost` `[out]`."""

    largest: torch.Tensor
    power: torch.Tensor
    cost: torch.Tensor


class Balance:
    """What rounding costs in one space, as a function of log s."""

    def __init__(
        self,
        space: ChannelSpace,
        captured: CapturedModel,
        values: Mapping[str, torch.Tensor],
        seen: ChannelStatistics,
        sensitivity: Mapping[TensorRef, torch.Tensor],
        scheme: QuantScheme,
    ) -> None:
        self.channels = space.channels
        self.steps, self.weight_steps = _steps(scheme.activations), _steps(scheme.weights)
        self.tensors = [
            (seen.low(ref).clamp(max=0), seen.high(ref).clamp(min=0), sensitivity[ref])
            for ref in space.tensors
            if ref in sensitivity
        ]
        shares = [torch.maximum(-low, high) for low, high, _ in self.tensors]
        self.share = torch.stack([each / each.amax().clamp(min=1e-30) for each in shares]).amax(0) if shares else None
        self.readers = [
            Reader(
                weight.abs().reshape(*weight.shape[:2], -1).amax(2),
                seen.power(data) * weight[0, 0].numel(),
                sensitivity[use.node.outputs[0]],
            )
            for use in space.readers
            for data in [use.node.inputs[0]]
            for weight in [values[captured.value_refs[use.weight]]]
            if not use.depthwise and data is not None and use.node.outputs[0] in sensitivity
        ]

    def factors(self) -> torch.Tensor:
        """The best `s` found, float32 `[C]`; 1 for channels without values."""
        one = torch.ones(self.channels)
        if self.share is None:
            return one
        alive = self.share > _DEAD
        point = torch.where(alive, self.share.clamp(min=1e-6).log() / 2, 0.0)
        best, least = torch.zeros_like(point), self.cost(torch.zeros_like(point))[0]
        optimizer = torch.optim.Adam([point], lr=_RATE)
        for _ in range(_STEPS):
            cost, slope = self.cost(point)
            if cost < least:
                best, least = point.clone(), cost
            point.grad = slope / cost  # of its logarithm
            optimizer.step()
        return torch.where(alive, best.exp(), one)

    def cost(self, log_scale: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Of activations and weights together, and its gradient `[C]`.

        Written out: of a wide reader the largest weights take one pass, autograd's way back several more.
        """
        scale = log_scale.exp()
        total, slope = torch.full((), torch.finfo(torch.float32).tiny), torch.zeros_like(scale)
        for low, high, cost in self.tensors:
            (top, highest), (bottom, lowest) = (high / scale).max(0), (low / scale).min(0)
            width, noise = (top - bottom) / self.steps, scale.square() * cost
            total += width.square() * noise.sum()
            slope += 2.0 * width.square() * noise
            slope[highest] -= 2.0 * width * noise.sum() * top / self.steps
            slope[lowest] += 2.0 * width * noise.sum() * bottom / self.steps
        for reader in self.readers:
            step, largest = (reader.largest * scale).max(1)
            noise, power = (step / self.weight_steps).square() * reader.cost, reader.power / scale.square()
            total += noise.sum() * power.sum()
            slope.index_add_(0, largest, noise, alpha=2.0 * float(power.sum()))
            slope -= 2.0 * noise.sum() * power
        return float(total), slope


def _steps(spec: QParamsSpec) -> float:
    """A range in steps; of a weight's symmetric format half of it, since its range is its largest magnitude."""
    if not isinstance(spec.format, IntFormat):
        return _FLOAT_STEPS
    low, high = spec.code_range
    return float(high if spec.symmetric else high - low)


def _below_ceiling(space: ChannelSpace, factors: torch.Tensor, seen: ChannelStatistics) -> torch.Tensor:
    reached = torch.stack([seen.reached[ref] for ref in space.tensors]).amax(0)
    least = (reached * HEADROOM / space.ceiling).clamp(max=1.0)
    factors = factors / factors[reached.argmax()]
    # Of a channel that showed no value nobody knows how far it may grow.
    keeps = (least >= 1.0) | (reached <= _DEAD * reached.amax())
    return torch.where(keeps, 1.0, torch.maximum(factors.clamp(max=1.0), least))


def _scale(
    space: ChannelSpace, factors: torch.Tensor, values: dict[str, torch.Tensor], captured: CapturedModel
) -> None:
    def multiply(refs: Sequence[TensorRef | None], by: torch.Tensor, axis: int) -> None:
        for ref in refs:
            if ref is not None:
                name = captured.value_refs[ref]
                values[name] = values[name] * broadcastable(by, axis, values[name].dim())

    for use in space.makers:
        multiply([use.weight, *use.node.inputs[2:3]], 1 / factors, use.axis)
    for use in space.readers:
        multiply([use.weight], factors, use.axis)
