"""A predictor for another device, thread count, runtime or version, from a few networks measured there.

The kernels' models stay. What changes is the step from kernels to networks: sums of kernels get new factors, and
factors change together where the size or the format is the same. So twenty networks, each with kernels of many
families, say more than twenty kernels would; and which twenty say most can be reckoned before they are measured,
because in a linear model the posterior's width does not hang on what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.hw_constraints.predict.calibration import (
    LeftOut,
    MeasuredNetwork,
    calibrate_latency,
    calibrate_ratio,
    network_terms,
)
from bitwright.hw_constraints.predict.conformal import LEVEL
from bitwright.hw_constraints.predict.features import Array
from bitwright.hw_constraints.predict.network_terms import OVERHEADS, Correction, Terms, alike, fit_correction
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.quant.errors import InputError

# Twenty networks tell few factors apart, so there are few: one for all, found first, and beside it, with this standard
# deviation, one for small kernels, one for each format of the others, and one for what belongs to no kernel.
# Median error and 90th percentile on networks of 52 families, from ONNX Runtime to OpenVINO, and to its version 1.23:
# one factor 14.1 % and 41 %, 8.4 % and 25 %; these factors 13.1 % and 35 %, 7.8 % and 26 %; a factor for each family,
# format and size 16.2 % and 55 %, 8.5 % and 27 %.
_OWN = 0.25
_FEWEST, _MOST = 10, 200


def adapt(
    predictor: LatencyPredictor,
    samples: Sequence[MeasuredNetwork],
    *,
    rules: FusionRules,
    where: str,
    level: float = LEVEL,
) -> LatencyPredictor:
    """A predictor of the new device.

    Args:
        predictor: of the old one.
        samples: networks measured on the new one; `telling` says which are best.
        rules: what fuses on the new one.
        where: the new device, runtime and threads in words.
        level: how often intervals cover.

    Raises:
        InputError: fewer than 10 samples.
    """
    if len(samples) < _FEWEST:
        raise InputError(f"{len(samples)} networks to adapt by; at least {_FEWEST} are needed, 20 do better")
    terms = [network_terms(predictor.models, each) for each in samples]
    measured = np.asarray([each.us for each in samples])
    errors = []
    for index, sample in enumerate(samples):
        rest = [other for other in range(len(samples)) if samples[other].name != sample.name]
        left = _fit(predictor.correction, [terms[other] for other in rest], measured[rest])
        us, spread = left.latency(terms[index])
        number_format = "int8" if any(kernel.format == "int8" for kernel in sample.kernels) else "float32"
        error = math.log(sample.us / us)
        errors.append(LeftOut(name=sample.name, number_format=number_format, log_error=error, spread=spread))
    return replace(
        predictor,
        correction=_fit(predictor.correction, terms, measured),
        intervals=calibrate_latency(errors, level),
        ratios=calibrate_ratio(errors, level),
        rules=rules,
        where=where,
    )


def telling(predictor: LatencyPredictor, candidates: Sequence[MeasuredNetwork], count: int) -> list[int]:
    """Which networks to measure: those after which all candidates together are known best, one after the other.

    Args:
        predictor: of the old device.
        candidates: networks; their latencies are those of the old device and only give them their weight.
        count: how many to choose.
    """
    terms = [network_terms(predictor.models, each) for each in candidates[:_MOST]]
    rows = np.asarray([each.values for each in terms]) / np.asarray(
        [[predictor.correction.latency(t)[0]] for t in terms]
    )
    own = np.asarray([each.spread_us for each in terms]) / np.asarray(
        [predictor.correction.latency(t)[0] for t in terms]
    )
    covariance = _widened(predictor.correction, 1.0).covariance
    chosen: list[int] = []
    for _ in range(min(count, len(terms))):
        spread = rows @ covariance  # [networks, terms]
        gain = np.square(spread @ rows.T).sum(0) / (np.einsum("ij,ij->i", spread, rows) + own**2 + 0.03**2)
        gain[chosen] = -1.0
        best = int(np.argmax(gain))
        chosen.append(best)
        direction = spread[best]
        covariance = covariance - np.outer(direction, direction) / (rows[best] @ direction + own[best] ** 2 + 0.03**2)
    return chosen


def _fit(base: Correction, terms: Sequence[Terms], measured: Array) -> Correction:
    """First how much faster or slower everything is, then factor by factor."""
    ratios = [us / base.latency(each)[0] for each, us in zip(terms, measured, strict=True)]
    return fit_correction(terms, measured, _widened(base, float(np.median(ratios))))


def _widened(base: Correction, scale: float) -> Correction:
    """What is expected of the new device before anything was measured there."""
    mean = base.mean * scale
    change = _OWN**2 * alike(lambda _, number_format, size: "small" if size == "small" else number_format)
    overheads = np.zeros_like(mean)
    overheads[: len(OVERHEADS)] = base.mean[: len(OVERHEADS)]
    change += _OWN**2 * np.outer(overheads, overheads)
    return Correction(mean=mean, covariance=(base.covariance + change) * scale**2, noise=base.noise, networks=0)
