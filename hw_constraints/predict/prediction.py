"""What a prediction says: a latency with its interval, kernel by kernel, and how far it can be trusted, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitwright.hw_constraints.kernels.kernel import Kernel

WIDE = 0.25  # half-width of an interval, relative: beyond, the answer is called unsure


@dataclass(frozen=True, kw_only=True)
class LayerLatency:
    """One kernel in its place.

    Attributes:
        kernel: what runs.
        layers: names of the values that it computes.
        us: its share of the network's latency.
        spread: standard deviation of its logarithm.
        measured: whether this very kernel is in the table.
        outside: in words, how it lies outside what was measured.
    """

    kernel: Kernel
    layers: tuple[str, ...]
    us: float
    spread: float
    measured: bool
    outside: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kernel": str(self.kernel),
            "family": str(self.kernel.family),
            "format": self.kernel.format,
            "layers": list(self.layers),
            "us": self.us,
            "relative_spread": self.spread,
            "measured": self.measured,
            "outside": list(self.outside),
        }


@dataclass(frozen=True, kw_only=True)
class NetworkPrediction:
    """A whole network.

    Attributes:
        us: its latency.
        low: the interval's lower bound, µs.
        high: the interval's upper bound, µs.
        level: how often such intervals cover.
        spread: the predictor's own standard deviation of log latency, before calibration.
        overheads: µs that belong to no kernel, by name.
        layers: the kernels in the order in which they run.
        where: device, runtime and threads that it holds for.
    """

    us: float
    low: float
    high: float
    level: float
    spread: float
    overheads: Mapping[str, float]
    layers: tuple[LayerLatency, ...]
    where: str

    @property
    def half_width(self) -> float:
        """Half of the interval, relative to the latency."""
        return (self.high - self.low) / 2 / self.us

    @property
    def is_sure(self) -> bool:
        """Whether the interval is narrow enough to decide by."""
        return self.half_width <= WIDE

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it may be off: kernels outside what was measured, the costliest first."""
        odd = sorted((layer for layer in self.layers if layer.outside), key=lambda layer: -layer.us)
        share = {id(layer): 100 * layer.us / self.us for layer in odd}
        return tuple(
            f"{layer.layers[-1]} ({layer.kernel}, {share[id(layer)]:.0f} % of the time): {'; '.join(layer.outside)}"
            for layer in odd
        )

    def __str__(self) -> str:
        said = f"{_time(self.us)} [{_time(self.low)}, {_time(self.high)}] at {100 * self.level:.0f} % on {self.where}"
        return said if self.is_sure else f"unsure: {said}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "origin": "predicted",
            "us": self.us,
            "interval_us": [self.low, self.high],
            "level": self.level,
            "is_sure": self.is_sure,
            "doubts": list(self.doubts),
            "where": self.where,
            "overheads_us": dict(self.overheads),
            "layers": [layer.to_json() for layer in self.layers],
        }


def _time(us: float) -> str:
    return f"{us / 1e3:.3f} ms" if us >= 1000 else f"{us:.1f} µs"
