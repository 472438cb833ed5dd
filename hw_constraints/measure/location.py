"""The centre of repeated measurements and its interval: Hodges-Lehmann and Wilcoxon's signed-rank test.

Standard library of Python 3.8 alone: the runner on a device decides with it when it has measured enough.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXACT_UP_TO = 60  # pairs; beyond, the signed-rank distribution is normal to far less than one rank in the interval
_CONFIDENCE = 0.95


def location_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Hodges-Lehmann estimate of the centre and its 95 % interval; infinite bounds below 6 values.

    The estimate is the median of the n(n + 1)/2 averages of two values, the bounds are averages near both ends.
    Hollander, Wolfe, Chicken: Nonparametric Statistical Methods, 3rd edition, sections 3.2 and 3.3.
    """
    averages = _PairAverages(values)
    center = (averages.at((averages.count - 1) // 2) + averages.at(averages.count // 2)) / 2
    cut = rejected_ranks(len(values), (1 - _CONFIDENCE) / 2)
    if cut < 0:
        return center, -math.inf, math.inf
    return center, averages.at(cut), averages.at(averages.count - 1 - cut)


class _PairAverages:
    """The averages (x_i + x_j) / 2, i <= j, in order of size, without forming all of them.

    Where the values are sorted, those up to a limit are counted in one walk along the edge of the triangle, so a rank
    is found by bisection and the few averages that are left are sorted: O(n log n) time and O(n) room.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self._values = sorted(map(float, values))
        self.count = len(values) * (len(values) + 1) // 2

    def at(self, rank: int) -> float:
        """The average of that rank, from 0."""
        low, high = self._values[0], self._values[-1]
        below = 0  # averages that are known to be smaller than those between low and high
        up_to = self.count
        inclusive = True  # whether those that equal `low` are still candidates
        while up_to - below > 2 * len(self._values):
            middle = low + (high - low) / 2
            if not low < middle < high:  # the many that are left are equal
                return low if inclusive and self._up_to(low) > rank else high
            within = self._up_to(middle)
            if within > rank:
                high, up_to = middle, within
            else:
                low, below, inclusive = middle, within, False
        return sorted(self._between(low, high, inclusive=inclusive))[rank - below]

    def _up_to(self, limit: float) -> int:
        values, column, found = self._values, len(self._values) - 1, 0
        for row, value in enumerate(values):
            while column >= row and (value + values[column]) / 2 > limit:
                column -= 1
            if column < row:
                break
            found += column - row + 1
        return found

    def _between(self, low: float, high: float, *, inclusive: bool) -> list[float]:
        values, found = self._values, []
        for row, value in enumerate(values):
            # A place to start from; the averages themselves decide, because the differences are rounded.
            start = max(row, bisect_right(values, 2 * low - value) - 1)
            while start > row and (value + values[start]) / 2 >= low:
                start -= 1
            for other in values[start:]:
                average = (value + other) / 2
                if average > high:
                    break
                if average > low or (inclusive and average == low):
                    found.append(average)
        return found


@lru_cache(maxsize=None)
def rejected_ranks(pairs: int, tail: float) -> int:
    """The largest w with P(W <= w) <= tail for the signed-rank statistic W of `pairs` pairs; -1 when there is none."""
    if pairs > _EXACT_UP_TO:
        mean = pairs * (pairs + 1) / 4
        deviation = math.sqrt(pairs * (pairs + 1) * (2 * pairs + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(tail) * deviation - 0.5)
    ways = _ways(pairs)
    rejected, total = 0.0, 2**pairs
    for rank, count in enumerate(ways):
        rejected += count
        if rejected / total > tail:
            return rank - 1
    return len(ways) - 1


@lru_cache(maxsize=None)
def _ways(pairs: int) -> tuple[int, ...]:
    """In how many ways the ranks 1 .. pairs, each counted or not, add up to 0, 1, 2 and so on."""
    if pairs == 0:
        return (1,)
    fewer = _ways(pairs - 1)
    without, counted = (*fewer, *[0] * pairs), (*[0] * pairs, *fewer)
    return tuple(left + right for left, right in zip(without, counted))


def widest_half_width(times: Mapping[str, Sequence[float]]) -> float:
    """The widest interval's half-width: of the ratios to the first candidate, of the time itself for a lone one."""
    reference, *others = ([math.log(time) for time in each] for each in times.values())
    if not others:
        _, low, high = location_interval(reference)
        return math.expm1((high - low) / 2) if math.isfinite(high) else math.inf
    return max(_half_width([time - base for time, base in zip(other, reference)]) for other in others)


def _half_width(logs: Sequence[float]) -> float:
    """Half of the interval's width in relation to the value, of logarithms' location."""
    center, low, high = location_interval(logs)
    return (math.exp(high - center) - math.exp(low - center)) / 2 if math.isfinite(high) else math.inf
