"""The figures of a candidate: what can be an objective or a limit, in which unit, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FigureKind:
    """A figure that can be an objective or a limit.

    Attributes:
        unit: of its values.
        origin: where they come from.
        cheap: whether it costs no training to know it.
        better: which way is good; of `metric` the recipe's metric decides.
    """

    unit: str
    origin: str
    cheap: bool
    better: Literal["less", "more", "metric"] = "less"


FIGURES: Mapping[str, FigureKind] = {
    "accuracy": FigureKind(unit="the metric's", origin="measured", cheap=False, better="metric"),
    "latency_ms": FigureKind(unit="ms", origin="measured", cheap=False),
    "predicted_ms": FigureKind(unit="ms", origin="modelled", cheap=True),
    "modelled_ms": FigureKind(unit="ms", origin="modelled", cheap=True),
    "modelled_uj": FigureKind(unit="µJ", origin="modelled", cheap=True),
    "macs": FigureKind(unit="MAC", origin="modelled", cheap=True),
    "weight_bytes": FigureKind(unit="bytes", origin="modelled", cheap=True),
    "activation_bytes": FigureKind(unit="bytes", origin="modelled", cheap=True),
    "naswot": FigureKind(unit="log det", origin="modelled", cheap=True, better="more"),
    "synflow": FigureKind(unit="log", origin="modelled", cheap=True, better="more"),
    "inherited_accuracy": FigureKind(unit="the metric's", origin="measured", cheap=True, better="metric"),
    "scratch_accuracy": FigureKind(unit="the metric's", origin="measured", cheap=False, better="metric"),
}

# Of the front only, when the search has ended; all others can be searched for.
SCRATCH = "scratch_accuracy"
SOUGHT = tuple(name for name in FIGURES if name != SCRATCH)
LOWERED = ("modelled_ms", "modelled_uj")
ZERO_COST = ("naswot", "synflow")


def is_more_better(name: str, *, higher_is_better: bool) -> bool:
    """Whether a figure should be large, with the direction of the recipe's metric."""
    better = FIGURES[name].better
    return higher_is_better if better == "metric" else better == "more"


def combined(by_target: Mapping[str, float], *, weights: Mapping[str, float] | None, higher_is_better: bool) -> float:
    """One figure of several targets: the worst, or the mean by weights over those that have it."""
    if weights is None:
        return min(by_target.values()) if higher_is_better else max(by_target.values())
    total = sum(weights[target] for target in by_target)
    return sum(value * weights[target] for target, value in by_target.items()) / total


def short(value: float, digits: int = 6) -> str:
    """A number on an axis: `0.25`, `8.652`, `1.076 M`; so many significant digits, no exponent below 10¹²."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if factor <= abs(value) < 1e12:
            return f"{value / (1e3 if prefix == 'k' else factor):.{digits}g} {prefix}"
    return f"{value:.{digits}g}"
