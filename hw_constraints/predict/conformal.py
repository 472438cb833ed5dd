"""Intervals that cover as often as they say, whatever the predictor's errors look like.

Split conformal prediction with scores normalized by the predictor's own uncertainty, for data in groups: networks of
one family err alike, so the family and not the network is what is drawn at random. Each group weighs the same, however
many networks it has, and a group that was never seen keeps its own share of the probability: that is hierarchical
conformal prediction (Lee, Barber, Willett: Distribution-free inference with hierarchical data, 2023, section 3).
The interval of a network from a new family covers its latency with probability >= the level, over the draw of families.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from bitwright.quant.errors import InputError

LEVEL = 0.9


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """What calibration has found.

    Attributes:
        factor: half-width of an interval in units of the predictor's uncertainty; infinite when there are too few
            groups to promise the level.
        level: the probability that an interval covers.
        groups: how many the factor rests on.
        samples: in all of them.
        drift: standard deviation of log value between the hours of calibration and those of use, which no score has
            seen: all calibration data are of one session.
    """

    factor: float
    level: float
    groups: int
    samples: int
    drift: float = 0.0

    def interval(self, log_value: float, log_scale: float) -> tuple[float, float]:
        """The bounds, in the value's unit, of `exp(log_value ± sqrt((factor * log_scale)² + (z * drift)²))`."""
        z = NormalDist().inv_cdf((1 + self.level) / 2)
        half = math.hypot(self.factor * log_scale, z * self.drift)
        return math.exp(log_value - half), _exp(log_value + half)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "factor": self.factor,
            "level": self.level,
            "groups": self.groups,
            "samples": self.samples,
            "drift": self.drift,
        }


def calibrate(scores: Mapping[str, Sequence[float]], *, level: float = LEVEL) -> Conformal:
    """The factor from scores |log measured - log predicted| / scale of data that the predictor was not fitted to.

    With K groups of n_k scores each score has the mass 1 / ((K + 1) n_k), and 1 / (K + 1) lies at infinity for the
    group to come; the factor is the smallest score that has at least `level` of the mass at or below it. Fewer
    than `level / (1 - level)` groups (9 for 90 %) cannot promise anything but an infinite interval.

    Raises:
        InputError: the level is not between 0 and 1, a group is empty, or a score is no number.
    """
    if not 0 < level < 1:
        raise InputError(f"level = {level}; an interval covers with a probability between 0 and 1")
    for group, values in scores.items():
        if not len(values) or not np.all(np.isfinite(values)):
            raise InputError(f"calibration group {group!r} has {len(values)} scores, all must be finite: {values!r}")
    every = np.concatenate([np.asarray(values, np.float64) for values in scores.values()] or [np.empty(0)])
    mass = np.concatenate([np.full(len(v), 1 / ((len(scores) + 1) * len(v))) for v in scores.values()] or [every])
    order = np.argsort(every, kind="stable")
    reached = np.flatnonzero(np.cumsum(mass[order]) >= level - 1e-12)
    factor = float(every[order][reached[0]]) if len(reached) else math.inf
    return Conformal(factor=factor, level=level, groups=len(scores), samples=len(every))


def leave_one_group_out(scores: Mapping[str, Sequence[float]], *, level: float = LEVEL) -> dict[str, Conformal]:
    """For each group the calibration that knows all others: what a network of a new family would have been given."""
    return {
        group: calibrate({other: values for other, values in scores.items() if other != group}, level=level)
        for group in scores
    }


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(np.float64).max) else math.inf
