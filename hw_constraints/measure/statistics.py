"""Statistics of repeated latency measurements: medians with their spread, paired ratios with their interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_EXACT_UP_TO = 60  # pairs; beyond, the signed-rank distribution is normal to far less than one rank in the interval
_CONFIDENCE = 0.95


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
    center, low, high = location_interval(logs)
    return Ratio(value=math.exp(center), low=_exp(low), high=_exp(high), rounds=len(logs))


def location_interval(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Hodges-Lehmann estimate of the centre and its 95 % interval; infinite bounds below 6 values."""
    rows, columns = np.triu_indices(len(values))
    walsh = np.sort((values[rows] + values[columns]) / 2)
    center = float(np.median(walsh))
    cut = rejected_ranks(len(values), (1 - _CONFIDENCE) / 2)
    if cut < 0:
        return center, -math.inf, math.inf
    return center, float(walsh[cut]), float(walsh[len(walsh) - 1 - cut])


@cache
def rejected_ranks(pairs: int, tail: float) -> int:
    """The largest w with P(W <= w) <= tail for the signed-rank statistic W of `pairs` pairs; -1 when there is none."""
    if pairs > _EXACT_UP_TO:
        mean = pairs * (pairs + 1) / 4
        deviation = math.sqrt(pairs * (pairs + 1) * (2 * pairs + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(tail) * deviation - 0.5)
    ways = np.ones(1)
    for rank in range(1, pairs + 1):  # each rank counts for W or does not: convolve with {0, rank}
        ways = np.concatenate([ways, np.zeros(rank)]) + np.concatenate([np.zeros(rank), ways])
    probability = np.cumsum(ways) / 2.0**pairs
    return int(np.searchsorted(probability, tail, side="right")) - 1


def median_and_spread(times: Sequence[float]) -> tuple[float, float]:
    """Median and interquartile range, in the unit of the times."""
    low, middle, high = np.percentile(np.asarray(times, np.float64), [25, 50, 75])
    return float(middle), float(high - low)


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(np.float64).max) else math.inf
