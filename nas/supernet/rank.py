"""How far inherited scores order candidates as stand-alone training does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.quant.errors import InputError

_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Kendall's tau-b with a 95 % interval.

    Attributes:
        tau: from -1 to 1; (1 + tau) / 2 of the pairs without ties are ordered alike.
        low: of the interval over candidates.
        high: likewise.
        n: candidates.
    """

    tau: float
    low: float
    high: float
    n: int


def rank_correlation(inherited: Sequence[float], stand_alone: Sequence[float], *, seed: int = 0) -> RankCorrelation:
    """Kendall's tau-b (Kendall 1945: ties count in neither direction), interval by resampling candidates.

    Args:
        inherited: scores, in the order of the candidates.
        stand_alone: scores of the same candidates.
        seed: of the resampling, a percentile bootstrap: candidates are drawn with replacement, in pairs of scores.

    Raises:
        InputError: fewer than three candidates, different numbers of scores, or all scores of one side equal.
    """
    from scipy import stats

    a, b = np.asarray(inherited, dtype=float), np.asarray(stand_alone, dtype=float)
    if a.shape != b.shape or len(a) < 3:
        raise InputError(f"rank correlation: {len(a)} and {len(b)} scores; give as many of both, at least 3")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InputError("rank correlation: all scores of one side are equal; they order nothing")

    def tau(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
        return float(stats.kendalltau(x, y).statistic)

    interval = stats.bootstrap(
        (a, b),
        tau,
        paired=True,
        vectorized=False,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return RankCorrelation(tau=tau(a, b), low=float(interval.low), high=float(interval.high), n=len(a))
