"""Whether what is seen is more than the formats explain: tests against draws of their errors, no tolerances.

Errors of a size: the power of what is seen over the mean power of the draws follows an F distribution where both are
the same noise. Its degrees of freedom are those of the power, `2 mean**2 / variance` (Satterthwaite, *An Approximate
Distribution of Estimates of Variance Components*, 1946), with the variance at its upper confidence limit, since a few
draws often look steadier than they are, and never more of them than that many draws can show.

Counts (objects missed, indices moved, pixels of another class) are rare events: what is seen is compared with the
negative binomial that predicts a Poisson count from those of the draws (Jeffreys' prior), in units of the draws' own
dispersion where events come in bunches. Where no draw moves any, none may: an index that moves without cause is a
fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.quant.parity_measures.distances import decided
from bitwright.quant.parity_measures.measured import Array, Kind, Measured, finite_pair
from bitwright.quant.parity_measures.noise import Draws
from bitwright.quant.parity_measures.outputs import measure_outputs

# How often a sound result may be called broken. A choice, not a tolerance: of a million tensors one.
FALSE_ALARMS = 1e-6
# How often the variance of the draws may lie above its limit. With it the rate of false alarms is 1.1e-6 at one
# degree of freedom, 1.3e-7 at 1.5 and less above, of ten million draws each; at 1e-2 it reaches 1.5e-6.
_CONFIDENCE = 1e-3
# Kinds of which it counts how many elements differ, and figures that count something.
_COUNTED = frozenset({Kind.PLACES, Kind.CLASSES, Kind.TRACKS, Kind.MASK, Kind.CODES})
_COUNTS = ("missed", "extra", "with another class", "with another track", "places that moved")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One figure of one result.

    Attributes:
        name: of the result.
        agrees: whether the formats explain what is seen.
        reason: what was expected, allowed and seen, and why, in words.
        seen: the figure; infinite where two results cannot be compared.
        expected: by the formats.
        allowed: by the formats and the number of draws.
    """

    name: str
    agrees: bool
    reason: str
    seen: float
    expected: float
    allowed: float

    @property
    def severity(self) -> float:
        """What is seen over what is allowed; 1 or less agrees."""
        return self.seen / self.allowed if self.allowed > 0 else (math.inf if self.seen > 0 else 0.0)


def judge_outputs(
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    draws: Draws,
    *,
    kinds: Mapping[str, Kind] | None = None,
    ops: Mapping[str, str] | None = None,
) -> tuple[Verdict, ...]:
    """Judges every result by the measure that fits it; results of detections together, behind their matching.

    Args:
        reference: the results of the network whose errors were drawn.
        other: those of its other form, by the same names.
        draws: of `reference`'s network on the same inputs.
        kinds: what the user says the results are.
        ops: what makes them, where it is known.

    Raises:
        InputError: `kinds` names a result that there is none of.
    """
    why = draws.why.get("", "")

    def measured(side: Mapping[str, Array]) -> tuple[Measured, ...]:
        return measure_outputs(reference, side, kinds=kinds, ops=ops)

    expected = [
        measure_outputs(draws.clean, {name: noisy[name] for name in reference if name in noisy}, kinds=kinds, ops=ops)
        for noisy in draws.noisy
    ]
    verdicts: list[Verdict] = []
    for position, seen in enumerate(measured(other)):
        drawn = [each[position] for each in expected if position < len(each)]
        verdicts += _of_measured(seen, drawn, reference, other, draws, why)
    return tuple(verdicts)


def _of_measured(
    seen: Measured,
    drawn: Sequence[Measured],
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    draws: Draws,
    why: str,
) -> list[Verdict]:
    broken = [text for text in seen.findings if text and not text.startswith("image ")]
    if broken:
        return [_broken(seen.name, "; ".join(broken))]
    if seen.kind is Kind.DETECTIONS:
        return [_of_figure(seen, drawn, key, why) for key in seen.figures if key in _COUNTS or "off by" in key]
    name, noisy = seen.name, [each[seen.name] for each in draws.noisy]
    first, second, clean = reference[name], other[name], draws.clean[name]
    if seen.kind is Kind.MASK:
        first, second, clean = decided(first), decided(second), decided(clean)
        noisy = [decided(each) for each in noisy]
    if seen.kind in _COUNTED:
        return [judge_count(name, first, second, clean, noisy, why=why)]
    return [judge_values(name, first, second, noisy, why=why, clean=clean)]


