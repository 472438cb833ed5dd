"""What a candidate has to beat: the front so far, and how far candidates rise above what they are first seen to be.

A candidate that even at the good ends of its intervals is dominated by something measured is not trained or measured
on. Its accuracy is bounded by what it inherits from shared weights and the gains of those that were scored; its latency
by the low end of the prediction's interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bitwright.nas import pareto
from bitwright.nas.result import Outcome, Result

# Of a candidate that would have reached the front, the chance that it is given up for its accuracy.
_RISK = 0.05

INHERITED, ACCURACY = "inherited_accuracy", "accuracy"
# The figure that bounds an objective from its good side before it is measured.
_BOUNDS: Mapping[str, str] = {"latency_ms": "predicted_ms_low"}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Of a search at one moment; travels with a candidate to where it is evaluated.

    Attributes:
        front: objectives of the best, turned so that less is better.
        gain: by how much training betters the inherited accuracy at most; None while that is not known.
    """

    front: tuple[tuple[float, ...], ...] = ()
    gain: float | None = None


@dataclass
class Standings:
    """The standing as results come in.

    Attributes:
        objectives: names of figures.
        maximize: the direction of each.
    """

    objectives: Sequence[str]
    maximize: Sequence[bool]
    _front: list[tuple[float, ...]] = field(default_factory=list)
    _gains: list[float] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """One more result."""
        if result.outcome is not Outcome.SCORED:
            return
        losses = pareto.losses([result.figures[name] for name in self.objectives], self.maximize)
        if not any(pareto.dominates(each, losses) or each == losses for each in self._front):
            self._front = [each for each in self._front if not pareto.dominates(losses, each)] + [losses]
        if INHERITED in result.figures and ACCURACY in self.objectives:
            up = self.maximize[list(self.objectives).index(ACCURACY)]
            gain = result.figures[ACCURACY] - result.figures[INHERITED]
            self._gains.append(gain if up else -gain)

    @property
    def now(self) -> Standing:
        """The gain is the upper end of a conformal interval: the next gain exceeds it with a chance of at most 5 %.

        That is the k-th smallest of n gains, k = ceil((n + 1) * 0.95), when the next candidate is as any before it
        (Vovk et al. 2005; Lei et al. 2018, Distribution-free predictive inference for regression); with fewer than 19
        there is none. Candidates that were given up have no gain, so those seen are the promising ones.
        """
        rank = math.ceil((len(self._gains) + 1) * (1 - _RISK))
        gain = sorted(self._gains)[rank - 1] if rank <= len(self._gains) else None
        return Standing(front=tuple(self._front), gain=gain)


def best_case(
    figures: Mapping[str, float], objectives: Sequence[str], maximize: Sequence[bool], standing: Standing
) -> tuple[float, ...]:
    """The objectives at the good ends of their intervals, less is better; -inf where nothing bounds them."""
    found = []
    for name, up in zip(objectives, maximize, strict=True):
        sign = -1.0 if up else 1.0
        if name in figures:
            found.append(sign * figures[name])
        elif name == ACCURACY and INHERITED in figures and standing.gain is not None:
            found.append(sign * figures[INHERITED] - standing.gain)
        else:
            found.append(figures.get(_BOUNDS.get(name, ""), -math.inf))
    return tuple(found)


def rival(best: Sequence[float], standing: Standing) -> tuple[float, ...] | None:
    """One of the front that is better even than the best case; None when nothing is."""
    return next((each for each in standing.front if pareto.dominates(each, best)), None)
