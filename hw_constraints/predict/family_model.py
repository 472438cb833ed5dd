"""The model of one kernel family in one format: log(time / roofline) by a Gaussian process on features.

The roofline is a sum of work and bytes over rates that fit the family best, plus a time for starting it, so that far
from what was measured the model falls back on something that is proportional to the work. What was chosen how, on
2,500 kernels of convolutions on two runtimes, five-fold over kernels (median and 90th percentile of the error):

    ONNX Runtime, float32 pointwise: this 6.5 % / 27 %, trees boosted on the same features 8.0 % / 26 %,
    extremely randomized trees 5.4 % / 25 %, roofline alone 32 % / 66 %;
    OpenVINO likewise 2.2 % / 9 %, 2.3 % / 11 %, 2.3 % / 10 %.

The process is never worse, knows how sure it is, and answers a kernel in a tenth of a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, WEIGHTED, Kernel
from bitwright.hw_constraints.predict.features import NAMES, Array, features, share_inside
from bitwright.hw_constraints.predict.gaussian_process import GaussianProcess, Settings, learn

_FEWEST = 8  # samples below which only the roofline is fitted
_MOST = 700  # samples of a process: its cost grows with the cube
_ALONE_SPREAD = 0.5  # of log time, when a single kernel is all that is known
_MARGIN = 0.15  # beyond the range of what was measured, as a share of it
_LANES = 16  # of float32 in a vector of 512 bits; a runtime's products of codes come in columns of as many
_UNSURE = 0.35  # of log time: an uncertainty that calls for a word


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A measured kernel.

    Attributes:
        kernel: what was measured.
        us: its time.
        noise: standard deviation of the measurement, of log time.
    """

    kernel: Kernel
    us: float
    noise: float


class FamilyModel:
    """Fitted to the samples of one family and format."""

    def __init__(self, samples: Sequence[Sample], settings: Settings | None = None) -> None:
        samples = _thinned(samples)
        kernels = [sample.kernel for sample in samples]
        self.count = len(samples)
        self._kinds = sorted({kind for kernel in kernels for kind in _kinds(kernel)})
        raw, times = self._raw(kernels), np.asarray([sample.us for sample in samples])
        self._low, self._high = raw.min(0), raw.max(0)
        self._mean, spread = raw.mean(0), raw.std(0)
        self._kept = np.flatnonzero(spread > 1e-6)
        self._spread = spread[self._kept]
        self._rates = _rates(_terms(kernels), times)
        residual = np.log(times) - self._roofline(kernels)
        noise = np.square([sample.noise for sample in samples])
        self._offset = float(np.average(residual, weights=1 / (noise + 1e-2)))
        self._alone = float(residual.std()) if len(samples) > 1 else _ALONE_SPREAD
        self.settings: Settings | None = None
        self._process: GaussianProcess | None = None
        if len(samples) >= _FEWEST:
            x, y = self._scaled(raw), residual - self._offset
            fits = settings is not None and len(settings.scales) == x.shape[1]
            self.settings = settings if settings is not None and fits else learn(x, y, noise)
            self._process = GaussianProcess(x, y, noise, self.settings)

    def predict(self, kernels: Sequence[Kernel]) -> tuple[Array, Array, list[tuple[str, ...]]]:
        """Mean and standard deviation of log µs; and in words, how each lies outside what was measured."""
        raw = self._raw(kernels)
        mean = self._roofline(kernels) + self._offset
        spread = np.full(len(kernels), max(self._alone, _ALONE_SPREAD / 2))
        if self._process is not None:
            more, spread = self._process.predict(self._scaled(raw))
            mean = mean + more
        return mean, spread, self._outside(kernels, raw, spread)

    def _outside(self, kernels: Sequence[Kernel], raw: Array, spread: Array) -> list[tuple[str, ...]]:
        room = _MARGIN * np.maximum(self._high - self._low, 0.5)
        above, below = raw > self._high + room, raw < self._low - room
        odd = above.any(1) | below.any(1)
        return [
            self._words(kernel, raw[row], above[row], below[row], float(spread[row]))
            if odd[row] or spread[row] > _UNSURE or not _kinds(kernel).issubset(self._kinds)
            else ()
            for row, kernel in enumerate(kernels)
        ]

    def _words(self, kernel: Kernel, row: Array, above: Array, below: Array, spread: float) -> tuple[str, ...]:
        words = []
        if new := sorted(_kinds(kernel) - set(self._kinds)):
            words.append(f"no {', '.join(new)} among the {self.count} measured")
        for index, name in enumerate(NAMES):
            if (above[index] or below[index]) and name not in _LOGARITHMIC:
                words.append(f"{'' if row[index] else 'not '}{name!r}, unlike all that were measured")
            elif above[index]:
                words.append(f"{name} {_number(row[index])}, measured up to {_number(self._high[index])}")
            elif below[index]:
                words.append(f"{name} {_number(row[index])}, measured from {_number(self._low[index])}")
        if not words and spread > _UNSURE:
            words.append(f"unlike each of the {self.count} measured")
        return tuple(words)

    def _raw(self, kernels: Sequence[Kernel]) -> Array:
        kinds = [[float(kind in _kinds(kernel)) for kind in self._kinds] for kernel in kernels]
        return np.hstack([features(kernels), np.asarray(kinds, np.float64).reshape(len(kernels), len(self._kinds))])

    def _scaled(self, raw: Array) -> Array:
        scaled: Array = (raw[:, self._kept] - self._mean[self._kept]) / self._spread
        return scaled

    def _roofline(self, kernels: Sequence[Kernel]) -> Array:
        return np.asarray(np.log(_terms(kernels) @ self._rates))


