"""In how much of its range one front of latencies and accuracies is dominated by another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.nas import pareto


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of the range of another front, in logarithms of latency, the shares where this one is better, equal and worse."""

    better: float
    equal: float
    worse: float


Point = tuple[float, float]


def shares_of_range(own: Sequence[Point], others: Sequence[Point]) -> Shares:
    """Compares two fronts budget by budget, from the fastest to the slowest network of the other front.

    Within a latency budget each front offers its most accurate network, of equally accurate ones the fastest. Ours is
    better where it is more accurate, or as accurate and faster; a network that both have found is equal. A budget's
    weight is its share of the range of log latency, since latencies are ratios.

    Args:
        own: milliseconds and accuracy of each network.
        others: likewise; dominated ones among them are left out, so that they do not widen the range.
    """
    turned = [(ms, -accuracy) for ms, accuracy in others]
    front = sorted(others[index] for index in pareto.non_dominated(turned))
    low, high = front[0][0], front[-1][0]
    edges = sorted({low, high, *(ms for ms, _ in (*own, *front) if low < ms < high)})
    weights = {"better": 0.0, "equal": 0.0, "worse": 0.0}
    for begin, end in itertools.pairwise(edges):
        ours, theirs = _offered(own, begin), _offered(front, begin)
        kind = "better" if ours > theirs else "equal" if ours == theirs else "worse"
        weights[kind] += math.log(end / begin) / math.log(high / low)
    if not edges[1:]:  # one network: its own budget is the whole range
        ours, theirs = _offered(own, low), _offered(front, low)
        weights["better" if ours > theirs else "equal" if ours == theirs else "worse"] = 1.0
    return Shares(**weights)


def _offered(front: Sequence[Point], budget: float) -> tuple[float, float]:
    """Accuracy and negative latency of the best within a budget."""
    within = [(accuracy, -ms) for ms, accuracy in front if ms <= budget]
    return max(within, default=(-math.inf, -math.inf))
