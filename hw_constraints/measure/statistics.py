"""Statistics of repeated latency measurements: medians with their spread, paired ratios with their interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bitwright.hw_constraints.measure.location import location_interval


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How long one candidate takes in relation to another, over paired rounds.

    Attributes:
        value: Hodges-Lehmann estimate of time / reference time.
        low: lower bound of the 95 % interval.
        high: upper bound of the 95 % interval.
        rounds: pairs it rests on.
    """

    value: float
    low: float
    high: float
    rounds: int

    @property
    def verdict(self) -> str:
        """`faster` or `slower` when the interval excludes 1, else `within noise`."""
        if self.high < 1.0:
            return "faster"
        return "slower" if self.low > 1.0 else "within noise"

    @property
    def half_width(self) -> float:
        """Half of the interval's width in relation to the value."""
        return (self.high - self.low) / 2 / self.value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.verdict}, {self.rounds} rounds)"


def paired_ratio(times: Sequence[float], reference: Sequence[float]) -> Ratio:
    """The ratio of two candidates that were timed in the same rounds.

    The interval is that of Wilcoxon's signed-rank test on log(time / reference): all shifts that the test does not
    reject at 5 %. It needs no normal distribution; fewer than 6 pairs cannot exclude anything.
    Hollander, Wolfe, Chicken: Nonparametric Statistical Methods, 3rd edition, sections 3.2 and 3.3.

    Args:
        times: one per round, positive, any unit.
        reference: the other candidate's in the same rounds and unit.

    Raises:
        ValueError: lengths differ, there are none, or one is not positive.
    """
    if len(times) != len(reference) or not len(times):
        raise ValueError(f"{len(times)} and {len(reference)} times: pairs are needed")
    logs = np.log(np.asarray(times, np.float64)) - np.log(np.asarray(reference, np.float64))
    if not np.all(np.isfinite(logs)):
        raise ValueError("times must be positive and finite")
    center, low, high = location_interval(logs.tolist())
    return Ratio(value=math.exp(center), low=_exp(low), high=_exp(high), rounds=len(logs))


def median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    """Median and interquartile range, in the unit of the times."""
    low, middle, high = np.percentile(np.asarray(times, np.float64), [25, 50, 75])
    return float(middle), float(high - low)


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(np.float64).max) else math.inf
