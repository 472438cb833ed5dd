"""Fits the step from kernels to networks, and finds out how far predictions of unknown networks are off.

The table's random networks are made of kernels that stand in the table, which is not so of a user's network. So the
errors that intervals are calibrated on come from models that have seen neither the kernels of the network in question
nor any network of its kind: kind by kind, networks and their kernels are taken out before they are predicted. A user's
network is of a kind of its own, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitwright.hw_constraints.kernels.kernel import Kernel, Shape
from bitwright.hw_constraints.predict.conformal import Conformal, calibrate
from bitwright.hw_constraints.predict.family_model import Sample
from bitwright.hw_constraints.predict.gaussian_process import Settings
from bitwright.hw_constraints.predict.kernel_models import KernelModels
from bitwright.hw_constraints.predict.network_terms import Correction, Terms, fit_correction, terms_of

# A network measured again some hours later, paired with the reference kernel both times: the median of |log ratio| is
# 0.028 in ONNX Runtime and 0.050 in OpenVINO, of 30 networks in both formats: for a normal, deviations of 0.042, 0.074.
_DRIFT = 0.05


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A network measured whole.

    Attributes:
        name: of it; the same network in float and in int8 has one name.
        kernels: what runs.
        inputs: shapes of its arguments.
        outputs: shapes of its results.
        us: its latency.
    """

    name: str
    kernels: tuple[Kernel, ...]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    us: float


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A network measured whole, and what would have been predicted had it and its kernels been unknown.

    Attributes:
        name: of the network.
        number_format: `int8` when it has a kernel in codes, else `float32`.
        log_error: log(measured / predicted).
        spread: standard deviation of it as the predictor has it.
    """

    name: str
    number_format: str
    log_error: float
    spread: float

    def to_json(self) -> list[Any]:
        """Plain values."""
        return [self.name, self.number_format, self.log_error, self.spread]


def fit_networks(models: KernelModels, networks: Sequence[MeasuredNetwork]) -> Correction:
    """The correction that all networks together speak for."""
    terms = [network_terms(models, network) for network in networks]
    return fit_correction(terms, np.asarray([network.us for network in networks], np.float64))


def network_terms(models: KernelModels, network: MeasuredNetwork) -> Terms:
    """A network's terms by the models."""
    found = models.predict(network.kernels)
    return terms_of(network.kernels, np.exp(found.log_us), found.spread, network.inputs, network.outputs)


def leave_out(
    samples: Sequence[Sample], settings: Mapping[str, Settings], networks: Sequence[MeasuredNetwork]
) -> list[LeftOut]:
    """Errors of networks of whose kind no model has seen a network or a kernel."""
    found: list[LeftOut] = []
    kinds = kinds_of(KernelModels(samples, settings), networks)
    for kind in sorted(set(kinds.values())):
        inside = [network for network in networks if kinds[network.name] == kind]
        others = [network for network in networks if kinds[network.name] != kind]
        kernels = {kernel for network in inside for kernel in network.kernels}
        rest = [sample for sample in samples if sample.kernel not in kernels]
        if not rest:
            continue
        models = KernelModels(rest, settings)
        correction = fit_networks(models, others)
        for network in inside:
            us, spread = correction.latency(network_terms(models, network))
            coded = any(kernel.format == "int8" for kernel in network.kernels)
            error = math.log(network.us / us)
            number_format = "int8" if coded else "float32"
            found.append(LeftOut(name=network.name, number_format=number_format, log_error=error, spread=spread))
    return found


def kinds_of(models: KernelModels, networks: Sequence[MeasuredNetwork]) -> dict[str, str]:
    """A network's kind by its name: the families that take most and second most of its time, in either order."""
    times: dict[str, dict[str, float]] = {}
    for network in networks:
        of_name = times.setdefault(network.name, {})
        for kernel, us in zip(network.kernels, np.exp(models.predict(network.kernels).log_us), strict=True):
            of_name[str(kernel.family)] = of_name.get(str(kernel.family), 0.0) + float(us)
    return {
        name: "+".join(sorted(sorted(of_name, key=lambda family: -of_name[family])[:2]))
        for name, of_name in times.items()
    }


def calibrate_latency(errors: Iterable[LeftOut], level: float) -> Conformal:
    """Intervals of latencies; what one name stands for is one group. A user asks at another hour than the table's."""
    scores: dict[str, list[float]] = {}
    for each in errors:
        scores.setdefault(each.name, []).append(abs(each.log_error) / each.spread)
    return replace(calibrate(scores, level=level), drift=_DRIFT)


def calibrate_ratio(errors: Iterable[LeftOut], level: float) -> Conformal:
    """Intervals of int8 / float latency, from networks that were measured in both formats."""
    pairs: dict[str, dict[str, LeftOut]] = {}
    for each in errors:
        pairs.setdefault(each.name, {})[each.number_format] = each
    scores: dict[str, list[float]] = {}
    for pair in pairs.values():
        if len(pair) == 2:
            in_codes, in_float = pair["int8"], pair["float32"]
            error = abs(in_codes.log_error - in_float.log_error)
            scores.setdefault(in_codes.name, []).append(error / ratio_spread(in_codes.spread, in_float.spread))
    return calibrate(scores, level=level)


def ratio_spread(left: float, right: float) -> float:
    """Standard deviation of a ratio's logarithm, before calibration."""
    return math.hypot(left, right)