def judge_values(
    name: str, reference: Array, other: Array, noisy: Sequence[Array], *, why: str, clean: Array | None = None
) -> Verdict:
    """Real values: root mean square of the difference, of that of the reference.

    Args:
        name: of the tensor.
        reference: what it should be.
        other: what it is.
        noisy: draws of it.
        why: where the errors of the draws come from, in words.
        clean: what the draws are draws of, where that is not `reference` itself.
    """
    base = reference if clean is None else clean
    a, b = finite_pair(reference, other)
    scale = math.sqrt(float(np.square(a).mean())) if a.size else 0.0
    unit = scale or 1.0
    power = float(np.square(a - b).mean()) / unit**2 if a.size else 0.0
    powers = [_power(base, each) / unit**2 for each in noisy if each.shape == base.shape]
    return _compare_powers(name, power, powers, f"{why}: expected relative difference")


def _power(clean: Array, noisy: Array) -> float:
    a, b = finite_pair(clean, noisy)
    return float(np.square(a - b).mean()) if a.size else 0.0


def _of_figure(seen: Measured, drawn: Sequence[Measured], key: str, why: str) -> Verdict:
    values = [each.figures.get(key, 0.0) for each in drawn]
    if key in _COUNTS:
        return _compare_counts(f"{seen.name}: {key}", seen.figures[key], values, f"{why}: expected")
    powers = [value**2 for value in values]
    return _compare_powers(f"{seen.name}: {key}", seen.figures[key] ** 2, powers, f"{why}: expected")


def judge_count(
    name: str, reference: Array, other: Array, clean: Array, noisy: Sequence[Array], *, why: str
) -> Verdict:
    """Whole numbers: how many differ."""
    counts = [float((each != clean).sum()) for each in noisy if each.shape == clean.shape]
    return _compare_counts(name, float((reference != other).sum()), counts, f"{why}: expected elements that differ")


def allowed_power(powers: Array) -> Array:
    """The largest power that the noise of the draws explains, but for `FALSE_ALARMS`.

    Args:
        powers: of the draws, float64 `[…, draws]`.

    Returns:
        float64 `[…]`.
    """
    from scipy.stats import f as f_distribution

    draws, mean = powers.shape[-1], powers.mean(-1)
    free = _degrees_of_freedom(powers, mean)
    allowed: Array = f_distribution.isf(FALSE_ALARMS, free, free * draws) * mean
    return allowed


def _degrees_of_freedom(powers: Array, mean: Array) -> Array:
    """Between 1 and one less than the draws."""
    from scipy.stats import chi2

    others = powers.shape[-1] - 1
    if others < 1:
        return np.ones_like(mean)
    variance = others * powers.var(-1, ddof=1) / chi2.ppf(_CONFIDENCE, others)
    shown = np.divide(2.0 * mean**2, variance, out=np.full_like(mean, float(others)), where=variance > 0)
    free: Array = np.clip(shown, 1.0, float(others))
    return free


def _compare_powers(name: str, power: float, powers: Sequence[float], words: str) -> Verdict:
    drawn = np.array(powers, np.float64)
    expected = math.sqrt(float(drawn.mean())) if drawn.size else 0.0
    allowed = math.sqrt(float(allowed_power(drawn[None])[0])) if expected > 0 else 0.0
    seen = math.sqrt(power)
    reason = f"{words} {expected:.1e}, allowed {allowed:.1e}, seen {seen:.1e}"
    return Verdict(name=name, agrees=seen <= allowed, reason=reason, seen=seen, expected=expected, allowed=allowed)


def allowed_count(counts: Sequence[float]) -> float:
    """The largest count that those of the draws explain, but for `FALSE_ALARMS`; 0 where none of them counts any."""
    from scipy.stats import nbinom

    draws, total = len(counts), float(np.sum(counts))
    if not total:
        return 0.0
    dispersion = max(1.0, float(np.var(counts, ddof=1)) * draws / total) if draws > 1 else 1.0
    bound: Callable[..., float] = nbinom.isf
    return dispersion * float(bound(FALSE_ALARMS, total / dispersion + 0.5, draws / (draws + 1.0)))


def _compare_counts(name: str, seen: float, counts: Sequence[float], words: str) -> Verdict:
    expected, allowed = float(np.mean(counts)) if counts else 0.0, allowed_count(counts)
    reason = f"{words} {expected:.3g}, allowed {allowed:.3g}, seen {seen:.0f}"
    return Verdict(name=name, agrees=seen <= allowed, reason=reason, seen=seen, expected=expected, allowed=allowed)


def _broken(name: str, why: str) -> Verdict:
    return Verdict(name=name, agrees=False, reason=why, seen=math.inf, expected=0.0, allowed=0.0)