def _kinds(kernel: Kernel) -> set[str]:
    """What a model can only know from having seen it."""
    return {kernel.op, *(f"{kernel.op}+{op}" for op in kernel.epilogue)}


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """At most as many as a process can take: every n-th in order of time, so that all sizes stay."""
    if len(samples) <= _MOST:
        return samples
    ordered = sorted(samples, key=lambda sample: sample.us)
    return [ordered[int(position)] for position in np.linspace(0, len(ordered) - 1, _MOST)]


def _terms(kernels: Sequence[Kernel]) -> Array:
    return np.asarray([_terms_of(kernel) for kernel in kernels], np.float64).reshape(len(kernels), -1)


def _terms_of(kernel: Kernel) -> tuple[float, ...]:
    """A start, work, bytes read, written and of weights, elements written.

    Convolutions compute whole vectors of channels of results: 4 channels take as long as 16. On ONNX Runtime's float32
    kernels whose channels are no multiple, in networks, that brings the error's 90th percentile from 40 % to 23 %.
    Real-valued convolutions leave out what meets only padding; those of codes gather it first, as zero points.
    Constants of other operators are read like any operand: a rate of their own, fitted to a few bytes a channel, would
    not hold for a bias as large as the tensor.
    """
    weighted = kernel.family in WEIGHTED
    work = kernel.macs * (share_inside(kernel) if kernel.format == "float32" else 1.0)
    if kernel.family in CONVOLUTIONS:
        work *= -(-kernel.outputs[0][1] // _LANES) * _LANES / kernel.outputs[0][1]
    read = kernel.input_bytes + (0 if weighted else kernel.weight_bytes)
    weights = kernel.weight_bytes if weighted else 0
    return 1.0, work, read, kernel.output_bytes, weights, math.prod(kernel.outputs[0])


def _rates(terms: Array, times: Array) -> Array:
    """Non-negative µs for each unit of each term, with the least squares of the relative error."""
    from scipy.optimize import nnls

    scale = np.maximum(terms.max(0), 1e-30)
    rates, _ = nnls(terms / scale / times[:, None], np.ones(len(times)))
    if not rates.any():
        rates[0] = float(np.median(times))
    rates = rates / scale
    rates[0] = max(rates[0], 1e-3 * float(times.min()))  # no kernel takes no time
    return np.asarray(rates)


def _number(logarithm: float) -> str:
    return f"{math.exp(logarithm):.4g}"


_LOGARITHMIC = frozenset(
    {
        *("macs", "bytes read", "bytes written", "bytes of weights", "bytes of addends", "work for each byte"),
        *("positions", "width", "channels in", "channels out", "channels of a group", "kernel side"),
        *("long kernel side", "stride", "dilation", "contiguous", "along", "repeats"),
        *(name for name in NAMES if " to " in name),
    }
)
