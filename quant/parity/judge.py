"""Whether a tensor of one link is what the other link's tensor says it should be, given the same inputs.

Nothing is tolerated from habit: what may differ follows from how many terms were added up, in which format, and from
the steps of the codes. Real values on both sides: another order of additions. Codes on both: the other side of a
rounding tie. Codes on one: the noise of the codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bitwright.quant.integer.codes import Grid, quantized
from bitwright.quant.parity.link import Array
from bitwright.quant.parity.spread import Explained, spread
from bitwright.quant.parity.whereabouts import where
from bitwright.quant.parity_measures.rounding import unit_roundoff
from bitwright.quant.parity_measures.thresholds import FALSE_ALARMS, allowed_count
from bitwright.quant.sqnr import sqnr_db

# What turns a sum into a code rounds, too, each time by float32's unit: two operands from their codes, the sum to
# float, its product with a scale, the quotient by the scale of the result.
_REQUANTIZED = unit_roundoff("float32") * math.sqrt(5 * 2.0 / 3.0)
# Of a value that is off by half a step at most, against the power `step**2 / 12` that is expected: what it cannot
# exceed.
_MOST_OVER_EXPECTED = 3.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One tensor.

    Attributes:
        agrees: whether it does.
        error: how far the two lie apart, in words.
        allowed: how far they may, and why, in words.
        sqnr_db: of the second against the first.
        severity: the error over the allowed one; 1 or less agrees.
        may: what is allowed: codes that differ; of real values the largest error, of noise the root mean square.
        reach: by how many codes they may.
        where: the indices that hold all that is off, in words; empty where that is everywhere.
    """

    agrees: bool
    error: str
    allowed: str
    sqnr_db: float
    severity: float
    may: float = 0.0
    reach: int = 0
    where: str = ""


def judge(
    expected: Array,
    actual: Array,
    first: Grid | None = None,
    second: Grid | None = None,
    *,
    explained: Explained | None = None,
) -> Judgement:
    """Judges a tensor.

    Args:
        expected: of the reference.
        actual: of the other link, given the reference's inputs.
        first: the codes of the reference.
        second: the codes of the other link.
        explained: what is known of how both were made; without it, one rounding in float32.
    """
    if (mismatch := _mismatch(expected, actual)) is not None:
        return mismatch
    if not expected.size:
        return Judgement(agrees=True, error="no elements", allowed="", sqnr_db=sqnr_db(0, 0), severity=0.0)
    sqnr, known = _sqnr(expected, actual), explained or Explained()
    if expected.dtype.kind not in "fc":
        return _whole_numbers(expected, actual, known, sqnr)
    if first is not None and second is not None:
        return _codes(expected, actual, first, second, known, sqnr)
    if known.coarse or first is not None or second is not None:
        return _noise(expected, actual, first or second, known, sqnr)
    return _floats(expected, actual, known, sqnr)


def _judged(value: float, allowed: float, error: str, limit: str, sqnr: float) -> Judgement:
    severity = value / allowed if allowed > 0 else (math.inf if value > 0 else 0.0)
    return Judgement(agrees=value <= allowed, error=error, allowed=limit, sqnr_db=sqnr, severity=severity)


def _whole_numbers(expected: Array, actual: Array, known: Explained, sqnr: float) -> Judgement:
    """None may differ but where errors of rounding move them, too: of equal values in a top-k either comes first."""
    unlike = int((expected != actual).sum())
    moved = 0 if known.errors is None else int((known.errors != 0).sum())
    may = allowed_count([float(moved)])
    limit = f"{may:.0f}: errors of rounding move {moved}" if may else "none"
    return _judged(unlike, may, f"{unlike} of {expected.size} whole numbers differ", limit, sqnr)


def _floats(expected: Array, actual: Array, known: Explained, sqnr: float) -> Judgement:
    finite = np.isfinite(expected)
    off = np.abs(actual[finite].astype(np.float64) - expected[finite])
    if not off.any():
        return _judged(0.0, 0.0, "0 of its root mean square", f"rounding of {known.why}", sqnr)
    may = _normal_limit(off.size) * spread(expected, known)[finite]
    over = np.divide(off, may, out=np.where(off > 0, np.inf, 0.0), where=may > 0)
    worst = int(over.argmax())
    unit = math.sqrt(float(np.square(expected[finite].astype(np.float64)).mean())) or 1.0
    error = f"{off[worst] / unit:.1e} of its root mean square"
    limit = f"{may[worst] / unit:.1e}: rounding of {known.why}"
    severity = float(over[worst])
    beyond = np.zeros(expected.shape, bool)
    beyond[finite] = over > 1
    return Judgement(
        agrees=severity <= 1,
        error=error,
        allowed=limit,
        sqnr_db=sqnr,
        severity=severity,
        may=float(may.max()),
        where=where(beyond),
    )


