"""Predicts latencies from one table: kernels by their families' models, networks as sums corrected by whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bitwright.hw_constraints.kernels.kernel import Kernel
from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.hw_constraints.kernels.split import PlacedKernel, Split, split
from bitwright.hw_constraints.predict.conformal import Conformal
from bitwright.hw_constraints.predict.kernel_models import KernelModels, KernelPredictions
from bitwright.hw_constraints.predict.network_terms import NAMES, OVERHEADS, Correction, term_name, terms_of
from bitwright.hw_constraints.predict.prediction import LayerLatency, NetworkPrediction
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LatencyPredictor:
    """A fitted predictor of one device, runtime version and thread count.

    Attributes:
        models: of kernels.
        correction: from sums of kernels to networks.
        intervals: calibrated on networks measured whole.
        ratios: likewise, for the ratio of a network's int8 and float latencies.
        rules: what fuses there, as the table found it when it was measured.
        where: device, runtime and threads in words.
    """

    models: KernelModels
    correction: Correction
    intervals: Conformal
    ratios: Conformal
    rules: FusionRules
    where: str

    @property
    def runtime(self) -> str:
        """The backend's name."""
        return self.rules.runtime

    def split(self, model: Path | bytes | onnx.ModelProto) -> Split:
        """A network as the kernels that run on the table's runtime.

        Raises:
            InputError: it is no ONNX model, or has sizes that are not static.
        """
        return split(model, self.runtime, self.rules)

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
        kernels = [placed.kernel for placed in network.kernels]
        terms = terms_of(kernels, np.exp(found.log_us), found.spread, network.inputs, network.outputs)
        us, spread = self.correction.latency(terms)
        low, high = self.intervals.interval(float(np.log(us)), spread)
        overheads = self.correction.mean * terms.values
        return NetworkPrediction(
            us=us,
            low=low,
            high=high,
            level=self.intervals.level,
            spread=spread,
            overheads=dict(zip(OVERHEADS, map(float, overheads), strict=False)),
            layers=tuple(self._layers(network.kernels, found)),
            where=self.where,
        )

    def _layers(self, placed: Sequence[PlacedKernel], found: KernelPredictions) -> list[LayerLatency]:
        factor = dict(zip(NAMES, self.correction.mean, strict=True))
        alone = np.exp(found.log_us)
        return [
            LayerLatency(
                kernel=each.kernel,
                layers=each.layers,
                us=float(alone[index] * factor[term_name(each.kernel, float(alone[index]))]),
                spread=float(found.spread[index]),
                measured=found.measured[index],
                outside=found.outside[index],
            )
            for index, each in enumerate(placed)
        ]
