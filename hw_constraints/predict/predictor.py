"""Predicts latencies from one table: kernels by their families' models, networks as sums corrected by whole ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.kernels.split import PlacedKernel, Split
from bitwright.hw_constraints.predict.conformal import LEVEL, Conformal, calibrate
from bitwright.hw_constraints.predict.features import Array
from bitwright.hw_constraints.predict.kernel_models import KernelModels, KernelPredictions
from bitwright.hw_constraints.predict.network_terms import NAMES, Correction, Terms, fit_correction, term_name, terms_of
from bitwright.hw_constraints.predict.prediction import LayerLatency, NetworkPrediction
from bitwright.quant.errors import InputError

_FOLDS = 10
_OVERHEADS = 4  # of the terms, those that belong to no kernel


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A network measured whole.

    Attributes:
        name: of it; the same network in float and in int8 has one name.
        kernels: what runs.
        us: its latency.
    """

    name: str
    kernels: tuple[Kernel, ...]
    us: float


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """A fitted predictor of one device, runtime version and thread count.

    Attributes:
        models: of kernels.
        correction: from sums of kernels to networks.
        intervals: calibrated on networks measured whole.
        ratios: likewise, for the ratio of a network's int8 and float latencies.
        runtime: the backend's name.
        where: device, runtime and threads in words.
    """

    models: KernelModels
    correction: Correction
    intervals: Conformal
    ratios: Conformal
    runtime: str
    where: str

    def kernel(self, kernel: Kernel) -> tuple[float, float]:
        """A kernel's µs when it stands alone, and the standard deviation of the logarithm."""
        found = self.models.predict([kernel])
        return float(np.exp(found.log_us[0])), float(found.spread[0])

    def network(self, network: Split) -> NetworkPrediction:
        """A network's latency.

        Raises:
            InputError: it was split for another runtime.
        """
        if network.runtime != self.runtime:
            raise InputError(f"the network was split for {network.runtime!r}; the table is of {self.runtime!r}")
        found = self.models.predict([placed.kernel for placed in network.kernels])
        terms = _terms(found, [placed.kernel for placed in network.kernels])
        us, spread = self.correction.latency(terms)
        low, high = self.intervals.interval(float(np.log(us)), spread)
        overheads = self.correction.mean[:_OVERHEADS] * terms.values[:_OVERHEADS]
        return NetworkPrediction(
            us=us,
            low=low,
            high=high,
            level=self.intervals.level,
            spread=spread,
            overheads=dict(zip(NAMES[:_OVERHEADS], map(float, overheads), strict=True)),
            layers=tuple(self._layers(network.kernels, found)),
            where=self.where,
        )

    def _layers(self, placed: Sequence[PlacedKernel], found: KernelPredictions) -> list[LayerLatency]:
        factor = dict(zip(NAMES, self.correction.mean, strict=True))
        return [
            LayerLatency(
                kernel=each.kernel,
                layers=each.layers,
                us=float(np.exp(found.log_us[index]) * factor[term_name(each.kernel)]),
                spread=float(found.spread[index]),
                measured=found.measured[index],
                outside=found.outside[index],
            )
            for index, each in enumerate(placed)
        ]


def fit_predictor(
    models: KernelModels, networks: Sequence[MeasuredNetwork], *, runtime: str, where: str, level: float = LEVEL
) -> LatencyPredictor:
    """Fits the step from kernels to networks, and calibrates intervals on networks that were left out of the fit."""
    measured = np.asarray([network.us for network in networks])
    terms = [network_terms(models, network) for network in networks]
    left_out = left_out_predictions(terms, measured, [network.name for network in networks])
    errors = [LeftOut(network, *each) for network, each in zip(networks, left_out, strict=True)]
    return LatencyPredictor(
        models=models,
        correction=fit_correction(terms, measured),
        intervals=calibrate(latency_scores(errors), level=level),
        ratios=calibrate(ratio_scores(errors), level=level),
        runtime=runtime,
        where=where,
    )


def network_terms(models: KernelModels, network: MeasuredNetwork) -> Terms:
    """A measured network's terms by the models."""
    return _terms(models.predict(network.kernels), network.kernels)


def left_out_predictions(terms: Sequence[Terms], measured: Array, names: Sequence[str]) -> list[tuple[float, float]]:
    """µs and spread of each network, by a correction that was fitted without its fold; a name is in one fold."""
    predicted = [(0.0, 0.0)] * len(terms)
    groups = sorted(set(names))
    for fold in range(min(_FOLDS, len(groups))):
        held = set(groups[fold::_FOLDS])
        rest = [index for index, name in enumerate(names) if name not in held]
        correction = fit_correction([terms[index] for index in rest], measured[rest])
        for index, name in enumerate(names):
            if name in held:
                predicted[index] = correction.latency(terms[index])
    return predicted


@dataclass(frozen=True)
class LeftOut:
    """A network measured whole, and what would have been predicted had it been unknown.

    Attributes:
        network: with its measured latency.
        us: the prediction.
        spread: its standard deviation, of the logarithm.
    """

    network: MeasuredNetwork
    us: float
    spread: float

    @property
    def log_error(self) -> float:
        """The logarithm of measured / predicted."""
        return math.log(self.network.us / self.us)


def latency_scores(errors: Sequence[LeftOut]) -> dict[str, list[float]]:
    """|log error| / spread, by the network's name."""
    scores: dict[str, list[float]] = {}
    for each in errors:
        scores.setdefault(each.network.name, []).append(abs(each.log_error) / each.spread)
    return scores


def ratio_scores(errors: Sequence[LeftOut]) -> dict[str, list[float]]:
    """The same of int8 / float latency, for networks that were measured in both."""
    pairs: dict[str, dict[str, LeftOut]] = {}
    for each in errors:
        coded = any(kernel.format == "int8" for kernel in each.network.kernels)
        pairs.setdefault(each.network.name, {})["int8" if coded else "float32"] = each
    return {
        name: [
            abs(pair["int8"].log_error - pair["float32"].log_error)
            / ratio_spread(pair["int8"].spread, pair["float32"].spread)
        ]
        for name, pair in pairs.items()
        if len(pair) == 2
    }


def ratio_spread(left: float, right: float) -> float:
    """Standard deviation of a ratio's logarithm, before calibration."""
    return math.hypot(left, right)


def _terms(found: KernelPredictions, kernels: Sequence[Kernel]) -> Terms:
    return terms_of(kernels, np.exp(found.log_us), found.spread)