def _normal_limit(count: int) -> float:
    """What the largest of so many normal errors stays below, in standard deviations, but for `FALSE_ALARMS`."""
    from scipy.stats import norm

    return float(norm.isf(FALSE_ALARMS / (2 * count)))


def _codes(expected: Array, actual: Array, first: Grid, second: Grid, known: Explained, sqnr: float) -> Judgement:
    """Counted in codes of the reference; both sides have the same real values for the same codes if their grids do."""
    unlike_grids = "" if first.is_same(second) else f"; {_grids(first, second)}"
    codes = quantized(expected, first)
    distance = np.abs(codes - quantized(actual, first))
    off, far = int((distance > 0).sum()), int(distance.max(initial=0))
    ties, reach = _ties(expected, first, known)
    may = allowed_ties(ties)
    error = f"{off} of {codes.size} codes differ, by {far} at most{unlike_grids}"
    limit = f"{may} codes by {reach}: {ties:.2g} rounding ties expected of {known.why}"
    severity = max(off / may if may else (math.inf if off else 0.0), far / reach if far > reach else 0.0)
    if unlike_grids:  # an equal code that means another value is no agreement
        severity = max(severity, 2.0)
    return Judgement(
        agrees=severity <= 1,
        error=error,
        allowed=limit,
        sqnr_db=sqnr,
        severity=severity,
        may=may,
        reach=reach,
        where=where(distance > 0) if severity > 1 else "",
    )


def allowed_ties(expected: float) -> int:
    """How many codes may round otherwise where so many are expected to: a Poisson count, but for `FALSE_ALARMS`."""
    from scipy.stats import poisson

    return int(poisson.isf(FALSE_ALARMS, expected))


def _ties(expected: Array, grid: Grid, known: Explained) -> tuple[float, int]:
    """How many codes round to the other side, by expectation, and how far at most.

    A value off by an error of deviation `σ`, in codes, does where that exceeds its distance `d` from the tie. Where
    what codes were rounded from is not known, distances are uniform: `E |error| = σ sqrt(2 / π)`.
    """
    from scipy.stats import norm

    exact = expected if known.unrounded is None else known.unrounded
    errors = spread(exact, known, beside=_REQUANTIZED) / float(grid.scale)
    reach = max(1, math.ceil(_normal_limit(errors.size) * float(errors.max(initial=0.0)) - 0.5))
    if known.unrounded is None:
        return float(np.minimum(errors * math.sqrt(2 / math.pi), 1.0).sum()), reach
    inside = np.nan_to_num(exact.astype(np.float64) / float(grid.scale) + grid.zero_point)
    distance = np.abs(inside - np.floor(inside) - 0.5)
    held = (inside > grid.low - 1) & (inside < grid.high + 1) & (errors > 0)  # beyond its ends the grid has no ties
    distance, errors = distance[held], errors[held]
    return float((norm.sf(distance / errors) + norm.sf((1 - distance) / errors)).sum()), reach


def _grids(first: Grid, second: Grid) -> str:
    parts = []
    if not np.array_equal(first.scale, second.scale):
        parts.append(f"scale {float(first.scale):.6g} against {float(second.scale):.6g}")
    if first.zero_point != second.zero_point:
        parts.append(f"zero point {first.zero_point} against {second.zero_point}")
    if first.format != second.format:
        parts.append(f"{first.format.name} against {second.format.name}")
    return ", ".join(parts) or "other bounds"


def _noise(expected: Array, actual: Array, grid: Grid | None, known: Explained, sqnr: float) -> Judgement:
    """Against the power of rounding the tensor and its layer's weights; what the codes cut off does not count.

    Weights' errors are normal by their number, but one draw serves all places: where inputs are alike (a plain
    background), or one channel is far above the others, nothing averages out.
    """
    from scipy.stats import chi2

    a, b = (np.nan_to_num(each.astype(np.float64)) for each in (expected, actual))
    step = 0.0 if grid is None else float(grid.scale)
    if grid is not None:
        low, high = (float(grid.real(np.array(code))) for code in (grid.low, grid.high))
        a, b = np.clip(a, low, high), np.clip(b, low, high)
    power = float(np.square(a).mean())
    of_weights = float(chi2.isf(FALSE_ALARMS, 1)) * known.weight_noise * known.gain * power
    own = _MOST_OVER_EXPECTED * step**2 / 12 + of_weights
    noise, may = float(np.square(a - b).mean()), own + float(np.square(spread(a, known)).mean())
    unit, word = (step, f"steps of {step:.3g}") if step else (math.sqrt(power) or 1.0, "of its root mean square")
    error = f"error {math.sqrt(noise) / unit:.2g} {word}"
    limit = f"{math.sqrt(may) / unit:.2g}: the rounding of values and weights"
    return replace(_judged(noise, may, error, limit, sqnr), may=math.sqrt(may))


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
