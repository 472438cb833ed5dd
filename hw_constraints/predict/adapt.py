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

from bitwright.hw_constraints.kernels.kernel import WEIGHTED, Family
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
from bitwright.hw_constraints.predict.network_terms import OVERHEADS, Correction, Terms, alike, fit_correction, prior
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.quant.errors import InputError

# Twenty networks tell few factors apart, so there are few: one for all, found first, and beside it, with this standard
# deviation, one for what computes and one for what only moves values (another device may have twice the arithmetic and
# the same memory), one for small kernels, one for each format of the others. What a call costs is another runtime's
# own matter (2.6 µs in ONNX Runtime, 24 in OpenVINO), so it is as open as before anything was measured. How far all of
# these may go, the twenty decide: the width under which they were likeliest. Median error and 90th percentile on the
# networks that this was tuned on, from ONNX Runtime to OpenVINO, and to its version 1.23: one factor 13.6 % and 37 %,
# 7.8 % and 23 %; these 11.0 % and 32 %, 7.8 % and 23 %; without computing and moving 12.2 % and 34 %, 8.1 % and 24 %.
_OWN = 0.25
_WIDTHS = (0.25, 0.5, 1.0)
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
    """First how much faster or slower everything is, then how much factors differ, then factor by factor."""
    ratios = [us / base.latency(each)[0] for each, us in zip(terms, measured, strict=True)]
    scale = float(np.median(ratios))
    firsts = [_widened(base, scale, width) for width in _WIDTHS]
    return fit_correction(terms, measured, max(firsts, key=lambda each: _log_evidence(each, terms, measured)))


def _log_evidence(first: Correction, terms: Sequence[Terms], measured: Array) -> float:
    """Log p(measured | first) up to a constant: how likely the samples are before a factor is fitted to them.

    Relative errors are normal with covariance `X S X' + own² + noise²` (Rasmussen & Williams 2006, 2.30).
    """
    x = np.asarray([each.values for each in terms]) / measured[:, None]
    own = np.asarray([each.spread_us for each in terms]) / measured
    covariance = x @ first.covariance @ x.T + np.diag(own**2 + first.noise**2)
    residual = 1.0 - x @ first.mean
    return float(-0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * residual @ np.linalg.solve(covariance, residual))


def _widened(base: Correction, scale: float, width: float = 1.0) -> Correction:
    """What is expected of the new device before anything was measured there."""
    apart = alike(lambda _, number_format, size: "small" if size == "small" else number_format)
    apart += alike(lambda family, *_: family in _COMPUTES)
    covariance = (base.covariance + (width * _OWN) ** 2 * apart) * scale**2
    call = OVERHEADS.index("call")
    covariance[call, call] += width**2 * prior().covariance[call, call]
    return Correction(mean=base.mean * scale, covariance=covariance, noise=base.noise, networks=0)


_COMPUTES = frozenset(map(str, WEIGHTED | {Family.MATMUL, Family.ATTENTION}))
