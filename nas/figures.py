"""The figures of a candidate: what can be an objective or a limit, in which unit, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FigureKind:
    """A figure that can be an objective: unit, where it comes from, and whether it costs no training to know it."""

    unit: str
    origin: str
    cheap: bool


FIGURES: Mapping[str, FigureKind] = {
    "accuracy": FigureKind(unit="the metric's", origin="measured", cheap=False),
    "latency_ms": FigureKind(unit="ms", origin="measured", cheap=False),
    "predicted_ms": FigureKind(unit="ms", origin="modelled", cheap=True),
    "macs": FigureKind(unit="MAC", origin="modelled", cheap=True),
    "weight_bytes": FigureKind(unit="bytes", origin="modelled", cheap=True),
    "activation_bytes": FigureKind(unit="bytes", origin="modelled", cheap=True),
}
