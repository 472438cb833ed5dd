"""What a candidate has to beat: the front so far, and how far candidates rise above what they are first seen to be.

A candidate that even at the good ends of its intervals is dominated by something measured is not trained or measured
on. Its accuracy is bounded by what it inherits from shared weights, or scores in the midst of its training, and the
gains of those that were scored from there on; its latency by the low end of the prediction's interval. So cheap
fidelities decide about dear ones with any number of objectives, where Optuna's pruners take a single one.
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
_RUNG = "accuracy_after_"
# The figure that bounds an objective from its good side before it is measured.
_BOUNDS: Mapping[str, str] = {"latency_ms": "predicted_ms_low"}


def rung(share: float) -> str:
    """The figure of a network's accuracy, in float, after a share of its training."""
    return f"{_RUNG}{share:g}"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Of a search at one moment; travels with a candidate to where it is evaluated.

    Attributes:
        front: objectives of the best, turned so that less is better.
        gains: by how much the accuracy is better at most than an early figure of it was, by the figure's name; those
            that are not known yet are not there.
    """

    front: tuple[tuple[float, ...], ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)


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
    _gains: dict[str, list[float]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """One more result."""
        if result.outcome is not Outcome.SCORED:
            return
        losses = pareto.losses([result.figures[name] for name in self.objectives], self.maximize)
        if not any(pareto.dominates(each, losses) or each == losses for each in self._front):
            self._front = [each for each in self._front if not pareto.dominates(losses, each)] + [losses]
        if ACCURACY in self.objectives:
            up = self.maximize[list(self.objectives).index(ACCURACY)]
            for name in early_figures(result.figures):
                gain = result.figures[ACCURACY] - result.figures[name]
                self._gains.setdefault(name, []).append(gain if up else -gain)

    @property
    def now(self) -> Standing:
        """A gain is the upper end of a conformal interval: the next gain exceeds it with a chance of at most 5 %.

        That is the k-th smallest of n gains, k = ceil((n + 1) * 0.95), when the next candidate is as any before it
        (Vovk et al. 2005; Lei et al. 2018, Distribution-free predictive inference for regression); with fewer than 19
        there is none. Candidates that were given up have no gain, so those seen are the promising ones.
        """
        gains = {}
        for name, seen in self._gains.items():
            rank = math.ceil((len(seen) + 1) * (1 - _RISK))
            if rank <= len(seen):
                gains[name] = sorted(seen)[rank - 1]
        return Standing(front=tuple(self._front), gains=gains)


def early_figures(figures: Mapping[str, float]) -> list[str]:
    """Names of accuracies that are known before a training has ended, the earliest first."""
    rungs = sorted((name for name in figures if name.startswith(_RUNG)), key=lambda name: float(name[len(_RUNG) :]))
    return [*([INHERITED] if INHERITED in figures else []), *rungs]


def best_case(
    figures: Mapping[str, float],
    objectives: Sequence[str],
    maximize: Sequence[bool],
    standing: Standing,
    *,
    first_share: float = 1.0,
) -> tuple[float, ...]:
    """The objectives at the good ends of their intervals, less is better; -inf where nothing bounds them.

    Args:
        figures: what is known of the candidate.
        objectives: names of figures.
        maximize: the direction of each.
        standing: what it has to beat.
        first_share: see `Setup.first_share`; latencies are predicted on the first target.
    """
    found = []
    for name, up in zip(objectives, maximize, strict=True):
        sign = -1.0 if up else 1.0
        if name in figures:
            found.append(sign * figures[name])
        elif name == ACCURACY and (early := [each for each in early_figures(figures) if each in standing.gains]):
            found.append(sign * figures[early[-1]] - standing.gains[early[-1]])
        else:
            bound = _BOUNDS.get(name, "")
            found.append(figures[bound] * first_share if bound in figures else -math.inf)
    return tuple(found)


def rival(best: Sequence[float], standing: Standing) -> tuple[float, ...] | None:
    """One of the front that is better even than the best case; None when nothing is."""
    return next((each for each in standing.front if pareto.dominates(each, best)), None)
