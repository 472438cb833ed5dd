"""Whether a tensor of one link is what the other link's tensor says it should be, given the same inputs.

Three cases, by what readers see. Real values on both sides: another order of additions. Codes on both: the other side
of a rounding tie. Codes on one: the noise of the codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitwright.quant.integer.codes import Grid, quantized
from bitwright.quant.parity.link import Array
from bitwright.quant.parity.results import EXACT
from bitwright.quant.sqnr import sqnr_db

# Of the codes of a layer, given equal codes of its operands: the share that a whole layer may have on the other side of
# a rounding tie, a choice and no bound. For codes up to 255 and n terms that round independently, float32 moves about
# 255 * 2**-22 * sqrt(n) of them: 1e-3 for 270 terms. Seen is less: of 12,139 sound layers in the row `planted_faults`,
# all but one stay below a third of what is allowed.
TIES = 1e-3
# The noise of codes against real values may be four times the expected amplitude: no distribution of values is uniform.
NOISE_MARGIN = 16.0
# One draw of random errors may fall short of the largest ones.
NUDGE_MARGIN = 4
# Weights of 8 bits whose largest value is four standard deviations: step**2 / 12 of their power.
WEIGHT_NOISE = (8.0 / 254.0) ** 2 / 12.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One tensor.

    Attributes:
        agrees: whether it does.
        error: how far the two lie apart, in words.
        allowed: how far they may, in words.
        sqnr_db: of the second against the first.
        severity: the error over the allowed one; 1 or less agrees.
    """

    agrees: bool
    error: str
    allowed: str
    sqnr_db: float
    severity: float


def judge(
    expected: Array,
    actual: Array,
    first: Grid | None = None,
    second: Grid | None = None,
    *,
    nudged: Array | None = None,
    coarse: bool = False,
) -> Judgement:
    """Judges a tensor.

    Args:
        expected: of the reference.
        actual: of the other link, given the reference's inputs.
        first: the codes of the reference.
        second: the codes of the other link.
        nudged: what the reference gives with an error of rounding on every value (`nudge.py`), where it is known: sums
            that cancel, and several layers between two tensors that both links have, make more of such errors.
        coarse: whether the other link has weights in codes where the reference has real ones.
    """
    if (mismatch := _mismatch(expected, actual)) is not None:
        return mismatch
    if not expected.size:
        return Judgement(agrees=True, error="no elements", allowed="", sqnr_db=sqnr_db(0, 0), severity=0.0)
    sqnr = _sqnr(expected, actual)
    if expected.dtype.kind not in "fc":
        unlike = int((expected != actual).sum())
        return _judged(unlike, 0, f"{unlike} of {expected.size} whole numbers differ", "none", sqnr)
    if first is not None and second is not None:
        return _codes(expected, actual, first, second, nudged, sqnr)
    if coarse or first is not None or second is not None:
        return _noise(expected, actual, first or second, sqnr)
    return _floats(expected, actual, nudged, sqnr)


def _judged(value: float, allowed: float, error: str, limit: str, sqnr: float) -> Judgement:
    severity = value / allowed if allowed > 0 else (math.inf if value > 0 else 0.0)
    return Judgement(agrees=value <= allowed, error=error, allowed=limit, sqnr_db=sqnr, severity=severity)


def _floats(expected: Array, actual: Array, nudged: Array | None, sqnr: float) -> Judgement:
    finite = np.isfinite(expected)
    scale = float(np.abs(expected[finite]).max(initial=0.0))
    largest = _largest(expected, actual, finite)
    relative = largest / scale if scale > 0 else (math.inf if largest > 0 else 0.0)
    floor = 0.0 if nudged is None or not scale > 0 else NUDGE_MARGIN * _largest(expected, nudged, finite) / scale
    may = max(EXACT, floor)
    why = "the order of additions" if floor <= EXACT else "what errors of rounding grow to"
    return _judged(relative, may, f"{relative:.1e} of its scale", f"{may:.0e}: {why}", sqnr)


