"""What quantization does to every tensor of a network: its error, what it clips, and how its values are spread.

Two errors are told apart. The *cumulative* error is what the float network's reader of a tensor would notice: all
layers before it are quantized, too. The *own* error is made between the tensor's quantized inputs and itself, given
these inputs in float: it names the layer that is to blame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bitwright.quant.captured_model import CapturedModel, Transform
from bitwright.quant.channel_peaks import ChannelPeaks, channel_extremes
from bitwright.quant.channel_spaces import channel_axes
from bitwright.quant.fake_quantize import aligned, fake_quantize
from bitwright.quant.formats import FloatFormat
from bitwright.quant.graph import TensorRef
from bitwright.quant.operand_axes import weight_axis
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import Granularity, QParamsSpec
from bitwright.quant.sqnr import sqnr_db

BINS = 64
State = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """One quantized tensor.

    Attributes:
        ref: the tensor.
        is_weight: a parameter (its errors are those of its rounding), or an activation.
        format: its number format.
        sqnr_db: signal to cumulative noise, dB.
        own_sqnr_db: signal to own noise, dB.
        clipped: share of the float values that the format cuts off, 0 to 1.
        low: the smallest real value that is represented (per channel: the smallest of all).
        high: the largest.
        counts: histogram of the float values, `[BINS]`; empty for a constant tensor.
        edges: the edges of its bins, `[BINS + 1]`, from the smallest float value to the largest.
        clip_noise: share of its rounding's noise that is made by the values cut off, 0 to 1; the rest is rounding.
        weight_noise: share of its own noise that its rounding does not make: it comes from the layer's rounded weights.
        peaks: of its channels; None without an axis of channels.
    """

    ref: TensorRef
    is_weight: bool
    format: str
    sqnr_db: float
    own_sqnr_db: float
    clipped: float
    low: float
    high: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]
    clip_noise: float = 0.0
    weight_noise: float = 0.0
    peaks: ChannelPeaks | None = None


@torch.no_grad()
def layer_report(
    reference: CapturedModel, quantized: QuantizedModel, samples: Sequence[tuple[Any, ...]]
) -> tuple[TensorReport, ...]:
    """Reports on every quantized tensor, in the order of the network.

    Each sample runs four times: in float for the ranges, in float for the truth, quantized, and quantized between
    neighbours. The activations of one sample are held at a time; statistics do not grow with the data.

    Args:
        reference: the network in float, with the identities of the quantized one.
        quantized: the network after quantization.
        samples: arguments of `forward` at the captured batch size, not empty.

    Raises:
        ValueError: there is no sample.
        InputError: a sample does not fit the captured network.
    """
    if not samples:
        raise ValueError("layer_report needs at least one sample")
    axes = channel_axes(quantized.captured.graph)
    seen = {
        ref: _Statistics(spec, quantized.qparams.get(ref), axes.get(ref))
        for ref, spec in quantized.plan.activations.items()
    }
    _find_ranges(reference, seen, samples)
    states = reference.initial_state(), quantized.captured.initial_state()
    for arguments in samples:
        _compare(reference, quantized, seen, arguments, *states)
    tensors = quantized.captured.graph.tensors
    weights = {ref: _weight_statistics(quantized, ref) for ref in quantized.plan.weights}
    every = {**seen, **weights}
    return tuple(every[ref].report(ref, is_weight=ref in weights) for ref in tensors if ref in every)


@dataclass
class _Statistics:
    """Sums over the values of one tensor; a dynamic scale has no qparams of its own, and clips nothing."""

    spec: QParamsSpec
    qparams: QParams | None
    axis: int | None = None
    signal: float = 0.0
    noise: float = 0.0
    own_noise: float = 0.0
    elements: int = 0
    clipped: int = 0
    rounding_noise: float = 0.0
    clip_noise: float = 0.0
    lows: torch.Tensor | None = None
    highs: torch.Tensor | None = None
    least: float = math.inf
    most: float = -math.inf
    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))

    def widen(self, values: torch.Tensor) -> None:
        """Takes the extremes of float values."""
        if values.numel():
            low, high = torch.aminmax(values)
            self.least, self.most = min(self.least, float(low)), max(self.most, float(high))
            if self.axis is not None and values.dim():
                lows, highs = channel_extremes(values, self.axis)
                self.lows = lows if self.lows is None else torch.minimum(self.lows, lows)
                self.highs = highs if self.highs is None else torch.maximum(self.highs, highs)

    def add(self, values: torch.Tensor) -> None:
        """Counts float values whose extremes are known."""
        self.signal += float(values.double().square().sum())
        self.elements += values.numel()
        if self.qparams:
            cut = is_clipped(values, self.qparams)
            noise = (values.double() - fake_quantize(values, self.qparams).double()).square()
            self.clipped += int(cut.sum())
            self.rounding_noise += float(noise.sum())
            self.clip_noise += float(noise[cut].sum())
        if self.most > self.least:
            self.counts += torch.histc(values.float(), BINS, self.least, self.most).to(torch.int64)

    def report(self, ref: TensorRef, *, is_weight: bool) -> TensorReport:
        low, high = self._range()
        spread = self.most > self.least
        return TensorReport(
            ref=ref,
            is_weight=is_weight,
            format=self.spec.format.name,
            sqnr_db=sqnr_db(self.signal, self.noise),
            own_sqnr_db=sqnr_db(self.signal, self.own_noise),
            clipped=self.clipped / max(1, self.elements),
            low=low,
            high=high,
            counts=tuple(self.counts.tolist()) if spread else (),
            edges=tuple(torch.linspace(self.least, self.most, BINS + 1).tolist()) if spread else (),
            clip_noise=self.clip_noise / self.rounding_noise if self.rounding_noise else 0.0,
            weight_noise=0.0 if is_weight or not self.own_noise else max(0.0, 1 - self.rounding_noise / self.own_noise),
            peaks=self._peaks(),
        )

    def _peaks(self) -> ChannelPeaks | None:
        if self.lows is None or self.highs is None:
            return None
        own_scales = self.spec.granularity is not Granularity.PER_TENSOR
        return ChannelPeaks.of(self.lows, self.highs, own_scales=own_scales)

    def _range(self) -> tuple[float, float]:
        if self.qparams is None:
            return self.least, self.most
        low, high = self.qparams.range
        return float(low.min()), float(high.max())


def is_clipped(values: torch.Tensor, qparams: QParams) -> torch.Tensor:
    """Which values a format cuts off: those that lie beyond its last code by more than half a step. bool, same shape.

    Half a step, because a range of [0, 6] may end at 5.9999995, which cuts nothing off a ReLU6.
    """
    fmt = qparams.spec.format
    step = qparams.scale
    if isinstance(fmt, FloatFormat):
        step = step * 2.0 ** (math.floor(math.log2(fmt.max_value)) - fmt.mantissa_bits)
    low, high = (
        aligned(bound + sign * step / 2, qparams, values) for bound, sign in zip(qparams.range, (-1, 1), strict=True)
    )
    return (values < low) | (values > high)


def _find_ranges(
    reference: CapturedModel, seen: Mapping[TensorRef, _Statistics], samples: Sequence[tuple[Any, ...]]
) -> None:
    def note(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref in seen:
            seen[ref].widen(values)
        return values

    state = reference.initial_state()
    for arguments in samples:
        reference.run(*arguments, state=state, transform=note)


def _compare(
    reference: CapturedModel,
    quantized: QuantizedModel,
    seen: Mapping[TensorRef, _Statistics],
    arguments: tuple[Any, ...],
    float_state: State,
    quantized_state: State,
) -> None:
    """One sample through the float network, the quantized one, and each quantized layer on float inputs."""
    before = {name: value.clone() for name, value in float_state.items()}
    truth: dict[TensorRef, torch.Tensor] = {}

    def keep(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref in seen:
            truth[ref] = values
            seen[ref].add(values)
        return values

    def cumulative(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        result = quantized.transform(ref, values)
        if ref in truth:
            seen[ref].noise += _distance(truth[ref], result)
        return result

    def own(ref: TensorRef, values: torch.Tensor) -> torch.Tensor:
        if ref not in truth:
            return values
        expected = truth.pop(ref)
        seen[ref].own_noise += _distance(expected, quantized.transform(ref, values))
        return expected

    def simulate(state: State, transform: Transform) -> None:
        quantized.run(*arguments, state=state, transform=transform)

    reference.run(*arguments, state=float_state, transform=keep)
    simulate(quantized_state, cumulative)
    simulate(before, own)


def _distance(expected: torch.Tensor, result: torch.Tensor) -> float:
    return float((expected.double() - result.double()).square().sum())


def _weight_statistics(quantized: QuantizedModel, ref: TensorRef) -> _Statistics:
    name = quantized.captured.value_refs[ref]
    values = quantized.captured.values[name]
    axis = weight_axis(quantized.captured.graph, ref) if values.dim() else None
    statistics = _Statistics(quantized.plan.weights[ref], quantized.qparams[ref], axis)
    statistics.widen(values)
    statistics.add(values)
    statistics.noise = statistics.own_noise = _distance(values, quantized.simulated_values[name])
    return statistics