def _largest(expected: Array, actual: Array, finite: Array) -> float:
    return float(np.abs(actual[finite].astype(np.float64) - expected[finite]).max(initial=0.0))


def _codes(expected: Array, actual: Array, first: Grid, second: Grid, nudged: Array | None, sqnr: float) -> Judgement:
    """Counted in codes of the reference; both sides have the same real values for the same codes if their grids do."""
    unlike_grids = "" if first.is_same(second) else f"; {_grids(first, second)}"
    codes = quantized(expected, first)
    off, far = _apart(codes, quantized(actual, first))
    moved, reach = _apart(codes, quantized(nudged, first)) if nudged is not None else (0, 0)
    # The number of ties is binomial; 5 standard deviations above its mean, and one.
    mean = TIES * codes.size
    may, may_reach = mean + 5 * math.sqrt(mean) + 1 + NUDGE_MARGIN * moved, max(1, NUDGE_MARGIN * reach)
    error = f"{off} of {codes.size} codes differ, by {far} at most{unlike_grids}"
    limit = f"{int(may)} codes by {may_reach}: rounding ties"
    severity = max(off / may, far / may_reach if far > may_reach else 0.0)
    if unlike_grids:  # an equal code that means another value is no agreement
        severity = max(severity, 2.0)
    return Judgement(agrees=severity <= 1, error=error, allowed=limit, sqnr_db=sqnr, severity=severity)


def _apart(codes: Array, others: Array) -> tuple[int, int]:
    distance = np.abs(codes - others)
    return int((distance > 0).sum()), int(distance.max(initial=0))


def _grids(first: Grid, second: Grid) -> str:
    parts = []
    if not np.array_equal(first.scale, second.scale):
        parts.append(f"scale {float(first.scale):.6g} against {float(second.scale):.6g}")
    if first.zero_point != second.zero_point:
        parts.append(f"zero point {first.zero_point} against {second.zero_point}")
    if first.format != second.format:
        parts.append(f"{first.format.name} against {second.format.name}")
    return ", ".join(parts) or "other bounds"


def _noise(expected: Array, actual: Array, grid: Grid | None, sqnr: float) -> Judgement:
    """Against the power of rounding the tensor and its layer's weights; what the codes cut off does not count."""
    a, b = (np.nan_to_num(each.astype(np.float64)) for each in (expected, actual))
    step = 0.0 if grid is None else float(grid.scale)
    if grid is not None:
        low, high = (float(grid.real(np.array(code))) for code in (grid.low, grid.high))
        a, b = np.clip(a, low, high), np.clip(b, low, high)
    power = float(np.square(a).mean())
    noise, may = float(np.square(a - b).mean()), NOISE_MARGIN * (step**2 / 12 + WEIGHT_NOISE * power)
    unit, word = (step, f"steps of {step:.3g}") if step else (math.sqrt(power) or 1.0, "of its root mean square")
    error = f"error {math.sqrt(noise) / unit:.2g} {word}"
    limit = f"{math.sqrt(may) / unit:.2g}: the rounding of values and weights"
    return _judged(noise, may, error, limit, sqnr)


def _sqnr(expected: Array, actual: Array) -> float:
    both = np.isfinite(expected) & np.isfinite(actual)
    a, b = expected[both].astype(np.float64), actual[both].astype(np.float64)
    return sqnr_db(float(np.square(a).sum()), float(np.square(a - b).sum()))


def _mismatch(expected: Array, actual: Array) -> Judgement | None:
    if expected.shape != actual.shape:
        return _broken(f"shape {list(actual.shape)}, expected {list(expected.shape)}")
    if expected.dtype.kind not in "fc" or actual.dtype.kind not in "fc":
        return None
    lone = int((np.isnan(expected) != np.isnan(actual)).sum())
    infinite = int(((expected != actual) & (np.isinf(expected) | np.isinf(actual))).sum())
    if lone or infinite:
        return _broken(f"{lone} elements are NaN and {infinite} infinite in one of the two only")
    return None


def _broken(error: str) -> Judgement:
    return Judgement(agrees=False, error=error, allowed="", sqnr_db=0.0, severity=math.inf)
